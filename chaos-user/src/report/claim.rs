//! The one sentence that a run allows.

use super::number;
use crate::{
    experiment::hypothesis::{Level, Metric},
    judge::{
        GateResult, GateVerdict, Judgement, Recovered, Steady, Verdict,
        gate::{Bound, Direction},
    },
};

/// What can be said, and no more.
pub fn sentence(judgement: &Judgement) -> String {
    match judgement.verdict {
        Verdict::Pass => demonstrated(judgement, judgement.gates.iter()),
        Verdict::Fail => failed(judgement),
        Verdict::Inconclusive => undecided(judgement),
        Verdict::Invalid => match judgement.invalid.first() {
            Some(reason) => format!("nothing can be said: {reason}"),
            None => "nothing can be said".into(),
        },
        Verdict::Aborted => match &judgement.aborted {
            Some(reason) => format!("nothing is claimed, the run ended early: {reason}"),
            None => "nothing is claimed, the run ended early".into(),
        },
    }
}

/// What does not hold any more comes first: it is worse than anything that moved.
fn failed(judgement: &Judgement) -> String {
    if judgement.broken.is_empty() {
        return moved(judgement);
    }
    let names = and(judgement.broken.iter().map(|id| format!("`{id}`")).collect());
    let does = if judgement.broken.len() == 1 { "does" } else { "do" };
    format!("after the run {names} {does} not hold")
}

fn moved(judgement: &Judgement) -> String {
    let fails = |gates: &[GateResult]| gates.iter().any(|gate| gate.verdict == GateVerdict::Fail);
    let failing = |gate: &&GateResult| gate.verdict == GateVerdict::Fail;
    if fails(&judgement.gates) {
        let claim = demonstrated(judgement, judgement.gates.iter().filter(failing));
        let stuck = judgement.recovery.outcome == Recovered::NotRecovered;
        return if stuck { claim + ", and did not recover" } else { claim };
    }
    if fails(&judgement.hold) {
        return demonstrated(judgement, judgement.hold.iter().filter(failing)) + " while it was held";
    }
    if judgement.recovery.outcome != Recovered::NotRecovered {
        return "the control group moved with the pulses: the fault reaches more than it should".into();
    }
    let claim = demonstrated(judgement, judgement.recovery.gates.iter().filter(failing));
    format!("after the fault, {claim}: not recovered")
}

fn undecided(judgement: &Judgement) -> String {
    let open: Vec<_> = judgement.gates.iter().filter(|gate| gate.verdict != GateVerdict::Pass).collect();
    if open.is_empty() && !judgement.gates.is_empty() {
        return match judgement.control.iter().any(|control| control.steady == Steady::No) {
            true => "the groups did not drift apart, but the control group left the margin as well".into(),
            false => "the groups did not drift apart; what else a PASS takes is not shown".into(),
        };
    }
    let parts = open.iter().map(|gate| match (&gate.estimate, &gate.bound) {
        (Some(effect), Some(Bound::LessThan { direction, by })) => {
            let may = match direction {
                Direction::Fell => "may have fallen by up to",
                Direction::Rose => "may have risen by up to",
                Direction::Moved => "may have moved by up to",
            };
            format!("{} {may} {}", noun(gate.metric), number::amount(effect.kind, *by))
        }
        _ => format!("{} could not be measured", noun(gate.metric)),
    });
    format!("not decided: {}", and(parts.collect()))
}

/// The bounds of these gates. Each holds with the confidence of the verdict, and so does the list of a PASS, because
/// it takes all of them (intersection–union).
fn demonstrated<'a>(judgement: &Judgement, gates: impl Iterator<Item = &'a GateResult>) -> String {
    let parts = gates.filter_map(|gate| Some(said(gate, gate.bound.as_ref()?)));
    format!("with {} confidence {}", number::asked(judgement.confidence), and(parts.collect()))
}

fn said(gate: &GateResult, bound: &Bound) -> String {
    let (noun, amount) = (noun(gate.metric), |by| number::amount(gate.metric.kind(), by));
    match bound {
        Bound::LessThan { direction, by } if *by > 0.0 => {
            format!("{noun} {} by less than {}", past(*direction), amount(*by))
        }
        Bound::LessThan { direction: Direction::Fell, .. } => format!("{noun} did not fall"),
        Bound::LessThan { direction: Direction::Rose, .. } => format!("{noun} did not rise"),
        Bound::LessThan { direction: Direction::Moved, .. } => format!("{noun} did not move"),
        Bound::MoreThan { direction, by } => {
            format!("{noun} {} by more than {}", past(*direction), amount(*by))
        }
    }
}

const fn past(direction: Direction) -> &'static str {
    match direction {
        Direction::Fell => "fell",
        Direction::Rose => "rose",
        Direction::Moved => "moved",
    }
}

/// What a metric counts, in words; its name where that says it best.
pub fn noun(metric: Metric) -> &'static str {
    match metric {
        Metric::TxPackets => "sent packets",
        Metric::TxBytes => "sent bytes",
        Metric::RxPackets => "received packets",
        Metric::RxBytes => "received bytes",
        Metric::Syscalls => "system calls",
        Metric::SyscallErrorRatio => "the share of failed system calls",
        Metric::OrganicErrorRatio => "the share of system calls that failed by themselves",
        Metric::UnexpectedErrorRatio => "the share of system calls that failed unexpectedly",
        Metric::TcpRetransRatio => "the share of TCP retransmissions",
        Metric::Level(Level::Memory) => "memory",
        Metric::Growth => "the growth of memory",
        Metric::Killed => "processes killed",
        Metric::OomKills => "processes killed for want of memory",
        named => named.name(),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn and(mut parts: Vec<String>) -> String {
    let Some(last) = parts.pop() else { return String::new() };
    if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) }
}
