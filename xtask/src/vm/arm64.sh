#!/bin/busybox sh
# The first and only program of a guest with another processor: tries kchaos, and says of each check how it ended.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
echo 5 > /proc/sys/kernel/printk
echo "arm64: $(uname -rm)"

target=/sys/fs/cgroup/target
other=/sys/fs/cgroup/other
mkdir -p $target $other /tmp/d
echo hello > /tmp/d/f
# A target has to have a process.
sh -c "echo \$\$ > $target/cgroup.procs; exec sleep 10000" &
until [ -n "$(cat $target/cgroup.procs)" ]; do sleep 0.1; done

check() { # name, command
    if sh -c "$2" > /tmp/said 2>&1; then echo "arm64: ok $1"; else
        echo "arm64: FAILED $1"
        cat /tmp/said
    fi
}
inside() { # cgroup, command
    sh -c "echo \$\$ > $1/cgroup.procs; $2" 2>&1
}
# Injects, and waits until the fault is on; `end` has it end and keeps its report. A shell's background jobs ignore
# SIGINT, so it is SIGTERM.
begin() {
    kchaos inject "$@" --on cgroup:/target --for 60s > /tmp/report 2>&1 &
    kchaos=$!
    for _ in $(seq 300); do
        grep -q 'ends it' /tmp/report && return
        kill -0 $kchaos 2> /dev/null || return
        sleep 0.1
    done
}
end() {
    kill -TERM $kchaos 2> /dev/null
    wait $kchaos
    code=$?
    echo "$code" > /tmp/code
}

kchaos doctor --json > /tmp/doctor
for capability in btf tcx tcx_ingress cgroup_skb sock_addr sock_ops syscall_tracepoint retransmit_tracepoint fentry lsm \
    fmod_ret_security fmod_ret_syscall fuse_sleep kprobe; do
    check "doctor finds $capability" \
        "tr -d '\n ' < /tmp/doctor | sed 's/{/\n/g' | grep '\"capability\":\"$capability\"' | grep '\"missing_because\":null'"
done

for mechanism in lsm fmod-ret-security fmod-ret-syscall; do
    begin errno --syscalls mkdirat --error ENOSPC --mechanism $mechanism
    inside $target 'mkdir /tmp/d/x' > /tmp/target
    inside $other 'mkdir /tmp/d/y' > /tmp/other
    end
    check "mkdirat fails by $mechanism" "grep -q 'No space left' /tmp/target && [ ! -e /tmp/d/x ] || { cat /tmp/target /tmp/report; false; }"
    check "a neighbour's mkdirat works beside $mechanism" '[ -d /tmp/d/y ] && [ ! -s /tmp/other ]'
    check "$mechanism counted one" "[ \"\$(cat /tmp/code)\" = 0 ] && grep -q 'injected 1 of 1 eligible' /tmp/report"
    rmdir /tmp/d/y
    inside $target 'mkdir /tmp/d/x' > /tmp/target
    check "mkdirat works after $mechanism" '[ -d /tmp/d/x ]'
    rmdir /tmp/d/x
done

begin errno --syscalls openat --error EIO --paths /tmp/d/
inside $target 'cat /tmp/d/f' > /tmp/target
inside $target 'cd /tmp/d && cat f' > /tmp/relative
inside $target 'cat /proc/version' > /tmp/spared
end
check "openat below a directory fails" "grep -q 'Input/output error' /tmp/target && grep -q 'Input/output error' /tmp/relative"
check "openat elsewhere works" "grep -q Linux /tmp/spared"

begin errno --syscalls fsync --error EIO
inside $target 'fsync /tmp/d/f || echo it failed' > /tmp/target
end
check "fsync fails" "grep -q 'it failed' /tmp/target || { cat /tmp/target /tmp/report; false; }"

begin retval --syscalls write --returns 6 --fds file --comms dd
inside $target 'echo hello | dd of=/tmp/d/lost bs=6 count=1' > /tmp/target
end
check "a write is lost" "[ -e /tmp/d/lost ] && [ ! -s /tmp/d/lost ] && [ \"\$(cat /tmp/code)\" = 0 ] || { cat /tmp/target /tmp/report; false; }"

begin signal --syscalls mkdirat --signal SIGKILL
inside $target 'mkdir /tmp/d/z' > /tmp/target
end
check "mkdirat kills, and makes nothing" "grep -q Killed /tmp/target && [ ! -e /tmp/d/z ]"

kchaos sweep > /tmp/swept 2>&1
check "nothing is left" '[ -z "$(ls /run/kchaos 2>/dev/null)" ]'
echo "arm64: done"
poweroff -f
