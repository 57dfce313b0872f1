//! One effect and its uncertainty: how much more the experimental group changed than the control group did.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    ewc::{self, LongRun},
    jackknife::TargetSpread,
    quantile,
    score::{Cell, FEW_EVENTS},
    trend,
};
use crate::{
    experiment::hypothesis::{Kind, Scale},
    steady::summary::Point,
    target::Group,
};

/// What is compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contrast {
    /// The change of the experimental group less that of the control group, second by second: what both groups
    /// share cancels.
    Groups,
    /// The change of the control group alone: did the fault leak, or the load move?
    Control,
}

/// Why there is no estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Fewer than [`ewc::MIN_TICKS`] ticks in a phase.
    TooFewTicks,
    /// A group did nothing that the metric is made of.
    NoActivity,
    /// Fewer than [`super::pulse::MIN_PAIRS`] pairs of blocks are whole.
    TooFewPairs,
    /// It adds up over time, so that pulses say nothing about it.
    NeedsHold,
}

/// A metric in both groups and both phases: per second, or a fraction.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Cells {
    /// The control group before.
    pub control_before: f64,
    /// The control group during.
    pub control_during: f64,
    /// The experimental group before.
    pub experiment_before: f64,
    /// The experimental group during.
    pub experiment_during: f64,
}

/// An effect with its confidence interval.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Estimate {
    /// How it is compared.
    pub kind: Kind,
    /// What it is made of.
    pub cells: Cells,
    /// The change as a fraction of the metric (rate: 0.1 is 10 % more) or as a difference (ratio: 0.1 is 10 pp).
    pub change: f64,
    /// Confidence interval of `change`.
    pub ci: [f64; 2],
    /// The change on the scale it is tested on: natural logarithm for a rate, plain for a ratio.
    pub theta: f64,
    /// Standard error of `theta`: by time or by targets, whichever makes the wider interval.
    pub se: f64,
    /// Degrees of freedom of `se`.
    pub df: f64,
    /// Confidence interval of `theta`.
    pub theta_ci: [f64; 2],
    /// Autocorrelation from one tick to the next, the larger of both phases; of pulses from one pair to the next.
    pub lag1: f64,
    /// Fewer than [`FEW_EVENTS`] events in each cell: the interval is no narrower than the exact binomial one.
    pub few_events: bool,
    /// Length of what is compared with the baseline, in seconds.
    pub seconds: f64,
    /// How many pairs of blocks it is made of, of pulses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<usize>,
    /// How much targets differ, where a group has enough of them to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<TargetSpread>,
    /// Of time and targets the one that `se` is not from: at another confidence it may be the wider one.
    #[serde(skip)]
    other: Option<StandardError>,
    /// The least standard error that counting alone gives, if `se` may be less.
    #[serde(skip)]
    floor: f64,
    #[serde(skip)]
    exact: Vec<Share>,
}

/// A standard error, and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StandardError {
    pub(super) se: f64,
    pub(super) df: f64,
}

impl StandardError {
    /// Of a sum, from the variance and the degrees of freedom of each of its parts (Welch–Satterthwaite: Satterthwaite,
    /// Biometrics Bulletin 2, 1946).
    pub(super) fn of_sum(parts: &[(f64, f64)]) -> Self {
        let variance: f64 = parts.iter().map(|(variance, _)| variance).sum();
        let df = variance.powi(2) / parts.iter().map(|(variance, df)| variance.powi(2) / df).sum::<f64>();
        Self { se: variance.sqrt(), df }
    }

    /// Half of the width of an interval each bound of which holds with chance `level`.
    fn half(self, level: f64) -> f64 {
        quantile::t(level, self.df) * self.se
    }
}

/// A cell of few events, with the sign it enters `theta` with.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    sign: f64,
    hits: f64,
    trials: f64,
}

/// One group in both phases.
pub(super) struct Pair {
    pub(super) sign: f64,
    pub(super) before: Cell,
    pub(super) during: Cell,
}

/// The effect on a metric at the points `during`, compared with those `before`. `confidence` is that of one bound; the
/// interval holds with 2·confidence − 1 (95 % verdicts read 90 % intervals: two one-sided tests, Schuirmann 1987).
pub fn estimate(
    kind: Kind,
    contrast: Contrast,
    before: &[Point],
    during: &[Point],
    confidence: f64,
) -> Result<Estimate, Missing> {
    if before.len().min(during.len()) < ewc::MIN_TICKS {
        return Err(Missing::TooFewTicks);
    }
    if kind == Kind::Trend {
        return trend::estimate(before, during, confidence);
    }
    let cell = |group, points| Cell::of(kind, group, points);
    let control = (cell(Group::Control, before), cell(Group::Control, during));
    let experiment = (cell(Group::Experiment, before), cell(Group::Experiment, during));
    let (cells, pairs) = contrasted(kind, contrast, control, experiment)?;
    let seconds = during.iter().map(|point| point.seconds).sum();
    measure(kind, &pairs, cells, seconds, confidence).ok_or(Missing::TooFewTicks)
}

type BeforeAndDuring = (Option<Cell>, Option<Cell>);

/// The cells that enter `theta`, if there was something in each of them.
pub(super) fn contrasted(
    kind: Kind,
    contrast: Contrast,
    control: BeforeAndDuring,
    experiment: BeforeAndDuring,
) -> Result<(Cells, Vec<Pair>), Missing> {
    let pair =
        |sign, (before, during): BeforeAndDuring| Some(Pair { sign, before: before?, during: during? });
    let control = pair(-1.0, control).ok_or(Missing::NoActivity)?;
    let experiment = pair(1.0, experiment).ok_or(Missing::NoActivity)?;
    // Only the experimental group may fall silent because of the fault.
    let needed = [&control.before, &control.during, &experiment.before];
    if kind.scale() == Scale::Relative && needed.iter().any(|cell| cell.count() == 0.0) {
        return Err(Missing::NoActivity);
    }
    let cells = Cells {
        control_before: control.before.value(),
        control_during: control.during.value(),
        experiment_before: experiment.before.value(),
        experiment_during: experiment.during.value(),
    };
    let pairs = match contrast {
        Contrast::Groups => vec![experiment, control],
        Contrast::Control => vec![Pair { sign: 1.0, ..control }],
    };
    Ok((cells, pairs))
}

/// θ of these cells.
pub(super) fn theta(pairs: &[Pair]) -> f64 {
    pairs.iter().map(|pair| pair.sign * (pair.during.statistic() - pair.before.statistic())).sum()
}

fn measure(kind: Kind, pairs: &[Pair], cells: Cells, seconds: f64, confidence: f64) -> Option<Estimate> {
    let before = phase_variance(pairs, |pair| &pair.before)?;
    let during = phase_variance(pairs, |pair| &pair.during)?;
    let StandardError { se, df } =
        StandardError::of_sum(&[before, during].map(|phase| (phase.variance, phase.nu)));
    let lag1 = before.lag1.max(during.lag1);
    let spread = Spread { se, df, lag1, pairs: None, floor: 0.0 };
    Some(Estimate::of(kind, pairs, cells, spread, seconds, confidence))
}

/// How uncertain `theta` is.
pub(super) struct Spread {
    pub(super) se: f64,
    pub(super) df: f64,
    pub(super) lag1: f64,
    pub(super) pairs: Option<usize>,
    pub(super) floor: f64,
}

/// The variance of one phase's share of `theta`, and how well it is known.
#[derive(Clone, Copy)]
struct PhaseVariance {
    variance: f64,
    nu: f64,
    lag1: f64,
}

fn phase_variance(pairs: &[Pair], cell: impl Fn(&Pair) -> &Cell) -> Option<PhaseVariance> {
    let mut scores = vec![0.0; pairs.first().map_or(0, |pair| cell(pair).scores.len())];
    for pair in pairs {
        for (sum, score) in scores.iter_mut().zip(&cell(pair).scores) {
            *sum += pair.sign * score;
        }
    }
    let LongRun { omega, nu } = ewc::long_run(&scores)?;
    let floor: f64 = pairs.iter().map(|pair| cell(pair).variance_floor()).sum();
    Some(PhaseVariance { variance: (omega / scores.len() as f64).max(floor), nu, lag1: ewc::lag1(&scores) })
}

/// All cells, with the sign each enters `theta` with.
fn cells_of(pairs: &[Pair]) -> impl Iterator<Item = (f64, &Cell)> {
    pairs.iter().flat_map(|pair| [(pair.sign, &pair.during), (-pair.sign, &pair.before)])
}

/// The variance that counting alone gives all of them.
pub(super) fn variance_floor(pairs: &[Pair]) -> f64 {
    cells_of(pairs).map(|(_, cell)| cell.variance_floor()).sum()
}

fn shares(pairs: &[Pair]) -> Vec<Share> {
    cells_of(pairs)
        .map(|(sign, cell)| Share { sign, hits: cell.trials_hit(), trials: cell.exposure() })
        .collect()
}

/// From the scale of the test to the one people read.
pub fn natural(kind: Kind, theta: f64) -> f64 {
    if kind.scale() == Scale::Relative { theta.exp_m1() } else { theta }
}

impl Estimate {
    pub(super) fn of(
        kind: Kind,
        pairs: &[Pair],
        cells: Cells,
        spread: Spread,
        seconds: f64,
        confidence: f64,
    ) -> Self {
        let few_events = cells_of(pairs).all(|(_, cell)| cell.events() < FEW_EVENTS);
        let rare = matches!(kind, Kind::RareRatio | Kind::Tail { .. });
        let exact = if few_events && rare { shares(pairs) } else { vec![] };
        let plain = Self::plain(kind, cells, theta(pairs), spread, seconds, confidence);
        Self { few_events, exact, ..plain }.at(confidence)
    }

    pub(super) fn plain(
        kind: Kind,
        cells: Cells,
        theta: f64,
        spread: Spread,
        seconds: f64,
        confidence: f64,
    ) -> Self {
        let Spread { se, df, lag1, pairs, floor } = spread;
        let (change, unknown, exact) = (natural(kind, theta), [f64::NAN; 2], vec![]);
        let (ci, theta_ci, few_events) = (unknown, unknown, false);
        let estimate = Self {
            kind,
            cells,
            change,
            ci,
            theta,
            se,
            df,
            theta_ci,
            lag1,
            few_events,
            seconds,
            pairs,
            targets: None,
            other: None,
            floor,
            exact,
        };
        estimate.at(confidence)
    }

    /// With its interval.
    fn at(mut self, confidence: f64) -> Self {
        self.theta_ci = self.interval(confidence);
        self.ci = self.theta_ci.map(|bound| natural(self.kind, bound));
        self
    }

    /// With its standard error multiplied, where a long quiet run has shown it to be too small (see `placebo`).
    pub fn inflated(mut self, kappa: f64, confidence: f64) -> Self {
        self.se *= kappa.max(1.0);
        self.at(confidence)
    }

    /// With what is known of how much targets differ: where that makes the wider interval, it is taken.
    pub(super) fn or_targets(mut self, spread: Option<TargetSpread>, confidence: f64) -> Self {
        let Some(mut spread) = spread else { return self };
        let by_time = StandardError { se: self.se, df: self.df };
        let by_targets = StandardError { se: spread.se, df: spread.df };
        let [low, high] = self.interval(confidence);
        let half = by_targets.half(confidence);
        spread.taken = self.theta - half < low || self.theta + half > high;
        self.targets = Some(spread);
        let (taken, other) = if spread.taken { (by_targets, by_time) } else { (by_time, by_targets) };
        (self.se, self.df, self.other) = (taken.se, taken.df, Some(other).filter(|other| other.se > 0.0));
        self.at(confidence)
    }

    /// Whether the interval comes from how much targets differ, so that more of the same targets would not narrow it.
    pub fn is_by_targets(&self) -> bool {
        self.targets.is_some_and(|targets| targets.taken)
    }

    /// What there is to estimate the uncertainty from.
    fn errors(&self) -> impl Iterator<Item = StandardError> {
        std::iter::once(StandardError { se: self.se, df: self.df }).chain(self.other)
    }

    /// The standard error, no less than counting alone gives.
    pub fn error(&self) -> f64 {
        self.se.max(self.floor)
    }

    /// Two-sided p-value of no change at all.
    pub fn p_any(&self) -> f64 {
        let larger = self.p_beyond(0.0, true).min(self.p_beyond(0.0, false));
        (2.0 * larger).min(1.0)
    }

    /// Bounds of `theta`, each of which holds with chance `level`: Student's t, by time or by targets, or what counting
    /// alone gives, which is not estimated and so normal, or with few events [`Self::mover`], whatever is widest.
    pub fn interval(&self, level: f64) -> [f64; 2] {
        let by_counting = quantile::z(level) * self.floor;
        let half = self.errors().map(|error| error.half(level)).fold(by_counting, f64::max);
        let [low, high] = self.mover(level);
        [low.min(self.theta - half), high.max(self.theta + half)]
    }

    /// Sums and differences of shares of few events, from the Clopper–Pearson bounds of each: the method of variance
    /// estimates recovery (Zou, Donner, Statistics in Medicine 27, 2008). Just `theta` if events are not few.
    fn mover(&self, level: f64) -> [f64; 2] {
        let (mut below, mut above) = (0.0, 0.0);
        for share in &self.exact {
            let p = share.hits / share.trials;
            let (low, high) = quantile::clopper_pearson(share.hits, share.trials, level);
            let (down, up) = ((p - low).powi(2), (high - p).powi(2));
            below += if share.sign > 0.0 { down } else { up };
            above += if share.sign > 0.0 { up } else { down };
        }
        [self.theta - below.sqrt(), self.theta + above.sqrt()]
    }

    /// One-sided p-value of "theta ≤ limit" against more, or of "theta ≥ limit" against less. With few events it is
    /// never below that of the exact conditional test of any difference at all, see [`Self::p_conditional`].
    pub fn p_beyond(&self, limit: f64, more: bool) -> f64 {
        let beyond = if more { self.theta - limit } else { limit - self.theta };
        let by_counting = if self.floor > 0.0 { 1.0 - quantile::z_below(beyond / self.floor) } else { 0.0 };
        let tails = self.errors().map(|error| quantile::t_tail(beyond / error.se, error.df));
        let p = tails.fold(by_counting, f64::max);
        if self.exact.is_empty() {
            return p;
        }
        p.max(self.p_by_interval(limit, more)).max(self.p_conditional(more))
    }

    /// The p-value at which the interval first touches the limit, by bisection; 0.5 or more is given as 1.
    fn p_by_interval(&self, limit: f64, more: bool) -> f64 {
        let excludes = |level: f64| {
            let [low, high] = self.interval(level);
            if more { low > limit } else { high < limit }
        };
        if !excludes(0.5 + 1e-9) {
            return 1.0;
        }
        let (mut p_touching, mut p_clear) = (1e-12, 0.5);
        while p_clear / p_touching > 1.0 + 1e-6 {
            let middle = f64::sqrt(p_touching * p_clear);
            if excludes(1.0 - middle) { p_clear = middle } else { p_touching = middle }
        }
        p_clear
    }

    /// Given how many events there were in both, how they fell to the experimental group while injecting and to the
    /// control group at that time or to itself before, whichever tells more, against their shares of the trials
    /// (Przyborowski, Wilenski, Biometrika 31, 1940). An effect made of the control group's movements alone is none.
    fn p_conditional(&self, more: bool) -> f64 {
        let [during, before, control, _] = self.exact[..] else { return 1.0 };
        let against = |other: Share| {
            let suspect = if more { during } else { other };
            let share = suspect.trials / (during.trials + other.trials);
            quantile::binomial_at_least(suspect.hits as u64, (during.hits + other.hits) as u64, share)
        };
        against(control).min(against(before))
    }
}
