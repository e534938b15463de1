#!/bin/busybox sh
# The first and only process of a machine that runs tests, and then is switched off. Lines that begin with "weir-vm:" are
# for `cargo xtask vm` (machine.rs).
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp WEIR_VECTORS=/weir/vectors RUST_BACKTRACE=0

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
for module in /weir/modules/*; do
    insmod "$module" || echo "weir-vm: no-module $(basename "$module")"
done
ip link set lo up

echo "weir-vm: kernel $(uname -r)"
while read -r name command; do
    echo "weir-vm: begin $name"
    $command
    echo "weir-vm: end $name $?"
done < /weir/jobs
poweroff -f
