#!/run/kchaos-vm/bin/busybox sh
# Process 1 once the root is the host's: takes the steps that follow, says how each ended, and switches off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/tmp TMPDIR=/tmp LANG=C.UTF-8 TERM=dumb
box=/run/kchaos-vm/bin/busybox
$box stty -F /dev/ttyS1 raw
# Through a pipe, so that programs do not take it for a terminal.
$box mkfifo /run/kchaos-vm/out
$box cat /run/kchaos-vm/out > /dev/ttyS1 &
cat=$!
exec > /run/kchaos-vm/out 2>&1 < /dev/null
echo "kchaos-vm: ready $($box uname -r)"
# Warnings of the kernel are worth seeing from here on.
echo 5 > /proc/sys/kernel/printk

step() {
    name=$1
    shift
    echo "kchaos-vm: begin $name"
    "$@"
    code=$?
    # Whatever it printed last may lack its end of line.
    echo
    echo "kchaos-vm: end $name $code"
}

off() {
    echo "kchaos-vm: off"
    exec > /dev/null 2>&1
    # Somebody may still hold the pipe open, and we do not wait for them.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 $cat || break
        $box sleep 0.1
    done
    $box poweroff -f || $box reboot -f
}
