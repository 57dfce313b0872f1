//! Two thousand holds of a minute after a minute, judged by us and by others.

use super::{
    kayenta::{self, Class},
    noise::Noise,
    share_of_runs,
};
use crate::{
    experiment::hypothesis::{Kind, Margin},
    judge::{
        estimate::{Contrast, Estimate, estimate},
        gate, quantile,
    },
    steady::summary::{Point, Summary},
};

const PHASE_S: usize = 60;
const PER_S: f64 = 2_000.0;
const SD: f64 = 0.05;
const MARGIN: Margin = Margin { increase: Some(0.1), decrease: Some(0.1) };

#[derive(Clone, Copy)]
pub(super) struct World {
    pub name: &'static str,
    /// Autocorrelation per second of what the groups do not share.
    pub rho: f64,
    /// How much larger the experimental group always is.
    pub offset: f64,
    /// By how much the load of both grows over the run.
    pub drift: f64,
}

pub(super) const WORLDS: [World; 5] = [
    World { name: "independent seconds, shared load", rho: 0.0, offset: 0.0, drift: 0.0 },
    World { name: "ρ 0.5, shared load", rho: 0.5, offset: 0.0, drift: 0.0 },
    World { name: "ρ 0.8, shared load", rho: 0.8, offset: 0.0, drift: 0.0 },
    World { name: "ρ 0.5, groups 5 % apart", rho: 0.5, offset: 0.05, drift: 0.0 },
    World { name: "ρ 0.5, load grows by 30 %", rho: 0.5, offset: 0.0, drift: 0.3 },
];

pub(super) const RULES: [&str; 4] = [
    "Kayenta's default",
    "before and after, no control group",
    "as if seconds were independent",
    "this judge",
];

fn play(world: World, effect: f64, seed: u64) -> Vec<Point> {
    let scenario = (world.rho * 100.0 + world.offset * 1e4 + world.drift * 1e5 + effect * 1e7) as u64;
    let mut noise = Noise::new(scenario, seed);
    let ticks = 2 * PHASE_S;
    let load = noise.wander(ticks, 0.95, 0.15);
    let [control, experiment] = [(); 2].map(|()| noise.wander(ticks, world.rho, SD));
    let mut point = |t: usize| {
        let drift = world.drift * t as f64 / ticks as f64;
        let on = if t < PHASE_S { 0.0 } else { effect };
        let mut count = |theta: f64| {
            let count = noise.poisson(PER_S * (load[t] + theta).exp() * (1.0 + drift));
            Summary::count(count, 1.0, count as u64)
        };
        Point {
            control: count(control[t]),
            experiment: count(experiment[t] + on + world.offset),
            seconds: 1.0,
        }
    };
    (0..ticks).map(&mut point).collect()
}

/// Different at 5 %, PASS, FAIL.
type Said = [bool; 3];

fn of_effect(effect: &Estimate) -> Said {
    [effect.p_any() < 0.05, gate::is_inside(effect, MARGIN), gate::p_fail(effect, MARGIN) <= 0.05]
}

fn by_kayenta(points: &[Point]) -> Said {
    let during = &points[PHASE_S..];
    let of = |side: fn(&Point) -> f64| during.iter().map(side).collect::<Vec<f64>>();
    let class = kayenta::classify(&of(|point| point.experiment.count), &of(|point| point.control.count));
    [class != Class::Pass, class == Class::Pass, class != Class::Pass]
}

fn by_ewc(points: &[Point], contrast: Contrast) -> Estimate {
    let (before, during) = points.split_at(PHASE_S);
    estimate(Kind::Rate, contrast, before, during, 0.95).expect("there is enough of everything")
}

fn without_control(points: &[Point]) -> Said {
    let alone = |point: &Point| Point { control: point.experiment.clone(), ..point.clone() };
    let points: Vec<Point> = points.iter().map(alone).collect();
    of_effect(&by_ewc(&points, Contrast::Control))
}

/// The same difference of differences, with the variance that independent seconds would have.
fn as_if_independent(points: &[Point], theta: f64) -> Said {
    let variance_of = |points: &[Point]| {
        let n = points.len() as f64;
        let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (e, c) = (mean(|point| point.experiment.count), mean(|point| point.control.count));
        let score = |point: &Point| point.experiment.count / e - point.control.count / c;
        points.iter().map(|point| score(point).powi(2)).sum::<f64>() / (n - 1.0) / n
    };
    let (before, during) = points.split_at(PHASE_S);
    let (se, df) = ((variance_of(before) + variance_of(during)).sqrt(), 2.0 * PHASE_S as f64 - 2.0);
    let [low, high] = gate::limits(Kind::Rate, MARGIN);
    let half = quantile::t(0.95, df) * se;
    let inside = theta - half > low && theta + half < high;
    let outside = theta - half > high || theta + half < low;
    [theta.abs() > quantile::t(0.975, df) * se, inside, outside]
}

/// What each rule says in this world, in percent of the runs: FAIL and "different" without an effect, PASS with an effect
/// at the margin, FAIL with one of +20 %. And whether the interval of this judge held the truth, without an effect.
pub(super) struct Row {
    pub fail_none: f64,
    pub different: f64,
    pub pass_at_margin: f64,
    pub fail_at_twenty: f64,
}

pub(super) fn rows(world: World) -> (Vec<Row>, f64) {
    let with = |effect: f64| {
        share_of_runs(|seed| {
            let points = play(world, effect, seed);
            let ours = by_ewc(&points, Contrast::Groups);
            let independent = as_if_independent(&points, ours.theta);
            let covered = (ours.theta_ci[0]..=ours.theta_ci[1]).contains(&effect);
            let said = [by_kayenta(&points), without_control(&points), independent, of_effect(&ours)];
            said.into_iter().flatten().chain([covered]).collect()
        })
    };
    let (none, margin, twenty) = (with(0.0), with(1.1_f64.ln()), with(1.2_f64.ln()));
    let row = |rule: usize| Row {
        fail_none: none[3 * rule + 2],
        different: none[3 * rule],
        pass_at_margin: margin[3 * rule + 1],
        fail_at_twenty: twenty[3 * rule + 2],
    };
    ((0..RULES.len()).map(row).collect(), none[3 * RULES.len()])
}
