#!/bin/sh
# Prints the version of this source, or with the argument "epoch" its time in
# seconds since 1970. In a release tarball both stand in packaging/RELEASE.
#
# A commit that is tagged vX.Y.Z is that version. Any other one comes before the
# next release, and every kind of package sorts it there: X.Y.(Z+1)~gitTIME.
set -eu
cd "$(dirname "$0")/.."

if [ -f packaging/RELEASE ]; then
	read -r version epoch <packaging/RELEASE
else
	# The repository may belong to another user, e.g. in a container.
	git() { command git -c safe.directory="$PWD" "$@"; }
	epoch=$(git log -1 --format=%ct)
	if tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then
		version=${tag#v}
	else
		tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || echo v0.0.-1)
		tag=${tag#v}
		version=${tag%.*}.$((${tag##*.} + 1))~git$(date -u -d "@$epoch" +%Y%m%d%H%M%S)
	fi
fi

case ${1:-version} in
version) echo "$version" ;;
epoch) echo "${SOURCE_DATE_EPOCH:-$epoch}" ;;
*)
	echo "usage: packaging/version.sh [version|epoch]" >&2
	exit 2
	;;
esac
