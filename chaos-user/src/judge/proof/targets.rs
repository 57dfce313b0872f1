//! Two thousand runs of groups of targets that do not respond alike, in worlds whose truth is known: what the fault does to
//! all targets there could be, of which those of the run were drawn.

use super::{noise::Noise, share_of_runs};
use crate::{
    experiment::hypothesis::{Kind, Margin},
    judge::{
        estimate::{self, Contrast, Estimate},
        gate,
        jackknife::{self, Sums},
        pulse::{self, PairPoints},
    },
    steady::summary::{Point, Summary},
};

/// 12 pairs of blocks, of which 8 s are judged; or a phase of a minute before and one during.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Design {
    Pulses,
    Hold,
}

const PAIRS: usize = 12;
const JUDGED_S: f64 = 8.0;
const PHASE_S: usize = 60;

/// Calls per second of a target.
const CALLS_PER_S: f64 = 300.0;
/// How much targets differ in size, as a standard deviation of the logarithm.
const SIZES: f64 = 0.2;
/// How much the load of all wanders.
const LOAD: f64 = 0.15;
/// By how much each target wanders by itself, from a block or a second to the next, and how alike these are.
const OWN: (f64, f64) = (0.5, 0.08);
/// Failed calls per call.
const ERRORS: f64 = 0.01;

#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    pub design: Design,
    pub kind: Kind,
    pub margin: Margin,
    /// In each group.
    pub targets: usize,
    /// How much what the fault does differs from target to target: a standard deviation, of the change.
    pub differ: f64,
}

/// What the fault does to all targets there could be, in margins.
type Effect = f64;

impl World {
    /// The change that is the margin.
    fn margin(&self) -> f64 {
        self.margin.decrease.map_or_else(|| self.margin.increase.unwrap_or_default(), |by| -by)
    }

    /// The truth on the scale of the test. Sizes and responses are drawn apart, so that the mean response is that of the sum.
    fn truth(&self, effect: Effect) -> f64 {
        let change = effect * self.margin();
        if self.kind == Kind::Rate { change.ln_1p() } else { change }
    }

    /// What one run shows, by time alone and with what targets say.
    fn run(&self, effect: Effect, seed: u64) -> [Estimate; 2] {
        let scenario = self.targets as u64 + (self.differ * 1e5) as u64 * 100 + (effect * 1e7) as u64 * 1_000;
        let mut noise = Noise::new(scenario, seed);
        let (cells, seconds) = match self.design {
            Design::Pulses => (2 * PAIRS, JUDGED_S),
            Design::Hold => (2 * PHASE_S, 1.0),
        };
        let on: Vec<bool> = match self.design {
            Design::Pulses => (0..PAIRS).flat_map(|_| order(&mut noise)).collect(),
            Design::Hold => (0..cells).map(|cell| cell >= PHASE_S).collect(),
        };
        let load = noise.wander(cells, 0.8, LOAD);
        let mut target = |treated: bool| -> Vec<Summary> {
            let size = (SIZES * noise.normal()).exp();
            let change = effect * self.margin() + self.differ * noise.normal();
            let own = noise.wander(cells, OWN.0, OWN.1);
            let cell = |cell: usize| {
                let change = if treated && on[cell] { change } else { 0.0 };
                let calls = CALLS_PER_S * seconds * size * (load[cell] + own[cell]).exp();
                self.summary(calls, change, seconds, &mut noise)
            };
            (0..cells).map(cell).collect()
        };
        let [control, experiment] =
            [false, true].map(|treated| (0..self.targets).map(|_| target(treated)).collect::<Vec<_>>());
        let point = |cell: usize| Point {
            control: at(&control, cell, self.kind, seconds),
            experiment: at(&experiment, cell, self.kind, seconds),
            seconds,
        };
        let points: Vec<Point> = (0..cells).map(point).collect();
        let by_time = self.by_time(&points, &on);
        let sums = |group: &[Vec<Summary>], when: bool| -> Vec<Summary> {
            let of_target = |cells: &Vec<Summary>| sum(cells.iter().zip(&on).filter(|(_, on)| **on == when));
            group.iter().map(of_target).collect()
        };
        let [off_c, on_c, off_e, on_e] =
            [(&control, false), (&control, true), (&experiment, false), (&experiment, true)]
                .map(|(group, when)| sums(group, when));
        let (control, experiment) =
            (Sums { before: &off_c, during: &on_c }, Sums { before: &off_e, during: &on_e });
        let spread = jackknife::of_sums(self.kind, Contrast::Groups, control, experiment);
        [by_time.clone(), by_time.or_targets(spread, 0.95)]
    }

    fn summary(&self, calls: f64, change: f64, seconds: f64, noise: &mut Noise) -> Summary {
        if self.kind == Kind::Rate {
            let count = noise.poisson(calls * (1.0 + change));
            return Summary::count(count, seconds, count as u64);
        }
        let hits = noise.poisson(calls * (ERRORS + change).max(0.0));
        Summary::count(hits, calls.round(), hits as u64)
    }

    fn by_time(&self, points: &[Point], on: &[bool]) -> Estimate {
        let estimate = match self.design {
            Design::Hold => {
                let (before, during) = points.split_at(PHASE_S);
                estimate::estimate(self.kind, Contrast::Groups, before, during, 0.95)
            }
            Design::Pulses => {
                let pair = |(points, on): (&[Point], &[bool])| {
                    let (first, second) = (points[0].clone(), points[1].clone());
                    let (on, off) = if on[0] { (first, second) } else { (second, first) };
                    PairPoints { on, off }
                };
                let pairs: Vec<_> = points.chunks(2).zip(on.chunks(2)).map(pair).collect();
                pulse::estimate(self.kind, Contrast::Groups, &pairs, 0.95)
            }
        };
        estimate.expect("there is enough of everything")
    }
}

fn order(noise: &mut Noise) -> [bool; 2] {
    let first = noise.bits() & 1 == 0;
    [first, !first]
}

fn sum<'a>(cells: impl Iterator<Item = (&'a Summary, &'a bool)>) -> Summary {
    let mut sum = Summary::default();
    cells.for_each(|(cell, _)| sum.merge(cell));
    sum
}

/// A group in a cell: what its targets did, in the time that they all had.
fn at(targets: &[Vec<Summary>], cell: usize, kind: Kind, seconds: f64) -> Summary {
    let mut sum = Summary::default();
    targets.iter().for_each(|cells| sum.merge(&cells[cell]));
    if kind == Kind::Rate { Summary { of: seconds, ..sum } } else { sum }
}

/// Shares of the runs, in percent: where nothing happens to all targets there could be, and where it is just the margin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// The 90 % interval holds the truth.
    pub covered: f64,
    /// "No change at all" is rejected at 5 %.
    pub different: f64,
    pub fail: f64,
    pub pass: f64,
    pub pass_at_margin: f64,
}

/// By time alone, and with what targets say.
pub(super) fn shares(world: World) -> [Shares; 2] {
    let with = |effect: Effect| {
        share_of_runs(|seed| {
            let judged = |estimate: &Estimate| {
                let [low, high] = estimate.theta_ci;
                [
                    (low..=high).contains(&world.truth(effect)),
                    estimate.p_any() < 0.05,
                    gate::p_fail(estimate, world.margin) <= 0.05,
                    gate::is_inside(estimate, world.margin),
                ]
            };
            world.run(effect, seed).iter().flat_map(judged).collect()
        })
    };
    let (none, margin) = (with(0.0), with(1.0));
    [0, 4].map(|first| Shares {
        covered: none[first],
        different: none[first + 1],
        fail: none[first + 2],
        pass: none[first + 3],
        pass_at_margin: margin[first + 3],
    })
}
