//! Whether the fault does more harm than allowed, by a test that may be looked at after every tick.
//!
//! Where enough happens in a second, each second has a score: of what is relative the logarithm of the experimental group
//! over the control group, of a share the difference. Where it is too rare for that, counts are tested.

use crate::{
    experiment::{
        hypothesis::{Kind, Metric, Scale},
        watch::Harm,
    },
    judge::{
        ewc,
        guard::{self, Evidence, HarmTest, MIN_BASELINE, RareTest},
        quantile,
        score::FEW_EVENTS,
    },
    steady::{
        rates::{Tick, points},
        summary::{Point, Summary},
    },
};

use super::beyond::{level, rounded};

/// With fewer of them in a second than this, at the limit, there are no scores: they would be too far from normal.
pub const FEW_PER_TICK: f64 = 5.0;

/// A stall shorter than this is not seen, in seconds per second: see `judge/score.rs`.
const LEAST_STALL: f64 = 0.002;

/// Harm to one metric.
#[derive(Clone, Debug)]
pub struct HarmGuard {
    harm: Harm,
    usual: Usual,
    test: Result<Test, String>,
}

/// What a group does in a second of the baseline.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// The share that is hit, of a share.
    share: f64,
    /// What that is taken of.
    of: f64,
    /// How many separate things happen.
    events: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    control: Side,
    experiment: Side,
}

#[derive(Clone, Debug)]
enum Test {
    /// On the scores of ticks.
    Scores(HarmTest),
    /// Whether more is hit of what there is.
    Share(RareTest),
    /// How what happens falls to both groups; for a decrease the control group's part is tested.
    Odds(RareTest),
}

impl HarmGuard {
    /// From the baseline, with this guard's share of false alarms.
    pub fn new(harm: Harm, baseline: &[Tick], alpha: f64) -> Self {
        let baseline = points(harm.metric, baseline);
        let usual = Usual::of(&baseline);
        Self { harm, usual, test: test(&harm, &usual, &baseline, alpha) }
    }

    /// Of what.
    pub fn metric(&self) -> Metric {
        self.harm.metric
    }

    /// How near it is, if it can be tested.
    pub fn evidence(&self) -> Option<Evidence> {
        self.test.as_ref().ok().map(|test| match test {
            Test::Scores(test) => test.evidence(),
            Test::Share(test) | Test::Odds(test) => test.evidence(),
        })
    }

    /// Why it cannot be tested.
    pub fn untestable(&self) -> Option<String> {
        self.test.as_ref().err().cloned()
    }

    /// A tick with the fault on; what was seen, if that is reason to stop.
    pub fn feed(&mut self, tick: &Tick) -> Option<String> {
        let point = points(self.harm.metric, [tick]).into_iter().next()?;
        let (hit, all) = (&point.experiment, &point.control);
        let fires = match self.test.as_mut().ok()? {
            Test::Scores(test) => test.feed(self.usual.score(&self.harm, &point)?),
            Test::Share(test) => {
                let missed = (hit.of - hit.count).max(0.0);
                test.feed(hit.count as u64, missed as u64)
            }
            Test::Odds(test) if self.harm.increase => test.feed(hit.events, all.events),
            Test::Odds(test) => test.feed(all.events, hit.events),
        };
        fires.then(|| self.because())
    }

    fn because(&self) -> String {
        let more = match self.evidence() {
            Some(evidence) => {
                let [e, threshold] = [evidence.e_max, evidence.threshold].map(rounded);
                format!(" (e-value {e}, from {threshold} on this is no chance)")
            }
            None => String::new(),
        };
        let moved = if self.harm.increase { "rose" } else { "fell" };
        let most = crate::units::show_margin(self.harm.most, self.harm.metric);
        format!("it {moved} by more than {most} against the control group{more}")
    }
}

/// The test that suits what there is, or why none does.
fn test(harm: &Harm, usual: &Usual, baseline: &[Point], alpha: f64) -> Result<Test, String> {
    if baseline.len() < MIN_BASELINE {
        let ticks = baseline.len();
        return Err(format!(
            "the baseline has {ticks} readings, and what is usual takes {MIN_BASELINE}: make it longer"
        ));
    }
    if usual.control.of <= 0.0 || usual.experiment.of <= 0.0 {
        return Err("nothing happened in the baseline that it is made of: put load on both groups".into());
    }
    let at_limit = usual.experiment.of * (usual.experiment.share + harm.most);
    let rarest = usual.experiment.events.min(usual.control.events);
    match harm.metric.kind() {
        Kind::RareRatio | Kind::Tail { .. } if harm.increase && at_limit < FEW_PER_TICK => {
            Ok(Test::Share(rare_share(harm, baseline, alpha)))
        }
        Kind::Rate if rarest < FEW_PER_TICK => odds(harm, baseline, alpha).map(Test::Odds),
        _ => scores(harm, usual, baseline, alpha).map(Test::Scores),
    }
}

/// A test of scores. What is uncertain of the baseline takes half of the false alarms: see [`HarmTest`].
fn scores(harm: &Harm, usual: &Usual, baseline: &[Point], alpha: f64) -> Result<HarmTest, String> {
    let scores: Vec<f64> = baseline.iter().filter_map(|point| usual.score(harm, point)).collect();
    let test = HarmTest::new(&scores, harm.theta(), alpha).ok_or_else(|| {
        format!("only {} seconds of the baseline had something in them: put more load on it", scores.len())
    })?;
    let [before, at_limit] = usual.noise(harm).map(|variance| variance.max(0.0));
    let dispersion = match ewc::long_run(&scores) {
        Some(run) if before > 0.0 => (run.omega / before).max(1.0),
        _ => 1.0,
    };
    Ok(test.with_noise((at_limit * dispersion).sqrt()))
}

/// A test of a share that is nearly 0. The baseline's own share is taken for as large as it may be, for half of the false
/// alarms.
fn rare_share(harm: &Harm, baseline: &[Point], alpha: f64) -> RareTest {
    let total = Point::sum(baseline).experiment;
    let hits: Vec<f64> = baseline.iter().map(|point| point.experiment.count).collect();
    let bursts = dispersion(&hits, total.count / baseline.len() as f64);
    let (_, most) = quantile::clopper_pearson(total.count / bursts, total.of / bursts, 1.0 - alpha / 2.0);
    RareTest::of_share((most + harm.most).min(1.0), bursts, alpha / 2.0)
}

/// A test of how rare things fall to both groups, of which the baseline's own odds are taken for as bad as they may be.
fn odds(harm: &Harm, baseline: &[Point], alpha: f64) -> Result<RareTest, String> {
    let total = Point::sum(baseline);
    let (experiment, control) = (total.experiment.events, total.control.events);
    if experiment.min(control) < FEW_EVENTS {
        return Err(format!(
            "only {} of them in a group in the whole baseline are too few: put more load on it",
            experiment.min(control)
        ));
    }
    let ratio = experiment as f64 / control as f64;
    let difference = |point: &Point| point.experiment.events as f64 - ratio * point.control.events as f64;
    let ticks = baseline.len() as f64;
    let by_chance = (experiment as f64 + ratio * ratio * control as f64) / ticks;
    let bursts = dispersion(&baseline.iter().map(difference).collect::<Vec<_>>(), by_chance);
    let (suspect, other) = if harm.increase { (experiment, control) } else { (control, experiment) };
    let share = |events: u64| events as f64 / bursts;
    let (_, most) = quantile::clopper_pearson(share(suspect), share(suspect + other), 1.0 - alpha / 2.0);
    let allowed = if harm.increase { 1.0 + harm.most } else { 1.0 / (1.0 - harm.most) };
    Ok(RareTest::new(most / (1.0 - most).max(1e-9), allowed, bursts, alpha / 2.0))
}

/// How many times the variance that chance alone gives these have.
fn dispersion(values: &[f64], by_chance: f64) -> f64 {
    match ewc::long_run(values) {
        Some(run) if by_chance > 0.0 => (run.omega / by_chance).max(1.0),
        _ => 1.0,
    }
}

impl Harm {
    /// How much is allowed, on the scale of the scores.
    fn theta(&self) -> f64 {
        match (self.metric.kind().scale(), self.increase) {
            (Scale::Relative, true) => self.most.ln_1p(),
            (Scale::Relative, false) => -(-self.most).ln_1p(),
            _ => self.most,
        }
    }
}

impl Usual {
    fn of(baseline: &[Point]) -> Self {
        let (total, ticks) = (Point::sum(baseline), baseline.len().max(1) as f64);
        let side = |summary: &Summary| Side {
            share: if summary.of > 0.0 { (summary.count / summary.of).min(1.0) } else { 0.0 },
            of: summary.of / ticks,
            events: summary.events as f64 / ticks,
        };
        Self { control: side(&total.control), experiment: side(&total.experiment) }
    }

    /// How much worse the experimental group does than the control group, in one second; `None` where a group had
    /// nothing to take it of.
    fn score(&self, harm: &Harm, point: &Point) -> Option<f64> {
        let Point { control, experiment, .. } = point;
        let kind = harm.metric.kind();
        let score = match kind {
            Kind::Rate => guard::score(experiment.count, control.count),
            Kind::Ratio if experiment.of > 0.0 && control.of > 0.0 => {
                guard::score(experiment.count, control.count) - (experiment.of / control.of).ln()
            }
            Kind::RareRatio | Kind::Tail { .. } | Kind::TimeShare => {
                self.experiment.filled(experiment)? - self.control.filled(control)?
            }
            _ => level(kind, experiment)?.ln() - level(kind, control)?.ln(),
        };
        let signed = if harm.increase { score } else { -score };
        signed.is_finite().then_some(signed)
    }

    /// The variance that counting alone gives a score: as things were, and at the limit.
    fn noise(&self, harm: &Harm) -> [f64; 2] {
        let Self { control, experiment } = self;
        match harm.metric.kind() {
            Kind::Rate => {
                let left = if harm.increase { 1.0 } else { 1.0 - harm.most };
                [1.0, left].map(|left| 1.0 / (experiment.events * left) + 1.0 / control.events)
            }
            Kind::RareRatio | Kind::Tail { .. } => {
                let share = |p: f64, of: f64| p * (1.0 - p) / of;
                let more = if harm.increase { harm.most } else { 0.0 };
                [0.0, more].map(|more| {
                    let hurt = (experiment.share + more).min(0.5_f64.max(experiment.share));
                    share(hurt, experiment.of) + share(control.share, control.of)
                })
            }
            Kind::TimeShare => [LEAST_STALL * LEAST_STALL; 2],
            _ => [0.0; 2],
        }
    }
}

impl Side {
    /// The share in one second. Where less happened than usual, the rest is taken to be as usual, or a single thing that
    /// fails in a quiet second would count for as much as a thousand.
    fn filled(&self, tick: &Summary) -> Option<f64> {
        let missing = (self.of - tick.of).max(0.0);
        (tick.of > 0.0).then(|| (tick.count.min(tick.of) + self.share * missing) / (tick.of + missing))
    }
}
