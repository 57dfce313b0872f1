//! What an experiment came to, for people ([`text`]) and for programs ([`json`]).

pub mod activity;
pub mod claim;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod number;
pub mod schema;
pub mod targets;
pub mod text;
pub mod watched;
mod wrap;

#[cfg(test)]
pub(crate) mod examples;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Serialize;

pub use targets::{TargetGate, TargetResult};
pub use watched::Watched;

use crate::{
    judge::{
        AbortReason, Caveat, ControlResult, Delivery, GateResult, InvalidReason, Judgement, Observation,
        Pulses, Recovery, Verdict,
    },
    kernel::CallReport,
    steady::sample::Phase,
};

/// The version of the report's shape: it changes when a field is renamed, removed or changes its meaning.
pub const SCHEMA: &str = "kchaos-report/1";

/// What the run knows and the judge does not need.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Version of this program.
    pub tool_version: String,
    /// Release of the kernel, as uname gives it.
    pub kernel: String,
    /// What the experiment is called.
    pub name: String,
    /// What should stay true, in words.
    pub hypothesis: String,
    /// Who was compared.
    pub groups: Groups,
    /// What was done when.
    pub phases: Vec<PhaseRecord>,
    /// What the order of blocks was drawn from, of pulses.
    pub seed: Option<u64>,
    /// How each rule was done, in the order of the judge's rules.
    pub mechanisms: Vec<String>,
    /// What came of faults of system calls; `None` where there are none.
    pub calls: Option<CallReport>,
    /// What each target of the experimental group did by itself, where there are several.
    pub targets: Vec<TargetResult>,
    /// What watched over the run.
    pub watched: Watched,
    /// What was undone at the end.
    pub rollback: Vec<RollbackStep>,
}

/// Both groups.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, serde::Deserialize)]
pub struct Groups {
    /// Nothing was done to these.
    pub control: Vec<Member>,
    /// The faults were for these.
    pub experiment: Vec<Member>,
}

/// A target, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, serde::Deserialize)]
pub struct Member {
    /// As asked: `docker:redis-b`.
    pub target: String,
    /// Its cgroup's path, from the root of the hierarchy.
    pub cgroup: String,
    /// Its cgroup's id. A string, because JSON readers lose digits of large numbers.
    pub cgroup_id: String,
}

/// A phase or a block, as it went.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct PhaseRecord {
    /// Which; of a block of a pair, the one that it is like.
    pub phase: Phase,
    /// Which pair of blocks, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<usize>,
    /// When it began, in seconds since the run did.
    pub start_s: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Ticks measured.
    pub ticks: usize,
    /// Ticks lost.
    pub lost: usize,
}

/// One thing that was undone.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, serde::Deserialize)]
pub struct RollbackStep {
    /// In words: `detach tc egress from eth0`.
    pub what: String,
    /// Whether it worked.
    pub ok: bool,
}

/// A fault in force.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct FaultRecord {
    /// How the kernel did it; empty if not known.
    pub mechanism: String,
    /// What became of it.
    #[serde(flatten)]
    pub delivery: Delivery,
}

/// Everything about one experiment. Field order is the order in JSON.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    /// Version of this program.
    pub tool_version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// What the experiment is called.
    pub name: String,
    /// What should stay true, in words.
    pub hypothesis: String,
    /// In one word.
    pub verdict: Verdict,
    /// In one sentence.
    pub claim: String,
    /// Of the verdict, as a fraction.
    pub confidence: f64,
    /// Of the intervals, two-sided, as a fraction.
    pub ci_level: f64,
    /// Why the run ended early.
    pub aborted: Option<AbortReason>,
    /// Why there is nothing to judge.
    pub invalid: Vec<InvalidReason>,
    /// Who was compared.
    pub groups: Groups,
    /// What was done when.
    pub phases: Vec<PhaseRecord>,
    /// What the order of blocks was drawn from, of pulses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What went wrong, and how often.
    pub faults: Vec<FaultRecord>,
    /// Beside it, what came of faults of system calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<CallReport>,
    /// What should have stayed true, and did or did not.
    pub gates: Vec<GateResult>,
    /// The same by the hold, where there were pulses as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hold: Vec<GateResult>,
    /// The pulses, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulses: Option<Pulses>,
    /// What each target of the experimental group did by itself, where there are several. Never decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetResult>,
    /// The control group by itself.
    pub control: Vec<ControlResult>,
    /// What else was measured.
    pub observations: Vec<Observation>,
    /// After injecting.
    pub recovery: Recovery,
    /// What watched over the run.
    #[serde(flatten)]
    pub watched: Watched,
    /// Doubts.
    pub caveats: Vec<Caveat>,
    /// What was undone.
    pub rollback: Vec<RollbackStep>,
}

impl Report {
    /// Puts together what the run knows and what the judge said.
    pub fn new(facts: Facts, judgement: Judgement) -> Self {
        let claim = claim::sentence(&judgement);
        let about = targets::about(&facts.groups, judgement.gates.iter().chain(&judgement.hold));
        let mut caveats = judgement.caveats;
        caveats.push(about);
        let mechanisms = facts.mechanisms.into_iter().chain(std::iter::repeat(String::new()));
        let faults = judgement
            .delivery
            .into_iter()
            .zip(mechanisms)
            .map(|(delivery, mechanism)| FaultRecord { mechanism, delivery })
            .collect();
        Self {
            schema: SCHEMA,
            tool_version: facts.tool_version,
            kernel: facts.kernel,
            name: facts.name,
            hypothesis: facts.hypothesis,
            verdict: judgement.verdict,
            claim,
            confidence: judgement.confidence,
            ci_level: judgement.ci_level,
            aborted: judgement.aborted,
            invalid: judgement.invalid,
            groups: facts.groups,
            phases: facts.phases,
            seed: facts.seed,
            faults,
            calls: facts.calls,
            gates: judgement.gates,
            hold: judgement.hold,
            pulses: judgement.pulses,
            targets: facts.targets,
            control: judgement.control,
            observations: judgement.observations,
            recovery: judgement.recovery,
            watched: facts.watched,
            caveats,
            rollback: facts.rollback,
        }
    }
}
