//! Holding packets back: how long each, and which waits for which.

/// What kind of shape a rule is.
pub mod kind {
    /// Every packet hit is held back for `by_ns` and a jitter.
    pub const DELAY: u32 = 0;
    /// Every packet hit waits for its turn on a wire of `bits_per_s`.
    pub const RATE: u32 = 1;
    /// Every packet is held back for `by_ns`, except those hit.
    pub const REORDER: u32 = 2;
}

/// How a rule's jitter is distributed, as an index of [`Tables::shaped`].
pub mod distribution {
    /// The same chance everywhere within the jitter.
    pub const UNIFORM: u32 = 0;
    /// The jitter is the standard deviation.
    pub const NORMAL: u32 = 1;
    /// A long tail of late packets.
    pub const PARETO: u32 = 2;
    /// A quarter normal, three quarters Pareto: what was measured on the Internet (tc-netem(8)).
    pub const PARETO_NORMAL: u32 = 3;
    /// How many there are.
    pub const COUNT: u32 = 4;
}

/// The unit of a variate and of a table's values: one standard deviation, or one jitter.
pub const ONE: i64 = 1 << 16;
/// How many entries a table has.
pub const TABLE_ENTRIES: usize = 4096;
/// Variates are cut off at so many standard deviations either side.
pub const CUT_OFF: i64 = 4;
/// Index of the table that turns a uniform draw into a standard normal variate; those that turn a variate into a
/// jitter follow, in the order of [`distribution`].
pub const NORMAL_QUANTILES: u32 = 0;
/// How many tables there are.
pub const TABLES: u32 = 1 + distribution::COUNT;

/// A table's index that turns a variate into a jitter.
#[inline(always)]
pub const fn shaped(distribution: u32) -> u32 {
    1 + distribution
}

/// How many rules may hold one packet back. All of them are asked, and what they say adds up: the verifier walks
/// through every combination.
pub const MAX_SHAPES: u32 = 3;

/// How many flows have their order remembered, by hash; those that share an entry are taken for one.
pub const FLOWS: u32 = 16_384;

/// The index of the device through which what arrives is held back, in every network namespace that needs one: indices
/// are counted from 1 in each, so nobody else's is as high ("kcI").
pub const IFB_IFINDEX: u32 = 0x6b_6349;

crate::pod! {
    /// One table.
    pub struct Table {
        /// In units of [`ONE`].
        pub values: [i32; TABLE_ENTRIES],
    }
}

crate::pod! {
    /// What a rule that holds packets back does to them.
    pub struct Shape {
        /// One of [`kind`].
        pub kind: u32,
        /// One of [`distribution`].
        pub distribution: u32,
        /// 1: a packet that is held back never overtakes an earlier one of its flow that is.
        pub keeps_order: u32,
        /// Unused.
        pub spare: u32,
        /// How long.
        pub by_ns: u64,
        /// How much more or less.
        pub jitter_ns: u64,
        /// How much of a variate goes into the next, in units of [`ONE`].
        pub rho: u64,
        /// How much of the next is fresh, √(1-ρ²), in units of [`ONE`].
        pub fresh: u64,
        /// How fast the wire is.
        pub bits_per_s: u64,
        /// How much of the time in which nothing was sent may be made up for.
        pub burst_ns: u64,
        /// How long a packet may take to the far end of the wire; those that would take longer are dropped.
        pub limit_ns: u64,
    }
}

crate::pod! {
    /// What a rule remembers about one slot, for each direction. Written with atomic instructions only.
    pub struct ShapeState {
        /// When the wire that way is free again (CLOCK_MONOTONIC).
        pub free_ns: [u64; 2],
        /// The last variate, moved up so that it is never 0; 0 if there was none.
        pub variate: [u64; 2],
    }
}

/// Moves every variate above 0: with a correlation below one none reaches this many.
const MOVED: i64 = 1 << 40;

impl Shape {
    /// Nothing is held back.
    pub const NONE: Self = Self {
        kind: kind::DELAY,
        distribution: distribution::UNIFORM,
        keeps_order: 0,
        spare: 0,
        by_ns: 0,
        jitter_ns: 0,
        rho: 0,
        fresh: ONE as u64,
        bits_per_s: 0,
        burst_ns: 0,
        limit_ns: 0,
    };

    /// The variate after `before`, of which `normal` is the fresh part: z' = ρ·z + √(1-ρ²)·ε, a first-order
    /// autoregression. Of normal z and ε it makes a normal z' with the same deviation, so whatever z' is turned
    /// into has the distribution it would have without correlation. Averaging uniform draws, as netem does
    /// (sch_netem.c, `get_crandom`), narrows the distribution instead.
    #[inline(always)]
    pub const fn next_variate(&self, before: u64, normal: i32) -> u64 {
        if self.rho == 0 || before == 0 {
            return (normal as i64 + MOVED) as u64;
        }
        let kept = (before as i64 - MOVED) * self.rho as i64;
        let next = (kept + normal as i64 * self.fresh as i64) >> 16;
        (next + MOVED) as u64
    }

    /// How long a packet is held back; never less than not at all. `jitter` is in units of [`ONE`].
    #[inline(always)]
    pub const fn delay_ns(&self, jitter: i32) -> u64 {
        let delay_ns = self.by_ns as i64 + ((self.jitter_ns as i64 * jitter as i64) >> 16);
        if delay_ns < 0 { 0 } else { delay_ns as u64 }
    }

    /// Sends a packet over the wire, which is free again at `free_ns`. Returns when its last bit has left, which is
    /// when the wire is free for the next; `None` if that is too late. Without a burst the wire stands still while
    /// nothing is sent; with one this is a token bucket of that depth (as tc-tbf(8)).
    #[inline(always)]
    pub const fn transmit(&self, free_ns: u64, now_ns: u64, bytes: u32) -> Option<u64> {
        let bits_per_s = if self.bits_per_s == 0 { 1 } else { self.bits_per_s };
        let takes_ns = bytes as u64 * 8_000_000_000 / bits_per_s;
        let earliest_ns = now_ns.saturating_sub(self.burst_ns);
        let start_ns = if free_ns > earliest_ns { free_ns } else { earliest_ns };
        let end_ns = start_ns + takes_ns;
        if end_ns > now_ns + self.limit_ns { None } else { Some(end_ns) }
    }
}

/// The entry of [`NORMAL_QUANTILES`] for a uniform draw.
#[inline(always)]
pub const fn quantile_index(draw: u32) -> usize {
    (draw >> 20) as usize & (TABLE_ENTRIES - 1)
}

/// The entry of a [`shaped`] table for a variate.
#[inline(always)]
pub const fn shaped_index(variate: u64) -> usize {
    const SHIFT: u32 = 7;
    let above_cut_off = variate as i64 - MOVED + CUT_OFF * ONE;
    let cell = above_cut_off >> SHIFT;
    let last = TABLE_ENTRIES as i64 - 1;
    let cell = if cell < 0 { 0 } else { cell };
    let cell = if cell > last { last } else { cell };
    cell as usize & (TABLE_ENTRIES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    #[test]
    fn a_delay_is_never_negative() {
        let shape = Shape { by_ns: 10 * MS, jitter_ns: 20 * MS, ..Shape::NONE };
        assert_eq!(shape.delay_ns(0), 10 * MS);
        assert_eq!(shape.delay_ns(ONE as i32), 30 * MS);
        assert_eq!(shape.delay_ns(-(ONE as i32)), 0);
        let most = Shape { by_ns: 9 * S, jitter_ns: 9 * S, ..Shape::NONE };
        assert_eq!(most.delay_ns((CUT_OFF * ONE) as i32), 45 * S);
    }

    #[test]
    fn every_variate_has_a_cell() {
        assert_eq!(shaped_index(MOVED as u64), TABLE_ENTRIES / 2);
        assert_eq!(shaped_index((MOVED + 100 * ONE) as u64), TABLE_ENTRIES - 1);
        assert_eq!(shaped_index((MOVED - 100 * ONE) as u64), 0);
        assert_eq!(shaped_index(0), 0);
        assert_eq!(quantile_index(u32::MAX), TABLE_ENTRIES - 1);
    }

    /// When packets of `bytes` that are ready at `ready` have left; `None` for those dropped.
    fn through(shape: Shape, ready: impl Iterator<Item = u64>, bytes: u32) -> Vec<Option<u64>> {
        let mut free_ns = 0;
        ready
            .map(|now_ns| {
                let end_ns = shape.transmit(free_ns, now_ns, bytes);
                free_ns = end_ns.unwrap_or(free_ns);
                end_ns.map(|end_ns| end_ns.max(now_ns))
            })
            .collect()
    }

    #[test]
    fn a_wire_sends_one_packet_after_another() {
        let wire = Shape { bits_per_s: 8_000_000, limit_ns: S, ..Shape::NONE }; // a byte in a microsecond
        let sent = through(wire, [S, S, S + 500_000].into_iter(), 1000);
        assert_eq!(sent, [Some(S + MS), Some(S + 2 * MS), Some(S + 3 * MS)]);
        assert_eq!(through(wire, [S, 3 * S].into_iter(), 1000), [Some(S + MS), Some(3 * S + MS)]);
    }

    #[test]
    fn a_burst_goes_at_once_and_is_paid_back() {
        let bucket = Shape { bits_per_s: 8_000_000, burst_ns: 3 * MS, limit_ns: S, ..Shape::NONE };
        let sent = through(bucket, [S; 5].into_iter(), 1000);
        assert_eq!(sent, [Some(S), Some(S), Some(S), Some(S + MS), Some(S + 2 * MS)]);
    }

    #[test]
    fn what_would_wait_too_long_is_dropped_and_takes_no_time_on_the_wire() {
        let wire = Shape { bits_per_s: 8_000_000, limit_ns: 2 * MS, ..Shape::NONE };
        let sent = through(wire, [S, S, S, S + MS].into_iter(), 1000);
        assert_eq!(sent, [Some(S + MS), Some(S + 2 * MS), None, Some(S + 3 * MS)]);
    }

    #[test]
    fn the_rate_holds_over_time() {
        for bits_per_s in [64_000, 1_000_000, 10_000_000_000] {
            let wire = Shape { bits_per_s, limit_ns: u64::MAX / 2, ..Shape::NONE };
            let last = through(wire, core::iter::repeat_n(S, 1000), 1514).pop().unwrap().unwrap() - S;
            let expected = 1000.0 * 1514.0 * 8e9 / bits_per_s as f64;
            assert!((last as f64 / expected - 1.0).abs() < 0.001, "{bits_per_s}: {last}");
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let slow = Shape { bits_per_s: 1, limit_ns: u64::MAX / 2, ..Shape::NONE };
        assert_eq!(slow.transmit(0, 0, 65_536), Some(65_536 * 8 * S));
        assert!(Shape { bits_per_s: 0, ..slow }.transmit(0, 0, 1).is_some());
    }
}
