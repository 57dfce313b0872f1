//! Two thousand runs of pulses, in worlds whose truth is known.

use super::{noise::Noise, share_of_runs};
use crate::{
    experiment::hypothesis::{Kind, Margin},
    judge::{
        estimate::{Contrast, Estimate},
        gate,
        pulse::{PairPoints, estimate},
    },
    steady::{
        histogram::Histogram,
        summary::{Point, Summary},
    },
};

/// A block of ten seconds, of which two are left out.
const JUDGED_S: usize = 8;
const BLOCK_S: usize = 10;

/// What is measured in each world, and its margin.
pub(super) const METRICS: [(&str, Kind, Margin); 4] = [
    ("rate", Kind::Rate, Margin { increase: None, decrease: Some(0.1) }),
    ("error ratio", Kind::RareRatio, Margin { increase: Some(0.005), decrease: None }),
    ("p50", Kind::Quantile { per_mille: 500 }, Margin { increase: Some(0.15), decrease: None }),
    ("p99", Kind::Quantile { per_mille: 990 }, Margin { increase: Some(0.25), decrease: None }),
];

#[derive(Clone, Copy)]
pub(super) struct World {
    pub pairs: usize,
    /// Autocorrelation per second of what the groups do not share.
    pub rho: f64,
    /// The effect in margins, on the scale of the test.
    pub effect: f64,
    /// Failed calls per call.
    pub errors: f64,
}

impl World {
    pub const QUIET: Self = Self { pairs: 12, rho: 0.5, effect: 0.0, errors: 0.01 };
}

/// Calls per second.
const CALLS_PER_S: f64 = 600.0;
/// How much the shared load wanders.
const LOAD: (f64, f64) = (0.95, 0.15);
/// By how much a group's rate, its share of errors and its latency wander by themselves.
const SD: [f64; 3] = [0.05, 0.1, 0.08];
/// The experimental group is a little larger.
const OFFSET: f64 = 1.05;
/// Latency is log-normal.
const MEDIAN_NS: f64 = 1e6;
const SIGMA: f64 = 0.25;

/// The margin on the scale of the test, signed as the effect that hurts.
fn margin_theta(kind: Kind, margin: Margin) -> f64 {
    let [low, high] = gate::limits(kind, margin);
    if high.is_finite() { high } else { low }
}

/// What one run shows of each metric.
fn run(world: World, seed: u64, metrics: &[usize]) -> Vec<Estimate> {
    let mut noise = Noise::new(
        (world.rho * 100.0) as u64 + world.pairs as u64 * 1_000 + (world.effect * 10.0) as u64,
        seed,
    );
    let blocks = 2 * world.pairs;
    let load = noise.wander(blocks * BLOCK_S, LOAD.0, LOAD.1);
    let wander = |noise: &mut Noise, sd: f64| noise.wander(blocks * BLOCK_S, world.rho, sd);
    let own: Vec<[Vec<f64>; 3]> = (0..2).map(|_| SD.map(|sd| wander(&mut noise, sd))).collect();
    let on_first: Vec<bool> = (0..world.pairs).map(|_| noise.bits() & 1 == 0).collect();
    let mut block = |index: usize| {
        let on = index.is_multiple_of(2) == on_first[index / 2];
        let seconds = index * BLOCK_S + BLOCK_S - JUDGED_S..(index + 1) * BLOCK_S;
        [0, 1].map(|group| {
            let part = Part {
                load: &load[seconds.clone()],
                own: [0, 1, 2].map(|series| &own[group][series][seconds.clone()]),
                size: if group == 1 { OFFSET } else { 1.0 },
                dose: if on && group == 1 { world.effect } else { 0.0 },
                errors: world.errors,
            };
            part.summaries(&mut noise, metrics)
        })
    };
    let all: Vec<[Vec<Summary>; 2]> = (0..blocks).map(&mut block).collect();
    let estimate_of = |(at, metric): (usize, &usize)| {
        let point = |index: usize| Point {
            control: all[index][0][at].clone(),
            experiment: all[index][1][at].clone(),
            seconds: JUDGED_S as f64,
        };
        let pair = |pair: usize| {
            let (first, second) = (point(2 * pair), point(2 * pair + 1));
            if on_first[pair] {
                PairPoints { on: first, off: second }
            } else {
                PairPoints { on: second, off: first }
            }
        };
        let pairs: Vec<PairPoints> = (0..world.pairs).map(pair).collect();
        estimate(METRICS[*metric].1, Contrast::Groups, &pairs, 0.95).expect("there is enough of everything")
    };
    metrics.iter().enumerate().map(estimate_of).collect()
}

/// One group in one block.
struct Part<'a> {
    /// Of the load that both share, and of what the group has by itself, the seconds of the block.
    load: &'a [f64],
    own: [&'a [f64]; 3],
    /// How many times the others it is.
    size: f64,
    /// The effect in margins.
    dose: f64,
    /// Failed calls per call.
    errors: f64,
}

impl Part<'_> {
    /// What it did.
    fn summaries(&self, noise: &mut Noise, metrics: &[usize]) -> Vec<Summary> {
        let theta = |metric: usize| self.dose * margin_theta(METRICS[metric].1, METRICS[metric].2);
        let mean = |values: &[f64]| values.iter().map(|x| x.exp()).sum::<f64>() / values.len() as f64;
        let together: Vec<f64> = self.load.iter().zip(self.own[0]).map(|(a, b)| a + b).collect();
        let calls = CALLS_PER_S * self.size * mean(&together) * JUDGED_S as f64;
        let level = self.own[2].iter().sum::<f64>() / JUDGED_S as f64;
        let of = |metric: &usize| match metric {
            0 => {
                let count = noise.poisson(calls * theta(0).exp());
                Summary::count(count, JUDGED_S as f64, count as u64)
            }
            1 => {
                let trials = noise.poisson(calls);
                let hits = noise.poisson(trials * (self.errors * mean(self.own[1]) + theta(1)));
                Summary::count(hits, trials, hits as u64)
            }
            2 => Summary::latency(latencies(calls, level, theta(2), -1.0..1.0, noise)),
            _ => Summary::latency(latencies(calls, level, theta(3), 1.4..3.4, noise)),
        };
        metrics.iter().map(of).collect()
    }
}

/// Log-normal latencies, bucket by bucket around the quantile that is looked at, in one lump below and above.
fn latencies(calls: f64, level: f64, effect: f64, z: std::ops::Range<f64>, noise: &mut Noise) -> Histogram {
    use chaos_common::h2;
    let value = |z: f64| (MEDIAN_NS * (SIGMA * z + effect).exp()) as u64;
    let (first, last) = (h2::bucket(value(z.start)), h2::bucket(value(z.end)));
    let below =
        |bucket: u32| normal_cdf(((h2::upper(bucket) as f64 / MEDIAN_NS).ln() - level - effect) / SIGMA);
    let mut so_far = 0.0;
    let mut hits = vec![];
    for bucket in first - 1..=last {
        let share = if bucket == last { 1.0 } else { below(bucket) };
        hits.push((bucket, noise.poisson(calls * (share - so_far)) as u64));
        so_far = share;
    }
    hits.into_iter().collect()
}

/// Abramowitz and Stegun 26.2.17, within 7.5e-8.
fn normal_cdf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let upper = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if x >= 0.0 { 1.0 - upper } else { upper }
}

/// Shares of the runs, in percent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// The 90 % interval holds the truth.
    pub covered: f64,
    /// "No change at all" is rejected at 5 %.
    pub different: f64,
    pub pass: f64,
    pub fail: f64,
}

/// What two thousand runs say of each of these metrics.
pub(super) fn shares(world: World, metrics: &[usize]) -> Vec<Shares> {
    let of_run = |seed| {
        let judged = |(effect, metric): (Estimate, &usize)| {
            let (_, kind, margin) = METRICS[*metric];
            let truth = world.effect * margin_theta(kind, margin);
            [
                (effect.theta_ci[0]..=effect.theta_ci[1]).contains(&truth),
                effect.p_any() < 0.05,
                gate::is_inside(&effect, margin),
                gate::p_fail(&effect, margin) <= 0.05,
            ]
        };
        run(world, seed, metrics).into_iter().zip(metrics).flat_map(judged).collect()
    };
    let shares = share_of_runs(of_run);
    let of_metric =
        |four: &[f64]| Shares { covered: four[0], different: four[1], pass: four[2], fail: four[3] };
    shares.chunks(4).map(of_metric).collect()
}
