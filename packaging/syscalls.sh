#!/usr/bin/env bash
# Holds the system calls that the daemon makes in `make demo` (DNS over UDP and
# TCP, HTTPS through a proxy, lookups, the database, start and stop) against the
# filter in its unit. The daemon to run is the argument, or bin/tlspolicyd. Needs strace and systemd-analyze, not root.
set -euo pipefail
cd "$(dirname "$0")/.."

daemon=$(realpath "${1:-bin/tlspolicyd}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() { echo "syscalls: $*" >&2 && exit 1; }

# expand GROUP...: the system calls in these groups, and in groups within
expand() {
	local name
	for name in "$@"; do
		case $name in
		@*)
			local members
			members=$(systemd-analyze syscall-filter --no-pager "$name" | sed '1d; s/#.*//')
			# shellcheck disable=SC2086 # one word each
			expand $members
			;;
		*) echo "$name" ;;
		esac
	done | sort -u
}

allowed=() denied=()
while read -r line; do
	case $line in
	"~"*) read -ra denied <<<"${line#"~"}" ;;
	*) read -ra allowed <<<"$line" ;;
	esac
done < <(sed -n 's/^SystemCallFilter=//p' packaging/systemd/tlspolicyd.service)
if [ ${#allowed[@]} = 0 ] || [ ${#denied[@]} = 0 ]; then
	die "the unit has another filter than this script knows"
fi
comm -23 <(expand "${allowed[@]}") <(expand "${denied[@]}") >"$work/filter"

cat >"$work/tlspolicyd" <<END
#!/bin/sh
exec strace -D -f -qq -o "$work/trace" "$daemon" "\$@"
END
chmod +x "$work/tlspolicyd"
"${GO:-go}" run ./testing/demo -daemon "$work/tlspolicyd" >"$work/demo" 2>&1 ||
	{ cat "$work/demo" && die "the demo failed"; }
for _ in $(seq 600); do # strace may be writing its last lines
	! grep -q 'exit_group(0' "$work/trace" || break
	sleep 0.1
done
grep -q 'exit_group(0' "$work/trace" || die "the daemon's end was not seen"

# strace's own exec is the daemon's first line, and systemd's under the unit.
sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$work/trace" | sort -u >"$work/made"
for call in connect fdatasync accept4; do
	grep -qx "$call" "$work/made" || die "$call was not seen"
done
if left=$(comm -23 "$work/made" "$work/filter") && [ -n "$left" ]; then
	die "the unit's filter refuses what the daemon does: $left"
fi
echo "$(wc -l <"$work/made") system calls, all of them in the unit's filter of $(wc -l <"$work/filter")"
