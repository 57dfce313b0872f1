//! Steady-state counters, one set per slot and CPU, and histograms, one set per slot.

use crate::h2::BUCKETS;

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

/// The sum of two rows of counters, place by place.
fn sum<const N: usize>(one: [u64; N], other: [u64; N]) -> [u64; N] {
    core::array::from_fn(|place| one[place] + other[place])
}

/// The largest errno a system call can return (include/linux/err.h, MAX_ERRNO, 6.18).
pub const MAX_ERRNO: i64 = 4095;

/// Whether a system call's return value reports an error.
#[inline(always)]
pub const fn is_error(ret: i64) -> bool {
    ret < 0 && ret >= -MAX_ERRNO
}

/// The errors that are counted apart: index 0 is every other, which is what the kernel returns to itself to have a call
/// begun again (include/linux/errno.h, ERESTARTSYS and the like, 6.18).
pub const ERRNOS: usize = 134;

/// Where an error is counted, of a system call's return value that is one.
#[inline(always)]
pub const fn errno_index(ret: i64) -> usize {
    let errno = ret.wrapping_neg() as u64;
    if errno < ERRNOS as u64 { errno as usize } else { 0 }
}

/// What kind of work a system call is: what its counters are found by.
pub mod class {
    /// Reads a file.
    pub const FILE_READ: u32 = 0;
    /// Writes to a file.
    pub const FILE_WRITE: u32 = 1;
    /// Has written data reach its device.
    pub const FSYNC: u32 = 2;
    /// Takes the name of a file, or asks about one.
    pub const OPEN_STAT: u32 = 3;
    /// Sends by a socket.
    pub const NET_SEND: u32 = 4;
    /// Receives by a socket, for which it may wait: never timed.
    pub const NET_RECV: u32 = 5;
    /// Is about the memory of the process.
    pub const MEM: u32 = 6;
    /// Begins, ends or signals processes.
    pub const PROC: u32 = 7;
    /// Everything else.
    pub const OTHER: u32 = 8;
    /// Waits for somebody else: never timed.
    pub const WAITING: u32 = 9;

    /// Whether it is timed. How long a call waits for others says how idle its caller is.
    #[inline(always)]
    pub const fn is_timed(class: u32) -> bool {
        class <= OTHER && class != NET_RECV
    }
}

/// How many classes there are.
pub const CLASSES: usize = 10;

/// What is timed: a histogram for each, of each slot. Classes of calls come first, by their numbers.
pub mod series {
    use super::CLASSES;

    /// Smoothed round-trip times of TCP, one for each segment received.
    pub const ROUND_TRIP: u32 = CLASSES as u32;
    /// From when a thread could run until it did.
    pub const RUN_QUEUE: u32 = ROUND_TRIP + 1;
    /// Requests to block devices that read, from their issue to their completion.
    pub const BLOCK_READ: u32 = ROUND_TRIP + 2;
    /// Those that write.
    pub const BLOCK_WRITE: u32 = ROUND_TRIP + 3;
    /// All others.
    pub const BLOCK_OTHER: u32 = ROUND_TRIP + 4;
    /// How many there are.
    pub const COUNT: u32 = ROUND_TRIP + 5;
}

/// The place of a slot's histogram.
#[inline(always)]
pub const fn histogram_index(slot: u32, series: u32) -> u32 {
    slot * series::COUNT + series
}

crate::pod! {
    /// Durations in nanoseconds, by [`bucket`](crate::h2::bucket). All CPUs share one: one for each would take 8 MB for a
    /// slot on a host of 64.
    pub struct Histogram {
        /// How many there were of each.
        pub buckets: [u64; BUCKETS],
    }
}

/// How many numbers of system calls there are classes for; x32's, from 512 on, are `OTHER`.
pub const CALL_NUMBERS: usize = 512;

crate::pod! {
    /// The class of each system call, by its number on this architecture.
    pub struct CallClasses {
        /// One of [`class`].
        pub of: [u8; CALL_NUMBERS],
    }
}

impl CallClasses {
    /// Every call is of no class in particular.
    pub const NONE: Self = Self { of: [class::OTHER as u8; CALL_NUMBERS] };
}

crate::pod! {
    /// Finished system calls of one slot.
    pub struct CallCounts {
        /// By class.
        pub calls: [u64; CLASSES],
        /// Of these, those that failed.
        pub failed: [u64; CLASSES],
    }
}

impl CallCounts {
    /// Nothing yet.
    pub const ZERO: Self = Self { calls: [0; CLASSES], failed: [0; CLASSES] };

    /// The sum of two, field by field.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { calls: sum(self.calls, other.calls), failed: sum(self.failed, other.failed) }
    }
}

crate::pod! {
    /// Errors of one slot's calls, by [`errno_index`].
    pub struct ErrorCounts {
        /// What system calls returned.
        pub returned: [u64; ERRNOS],
        /// What faults gave to calls. Where these are made by system calls, they are among those above.
        pub injected: [u64; ERRNOS],
    }
}

impl ErrorCounts {
    /// Nothing yet.
    pub const ZERO: Self = Self { returned: [0; ERRNOS], injected: [0; ERRNOS] };

    /// The sum of two, field by field.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { returned: sum(self.returned, other.returned), injected: sum(self.injected, other.injected) }
    }
}

crate::pod! {
    /// What became of one slot's TCP connections.
    pub struct TcpCounts {
        /// Connections that it asked for.
        pub connects: u64,
        /// Those that came about.
        pub connected: u64,
        /// Connections that others asked it for and got.
        pub accepted: u64,
        /// Resets that it sent.
        pub resets_sent: u64,
        /// Resets that reached it; a connection that is refused is one.
        pub resets_received: u64,
    }
}

impl TcpCounts {
    /// Nothing yet.
    pub const ZERO: Self =
        Self { connects: 0, connected: 0, accepted: 0, resets_sent: 0, resets_received: 0 };

    /// The sum of two, field by field.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            connects: self.connects + other.connects,
            connected: self.connected + other.connected,
            accepted: self.accepted + other.accepted,
            resets_sent: self.resets_sent + other.resets_sent,
            resets_received: self.resets_received + other.resets_received,
        }
    }
}

/// How many signals there are, and 0 for none (include/uapi/asm-generic/signal.h, _NSIG, 6.18).
pub const SIGNALS: usize = 65;

crate::pod! {
    /// What became of one slot's processes.
    pub struct TaskCounts {
        /// Processes that ended, by the signal that ended them: 0 for those that ended by themselves.
        pub exits: [u64; SIGNALS],
        /// Signals that threads were given, whatever these did about them.
        pub signals: [u64; SIGNALS],
    }
}

impl TaskCounts {
    /// Nothing yet.
    pub const ZERO: Self = Self { exits: [0; SIGNALS], signals: [0; SIGNALS] };

    /// The sum of two, field by field.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { exits: sum(self.exits, other.exits), signals: sum(self.signals, other.signals) }
    }
}

crate::pod! {
    /// Since when something goes on whose end will be met elsewhere.
    pub struct Since {
        /// CLOCK_MONOTONIC; 0 if it does not.
        pub ns: u64,
        /// Whose it is.
        pub slot: u32,
        /// What it is: one of [`series`].
        pub series: u32,
    }
}

/// How much may go on at once of what is timed: threads in calls, threads that could run, requests to devices. Of more,
/// those that nobody asked about for longest are forgotten.
pub const GOING_ON: u32 = 16_384;

crate::pod! {
    /// Where a kernel keeps what steady-state programs read: byte offsets from its BTF, as for [`SockLayout`].
    pub struct SteadyLayout {
        /// `struct inode` to `i_flags`.
        pub inode_flags: u32,
        /// `struct sock` to `sk_protocol`.
        pub sk_protocol: u32,
        /// `struct tcp_sock` to `srtt_us`.
        pub tcp_srtt: u32,
        /// `struct task_struct` to `pid`.
        pub task_tid: u32,
        /// `struct task_struct` to `exit_code`.
        pub task_exit_code: u32,
        /// `struct task_struct` to `__state`.
        pub task_state: u32,
        /// `struct task_struct` to `cgroups`.
        pub task_cgroups: u32,
        /// `struct css_set` to `dfl_cgrp`.
        pub css_set_cgroup: u32,
        /// `struct request` to `bio`.
        pub request_bio: u32,
        /// `struct request` to `cmd_flags`.
        pub request_flags: u32,
        /// `struct bio` to `bi_blkg`.
        pub bio_blkg: u32,
        /// `struct blkcg_gq` to `blkcg`.
        pub blkg_blkcg: u32,
        /// `struct blkcg` to the `cgroup` in its `css`.
        pub blkcg_cgroup: u32,
        /// Unused.
        pub spare: u32,
    }
}

impl SteadyLayout {
    /// Not read; no program that needs it is attached then.
    pub const UNKNOWN: Self = Self {
        inode_flags: 0,
        sk_protocol: 0,
        tcp_srtt: 0,
        task_tid: 0,
        task_exit_code: 0,
        task_state: 0,
        task_cgroups: 0,
        css_set_cgroup: 0,
        request_bio: 0,
        request_flags: 0,
        bio_blkg: 0,
        blkg_blkcg: 0,
        blkcg_cgroup: 0,
        spare: 0,
    };
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

    #[test]
    fn errors_without_a_name_are_counted_together() {
        assert_eq!([-1, -11, -133].map(errno_index), [1, 11, 133]);
        assert_eq!([-134, -512, -516, -4095, 0, i64::MIN].map(errno_index), [0; 6]);
    }

    #[test]
    fn waiting_is_never_timed() {
        let timed = (0..CLASSES as u32).filter(|class| class::is_timed(*class));
        assert!(timed.eq([0, 1, 2, 3, 4, 6, 7, 8]));
        assert!(!class::is_timed(u32::MAX));
    }
}
