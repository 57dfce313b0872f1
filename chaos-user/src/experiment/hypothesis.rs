//! What should stay true: metrics, and margins declared before the run.

pub use super::metric::{Level, Metric, Stat, Timed};

/// How a metric is made of what is measured, and so how it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Count per second.
    Rate,
    /// Count per other count, both common: CPU time per request.
    Ratio,
    /// Count per other count, usually near zero: errors per call.
    RareRatio,
    /// Time per time: stalled seconds per second.
    TimeShare,
    /// A quantile of durations.
    Quantile {
        /// Which, in thousandths: 990 is the 99th percentile.
        per_mille: u16,
    },
    /// The share of durations that are longer than a limit.
    Tail {
        /// The limit.
        above_ns: u64,
    },
    /// A level, read now and then: memory, a queue. It adds up over time, so that pulses would average a leak away.
    Gauge,
    /// How fast a level grows, per minute.
    Trend,
    /// Something that must not happen, or not often.
    Event,
}

/// In which terms two values of a metric are compared, and its margin is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As a ratio, on the log scale: percent of the value.
    Relative,
    /// As a difference of shares: percentage points.
    Points,
    /// As a difference of slopes, in the metric's unit per minute.
    PerMinute,
    /// Not at all: it is counted.
    Number,
}

impl Kind {
    /// In which terms it is compared.
    pub const fn scale(self) -> Scale {
        match self {
            Self::Rate | Self::Ratio | Self::Quantile { .. } | Self::Gauge => Scale::Relative,
            Self::RareRatio | Self::TimeShare | Self::Tail { .. } => Scale::Points,
            Self::Trend => Scale::PerMinute,
            Self::Event => Scale::Number,
        }
    }

    /// Whether it says something within a pulse. What adds up over time does not.
    pub const fn follows_pulses(self) -> bool {
        !matches!(self, Self::Gauge | Self::Trend)
    }
}

/// What a metric belongs to, for reports that list many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// How long it took, and what it took.
    Performance,
    /// What it keeps in memory.
    Memory,
    /// How much was done.
    Activity,
    /// What was kept for good.
    Persistence,
    /// What went wrong.
    Errors,
}

/// One gate: a metric that decides, and how far it may move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// What is measured.
    pub metric: Metric,
    /// How far it may move.
    pub margin: Margin,
}

/// How far a metric of the experimental group may move against the control group. On the scale
/// [`Scale::Relative`] the numbers are fractions (0.1 is 10 %), on [`Scale::Points`] they are absolute (0.005 is 0.5 pp).
/// Of a [`Kind::Event`] `increase` is the most that may happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// Most increase, `None` if an increase never hurts.
    pub increase: Option<f64>,
    /// Most decrease, `None` if a decrease never hurts. Below 1 for a rate.
    pub decrease: Option<f64>,
}

/// Why a gate cannot be judged, whatever is measured.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GateError {
    /// A quantile read from buckets that are not much narrower than the margin: an effect at the margin would pass.
    #[error("a margin of {:.1} % is less than four buckets of the histogram, each {:.1} % wide", .margin * 100.0, .width * 100.0)]
    CoarseBuckets {
        /// The margin asked for.
        margin: f64,
        /// How wide a bucket is.
        width: f64,
    },
}

/// A margin must be this many buckets wide.
const BUCKETS_IN_MARGIN: f64 = 4.0;

/// The smallest margin of a quantile read from buckets of this width.
pub const fn least_margin(width: f64) -> f64 {
    BUCKETS_IN_MARGIN * width
}

impl Margin {
    /// Refuses a margin of a quantile that the buckets it is read from are too wide for.
    pub fn check(self, kind: Kind, bucket_width: f64) -> Result<(), GateError> {
        let sides = [self.increase, self.decrease].into_iter().flatten();
        let margin = sides.fold(f64::INFINITY, f64::min);
        let coarse = matches!(kind, Kind::Quantile { .. }) && margin < least_margin(bucket_width);
        if coarse { Err(GateError::CoarseBuckets { margin, width: bucket_width }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steady::histogram::WIDTH;

    const P99: Kind = Kind::Quantile { per_mille: 990 };

    #[test]
    fn a_margin_of_a_quantile_must_be_four_buckets_wide() {
        let margin = |increase| Margin { increase: Some(increase), decrease: None };
        assert_eq!(margin(0.25).check(P99, WIDTH), Ok(()));
        assert_eq!(margin(0.125).check(P99, WIDTH), Ok(()));
        let refused = margin(0.1).check(P99, WIDTH);
        assert_eq!(refused, Err(GateError::CoarseBuckets { margin: 0.1, width: WIDTH }));
        assert!(refused.unwrap_err().to_string().contains("10.0 %"));
        assert_eq!(margin(0.1).check(Kind::Tail { above_ns: 1 }, WIDTH), Ok(()), "a share has no such limit");
        let both = Margin { increase: Some(0.5), decrease: Some(0.01) };
        assert!(both.check(P99, WIDTH).is_err());
    }

    #[test]
    fn buckets_that_double_are_refused_at_every_usual_margin() {
        for margin in [0.1, 0.25, 0.5, 1.0] {
            let margin = Margin { increase: Some(margin), decrease: None };
            assert!(margin.check(P99, 1.0).is_err(), "{margin:?}");
        }
    }
}
