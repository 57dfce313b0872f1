//! What each target of the experimental group did by itself, where there are several.

use schemars::JsonSchema;
use serde::Serialize;

use super::{number, text::change_of};
use crate::{experiment::hypothesis::Metric, judge::Estimate};

/// One target, against the whole control group. Never decides: the gates are about all targets together.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct TargetResult {
    /// As asked.
    pub target: String,
    /// What could be estimated of it.
    pub gates: Vec<TargetGate>,
}

/// What became of a gate's metric at one target.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct TargetGate {
    /// What was measured.
    pub metric: Metric,
    /// The change and its interval.
    pub estimate: Estimate,
}

/// How many are named of a gate.
const NAMED: usize = 4;

/// For people, a line for each gate, what moved furthest first: `net.rx_bytes -8.4 % docker:b, -1.2 % docker:a`.
pub fn lines(targets: &[TargetResult]) -> Vec<String> {
    let mut metrics: Vec<Metric> = Vec::new();
    for gate in targets.iter().flat_map(|target| &target.gates) {
        if !metrics.contains(&gate.metric) {
            metrics.push(gate.metric);
        }
    }
    metrics.into_iter().map(|metric| line(metric, targets)).collect()
}

fn line(metric: Metric, targets: &[TargetResult]) -> String {
    let of_target = |target: &'_ TargetResult| {
        let gate = target.gates.iter().find(|gate| gate.metric == metric)?;
        Some((gate.estimate.clone(), target.target.clone()))
    };
    let mut moved: Vec<(Estimate, String)> = targets.iter().filter_map(of_target).collect();
    moved.sort_by(|(one, _), (other, _)| other.theta.abs().total_cmp(&one.theta.abs()));
    let more = moved.len().saturating_sub(NAMED);
    let named = moved.iter().take(NAMED).enumerate().map(|(number, (estimate, target))| match number {
        0 => format!("{} {target}", change_of((metric, estimate))),
        _ => format!("{} {target}", number::change(estimate.kind, estimate.change)),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named}, and {more} more that moved less") }
}
