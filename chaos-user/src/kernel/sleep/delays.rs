//! What came of delays, for people and programs that read reports.

use std::{fmt, time::Duration};

use chaos_common::sleep::{LATE_CLASSES, SleepStats};
use schemars::JsonSchema;
use serde::Serialize;

use crate::units::show_duration;

/// What came of all delays of an injection.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, serde::Deserialize)]
pub struct Delays {
    /// How many were asked for.
    pub asked: u64,
    /// Callers slept as long as asked.
    pub slept: u64,
    /// Callers were kept busy as long as asked.
    pub spun: u64,
    /// What those who slept had asked for, on average, in milliseconds.
    pub requested_mean_ms: Option<f64>,
    /// What they got.
    pub delivered_mean_ms: Option<f64>,
    /// How many of them were woken how late: `[below this many microseconds, how many]`; the last class has no end.
    pub late: Vec<(Option<u64>, u64)>,
    /// What was lost.
    pub lost: Lost,
}

/// Delays that were not, or not as long as asked.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, serde::Deserialize)]
pub struct Lost {
    /// As many as allowed slept already.
    pub cap: u64,
    /// No slot was found.
    pub no_slot: u64,
    /// All programs that could have delayed it slept already on that processor.
    pub skipped: u64,
    /// The sleeper was killed, or our processes ended.
    pub cut_short: u64,
    /// The target's share of a processor was used up.
    pub over_budget: u64,
    /// So often a program was skipped as it slept already, and the next one had its turn.
    pub recursion_misses: u64,
}

impl Delays {
    /// From what was counted.
    pub fn new(stats: &SleepStats, recursion_misses: u64) -> Self {
        let mean = |sum_ns: u64| (stats.slept > 0).then(|| sum_ns as f64 / 1e6 / stats.slept as f64);
        let below = |class: usize| (class + 1 < LATE_CLASSES).then(|| 16_u64 << class);
        Self {
            asked: stats.asked,
            slept: stats.slept,
            spun: stats.spun,
            requested_mean_ms: mean(stats.wanted_ns),
            delivered_mean_ms: mean(stats.delivered_ns),
            late: stats.late.iter().enumerate().map(|(class, count)| (below(class), *count)).collect(),
            lost: Lost {
                cap: stats.refused,
                no_slot: stats.no_slot,
                skipped: stats.skipped,
                cut_short: stats.cut_short,
                over_budget: stats.over_budget,
                recursion_misses,
            },
        }
    }

    /// So late at most were so many of those who slept woken.
    fn late_within(&self, fraction: f64) -> Option<Duration> {
        let mut left = (self.slept as f64 * fraction).ceil() as u64;
        self.late
            .iter()
            .find_map(|(below_us, count)| {
                left = left.saturating_sub(*count);
                (left == 0).then_some(*below_us)
            })?
            .map(Duration::from_micros)
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} asked for, {} slept", self.asked, self.slept)?;
        if let (Some(requested), Some(delivered)) = (self.requested_mean_ms, self.delivered_mean_ms) {
            write!(f, " ({delivered:.3} ms delivered for {requested:.3} ms requested on average")?;
            for (name, fraction) in [("half", 0.5), ("99%", 0.99)] {
                if let Some(late) = self.late_within(fraction) {
                    write!(f, ", {name} at most {} late", show_duration(late))?;
                }
            }
            f.write_str(")")?;
        }
        let Lost { cap, no_slot, skipped, cut_short, over_budget, recursion_misses } = &self.lost;
        write!(
            f,
            ", {} kept busy; lost: {cap} as too many slept, {no_slot} without a slot, {skipped} as all programs slept, {cut_short} cut short, {over_budget} over \
             the processor's budget; programs skipped while they slept: {recursion_misses}",
            self.spun
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_delivered_stands_beside_what_was_asked_for() {
        let mut stats = SleepStats { asked: 101, slept: 100, refused: 1, ..SleepStats::ZERO };
        (stats.wanted_ns, stats.delivered_ns) = (100 * 10_000_000, 100 * 10_100_000);
        (stats.late[2], stats.late[5]) = (98, 2);
        let delays = Delays::new(&stats, 7);
        assert_eq!(delays.late_within(0.5), Some(Duration::from_micros(64)));
        assert_eq!(delays.late_within(0.99), Some(Duration::from_micros(512)));
        let text = delays.to_string();
        for part in
            ["101 asked", "100 slept", "10.100 ms delivered for 10.000 ms", "1 as too many", "slept: 7"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(Delays::new(&SleepStats::ZERO, 0).requested_mean_ms, None);
    }
}
