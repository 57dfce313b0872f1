//! The `pulse` design: the fault goes on and off in pairs of blocks, in an order drawn for each pair. What wanders slowly
//! is the same in both blocks of a pair and cancels.
//!
//! One engine for every kind of metric: all pairs together give θ, and leaving one pair out at a time says how uncertain it
//! is ([`jackknife`]). Pairs are what was randomised, so nothing has to be known about the seconds within them.

use super::{
    estimate::{self, Cells, Contrast, Estimate, Missing, Pair, Spread, contrasted},
    ewc,
    jackknife::{self, TargetSpread},
    score::Cell,
};
use crate::{
    experiment::hypothesis::{Kind, Metric},
    steady::{
        rates::{Block, Tick, points},
        summary::Point,
    },
};

/// Fewer pairs are refused: their spread is a guess.
pub const MIN_PAIRS: usize = 6;

/// More than this share of a block's ticks lost, and its pair is dropped.
const MOST_LOST: f64 = 0.1;

/// Most pairs for which every order they might have had is looked at.
const MOST_ENUMERATED: usize = 16;

/// What one metric did in a pair of blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct PairPoints {
    /// While the fault was on.
    pub on: Point,
    /// While it was off.
    pub off: Point,
}

/// The blocks of one pair.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    on: &'a Block,
    off: &'a Block,
}

/// The pairs of which both blocks are whole, in order, and how many are not.
pub fn whole_pairs(blocks: &[Block]) -> (Vec<Blocks<'_>>, usize) {
    let pairs = blocks.iter().map(|block| block.pair + 1).max().unwrap_or(0);
    let find = |pair, on| blocks.iter().find(|block| block.pair == pair && block.on == on && is_whole(block));
    let whole: Vec<_> = (0..pairs)
        .filter_map(|pair| Some(Blocks { on: find(pair, true)?, off: find(pair, false)? }))
        .collect();
    let dropped = pairs - whole.len();
    (whole, dropped)
}

fn is_whole(block: &Block) -> bool {
    let lost = block.expected_ticks.saturating_sub(block.ticks.len());
    !block.ticks.is_empty() && lost as f64 <= MOST_LOST * block.expected_ticks as f64
}

/// The part of a block, as shares of what follows the settling.
type Part = std::ops::Range<f64>;

const ALL: Part = 0.0..1.0;
const EARLY: Part = 0.0..0.5;
const LATE: Part = 0.5..1.0;

/// The ticks in the middle of which the block has settled, and which lie in this part of the rest.
fn ticks_of(block: &Block, settle_s: f64, part: Part) -> impl Iterator<Item = &Tick> {
    let rest_s = block.ticks.last().map_or(0.0, |tick| tick.at_s - settle_s);
    let (from_s, to_s) = (settle_s + part.start * rest_s, settle_s + part.end * rest_s);
    block.ticks.iter().filter(move |tick| (from_s..to_s).contains(&(tick.at_s - tick.seconds / 2.0)))
}

/// A metric in these pairs, without what each block took to settle.
pub fn pair_points(metric: Metric, pairs: &[Blocks], settle_s: f64) -> Vec<PairPoints> {
    let of = |block| Point::sum(&points(metric, ticks_of(block, settle_s, ALL)));
    pairs.iter().map(|pair| PairPoints { on: of(pair.on), off: of(pair.off) }).collect()
}

/// How much targets differ in the same.
pub(super) fn target_spread(
    metric: Metric,
    contrast: Contrast,
    pairs: &[Blocks],
    settle_s: f64,
) -> Option<TargetSpread> {
    let on: Vec<&Tick> = pairs.iter().flat_map(|pair| ticks_of(pair.on, settle_s, ALL)).collect();
    let off: Vec<&Tick> = pairs.iter().flat_map(|pair| ticks_of(pair.off, settle_s, ALL)).collect();
    jackknife::of_targets(metric, contrast, &off, &on)
}

/// The early half of the OFF blocks as `on`, the late half as `off`: where they differ, the fault still shows after it is
/// off, and the effect of pulses is smaller than that of a fault which stays.
pub fn carry_over_points(metric: Metric, pairs: &[Blocks], settle_s: f64) -> Vec<PairPoints> {
    let of = |block, part| Point::sum(&points(metric, ticks_of(block, settle_s, part)));
    pairs.iter().map(|pair| PairPoints { on: of(pair.off, EARLY), off: of(pair.off, LATE) }).collect()
}

/// The effect of the fault being on, with K − 1 degrees of freedom.
pub fn estimate(
    kind: Kind,
    contrast: Contrast,
    pairs: &[PairPoints],
    confidence: f64,
) -> Result<Estimate, Missing> {
    if !kind.follows_pulses() {
        return Err(Missing::NeedsHold);
    }
    if pairs.len() < MIN_PAIRS {
        return Err(Missing::TooFewPairs);
    }
    let (on, off) = sums(pairs);
    let seconds = on.seconds;
    let without: Vec<f64> = without_each(kind, contrast, pairs, &on, &off)?;
    let (cells, cell_pairs) = of_sums(kind, contrast, on, off)?;
    let spread = Spread {
        // Pairs like clockwork: then the floor is all there is.
        se: jackknife::variance(&without).sqrt().max(f64::MIN_POSITIVE),
        df: pairs.len() as f64 - 1.0,
        lag1: ewc::lag1(&without),
        pairs: Some(pairs.len()),
        floor: estimate::variance_floor(&cell_pairs).sqrt(),
    };
    Ok(Estimate::of(kind, &cell_pairs, cells, spread, seconds, confidence))
}

fn sums(pairs: &[PairPoints]) -> (Point, Point) {
    (Point::sum(pairs.iter().map(|pair| &pair.on)), Point::sum(pairs.iter().map(|pair| &pair.off)))
}

fn of_sums(kind: Kind, contrast: Contrast, on: Point, off: Point) -> Result<(Cells, Vec<Pair>), Missing> {
    let cell = |summary| Cell::merged(kind, summary);
    let control = (cell(off.control), cell(on.control));
    let experiment = (cell(off.experiment), cell(on.experiment));
    contrasted(kind, contrast, control, experiment)
}

/// θ without each of the pairs.
fn without_each(
    kind: Kind,
    contrast: Contrast,
    pairs: &[PairPoints],
    on: &Point,
    off: &Point,
) -> Result<Vec<f64>, Missing> {
    let without = |pair: &PairPoints| {
        let (_, cells) = of_sums(kind, contrast, on.without(&pair.on), off.without(&pair.off))?;
        Ok(estimate::theta(&cells))
    };
    pairs.iter().map(without).collect()
}

/// A p-value that needs no model, only that the order in each pair was drawn: the share of all orders the pairs might have
/// had under which θ, as a sum over pairs, is as far from 0 as it is (Bojinov, Simchi-Levi, Zhao, Management Science 69,
/// 2023). Every order is looked at. `None` where θ cannot be had, or for more pairs than can be enumerated.
pub fn p_randomization(kind: Kind, contrast: Contrast, pairs: &[PairPoints]) -> Option<f64> {
    let k = pairs.len();
    if !(MIN_PAIRS..=MOST_ENUMERATED).contains(&k) {
        return None;
    }
    let (on, off) = sums(pairs);
    let without = without_each(kind, contrast, pairs, &on, &off).ok()?;
    let (_, cells) = of_sums(kind, contrast, on, off).ok()?;
    let theta = estimate::theta(&cells);
    let pseudo: Vec<f64> = without.iter().map(|one| k as f64 * theta - (k as f64 - 1.0) * one).collect();
    Some(share_as_far(&pseudo))
}

/// The share of all choices of signs under which the sum is as far from 0 as with all of them positive. By a Gray code, so
/// that one sign changes at a time; the sum with the opposite signs is as far, so that the last one stays.
fn share_as_far(values: &[f64]) -> f64 {
    let mut sum: f64 = values.iter().sum();
    let far = sum.abs() * (1.0 - 1e-9);
    let choices = 1_u64 << (values.len() - 1);
    let (mut signs, mut as_far) = (0_u64, 1_u64);
    for step in 1..choices {
        let changed = step.trailing_zeros();
        signs ^= 1 << changed;
        let back = if signs & (1 << changed) == 0 { 2.0 } else { -2.0 };
        sum += back * values[changed as usize];
        as_far += u64::from(sum.abs() >= far);
    }
    as_far as f64 / choices as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steady::summary::Summary;

    fn pair(on: [f64; 2], off: [f64; 2]) -> PairPoints {
        let point = |[control, experiment]: [f64; 2]| Point {
            control: Summary::count(control, 10.0, control as u64),
            experiment: Summary::count(experiment, 10.0, experiment as u64),
            seconds: 10.0,
        };
        PairPoints { on: point(on), off: point(off) }
    }

    #[test]
    fn what_both_groups_share_cancels() {
        let load = [1.0, 3.0, 0.5, 2.0, 1.5, 0.8, 4.0];
        let pairs: Vec<_> = load
            .iter()
            .map(|load| pair([1_000.0 * load, 1_800.0 * load], [3_000.0 * load, 6_000.0 * load]))
            .collect();
        let effect = estimate(Kind::Rate, Contrast::Groups, &pairs, 0.95).unwrap();
        assert!((effect.change + 0.1).abs() < 1e-9, "{}", effect.change);
        assert_eq!((effect.pairs, effect.seconds), (Some(7), 70.0));
        let control = estimate(Kind::Rate, Contrast::Control, &pairs, 0.95).unwrap();
        assert!((control.change + 2.0 / 3.0).abs() < 1e-9, "the control group moved with the pulses");
    }

    #[test]
    fn clockwork_and_nothing_at_all_have_an_interval_with_width() {
        let rate = estimate(Kind::Rate, Contrast::Groups, &vec![pair([900.0; 2], [900.0; 2]); 12], 0.95);
        let rate = rate.unwrap();
        assert_eq!((rate.p_beyond(0.0, true), rate.p_beyond(0.0, false)), (0.5, 0.5));
        assert!(rate.ci[0] < 0.0 && rate.ci[1] > 0.0, "{:?}", rate.ci);
        let errors = estimate(Kind::RareRatio, Contrast::Groups, &vec![pair([0.0; 2], [0.0; 2]); 12], 0.95);
        let errors = errors.unwrap();
        assert!(errors.ci[1] > 1.0 / 120.0, "no error in 120 calls bounds little: {:?}", errors.ci);
    }

    #[test]
    fn too_few_pairs_and_levels_are_refused() {
        let few = vec![pair([900.0; 2], [900.0; 2]); MIN_PAIRS - 1];
        assert_eq!(estimate(Kind::Rate, Contrast::Groups, &few, 0.95), Err(Missing::TooFewPairs));
        let enough = vec![pair([900.0; 2], [900.0; 2]); MIN_PAIRS];
        assert!(estimate(Kind::Rate, Contrast::Groups, &enough, 0.95).is_ok());
        assert_eq!(estimate(Kind::Gauge, Contrast::Groups, &enough, 0.95), Err(Missing::NeedsHold));
    }

    #[test]
    fn every_order_is_counted_once() {
        assert_eq!(share_as_far(&[1.0, 1.0, 1.0]), 1.0 / 4.0);
        assert_eq!(share_as_far(&[1.0, -1.0]), 1.0);
        let values = [0.3, 1.2, -0.4, 0.9, 2.0, -0.1, 0.7];
        let far: f64 = values.iter().sum();
        let sum = |signs: u32| -> f64 {
            let signed = values.iter().enumerate().map(|(i, v)| if signs >> i & 1 == 1 { -v } else { *v });
            signed.sum()
        };
        let all = (0..1 << values.len()).filter(|signs| sum(*signs).abs() >= far * (1.0 - 1e-9)).count();
        assert_eq!(share_as_far(&values), all as f64 / f64::from(1 << values.len()));
    }
}
