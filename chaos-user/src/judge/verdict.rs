//! From gates, delivery, control and recovery to one verdict, and the doubts that go with it.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Pulses,
    delivery::{Delivery, FEW_INJECTIONS, Fired},
    gate::{ControlResult, GateResult, GateVerdict, Steady},
};
use crate::{experiment::hypothesis::Metric, steady::sample::Phase, target::Group};

/// What an experiment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every gate stayed inside its margin.
    Pass,
    /// A gate left its margin, or did not come back.
    Fail,
    /// Not enough data to say either.
    Inconclusive,
    /// There was nothing to judge: see [`InvalidReason`].
    Invalid,
    /// Ended early: see [`AbortReason`].
    Aborted,
}

impl Verdict {
    /// What the process exits with. 2 (could not run) and 6 (rollback incomplete) are not verdicts.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Inconclusive => 3,
            Self::Invalid => 4,
            Self::Aborted => 5,
        }
    }
}

/// Why a run ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// SIGINT or SIGTERM.
    Interrupted,
    /// The longest duration allowed.
    MaxDuration,
    /// The lease ran out or could not be renewed: the kernel stopped injecting by itself.
    LeaseLost,
    /// A target went away.
    TargetGone {
        /// As the user named it.
        target: String,
    },
    /// Counters could not be read.
    SamplingFailed {
        /// What the system said.
        error: String,
    },
    /// A guard fired.
    Guard {
        /// Which, as the spec has it, or what kind of event.
        guard: String,
        /// What was seen.
        because: String,
    },
}

/// Why there is nothing to judge.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidReason {
    /// There was no rule at all.
    NoFault,
    /// A fault saw nothing it could have hit.
    NothingEligible {
        /// Which.
        fault: String,
    },
    /// A fault could have hit and never did.
    NothingInjected {
        /// Which.
        fault: String,
        /// What it could have hit.
        eligible: u64,
    },
    /// A fault fired only a few times in all pulses together.
    TooFewInjections {
        /// Which.
        fault: String,
        /// How often.
        injected: u64,
    },
    /// A fault hit clearly more or less often than asked.
    OtherShare {
        /// Which.
        fault: String,
        /// The share hit.
        fraction: f64,
        /// The share asked for.
        expected: f64,
    },
    /// A fault hit the control group.
    ControlHit {
        /// Which.
        fault: String,
        /// How often.
        injected: u64,
    },
    /// The baseline says that nothing could be learned, so nothing was injected.
    NotReady {
        /// What was looked at, such as `power`.
        check: String,
        /// What was found, and what would be right.
        detail: String,
    },
    /// All faults only counted.
    DryRun,
    /// The control group did nothing at all, ever: there is nothing to compare with.
    ControlMissing,
    /// A group did nothing that any gate is made of.
    NoActivity {
        /// Which.
        group: Group,
        /// When.
        phase: Phase,
    },
    /// An effect outlasts its block, and no gate failed: pulses show too little of it for more to be said.
    CarryOver {
        /// Of what.
        metric: Metric,
    },
    /// More than 10 % of the ticks are lost.
    LostTicks {
        /// Lost.
        lost: usize,
        /// Expected.
        expected: usize,
    },
}

/// A doubt, given as advice. Never decides by itself.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Caveat {
    /// The control group left the margin by itself: PASS is withheld.
    ControlMoved {
        /// Where.
        metric: Metric,
    },
    /// Whether the control group stayed inside the margin is not clear.
    ControlUnclear {
        /// Where.
        metric: Metric,
    },
    /// Whether the system recovered is not clear.
    RecoveryUnclear,
    /// Recovery was not measured.
    RecoveryNotMeasured,
    /// The fault fired only a few times.
    FewInjections {
        /// Which.
        fault: String,
        /// How often.
        injected: u64,
    },
    /// The share delivered cannot be compared with the one asked for, because hits come in bursts.
    ShareNotJudged {
        /// Which.
        fault: String,
    },
    /// Some ticks are lost.
    LostTicks {
        /// Lost.
        lost: usize,
        /// Expected.
        expected: usize,
    },
    /// A gate's phases are too short.
    TooFewTicks {
        /// Which.
        metric: Metric,
    },
    /// A gate has too few whole pairs of blocks.
    TooFewPairs {
        /// Which.
        metric: Metric,
    },
    /// A gate's metric adds up over time, and there was no hold.
    NeedsHold {
        /// Which.
        metric: Metric,
    },
    /// Nothing happened that a gate is made of.
    NothingMeasured {
        /// Which.
        metric: Metric,
    },
    /// A gate would be decided by a longer run.
    RunLonger {
        /// Which.
        metric: Metric,
        /// Seconds of injecting, settled.
        inject_s: f64,
    },
    /// A gate would be decided by more pulses.
    RunMorePairs {
        /// Which.
        metric: Metric,
        /// Pairs of blocks.
        pairs: usize,
    },
    /// A gate's effect is still there after the fault is off, so that pulses show too little of it.
    CarryOver {
        /// Which.
        metric: Metric,
    },
    /// Pairs of blocks of which too much is lost.
    DroppedPairs {
        /// Left out.
        dropped: usize,
        /// Judged.
        kept: usize,
    },
    /// A level that moved all through the run, so that its mean says little.
    NonStationary {
        /// Which.
        metric: Metric,
    },
    /// A gate would not be decided by any run of reasonable length.
    TooNoisy {
        /// Which.
        metric: Metric,
    },
    /// A gate would not be decided by a longer run, as its targets differ too much.
    TargetsDiffer {
        /// Which.
        metric: Metric,
    },
    /// A gate's interval may be too narrow: neighbouring seconds are too alike.
    Autocorrelated {
        /// Which.
        metric: Metric,
        /// Correlation of neighbouring ticks.
        lag1: f64,
    },
    /// One target in a group: the claim is about these, not about a fleet.
    OnePerGroup,
    /// The same of several targets, of which it is not known how they differ.
    OnlyThese,
    /// The intervals know how targets differ: the claim is about targets like these.
    LikeThese {
        /// How many there are in the control group.
        control: usize,
        /// How many in the experimental group.
        experiment: usize,
    },
}

impl Caveat {
    /// Whether it says whom a claim is about, and advises nothing.
    pub const fn is_note(&self) -> bool {
        matches!(self, Self::OnePerGroup | Self::OnlyThese | Self::LikeThese { .. })
    }
}

/// What recovery came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovered {
    /// Every gate is back inside its margin.
    Recovered,
    /// A gate is still outside its margin.
    NotRecovered,
    /// Neither is shown.
    Inconclusive,
    /// There was no recover phase, or too little of it.
    NotMeasured,
}

/// What the verdict is made of.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Set if the run ended early.
    pub aborted: bool,
    /// Reasons there is nothing to judge.
    pub invalid: &'a [InvalidReason],
    /// The gates while injecting.
    pub gates: &'a [GateResult],
    /// The same by a hold beside pulses.
    pub hold: &'a [GateResult],
    /// The pulses, if there were any.
    pub pulses: Option<&'a Pulses>,
    /// The control group by itself.
    pub control: &'a [ControlResult],
    /// After injecting.
    pub recovered: Recovered,
    /// Something that must hold after the run does not.
    pub invariants_broken: bool,
}

/// One verdict. ABORTED goes before INVALID, because an early end leaves data missing by itself.
///
/// Pulses are short and many, so that they can tell that the control group stood still and that the system is back, and
/// PASS needs both. A hold rarely has the power to: there, only what is shown to be wrong withholds it, and the rest is a
/// caveat. What carries over makes effects look smaller: it takes PASS away and leaves FAIL.
pub fn decide(evidence: &Evidence) -> Verdict {
    if evidence.aborted {
        Verdict::Aborted
    } else if !evidence.invalid.is_empty() {
        Verdict::Invalid
    } else if fails(evidence) {
        Verdict::Fail
    } else if carries_over(evidence) {
        Verdict::Invalid
    } else if passes(evidence) {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    }
}

fn fails(evidence: &Evidence) -> bool {
    let any_gate = evidence.gates.iter().chain(evidence.hold).any(|gate| gate.verdict == GateVerdict::Fail);
    // The order of the blocks was drawn: what the control group did with them, the fault did.
    let spilled = evidence.pulses.is_some() && any_control(evidence, Steady::No);
    let broken = evidence.invariants_broken;
    any_gate || spilled || broken || evidence.recovered == Recovered::NotRecovered
}

fn passes(evidence: &Evidence) -> bool {
    let gates =
        !evidence.gates.is_empty() && evidence.gates.iter().all(|gate| gate.verdict == GateVerdict::Pass);
    let shown = match evidence.pulses {
        Some(_) => !any_control(evidence, Steady::Unclear) && evidence.recovered == Recovered::Recovered,
        None => true,
    };
    gates && shown && !any_control(evidence, Steady::No)
}

fn any_control(evidence: &Evidence, state: Steady) -> bool {
    evidence.control.iter().any(|control| control.steady == state)
}

fn carries_over(evidence: &Evidence) -> bool {
    evidence.pulses.is_some_and(|pulses| pulses.carry_over.iter().any(|check| check.seen))
}

/// What is wrong with the delivery of the faults. Every fault must have fired: a verdict about two faults of which
/// one never did is a verdict about another experiment.
/// Of pulses, a few injections are none: they did not reach most blocks.
pub fn invalid_delivery(deliveries: &[Delivery], pulses: bool) -> Vec<InvalidReason> {
    if deliveries.is_empty() {
        return vec![InvalidReason::NoFault];
    }
    let mut reasons: Vec<_> = deliveries.iter().filter_map(|one| invalid_one(one, pulses)).collect();
    if deliveries.iter().all(|delivery| delivery.fired == Fired::DryRun) {
        reasons.push(InvalidReason::DryRun);
    }
    reasons
}

fn invalid_one(delivery: &Delivery, pulses: bool) -> Option<InvalidReason> {
    let fault = delivery.name.clone();
    match delivery.fired {
        Fired::AsAsked if pulses && delivery.injected < FEW_INJECTIONS => {
            Some(InvalidReason::TooFewInjections { fault, injected: delivery.injected })
        }
        Fired::AsAsked | Fired::DryRun => None,
        Fired::NothingEligible => Some(InvalidReason::NothingEligible { fault }),
        Fired::Never => Some(InvalidReason::NothingInjected { fault, eligible: delivery.eligible }),
        Fired::OtherShare => {
            let (fraction, expected) = (delivery.fraction?, delivery.nearest_expected()?);
            Some(InvalidReason::OtherShare { fault, fraction, expected })
        }
        Fired::OnControl => Some(InvalidReason::ControlHit { fault, injected: delivery.control.injected }),
    }
}
