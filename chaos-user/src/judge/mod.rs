//! The judge: from ticks of both groups to a verdict. Pure; no I/O, no clock, no randomness.
//!
//! The question is whether anything moved *further than a margin declared before the run*, compared with a control
//! group in the same second. [`score`] linearises what each second contributes, [`ewc`] turns that into an
//! uncertainty that knows that seconds resemble each other, [`jackknife`] into one that knows that targets differ,
//! [`estimate`](mod@estimate) makes an interval of it, [`gate`] holds it against the margin, and [`verdict`] combines gates, delivery, control and recovery.

pub mod balance;
pub mod bh;
pub mod calibrate;
pub mod delivery;
mod doubt;
pub mod estimate;
pub mod ewc;
pub mod explain;
pub mod gate;
pub mod guard;
mod hold;
pub mod holm;
pub mod jackknife;
pub mod names;
pub mod placebo;
pub mod power;
pub mod pulse;
pub mod quantile;
pub mod recovery;
pub mod score;
pub mod trend;
mod validity;
pub mod verdict;
mod words;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod pulse_fixtures;
#[cfg(test)]
mod pulsed;
#[cfg(test)]
pub(crate) mod several;
#[cfg(test)]
pub(crate) mod simulation;
#[cfg(test)]
mod tests;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

pub use delivery::{Delivery, RuleDelivery};
pub use estimate::{Contrast, Estimate, Missing};
pub use explain::Observation;
pub use gate::{ControlResult, GateResult, GateVerdict, Steady};
pub use jackknife::TargetSpread;
pub use recovery::{RecoveryTime, ResilienceIndex};
pub use verdict::{AbortReason, Caveat, InvalidReason, Recovered, Verdict};

use crate::{
    experiment::{
        hypothesis::{Gate, Metric},
        watch::InvariantRecord,
    },
    steady::{
        rates::{Block, Tick},
        sample::Phase,
    },
};
use doubt::Doubtful;
use pulse::Blocks;
use verdict::Evidence;

/// How a run is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Design {
    /// The fault stays on for one phase.
    #[default]
    Hold,
    /// It goes on and off, in pairs of blocks.
    Pulse,
    /// Pulses, then a hold.
    Both,
}

impl Design {
    /// Whether there are pulses.
    pub const fn has_pulses(self) -> bool {
        matches!(self, Self::Pulse | Self::Both)
    }

    /// Whether there is a hold.
    pub const fn has_hold(self) -> bool {
        matches!(self, Self::Hold | Self::Both)
    }
}

/// Everything a verdict is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeInput {
    /// How the run was laid out.
    pub design: Design,
    /// What should stay true.
    pub gates: Vec<Gate>,
    /// Everything that was measured, gates or not.
    pub metrics: Vec<Metric>,
    /// Of the verdict, as a fraction: 0.95.
    pub confidence: f64,
    /// Left out at the start of the inject and recover phases, and of each block.
    pub settle: Duration,
    /// What happened in the phases, in order.
    pub ticks: Vec<Tick>,
    /// How many ticks the phases should have given.
    pub expected_ticks: usize,
    /// What happened in the pulses, in order.
    pub blocks: Vec<Block>,
    /// By how much the standard errors of a hold are known to be too small, for this workload: see [`placebo`].
    pub kappa: Vec<(Metric, f64)>,
    /// What each rule was to do and did.
    pub rules: Vec<RuleDelivery>,
    /// Why the run ended early, if it did.
    pub aborted: Option<AbortReason>,
    /// Why nothing was injected, if the baseline said that nothing could be learned.
    pub not_ready: Vec<InvalidReason>,
    /// What became of what must hold after the run.
    pub invariants: Vec<InvariantRecord>,
}

impl JudgeInput {
    fn usable_confidence(&self) -> f64 {
        self.confidence.clamp(0.5, 0.999_999)
    }

    /// Without what tells how targets differ: what is said of it is said of these targets alone.
    #[must_use]
    pub fn of_these(mut self) -> Self {
        let blocks = self.blocks.iter_mut().flat_map(|block| &mut block.ticks);
        self.ticks.iter_mut().chain(blocks).for_each(|tick| tick.apart.clear());
        self
    }

    fn kappa_of(&self, metric: Metric) -> Option<f64> {
        self.kappa.iter().find(|(of, _)| *of == metric).map(|(_, kappa)| *kappa)
    }
}

/// What the judge says, and why.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Judgement {
    /// In one word.
    pub verdict: Verdict,
    /// Of the verdict, as a fraction.
    pub confidence: f64,
    /// Of the intervals, two-sided: 2·confidence − 1.
    pub ci_level: f64,
    /// Why the run ended early.
    pub aborted: Option<AbortReason>,
    /// Why there is nothing to judge; may be set with any verdict but is decisive only for INVALID.
    pub invalid: Vec<InvalidReason>,
    /// The gates while injecting, in the order of the spec; by pulses where there are any.
    pub gates: Vec<GateResult>,
    /// The same by the hold, where there were pulses as well.
    pub hold: Vec<GateResult>,
    /// What there is to say about the pulses.
    pub pulses: Option<Pulses>,
    /// The control group by itself, gate by gate.
    pub control: Vec<ControlResult>,
    /// What else was measured, what moved most first. Never decides.
    pub observations: Vec<Observation>,
    /// After injecting.
    pub recovery: Recovery,
    /// The faults, in the order of the rules.
    pub delivery: Vec<Delivery>,
    /// What must hold after the run and does not, by its name.
    pub broken: Vec<String>,
    /// Doubts.
    pub caveats: Vec<Caveat>,
}

/// The pulses as they were.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Pulses {
    /// How many pairs were judged.
    pub pairs: usize,
    /// How many were not, because too much of them is lost.
    pub dropped: usize,
    /// Whether the effect outlasts its block, gate by gate.
    pub carry_over: Vec<CarryOver>,
}

impl Pulses {
    /// What of an effect was carried over, as reasons why there is nothing to judge.
    fn carried(&self) -> impl Iterator<Item = InvalidReason> {
        let seen = self.carry_over.iter().filter(|check| check.seen);
        seen.map(|check| InvalidReason::CarryOver { metric: check.metric })
    }
}

/// What the fault still did after it was off, in the early half of the OFF blocks against the late half.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct CarryOver {
    /// Of what.
    pub metric: Metric,
    /// The fault did something, some of it is left, both with the confidence of the verdict, and what is left may be more
    /// than a quarter of the margin.
    pub seen: bool,
    /// How much, if it could be estimated.
    pub estimate: Option<Estimate>,
}

/// The last half of the recover phase against the baseline.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Recovery {
    /// In one word.
    pub outcome: Recovered,
    /// The gates, judged on that half.
    pub gates: Vec<GateResult>,
    /// How soon, if the phases are long enough to tell.
    pub time: Option<RecoveryTime>,
    /// How much was left meanwhile, of a hold.
    pub index: Option<ResilienceIndex>,
}

/// The share of the margin that may be left of an effect once the fault is off.
const MOST_CARRIED: f64 = 0.25;

/// Judges a run.
pub fn judge(input: &JudgeInput) -> Judgement {
    let confidence = input.usable_confidence();
    let baseline = hold::phase_ticks(input, Phase::Baseline);
    let inject = hold::phase_ticks(input, Phase::Inject);
    let (pairs, dropped) = pulse::whole_pairs(&input.blocks);
    let by_hold = |metric, contrast| hold::effect(input, metric, contrast, [&baseline, &inject]);
    let measure = |metric: Metric, contrast| match input.design {
        Design::Hold => by_hold(metric, contrast),
        Design::Both if !metric.kind().follows_pulses() => by_hold(metric, contrast),
        Design::Pulse | Design::Both => by_pulses(input, metric, contrast, &pairs),
    };
    let families: &[gate::Measure] =
        if input.design == Design::Both { &[&measure, &by_hold] } else { &[&measure] };
    let mut judged = gate::judge_all(&input.gates, families, confidence).into_iter();
    let (mut gates, hold) = (judged.next().unwrap_or_default(), judged.next().unwrap_or_default());
    add_randomization(input, &pairs, &mut gates);
    let control: Vec<_> = input.gates.iter().map(|gate| gate::judge_control(gate, &measure)).collect();
    let carry_over = gates.iter().filter_map(|gate| carry_over(input, gate, &pairs)).collect();
    let pulses = input.design.has_pulses().then_some(Pulses { pairs: pairs.len(), dropped, carry_over });
    let recovery = hold::recovery(input, &baseline);
    let delivery: Vec<_> = input.rules.iter().map(delivery::check).collect();
    let mut invalid = validity::invalid(input, &delivery);
    let is_broken = |invariant: &&InvariantRecord| !invariant.ok;
    let broken: Vec<_> =
        input.invariants.iter().filter(is_broken).map(|invariant| invariant.id.clone()).collect();
    let verdict = verdict::decide(&Evidence {
        aborted: input.aborted.is_some(),
        invalid: &invalid,
        gates: &gates,
        hold: &hold,
        pulses: pulses.as_ref(),
        control: &control,
        recovered: recovery.outcome,
        invariants_broken: !broken.is_empty(),
    });
    if verdict == Verdict::Invalid && invalid.is_empty() {
        invalid = pulses.iter().flat_map(Pulses::carried).collect();
    }
    let doubtful = Doubtful {
        gates: &gates,
        control: &control,
        delivery: &delivery,
        recovered: recovery.outcome,
        pulses: pulses.as_ref(),
    };
    Judgement {
        verdict,
        confidence,
        ci_level: 2.0 * confidence - 1.0,
        aborted: input.aborted.clone(),
        observations: explain::observations(input, &measure),
        caveats: doubt::caveats(input, &doubtful),
        invalid,
        gates,
        hold,
        pulses,
        control,
        recovery,
        delivery,
        broken,
    }
}

/// The effect between the blocks of each pair.
fn by_pulses(
    input: &JudgeInput,
    metric: Metric,
    contrast: Contrast,
    pairs: &[Blocks],
) -> Result<Estimate, Missing> {
    let (settle_s, confidence) = (input.settle.as_secs_f64(), input.usable_confidence());
    let points = pulse::pair_points(metric, pairs, settle_s);
    let effect = pulse::estimate(metric.kind(), contrast, &points, confidence)?;
    Ok(effect.or_targets(pulse::target_spread(metric, contrast, pairs, settle_s), confidence))
}

fn add_randomization(input: &JudgeInput, pairs: &[Blocks], gates: &mut [GateResult]) {
    let settle_s = input.settle.as_secs_f64();
    for gate in gates.iter_mut().filter(|gate| gate.estimate.as_ref().is_some_and(|e| e.pairs.is_some())) {
        let points = pulse::pair_points(gate.metric, pairs, settle_s);
        gate.p_randomization = pulse::p_randomization(gate.metric.kind(), Contrast::Groups, &points);
    }
}

/// Whether what the fault did is still there after it is off: it did something, and the early half of the OFF blocks still
/// has something of it, in the same direction, that the late half has not.
fn carry_over(input: &JudgeInput, gate: &GateResult, pairs: &[Blocks]) -> Option<CarryOver> {
    let kind = gate.metric.kind();
    if !input.design.has_pulses() || !kind.follows_pulses() {
        return None;
    }
    let points = pulse::carry_over_points(gate.metric, pairs, input.settle.as_secs_f64());
    let estimate = pulse::estimate(kind, Contrast::Groups, &points, input.usable_confidence()).ok();
    let limits = gate::both_ways(gate::limits(kind, gate.margin)).map(|limit| limit * MOST_CARRIED);
    let did = gate.estimate.as_ref().filter(|effect| gate::is_outside(effect, [0.0; 2]));
    let is_left = |carried: &Estimate| {
        let same = did.is_some_and(|effect| effect.theta * carried.theta > 0.0);
        same && gate::is_outside(carried, [0.0; 2])
    };
    let may_matter = |carried: &Estimate| carried.theta_ci[0] < limits[0] || carried.theta_ci[1] > limits[1];
    let seen = estimate.as_ref().is_some_and(|carried| is_left(carried) && may_matter(carried));
    Some(CarryOver { metric: gate.metric, seen, estimate })
}
