//! What else moved: everything that was measured and is no gate. Never decides.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    JudgeInput, bh,
    estimate::{Contrast, Estimate},
    gate::Measure,
};
use crate::experiment::hypothesis::{Family, Metric};

/// A metric that is not a gate.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Observation {
    /// What was measured.
    pub metric: Metric,
    /// What it belongs to.
    pub family: Family,
    /// Its effect.
    pub estimate: Estimate,
    /// p-value of "no change at all".
    pub p: f64,
    /// The same, adjusted for all that were looked at (Benjamini–Hochberg).
    pub q: f64,
}

impl Observation {
    /// Whether it is said to have moved: of all those, at most [`bh::MOST_FALSE`] have not.
    pub fn moved(&self) -> bool {
        self.q <= bh::MOST_FALSE
    }

    /// How many standard errors it moved by, without the digits that differ from one C library to the next.
    fn strength(&self) -> f64 {
        (self.estimate.theta.abs() / self.estimate.error() * 1e6).round()
    }
}

/// What moved that nobody asked about, what moved most clearly first.
pub(super) fn observations(input: &JudgeInput, measure: Measure) -> Vec<Observation> {
    let is_gate = |metric: Metric| input.gates.iter().any(|gate| gate.metric == metric);
    let observe = |metric: Metric| {
        let estimate = measure(metric, Contrast::Groups).ok()?;
        let p = estimate.p_any();
        Some(Observation { metric, family: metric.family(), estimate, p, q: p })
    };
    let others = input.metrics.iter().copied().filter(|metric| !is_gate(*metric));
    let mut seen: Vec<_> = others.filter_map(observe).collect();
    let p: Vec<f64> = seen.iter().map(|one| one.p).collect();
    seen.iter_mut().zip(bh::adjust(&p)).for_each(|(one, q)| one.q = q);
    seen.sort_by(|one, other| other.strength().total_cmp(&one.strength()));
    seen
}
