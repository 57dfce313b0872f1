//! The judge: from ticks of both groups to a verdict. Pure; no I/O, no clock, no randomness.
//!
//! The question is whether anything moved *further than a margin declared before the run*, compared with a control
//! group in the same second. [`score`] linearises what each second contributes, [`ewc`] turns that into an
//! uncertainty that knows that seconds resemble each other, [`estimate`](mod@estimate) makes an interval of it,
//! [`gate`] holds it against the margin, and [`verdict`] combines gates, delivery, control and recovery.

pub mod delivery;
pub mod estimate;
pub mod ewc;
pub mod gate;
pub mod holm;
pub mod names;
pub mod pulse;
pub mod quantile;
pub mod score;
pub mod verdict;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
pub(crate) mod simulation;
#[cfg(test)]
mod tests;

use std::time::Duration;

use chaos_common::Counters;
use serde::Serialize;

pub use delivery::{Delivery, RuleDelivery};
pub use estimate::{Estimate, Missing};
pub use gate::{ControlResult, GateResult, GateVerdict, Steady};
pub use verdict::{AbortReason, Caveat, InvalidReason, Recovered, Verdict};

use crate::{
    experiment::hypothesis::{Gate, Metric},
    steady::{
        rates::{Counts, Tick, counts, points},
        sample::Phase,
    },
    target::Group,
};
use delivery::FEW_INJECTIONS;
use estimate::Contrast;
use verdict::Evidence;

/// Everything a verdict is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeInput {
    /// What should stay true.
    pub gates: Vec<Gate>,
    /// Of the verdict, as a fraction: 0.95.
    pub confidence: f64,
    /// Left out at the start of the inject and recover phases.
    pub settle: Duration,
    /// What happened, in order.
    pub ticks: Vec<Tick>,
    /// How many ticks the phases should have given.
    pub expected_ticks: usize,
    /// What each rule was to do and did.
    pub rules: Vec<RuleDelivery>,
    /// Why the run ended early, if it did.
    pub aborted: Option<AbortReason>,
}

/// What the judge says, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// The gates while injecting, in the order of the spec.
    pub gates: Vec<GateResult>,
    /// The control group by itself, gate by gate.
    pub control: Vec<ControlResult>,
    /// What else was measured. Never decides.
    pub observations: Vec<Observation>,
    /// After injecting.
    pub recovery: Recovery,
    /// The faults, in the order of the rules.
    pub delivery: Vec<Delivery>,
    /// Doubts.
    pub caveats: Vec<Caveat>,
}

/// A metric that is not a gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observation {
    /// What was measured.
    pub metric: Metric,
    /// Its effect.
    pub estimate: Estimate,
}

/// The last half of the recover phase against the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recovery {
    /// In one word.
    pub outcome: Recovered,
    /// The gates, judged on that half.
    pub gates: Vec<GateResult>,
}

/// More than this share of ticks lost, and what is left may be a selection.
const MOST_LOST: f64 = 0.1;

/// Above this lag-1 autocorrelation the interval covers less than it says (design simulations: 9 % false "different"
/// at ρ = 0.8, 16 % at 0.9; a phase of 60 estimates ρ some 0.05 too low).
const MOST_AUTOCORRELATED: f64 = 0.75;

/// Judges a run.
pub fn judge(input: &JudgeInput) -> Judgement {
    let confidence = input.confidence.clamp(0.5, 0.999_999);
    let baseline = phase_ticks(input, Phase::Baseline);
    let inject = phase_ticks(input, Phase::Inject);
    let delivery: Vec<_> = input.rules.iter().map(delivery::check).collect();
    let measure = |metric, contrast| by_phases(metric, contrast, &baseline, &inject, confidence);
    let gates = gate::judge(&input.gates, &measure, confidence);
    let control: Vec<_> = input.gates.iter().map(|gate| gate::judge_control(gate, &measure)).collect();
    let recovery = recovery(input, &baseline, confidence);
    let invalid = invalid(input, &delivery);
    let verdict = verdict::decide(&Evidence {
        aborted: input.aborted.is_some(),
        invalid: &invalid,
        gates: &gates,
        control: &control,
        recovered: recovery.outcome,
    });
    Judgement {
        verdict,
        confidence,
        ci_level: 2.0 * confidence - 1.0,
        aborted: input.aborted.clone(),
        observations: observations(&input.gates, &measure),
        caveats: caveats(input, &gates, &control, &delivery, recovery.outcome),
        invalid,
        gates,
        control,
        recovery,
        delivery,
    }
}

/// The effect between two phases.
fn by_phases(
    metric: Metric,
    contrast: Contrast,
    before: &[&Tick],
    during: &[&Tick],
    confidence: f64,
) -> Result<Estimate, Missing> {
    let of = |ticks: &[&Tick]| points(metric, ticks.iter().copied());
    estimate::estimate(metric.kind(), contrast, &of(before), &of(during), confidence)
}

/// The ticks of a phase that count: those that lie mostly after the system has settled. The baseline begins settled.
fn phase_ticks(input: &JudgeInput, phase: Phase) -> Vec<&Tick> {
    let settle_s = if phase == Phase::Baseline { 0.0 } else { input.settle.as_secs_f64() };
    let middle = |tick: &Tick| tick.at_s - tick.seconds / 2.0;
    input.ticks.iter().filter(|tick| tick.phase == phase && middle(tick) >= settle_s).collect()
}

/// Metastability: is the system back once the trigger is gone? The first half is given to it for coming back.
fn recovery(input: &JudgeInput, baseline: &[&Tick], confidence: f64) -> Recovery {
    let mut ticks = phase_ticks(input, Phase::Recover);
    let half_s = ticks.last().map_or(0.0, |tick| tick.at_s / 2.0);
    ticks.retain(|tick| tick.at_s - tick.seconds / 2.0 >= half_s);
    if ticks.len() < ewc::MIN_TICKS {
        return Recovery { outcome: Recovered::NotMeasured, gates: vec![] };
    }
    let measure = |metric, contrast| by_phases(metric, contrast, baseline, &ticks, confidence);
    let gates = gate::judge(&input.gates, &measure, confidence);
    let outcome = if gates.iter().any(|gate| gate.verdict == GateVerdict::Fail) {
        Recovered::NotRecovered
    } else if gates.iter().all(|gate| gate.verdict == GateVerdict::Pass) {
        Recovered::Recovered
    } else {
        Recovered::Inconclusive
    };
    Recovery { outcome, gates }
}

/// What moved that nobody asked about.
fn observations(gates: &[Gate], measure: gate::Measure) -> Vec<Observation> {
    let is_gate = |metric: Metric| gates.iter().any(|gate| gate.metric == metric);
    let observe = |metric| {
        let estimate = measure(metric, Contrast::Groups).ok()?;
        Some(Observation { metric, estimate })
    };
    Metric::ALL.into_iter().filter(|metric| !is_gate(*metric)).filter_map(observe).collect()
}

fn invalid(input: &JudgeInput, delivery: &[Delivery]) -> Vec<InvalidReason> {
    let mut reasons = verdict::invalid_delivery(delivery);
    let (lost, expected) = lost_ticks(input);
    if lost as f64 > MOST_LOST * expected as f64 {
        reasons.push(InvalidReason::LostTicks { lost, expected });
    }
    let everything = |group| activity(&Metric::ALL, &input.ticks, group);
    if everything(Group::Control) == 0 && everything(Group::Experiment) > 0 {
        reasons.push(InvalidReason::ControlMissing);
    } else {
        reasons.extend(inactive(input));
    }
    reasons
}

/// Groups that did nothing that any gate is made of. That the experimental group falls silent while injecting may be
/// the effect, and is left to the gates.
fn inactive(input: &JudgeInput) -> Vec<InvalidReason> {
    let metrics: Vec<_> = input.gates.iter().map(|gate| gate.metric).collect();
    let needed = [
        (Group::Control, Phase::Baseline),
        (Group::Experiment, Phase::Baseline),
        (Group::Control, Phase::Inject),
    ];
    let is_idle = |(group, phase): &(Group, Phase)| {
        let ticks = input.ticks.iter().filter(|tick| tick.phase == *phase);
        activity(&metrics, ticks, *group) == 0
    };
    needed
        .into_iter()
        .filter(is_idle)
        .map(|(group, phase)| InvalidReason::NoActivity { group, phase })
        .collect()
}

/// How much happened that these metrics are made of: of a ratio what it is taken of, since no errors is no idleness.
fn activity<'a>(metrics: &[Metric], ticks: impl IntoIterator<Item = &'a Tick>, group: Group) -> u64 {
    let of_tick = |tick: &Tick, metric: Metric| {
        let Counts { count, of, .. } = counts(metric, side(group, tick));
        of.unwrap_or(count)
    };
    ticks
        .into_iter()
        .flat_map(|tick| metrics.iter().map(move |metric| of_tick(tick, *metric)))
        .fold(0, u64::saturating_add)
}

/// One group's counters in a tick.
const fn side(group: Group, tick: &Tick) -> &Counters {
    match group {
        Group::Control => &tick.control,
        Group::Experiment => &tick.experiment,
    }
}

fn lost_ticks(input: &JudgeInput) -> (usize, usize) {
    (input.expected_ticks.saturating_sub(input.ticks.len()), input.expected_ticks)
}

fn caveats(
    input: &JudgeInput,
    gates: &[GateResult],
    control: &[ControlResult],
    delivery: &[Delivery],
    recovered: Recovered,
) -> Vec<Caveat> {
    let mut caveats: Vec<_> = control.iter().filter_map(control_caveat).collect();
    caveats.extend(gates.iter().flat_map(gate_caveats));
    caveats.extend(delivery.iter().flat_map(delivery_caveats));
    match recovered {
        Recovered::Inconclusive => caveats.push(Caveat::RecoveryUnclear),
        Recovered::NotMeasured => caveats.push(Caveat::RecoveryNotMeasured),
        Recovered::Recovered | Recovered::NotRecovered => {}
    }
    let (lost, expected) = lost_ticks(input);
    if lost > 0 {
        caveats.push(Caveat::LostTicks { lost, expected });
    }
    caveats
}

fn control_caveat(control: &ControlResult) -> Option<Caveat> {
    let metric = control.metric;
    match (control.steady, &control.estimate) {
        (Steady::No, _) => Some(Caveat::ControlMoved { metric }),
        (Steady::Unclear, Some(_)) => Some(Caveat::ControlUnclear { metric }),
        (Steady::Unclear, None) | (Steady::Yes, _) => None,
    }
}

fn gate_caveats(gate: &GateResult) -> Vec<Caveat> {
    let metric = gate.metric;
    let mut caveats = vec![];
    match gate.missing {
        Some(Missing::TooFewTicks) => caveats.push(Caveat::TooFewTicks { metric }),
        Some(Missing::NoActivity) => caveats.push(Caveat::NothingMeasured { metric }),
        Some(Missing::TooFewPairs) => caveats.push(Caveat::TooFewPairs { metric }),
        Some(Missing::NeedsHold) => caveats.push(Caveat::NeedsHold { metric }),
        None => {}
    }
    match gate.needs_s {
        Some(inject_s) => caveats.push(Caveat::RunLonger { metric, inject_s }),
        None if gate.verdict == GateVerdict::Inconclusive && gate.estimate.is_some() => {
            caveats.push(Caveat::TooNoisy { metric });
        }
        None => {}
    }
    if let Some(lag1) = gate.estimate.as_ref().map(|e| e.lag1).filter(|lag1| *lag1 > MOST_AUTOCORRELATED) {
        caveats.push(Caveat::Autocorrelated { metric, lag1 });
    }
    caveats
}

fn delivery_caveats(delivery: &Delivery) -> Vec<Caveat> {
    let (fault, injected) = (delivery.name.clone(), delivery.injected);
    if delivery.fired != delivery::Fired::AsAsked {
        return vec![];
    }
    let mut caveats = vec![];
    if injected < FEW_INJECTIONS {
        caveats.push(Caveat::FewInjections { fault: fault.clone(), injected });
    }
    if delivery.check == delivery::ShareCheck::Bursts {
        caveats.push(Caveat::ShareNotJudged { fault });
    }
    caveats
}
