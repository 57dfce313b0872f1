//! What each target of the experimental group did by itself, where there are several, and what they say of others.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Groups, Report, number, text::change_of};
use crate::{
    experiment::hypothesis::{Kind, Metric},
    judge::{Caveat, Estimate, GateResult, TargetSpread, names},
    target::Group,
};

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

/// `from how targets differ (4 and 5 targets): net.rx_bytes`, of the gates of which that is so.
pub fn intervals(report: &Report) -> Option<String> {
    let of = |gate: &GateResult| Some((gate.metric.name(), whence(gate.estimate.as_ref()?)?));
    let gates: Vec<_> = report.gates.iter().filter_map(of).collect();
    let held = report.hold.iter().filter_map(of).filter(|held| !gates.contains(held));
    let (names, whence): (Vec<_>, Vec<_>) = gates.iter().cloned().chain(held).unzip();
    Some(format!("{}: {}", whence.first()?, names.join(", ")))
}

/// `from how targets differ (4 and 5 targets)`, if the interval is from that.
pub fn whence(effect: &Estimate) -> Option<String> {
    let TargetSpread { control, experiment, .. } = effect.targets.filter(|targets| targets.taken)?;
    let of_one = |targets: usize, group| format!("{targets} targets of the {} group", names::group(group));
    let who = match (control, experiment) {
        (Some(control), Some(experiment)) => format!("{control} and {experiment} targets"),
        (Some(control), None) => of_one(control, Group::Control),
        (None, experiment) => of_one(experiment?, Group::Experiment),
    };
    Some(format!("from how targets differ ({who})"))
}

/// Whom the claim is about. About others than these only where every gate knows how targets of both groups differ.
pub(super) fn about<'a>(groups: &Groups, gates: impl Iterator<Item = &'a GateResult>) -> Caveat {
    let [control, experiment] = [&groups.control, &groups.experiment].map(Vec::len);
    let estimates =
        gates.filter_map(|gate| gate.estimate.as_ref()).filter(|effect| effect.kind != Kind::Event);
    let of_both = |targets: TargetSpread| targets.control.is_some() && targets.experiment.is_some();
    let known: Vec<bool> = estimates.map(|effect| effect.targets.is_some_and(of_both)).collect();
    match known.contains(&true) && !known.contains(&false) {
        _ if control == 1 || experiment == 1 => Caveat::OnePerGroup,
        true => Caveat::LikeThese { control, experiment },
        false => Caveat::OnlyThese,
    }
}
