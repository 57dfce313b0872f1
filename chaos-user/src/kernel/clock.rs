//! The clock that both halves share.

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in nanoseconds, which is what `bpf_ktime_get_ns` reads (kernel/bpf/helpers.c, 6.18).
pub fn monotonic_ns() -> u64 {
    // clock_gettime cannot fail for a clock that every kernel has; 0 would disarm, not arm.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
