#!/bin/sh
# Makes the source tarball of the current commit in dist/ (or in the directory
# given), with all Go modules in vendor/: it builds without a network. The same
# commit makes the same bytes.
set -eu
cd "$(dirname "$0")/.."
umask 022
go=${GO:-go}
out=${1:-dist}
[ ! -f packaging/RELEASE ] || {
	echo "packaging/dist.sh: this is a release tarball already, a new one is made in the repository" >&2
	exit 1
}
git() { command git -c safe.directory="$PWD" "$@"; }
version=$(packaging/version.sh)
epoch=$(packaging/version.sh epoch)
name=tlspolicyd-$(printf %s "$version" | tr '~' '-')
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -z "$(git status --porcelain)" ] ||
	echo "packaging/dist.sh: what is not committed is left out" >&2
git archive --prefix="$name/" HEAD | tar -x -C "$work"
echo "$version $epoch" >"$work/$name/packaging/RELEASE"
(cd "$work/$name" && GOFLAGS='' $go mod vendor)
LC_ALL=C tar -c -C "$work" --sort=name --format=ustar --mtime="@$epoch" \
	--owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX "$name" | gzip -9n >"$work/tar.gz"
mv "$work/tar.gz" "$out/$name.tar.gz"
echo "$out/$name.tar.gz"
