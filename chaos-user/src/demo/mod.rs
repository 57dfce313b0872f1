//! A real experiment on two services made for it: a control group and an experimental group that share one
//! network device, with clients in another network namespace.

mod lab;
pub mod service;

use std::time::Duration;

use chaos_common::Chance;

use crate::{
    experiment::{
        Recording, Spec, Timing,
        hypothesis::{Gate, Margin, Metric},
    },
    fault::{DirectionSpec, Fault, Limits, Loss, NetEffect, NetFault, NetFilter, Pattern},
    judge::{GateVerdict, Judgement, Verdict},
    steady::sample::{Part, Phase, Sample},
    target::{Group, Target},
};

pub use lab::{CLIENT_VERB, CLIENTS, Lab, SERVICE_VERB, SERVICES, namespaces};

/// What the experiment does and what is expected of the services.
pub fn spec(lab: &Lab, chance: Chance) -> Spec {
    let gate = |metric, margin| Gate { metric, margin };
    Spec {
        name: "demo-loss".into(),
        hypothesis: "losing some of a service's packets changes nothing that matters".into(),
        control: vec![Target::Cgroup(lab.cgroup(Group::Control))],
        experiment: vec![Target::Cgroup(lab.cgroup(Group::Experiment))],
        gates: vec![
            gate(Metric::RxBytes, Margin { increase: None, decrease: Some(0.1) }),
            gate(Metric::TcpRetransRatio, Margin { increase: Some(0.01), decrease: None }),
        ],
        observe: vec![],
        checks: vec![],
        invariants: vec![],
        abort_if: vec![],
        probes: Vec::new(),
        faults: vec![Fault::Net(NetFault {
            effect: NetEffect::Loss(Loss::default()),
            pattern: Pattern::Random { chance, correlation: Chance::NEVER },
            direction: DirectionSpec::Egress,
            filter: NetFilter::default(),
            limits: Limits::default(),
        })],
        timing: Timing { baseline: Duration::from_secs(15), ..Timing::HOLD },
        max_duration: Duration::from_secs(60),
        confidence: 0.95,
    }
}

/// Whether the judge found what was planted: retransmissions, in the experimental group.
pub fn found_what_was_planted(judgement: &Judgement) -> bool {
    judgement.verdict == Verdict::Fail
        && judgement
            .gates
            .iter()
            .any(|gate| gate.metric == Metric::TcpRetransRatio && gate.verdict == GateVerdict::Fail)
}

/// One answered request, as a client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was to be sent, on CLOCK_MONOTONIC.
    pub due_ns: u64,
    /// How long after that the answer was there.
    pub latency_ns: u64,
}

/// Median and 99th percentile of the answers to requests due in a phase, in milliseconds.
pub fn latency_ms(answers: &[Answer], recording: &Recording, phase: Phase) -> Option<(f64, f64)> {
    let of_phase: Vec<&Sample> = recording
        .samples
        .iter()
        .filter(|(of, _)| *of == Part::Phase(phase))
        .map(|(_, sample)| sample)
        .collect();
    let (first, last) = (of_phase.first()?, of_phase.last()?);
    let due = |answer: &&Answer| (first.begin_ns..last.begin_ns).contains(&answer.due_ns);
    let mut latencies: Vec<u64> = answers.iter().filter(due).map(|answer| answer.latency_ns).collect();
    latencies.sort_unstable();
    let quantile = |q: f64| {
        let rank = ((latencies.len() as f64 * q) as usize).min(latencies.len().checked_sub(1)?);
        Some(latencies[rank] as f64 / 1e6)
    };
    Some((quantile(0.5)?, quantile(0.99)?))
}
