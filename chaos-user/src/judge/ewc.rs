//! How uncertain the mean of an autocorrelated series is: equal-weighted cosine long-run variance.
//!
//! Lazarus, Lewis, Stock, Watson: "HAR Inference: Recommendations for Practice", JBES 36 (2018). Seconds that
//! follow each other resemble each other; treating them as independent finds effects that are not there.

use std::f64::consts::PI;

/// The fewest values that a variance is estimated from: one more than the fewest cosines.
pub const MIN_TICKS: usize = 5;

/// A long-run variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongRun {
    /// Ω: variance of the mean, times the number of values.
    pub omega: f64,
    /// Degrees of freedom of the estimate: the number of cosines, ν.
    pub nu: f64,
}

/// How many cosines: ν = 0.4·T^(2/3), the choice of Lazarus et al., and at least 4.
pub fn cosines(values: usize) -> usize {
    let nu = (0.4 * (values as f64).powf(2.0 / 3.0)).round() as usize;
    nu.max(MIN_TICKS - 1)
}

/// Ω = (1/ν) Σ_{j≤ν} Λ_j², Λ_j = √(2/T) Σ_t (u_t − ū) cos(πj(t − ½)/T). `None` below [`MIN_TICKS`] values.
pub fn long_run(values: &[f64]) -> Option<LongRun> {
    if values.len() < MIN_TICKS {
        return None;
    }
    let nu = cosines(values.len());
    let mean = mean(values);
    let omega = (1..=nu).map(|j| projection(values, mean, j).powi(2)).sum::<f64>() / nu as f64;
    Some(LongRun { omega, nu: nu as f64 })
}

/// Λ_j.
fn projection(values: &[f64], mean: f64, j: usize) -> f64 {
    let n = values.len() as f64;
    let angle = PI * j as f64 / n;
    let sum: f64 =
        values.iter().enumerate().map(|(t, u)| (u - mean) * (angle * (t as f64 + 0.5)).cos()).sum();
    (2.0 / n).sqrt() * sum
}

/// Correlation of each value with the one before it; 0 for a constant series.
pub fn lag1(values: &[f64]) -> f64 {
    let mean = mean(values);
    let spread: f64 = values.iter().map(|u| (u - mean).powi(2)).sum();
    let together: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}

/// The same with each half's own mean taken as known: near 1 for a series that only grows, where [`lag1`] of a short one is
/// pulled down by the end that has no neighbour.
pub fn lag1_detached(values: &[f64]) -> f64 {
    let (Some(earlier), Some(later)) = (values.get(..values.len().saturating_sub(1)), values.get(1..)) else {
        return 0.0;
    };
    let (mean_earlier, mean_later) = (mean(earlier), mean(later));
    let centred = |(a, b): (&f64, &f64)| (a - mean_earlier, b - mean_later);
    let pairs: Vec<(f64, f64)> = earlier.iter().zip(later).map(centred).collect();
    let spread = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(|pair| of(pair).powi(2)).sum::<f64>();
    let (one, other) = (spread(|pair| pair.0), spread(|pair| pair.1));
    let together: f64 = pairs.iter().map(|(a, b)| a * b).sum();
    if one > 0.0 && other > 0.0 { together / (one * other).sqrt() } else { 0.0 }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
