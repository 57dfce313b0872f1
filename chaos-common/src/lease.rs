//! The lease: the only switch that arms a fault, and one that switches itself off.

crate::pod! {
    /// Programs inject only while `now < until_ns`.
    pub struct Lease {
        /// CLOCK_MONOTONIC in nanoseconds, the clock of `bpf_ktime_get_coarse_ns`; 0 is disarmed.
        pub until_ns: u64,
    }
}

/// How long one renewal lasts.
pub const LEASE_NS: u64 = 3_000_000_000;
/// How often the controller renews.
pub const RENEW_NS: u64 = 1_000_000_000;

impl Lease {
    /// No injecting.
    pub const DISARMED: Self = Self { until_ns: 0 };

    /// The lease a renewal at `now_ns` writes: [`LEASE_NS`] from now, never past the run's end.
    pub const fn renewed(now_ns: u64, end_ns: u64) -> Self {
        let until_ns = now_ns.saturating_add(LEASE_NS);
        Self { until_ns: if until_ns < end_ns { until_ns } else { end_ns } }
    }

    /// Whether injecting is allowed.
    #[inline(always)]
    pub const fn is_live(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_by_itself() {
        let lease = Lease::renewed(1_000, u64::MAX);
        assert!(lease.is_live(1_000) && lease.is_live(1_000 + LEASE_NS - 1));
        assert!(!lease.is_live(1_000 + LEASE_NS));
        assert!(!Lease::DISARMED.is_live(0));
    }

    #[test]
    fn never_reaches_past_the_end() {
        assert_eq!(Lease::renewed(1_000, 5_000).until_ns, 5_000);
        assert!(!Lease::renewed(6_000, 5_000).is_live(6_000));
        assert_eq!(Lease::renewed(u64::MAX - 1, u64::MAX).until_ns, u64::MAX);
    }
}
