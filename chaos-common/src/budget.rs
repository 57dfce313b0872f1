//! How much a rule may do: a total, and a rate held by the generic cell rate algorithm.

crate::pod! {
    /// A cap on injections, for the whole rule (all its cgroups together).
    pub struct Budget {
        /// Most injections ever; `u64::MAX` for no cap.
        pub max: u64,
        /// Nanoseconds that one injection uses up; 0 for no rate limit.
        pub emission_ns: u64,
        /// How far ahead of its schedule the rule may run, in nanoseconds: a burst of
        /// `tolerance_ns / emission_ns + 1` injections.
        pub tolerance_ns: u64,
    }
}

impl Budget {
    /// No cap at all.
    pub const UNLIMITED: Self = Self { max: u64::MAX, emission_ns: 0, tolerance_ns: 0 };

    /// Whether nothing needs to be counted.
    #[inline(always)]
    pub const fn is_unlimited(&self) -> bool {
        self.max == u64::MAX && self.emission_ns == 0
    }

    /// At most `per_s` injections in a second, in bursts of up to a tenth of a second's worth.
    /// `per_s` of 0 means no rate limit.
    #[must_use]
    pub const fn with_rate(mut self, per_s: u64) -> Self {
        const SECOND_NS: u64 = 1_000_000_000;
        if per_s > 0 {
            self.emission_ns = if per_s >= SECOND_NS { 1 } else { SECOND_NS / per_s };
            self.tolerance_ns = (per_s / 10).saturating_sub(1).saturating_mul(self.emission_ns);
        }
        self
    }

    /// One step of the generic cell rate algorithm (ITU-T I.371, virtual scheduling): `due_ns` is the
    /// time at which the next injection was due, `now_ns` the present. Returns the next due time if
    /// this injection conforms, `None` if it comes too early.
    #[inline(always)]
    pub const fn conforms(&self, due_ns: u64, now_ns: u64) -> Option<u64> {
        if due_ns > now_ns.saturating_add(self.tolerance_ns) {
            return None;
        }
        let start_ns = if due_ns > now_ns { due_ns } else { now_ns };
        Some(start_ns.saturating_add(self.emission_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Injections let through when one is asked for every `gap_ns` over `span_ns`.
    fn passed(budget: Budget, gap_ns: u64, span_ns: u64) -> u64 {
        let (mut due_ns, mut now_ns, mut passed) = (0, 5_000_000_000, 0);
        let end_ns = now_ns + span_ns;
        while now_ns < end_ns {
            if let Some(next) = budget.conforms(due_ns, now_ns) {
                due_ns = next;
                passed += 1;
            }
            now_ns += gap_ns;
        }
        passed
    }

    #[test]
    fn a_rate_holds_within_its_burst() {
        let budget = Budget::UNLIMITED.with_rate(100);
        let ten_seconds = passed(budget, 100_000, 10_000_000_000);
        assert!((1000..=1010).contains(&ten_seconds), "{ten_seconds}");
    }

    #[test]
    fn slower_than_the_rate_is_never_held_back() {
        assert_eq!(passed(Budget::UNLIMITED.with_rate(100), 20_000_000, 1_000_000_000), 50);
    }

    #[test]
    fn one_per_second_has_no_burst() {
        assert_eq!(passed(Budget::UNLIMITED.with_rate(1), 1_000_000, 3_000_000_000), 3);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let budget = Budget { max: 1, emission_ns: u64::MAX, tolerance_ns: u64::MAX };
        assert_eq!(budget.conforms(u64::MAX, u64::MAX), Some(u64::MAX));
        assert_eq!(Budget::UNLIMITED.with_rate(u64::MAX).emission_ns, 1);
        assert!(Budget::UNLIMITED.with_rate(0).is_unlimited());
    }
}
