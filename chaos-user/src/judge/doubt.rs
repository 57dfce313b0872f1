//! Doubts about a judgement, as advice.

use super::{
    Caveat, ControlResult, Delivery, GateResult, GateVerdict, JudgeInput, Missing, Pulses, Recovered, Steady,
    delivery::{self, FEW_INJECTIONS},
    hold, validity,
};
use crate::experiment::hypothesis::Kind;

/// Above this lag-1 autocorrelation the interval covers less than it says (design simulations: 9 % false "different"
/// at ρ = 0.8, 16 % at 0.9; a phase of 60 estimates ρ some 0.05 too low).
const MOST_AUTOCORRELATED: f64 = 0.75;

/// What a judgement may be doubted for.
pub(super) struct Doubtful<'a> {
    pub(super) gates: &'a [GateResult],
    pub(super) control: &'a [ControlResult],
    pub(super) delivery: &'a [Delivery],
    pub(super) recovered: Recovered,
    pub(super) pulses: Option<&'a Pulses>,
}

pub(super) fn caveats(input: &JudgeInput, judged: &Doubtful) -> Vec<Caveat> {
    let mut caveats: Vec<_> = judged.control.iter().filter_map(of_control).collect();
    caveats.extend(judged.gates.iter().flat_map(|gate| of_gate(gate, input)));
    caveats.extend(judged.pulses.iter().flat_map(|pulses| of_pulses(pulses)));
    caveats.extend(judged.delivery.iter().flat_map(of_delivery));
    match judged.recovered {
        Recovered::Inconclusive => caveats.push(Caveat::RecoveryUnclear),
        Recovered::NotMeasured => caveats.push(Caveat::RecoveryNotMeasured),
        Recovered::Recovered | Recovered::NotRecovered => {}
    }
    // What was never to be measured is not lost.
    let went_on = input.aborted.is_none() && input.not_ready.is_empty();
    let (lost, expected) = validity::lost_ticks(input);
    if lost > 0 && went_on {
        caveats.push(Caveat::LostTicks { lost, expected });
    }
    caveats
}

fn of_control(control: &ControlResult) -> Option<Caveat> {
    let metric = control.metric;
    match (control.steady, &control.estimate) {
        (Steady::No, _) => Some(Caveat::ControlMoved { metric }),
        (Steady::Unclear, Some(_)) => Some(Caveat::ControlUnclear { metric }),
        (Steady::Unclear, None) | (Steady::Yes, _) => None,
    }
}

fn of_gate(gate: &GateResult, input: &JudgeInput) -> Vec<Caveat> {
    let metric = gate.metric;
    let mut caveats = vec![];
    match gate.missing {
        Some(Missing::TooFewTicks) => caveats.push(Caveat::TooFewTicks { metric }),
        Some(Missing::NoActivity) => caveats.push(Caveat::NothingMeasured { metric }),
        Some(Missing::TooFewPairs) => caveats.push(Caveat::TooFewPairs { metric }),
        Some(Missing::NeedsHold) => caveats.push(Caveat::NeedsHold { metric }),
        None => {}
    }
    let Some(effect) = &gate.estimate else { return caveats };
    match (gate.needs_s, gate.needs_pairs) {
        (Some(inject_s), _) => caveats.push(Caveat::RunLonger { metric, inject_s }),
        (None, Some(pairs)) => caveats.push(Caveat::RunMorePairs { metric, pairs }),
        (None, None) if gate.verdict == GateVerdict::Inconclusive => {
            caveats.push(match effect.is_by_targets() {
                true => Caveat::TargetsDiffer { metric },
                false => Caveat::TooNoisy { metric },
            });
        }
        (None, None) => {}
    }
    // What the pulses come to does not depend on how alike their seconds are, and κ mends what does.
    let lag1 = effect.lag1;
    if effect.pairs.is_none() && input.kappa_of(metric).is_none() && lag1 > MOST_AUTOCORRELATED {
        caveats.push(Caveat::Autocorrelated { metric, lag1 });
    }
    if effect.kind == Kind::Gauge && hold::is_trending(input, metric) {
        caveats.push(Caveat::NonStationary { metric });
    }
    caveats
}

fn of_pulses(pulses: &Pulses) -> Vec<Caveat> {
    let carried = pulses.carry_over.iter().filter(|check| check.seen);
    let mut caveats: Vec<_> = carried.map(|check| Caveat::CarryOver { metric: check.metric }).collect();
    if pulses.dropped > 0 {
        caveats.push(Caveat::DroppedPairs { dropped: pulses.dropped, kept: pulses.pairs });
    }
    caveats
}

fn of_delivery(delivery: &Delivery) -> Vec<Caveat> {
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
