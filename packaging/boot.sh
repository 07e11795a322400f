#!/bin/sh
# packaging/boot.sh ROOT DIR PREPARE [ARGUMENT...]: boots the Debian in ROOT with
# systemd, below a layer in memory at DIR that takes all changes. The script PREPARE
# is run first, with the folder and the arguments. To be called in a cgroup of its
# own by unshare --cgroup --mount --net --pid --ipc --uts --fork --kill-child.
set -e
root=$1 dir=$2 prepare=$3
shift 3
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/up" "$dir/work" "$dir/m"
m=$dir/m
mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/up,workdir=$dir/work" "$m"
mount -t proc proc "$m/proc"
mount -t sysfs sysfs "$m/sys"
mount -t cgroup2 cgroup2 "$m/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$m/dev"
while read -r node major minor; do
	mknod -m 666 "$m/dev/$node" c "$major" "$minor"
done <<-'NODES'
	null 1 3
	zero 1 5
	full 1 7
	random 1 8
	urandom 1 9
	tty 5 0
NODES
ln -s pts/ptmx "$m/dev/ptmx"
ln -s /proc/self/fd "$m/dev/fd"
mkdir "$m/dev/pts" "$m/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$m/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$m/run"
mount -t tmpfs -o mode=1777 tmpfs "$m/tmp"
sh -eu "$prepare" "$m" "$@"
mkdir "$m/oldroot"
cd "$m"
pivot_root . oldroot
cat >/root/init <<'INIT'
umount -l /oldroot
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --show-status=no
INIT
exec chroot . /bin/sh /root/init
