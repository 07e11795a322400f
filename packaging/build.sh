#!/bin/sh
# Makes .deb, .rpm and .apk in dist/ (or in the directory given). The same
# source makes the same bytes, whenever and wherever it is built with the same
# version of Go: no time but that of the source, no paths, no revision control.
#
#   ARCH        Go's name of the architecture, e.g. arm64; this machine's own
#   MAINTAINER  "Name <address>" of the person who distributes the packages
set -eu
cd "$(dirname "$0")/.."
umask 022
go=${GO:-go}
out=${1:-dist}
arch=${ARCH:-$($go env GOARCH)}
version=$(packaging/version.sh)
epoch=$(packaging/version.sh epoch)
mkdir -p "$out"
out=$(cd "$out" && pwd)
top=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH="$epoch" LC_ALL=C TZ=UTC

build() { # build GOARCH FILE
	CGO_ENABLED=0 GOARCH=$1 $go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X main.version=$version" -o "$2" ./cmd/tlspolicyd
}

build "$arch" "$work/tlspolicyd"
host=$work/tlspolicyd
if [ "$arch" != "$($go env GOHOSTARCH)" ]; then
	host=$work/host
	build "$($go env GOHOSTARCH)" "$host"
fi

maintainer=${MAINTAINER:-tlspolicyd developers <packages@tlspolicyd.invalid>}
GO=$go packaging/licences.sh >"$work/LICENSES.modules"

# stage PACKAGER VARIABLE=VALUE...: everything below packager/root.
stage() {
	root=$work/$1/root
	shift
	env HOST="$host" PREFIX=/usr DESTDIR="$root" "$@" packaging/install.sh "$work/tlspolicyd"
}

stage deb APPARMOR=yes ZSHDIR=share/zsh/vendor-completions LICENSEDIR=share/doc/tlspolicyd
doc=$root/usr/share/doc/tlspolicyd
{
	cat "$doc/LICENSE"
	cat <<'TEXT'

The program contains other modules: LICENSES.modules.gz beside this file has
the licence of each. The text of the Apache License, Version 2.0, is in
/usr/share/common-licenses/Apache-2.0 as well.
TEXT
} >"$doc/copyright"
rm "$doc/LICENSE"
cp "$doc/CHANGELOG.md" "$doc/changelog" # the first is where other documents link to
cat >"$doc/changelog.Debian" <<TEXT
tlspolicyd ($version-1) unstable; urgency=medium

  * Built from the source of that version; see changelog.gz.

 -- $maintainer  $(date -u -R -d "@$epoch")
TEXT
cp "$work/LICENSES.modules" "$doc/"
gzip -9n "$doc/LICENSES.modules" "$doc/changelog" "$doc/changelog.Debian"
install -D -m 644 packaging/lintian-overrides "$root/usr/share/lintian/overrides/tlspolicyd"

stage rpm APPARMOR=no
install -m 644 "$work/LICENSES.modules" "$root/usr/share/licenses/tlspolicyd/"

stage apk APPARMOR=no INIT=openrc
install -m 644 "$work/LICENSES.modules" "$root/usr/share/licenses/tlspolicyd/"

# nfpm has a module file of its own, so that what it depends on stays out of the
# daemon's. With a vendor directory it still comes from the module cache.
GOFLAGS=-mod=mod $go build -modfile=packaging/nfpm.mod -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
prerelease=
case $version in *~*) prerelease=${version#*~} ;; esac
for packager in deb rpm apk; do
	cp -R packaging/scripts "$work/$packager/"
	cd "$work/$packager"
	# nfpm takes the time of the maintainer scripts of an .apk from their files.
	find . -exec touch -h -d "@$epoch" {} +
	# To apk, _git comes after the release and numbers end at some length.
	[ $packager != apk ] || prerelease=$(echo "$prerelease" | sed 's/^git\([0-9]\{8\}\)/alpha\1_p/')
	PKG_ARCH=$arch PKG_VERSION=${version%%~*} PKG_PRERELEASE=$prerelease PKG_MAINTAINER=$maintainer \
		"$work/nfpm" package --config "$top/packaging/nfpm.yaml" --packager $packager --target "$out"
	cd "$top"
done
