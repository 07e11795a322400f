#!/bin/sh
# Runs inside a scratch root with Postfix and Unbound, in namespaces of its own
# (see contrib/check.sh): applies main.cf fragments as they say to, with each of
# their variants, and delivers mail through a chrooted smtp(8) that asks the real
# daemon.
#
#   postfix.sh FRAGMENT...
set -eu

daemon=/check/tlspolicyd
spool=/var/spool/postfix
log=/var/log/maillog
relative=$spool/run/tlspolicyd

die() {
	printf 'postfix: %s\n' "$*" >&2
	tail -n 20 "$log" /tmp/daemon.log /tmp/sink.log >&2 2>/dev/null || true
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

# Three domains with the same mail host, which offers no TLS. The daemon says
# "encrypt" for two of them, so that an answer of the daemon is seen in the
# fate of the message: it is deferred where the answer was "encrypt".
start_world() {
	cat >/tmp/unbound.conf <<-'CONF'
		server:
			interface: 127.0.0.1
			access-control: 127.0.0.0/8 allow
			chroot: ""
			username: ""
			directory: "/tmp"
			pidfile: "/tmp/unbound.pid"
			use-syslog: no
			do-ip6: no
			local-zone: "." static
			local-data: "policy.test. MX 10 mx.sink.test."
			local-data: "static.test. MX 10 mx.sink.test."
			local-data: "plain.test. MX 10 mx.sink.test."
			local-data: "mx.sink.test. A 127.0.0.2"
	CONF
	unbound -d -c /tmp/unbound.conf >/tmp/unbound.log 2>&1 &
	cat >/tmp/tlspolicyd.toml <<-CONF
		[listen]
		socketmap = ["unix:/run/tlspolicyd/socketmap.sock", "unix:$relative/socketmap.sock", "tcp:127.0.0.1:8461"]
		[dns]
		servers = ["127.0.0.1"]
		[cache]
		path = "/tmp/policies.db"
		[override]
		"policy.test" = "encrypt"
		"static.test" = "encrypt"
	CONF
	mkdir -p /run/tlspolicyd "$relative"
	"$daemon" serve --config /tmp/tlspolicyd.toml >/tmp/daemon.log 2>&1 &
	wait_for "the daemon" "$daemon" lookup --socket "unix:$relative/socketmap.sock" policy.test
}

# Debian's own main.cf and master.cf, as far as they matter here: smtp(8) is
# chrooted, and TLS has settings already, which a fragment replaces.
start_postfix() {
	echo "nameserver 127.0.0.1" >/etc/resolv.conf
	mkdir -p "$spool/etc"
	cp /etc/resolv.conf /etc/services "$spool/etc/"
	cat >/etc/postfix/main.cf <<-CONF
		compatibility_level = 3.6
		myhostname = sender.test
		mydestination =
		inet_interfaces = 127.0.0.1
		inet_protocols = ipv4
		maillog_file = $log
		alias_maps =
		smtp_tls_CApath = /etc/ssl/certs
		smtp_tls_security_level = may
		smtp_tls_session_cache_database =
	CONF
	postconf -MX smtp/inet # the port is the sink's
	postconf -F 'smtp/unix/chroot=y'
	echo "static.test may" >/etc/postfix/tls_policy
	quiet postfix check
	postfix start >/tmp/start.log 2>&1 || die "Postfix does not start: $(cat /tmp/start.log)"
	smtp-sink -u postfix 127.0.0.2:25 100 >/tmp/sink.log 2>&1 &
}

# quiet COMMAND...: succeeds and says nothing on standard error.
quiet() {
	"$@" >/tmp/out 2>/tmp/err || die "$*: $(cat /tmp/err)"
	grep -v 'symlink\|group or other writable\|refreshing the Postfix mail system' /tmp/err >/tmp/err.rest || return 0
	die "$*: $(cat /tmp/err.rest)"
}

# fate DOMAIN: how the message just sent to it ended.
fate() {
	grep "to=<[^>]*@$1>" /tmp/log.now | sed -n 's/.*status=\([a-z]*\) (\([^:]*\).*/\1 \2/p' | tail -n 1
}

has_fate() {
	tail -n "+$1" "$log" >/tmp/log.now
	[ -n "$(fate "$2")" ]
}

# expect DOMAIN PATTERN: sends a message there and looks how it ends.
expect() {
	from=$(($(wc -l <"$log") + 1))
	printf 'Subject: check\n\nx\n' | sendmail -f root@sender.test "a@$1"
	wait_for "a delivery to $1" has_fate "$from" "$1"
	# shellcheck disable=SC2254 # a pattern
	case $(fate "$1") in
	$2) ;;
	*) die "$3: message to $1: \"$(fate "$1")\", want \"$2\"" ;;
	esac
}

# One variant of a fragment, in force already.
check_variant() {
	maps=$(postconf -h smtp_tls_policy_maps)
	postfix reload >/dev/null 2>&1
	refused="deferred *TLS is required, but was not offered*"
	expect policy.test "$refused" "$1"
	expect plain.test "sent *" "$1"
	case $maps in
	texthash:*) expect static.test "sent *" "$1" ;;
	*) expect static.test "$refused" "$1" ;;
	esac

	# postmap asks from its working directory: the queue directory for a relative path.
	last=${maps##*, }
	case $last in
	proxy:*) last=${last#proxy:} ;; # postmap itself asks
	esac
	reply=$(cd "$spool" && postmap -q policy.test "$last") || die "$1: postmap -q policy.test $last fails"
	[ "$reply" = encrypt ] || die "$1: postmap says \"$reply\", want \"encrypt\""
	echo "ok   $1, smtp_tls_policy_maps = $maps"
}

# The commands in the head of a fragment, read from there: what a reader copies
# is what runs.
apply() {
	cd "$(dirname "$1")"
	command=$(sed -n "s/^#   \(grep .*\)/\1/p" "$1")
	[ -n "$command" ] || die "$1 has no command in its head"
	quiet sh -eu -c "$command"
	cd /
}

check_fragment() {
	name=$(basename "$1")
	apply "$1"
	quiet postconf -n
	quiet postfix check
	check_variant "$name"

	grep '^#smtp_tls_policy_maps' "$1" | sed 's/^#//' >/tmp/variants
	[ "$(wc -l </tmp/variants)" = 3 ] || die "$name: want three variants of smtp_tls_policy_maps"
	while IFS= read -r variant <&3; do
		postconf -e "$variant"
		check_variant "$name"
	done 3</tmp/variants

	# Settings for some set-ups only: known to this Postfix?
	grep '^#smtp_' "$1" | grep -v smtp_tls_policy_maps | sed 's/^#//' >/tmp/others || true
	while IFS= read -r setting; do
		postconf -e "$setting"
	done </tmp/others
	quiet postconf -n
	sed -n 's/ *=.*//p' /tmp/others | while IFS= read -r setting; do postconf -X "$setting"; done

	back=$(sed -n 's/^# Back:  *//p' "$1")
	quiet sh -eu -c "$back"
	[ -z "$(postconf -h smtp_tls_policy_maps)" ] || die "$name: the way back leaves the map in force"
	expect policy.test "sent *" "$name, undone"
}

: >"$log"
start_world
start_postfix
echo "Postfix $(postconf -h mail_version), smtp(8) chrooted"
for fragment; do
	check_fragment "$fragment"
done
postfix stop >/dev/null 2>&1
