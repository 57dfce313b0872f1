//! Before anything is hurt: can these pulses show anything?

use serde::Serialize;

use super::{
    estimate::{Contrast, contrasted, theta},
    gate::{both_ways, limits},
    pulse::MIN_PAIRS,
    quantile,
    score::{Cell, side},
};
use crate::{
    experiment::hypothesis::{Kind, Margin},
    steady::summary::Point,
    target::Group,
};

/// Up to this share of the margin may the interval be wide, to either side: above, most runs would be inconclusive.
const MOST_HALF_WIDTH: f64 = 0.7;

/// Most pairs that are worth proposing.
const MOST_PAIRS: usize = 500;

/// How long a pulse is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Ticks in a block.
    pub block: usize,
    /// Ticks at its start that are left out.
    pub settle: usize,
    /// How many pairs of blocks.
    pub pairs: usize,
}

/// What pulses of a shape can be expected to show.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct Power {
    /// Standard deviation of the effect that a pair shows when nothing happens.
    pub pair_sd: f64,
    /// Half of the width that the interval is expected to have.
    pub half_width: f64,
    /// The same as a share of the margin.
    pub of_margin: f64,
    /// How many pairs would do; `None` if more than anybody would wait for.
    pub pairs_needed: Option<usize>,
}

impl Power {
    /// Whether it is worth hurting somebody for.
    pub fn is_enough(&self) -> bool {
        self.of_margin <= MOST_HALF_WIDTH
    }
}

/// What these pulses can be expected to show, from pulses that were none: the baseline cut into pairs of blocks at every
/// place that it has. `None` if it is shorter than a pair, or had nothing in it.
pub fn power(kind: Kind, margin: Margin, baseline: &[Point], shape: Shape, confidence: f64) -> Option<Power> {
    let Shape { block, settle, pairs } = shape;
    let pair_of = |ticks: &[Point]| {
        let half = |from: usize| Point::sum(&ticks[from + settle..from + block]);
        placebo(kind, half(0), half(block))
    };
    if block <= settle || !kind.follows_pulses() {
        return None;
    }
    let placebos: Vec<f64> = baseline.windows(2 * block).filter_map(pair_of).collect();
    let mean_square = placebos.iter().map(|theta| theta * theta).sum::<f64>() / placebos.len() as f64;
    if placebos.is_empty() {
        return None;
    }
    Some(of_spread(kind, margin, mean_square.sqrt(), pairs, confidence))
}

/// The same where it is known how much a pair varies.
pub fn of_spread(kind: Kind, margin: Margin, pair_sd: f64, pairs: usize, confidence: f64) -> Power {
    let [low, high] = both_ways(limits(kind, margin));
    let narrowest = high.min(-low);
    let half = |pairs: usize| quantile::t(confidence, pairs as f64 - 1.0) * pair_sd / (pairs as f64).sqrt();
    let half_width = half(pairs.max(2));
    let pairs_needed = (MIN_PAIRS..=MOST_PAIRS).find(|pairs| half(*pairs) <= MOST_HALF_WIDTH * narrowest);
    Power { pair_sd, half_width, of_margin: half_width / narrowest, pairs_needed }
}

fn placebo(kind: Kind, on: Point, off: Point) -> Option<f64> {
    let cell = |group, point: &Point| Cell::merged(kind, side(group, point).clone());
    let control = (cell(Group::Control, &off), cell(Group::Control, &on));
    let experiment = (cell(Group::Experiment, &off), cell(Group::Experiment, &on));
    let (_, cells) = contrasted(kind, Contrast::Groups, control, experiment).ok()?;
    Some(theta(&cells))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        experiment::hypothesis::Metric,
        judge::{judge, simulation::World},
        steady::rates::points,
    };

    const FALLS: Margin = Margin { increase: None, decrease: Some(0.1) };
    const SHAPE: Shape = Shape { block: 10, settle: 2, pairs: 12 };

    fn of(sd: f64, seed: u64) -> Power {
        let world = World { phases: [120, 0, 0], sd, rho: 0.9, packets: 20_000.0, ..World::QUIET };
        let baseline = points(Metric::RxBytes, &world.ticks(seed));
        power(Kind::Rate, FALLS, &baseline, SHAPE, 0.95).unwrap()
    }

    #[test]
    fn noise_asks_for_more_pairs() {
        let (quiet, noisy) = (of(0.03, 1), of(0.4, 1));
        assert!(quiet.is_enough() && quiet.pairs_needed == Some(MIN_PAIRS), "{quiet:?}");
        assert!(!noisy.is_enough() && noisy.pairs_needed.is_none_or(|pairs| pairs > 50), "{noisy:?}");
    }

    #[test]
    fn it_expects_about_the_width_that_comes_out() {
        let mean = |of: &dyn Fn(u64) -> f64| (0..10).map(of).sum::<f64>() / 10.0;
        let expected = mean(&|seed| of(0.08, seed).half_width);
        let world = World { sd: 0.08, rho: 0.9, packets: 20_000.0, ..World::QUIET };
        let seen = mean(&|seed| {
            let effect = judge(&world.pulses(12, 10, seed)).gates[0].estimate.clone().unwrap();
            (effect.theta_ci[1] - effect.theta_ci[0]) / 2.0
        });
        assert!((0.6..1.6).contains(&(expected / seen)), "{expected} expected, {seen} seen");
    }

    #[test]
    fn too_short_a_baseline_says_nothing() {
        let short = World { phases: [19, 0, 0], ..World::QUIET }.ticks(1);
        let baseline = points(Metric::RxBytes, &short);
        assert_eq!(power(Kind::Rate, FALLS, &baseline, SHAPE, 0.95), None);
        assert_eq!(power(Kind::Gauge, FALLS, &baseline, SHAPE, 0.95), None);
    }
}
