#!/bin/sh
# Runs the tests of the operator's page in Chromium, headless. Root on Debian gets
# Chromium by itself; others need it in PATH. Arguments are passed to the tests,
# e.g. -v.
#
#   TLSPOLICYD_UI_DOMAINS  how many domains are in the cache, default 100000
#   TLSPOLICYD_SCREENSHOTS a directory: each page is written there as PNG
set -eu

PATH=$PATH:/usr/local/go/bin # sudo leaves it out
cd "$(dirname "$0")/../.."

install_chromium() {
	apt-get -qq update &&
		DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install chromium fonts-liberation
}

if ! command -v chromium >/dev/null; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "browser: no chromium in PATH: install it, or run this as root on Debian" >&2
		exit 1
	fi
	echo "browser: installing chromium"
	log=$(mktemp)
	for pause in 10 30 0; do # a mirror may fail to answer for a moment
		install_chromium >"$log" 2>&1 </dev/null && break
		[ $pause != 0 ] || {
			cat "$log" >&2
			echo "browser: apt-get could not install chromium" >&2
			exit 1
		}
		sleep $pause
	done
	rm -f "$log"
fi
exec go test -pgo=off -count=1 -timeout 10m -tags browser ./testing/browser "$@"
