//! Reasons and doubts in words.

use std::fmt;

use super::{
    names,
    verdict::{AbortReason, Caveat, InvalidReason},
};
use crate::steady::rates::MIN_TARGETS;

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => write!(f, "interrupted"),
            Self::MaxDuration => write!(f, "the longest duration allowed was reached"),
            Self::LeaseLost => {
                write!(f, "the lease was not renewed in time, so the kernel stopped injecting")
            }
            Self::TargetGone { target } => write!(f, "{target} went away"),
            Self::SamplingFailed { error } => write!(f, "counters could not be read: {error}"),
            Self::Guard { guard, because } => write!(f, "{guard}: {because}"),
        }
    }
}

impl fmt::Display for InvalidReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFault => write!(f, "there was no fault to inject"),
            Self::NothingEligible { fault } => {
                write!(
                    f,
                    "{fault} saw nothing it could have hit: check the filter, and that there is traffic"
                )
            }
            Self::NothingInjected { fault, eligible } => {
                write!(
                    f,
                    "{fault} never fired, although {eligible} were eligible: raise its chance, or run longer"
                )
            }
            Self::TooFewInjections { fault, injected } => {
                write!(
                    f,
                    "{fault} fired {injected} times in all pulses, too few: raise its chance, or the load"
                )
            }
            Self::OtherShare { fault, fraction, expected } => {
                let (percent, asked) = (fraction * 100.0, expected * 100.0);
                write!(f, "{fault} hit {percent:.3} % of what was eligible where {asked:.3} % was asked for")
            }
            Self::ControlHit { fault, injected } => {
                write!(f, "{fault} also hit the control group, {injected} times: the groups are not apart")
            }
            Self::NotReady { check, detail } => write!(f, "{check}: {detail}; nothing was injected"),
            Self::DryRun => write!(f, "a dry run: everything was decided and counted, nothing was injected"),
            Self::ControlMissing => {
                write!(f, "the control group did nothing at all: there is nothing to compare with")
            }
            Self::NoActivity { group, phase } => {
                let (group, phase) = (names::group(*group), names::phase(*phase));
                write!(
                    f,
                    "the {group} group did nothing in the {phase} phase that a gate is made of: put load on it"
                )
            }
            Self::CarryOver { metric } => {
                let name = metric.name();
                write!(f, "{name} still shows the fault after it is off, so pulses show too little of it: ")?;
                write!(f, "make the blocks longer, or use the design `hold`")
            }
            Self::LostTicks { lost, expected } => {
                write!(
                    f,
                    "{lost} of {expected} ticks are lost, more than 10 %: the host was too busy to be measured"
                )
            }
        }
    }
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlMoved { metric } => {
                let name = metric.name();
                write!(f, "{name} of the control group left the margin by itself, so PASS is withheld: ")?;
                write!(f, "is the load steady, and do the groups share what the fault hits?")
            }
            Self::ControlUnclear { metric } => {
                let name = metric.name();
                write!(
                    f,
                    "{name} of the control group may have left the margin by itself: steadier load would tell"
                )
            }
            Self::RecoveryUnclear => {
                write!(f, "recovery is not shown either way: a longer recover phase would tell")
            }
            Self::RecoveryNotMeasured => write!(f, "recovery was not measured: give it a recover phase"),
            Self::FewInjections { fault, injected } => {
                let times = if *injected == 1 { "once".to_owned() } else { format!("{injected} times") };
                write!(f, "{fault} fired only {times}: the verdict is about a very small fault")
            }
            Self::ShareNotJudged { fault } => {
                write!(f, "{fault} comes in bursts, so only that it fired was checked, not how often")
            }
            Self::LostTicks { lost, expected } => {
                write!(f, "{lost} of {expected} ticks are lost and left out")
            }
            Self::TooFewTicks { metric } => {
                write!(f, "{} has too few ticks to be judged: make the phases longer", metric.name())
            }
            Self::TooFewPairs { metric } => {
                let (name, least) = (metric.name(), super::pulse::MIN_PAIRS);
                write!(f, "{name} has fewer than {least} whole pairs of blocks: give it more pulses")
            }
            Self::NeedsHold { metric } => {
                let name = metric.name();
                write!(
                    f,
                    "{name} adds up over time, which pulses do not show: use the design `both` or `hold`"
                )
            }
            Self::NothingMeasured { metric } => {
                write!(
                    f,
                    "nothing happened that {} is made of: put load on it, or leave it out",
                    metric.name()
                )
            }
            Self::RunLonger { metric, inject_s } => {
                let name = metric.name();
                write!(
                    f,
                    "{name} would be decided by injecting for about {inject_s:.0} s, with a baseline to match"
                )
            }
            Self::RunMorePairs { metric, pairs } => {
                write!(f, "{} would be decided by about {pairs} pairs of blocks", metric.name())
            }
            Self::CarryOver { metric } => {
                let name = metric.name();
                write!(
                    f,
                    "{name} still shows the fault after it is off: its effect is larger than pulses show"
                )
            }
            Self::DroppedPairs { dropped, kept } => {
                write!(f, "{dropped} of {} pairs are left out, too much of them is lost", dropped + kept)
            }
            Self::NonStationary { metric } => {
                write!(f, "{} moved all through the run: judge how fast, not how much", metric.name())
            }
            Self::TooNoisy { metric } => {
                let name = metric.name();
                write!(
                    f,
                    "{name} varies too much for its margin: steady the load, add targets, or widen the margin"
                )
            }
            Self::TargetsDiffer { metric } => {
                let name = metric.name();
                write!(f, "{name} moves more at some targets than at others, as it would in a longer run: ")?;
                write!(f, "add targets, or widen the margin")
            }
            Self::Autocorrelated { metric, lag1 } => {
                let name = metric.name();
                write!(
                    f,
                    "{name} wanders (neighbouring seconds correlate by {lag1:.2}): its interval may be too narrow"
                )
            }
            Self::OnePerGroup => {
                write!(f, "one target in a group: the claim is about these, not about others like them")
            }
            Self::OnlyThese => {
                write!(f, "the claim is about these targets, not about others like them: ")?;
                write!(f, "it takes {MIN_TARGETS} with load in each group to tell how targets differ")
            }
            Self::LikeThese { control, experiment } => {
                write!(f, "the claim is about targets like these {control} and {experiment}: ")?;
                write!(f, "the intervals know how targets differ")
            }
        }
    }
}
