#!/bin/sh
# Runs the end-to-end tests: tlspolicyd with a real Postfix, Unbound, NSD and
# nginx. It needs root on Debian and leaves nothing running. Servers are not
# installed on this machine but in folders made by debootstrap, from the mirror
# that apt uses here: no service of this machine is touched, and the versions
# are those of Debian 12 and 13 wherever the tests run.
#
#   TLSPOLICYD_E2E_CACHE  where the folders are kept (about 600 MB, 2 GB with
#                         "field"); remove it to have them made afresh
#
# Arguments are passed to the test binary, e.g. -test.run TestEndToEnd/Mail.
# With "field" as the first one it runs the tests of docs/field.md instead: each
# resolver of Debian 12 and 13, and the Postfix of Debian unstable. With "fleet"
# it prints the table of a fleet in docs/figures.md, which takes half an hour.
set -eu

cache=${TLSPOLICYD_E2E_CACHE:-/var/cache/tlspolicyd-e2e}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
PATH=$PATH:/usr/local/go/bin # sudo leaves it out
repo=$(cd "$(dirname "$0")/../.." && pwd)
field=no
run="TestEndToEnd$|TestDoctorCodesHavePlaces$ TestFieldShort$ TestFleet$"
case "${1:-}" in
field)
	shift
	field=yes run="TestField$ TestFieldPostfix$"
	export TLSPOLICYD_E2E_TABLE="$repo/docs/field.md"
	;;
fleet)
	shift
	run=TestFleetFigures
	export TLSPOLICYD_E2E_TABLE="$repo/docs/figures.md"
	;;
esac
# Each test has a process of its own, for its own network.
case " $*" in *" -test.run"*) run=Test ;; esac

die() {
	printf 'e2e: %s\n' "$*" >&2
	exit 1
}

say() {
	printf 'e2e: %s\n' "$*"
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
	[ "$(id -u)" = 0 ] ||
		die "must run as root (it makes namespaces and chroot folders): sudo make e2e"
	command -v apt-get >/dev/null ||
		die "needs Debian with apt-get: run it on Debian 12 or 13, or in a container of it"
	id=$(. /etc/os-release && echo "${ID:-}")
	[ "$id" = debian ] ||
		die "needs Debian, this is ${id:-unknown}: run it on Debian 12 or 13, or in a container of it"
	command -v go >/dev/null ||
		die "go is not in PATH: install the version that go.mod asks for"
	unshare --mount --net --pid --ipc --uts --fork true 2>/dev/null ||
		die "cannot make namespaces: in a container it needs the capability SYS_ADMIN (--privileged)"
}

# Packages that this machine itself needs; none of them is a service.
install_tools() {
	missing=
	for p in debootstrap debian-archive-keyring ca-certificates iproute2; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' $p 2>/dev/null || true)" = installed ] ||
			missing="$missing $p"
	done
	[ -n "$missing" ] || return 0
	say "installing$missing"
	# shellcheck disable=SC2086
	again install_packages $missing >"$cache/apt.log" 2>&1 </dev/null || {
		cat "$cache/apt.log" >&2
		die "apt-get could not install$missing"
	}
}

install_packages() {
	apt-get -qq update &&
		DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@"
}

# The mirror of this machine's own Debian release, as apt itself reads its
# configuration. Security and -updates suites have other names than the release.
find_mirror() {
	release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	# shellcheck disable=SC2016 # the variables are apt's
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v r="$release" '($2 == r || $2 == "stable" || $2 == "oldstable") && $3 == "main" && $1 ~ /^(https?|file):/ { print $1; exit }'
}

# make_root SUITE PACKAGES: a folder with that release, kept for the next run.
# debootstrap verifies the release's signature: --keyring without a
# --no-check-gpg, and it fails when it cannot.
make_root() {
	suite=$1 packages=$2
	root=$cache/${3:-}$suite
	stamp="$suite $packages"
	if [ -f "$root/.e2e" ] && [ "$(cat "$root/.e2e")" = "$stamp" ]; then
		return 0
	fi
	say "making a $suite folder in $root"
	rm -rf --one-file-system "$root"
	again bootstrap >"$cache/$suite.log" 2>&1 </dev/null || {
		tail -n 20 "$cache/$suite.log" >&2
		die "debootstrap of $suite failed, see $cache/$suite.log; if it cannot verify the signature, upgrade debian-archive-keyring"
	}
	rm -rf "$root.partial"/var/cache/apt/archives/*.deb "$root.partial"/var/lib/apt/lists/*
	: >>"$root.partial/etc/hosts"
	: >>"$root.partial/etc/resolv.conf"
	echo "$stamp" >"$root.partial/.e2e"
	mv "$root.partial" "$root"
}

# add_resolved ROOT: systemd-resolved, unpacked only, because configuring it
# needs a bus and replaces resolv.conf.
add_resolved() {
	chroot "$1" sh -ec '[ ! -e /usr/lib/systemd/systemd-resolved ] || exit 0
		apt-get -qq update
		cd /tmp
		apt-get -qq download systemd-resolved
		dpkg --unpack --force-all systemd-resolved*.deb
		rm -rf systemd-resolved*.deb /etc/resolv.conf /var/lib/apt/lists/*
		: >/etc/resolv.conf
		systemd-sysusers' </dev/null >>"$cache/resolved.log" 2>&1 ||
		die "cannot unpack systemd-resolved, see $cache/resolved.log"
}

# In a mount namespace: what debootstrap mounts is gone with it, even killed.
bootstrap() {
	rm -rf --one-file-system "$root.partial"
	unshare --mount debootstrap --variant=minbase --force-check-gpg --keyring="$keyring" \
		--include="$packages" "$suite" "$root.partial" "$mirror"
}

check_machine
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
install_tools

proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
[ -z "$proxy" ] || [ "$proxy" = DIRECT ] || export http_proxy="$proxy"
mirror=$(find_mirror)
[ -n "$mirror" ] || die "apt on this machine has no http, https or file mirror of its Debian release"

make_root bookworm postfix,nsd,unbound,nginx-light,ldnsutils,netbase,redis-server &
bookworm=$!
# tcc and libtlsrpt0-dev: the library is what our TLSRPT reports are held against.
make_root trixie postfix,bind9,netbase,tcc,libc6-dev,libtlsrpt0-dev,valkey-server &
trixie=$!
made=yes
wait $bookworm || made=no
wait $trixie || made=no
[ $made = yes ] || exit 1
if [ $field = yes ]; then
	resolvers=unbound,bind9,knot-resolver,pdns-recursor,dnsmasq,netbase,systemd
	for suite in bookworm trixie; do
		make_root $suite $resolvers field-
		add_resolved "$cache/field-$suite"
	done
	make_root sid postfix,netbase field-
fi
exec 9>&-

cd "$repo"
say "building the daemon and the tests"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The repository may belong to another user than root, which git refuses to read.
go build -buildvcs=false -o "$work/tlspolicyd" ./cmd/tlspolicyd
# For what is said of a daemon that is of another version than the program.
go build -buildvcs=false -ldflags '-X main.version=0.0.0-e2e' -o "$work/other" ./cmd/tlspolicyd
go test -c -buildvcs=false -tags e2e -o "$work/e2e.test" ./testing/e2e/

{
	status=0
	for tests in $run; do
		TLSPOLICYD_E2E_CACHE=$cache TLSPOLICYD_E2E_DAEMON=$work/tlspolicyd TLSPOLICYD_E2E_OTHER=$work/other \
			"$work/e2e.test" -test.v -test.timeout 60m -test.run "$tests" "$@" </dev/null || status=$?
	done
	echo $status >"$work/status"
} 2>&1 | tee "$work/log"
# Once more, where it is seen: what took part.
grep '^real components' "$work/log" || true
exit "$(cat "$work/status")"
