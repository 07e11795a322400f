#!/bin/sh
# contrib/check/fleet.sh ROOT DEB WORK: docs/fleet.md, word by word, on an engine and
# three mail hosts as Debian and the package leave them, each booted with systemd,
# and credentials.conf. Runs in mount, network and process namespaces of its own (see
# contrib/check.sh). A fifth host has the rest of the world: DNS and gmail.com.
set -eu

root=$1 deb=$2 work=$3
page=docs/fleet.md
cgroup=tlspolicyd-fleet-$(basename "$(dirname "$work")") # of this run

die() {
	printf 'fleet: %s\n' "$*" >&2
	cat "$work"/*.out >&2 2>/dev/null || true
	exit 1
}

# halt ends all hosts: the first process of each takes all others with it.
halt() {
	for f in "$work"/*.init; do
		[ ! -e "$f" ] || kill -s KILL "$(cat "$f")" 2>/dev/null || true
	done
	wait
	tries=0
	while [ -n "$(find "$work/cgroup" -depth -type d -path "*/$cgroup-*" -exec rmdir {} + 2>&1)" ]; do
		tries=$((tries + 1))
		[ $tries -lt 600 ] || break
		sleep 0.1
	done
	umount "$work/cgroup"
}

# boot HOST: in a cgroup and namespaces of its own.
boot() {
	group=$work/cgroup/$cgroup-$1
	mkdir "$group" "$work/$1"
	# shellcheck disable=SC2016 # the variables are the inner shell's
	sh -c 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"' sh "$group" \
		unshare --cgroup --mount --net --pid --ipc --uts --fork --kill-child \
		sh packaging/boot.sh "$root" "$work/$1" "$work/prepare" "$1" "$deb" "$work" >"$work/$1.out" 2>&1 </dev/null &
	echo $! >"$work/$1.container"
}

# connect HOST ADDRESS: to the others, once it has booted.
connect() {
	wait_for "the start of $1" systemd_runs "$1"
	ip link add "$1" type veth peer name eth0 netns "$(cat "$work/$1.init")"
	ip link set "$1" master lan up
	on "$1" ip link set lo up
	on "$1" ip link set eth0 up
	on "$1" ip address add "$2/24" dev eth0
	on "$1" ip route add default dev eth0
	on "$1" systemctl is-system-running --wait >/dev/null || true
}

systemd_runs() {
	pgrep -P "$(cat "$work/$1.container")" >"$work/$1.init" && [ "$(cat "/proc/$(cat "$work/$1.init")/comm")" = systemd ] &&
		on "$1" test -S /run/systemd/private
}

# on HOST COMMAND...
on() {
	target=$(cat "$work/$1.init")
	shift
	nsenter -t "$target" --mount --net --pid --ipc --uts --cgroup --root --wd \
		env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 SYSTEMD_PAGER= "$@" </dev/null
}

# wait_for WHAT COMMAND...: until it succeeds, for two minutes: only a hang fails.
wait_for() {
	what=$1
	shift
	tries=0
	until "$@" >"$work/wait.out" 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 1200 ] || die "waited in vain for $what"
		sleep 0.1
	done
}

# block N LANGUAGE: the Nth block of the page in that language.
block() {
	awk -v n="$1" -v fence='```'"$2" '$0 == fence { i++; on = i == n; next } /^```$/ { on = 0 } on' $page
}

# run HOST N: the commands of the Nth sh block, as root on that host.
run() {
	block "$2" sh >"$work/block"
	[ -s "$work/block" ] || die "$page has no sh block $2"
	on "$1" sh -ec "$(cat "$work/block")" >"$work/$1.out" 2>&1
}

# want TEXT HOST COMMAND...: the command succeeds, and its output matches TEXT.
want() {
	text=$1
	shift
	on "$@" >"$work/want.out" 2>&1 || die "failed: $*"
	[ -z "$text" ] || grep -q -e "$text" "$work/want.out" || die "no \"$text\" from: $*"
}

# What an installed host is that this scratch root is not yet: names, the site's
# resolver, root's ssh between the hosts, and only the services that belong to it.
cat >"$work/prepare" <<'PREPARE'
m=$1 name=$2 deb=$3 work=$4
hostname "$name"
echo "$name" >"$m/etc/hostname"
echo "127.0.0.1 localhost" >"$m/etc/hosts"
rm -f "$m/etc/resolv.conf"
echo "nameserver 192.0.2.53" >"$m/etc/resolv.conf"
mkdir -p "$m/root/.ssh" "$m/usr/local/share/ca-certificates"
chmod 0700 "$m/root/.ssh"
cp "$m/etc/ssh/ssh_host_ed25519_key.pub" "$m/root/.ssh/authorized_keys"
sed 's/^/* /' "$m/etc/ssh/ssh_host_ed25519_key.pub" >"$m/root/.ssh/known_hosts"
echo "IdentityFile /etc/ssh/ssh_host_ed25519_key" >"$m/root/.ssh/config"
cd "$m/etc/systemd/system"
rm -f ./*/netavark* ./*/prometheus* ./*/apt-daily* ./*/unbound-resolvconf* ./*/postfix*
[ "$name" = world ] || rm -f ./*/unbound*
[ "$name" = valkey ] || rm -f ./*/valkey-server*
case $name in
mail*)
	cp "$deb" "$m/root/tlspolicyd.deb"
	cp "$work/gmail.pem" "$m/usr/local/share/ca-certificates/gmail.crt"
	chroot "$m" update-ca-certificates
	;;
world)
	cp "$work/world.conf" "$m/etc/unbound/unbound.conf.d/"
	mkdir -p "$m/srv/.well-known"
	cp "$work/gmail.pem" "$work/gmail.key" "$m/srv/"
	cp "$work/mta-sts.txt" "$m/srv/.well-known/"
	;;
esac
PREPARE

# gmail.com has a policy in mode enforce, in the real world too.
cat >"$work/world.conf" <<'UNBOUND'
server:
  interface: 0.0.0.0
  access-control: 0.0.0.0/0 allow
  local-zone: "." static
  local-data: ". 300 SOA . . 1 3600 600 86400 300"
  local-data: "valkey.example.net. A 192.0.2.10"
  local-data: "mail1.example.net. A 192.0.2.1"
  local-data: "mail2.example.net. A 192.0.2.2"
  local-data: "mail3.example.net. A 192.0.2.3"
  local-data: "gmail.com. MX 5 gmail-smtp-in.l.google.com."
  local-data: "gmail-smtp-in.l.google.com. A 142.250.1.27"
  local-data: '_mta-sts.gmail.com. TXT "v=STSv1; id=20190429T010101;"'
  local-data: "mta-sts.gmail.com. A 142.250.1.100"
UNBOUND
policy='version: STSv1\nmode: enforce\nmx: gmail-smtp-in.l.google.com\nmx: *.gmail-smtp-in.l.google.com\nmax_age: 86400\n'
# shellcheck disable=SC2059 # it is a format
printf 'HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n'"$policy" "$(printf "$policy" | wc -c)" >"$work/mta-sts.txt"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=gmail \
	-addext subjectAltName=DNS:mta-sts.gmail.com -keyout "$work/gmail.key" -out "$work/gmail.pem" 2>/dev/null
[ -z "$(block 7 sh)$(block 2 toml)" ] || die "$page has a block that is not checked here"
mkdir -p "$work/cgroup"
mount -t cgroup2 cgroup2 "$work/cgroup"
trap halt EXIT
ip link set lo up
ip link add lan type bridge
ip link set lan up
for host in world valkey mail1 mail2 mail3; do
	boot "$host"
done
connect world 192.0.2.53
connect valkey 192.0.2.10
connect mail1 192.0.2.1
connect mail2 192.0.2.2
connect mail3 192.0.2.3
on world ip address add 142.250.1.100/32 dev eth0
on world systemd-run -q --unit=web -p WorkingDirectory=/srv openssl s_server -quiet -HTTP -port 443 -cert gmail.pem -key gmail.key
for host in mail1 mail2 mail3; do
	want "" "$host" dpkg -i /root/tlspolicyd.deb
	want active "$host" systemctl is-active tlspolicyd
done
want valkey-server valkey ss -Hltnp sport = :6379
want active valkey systemctl is-active ssh
echo "ok   an engine's host and three mail hosts, as Debian and the package leave them"

run mail1 1 || die "the copy to the engine's host"
run valkey 2 || die "the commands for the engine"
want '^active$' valkey systemctl is-active valkey-server@fleet
echo "ok   the engine ($(on valkey valkey-server --version | cut -d ' ' -f 3), TLS, one user)"

run mail1 3 || die "the commands for the secrets"
for host in mail1 mail2 mail3; do
	# shellcheck disable=SC2016 # sed's
	on "$host" sh -ec 'printf "%s\n" "$1" | sed -i "/^\[share\]$/r /dev/stdin" /etc/tlspolicyd/tlspolicyd.toml' sh "$(block 1 toml)"
	run "$host" 4 || true # doctor misses Postfix
	want '"share-ok"' "$host" sh -c 'tlspolicyd doctor --json || true'
	grep -q 'The engine of the shared cache allows all' "$work/$host.out" || die "doctor on $host"
done
echo "ok   three mail hosts, doctor"

run mail1 5 || die "the lookup"
grep -q '^OK secure match=gmail-smtp-in.l.google.com:' "$work/mail1.out" || die "the lookup answers otherwise"
wait_for "the policy on mail2" on mail2 tlspolicyd cache show gmail.com
run mail2 6 || die "cache show and cache diff"
grep -q mail1 "$work/mail2.out" || die "mail2 does not name mail1"
echo "ok   mail2 has the policy of mail1, and no differences"

# The engine is reached while DNS and everything else is blocked.
want "" world systemctl stop unbound web
want "" mail2 systemctl restart tlspolicyd
wait_for "the engine without DNS" on mail2 tlspolicyd cache diff
echo "ok   the engine is reached without DNS"

# credentials.conf, word by word: commands, two lines for the configuration, commands.
lines=$(sed -n 's/^#   //p' contrib/fleet/credentials.conf)
want "" mail3 sh -ec "$(echo "$lines" | sed '/ = /,$d')"
echo "$lines" | grep ' = ' >"$work/settings"
while read -r key equals value; do
	want "" mail3 sed -i "s|^$key .*|$key $equals $value|" /etc/tlspolicyd/tlspolicyd.toml
done <"$work/settings"
restart=$(echo "$lines" | sed '1,/^key_file/d')
want "" mail3 sh -ec "$restart"
wait_for "the engine, with credentials" on mail3 tlspolicyd cache diff
want '^root:root 600$' mail3 stat -c '%U:%G %a' /etc/tlspolicyd/share-key
want '"share-inconclusive"' mail3 sh -c 'tlspolicyd doctor --json || true'
want "" mail3 systemctl reload tlspolicyd
want "settings reloaded" mail3 journalctl -u tlspolicyd
want "" mail3 tlspolicyd cache diff
# Another secret is passed on a restart, and on no reload.
want "" mail3 cp /etc/tlspolicyd/share-password /root/good
want "" mail3 sh -c 'echo wrong >/etc/tlspolicyd/share-password'
want "" mail3 systemctl reload tlspolicyd
want "" mail3 tlspolicyd cache diff
want "" mail3 sh -ec "$restart"
! on mail3 tlspolicyd cache diff >"$work/want.out" 2>&1 || die "a wrong password is no matter"
want "" mail3 cp /root/good /etc/tlspolicyd/share-password
want "" mail3 sh -ec "$restart"
wait_for "the engine, with the right password" on mail3 tlspolicyd cache diff
echo "ok   credentials.conf: restart, reload, a changed secret"

# A new password without a gap, as the page has it. The engine is empty after a restart.
reaches() {
	on "$1" tlspolicyd cache diff || [ $? = 1 ]
}
password() {
	want "" valkey sed -i "s/ >.* resetchannels/ $1 resetchannels/" /etc/valkey/fleet.acl
	want "" valkey systemctl restart valkey-server@fleet
}
old=$(on valkey cat /etc/valkey/fleet.password)
password ">$old >the-new-password"
wait_for "the engine, with the old password" reaches mail1
want "" mail1 sh -c 'echo the-new-password >/etc/tlspolicyd/share-password'
want "" mail1 systemctl reload tlspolicyd
password ">the-new-password"
wait_for "the engine, with the new password" reaches mail1
! reaches mail2 >"$work/want.out" 2>&1 || die "the old password still works"
echo "ok   another password"
