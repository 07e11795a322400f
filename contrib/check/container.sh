#!/bin/sh
# Runs inside a scratch root with buildah, podman, docker compose and Unbound (see
# contrib/check.sh).
set -eu

dir=/src/contrib/container

die() {
	printf 'container: %s\n' "$*" >&2
	exit 1
}

# wait_for WHAT COMMAND...: until it succeeds, for two minutes: only a hang fails.
wait_for() {
	what=$1
	shift
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 1200 ] || die "waited in vain for $what: $(cat /tmp/*.log)"
		sleep 0.1
	done
}

export BUILDAH_ISOLATION=chroot
printf '[storage]\ndriver = "vfs"\ngraphroot = "/tmp/storage"\nrunroot = "/run/storage"\n' >/etc/containers/storage.conf

# An image to build in, since no registry is asked: the shell and the commands of
# the Containerfile, with this machine's Go.
base_image() {
	b=$(buildah from scratch)
	m=$(buildah mount "$b")
	mkdir -p "$m/bin" "$m/tmp" "$m/etc/ssl/certs" "$m/usr/local"
	for f in /bin/sh /usr/bin/install; do
		cp -L "$f" "$m/bin/"
		for lib in $(ldd "$f" | grep -o '/[^ ]*'); do
			mkdir -p "$m$(dirname "$lib")"
			cp -L "$lib" "$m$lib"
		done
	done
	cp /etc/ssl/certs/ca-certificates.crt "$m/etc/ssl/certs/"
	buildah config --env PATH=/usr/local/go/bin:/bin --env GOFLAGS=-modcacherw --env GOSUMDB=off \
		--env GOTOOLCHAIN=local --env GOPROXY=file:///root/go/pkg/mod/cache/download --env HOME=/root "$b"
	buildah commit --quiet "$b" localhost/golang >/dev/null
	buildah rm "$b" >/dev/null
}

build_image() {
	base_image
	# A container may not raise its own limits, which is what buildah would do.
	nproc=$(prlimit --nproc --output=HARD --noheadings | tr -d ' ')
	nofile=$(prlimit --nofile --output=HARD --noheadings | tr -d ' ')
	buildah build --quiet --pull=never --network=host \
		--ulimit "nproc=$nproc:$nproc" --ulimit "nofile=$nofile:$nofile" --build-arg GO_IMAGE=localhost/golang \
		--volume /go/root:/usr/local/go:ro --volume /go/mod:/root/go/pkg/mod \
		--volume /go/build:/root/.cache/go-build \
		-f $dir/Containerfile -t localhost/tlspolicyd /src >/tmp/build.log 2>&1 || die "$(cat /tmp/build.log)"
	echo "ok   Containerfile builds (buildah $(buildah --version | cut -d ' ' -f 3), with this machine's Go for the first stage)"
}

# inspect FILTER WANT
inspect() {
	got=$(buildah inspect --type image localhost/tlspolicyd | jq -c ".OCIv1.config.$1")
	[ "$got" = "$2" ] || die "image: $1 is $got, want $2"
}

# What the image says, and the image at work beside Unbound as in the pod: as its
# user, on a read-only root, without capabilities, with the health check.
run_image() {
	inspect User '"65532:65532"'
	inspect Entrypoint '["/usr/bin/tlspolicyd"]'
	inspect Cmd '["serve"]'
	c=$(buildah from --pull=never localhost/tlspolicyd)
	image=$(buildah mount "$c")
	files=$(cd "$image" && find . -type f | sort | tr '\n' ' ')
	[ "$files" = "./etc/ssl/certs/ca-certificates.crt ./etc/tlspolicyd/tlspolicyd.toml ./usr/bin/tlspolicyd " ] ||
		die "image: has the files $files"
	mount --bind "$image" "$image"
	mount -o remount,bind,ro "$image"
	for d in run var/lib; do
		[ "$(stat -c %u "$image/$d/tlspolicyd")" = 65532 ] || die "image: /$d/tlspolicyd is not the daemon's"
		mount -t tmpfs -o uid=65532,gid=65532,mode=0700 tmpfs "$image/$d/tlspolicyd"
	done
	start_unbound
	buildah inspect --type image localhost/tlspolicyd | jq -r '.OCIv1.config.Env[]' >/tmp/env
	as_user serve >/tmp/daemon.log 2>&1 &
	health=$(jq -r '.services.tlspolicyd.healthcheck.test[2:] | join(" ")' /tmp/compose.json)
	quadlet=$(sed -n 's/^HealthCmd=//p' $dir/quadlet/tlspolicyd.container | jq -r '.[1:] | join(" ")')
	[ "$health" = "$quadlet" ] || die "health checks differ: $health, $quadlet"
	# shellcheck disable=SC2086 # words of a command
	wait_for "the health check" as_user $health
	# shellcheck disable=SC2086 # words of a command
	answer=$(as_user $health)
	touch "$image/x" 2>/dev/null && die "image: its root can be written"
	echo "ok   the image runs as 65532 on a read-only root, its health check says $answer"
}

# as_user ARGUMENT...: the image's program in the image.
as_user() {
	# shellcheck disable=SC2046 # a list of variables
	env -i $(cat /tmp/env) /usr/sbin/chroot --userspec=65532:65532 --groups=65532 "$image" /usr/bin/tlspolicyd "$@"
}

start_unbound() {
	[ -f /usr/share/dns/root.key ] || die "no dns-root-data"
	mount -t tmpfs -o uid=65532,gid=65532,mode=0700 tmpfs /var/lib/unbound
	cp $dir/unbound.conf /etc/unbound/unbound.conf
	setpriv --reuid=65532 --regid=65532 --clear-groups --bounding-set=-all --no-new-privs \
		sh $dir/unbound-start >/tmp/unbound.log 2>&1 &
	wait_for Unbound grep -q 'start of service' /tmp/unbound.log
	unbound-checkconf $dir/unbound.conf >/tmp/checkconf.log 2>&1 || die "$(cat /tmp/checkconf.log)"
	[ -s /var/lib/unbound/root.key ] || die "Unbound has no trust anchor on its volume"
	# Nothing but that the root servers are out of reach here.
	grep -i 'error\|warn' /tmp/unbound.log | grep -v 'SERVFAIL <\. DNSKEY IN>' && die "Unbound complains"
	echo "ok   unbound.conf: $(unbound -V | sed -n 's/^Version //p'), as 65532 without capabilities"
}

compose() {
	docker-compose -f $dir/compose.yaml config --quiet || die "compose.yaml"
	docker-compose -f $dir/compose.yaml config --format json >/tmp/compose.json
	for s in tlspolicyd unbound; do
		jq -e ".services.$s | .read_only and .cap_drop == [\"ALL\"] and (.security_opt | contains([\"no-new-privileges:true\"]))" \
			/tmp/compose.json >/dev/null || die "compose.yaml: $s is not locked down"
	done
	jq -r '.services[].volumes[] | select(.type == "bind").source' /tmp/compose.json | while read -r f; do
		[ -f "$f" ] || die "compose.yaml: $f does not exist"
	done
	echo "ok   compose.yaml ($(docker-compose version --short))"
}

quadlet() {
	QUADLET_UNIT_DIRS=$dir/quadlet /usr/libexec/podman/quadlet -dryrun >/tmp/units 2>/tmp/quadlet.err ||
		die "quadlet: $(cat /tmp/quadlet.err)"
	grep -v '^quadlet-generator.*Loading source unit file' /tmp/quadlet.err && die "quadlet complains"
	for unit in tlspolicyd tlspolicyd-unbound tlspolicyd-pod tlspolicyd-policies-volume tlspolicyd-anchor-volume; do
		grep -q -e "^---$unit.service---" /tmp/units || die "quadlet makes no $unit.service"
	done
	for flag in --read-only "--cap-drop all" --security-opt=no-new-privileges; do
		[ "$(grep -c -e "^ExecStart=.*$flag" /tmp/units)" = 2 ] || die "quadlet: $flag is not on both containers"
	done
	echo "ok   quadlet units (podman $(podman --version | cut -d ' ' -f 3))"
}

compose
quadlet
build_image
run_image
