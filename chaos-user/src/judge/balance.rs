//! Before anything is hurt: do both groups do about as much? Where one does much less, the load is not shared as it should
//! be, and a difference of differences compares a crowd with a few. (The sample-ratio mismatch of Fabijan et al., KDD 2019.)

use serde::Serialize;

use super::{ewc, quantile};
use crate::steady::summary::Point;

/// One group may do up to this many times what the other does.
const MOST_APART: f64 = 2.0;

/// How much the experimental group does for what the control group does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Balance {
    /// The one over the other.
    pub ratio: f64,
    /// Its confidence interval.
    pub ci: [f64; 2],
    /// Half of the interval's width, of the logarithm.
    pub half_width: f64,
}

impl Balance {
    /// Whether they do about as much, and it is known well enough for a margin (as a logarithm) to mean something.
    pub fn is_even(&self, margin: f64) -> bool {
        (1.0 / MOST_APART..=MOST_APART).contains(&self.ratio) && self.half_width < margin / 2.0
    }
}

/// Of a baseline. `None` if it is too short, or a group did nothing.
pub fn balance(baseline: &[Point], confidence: f64) -> Option<Balance> {
    let total = Point::sum(baseline);
    let (control, experiment) = (total.control.count, total.experiment.count);
    if control <= 0.0 || experiment <= 0.0 {
        return None;
    }
    let n = baseline.len() as f64;
    let score = |point: &Point| n * (point.experiment.count / experiment - point.control.count / control);
    let run = ewc::long_run(&baseline.iter().map(score).collect::<Vec<_>>())?;
    let half_width = quantile::t(confidence, run.nu) * (run.omega / n).sqrt();
    let ratio = experiment / control;
    let ci = [ratio * (-half_width).exp(), ratio * half_width.exp()];
    Some(Balance { ratio, ci, half_width })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiment::hypothesis::Metric, judge::simulation::World, steady::rates::points};

    fn of(world: World) -> Option<Balance> {
        balance(&points(Metric::RxPackets, &World { phases: [60, 0, 0], ..world }.ticks(1)), 0.95)
    }

    #[test]
    fn groups_that_share_a_load_are_even_however_it_wanders() {
        let even = of(World::QUIET).unwrap();
        assert!(even.is_even(0.1) && (even.ci[0]..even.ci[1]).contains(&even.ratio), "{even:?}");
        assert!(!of(World { offset: 0.4, ..World::QUIET }).unwrap().is_even(0.1));
        assert!(!of(World { sd: 0.5, ..World::QUIET }).unwrap().is_even(0.1), "too noisy to tell");
        assert_eq!(of(World { packets: 0.0, ..World::QUIET }), None);
    }
}
