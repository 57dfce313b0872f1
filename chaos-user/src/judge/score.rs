//! From ticks to what each group measured in a phase, and per-second scores that carry its uncertainty.

use chaos_common::Counters;

use crate::{
    experiment::hypothesis::{Kind, Metric},
    steady::rates::{Counts, Tick, counts},
    target::Group,
};

/// What one group did in one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    kind: Kind,
    /// What was counted.
    pub count: f64,
    /// What it is taken of: seconds for a rate, the denominator for a ratio.
    pub exposure: f64,
    /// How many separate things happened.
    pub events: u64,
    /// Linearised influence of each tick on [`Cell::statistic`]; the mean is 0. `θ̂ − θ ≈ mean(scores)`.
    pub scores: Vec<f64>,
}

/// What stands for "none" on the log scale (Haldane–Anscombe: half an event).
const HALF_AN_EVENT: f64 = 0.5;

/// Below this many events the normal approximation is not trusted.
pub const FEW_EVENTS: u64 = 25;

impl Cell {
    /// What `group` did in `ticks`; `None` if there was nothing to take it of.
    pub fn of(metric: Metric, group: Group, ticks: &[&Tick]) -> Option<Self> {
        let parts: Vec<Part> = ticks.iter().map(|tick| Part::of(metric, group, tick)).collect();
        let count: f64 = parts.iter().map(|part| part.count).sum();
        let exposure: f64 = parts.iter().map(|part| part.exposure).sum();
        let events = parts.iter().map(|part| part.events).sum();
        let kind = metric.kind();
        let scores = scores(kind, &parts, count, exposure);
        (exposure > 0.0).then_some(Self { kind, count, exposure, events, scores })
    }

    /// In the metric's own unit: per second, or a fraction.
    pub fn value(&self) -> f64 {
        self.count / self.exposure
    }

    /// On the scale on which groups are compared: the logarithm of a rate, a ratio as it is. A ratio of sums,
    /// because a mean of per-second ratios is biased by seconds with little in them.
    pub fn statistic(&self) -> f64 {
        match self.kind {
            Kind::Rate => (self.count.max(HALF_AN_EVENT) / self.exposure).ln(),
            Kind::RareRatio => self.value(),
        }
    }

    /// The least variance that counting alone gives [`Cell::statistic`], so that nothing happening, or happening
    /// like clockwork, never looks like certainty.
    pub fn variance_floor(&self) -> f64 {
        match self.kind {
            // Poisson, delta method: Var(ln x) = 1/x, with half an event more.
            Kind::Rate if self.events < FEW_EVENTS => 1.0 / (self.events as f64 + HALF_AN_EVENT),
            // Regular traffic is steadier than Poisson, but a reading can still fall on either side of an event.
            Kind::Rate => (self.events as f64).powi(-2),
            // Add-one binomial.
            Kind::RareRatio => {
                let p = (self.trials_hit() + 1.0) / (self.exposure + 2.0);
                p * (1.0 - p) / self.exposure
            }
        }
    }

    /// Hits of a ratio; never more than there were trials, whatever the counters say.
    pub fn trials_hit(&self) -> f64 {
        self.count.min(self.exposure)
    }
}

/// One tick's share of a cell.
struct Part {
    count: f64,
    exposure: f64,
    events: u64,
}

impl Part {
    fn of(metric: Metric, group: Group, tick: &Tick) -> Self {
        let Counts { count, of, events } = counts(metric, side(group, tick));
        Self { count: count as f64, exposure: of.map_or(tick.seconds, |of| of as f64), events }
    }
}

/// One group's counters in a tick.
pub const fn side(group: Group, tick: &Tick) -> &Counters {
    match group {
        Group::Control => &tick.control,
        Group::Experiment => &tick.experiment,
    }
}

/// Delta method. Rate: `c_t/c̄ − s_t/s̄`, of which the second term cancels between groups. Rare ratio:
/// `(A_t − p̂·B_t)/B̄`.
fn scores(kind: Kind, parts: &[Part], count: f64, exposure: f64) -> Vec<f64> {
    let n = parts.len() as f64;
    let share = |part: f64, whole: f64| if whole > 0.0 { part * n / whole } else { 0.0 };
    let score = |part: &Part| match kind {
        Kind::Rate if count == 0.0 => 0.0,
        Kind::Rate => share(part.count, count) - share(part.exposure, exposure),
        Kind::RareRatio => share(part.count - count / exposure * part.exposure, exposure),
    };
    parts.iter().map(score).collect()
}
