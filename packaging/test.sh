#!/bin/bash
# Checks what packaging/ makes: the same bytes twice, lintian, rpmlint, a build
# without a network, and the .deb from its installation to its purge on Debian
# 12 and 13 with systemd and Postfix. Each Debian is a folder made by
# debootstrap, booted in namespaces of its own with a throw-away layer on top:
# nothing on this machine is touched but for the tools that apt installs.
#
#   TLSPOLICYD_E2E_CACHE  where the folders are kept, as for "make e2e" (1 GB)
#
# Arguments name single parts: packages dist recipes bookworm trixie testing.
# Needs root on Debian. Takes four minutes, and another three for the folders.
#
# shellcheck disable=SC1091 # /etc/os-release is not part of this
# shellcheck disable=SC2016 # what is in single quotes is for the shell inside
set -euo pipefail

cache=${TLSPOLICYD_E2E_CACHE:-/var/cache/tlspolicyd-e2e}
PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin # sudo leaves the first out
repo=$(cd "$(dirname "$0")/.." && pwd)
packages=postfix,unbound,dns-root-data,ldnsutils,openssl,systemd,systemd-sysv,dbus,ca-certificates,netbase,rpm
go=${GO:-go}
work=$(mktemp -d)
container=
init=
roots=

say() { printf 'packaging: %s\n' "$*"; }
die() {
	printf 'packaging: FAILED: %s\n' "$*" >&2
	exit 1
}

# halt ends the Debian that boot started.
halt() {
	local group=$work/cgroup/tlspolicyd-packaging-$$
	[ -d "$group" ] || return 0
	# The Debian's first process takes all others with it.
	[ -z "$init" ] || kill -9 "$init" 2>/dev/null || true
	[ -z "$container" ] || { wait "$container"; } 2>/dev/null || true
	container='' init=''
	for _ in $(seq 600); do
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
		[ -d "$group" ] || break
		sleep 0.1
	done
	umount "$work/cgroup" || true
}

cleanup() {
	halt
	[ -z "$roots" ] || wait "$roots" || true
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT

# again COMMAND...: up to three times. A mirror may fail to answer for a moment.
again() {
	local pause
	for pause in 10 30; do
		"$@" && return
		sleep $pause
	done
	"$@"
}

check_machine() {
	[ "$(id -u)" = 0 ] || die "must run as root (it boots a Debian in namespaces): sudo make packaging-check"
	command -v apt-get >/dev/null || die "needs Debian with apt-get"
	command -v "$go" >/dev/null || die "go is not in PATH: install the version that go.mod asks for"
	unshare --mount --net --pid --ipc --uts --cgroup --fork true 2>/dev/null ||
		die "cannot make namespaces: in a container it needs the capability SYS_ADMIN (--privileged)"
}

install_tools() {
	local missing=() p
	for p in debootstrap debian-archive-keyring lintian rpmlint rpm apparmor strace perl mandoc shellcheck systemd dpkg-dev debhelper iproute2 nix-bin; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' $p 2>/dev/null || true)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${missing[*]}"
	again install_packages "${missing[@]}" >"$work/apt.log" 2>&1 </dev/null ||
		{ cat "$work/apt.log" >&2 && die "apt-get could not install ${missing[*]}"; }
}

install_packages() {
	apt-get -qq update &&
		DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@"
}

# make_root SUITE: the folder with that Debian, kept for the next run.
make_root() {
	local suite=$1
	root=$cache/packaging-$suite
	mkdir -p "$cache"
	exec 9>"$cache/packaging.lock"
	flock 9
	if ! made "$suite"; then
		say "making a $suite folder in $root"
		local release mirror proxy
		release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
		# shellcheck disable=SC2016 # the variables are apt's
		mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
			awk -v r="$release" '($2 == r || $2 == "stable" || $2 == "oldstable") && $3 == "main" && !n++ { print $1 }')
		[ -n "$mirror" ] || die "apt on this machine has no mirror of its Debian release"
		proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
		[ -z "$proxy" ] || [ "$proxy" = DIRECT ] || export http_proxy="$proxy"
		rm -rf --one-file-system "$root"
		again bootstrap "$suite" "$mirror" >"$cache/packaging.log" 2>&1 </dev/null ||
			{ tail -n 20 "$cache/packaging.log" >&2 && die "debootstrap failed, see $cache/packaging.log"; }
		rm -rf "$root.partial"/var/cache/apt/archives/*.deb "$root.partial"/var/lib/apt/lists/*
		echo "$packages" >"$root.partial/.packaging"
		mv "$root.partial" "$root"
	fi
	exec 9>&-
}

bootstrap() {
	rm -rf --one-file-system "$root.partial"
	unshare --mount debootstrap --variant=minbase --force-check-gpg \
		--keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
		--include="$packages" "$1" "$root.partial" "$2"
}

# check_apparmor has the parser read the profile and holds what comes out
# against what the daemon locks. A kernel with AppArmor is not needed.
check_apparmor() {
	local profile=packaging/apparmor/tlspolicyd tracer path n
	apparmor_parser -Q -K -D rule-exprs "$profile" >"$work/aa" 2>&1 || { cat "$work/aa" && die "AppArmor profile"; }
	mkdir "$work/run" "$work/state"
	RUNTIME_DIRECTORY=$work/run STATE_DIRECTORY=$work/state strace -f -y -e trace=flock -o "$work/locks" \
		"$work/deb/usr/bin/tlspolicyd" serve --config /dev/null 2>"$work/serve.log" &
	tracer=$!
	for n in $(seq 1200); do
		[ -S "$work/run/admin.sock" ] && [ -s "$work/state/policies.db" ] && break
		if [ "$n" = 1200 ] || ! kill -0 $tracer; then
			cat "$work/serve.log" && die "the daemon does not start under strace"
		fi
		sleep 0.1
	done
	kill "$(pgrep -P $tracer)"
	wait $tracer || { cat "$work/serve.log" && die "the daemon under strace"; }
	sed -n "s|.*flock([0-9]*<\([^>]*\)>.*|\1|p" "$work/locks" |
		sed "s|^$work/run/|/run/tlspolicyd/|; s|^$work/state/|/var/lib/tlspolicyd/|" | sort -u >"$work/locked"
	for path in /run/tlspolicyd/admin.sock.lock /var/lib/tlspolicyd/policies.db; do
		grep -qx "$path" "$work/locked" || die "strace did not see the lock on $path"
	done
	while read -r path; do
		may_lock "$path" || die "$profile lets the daemon not lock $path: want k"
	done <"$work/locked"
	! may_lock /etc/tlspolicyd/tlspolicyd.toml || die "may_lock takes everything for lockable"
}

# may_lock PATH: a rule of the profile that fits the path has the bit for locks.
# The parser prints "rule: GLOB -> REGEX (0xPERMISSIONS/…".
may_lock() {
	perl -ne 'BEGIN { $path = shift }
		next unless /^rule: (\S+)  ->  .* \(0x([0-9a-f]+)\//;
		my ($rule, $bits) = ($1, hex $2);
		$found = 1 if $bits & 0x20 and $path =~ /^$rule$/;
		END { exit !$found }' "$1" "$work/aa"
}

build_packages() {
	say "building the packages"
	packaging/build.sh "$work/a" >"$work/build.log" || { cat "$work/build.log" && die "packaging/build.sh"; }
	deb=$(echo "$work"/a/*.deb)
	mkdir "$work/deb"
	dpkg-deb -x "$deb" "$work/deb"
}

# check_versions: the recipes are of the version that CHANGELOG.md has last.
check_versions() {
	local version file
	version=$(sed -n 's/^## \([0-9][^ ]*\) - .*/\1/p' CHANGELOG.md | head -n 1)
	for file in debian/changelog rpm/tlspolicyd.spec alpine/APKBUILD freebsd/Makefile nix/package.nix; do
		grep -qwF -- "$version" "packaging/$file" || die "packaging/$file is not of version $version, which CHANGELOG.md has"
	done
}

check_packages() {
	check_versions
	say "building the packages again"
	# Elsewhere, with other times on its files.
	mkdir "$work/copy"
	tar -c --exclude=./bin --exclude=./dist . | tar -x -m -C "$work/copy"
	"$work/copy/packaging/build.sh" "$work/b" >/dev/null
	rm -r "$work/copy"
	diff -r "$work/a" "$work/b" || die "the same source made other packages"
	[ "$(find "$work/a" -type f | wc -l)" = 3 ] || die "want a .deb, an .rpm and an .apk"

	say "lintian, rpmlint, man pages, AppArmor, shellcheck"
	lintian --no-cfg --allow-root --display-info --pedantic --fail-on error,warning,info,pedantic "$deb"
	rpmlint -c packaging/rpmlint.toml "$work"/a/*.rpm >"$work/rpmlint" 2>&1 || { cat "$work/rpmlint" && die rpmlint; }
	grep -q '1 packages.* 0 errors, 0 warnings' "$work/rpmlint" || { cat "$work/rpmlint" && die rpmlint; }
	mkdir "$work/apk"
	tar -xzf "$work"/a/*.apk --warning=no-unknown-keyword -C "$work/apk"
	[ -x "$work/apk/usr/bin/tlspolicyd" ] || die "the .apk lacks the program"
	[ -x "$work/apk/etc/init.d/tlspolicyd" ] || die "the .apk lacks the OpenRC service"
	cmp contrib/openrc/tlspolicyd.initd "$work/apk/etc/init.d/tlspolicyd"
	cmp contrib/openrc/tlspolicyd.confd "$work/apk/etc/conf.d/tlspolicyd"
	[ -z "$(find "$work/apk" -path '*systemd*')" ] || die "the .apk has files for systemd"
	shellcheck packaging/*.sh packaging/alpine/APKBUILD packaging/debian/tests/answers
	shellcheck -s sh packaging/scripts/*
	[ ! -e "$work/deb/etc/init.d" ] || die "the .deb has files for OpenRC"
	check_apparmor
	gunzip -r "$work/deb/usr/share/man"
	mandoc -T lint -W error "$work"/deb/usr/share/man/man[58]/* || die "man pages"
	systemd-analyze security --offline=true --threshold=15 packaging/systemd/tlspolicyd.service >"$work/security" ||
		{ cat "$work/security" && die "the unit is more exposed than 1.5"; }
	tail -n 1 "$work/security"
	say "the system calls of the demo"
	"$go" build -o "$work/tlspolicyd" ./cmd/tlspolicyd
	GO=$go packaging/syscalls.sh "$work/tlspolicyd"
}

# recipe NAME COMMAND...: in work/recipe-NAME, where the tarball is unpacked; its output
# only when it fails. Their tests are those of "make unit", which has run before.
recipe() {
	local name=$1
	shift
	mkdir "$work/recipe-$name"
	tar -xzf "$tarball" -C "$work/recipe-$name"
	(cd "$work/recipe-$name"/* && GOCACHE=$("$go" env GOCACHE) PATH="$(dirname "$(command -v "$go")"):$PATH" "$@") \
		>"$work/recipe.log" 2>&1 </dev/null || { tail -n 50 "$work/recipe.log" && die "$name"; }
}

# What distributions build by: debian/, the RPM spec and the APKBUILD.
check_recipes() {
	say "debian/, RPM spec, APKBUILD, NixOS module"
	local tarball upstream version
	packaging/dist.sh "$work/source" >/dev/null 2>&1
	tarball=$(echo "$work"/source/*.tar.gz)
	upstream=$(basename "$tarball" .tar.gz) upstream=${upstream#tlspolicyd-}
	version=$(echo "$upstream" | tr - '~')

	recipe debian sh -ec 'cp "$1" "../tlspolicyd_$2.orig.tar.gz" && cp -R packaging/debian .
		sed -i "1s/([^)]*)/($2-1)/" debian/changelog
		DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -us -uc -d' sh "$tarball" "$version"
	lintian --no-cfg --allow-root --display-info --pedantic --fail-on error,warning,info,pedantic "$work"/recipe-debian/*.changes

	mkdir -p "$work/rpmbuild/SOURCES"
	cp "$tarball" "$work/rpmbuild/SOURCES/"
	# Go and the systemd macros are not from an RPM here.
	# Another release than that of "make packages": one is an upgrade to the other.
	recipe rpm rpmbuild -ba --nodeps --without check --define "_topdir $work/rpmbuild" --define "upstream $upstream" --define "dist .test" \
		packaging/rpm/tlspolicyd.spec

	recipe apk sh -ec '. packaging/alpine/APKBUILD; pkgdir=$1; build; package' sh "$work/apkroot"
	[ -x "$work/apkroot/etc/init.d/tlspolicyd" ] || die "the APKBUILD installs no OpenRC service"

	# Without a store nothing can be built, nor is anything left on this machine.
	nix-instantiate --store dummy:// --eval --strict packaging/nix/check.nix >"$work/nix" 2>&1 || true
	grep -qx '"ok"' "$work/nix" || { cat "$work/nix" && die "the NixOS module"; }

	say "the package of debian/ passes its autopkgtest"
	deb=$(echo "$work"/recipe-debian/tlspolicyd_*.deb)
	mkdir "$work/rpms"
	cp "$work"/a/*.rpm "$work/rpms/first.rpm"
	cp "$work"/rpmbuild/RPMS/*/*.rpm "$work/rpms/second.rpm"
	boot bookworm "$work"/rpms/*.rpm
	run sh -c 'dpkg -i /root/tlspolicyd_*.deb'
	check_installed
	run sh -c "$(cat packaging/debian/tests/answers)"
	run dpkg --purge tlspolicyd
	deb=$(echo "$work"/a/*.deb)
	check_rpm
}

# check_rpm has rpm itself install the package of "make packages", upgrade it to
# that of the spec and back, and remove it. (Debian's systemd has no rpm that
# provides it: --nodeps.)
check_rpm() {
	say "the .rpm: install, upgrade, remove"
	local pid conf=/etc/tlspolicyd/tlspolicyd.toml
	run rpm -i --nodeps /root/first.rpm
	run systemctl start tlspolicyd.socket tlspolicyd.service # as the next boot does
	check_installed rpm
	want "" inside rpm -V --nodeps tlspolicyd
	run sed -i 's/^\[override\]$/&\n"relay.test" = "encrypt"/' $conf
	run systemctl reload tlspolicyd
	until_true inside sh -c 'tlspolicyd lookup relay.test | grep -qx "OK encrypt"'
	pid=$(inside systemctl show -P MainPID tlspolicyd)
	run rpm -U --nodeps /root/second.rpm
	inside tlspolicyd version | grep -qF "tlspolicyd $version " || die "the RPM's program is not version $version"
	want "OK encrypt" inside tlspolicyd lookup relay.test
	[ "$(inside systemctl show -P MainPID tlspolicyd)" != "$pid" ] || die "the upgrade did not restart the daemon"
	pid=$(inside systemctl show -P MainPID tlspolicyd)
	inside sh -c "cp $conf /tmp/good; echo 'nonsense = 1' >>$conf"
	run rpm -U --nodeps --oldpackage /root/first.rpm
	printed "not restarted, because its configuration has a mistake" "tlspolicyd.toml:" "log.nonsense: "
	want "$pid" inside systemctl show -P MainPID tlspolicyd
	inside postconf -e "smtp_tls_policy_maps = socketmap:unix:run/tlspolicyd/socketmap.sock:postfix"
	run rpm -e tlspolicyd
	printed "    postconf -X smtp_tls_policy_maps" "    postfix reload"
	want "" inside sh -c 'cat /proc/[0-9]*/comm | grep -x tlspolicyd'
	inside test ! -e /usr/bin/tlspolicyd || die "rpm -e left the program"
	inside test -f $conf.rpmsave || die "rpm -e took the changed configuration"
	inside test -f /var/lib/tlspolicyd/policies.db || die "rpm -e took the cache"
}

check_dist() {
	say "source tarball, twice, and a build from it without a network"
	packaging/dist.sh "$work/dist" >/dev/null 2>"$work/dist.log" || { cat "$work/dist.log" && die dist.sh; }
	packaging/dist.sh "$work/dist2" >/dev/null 2>&1
	diff -r "$work/dist" "$work/dist2" || die "the same commit made another tarball"
	mkdir "$work/src" "$work/home"
	tar -xzf "$work"/dist/*.tar.gz -C "$work/src"
	# An empty home and module cache: nothing can come from elsewhere.
	offline() { # offline TARGET...: make it from the tarball
		(cd "$work"/src/* && unshare --net env -i PATH="$PATH" HOME="$work/home" GOFLAGS=-mod=vendor GOPROXY=off \
			GOTOOLCHAIN=local make "$@" GO="$go") >"$work/offline.log" 2>&1 </dev/null
	}
	offline install DESTDIR="$work/inst" PREFIX=/usr ||
		{ cat "$work/offline.log" && die "the tarball does not build without a network"; }
	[ ! -e "$work/inst/etc/apparmor.d" ] || die "make install: an AppArmor profile where there is no AppArmor"
	! ldd "$work/inst/usr/bin/tlspolicyd" >/dev/null 2>&1 || die "make install: the program is not static"
	# Of the tests those that read the source, with loopback alone. "make unit" passes too.
	(cd "$work"/src/* && unshare --net env -i PATH="$PATH" HOME="$work/home" GOFLAGS=-mod=vendor GOPROXY=off CGO_ENABLED=0 \
		sh -c 'ip link set lo up && exec "$1" test -pgo=off ./cmd/tlspolicyd' sh "$go") >"$work/offline.log" 2>&1 ||
		{ cat "$work/offline.log" && die "tests in the tarball"; }
	local version target file
	version=$("$repo/packaging/version.sh")
	"$work/inst/usr/bin/tlspolicyd" version | grep -qF "tlspolicyd $version " || die "the tarball's program is not version $version"
	# As sudo has it: no Go in PATH, and bin/ from before.
	rm -r "$work/inst"
	mkdir -p "$work/inst/etc/apparmor.d"
	for target in install uninstall; do
		(cd "$work"/src/* && env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin make $target DESTDIR="$work/inst" PREFIX=/usr) \
			>"$work/install.log" 2>&1 || { cat "$work/install.log" && die "make $target without Go in PATH"; }
		[ $target = uninstall ] || (cd "$work/inst" && find . -type f | sort) >"$work/files"
	done
	for file in etc/apparmor.d/tlspolicyd usr/share/doc/tlspolicyd/docs/check.md usr/share/licenses/tlspolicyd/LICENSE; do
		grep -qxF "./$file" "$work/files" || die "make install leaves $file out"
	done
	[ "$(cd "$work/inst" && find . -type f)" = ./etc/tlspolicyd/tlspolicyd.toml ] ||
		die "make uninstall leaves more than the configuration: $(cd "$work/inst" && find . -type f)"
	rm -r "${work:?}"/{src,home,inst}
}

# await_root SUITE waits for that folder.
await_root() {
	while ! made "$1"; do
		kill -0 "$roots" 2>/dev/null || return
		sleep 0.2
	done
}

# made SUITE: its folder is there, and has the packages
made() { [ "$(cat "$cache/packaging-$1/.packaging" 2>/dev/null || true)" = "$packages" ]; }

# boot SUITE [FILE...] starts that Debian, with the .deb and the files in /root: in
# namespaces without a network, with a cgroup of its own and a layer in memory that
# takes all changes.
boot() {
	halt
	suite=$1
	shift
	await_root "$suite" || { cat "$work/roots.log" && die "no folder with Debian $suite"; }
	root=$cache/packaging-$suite
	say "booting $suite with systemd"
	mkdir -p "$work/cgroup" "$work/boot"
	mount -t cgroup2 cgroup2 "$work/cgroup"
	mkdir "$work/cgroup/tlspolicyd-packaging-$$"
	cat >"$work/prepare.sh" <<'PREPARE'
m=$1
shift
cp "$@" "$m/root/"
rm -f "$m/etc/resolv.conf" "$m"/etc/systemd/system/*.wants/*
echo "nameserver 192.0.2.53" >"$m/etc/resolv.conf" # the network's, not on this host
echo "127.0.0.1 localhost mail.test" >"$m/etc/hosts"
PREPARE
	(
		echo $BASHPID >"$work/cgroup/tlspolicyd-packaging-$$/cgroup.procs"
		exec unshare --cgroup --mount --net --pid --ipc --uts --fork --kill-child \
			sh packaging/boot.sh "$root" "$work/boot" "$work/prepare.sh" "$deb" "$@"
	) >"$work/boot.log" 2>&1 </dev/null &
	container=$!
	local n
	for n in $(seq 1200); do
		init=$(pgrep -P $container || true)
		[ -n "$init" ] && [ "$(cat "/proc/$init/comm" 2>/dev/null)" = systemd ] &&
			inside test -S /run/systemd/private && break
		if [ "$n" = 1200 ] || ! kill -0 $container 2>/dev/null; then
			cat "$work/boot.log"
			die "the Debian does not boot"
		fi
		sleep 0.1
	done
	inside systemctl is-system-running --wait >/dev/null || true
	nsenter -t "$init" --net ip link set lo up
}

inside() {
	nsenter -t "$init" --mount --net --pid --ipc --uts --cgroup --root --wd \
		env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 SYSTEMD_PAGER= "$@" </dev/null
}

journal() { inside journalctl --no-pager -q "$@"; }

want() { # want TEXT COMMAND...: the command prints exactly that
	local text=$1 got
	shift
	got=$("$@" 2>&1) || true
	[ "$got" = "$text" ] || { journal -n 30 && die "$*: got \"$got\", want \"$text\""; }
}

until_true() { # until_true COMMAND...: within two minutes, so that only a hang fails
	local n
	for n in $(seq 1200); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	journal -n 40
	die "this did not come true: $*"
}

owner() { inside stat -c '%U:%G %a' "$1"; }

# run COMMAND...: inside, and its output only when it fails
run() {
	inside "$@" >"$work/run.log" 2>&1 || { cat "$work/run.log" && die "$*"; }
}

# printed TEXT...: the last run printed all of these
printed() {
	local text
	for text; do
		grep -qF -- "$text" "$work/run.log" || { cat "$work/run.log" && die "not printed: $text"; }
	done
}

# quickstart N: the command in that line of packaging/quickstart, as it is
# written, in the directory with the .deb; on Debian 13 with the map that README.md
# names for it.
quickstart() {
	local line
	step "$1"
	[ "$suite" = bookworm ] || line=${line/%:postfix/:postfix-tlsrpt}
	# apt asks whether to go on.
	run sh -c "cd /root && export DEBIAN_FRONTEND=noninteractive && yes | { $line; }"
}

# step N: line becomes that line, which three pages have.
step() {
	local page
	line=$(sed -n "$1p" packaging/quickstart)
	[ -n "$line" ] || die "packaging/quickstart has no line $1"
	for page in README.md docs/install.md packaging/README.md; do
		grep -qxF "$line" "$page" || die "$page lacks the line: $line"
	done
}

# findings [PROGRAM]: what doctor finds, "code grade" a line. It does not end with
# 0 here: there is no network, of which it must say so.
findings() {
	inside "${1:-tlspolicyd}" doctor --json 2>/dev/null |
		sed -n 's/^        *"\(code\|grade\)": "\(.*\)",$/\2/p' | paste -d' ' - - || true
}

found() { # found "CODE GRADE"...: doctor finds all of these
	local list one
	list=$(findings)
	for one in "$@"; do
		grep -qxF "$one" <<<"$list" || die "doctor does not find $one, but $(xargs <<<"$list")"
	done
}

# heal CODE: doctor finds it, and no more after the lines that it prints
heal() {
	local lines line
	lines=$(inside tlspolicyd doctor --json 2>/dev/null | awk -v code="\"code\": \"$1\"," '
		index($0, code) { on = 1 }
		on && sub(/^ *"fix": "/, "") { sub(/"$/, ""); print; on = 0 }' | sed 's/\\\(["\\]\)/\1/g' || true)
	[ -n "$lines" ] || die "doctor has no line for $1"
	while read -r line; do
		run sh -c "$line"
	done <<<"$lines"
	! findings | grep "^$1 " || die "$1 is still there after $lines"
}

# check_installed [rpm] is what an admin sees of a new installation.
check_installed() {
	want active inside systemctl is-active tlspolicyd.socket
	want active inside systemctl is-active tlspolicyd.service
	want enabled inside systemctl is-enabled tlspolicyd.socket
	want enabled inside systemctl is-enabled tlspolicyd.service
	want "" inside systemd-analyze verify --man=no tlspolicyd.service tlspolicyd.socket

	want "root:root 755" owner /usr/bin/tlspolicyd
	want "root:root 755" owner /etc/tlspolicyd
	want "root:root 644" owner /etc/tlspolicyd/tlspolicyd.toml
	want "root:root 644" owner /usr/lib/systemd/system/tlspolicyd.service
	want "tlspolicyd:tlspolicyd 755" owner /run/tlspolicyd
	want "root:root 666" owner /run/tlspolicyd/socketmap.sock
	want "tlspolicyd:tlspolicyd 700" owner /var/lib/tlspolicyd
	want "tlspolicyd:tlspolicyd 600" owner /var/lib/tlspolicyd/policies.db
	want "root:root 755" owner /var/spool/postfix
	want "root:root 755" owner /var/spool/postfix/run
	want "root:root 755" owner /var/spool/postfix/run/tlspolicyd
	want "root:root 666" owner /var/spool/postfix/run/tlspolicyd/socketmap.sock
	if [ "${1:-deb}" = deb ]; then
		want "/etc/apparmor.d/tlspolicyd /etc/tlspolicyd/tlspolicyd.toml" \
			inside sh -c 'dpkg-query -W -f "\${Conffiles}" tlspolicyd | cut -d" " -f2 | sort | xargs'
		want "" inside dpkg --verify tlspolicyd
	fi

	# What the daemon is under its unit: no capability, no new privileges, a
	# system call filter, a user of its own.
	local status
	status=$(inside sh -c 'cat /proc/$(systemctl show -P MainPID tlspolicyd)/status')
	grep -q '^CapBnd:\s*0000000000000000$' <<<"$status" || die "the daemon could get capabilities"
	grep -q '^NoNewPrivs:\s*1$' <<<"$status" || die "the daemon could get privileges"
	grep -q '^Seccomp:\s*2$' <<<"$status" || die "the daemon has no system call filter"
	want tlspolicyd inside sh -c 'stat -c %U /proc/$(systemctl show -P MainPID tlspolicyd)'

	# The default configuration says what applies anyway.
	want "/etc/tlspolicyd/tlspolicyd.toml: ok" inside tlspolicyd config check
	want same inside sh -c 'tlspolicyd config show >/tmp/with; tlspolicyd config show --config /dev/null >/tmp/without
		cmp /tmp/with /tmp/without && sed "1,/^$/d; s/^#\([a-z_]* = \)/\1/" /etc/tlspolicyd/tlspolicyd.toml | cmp - /tmp/with && echo same'
}

# The directories of Postfix's queue come from the socket unit where there is no
# Postfix, and go with the package.
check_without_postfix() {
	say "a host without Postfix"
	inside mv /var/spool/postfix /var/spool/postfix.away
	run sh -c 'dpkg -i /root/tlspolicyd_*.deb'
	check_installed
	run dpkg --purge tlspolicyd
	inside test ! -e /var/spool/postfix || die "/var/spool/postfix is left behind"
	inside mv /var/spool/postfix.away /var/spool/postfix
}

check_lookups() {
	say "lookup, reload"
	want "NOTFOUND" inside sh -c "tlspolicyd lookup '[192.0.2.1]' 2>/dev/null" # stderr says why
	inside sh -c 'echo "[override]
\"relay.test\" = \"encrypt\"" >/tmp/override
		sed -i "/^\[override\]$/,\$d" /etc/tlspolicyd/tlspolicyd.toml
		cat /tmp/override >>/etc/tlspolicyd/tlspolicyd.toml'
	inside systemctl reload tlspolicyd
	until_true inside sh -c 'tlspolicyd lookup relay.test | grep -qx "OK encrypt"'
	want "OK encrypt" inside tlspolicyd lookup --socket unix:/var/spool/postfix/run/tlspolicyd/socketmap.sock relay.test
	inside sh -c 'cp /etc/tlspolicyd/tlspolicyd.toml /tmp/good; echo "nonsense = 1" >>/etc/tlspolicyd/tlspolicyd.toml'
	! inside systemctl reload tlspolicyd 2>/dev/null || die "a reload with a bad file did not fail"
	want "OK encrypt" inside tlspolicyd lookup --config /dev/null relay.test
	inside cp /tmp/good /etc/tlspolicyd/tlspolicyd.toml
}

# The unit's filter of system calls, with death in the place of EPERM: what the
# daemon does does not touch it. No server answers DNS here, so HTTPS is not
# tried; packaging/syscalls.sh does that.
check_system_calls() {
	say "system calls"
	local pid dropin=/run/systemd/system/tlspolicyd.service.d
	inside mkdir -p "$dropin"
	inside sh -c "printf '[Service]\nSystemCallErrorNumber=kill\n' >$dropin/kill.conf"
	inside systemctl daemon-reload
	inside systemctl restart tlspolicyd
	pid=$(inside systemctl show -P MainPID tlspolicyd)
	inside sh -c 'tlspolicyd lookup example.test 2>/dev/null; true' | grep -q "^TEMP MX lookup" || die "DNS was not asked"
	run sh -c 'tlspolicyd cache list && tlspolicyd cache export >/tmp/cache.jsonl && tlspolicyd cache import /tmp/cache.jsonl'
	run systemctl reload tlspolicyd
	until_true inside sh -c 'tlspolicyd lookup relay.test | grep -qx "OK encrypt"'
	want "$pid" inside systemctl show -P MainPID tlspolicyd
	inside systemctl stop tlspolicyd.socket tlspolicyd.service
	want success inside systemctl show -P Result tlspolicyd.service
	inside rm -r "$dropin"
	inside systemctl daemon-reload
	inside systemctl start tlspolicyd.socket tlspolicyd.service
}

# world makes a signed domain with a mail host, and leaves Postfix as the
# distribution does: started by systemd, with a copy in its chroot of a
# resolv.conf that names the network's resolver.
world() {
	inside sh -e -c '
		cd /etc/unbound
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=mx.signed.test \
			-keyout mx.key -out mx.crt 2>/dev/null
		digest=$(openssl x509 -in mx.crt -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d" " -f1)
		cat >zone <<-ZONE
			\$ORIGIN signed.test.
			\$TTL 300
			@ SOA ns hostmaster 1 3600 600 86400 300
			@ NS ns
			@ MX 10 mx
			ns A 127.0.1.1
			mx A 127.0.1.1
			_25._tcp.mx TLSA 3 1 1 $digest
		ZONE
		key=$(ldns-keygen -r /dev/urandom -a ECDSAP256SHA256 -k signed.test)
		ldns-signzone -o signed.test -f zone.signed zone "$key"
		cat >unbound.conf.d/signed.conf <<-CONF
			server:
			  local-zone: "test." nodefault
			  trust-anchor-file: "/etc/unbound/$key.ds"
			auth-zone:
			  name: "signed.test."
			  zonefile: "/etc/unbound/zone.signed"
			  for-upstream: yes
			  for-downstream: no
			  fallback-enabled: no
		CONF
		chmod -R a+rX .
		postconf -e myhostname=mail.test mydestination= inet_interfaces=127.0.0.1 smtp_tls_loglevel=1
		postconf -M 127.0.1.1:25/inet="127.0.1.1:25 inet n - n - - smtpd"
		postconf -P 127.0.1.1:25/inet/myhostname=mx.signed.test 127.0.1.1:25/inet/content_filter=discard: \
			127.0.1.1:25/inet/smtpd_tls_security_level=may \
			127.0.1.1:25/inet/smtpd_tls_cert_file=/etc/unbound/mx.crt \
			127.0.1.1:25/inet/smtpd_tls_key_file=/etc/unbound/mx.key
	' || die "cannot make a signed domain"
	run systemctl start unbound postfix
	# From Postfix 3.11 on Debian does not chroot smtp(8).
	[ "$suite" = testing ] || want y inside sh -c "postconf -F smtp/unix/chroot | sed 's/.* = //'"
	until_true inside grep -q 192.0.2.53 /var/spool/postfix/etc/resolv.conf
}

send() { inside sh -c "echo 'Subject: $1' | sendmail -f a@mail.test $1@signed.test"; }

logged() { # logged NAME TEXT: what smtp(8) logs of the message to NAME
	inside sh -c "journalctl -q -t postfix/smtp | grep 'to=<$1@signed.test>' | grep -q '$2'"
}

# The quick start after its first line, then a message: smtp(8) runs chrooted,
# finds the daemon and the validating resolver, and verifies the mail host.
check_quickstart() {
	say "the quick start, and a message to a signed domain"
	local n lines line
	lines=$(wc -l <packaging/quickstart)
	[ "$lines" -le 5 ] || die "the quick start has more than five commands"
	for n in $(seq 2 $((lines - 1))); do
		quickstart "$n"
	done
	step "$lines"
	[ "$line" = "tlspolicyd doctor" ] || die "the quick start does not end with doctor"
	send first
	until_true logged first 'status='
	logged first 'dsn=2.0.0, status=sent' || { journal -n 20 -t postfix/smtp && die "the message to a signed domain is not delivered"; }
	inside sh -c 'journalctl -q -t postfix/smtp | grep -q "Verified TLS connection established to mx.signed.test"' ||
		{ journal -n 20 -t postfix/smtp && die "the message was not sent over a verified connection"; }
	want "OK dane-only" inside tlspolicyd lookup signed.test
	# Nothing is wrong, as far as that shows without a network.
	found "map-ok ok" "socket-ok ok" "postfix-dnssec-on ok" "postfix-ca-ok ok" "trust-store-ok ok" "database-ok ok" \
		"daemon-ok ok" "unit-ok ok" "network-down unknown"
	! findings | grep -e ' fail$' -e '^chroot-resolv-conf-stale ' || die "doctor, after the quick start"
	# What README.md says of a resolv.conf that changes later.
	run systemctl enable --now postfix-resolvconf.path
	inside sh -c 'echo "options attempts:2" >>/etc/resolv.conf'
	until_true inside grep -q attempts /var/spool/postfix/etc/resolv.conf
}

# Without the daemon a message waits.
check_postfix_waits() {
	inside systemctl stop tlspolicyd.socket tlspolicyd.service
	send second
	until_true logged second 'dsn=4.7.5, status=deferred'
	want socket-unreachable inside sh -c \
		"tlspolicyd why --journal --json second@signed.test | sed -n 's/.*\"code\": \"\(.*\)\".*/\1/p'"
	inside systemctl start tlspolicyd.service
	inside postqueue -f
	until_true logged second 'status=sent'
}

# healed NAME CODE: what doctor prints for that finding is enough for a message
# to be delivered.
healed() {
	heal "$2"
	! findings | grep ' fail$' || die "doctor, after the fix of $2"
	send "$1"
	until_true logged "$1" 'status='
	logged "$1" 'dsn=2.0.0, status=sent' || { journal -n 20 -t postfix/smtp && die "no message is delivered after the fix of $2"; }
}

# dropin LINE...: what "systemctl edit tlspolicyd.socket" writes
dropin() {
	inside mkdir -p /etc/systemd/system/tlspolicyd.socket.d
	inside sh -c 'printf "%s\n" "[Socket]" "$@" >/etc/systemd/system/tlspolicyd.socket.d/override.conf' sh "$@"
	run systemctl daemon-reload
	run systemctl restart tlspolicyd.socket tlspolicyd.service
}

# What only systemd can have wrong with a unit, which the end-to-end tests have
# not: each is provoked, fixed by the lines that doctor prints, and a message sent.
check_doctor() {
	say "doctor"
	local conf=/etc/tlspolicyd/tlspolicyd.toml
	inside systemctl stop tlspolicyd.socket tlspolicyd.service
	found "unit-inactive fail" "socket-missing fail"
	healed stopped unit-inactive
	inside systemctl disable -q tlspolicyd.socket tlspolicyd.service 2>/dev/null
	found "unit-disabled warn"
	heal unit-disabled
	found "unit-ok ok"

	inside chmod 0600 $conf
	! inside systemctl restart tlspolicyd 2>/dev/null || die "the daemon starts with a file that it cannot read"
	found "config-unreadable fail" "unit-restarting fail"
	healed unreadable config-unreadable
	inside chown root:root $conf
	inside chmod 0644 $conf

	inside sh -c "cp $conf /tmp/good; echo 'nonsense = 1' >>$conf"
	! inside systemctl restart tlspolicyd 2>/dev/null || die "the daemon starts with a mistake in its file"
	found "config-invalid fail" "unit-restarting fail"
	inside sh -c 'tlspolicyd doctor --json 2>/dev/null | grep -q "last log line: .*nonsense"' ||
		die "doctor does not show why the unit does not start"
	inside cp /tmp/good $conf
	until_true inside systemctl is-active tlspolicyd # by itself
	found "unit-ok ok"

	inside rm $conf
	want "$conf: absent: defaults apply" inside tlspolicyd config check
	run systemctl restart tlspolicyd
	found "config-ok ok" "unit-ok ok"
	inside cp /tmp/good $conf
	run systemctl reload tlspolicyd

	dropin SocketMode=0660
	found "socket-denied fail"
	healed denied socket-denied
	dropin ListenStream= ListenStream=/run/tlspolicyd/socketmap.sock
	found "socket-missing fail"
	healed elsewhere socket-missing
	inside rm -r /etc/systemd/system/tlspolicyd.socket.d
	run systemctl daemon-reload
	run systemctl restart tlspolicyd.socket tlspolicyd.service
}

check_upgrade() {
	say "upgrade, with lookups all the time"
	local socket pid
	socket=$(inside stat -c %i /run/tlspolicyd/socketmap.sock /var/spool/postfix/run/tlspolicyd/socketmap.sock)
	pid=$(inside systemctl show -P MainPID tlspolicyd)
	inside systemd-run -q --unit=load sh -c 'while [ ! -e /tmp/enough ]; do
		tlspolicyd lookup relay.test >>/tmp/replies 2>&1; done'
	until_true inside sh -c '[ "$(wc -l </tmp/replies)" -gt 50 ]'
	run sh -c 'dpkg -i /root/tlspolicyd_*.deb'
	inside systemctl restart tlspolicyd
	inside touch /tmp/enough
	until_true inside sh -c '! systemctl -q is-active load.service'
	want "OK encrypt" inside sort -u /tmp/replies
	want "$socket" inside stat -c %i /run/tlspolicyd/socketmap.sock /var/spool/postfix/run/tlspolicyd/socketmap.sock
	[ "$(inside systemctl show -P MainPID tlspolicyd)" != "$pid" ] || die "the upgrade did not restart the daemon"
	want "\"relay.test\" = \"encrypt\"" inside grep relay.test /etc/tlspolicyd/tlspolicyd.toml
	# What the operator has switched off stays off.
	inside systemctl disable -q tlspolicyd.service 2>/dev/null
	run sh -c 'dpkg -i /root/tlspolicyd_*.deb'
	want disabled inside systemctl is-enabled tlspolicyd.service
	inside systemctl enable -q tlspolicyd.service 2>/dev/null
	# A mistake that was not reloaded yet does not stop the daemon that answers.
	pid=$(inside systemctl show -P MainPID tlspolicyd)
	inside sh -c 'cp /etc/tlspolicyd/tlspolicyd.toml /tmp/good; echo "nonsense = 1" >>/etc/tlspolicyd/tlspolicyd.toml'
	run sh -c 'dpkg -i /root/tlspolicyd_*.deb'
	printed "not restarted, because its configuration has a mistake" "tlspolicyd.toml:" "override.nonsense: "
	want "$pid" inside systemctl show -P MainPID tlspolicyd
	want "OK encrypt" inside tlspolicyd lookup --config /dev/null relay.test
	inside cp /tmp/good /etc/tlspolicyd/tlspolicyd.toml
	# A daemon that dies is started again.
	pid=$(inside systemctl show -P MainPID tlspolicyd)
	inside kill -KILL "$pid" 2>/dev/null || inside sh -c "kill -KILL $pid"
	want "OK encrypt" inside tlspolicyd lookup relay.test
}

# advice LINE: removing printed it, and it takes the daemon out of main.cf.
advice() {
	printed "    $1" "    postfix reload"
	run sh -c "$1 && postfix reload"
	! inside postconf -h smtp_tls_policy_maps | grep tlspolicyd || die "still in main.cf after: $1"
}

check_remove() {
	say "remove, purge"
	inside cp /usr/bin/tlspolicyd /root/doctor
	local map
	map=$(inside postconf -h smtp_tls_policy_maps)
	inside postconf -e "smtp_tls_policy_maps = texthash:/etc/postfix/policy, $map"
	run dpkg --remove tlspolicyd
	advice "postconf -e 'smtp_tls_policy_maps = texthash:/etc/postfix/policy'"
	run sh -c 'dpkg -i /root/tlspolicyd_*.deb'
	inside postconf -e "smtp_tls_policy_maps = $map"
	run dpkg --remove tlspolicyd
	advice "postconf -X smtp_tls_policy_maps"
	grep -qxF "unit-missing warn" <<<"$(findings /root/doctor)" || die "doctor does not miss the units"
	want "" inside sh -c 'cat /proc/[0-9]*/comm | grep -x tlspolicyd'
	inside test ! -e /run/tlspolicyd/socketmap.sock || die "a socket without a listener is left"
	inside test -f /etc/tlspolicyd/tlspolicyd.toml || die "removing took the configuration"
	inside test -f /var/lib/tlspolicyd/policies.db || die "removing took the cache"
	check_purge
}

# Nothing is left of the package, and Postfix's directories are as they were.
check_purge() {
	run dpkg --purge tlspolicyd
	want "" inside find / -xdev -path /proc -prune -o -path /sys -prune -o -path '/root/*' -prune -o \
		-path /var/lib/dpkg -prune -o -path /tmp -prune -o -path '/var/log/*' -prune -o -name '*tlspolicyd*' -print
	want "0 loaded units listed." inside sh -c 'systemctl list-units --all "tlspolicyd*" | grep loaded | cut -d. -f1 | sed "s/$/./"'
	want "root:root 755" owner /var/spool/postfix
}

check_bookworm() {
	boot bookworm
	check_without_postfix
	world
	say "install"
	quickstart 1
	check_installed
	check_lookups
	check_system_calls
	check_quickstart
	check_postfix_waits
	check_doctor
	check_upgrade
	check_remove
}

# check_newer SUITE: a Debian with a newer Postfix
check_newer() {
	boot "$1"
	world
	quickstart 1
	check_installed
	check_quickstart
	check_purge
}

check_trixie() { check_newer trixie; }

# Debian testing changes by itself. Where no folder can be made of it, that is
# reported and does not count as failed.
check_testing() {
	if await_root testing; then
		check_newer testing
	else
		cat "$work/roots.log"
		say "testing: NOT CHECKED, no folder could be made of it"
	fi
}

cd "$repo"
[ $# -gt 0 ] || set -- packages dist recipes bookworm trixie testing
for part; do
	case $part in
	packages | dist | recipes | bookworm | trixie | testing) ;;
	*) die "no part is called $part: packages, dist, recipes, bookworm, trixie, testing" ;;
	esac
done
check_machine
install_tools
{
	make_root bookworm && make_root trixie || exit 1
	[[ " $* " != *" testing "* ]] || (make_root testing) || true
} >"$work/roots.log" 2>&1 &
roots=$!
build_packages
for part; do
	"check_$part"
done
say "all passed"
