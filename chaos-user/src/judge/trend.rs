//! How fast a level grows in the experimental group beyond the control group's: a leak. Levels add up over time, so that
//! their mean over a phase says little of what the fault does to them.

use super::{
    estimate::{Cells, Estimate, Missing, Spread},
    ewc,
};
use crate::{
    experiment::hypothesis::Kind,
    steady::summary::{Point, Summary},
};

const SECONDS_PER_MINUTE: f64 = 60.0;

/// The slope of the difference between the groups while the fault was on, per minute: the median of the slopes between all
/// pairs of ticks (Theil 1950; Sen, JASA 63, 1968), which no single reading can bend. Its uncertainty comes from the
/// residuals, as that of a least-squares slope does, and knows that they resemble each other.
pub fn estimate(before: &[Point], during: &[Point], confidence: f64) -> Result<Estimate, Missing> {
    let (minutes, apart) = (minutes(during), apart(during));
    let theta = slope(&minutes, &apart).ok_or(Missing::TooFewTicks)?;
    let scores = scores(&minutes, &apart, theta);
    let run = ewc::long_run(&scores).ok_or(Missing::TooFewTicks)?;
    // Readings are whole: a slope of less than one in all of the time cannot be told from none.
    let least = 1.0 / minutes.last().copied().unwrap_or(1.0);
    let se = (run.omega / scores.len() as f64).sqrt().max(least);
    let of_phase = |points: &[Point], side: fn(&Point) -> &Summary| {
        slope(&self::minutes(points), &levels(points, side)).unwrap_or(f64::NAN)
    };
    let cells = Cells {
        control_before: of_phase(before, |point| &point.control),
        control_during: of_phase(during, |point| &point.control),
        experiment_before: of_phase(before, |point| &point.experiment),
        experiment_during: of_phase(during, |point| &point.experiment),
    };
    let seconds = during.iter().map(|point| point.seconds).sum();
    let spread = Spread { se, df: run.nu, lag1: ewc::lag1(&scores), pairs: None, floor: 0.0 };
    Ok(Estimate::plain(Kind::Trend, cells, theta, spread, seconds, confidence))
}

/// The slope alone.
pub(super) fn theta(during: &[Point]) -> Option<f64> {
    slope(&minutes(during), &apart(during))
}

/// How far the groups are apart at each point.
fn apart(points: &[Point]) -> Vec<f64> {
    let control = levels(points, |point| &point.control);
    let experiment = levels(points, |point| &point.experiment);
    experiment.iter().zip(&control).map(|(e, c)| e - c).collect()
}

/// When each point ends.
fn minutes(points: &[Point]) -> Vec<f64> {
    let mut elapsed_s = 0.0;
    let mut end = |point: &Point| {
        elapsed_s += point.seconds;
        elapsed_s / SECONDS_PER_MINUTE
    };
    points.iter().map(&mut end).collect()
}

fn levels(points: &[Point], side: fn(&Point) -> &Summary) -> Vec<f64> {
    points.iter().map(|point| side(point).count / side(point).of).collect()
}

pub(super) fn slope(at: &[f64], values: &[f64]) -> Option<f64> {
    let between = |i: usize| {
        (0..i).filter(move |j| at[i] > at[*j]).map(move |j| (values[i] - values[j]) / (at[i] - at[j]))
    };
    let mut slopes: Vec<f64> = (0..at.len()).flat_map(between).collect();
    slopes.sort_by(f64::total_cmp);
    let upper = *slopes.get(slopes.len() / 2)?;
    let lower = slopes[(slopes.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// Influence of each tick on the slope: `T·(x_t − x̄)·r_t / Σ(x − x̄)²`.
fn scores(at: &[f64], values: &[f64], slope: f64) -> Vec<f64> {
    let n = at.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    let (middle, level) = (mean(at), mean(values));
    let spread: f64 = at.iter().map(|x| (x - middle).powi(2)).sum();
    let score = |(x, y): (&f64, &f64)| n * (x - middle) * (y - level - slope * (x - middle)) / spread;
    at.iter().zip(values).map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(leak: f64, noise: &[f64]) -> Vec<Point> {
        let level =
            |t: usize, leak: f64| Summary::level(1e8 + leak * t as f64 / 60.0 + noise[t % noise.len()]);
        let point = |t| Point { control: level(t, 1e6), experiment: level(t + 3, 1e6 + leak), seconds: 1.0 };
        (0..120).map(point).collect()
    }

    const NOISE: [f64; 7] = [0.0, 3e4, -2e4, 5e4, 1e4, -4e4, 2e4];

    #[test]
    fn a_leak_is_how_much_faster_it_grows() {
        let effect = estimate(&phase(0.0, &NOISE), &phase(5e6, &NOISE), 0.95).unwrap();
        assert!((effect.change / 5e6 - 1.0).abs() < 0.02, "{effect:?}");
        assert!(effect.ci[0] > 4.5e6 && effect.ci[1] < 5.5e6, "{effect:?}");
        assert!((effect.cells.control_during / 1e6 - 1.0).abs() < 0.1, "{effect:?}");
        let none = estimate(&phase(0.0, &NOISE), &phase(0.0, &NOISE), 0.95).unwrap();
        assert!(none.ci[0] < 0.0 && none.ci[1] > 0.0 && none.ci[1] < 5e5, "{none:?}");
    }

    #[test]
    fn one_wild_reading_bends_nothing() {
        let mut during = phase(5e6, &NOISE);
        during[100].experiment.count = 9e9;
        let effect = estimate(&phase(0.0, &NOISE), &during, 0.95).unwrap();
        assert!((effect.change / 5e6 - 1.0).abs() < 0.02, "{effect:?}");
    }

    #[test]
    fn what_never_moves_has_an_interval_all_the_same() {
        let effect = estimate(&phase(0.0, &[0.0]), &phase(0.0, &[0.0]), 0.95).unwrap();
        assert!(effect.theta.abs() < 1e-6 && effect.se > 0.0, "{effect:?}");
        assert_eq!(estimate(&[], &phase(0.0, &[0.0])[..1], 0.95), Err(Missing::TooFewTicks));
    }
}
