//! How much too small the standard errors of a hold are for a workload, from a long run in which nothing was done.
//!
//! Borders between phases that were none are slid over it: the spread of the effects found should be what their standard
//! errors say. Where seconds resemble each other for long it is more (Bertrand, Duflo, Mullainathan, Quarterly Journal of
//! Economics 119, 2004, found 45 % false positives of a nominal 5 % by such placebos).

use super::estimate::{Contrast, estimate};
use crate::{experiment::hypothesis::Kind, steady::summary::Point};

/// Fewer placebos say nothing of a spread.
const LEAST: usize = 20;

/// At most this many places of the border are tried.
const MOST_PLACES: usize = 200;

/// κ: what the standard errors of phases of this many ticks must be multiplied by. `None` if the run is too short.
pub fn kappa(kind: Kind, quiet: &[Point], before: usize, during: usize) -> Option<f64> {
    let places = (quiet.len() + 1).checked_sub(before + during)?;
    let step = places.div_ceil(MOST_PLACES).max(1);
    let effect_at = |start: usize| {
        let (before, rest) = quiet[start..].split_at(before);
        let effect = estimate(kind, Contrast::Groups, before, &rest[..during], 0.95).ok()?;
        Some((effect.theta, effect.se))
    };
    let placebos: Vec<(f64, f64)> = (0..places).step_by(step).filter_map(effect_at).collect();
    if placebos.len() < LEAST {
        return None;
    }
    let n = placebos.len() as f64;
    // Nothing was done: the mean is known to be 0.
    let spread = (placebos.iter().map(|(theta, _)| theta * theta).sum::<f64>() / n).sqrt();
    let expected = placebos.iter().map(|(_, se)| se).sum::<f64>() / n;
    Some((spread / expected).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiment::hypothesis::Metric, judge::simulation::World, steady::rates::points};

    fn quiet(rho: f64, seconds: usize) -> Vec<Point> {
        let world = World { phases: [seconds, 0, 0], rho, sd: 0.1, packets: 20_000.0, ..World::QUIET };
        points(Metric::RxBytes, &world.ticks(1))
    }

    #[test]
    fn what_wanders_slowly_needs_wider_intervals() {
        let of = |rho| kappa(Kind::Rate, &quiet(rho, 1_800), 60, 60).unwrap();
        let (brisk, slow) = (of(0.3), of(0.98));
        assert!((1.0..1.35).contains(&brisk), "{brisk}");
        assert!(slow > 1.7, "{slow}");
    }

    #[test]
    fn too_short_a_run_says_nothing() {
        assert_eq!(kappa(Kind::Rate, &quiet(0.5, 119), 60, 60), None);
        assert_eq!(kappa(Kind::Rate, &quiet(0.5, 130), 60, 60), None);
    }
}
