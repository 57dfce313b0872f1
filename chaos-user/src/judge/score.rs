//! From what each group did to the number it is compared by, and per-second scores that carry its uncertainty.

use crate::{
    experiment::hypothesis::{Kind, Scale},
    steady::{
        histogram::WIDTH,
        summary::{Point, Summary},
    },
    target::Group,
};

use super::{ewc, quantile};

/// What one group did in one phase, or in all blocks of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    kind: Kind,
    total: Summary,
    /// Linearised influence of each tick on [`Cell::statistic`]; the mean is 0. `θ̂ − θ ≈ mean(scores)`. Empty where
    /// the uncertainty does not come from ticks.
    pub scores: Vec<f64>,
}

/// What stands for "none" on the log scale (Haldane–Anscombe: half an event).
const HALF_AN_EVENT: f64 = 0.5;

/// Below this many events the normal approximation is not trusted.
pub const FEW_EVENTS: u64 = 25;

/// A stall shorter than this, in seconds, may be missed or counted to the next tick: half a scheduler tick at 250 Hz.
const LEAST_STALL_S: f64 = 0.002;

/// Four cells of a quantile that always falls into the same bucket know it to within the bucket, together: the variance
/// of a number anywhere in it is width²/12.
const BUCKET_VARIANCE: f64 = WIDTH * WIDTH / 48.0;

impl Cell {
    /// All of it, without scores; `None` if there was nothing to take it of.
    pub fn merged(kind: Kind, total: Summary) -> Option<Self> {
        (total.of > 0.0).then_some(Self { kind, total, scores: vec![] })
    }

    /// What `group` did at these points, with scores.
    pub fn of(kind: Kind, group: Group, points: &[Point]) -> Option<Self> {
        let parts: Vec<&Summary> = points.iter().map(|point| side(group, point)).collect();
        let mut total = Summary::default();
        parts.iter().for_each(|part| total.merge(part));
        let cell = Self::merged(kind, total)?;
        let scores = cell.scores_of(&parts);
        Some(Self { scores, ..cell })
    }

    /// What was counted.
    pub fn count(&self) -> f64 {
        self.total.count
    }

    /// What it is taken of.
    pub fn exposure(&self) -> f64 {
        self.total.of
    }

    /// How many separate things happened.
    pub fn events(&self) -> u64 {
        self.total.events
    }

    /// In the metric's own unit: per second, a fraction, nanoseconds, bytes.
    pub fn value(&self) -> f64 {
        match self.kind {
            Kind::Quantile { per_mille } => self.quantile(share(per_mille)),
            Kind::Event => self.total.count,
            _ => self.total.count / self.total.of,
        }
    }

    /// On the scale on which groups are compared: the logarithm of what is relative, a share as it is. A ratio of sums,
    /// because a mean of per-second ratios is biased by seconds with little in them.
    pub fn statistic(&self) -> f64 {
        match (self.kind.scale(), self.kind) {
            (Scale::Relative, Kind::Quantile { .. }) => self.value().ln(),
            (Scale::Relative, _) => (self.total.count.max(HALF_AN_EVENT) / self.total.of).ln(),
            _ => self.value(),
        }
    }

    fn quantile(&self, q: f64) -> f64 {
        self.total.latency.quantile(q).unwrap_or(f64::NAN)
    }

    /// The least variance that counting alone gives [`Cell::statistic`], so that nothing happening, or happening
    /// like clockwork, never looks like certainty.
    pub fn variance_floor(&self) -> f64 {
        match self.kind {
            // Poisson, delta method: Var(ln x) = 1/x, with half an event more.
            Kind::Rate | Kind::Ratio if self.events() < FEW_EVENTS => {
                1.0 / (self.events() as f64 + HALF_AN_EVENT)
            }
            // Regular traffic is steadier than Poisson, but a reading can still fall on either side of an event.
            Kind::Rate | Kind::Ratio => (self.events() as f64).powi(-2),
            // Add-one binomial.
            Kind::RareRatio | Kind::Tail { .. } => {
                let p = (self.trials_hit() + 1.0) / (self.exposure() + 2.0);
                p * (1.0 - p) / self.exposure()
            }
            Kind::TimeShare => (LEAST_STALL_S / self.exposure()).powi(2),
            Kind::Quantile { per_mille } => self.quantile_floor(share(per_mille)),
            // A level can be read at any moment of its tick.
            Kind::Gauge | Kind::Trend => (self.events() as f64).powi(-2) * 1e-4,
            Kind::Event => 0.0,
        }
    }

    /// Durations that are independent of each other: Woodruff's interval with the binomial's q(1−q)/n.
    fn quantile_floor(&self, q: f64) -> f64 {
        let error = (q * (1.0 - q) / self.exposure()).sqrt();
        (self.spread(q, error) * error).powi(2).max(BUCKET_VARIANCE)
    }

    /// κ = [Q(q+h) − Q(q−h)]/2h, of logarithms: how far the quantile goes for a step of the share (Woodruff, JASA 47, 1952).
    fn spread(&self, q: f64, error: f64) -> f64 {
        let h = (quantile::z(0.95) * error).max(1e-9);
        let (low, high) = ((q - h).max(0.0), (q + h).min(1.0));
        (self.quantile(high).ln() - self.quantile(low).ln()) / (high - low)
    }

    /// Hits of a ratio; never more than there were trials, whatever the counters say.
    pub fn trials_hit(&self) -> f64 {
        self.count().min(self.exposure())
    }

    /// Delta method. Rate, ratio and level: `A_t/Ā − B_t/B̄`, of which for a rate the second term cancels between groups.
    /// Share: `(A_t − p̂·B_t)/B̄`. Quantile: `−κ·(N_t(≤Q̂) − q·N_t)/N̄`.
    fn scores_of(&self, parts: &[&Summary]) -> Vec<f64> {
        let n = parts.len() as f64;
        let (count, exposure) = (self.count(), self.exposure());
        let of_whole = |part: f64, whole: f64| if whole > 0.0 { part * n / whole } else { 0.0 };
        if let Kind::Quantile { per_mille } = self.kind {
            return self.quantile_scores(parts, share(per_mille));
        }
        let score = |part: &&Summary| match self.kind.scale() {
            Scale::Relative if count == 0.0 => 0.0,
            Scale::Relative => of_whole(part.count, count) - of_whole(part.of, exposure),
            _ => of_whole(part.count - count / exposure * part.of, exposure),
        };
        parts.iter().map(score).collect()
    }

    fn quantile_scores(&self, parts: &[&Summary], q: f64) -> Vec<f64> {
        let (value, n) = (self.quantile(q), parts.len() as f64);
        let score = |part: &&Summary| (part.latency.at_most(value) - q * part.of) * n / self.exposure();
        let scores: Vec<f64> = parts.iter().map(score).collect();
        let error = ewc::long_run(&scores).map_or(0.0, |run| (run.omega / n).sqrt());
        let least = (q * (1.0 - q) / self.exposure()).sqrt();
        let kappa = self.spread(q, error.max(least));
        scores.iter().map(|score| -kappa * score).collect()
    }
}

/// One group's part of a point.
pub const fn side(group: Group, point: &Point) -> &Summary {
    match group {
        Group::Control => &point.control,
        Group::Experiment => &point.experiment,
    }
}

fn share(per_mille: u16) -> f64 {
    f64::from(per_mille) / 1000.0
}
