#!/bin/sh
# Runs inside a scratch root with Valkey, openssl and docker compose (see
# contrib/check.sh): the commands of docs/fleet.md, word by word, on an engine and
# three mail hosts, which are mount namespaces with a host name each.
set -eu

page=/src/docs/fleet.md
compose=/src/contrib/fleet/compose.yaml

die() {
	printf 'fleet: %s\n' "$*" >&2
	cat /tmp/*.log >&2 2>/dev/null || true
	exit 1
}

# block N: the Nth sh block of the page, with what a scratch root lacks: apt, and
# systemd to start the two services as their units do.
block() {
	cat <<-'END'
		set -eu
		apt() { :; }
		wait_for() {
			tries=0
			until "$@" >/tmp/waited 2>&1; do
				tries=$((tries + 1))
				[ $tries -lt 1200 ] || { echo "waited in vain: $*: $(cat /tmp/waited)" >&2; exit 1; }
				sleep 0.1
			done
		}
		systemctl() {
			case "$*" in
			"enable --now valkey-server@fleet")
				setpriv --reuid=valkey --regid=valkey --clear-groups \
					valkey-server /etc/valkey/valkey-fleet.conf --daemonize no >/tmp/valkey.log 2>&1 &
				wait_for grep -q "Ready to accept connections tls" /tmp/valkey.log
				;;
			"restart tlspolicyd")
				setpriv --reuid=tlspolicyd --regid=tlspolicyd --clear-groups \
					env RUNTIME_DIRECTORY=/run/tlspolicyd STATE_DIRECTORY=/var/lib/tlspolicyd \
					tlspolicyd serve >"/tmp/$(hostname).log" 2>&1 &
				wait_for tlspolicyd cache diff
				;;
			*) echo "systemctl $* is not known here" >&2; exit 1 ;;
			esac
		}
	END
	awk -v n="$1" '/^```sh$/ { i++; on = i == n; next } /^```$/ { on = 0 } on' $page
}

# on_host NAME COMMAND...: with its own /etc/tlspolicyd, database and sockets.
on_host() {
	name=$1
	shift
	unshare --mount --uts sh -eu -c '
		hostname "$1"
		for d in etc var/lib run; do
			mkdir -p "/hosts/$1/$d" "/$d/tlspolicyd"
			mount --bind "/hosts/$1/$d" "/$d/tlspolicyd"
		done
		chown tlspolicyd:tlspolicyd /var/lib/tlspolicyd /run/tlspolicyd
		shift
		exec "$@"
	' sh "$name" "$@"
}

install -m 0755 /check/tlspolicyd /usr/bin/tlspolicyd
mkdir -p /usr/share/doc/tlspolicyd/contrib
cp -r /src/contrib/fleet /usr/share/doc/tlspolicyd/contrib/
useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin tlspolicyd
echo 127.0.0.1 localhost valkey.example.net >>/etc/hosts

block 1 >/tmp/engine.sh
sh /tmp/engine.sh >/tmp/engine.log 2>&1 || die "the commands for the engine"
echo "ok   docs/fleet.md: the engine ($(valkey-server --version | cut -d ' ' -f 3), TLS, one user)"

block 2 >/tmp/key.sh
on_host mail1 sh /tmp/key.sh || die "the command for the key"
block 3 >/tmp/host.sh
for host in mail1 mail2 mail3; do
	mkdir -p /hosts/$host/etc
	[ $host = mail1 ] || cp /hosts/mail1/etc/share-key /hosts/$host/etc/
	cp /etc/valkey/fleet.password /hosts/$host/etc/share-password
	cp /etc/valkey/fleet.pem /hosts/$host/etc/share-ca.pem
	printf '[dns]\nservers = ["127.0.0.1:5"]\n' >/hosts/$host/etc/tlspolicyd.toml
	on_host $host sh /tmp/host.sh >/tmp/$host.out 2>&1 || true # doctor misses a resolver and Postfix
	grep -q 'The engine of the shared cache allows all' /tmp/$host.out || die "doctor on $host: $(cat /tmp/$host.out)"
	on_host $host tlspolicyd cache diff >/tmp/diff.out 2>&1 || die "cache diff on $host: $(cat /tmp/diff.out)"
done
echo "ok   docs/fleet.md: three mail hosts, doctor and cache diff"

docker-compose -f $compose config --format json >/tmp/compose.json || die "compose.yaml"
jq -e '.services.valkey | .read_only and .cap_drop == ["ALL"] and (.security_opt | contains(["no-new-privileges:true"]))' \
	/tmp/compose.json >/dev/null || die "compose.yaml: valkey is not locked down"
for f in $(jq -r '.services.valkey.volumes[].source' /tmp/compose.json); do
	[ -f "$f" ] || die "compose.yaml: $f does not exist"
done
want=$(jq -r '.services.valkey.command | join(" ")' /tmp/compose.json)
[ "$want" = "valkey-server $(jq -r '.services.valkey.volumes[0].target' /tmp/compose.json)" ] || die "compose.yaml: command $want"
echo "ok   compose.yaml ($(docker-compose version --short))"

# Each credential of the drop-in is one that the configuration can name.
sed -n 's/^LoadCredential=\([^:]*\):.*/\1/p' /src/contrib/fleet/credentials.conf >/tmp/credentials
while IFS= read -r name; do
	# shellcheck disable=SC2016 # the variable is the daemon's
	grep -q -F '"${CREDENTIALS_DIRECTORY}/'"$name"'"' /src/contrib/fleet/credentials.conf || die "credentials.conf: $name"
done </tmp/credentials
echo "ok   credentials.conf"
