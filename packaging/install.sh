#!/bin/sh
# packaging/install.sh BINARY: puts the program and all that belongs to it in
# place. "make install" and "make packages" both use it.
#
#   DESTDIR     in front of every path, for packagers
#   PREFIX      /usr/local
#   SYSCONFDIR  /etc
#   ZSHDIR      where zsh looks for completions, below PREFIX
#   HOST        the program to run for manual pages, completions and the default
#               configuration, when BINARY is for another machine
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
binary=$1
host=${HOST:-$binary}
prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
usr=$dest$prefix
etc=$dest${SYSCONFDIR:-/etc}
zsh=$usr/${ZSHDIR:-share/zsh/site-functions}
epoch=$("$top/packaging/version.sh" epoch)

put() { # put MODE SOURCE TARGET
	install -D -m "$1" "$2" "$3"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

put 755 "$binary" "$usr/bin/tlspolicyd"

sed "s|/usr/bin/tlspolicyd|$prefix/bin/tlspolicyd|" "$top/packaging/systemd/tlspolicyd.service" >"$work/service"
put 644 "$work/service" "$usr/lib/systemd/system/tlspolicyd.service"
put 644 "$top/packaging/systemd/tlspolicyd.socket" "$usr/lib/systemd/system/tlspolicyd.socket"
put 644 "$top/packaging/systemd/tlspolicyd.sysusers" "$usr/lib/sysusers.d/tlspolicyd.conf"
put 644 "$top/packaging/systemd/tlspolicyd.tmpfiles" "$usr/lib/tmpfiles.d/tlspolicyd.conf"

sed "s|/usr/bin/tlspolicyd|$prefix/bin/tlspolicyd|" "$top/packaging/apparmor/tlspolicyd" >"$work/apparmor"
put 644 "$work/apparmor" "$etc/apparmor.d/tlspolicyd"

# Every setting is there as a comment: what the operator does not set follows
# the defaults of later versions.
{
	cat <<'TEXT'
# Configuration of tlspolicyd, see tlspolicyd.toml(5). Commented out is what
# applies by itself. After a change: systemctl reload tlspolicyd.

TEXT
	RUNTIME_DIRECTORY=/run/tlspolicyd STATE_DIRECTORY=/var/lib/tlspolicyd \
		"$host" config show --config /dev/null | sed 's/^[a-z_]* = /#&/'
} >"$work/toml"
# The operator's own file stays.
if [ -e "$etc/tlspolicyd/tlspolicyd.toml" ]; then
	put 644 "$work/toml" "$etc/tlspolicyd/tlspolicyd.toml.new"
else
	put 644 "$work/toml" "$etc/tlspolicyd/tlspolicyd.toml"
fi

mkdir "$work/man"
SOURCE_DATE_EPOCH=$epoch "$host" man "$work/man"
for page in "$work"/man/*; do
	gzip -9n "$page"
	put 644 "$page.gz" "$usr/share/man/man${page##*.}/${page##*/}.gz"
done

"$host" completion bash >"$work/bash"
"$host" completion zsh >"$work/zsh"
"$host" completion fish >"$work/fish"
put 644 "$work/bash" "$usr/share/bash-completion/completions/tlspolicyd"
put 644 "$work/zsh" "$zsh/_tlspolicyd"
put 644 "$work/fish" "$usr/share/fish/vendor_completions.d/tlspolicyd.fish"
