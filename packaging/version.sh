#!/bin/sh
# Prints the version of this source, or with the argument "epoch" its time in
# seconds since 1970. In a release tarball both are in packaging/RELEASE.
#
# A commit that is tagged vX.Y.Z is that version. Any other one comes before the
# next release, and every kind of package sorts it there: X.Y.(Z+1)~gitTIME.
set -eu
cd "$(dirname "$0")/.."

if [ "${1:-}" = epoch ] && [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
	echo "$SOURCE_DATE_EPOCH"
	exit
fi
if [ -f packaging/RELEASE ]; then
	read -r version epoch <packaging/RELEASE
else
	# The repository may belong to another user, e.g. in a container.
	git() { command git -c safe.directory="$PWD" "$@"; }
	epoch=$(git log -1 --format=%ct)
	if tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then
		version=$(echo "${tag#v}" | sed 's/-rc\.\{0,1\}/~rc/') # v1.0.0-rc1 is 1.0.0~rc1
	else
		tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' --exclude '*-rc*' 2>/dev/null || echo v0.0.-1)
		tag=${tag#v}
		version=${tag%.*}.$((${tag##*.} + 1))~git$(date -u -d "@$epoch" +%Y%m%d%H%M%S)
	fi
fi

case ${1:-version} in
version) echo "$version" ;;
epoch) echo "$epoch" ;;
*)
	echo "usage: packaging/version.sh [version|epoch]" >&2
	exit 2
	;;
esac
