#!/bin/sh
# Checks everything below contrib/ with the real tools: Postfix, promtool,
# podman's quadlet generator, docker compose, buildah, OpenRC, Valkey, shellcheck. They
# are not installed on this machine but in folders made by debootstrap, and run
# in namespaces on a scratch copy of such a folder. It needs root on Debian, and
# leaves nothing running.
#
#   TLSPOLICYD_CONTRIB_CACHE  where the folder with the tools is kept (about
#                             1 GB); remove it to have it made afresh
#   TLSPOLICYD_E2E_CACHE      where the end-to-end tests keep theirs: Postfix of
#                             Debian 12 comes from there, if it is there
#
# Arguments name single checks: postfix metrics container rc guide fleet.
set -eu

cache=${TLSPOLICYD_CONTRIB_CACHE:-/var/cache/tlspolicyd-contrib}
e2e=${TLSPOLICYD_E2E_CACHE:-/var/cache/tlspolicyd-e2e}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
tools=postfix,netbase,unbound,dns-root-data,prometheus,podman,buildah,docker-compose,openrc,shellcheck,perl,procps,jq
# systemd and OpenRC exclude each other.
booted=systemd-sysv,openssh-server,iproute2,ca-certificates,openssl,unbound,dns-root-data,valkey-server
PATH=$PATH:/usr/local/go/bin # sudo leaves it out
repo=$(cd "$(dirname "$0")/.." && pwd)

die() {
	printf 'contrib-check: %s\n' "$*" >&2
	exit 1
}

say() {
	printf '\ncontrib-check: %s\n' "$*"
}

# again COMMAND...: up to three times. A mirror may fail to answer for a moment.
again() {
	for pause in 10 30; do
		"$@" && return
		sleep $pause
	done
	"$@"
}

check_machine() {
	[ "$(id -u)" = 0 ] || die "must run as root (it makes namespaces and chroot folders): sudo make contrib-check"
	command -v apt-get >/dev/null || die "needs Debian with apt-get: run it on Debian 12 or 13, or in a container of it"
	command -v go >/dev/null || die "go is not in PATH: install the version that go.mod asks for"
	unshare --mount --net --pid --ipc --uts --fork true 2>/dev/null ||
		die "cannot make namespaces: in a container it needs the capability SYS_ADMIN (--privileged)"
}

# Packages that this machine itself needs; none of them is a service.
install_tools() {
	missing=
	for p in debootstrap debian-archive-keyring ca-certificates iproute2 openssl procps; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' $p 2>/dev/null || true)" = installed ] || missing="$missing $p"
	done
	[ -n "$missing" ] || return 0
	say "installing$missing"
	# shellcheck disable=SC2086 # a list
	again install_packages $missing >"$cache/apt.log" 2>&1 </dev/null || {
		cat "$cache/apt.log" >&2
		die "apt-get could not install$missing"
	}
}

install_packages() {
	apt-get -qq update &&
		DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@"
}

# make_root NAME SUITE PACKAGES: a folder with that release, kept for the next run.
make_root() {
	root=$cache/$1
	[ "$(cat "$root/.packages" 2>/dev/null || true)" = "$3" ] && return 0
	say "making a $2 folder in $root, which takes a minute or two the first time"
	release=$(. /etc/os-release && echo "$VERSION_CODENAME")
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v r="$release" '($2 == r || $2 == "stable" || $2 == "oldstable") && $3 == "main" { print $1; exit }')
	[ -n "$mirror" ] || die "apt on this machine has no mirror of its Debian release"
	proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
	[ -z "$proxy" ] || [ "$proxy" = DIRECT ] || export http_proxy="$proxy"
	rm -rf --one-file-system "$root"
	again bootstrap "$2" "$3" >"$cache/$1.log" 2>&1 </dev/null || {
		tail -n 20 "$cache/$1.log" >&2
		die "debootstrap of $2 failed, see $cache/$1.log"
	}
	[ "$1" != trixie ] || again add_checkbashisms "$root.partial" >>"$cache/trixie.log" 2>&1 ||
		die "cannot get checkbashisms, see $cache/trixie.log"
	rm -rf "$root.partial"/var/cache/apt/archives/*.deb "$root.partial"/var/lib/apt/lists/*
	echo "$3" >"$root.partial/.packages"
	mv "$root.partial" "$root"
}

bootstrap() {
	rm -rf --one-file-system "$root.partial"
	unshare --mount debootstrap --variant=minbase --force-check-gpg --keyring="$keyring" \
		--include="$2" "$1" "$root.partial" "$mirror"
}

# One perl script out of devscripts, without the hundred packages it depends on.
add_checkbashisms() {
	chroot "$1" sh -eu -c '
		cd /tmp
		apt-get -qq update
		apt-get -qq -o APT::Sandbox::User=root download devscripts
		dpkg-deb --fsys-tarfile devscripts_*.deb | tar -x -C / ./usr/bin/checkbashisms
		rm devscripts_*.deb
	'
}

# inside ROOT COMMAND...: on a copy-on-write copy of ROOT that is gone afterwards,
# with the repository at /src (read only), the daemon at /check/tlspolicyd, Go and
# its caches at /go, no network but loopback, and no process left when COMMAND ends.
inside() {
	lower=$1
	shift
	unshare --mount --pid --net --ipc --uts --fork --kill-child sh -eu -c '
		root=$1 repo=$2 work=$3
		shift 3
		mount -t tmpfs tmpfs "$work/scratch"
		cd "$work/scratch"
		mkdir up work root
		mount -t overlay overlay -o "lowerdir=$root,upperdir=up,workdir=work" root
		mount -t proc proc root/proc
		mount --rbind /dev root/dev
		mount -t tmpfs tmpfs root/tmp
		mount -t tmpfs tmpfs root/run
		mkdir -p root/src root/check root/etc/ssl/certs
		mount --bind "$repo" root/src
		mount -o remount,bind,ro root/src
		mount --bind "$work" root/check
		mkdir -p root/go/root root/go/mod root/go/build
		mount --bind "$GOROOT" root/go/root
		mount --bind "$GOMODCACHE" root/go/mod
		mount --bind "$GOCACHE" root/go/build
		cp /etc/ssl/certs/ca-certificates.crt root/etc/ssl/certs/
		ip link set lo up
		exec chroot root "$@"
	' sh "$lower" "$repo" "$work" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		LC_ALL=C.UTF-8 "$@" </dev/null
}

postfix() {
	say "Postfix fragments"
	inside "$bookworm" sh /src/contrib/check/postfix.sh /src/contrib/postfix/postfix-3.4.cf &
	old=$!
	inside "$trixie" sh /src/contrib/check/postfix.sh \
		/src/contrib/postfix/postfix-3.10.0.cf /src/contrib/postfix/postfix-3.10.5.cf
	wait $old
}

metrics() {
	say "dashboard and alert rules"
	inside "$trixie" sh /src/contrib/check/metrics.sh
}

container() {
	say "container"
	inside "$trixie" sh /src/contrib/check/container.sh
}

rc() {
	say "rc scripts and shell"
	inside "$trixie" sh /src/contrib/check/rc.sh
	GOOS=freebsd CGO_ENABLED=0 go build -buildvcs=false -o "$work/tlspolicyd.freebsd" ./cmd/tlspolicyd
	echo "ok   builds for FreeBSD"
}

guide() {
	say "migration guide"
	inside "$trixie" sh /src/contrib/check/guide.sh
}

fleet() {
	say "several hosts that share policies"
	packaging/build.sh "$work/packages" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2 && die packaging/build.sh; }
	mkdir "$work/fleet"
	unshare --mount --net --pid --fork --kill-child --mount-proc \
		sh contrib/check/fleet.sh "$cache/fleet" "$(echo "$work"/packages/*.deb)" "$work/fleet"
	inside "$trixie" sh /src/contrib/check/compose.sh
}

check_machine
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
install_tools
trixie=$cache/trixie bookworm=$e2e/bookworm
make_root trixie trixie $tools
make_root fleet trixie $booted
if [ ! -f "$bookworm/.e2e" ]; then
	bookworm=$cache/bookworm
	make_root bookworm bookworm postfix,netbase,unbound
fi
exec 9>&-

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/scratch"
cd "$repo"
GOROOT=$(go env GOROOT) GOMODCACHE=$(go env GOMODCACHE) GOCACHE=$(go env GOCACHE)
export GOROOT GOMODCACHE GOCACHE
again go mod download
# The repository may belong to another user than root, which git refuses to read.
CGO_ENABLED=0 go build -buildvcs=false -trimpath -o "$work/tlspolicyd" ./cmd/tlspolicyd
[ $# -gt 0 ] || set -- postfix metrics container rc guide fleet
for check; do
	case $check in
	postfix | metrics | container | rc | guide | fleet) $check ;;
	*) die "no check is called $check: postfix, metrics, container, rc, guide, fleet" ;;
	esac
done
say "all well"
