#!/bin/busybox sh
# The first program of a guest: makes the host's files its root, read-only, and hands over to /guest.
# What it says goes to the second serial port; the first is the kernel's.
/bin/busybox mkdir -p /proc /sys /dev /host /new
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

fail() {
    echo "kchaos-vm: failed: $1" > /dev/ttyS1
    sleep 1
    poweroff -f
}

# Sets modules (a folder of the host, or nothing) and load (names).
. /lab
while read -r module; do
    insmod "/modules/$module" || fail "loading $module"
done < /modules/order

mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host ||
    fail "mounting the host's files"
mount --bind /host /new
for folder in tmp run var/tmp; do
    [ -d "/new/$folder" ] && mount -t tmpfs -o mode=1777 tmpfs "/new/$folder"
done
# What these now hide, but the guest needs.
while read -r folder; do
    case "$folder" in
        /tmp/* | /run/* | /var/tmp/*)
            mkdir -p "/new$folder"
            mount --bind "/host$folder" "/new$folder" || fail "binding $folder"
            ;;
    esac
done < /binds

mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts 2> /dev/null
mount -t tmpfs -o mode=1777 tmpfs /new/dev/shm
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup || fail "mounting cgroup2"
mount -t bpf bpf /new/sys/fs/bpf
mount -t securityfs securityfs /new/sys/kernel/security
mount -t debugfs debugfs /new/sys/kernel/debug
mount -t tracefs tracefs /new/sys/kernel/tracing
ip link set lo up
hostname kchaos-lab
# As systemd has them.
for controller in cpu cpuset io memory pids; do
    echo "+$controller" > /new/sys/fs/cgroup/cgroup.subtree_control
done 2> /dev/null

# A busybox with the kernel's modules, which loads what the kernel asks for.
home=/new/run/kchaos-vm
mkdir -p $home/bin $home/proc
cp /bin/busybox $home/bin/busybox
cp /guest $home/guest
if [ -n "$modules" ]; then
    mount -t proc proc $home/proc
    mkdir -p "$home/lib/modules/${modules##*/}"
    mount --bind "/host$modules" "$home/lib/modules/${modules##*/}" || fail "binding the modules"
    cat > $home/modprobe << 'END'
#!/run/kchaos-vm/bin/busybox sh
exec /run/kchaos-vm/bin/busybox chroot /run/kchaos-vm /bin/busybox modprobe "$@"
END
    chmod 755 $home/modprobe
    echo /run/kchaos-vm/modprobe > /proc/sys/kernel/modprobe
    for module in $load; do
        # Some are built in, and older kernels do not have all.
        chroot $home /bin/busybox modprobe -q "$module" 2> /dev/null
    done
fi
[ -d /sys/fs/fuse/connections ] && mount -t fusectl fusectl /new/sys/fs/fuse/connections
exec switch_root /new /run/kchaos-vm/guest
