#!/bin/sh
# Runs inside a scratch root with docker compose (see contrib/check.sh): the compose
# file for the engine of docs/fleet.md.
set -eu

compose=/src/contrib/fleet/compose.yaml

die() {
	printf 'compose: %s\n' "$*" >&2
	exit 1
}

docker-compose -f $compose config --format json >/tmp/compose.json || die "compose.yaml"
jq -e '.services.valkey | .read_only and .cap_drop == ["ALL"] and (.security_opt | contains(["no-new-privileges:true"]))' \
	/tmp/compose.json >/dev/null || die "valkey is not locked down"
# It mounts the files that the page makes, and no others.
for f in $(jq -r '.services.valkey.volumes[].source' /tmp/compose.json); do
	grep -q "^chmod 0640 .*\b${f#/etc/valkey/}\b" /src/docs/fleet.md || die "$f: docs/fleet.md makes no such file"
done
want=$(jq -r '.services.valkey.command | join(" ")' /tmp/compose.json)
[ "$want" = "valkey-server $(jq -r '.services.valkey.volumes[0].target' /tmp/compose.json)" ] || die "command $want"
echo "ok   compose.yaml ($(docker-compose version --short))"
