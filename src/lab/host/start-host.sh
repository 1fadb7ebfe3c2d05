#!/bin/sh
# Runs below tini in a host's new namespaces: gives it its own directories, then starts Open vSwitch and sshd.
# Arguments: the host's directory in the lab's state, its name, the directory of the guests' images, and the
# directories to replace.
set -eu
state=$1 name=$2 guest=$3
shift 3

hostname "$name"
# These mounts would keep the network namespaces of all labs alive from in here.
umount -R /run/netns 2>/dev/null || true

# A fresh sysfs shows this network namespace; what hangs below the old one moves along.
mkdir -p "$state/cgroup"
if [ -d /sys/fs/cgroup ]; then mount --rbind /sys/fs/cgroup "$state/cgroup"; fi
mount -t sysfs sysfs /sys
if [ -d /sys/fs/cgroup ]; then mount --move "$state/cgroup" /sys/fs/cgroup; fi
mount -t bpf bpf /sys/fs/bpf 2>/dev/null || true

# sshd refuses a locked account even to the owner of a key, and root is locked on many machines.
if grep -q '^root:!' /etc/shadow; then
  sed 's/^root:![^:]*:/root:*:/' /etc/shadow >"$state/shadow"
  chmod 600 "$state/shadow"
  mount --bind "$state/shadow" /etc/shadow
fi

mkdir -p "$state/run/staghorn-lab/guest"
mount --bind -o ro "$guest" "$state/run/staghorn-lab/guest"
# The lab's state is below the last of these, so nothing of it can be reached by its path afterwards.
cd /
for directory in "$@"; do
  mkdir -p "$directory" "$state$directory"
done
for directory in "$@"; do
  [ "$directory" = /var/lib/staghorn ] || mount --rbind "$state$directory" "$directory"
done
mount --rbind "$state/var/lib/staghorn" /var/lib/staghorn

mkdir -p /run/openvswitch /run/lock
ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /etc/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock \
  --remote=db:Open_vSwitch,Open_vSwitch,manager_options --pidfile --detach --no-chdir --log-file -vconsole:off
ovs-vsctl --no-wait init -- set Open_vSwitch . "external_ids:hostname=$name" "external_ids:system-id=$name"
# Routes of tunnels come from src/lab/switches.ts: those that it takes from the kernel it forgets and learns anew when
# any device comes, goes or changes, and the tunnels' frames in between are lost (route_table_reset in lib/route-table.c).
ovs-vswitchd --disable-system --disable-system-route --pidfile --detach --no-chdir --log-file -vconsole:off
# It receives through packet sockets of net.core.rmem_default: when it waits for a processor for a tenth of a second or
# two, they overflow. It goes before the guests, also where the kernel groups processes by session (sched(7)).
switch=$(cat /run/openvswitch/ovs-vswitchd.pid)
{ renice -n -10 -p "$switch" && echo -10 >"/proc/$switch/autogroup"; } >/dev/null 2>&1 || true
/usr/sbin/sshd -f /run/staghorn-lab/ssh/sshd_config -E /run/staghorn-lab/sshd.log

touch /run/staghorn-lab/started
exec sleep infinity
