//! Delaying whoever makes a call: what the kernel half and the process that wakes it say to one another.
//!
//! A program cannot sleep by itself. It reads a page that an inert process of ours has mapped from a file of our own
//! FUSE filesystem: the reader waits until our daemon answers. Each sleeper has a slot, and the page of that number.

/// How many can sleep at once at most; a power of two.
pub const SLOTS: u32 = 256;
/// In how many places a sleeper looks for a free slot.
pub const ATTEMPTS: u32 = 16;
/// How many sleep at once if nobody says otherwise: few enough for a free slot to be found in [`ATTEMPTS`] places.
pub const AT_ONCE: u64 = 128;
/// Longest delay if nobody says otherwise.
pub const LONGEST_NS: u64 = 500_000_000;
/// Longest delay whatever anybody says: while one sleeps, others cannot end certain hooks of theirs.
pub const HARD_CAP_NS: u64 = 2_000_000_000;
/// Below this nobody sleeps: waking somebody takes half as long.
pub const SPIN_BELOW_NS: u64 = 100_000;
/// Whoever cannot sleep is kept busy for no longer than this.
pub const LONGEST_SPIN_NS: u64 = 1_000_000;
/// Those of one target are kept busy for one part in so many of the time of one processor.
pub const SPIN_SHARE: u64 = 5;
/// Classes of how late a sleeper was woken: below 16 µs, below 32 µs, … and the rest.
pub const LATE_CLASSES: usize = 16;
/// Processes of ours that never sleep.
pub const SPARED: usize = 3;

const FIRST_LATE_NS: u64 = 16_000;
/// The two clocks that are compared may differ by this (kernel/time/timekeeping.c, `ktime_get_mono_fast_ns`, 6.18).
const CLOCK_SLACK_NS: u64 = 10_000;

crate::pod! {
    /// What programs need to know of our processes.
    pub struct SleepConfig {
        /// Where the inert process has mapped the file.
        pub base: u64,
        /// How long a page is.
        pub page_bytes: u64,
        /// Longer delays are refused.
        pub longest_ns: u64,
        /// More at once are refused.
        pub at_once: u64,
        /// The inert process, as the first pid namespace knows it; 0 is nobody.
        pub inert_tid: u32,
        /// The controller and what it has started: a daemon that sleeps wakes nobody.
        pub spared_tgids: [u32; SPARED],
    }
}

crate::pod! {
    /// What a sleeper asks for.
    pub struct SleepRequest {
        /// Whether somebody has this slot.
        pub taken: u64,
        /// CLOCK_MONOTONIC when the delay began.
        pub asked_ns: u64,
        /// How long it shall be.
        pub wanted_ns: u64,
    }
}

crate::pod! {
    /// What sleepers have in common.
    pub struct SleepState {
        /// How many sleep now.
        pub asleep: u64,
        /// How many have looked for a slot.
        pub turn: u64,
    }
}

crate::pod! {
    /// What came of it.
    pub struct SleepStats {
        /// Delays asked for.
        pub asked: u64,
        /// Slept as long as asked.
        pub slept: u64,
        /// Too short to sleep; the processor was kept busy.
        pub spun: u64,
        /// Were to be kept busy, but the target's share of a processor was used up.
        pub over_budget: u64,
        /// Too long, or too many at once.
        pub refused: u64,
        /// No slot was found.
        pub no_slot: u64,
        /// All programs that could have delayed it slept already on that processor.
        pub skipped: u64,
        /// Woken too early: by a signal that kills, or as our processes had ended.
        pub cut_short: u64,
        /// One of our own processes.
        pub spared: u64,
        /// How long the ones that slept had asked for.
        pub wanted_ns: u64,
        /// How long they slept.
        pub delivered_ns: u64,
        /// How many of them were woken how late.
        pub late: [u64; LATE_CLASSES],
    }
}

/// How a delay is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By keeping the processor busy.
    Spin,
    /// By sleeping.
    Sleep,
    /// Not at all.
    Refuse,
}

impl Way {
    /// For a delay of this length.
    #[inline(always)]
    pub const fn of(wanted_ns: u64, longest_ns: u64) -> Self {
        if wanted_ns > longest_ns || wanted_ns > HARD_CAP_NS {
            Self::Refuse
        } else if wanted_ns < SPIN_BELOW_NS {
            Self::Spin
        } else {
            Self::Sleep
        }
    }
}

/// The slot to look at: far from those before, as those who sleep long have slots side by side.
#[inline(always)]
pub const fn slot(turn: u64, attempt: u32) -> u32 {
    /// Odd, so that no slot comes twice; the golden ratio of [`SLOTS`], so that they are spread.
    const STRIDE: u32 = 159;
    (turn as u32).wrapping_add(attempt.wrapping_mul(STRIDE)) % SLOTS
}

/// Whether somebody who asked for `wanted_ns` got it.
#[inline(always)]
pub const fn was_delivered(wanted_ns: u64, delivered_ns: u64) -> bool {
    delivered_ns.saturating_add(CLOCK_SLACK_NS) >= wanted_ns
}

/// The class of how late somebody was woken.
#[inline(always)]
pub const fn late_class(wanted_ns: u64, delivered_ns: u64) -> usize {
    let late_ns = delivered_ns.saturating_sub(wanted_ns);
    let (mut class, mut below_ns) = (0, FIRST_LATE_NS);
    while class < LATE_CLASSES - 1 && late_ns >= below_ns {
        class += 1;
        below_ns *= 2;
    }
    class
}

impl SleepRequest {
    /// When the sleeper is to be woken. A slot that says nothing sensible keeps nobody.
    pub const fn due_ns(&self, now_ns: u64) -> u64 {
        if self.taken == 0 || self.asked_ns > now_ns || self.wanted_ns > HARD_CAP_NS {
            return now_ns;
        }
        self.asked_ns + self.wanted_ns
    }
}

impl SleepStats {
    /// Nothing yet.
    pub const ZERO: Self = Self {
        asked: 0,
        slept: 0,
        spun: 0,
        over_budget: 0,
        refused: 0,
        no_slot: 0,
        skipped: 0,
        cut_short: 0,
        spared: 0,
        wanted_ns: 0,
        delivered_ns: 0,
        late: [0; LATE_CLASSES],
    };

    /// With what another processor counted.
    pub fn plus(mut self, other: Self) -> Self {
        self.asked += other.asked;
        self.slept += other.slept;
        self.spun += other.spun;
        self.over_budget += other.over_budget;
        self.refused += other.refused;
        self.no_slot += other.no_slot;
        self.skipped += other.skipped;
        self.cut_short += other.cut_short;
        self.spared += other.spared;
        self.wanted_ns += other.wanted_ns;
        self.delivered_ns += other.delivered_ns;
        self.late.iter_mut().zip(other.late).for_each(|(sum, late)| *sum += late);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn short_ones_spin_and_long_ones_are_refused() {
        assert_eq!(Way::of(SPIN_BELOW_NS - 1, LONGEST_NS), Way::Spin);
        assert_eq!(Way::of(SPIN_BELOW_NS, LONGEST_NS), Way::Sleep);
        assert_eq!(Way::of(LONGEST_NS, LONGEST_NS), Way::Sleep);
        assert_eq!(Way::of(LONGEST_NS + 1, LONGEST_NS), Way::Refuse);
        assert_eq!(Way::of(HARD_CAP_NS + 1, u64::MAX), Way::Refuse);
    }

    #[test]
    fn looks_at_other_slots_each_time() {
        for turn in [0, 1, 255, u64::MAX] {
            let looked: HashSet<u32> = (0..ATTEMPTS).map(|attempt| slot(turn, attempt)).collect();
            assert_eq!(looked.len(), ATTEMPTS as usize);
            assert!(looked.iter().all(|slot| *slot < SLOTS));
        }
    }

    /// The slots of as many as may sleep are side by side if they came one after another.
    #[test]
    fn finds_a_free_one_beside_as_many_as_may_sleep() {
        for first in 0..SLOTS {
            let is_free = |slot: u32| slot.wrapping_sub(first) % SLOTS >= AT_ONCE as u32;
            for turn in 0..u64::from(SLOTS) {
                assert!((0..ATTEMPTS).any(|attempt| is_free(slot(turn, attempt))), "{first} {turn}");
            }
        }
    }

    #[test]
    fn a_sleeper_is_woken_when_it_asked_to_be() {
        let request = SleepRequest { taken: 1, asked_ns: 1_000, wanted_ns: 500 };
        assert_eq!(request.due_ns(1_100), 1_500);
        assert_eq!(request.due_ns(9_000), 1_500);
    }

    #[test]
    fn nonsense_keeps_nobody() {
        let request = SleepRequest { taken: 1, asked_ns: 1_000, wanted_ns: 500 };
        assert_eq!(SleepRequest { taken: 0, ..request }.due_ns(1_100), 1_100);
        assert_eq!(SleepRequest { asked_ns: 2_000, ..request }.due_ns(1_100), 1_100);
        assert_eq!(SleepRequest { wanted_ns: u64::MAX, ..request }.due_ns(1_100), 1_100);
    }

    #[test]
    fn lateness_has_classes() {
        assert_eq!(late_class(1_000_000, 900_000), 0);
        assert_eq!(late_class(1_000_000, 1_015_999), 0);
        assert_eq!(late_class(1_000_000, 1_016_000), 1);
        assert_eq!(late_class(1_000_000, 1_032_000), 2);
        assert_eq!(late_class(0, u64::MAX), LATE_CLASSES - 1);
    }

    #[test]
    fn clocks_may_differ_a_little() {
        assert!(was_delivered(1_000_000, 1_000_000) && was_delivered(1_000_000, 991_000));
        assert!(!was_delivered(1_000_000, 900_000));
    }

    #[test]
    fn processors_add_up() {
        let mut one = SleepStats { asked: 1, slept: 1, wanted_ns: 5, ..SleepStats::ZERO };
        one.late[3] = 1;
        let both = one.plus(one);
        assert_eq!((both.asked, both.slept, both.wanted_ns, both.late[3]), (2, 2, 10, 2));
    }
}
