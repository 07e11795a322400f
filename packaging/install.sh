#!/bin/sh
# packaging/install.sh BINARY [uninstall]: the one list of the files that belong to
# the program. Puts them in place, or removes them again but for the configuration
# that the operator may have changed. "make install", "make packages", debian/, the
# RPM spec and the other recipes in packaging/ all use it.
#
#   DESTDIR     in front of every path, for packagers
#   PREFIX      /usr/local
#   SYSCONFDIR  /etc
#   INIT        systemd, openrc or none: whose service files; systemd
#   APPARMOR    yes or no: the AppArmor profile; by default where this host has
#               SYSCONFDIR/apparmor.d
#   ZSHDIR      completions for zsh, below PREFIX: share/zsh/site-functions
#   LICENSEDIR  the licence, below PREFIX: share/licenses/tlspolicyd
#   HOST        the program to run for manual pages, completions and the default
#               configuration, when BINARY is for another machine
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
binary=$1
verb=${2:-install}
host=${HOST:-$binary}
prefix=${PREFIX:-/usr/local}
usr=${DESTDIR:-}$prefix
etc=${DESTDIR:-}${SYSCONFDIR:-/etc}
epoch=$("$top/packaging/version.sh" epoch)
umask 022

put() { # put MODE SOURCE TARGET
	case $verb in
	install) install -D -m "$1" "$2" "$3" ;;
	uninstall) rm -f "$3" ;;
	esac
}

put_prefixed() { # put_prefixed MODE SOURCE TARGET: where SOURCE names /usr/bin
	sed "s|/usr/bin/tlspolicyd|$prefix/bin/tlspolicyd|" "$2" >"$work/prefixed"
	put "$1" "$work/prefixed" "$3"
}

case $verb in
install | uninstall) ;;
*)
	echo "usage: packaging/install.sh BINARY [uninstall]" >&2
	exit 2
	;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Uninstalling may remove the program that is to print the names of its pages.
install -m 755 "$host" "$work/tlspolicyd"
host=$work/tlspolicyd

put 755 "$binary" "$usr/bin/tlspolicyd"

case ${INIT:-systemd} in
systemd)
	put_prefixed 644 "$top/packaging/systemd/tlspolicyd.service" "$usr/lib/systemd/system/tlspolicyd.service"
	put 644 "$top/packaging/systemd/tlspolicyd.socket" "$usr/lib/systemd/system/tlspolicyd.socket"
	put 644 "$top/packaging/systemd/tlspolicyd.sysusers" "$usr/lib/sysusers.d/tlspolicyd.conf"
	put 644 "$top/packaging/systemd/tlspolicyd.tmpfiles" "$usr/lib/tmpfiles.d/tlspolicyd.conf"
	;;
openrc)
	put_prefixed 755 "$top/contrib/openrc/tlspolicyd.initd" "$etc/init.d/tlspolicyd"
	put 644 "$top/contrib/openrc/tlspolicyd.confd" "$etc/conf.d/tlspolicyd"
	;;
esac

apparmor=${APPARMOR:-no}
[ -n "${APPARMOR:-}" ] || [ ! -d "$etc/apparmor.d" ] || apparmor=yes
[ "$apparmor" = no ] || put_prefixed 644 "$top/packaging/apparmor/tlspolicyd" "$etc/apparmor.d/tlspolicyd"

# Every setting is there as a comment: what the operator does not set follows
# the defaults of later versions.
config=$etc/tlspolicyd/tlspolicyd.toml
if [ "$verb" = install ]; then
	{
		cat <<-'TEXT'
			# Configuration of tlspolicyd, see tlspolicyd.toml(5). Commented lines show the
			# defaults. After a change: systemctl reload tlspolicyd.

		TEXT
		RUNTIME_DIRECTORY=/run/tlspolicyd STATE_DIRECTORY=/var/lib/tlspolicyd \
			"$host" config show --config /dev/null | sed 's/^[a-z_]* = /#&/'
	} >"$work/toml"
	# The operator's own file stays.
	[ ! -e "$config" ] || cmp -s "$work/toml" "$config" || config=$config.new
	put 644 "$work/toml" "$config"
else
	rm -f "$config.new"
	[ ! -e "$config" ] || echo "left in place: $config"
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
put 644 "$work/zsh" "$usr/${ZSHDIR:-share/zsh/site-functions}/_tlspolicyd"
put 644 "$work/fish" "$usr/share/fish/vendor_completions.d/tlspolicyd.fish"

# Documents link to each other as they do in the source, and --help names them.
doc=$usr/share/doc/tlspolicyd
cd "$top"
for file in README.md CHANGELOG.md SECURITY.md docs/*.md \
	contrib/postfix/*.cf contrib/prometheus/*.yml contrib/grafana/*.json contrib/fleet/*; do
	put 644 "$file" "$doc/$file"
done
licenses=$usr/${LICENSEDIR:-share/licenses/tlspolicyd}
put 644 LICENSE "$licenses/LICENSE"

[ "$verb" = install ] ||
	find "$doc" "$licenses" "$etc/tlspolicyd" -depth -type d -empty -delete 2>/dev/null || true
