//! Which occurrences count, in strace's vocabulary: `first[..last][+step]`.

crate::pod! {
    /// The occurrences first, first+step, … up to and including last. Counting starts at 1.
    pub struct When {
        /// First occurrence that counts; at least 1.
        pub first: u64,
        /// Last occurrence that may count; `u64::MAX` for no end.
        pub last: u64,
        /// Distance between occurrences that count; at least 1.
        pub step: u64,
    }
}

impl When {
    /// Every occurrence.
    pub const ALWAYS: Self = Self { first: 1, last: u64::MAX, step: 1 };

    /// Every n-th occurrence, the n-th first.
    pub const fn every(n: u64) -> Self {
        Self { first: n, last: u64::MAX, step: n }
    }

    /// Whether the `n`-th occurrence (from 1) counts. A step of 0 is taken as 1, so that no value of
    /// this struct can divide by zero.
    #[inline(always)]
    pub const fn hits(&self, n: u64) -> bool {
        let step = if self.step == 0 { 1 } else { self.step };
        n >= self.first && n <= self.last && (n - self.first).is_multiple_of(step)
    }

    /// Whether every occurrence counts, so that none needs to be counted.
    #[inline(always)]
    pub const fn is_always(&self) -> bool {
        self.first <= 1 && self.last == u64::MAX && self.step <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn hits(when: When) -> Vec<u64> {
        (0..=12).filter(|n| when.hits(*n)).collect()
    }

    #[test]
    fn ranges_and_steps() {
        assert_eq!(hits(When { first: 3, last: 3, step: 1 }), [3]);
        assert_eq!(hits(When { first: 3, last: 6, step: 1 }), [3, 4, 5, 6]);
        assert_eq!(hits(When { first: 3, last: u64::MAX, step: 4 }), [3, 7, 11]);
        assert_eq!(hits(When { first: 2, last: 9, step: 3 }), [2, 5, 8]);
        assert_eq!(hits(When::every(5)), [5, 10]);
        assert_eq!(hits(When::ALWAYS).len(), 12, "occurrence 0 does not exist");
    }

    #[test]
    fn the_ends_of_u64() {
        let last = When { first: u64::MAX, last: u64::MAX, step: u64::MAX };
        assert!(last.hits(u64::MAX) && !last.hits(u64::MAX - 1));
        let wide = When { first: 1, last: u64::MAX, step: u64::MAX - 1 };
        assert!(wide.hits(1) && wide.hits(u64::MAX) && !wide.hits(u64::MAX - 1));
        assert!(When::ALWAYS.hits(u64::MAX) && When::ALWAYS.is_always());
        let empty = When { first: 5, last: 4, step: 1 };
        assert!(!empty.hits(4) && !empty.hits(5));
    }

    #[test]
    fn a_step_of_zero_does_not_divide() {
        assert!(When { first: 1, last: 9, step: 0 }.hits(9));
    }
}
