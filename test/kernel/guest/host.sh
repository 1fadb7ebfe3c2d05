#!/bin/sh
# The guest's first process once its files are there: what a host has at its start, then the suites, then the end.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root NODE_ENV=test
mkdir -p /dev/pts /dev/shm /run/netns
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t debugfs debug /sys/kernel/debug 2>/dev/null
modprobe -a tun veth bridge 8021q sch_ingress cls_bpf cls_u32 sch_tbf sch_netem openvswitch vport-vxlan vport-geneve \
  vport-gre vhost_net
ip link set lo up
ulimit -n 65536
ulimit -l unlimited
cd "$sg_checkout" || exit
stty -F /dev/ttyS1 raw
node "$sg_run" >/dev/ttyS1
sync
echo o >/proc/sysrq-trigger
sleep 60
