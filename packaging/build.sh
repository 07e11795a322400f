#!/bin/sh
# Makes .deb, .rpm and .apk in dist/ (or in the directory given). The same
# source makes the same bytes, whenever and wherever it is built with the same
# version of Go: no time but that of the source, no paths, no revision control.
#
#   ARCH        Go's name of the architecture, e.g. arm64; this machine's own
#   MAINTAINER  "Name <address>" of whoever hands the packages out
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

stage=$work/stage
HOST=$host PREFIX=/usr DESTDIR=$stage packaging/install.sh "$work/tlspolicyd"
cp -R packaging/scripts packaging/lintian-overrides contrib/openrc "$stage/"

mkdir "$stage/doc"
cp README.md CHANGELOG.md LICENSE docs/behaviour.md "$stage/doc/"
GO=$go packaging/licences.sh >"$stage/doc/LICENSES.modules"
gzip -9nc CHANGELOG.md >"$stage/doc/changelog.gz"
gzip -9nc "$stage/doc/LICENSES.modules" >"$stage/doc/LICENSES.modules.gz"
maintainer=${MAINTAINER:-tlspolicyd developers <packages@tlspolicyd.invalid>}
gzip -9nc >"$stage/doc/changelog.Debian.gz" <<TEXT
tlspolicyd ($version-1) unstable; urgency=medium

  * Built from the source of that version; see changelog.gz.

 -- $maintainer  $(date -u -R -d "@$epoch")
TEXT
{
	cat LICENSE
	cat <<'TEXT'

The program contains other modules: LICENSES.modules.gz beside this file has
the licence of each. The text of the Apache License, Version 2.0, is in
/usr/share/common-licenses/Apache-2.0 as well.
TEXT
} >"$stage/doc/copyright"

# nfpm has a module file of its own, so that what it depends on stays out of the
# daemon's. With a vendor directory it still comes from the module cache.
GOFLAGS=-mod=mod $go build -modfile=packaging/nfpm.mod -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
prerelease=
case $version in *~*) prerelease=${version#*~} ;; esac
cd "$stage"
# nfpm takes the time of the maintainer scripts of an .apk from their files.
find . -exec touch -d "@$epoch" {} +
for packager in deb rpm apk; do
	PKG_ARCH=$arch PKG_VERSION=${version%%~*} PKG_PRERELEASE=$prerelease PKG_MAINTAINER=$maintainer \
		"$work/nfpm" package --config "$top/packaging/nfpm.yaml" --packager $packager --target "$out"
done
