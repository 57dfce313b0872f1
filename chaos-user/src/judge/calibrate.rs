//! What a workload does by itself: from a run in which nothing was done, how wide intervals will be, by how much those of a
//! hold are too narrow, and how often this judge would have said something.
//!
//! Pulses that were none are laid over the run, at every border of blocks that it has, with orders that are drawn; each is
//! judged as a run would be. They overlap, so that there is less in them than their number says.

use chaos_common::random;
use serde::Serialize;

use super::{
    estimate::{Contrast, Estimate, Missing},
    gate::{self, GateVerdict},
    placebo,
    power::{Power, Shape, power},
    pulse::{self, MIN_PAIRS, PairPoints},
};
use crate::{
    experiment::hypothesis::{Gate, Metric},
    steady::{
        rates::{Tick, points},
        summary::Point,
    },
};

/// Orders of the blocks that are drawn for each place.
const ORDERS: u32 = 2;

/// At most this many places are tried.
const MOST_PLACES: usize = 500;

/// A nominal 5 %: more often than this an effect of nothing would be "different".
const DIFFERENT: f64 = 0.05;

/// What a quiet run says of a gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibrated {
    /// Of which.
    pub metric: Metric,
    /// What pulses can be expected to show.
    pub power: Option<Power>,
    /// By what the standard errors of a hold must be multiplied; `None` if the run is too short to tell.
    pub kappa: Option<f64>,
    /// What came of pulses that were none.
    pub placebos: Placebos,
}

/// What came of runs in which nothing was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Placebos {
    /// How many.
    pub runs: usize,
    /// Of these, those in which the gate passed.
    pub pass: usize,
    /// Those in which it failed: each is a false alarm.
    pub fail: usize,
    /// Those in which no change at all was rejected at 5 %.
    pub different: usize,
}

/// How a run will be laid out, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of pulses.
    pub shape: Shape,
    /// Baseline and inject phase of a hold.
    pub hold: [usize; 2],
}

/// What a quiet run says of each gate.
pub fn calibrate(
    gates: &[Gate],
    quiet: &[Tick],
    layout: Layout,
    confidence: f64,
    seed: u64,
) -> Vec<Calibrated> {
    let kept: Vec<Vec<Point>> = gates.iter().map(|gate| points(gate.metric, quiet)).collect();
    let ticks = kept.iter().map(Vec::len).min().unwrap_or(0);
    let mut placebos = vec![Placebos::default(); gates.len()];
    for pairs_of in pseudo_runs(ticks, layout.shape, seed) {
        let measure = |metric: Metric, contrast: Contrast| -> Result<Estimate, Missing> {
            let at = gates.iter().position(|gate| gate.metric == metric).ok_or(Missing::NoActivity)?;
            let pairs: Vec<PairPoints> =
                pairs_of.iter().map(|pair| of_pair(&kept[at], *pair, layout.shape)).collect();
            pulse::estimate(metric.kind(), contrast, &pairs, confidence)
        };
        let judged = gate::judge(gates, &measure, confidence);
        for (sum, result) in placebos.iter_mut().zip(&judged) {
            let Some(effect) = &result.estimate else { continue };
            sum.runs += 1;
            sum.pass += usize::from(result.verdict == GateVerdict::Pass);
            sum.fail += usize::from(result.verdict == GateVerdict::Fail);
            sum.different += usize::from(effect.p_any() < DIFFERENT);
        }
    }
    let of = |((gate, points), placebos): ((&Gate, &Vec<Point>), Placebos)| Calibrated {
        metric: gate.metric,
        power: power(gate.metric.kind(), gate.margin, points, layout.shape, confidence),
        kappa: placebo::kappa(gate.metric.kind(), points, layout.hold[0], layout.hold[1]),
        placebos,
    };
    gates.iter().zip(&kept).zip(placebos).map(of).collect()
}

/// Where the two blocks of a pair begin, the one that stands for ON first.
type At = [usize; 2];

/// Every run of pulses that the ticks have room for.
fn pseudo_runs(ticks: usize, shape: Shape, seed: u64) -> Vec<Vec<At>> {
    let length = 2 * shape.pairs * shape.block;
    let Some(room) = ticks.checked_sub(length).filter(|_| shape.block > shape.settle) else { return vec![] };
    if shape.pairs < MIN_PAIRS {
        return vec![];
    }
    let places = room / shape.block + 1;
    let step = places.div_ceil(MOST_PLACES).max(1);
    let at = |start: usize, pair: usize, first: bool| {
        let (one, other) = (start + 2 * pair * shape.block, start + (2 * pair + 1) * shape.block);
        if first { [one, other] } else { [other, one] }
    };
    let run = |(place, order): (usize, u32)| {
        let draw = |pair: usize| random::draw(seed, order, (place * shape.pairs + pair) as u64) & 1 == 0;
        (0..shape.pairs).map(|pair| at(place * shape.block, pair, draw(pair))).collect()
    };
    let places = (0..places).step_by(step);
    places.flat_map(|place| (0..ORDERS).map(move |order| (place, order))).map(run).collect()
}

fn of_pair(points: &[Point], [on, off]: At, shape: Shape) -> PairPoints {
    let block = |from: usize| Point::sum(&points[from + shape.settle..from + shape.block]);
    PairPoints { on: block(on), off: block(off) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::simulation::{World, falls, rises};

    const LAYOUT: Layout = Layout { shape: Shape { block: 10, settle: 2, pairs: 6 }, hold: [60, 60] };

    fn of(world: World) -> Vec<Calibrated> {
        let gates = [falls(Metric::RxBytes, 0.1), rises(Metric::SyscallErrorRatio, 0.005)];
        let quiet = World { phases: [600, 0, 0], ..world }.ticks(3);
        calibrate(&gates, &quiet, LAYOUT, 0.95, 1)
    }

    #[test]
    fn a_quiet_world_raises_no_alarm() {
        for one in of(World::QUIET) {
            let placebos = one.placebos;
            assert_eq!((placebos.runs, placebos.fail), (98, 0), "{one:?}");
            assert!(placebos.pass >= 88 && placebos.different <= 15, "{one:?}");
            assert!(one.kappa.unwrap() < 1.5 && one.power.unwrap().is_enough());
        }
    }

    #[test]
    fn a_noisy_one_needs_more_pairs_and_wider_intervals() {
        let noisy = &of(World { sd: 0.4, rho: 0.95, ..World::QUIET })[0];
        let power = noisy.power.as_ref().unwrap();
        assert!(!power.is_enough() && power.pairs_needed.is_none_or(|pairs| pairs > 12), "{noisy:?}");
        assert!(noisy.kappa.unwrap() > 1.3, "{noisy:?}");
        assert!(noisy.placebos.pass < noisy.placebos.runs / 2, "{noisy:?}");
    }

    #[test]
    fn too_short_a_run_says_so() {
        let quiet = World { phases: [60, 0, 0], ..World::QUIET }.ticks(3);
        let short = calibrate(&[falls(Metric::RxBytes, 0.1)], &quiet, LAYOUT, 0.95, 1);
        assert_eq!((short[0].placebos, short[0].kappa), (Placebos::default(), None));
    }
}
