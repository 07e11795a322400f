#!/bin/sh
# Runs inside a scratch root with OpenRC and shellcheck (see contrib/check.sh):
# every script of contrib/ through shellcheck and sh -n, and the OpenRC service
# started, reloaded and stopped by OpenRC itself.
set -eu

die() {
	printf 'rc: %s\n' "$*" >&2
	cat /var/log/tlspolicyd.log >&2 2>/dev/null || true
	exit 1
}

# wait_for WHAT COMMAND...: until it succeeds, for two minutes: only a hang fails.
wait_for() {
	what=$1
	shift
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 1200 ] || die "waited in vain for $what"
		sleep 0.1
	done
}

lint() {
	# SC1091: os-release and rc.subr are not here.
	# SC2016: Markdown, jq and inner shells have dollar signs and backquotes of their own.
	# SC2034: variables that rc.subr and openrc-run read.
	# SC2317: functions that they call.
	cd /src/contrib
	for f in check.sh check/*.sh container/unbound-start; do
		sh -n "$f" || die "$f"
		shellcheck --shell=sh --exclude=SC1091,SC2016 "$f" || die "shellcheck: $f"
	done
	for f in openrc/tlspolicyd.initd openrc/tlspolicyd.confd freebsd/tlspolicyd; do
		sh -n "$f" || die "$f"
		shellcheck --shell=sh --exclude=SC1091,SC2034,SC2317 "$f" || die "shellcheck: $f"
	done
	checkbashisms --posix --extra check.sh check/*.sh container/unbound-start freebsd/tlspolicyd ||
		die "checkbashisms"
	echo "ok   sh -n, shellcheck $(shellcheck --version | sed -n 's/^version: //p'), checkbashisms"
}

install_service() {
	install -m 0755 /check/tlspolicyd /usr/bin/tlspolicyd
	install -m 0755 /src/contrib/openrc/tlspolicyd.initd /etc/init.d/tlspolicyd
	install -m 0644 /src/contrib/openrc/tlspolicyd.confd /etc/conf.d/tlspolicyd
	useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin tlspolicyd
	mkdir -p /etc/tlspolicyd
	# What OpenRC makes when it boots.
	for d in daemons exclusive failed hotplugged inactive options scheduled started starting stopping tmp wasinactive; do
		mkdir -p "/run/openrc/$d"
	done
	touch /run/openrc/softlevel
}

config() {
	cat <<-CONF
		[listen]
		socketmap = ["unix:/run/tlspolicyd/socketmap.sock", "unix:/var/spool/postfix/run/tlspolicyd/socketmap.sock"]
		[dns]
		servers = ["127.0.0.1"]
		[override]
		"policy.test" = "$1"
	CONF
}

answers() {
	[ "$(/usr/bin/tlspolicyd lookup --socket unix:/var/spool/postfix/run/tlspolicyd/socketmap.sock policy.test)" = "OK $1" ]
}

openrc_service() {
	install_service
	config may >/etc/tlspolicyd/tlspolicyd.toml
	rc-service --nodeps tlspolicyd start || die "does not start"
	wait_for "the first answer" answers may
	pid=$(pgrep -u tlspolicyd -x tlspolicyd) || die "runs as another user"
	rc-service tlspolicyd status || die "status"

	config encrypt >/etc/tlspolicyd/tlspolicyd.toml
	rc-service --nodeps tlspolicyd reload || die "reload"
	wait_for "the answer after the reload" answers encrypt
	[ "$(pgrep -u tlspolicyd -x tlspolicyd)" = "$pid" ] || die "a reload made another process"

	echo "[dns]
	server = 1" >/etc/tlspolicyd/tlspolicyd.toml
	! rc-service --nodeps tlspolicyd reload 2>/dev/null || die "a bad configuration is reloaded"
	answers encrypt || die "a bad configuration changed the answer"

	config may >/etc/tlspolicyd/tlspolicyd.toml
	kill -s KILL "$pid"
	wait_for "a new process after SIGKILL" answers may

	rc-service --nodeps tlspolicyd stop || die "does not stop"
	! pgrep -u tlspolicyd -x tlspolicyd || die "still there after stop"
	echo "ok   OpenRC $(openrc --version | sed 's/.*) //'): start, status, reload, bad reload, SIGKILL, stop"
}

lint
openrc_service
