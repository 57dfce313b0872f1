//! Steady-state counters, one set per slot and CPU.

crate::pod! {
    /// What one slot's cgroups did. Only ever counts up; user space takes differences.
    pub struct Counters {
        /// Packets its sockets handed to the network layer, counted as on the wire (GSO segments).
        pub tx_packets: u64,
        /// Their bytes, from the network header on.
        pub tx_bytes: u64,
        /// Packets that reached its sockets, before any ingress fault.
        pub rx_packets: u64,
        /// Their bytes, from the network header on.
        pub rx_bytes: u64,
        /// Finished system calls.
        pub syscalls: u64,
        /// Of these, those that returned -1..=-4095.
        pub syscall_errors: u64,
        /// Errors that faults gave to calls: to system calls, and to calls on sockets. Where these are made by system calls,
        /// they are among those above.
        pub injected_errors: u64,
        /// TCP segments its sockets retransmitted (one per call of the kernel's tracepoint).
        pub tcp_retransmits: u64,
    }
}

impl Counters {
    /// Nothing yet.
    pub const ZERO: Self = Self {
        tx_packets: 0,
        tx_bytes: 0,
        rx_packets: 0,
        rx_bytes: 0,
        syscalls: 0,
        syscall_errors: 0,
        injected_errors: 0,
        tcp_retransmits: 0,
    };

    /// The sum of two sets, field by field.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            tx_packets: self.tx_packets + other.tx_packets,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            rx_packets: self.rx_packets + other.rx_packets,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            syscalls: self.syscalls + other.syscalls,
            syscall_errors: self.syscall_errors + other.syscall_errors,
            injected_errors: self.injected_errors + other.injected_errors,
            tcp_retransmits: self.tcp_retransmits + other.tcp_retransmits,
        }
    }
}

/// The largest errno a system call can return (include/linux/err.h, MAX_ERRNO, 6.18).
pub const MAX_ERRNO: i64 = 4095;

/// Whether a system call's return value reports an error.
#[inline(always)]
pub const fn is_error(ret: i64) -> bool {
    ret < 0 && ret >= -MAX_ERRNO
}

crate::pod! {
    /// Where a kernel keeps a socket's cgroup: byte offsets read from its BTF, because the kernel half
    /// is built once and `struct sock` differs from kernel to kernel.
    pub struct SockLayout {
        /// `struct sock` to the `struct cgroup *` inside `sk_cgrp_data`.
        pub sk_cgroup: u32,
        /// `struct cgroup` to `level`.
        pub cgroup_level: u32,
        /// `struct cgroup` to `ancestors` (6.1) or `ancestor_ids` (before).
        pub cgroup_ancestors: u32,
        /// 1 if the ancestors are ids, 0 if they are pointers to cgroups.
        pub ancestors_are_ids: u32,
        /// `struct cgroup` to `kn`.
        pub cgroup_kn: u32,
        /// `struct kernfs_node` to `id`.
        pub kn_id: u32,
        /// `struct sock_common` to `skc_state`.
        pub state: u32,
        /// `struct sock_common` to `skc_listener`: whose a connection is that is being opened.
        pub listener: u32,
    }
}

impl SockLayout {
    /// Not read yet, or not readable; no program that needs it is attached then.
    pub const UNKNOWN: Self = Self {
        sk_cgroup: 0,
        cgroup_level: 0,
        cgroup_ancestors: 0,
        ancestors_are_ids: 0,
        cgroup_kn: 0,
        kn_id: 0,
        state: 0,
        listener: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_the_last_4095_values() {
        assert!(is_error(-1) && is_error(-4095));
        assert!(!is_error(0) && !is_error(-4096) && !is_error(i64::MIN) && !is_error(7));
    }
}
