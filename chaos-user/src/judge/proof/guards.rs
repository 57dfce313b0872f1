//! Two thousand runs of two minutes under guard, after two minutes of baseline.

use super::{RUNS, noise::Noise, share_of_runs};
use crate::judge::{
    guard::{ALPHA, HarmTest},
    quantile,
};

const TICKS: usize = 120;
const SD: f64 = 0.05;
/// The harm that is allowed: a fifth more.
const M_ABORT: f64 = 0.182_321_556_793_954_6;

pub(super) const RHOS: [f64; 3] = [0.0, 0.5, 0.8];

fn play(rho: f64, factor: f64, run: u64) -> (Vec<f64>, Vec<f64>) {
    let mut noise = Noise::new((rho * 10.0) as u64 + (factor * 1_000.0) as u64, run);
    let mut scores = noise.wander(2 * TICKS, rho, SD);
    let mut during = scores.split_off(TICKS);
    during.iter_mut().for_each(|score| *score += factor.ln());
    (scores, during)
}

/// After how many ticks the guard fires.
fn fires_after(rho: f64, factor: f64, run: u64) -> Option<usize> {
    let (baseline, during) = play(rho, factor, run);
    let mut test = HarmTest::new(&baseline, M_ABORT, ALPHA)?;
    during.iter().position(|score| test.feed(*score)).map(|tick| tick + 1)
}

/// An ordinary one-sided test at 1 %, looked at after every tick.
fn ordinary_fires(rho: f64, factor: f64, run: u64) -> bool {
    let (baseline, during) = play(rho, factor, run);
    let n = baseline.len() as f64;
    let mean = baseline.iter().sum::<f64>() / n;
    let sd = (baseline.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let (critical, mut sum) = (quantile::z(1.0 - ALPHA), 0.0);
    during.iter().enumerate().any(|(t, score)| {
        sum += score - mean - M_ABORT;
        sum / ((t + 1) as f64).sqrt() > critical * sd
    })
}

/// What a guard does at this autocorrelation.
pub(super) struct Row {
    /// Ended, in percent, with harm just at the limit: by an ordinary test, and by the guard.
    pub ordinary: f64,
    pub at_limit: f64,
    /// The same with half of the harm.
    pub below: f64,
    /// The median of the seconds until ×1.5 and ×2 are noticed.
    pub half_more: Option<usize>,
    pub twice: Option<usize>,
}

pub(super) fn row(rho: f64) -> Row {
    let shares = share_of_runs(|run| {
        vec![
            ordinary_fires(rho, 1.2, run),
            fires_after(rho, 1.2, run).is_some(),
            fires_after(rho, 1.1, run).is_some(),
        ]
    });
    let delay = |factor: f64| {
        let mut delays: Vec<_> =
            (0..RUNS).map(|run| fires_after(rho, factor, run).unwrap_or(usize::MAX)).collect();
        delays.sort_unstable();
        Some(delays[delays.len() / 2]).filter(|median| *median <= TICKS)
    };
    Row {
        ordinary: shares[0],
        at_limit: shares[1],
        below: shares[2],
        half_more: delay(1.5),
        twice: delay(2.0),
    }
}
