#!/bin/sh
# Prints the licences of all modules that are linked into the program: most of
# them ask for that wherever the binary goes.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}

licence() { # licence NAME DIRECTORY
	printf '%s\n%s\n\n' "$1" "$(printf '%s' "$1" | sed 's/./=/g')"
	found=
	for f in "$2"/LICENSE* "$2"/LICENCE* "$2"/COPYING* "$2"/COPYRIGHT* "$2"/NOTICE*; do
		[ -f "$f" ] || continue
		found=yes
		tr -d '\r' <"$f"
		echo
	done
	[ -n "$found" ] || {
		echo "packaging/licences.sh: no licence file of $1 in $2" >&2
		exit 1
	}
}

cat <<'TEXT'
The program is made of these modules. Each is under its own licence, which
follows below its name.

TEXT
for go_dir in "$($go env GOROOT)" /usr/share/licenses/go*; do # some distributions move it
	[ ! -f "$go_dir/LICENSE" ] || break
done
licence "The Go standard library and runtime" "$go_dir"
# In a tarball the modules are in vendor/, and Dir is empty.
$go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' ./cmd/tlspolicyd |
	LC_ALL=C sort -u | while read -r path dir; do
	licence "$path" "${dir:-vendor/$path}"
done
