//! A run as it was measured: everything that its verdict and its report are made of, in memory and in a file.

mod by_target;
mod file;
mod wire;

use std::collections::BTreeSet;

use chaos_common::RuleStats;
use serde::{Deserialize, Serialize};

pub use file::{ReplayError, SCHEMA};
pub use wire::{LineError, SampleLine};

use super::{Recording, Spec, hypothesis::Metric, phases::TICK, preflight};
use crate::{
    judge::{JudgeInput, Judgement, delivery::RuleDelivery},
    report::{Facts, Groups, PhaseRecord, Report, RollbackStep, Watched},
    steady::{
        rates,
        sample::{Part, Sample},
    },
    target::Group,
};

/// A run as it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The text of the spec; empty if it was made by a program.
    pub source: String,
    /// As asked.
    pub spec: Spec,
    /// Whose each slot is.
    pub slots: Vec<Group>,
    /// What each rule was to do. What it did is in the readings.
    pub rules: Vec<RuleDelivery>,
    /// What was measured.
    pub metrics: Vec<Metric>,
    /// By how much the standard errors of a hold are known to be too small.
    pub kappa: Vec<(Metric, f64)>,
    /// What readings do not tell.
    pub facts: RunFacts,
    /// What watched over it.
    pub watched: Watched,
    /// The readings.
    pub recording: Recording,
}

/// What the run knows and readings do not tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFacts {
    /// Version of this program.
    pub tool_version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Who was compared.
    pub groups: Groups,
    /// How each rule was done.
    pub mechanisms: Vec<String>,
    /// Whether any rule is about system calls.
    pub has_calls: bool,
    /// What was undone at the end.
    pub rollback: Vec<RollbackStep>,
}

impl Recorded {
    /// What the judge is given.
    pub fn judge_input(&self) -> JudgeInput {
        self.input_of(&self.recording.samples, &self.slots)
    }

    /// The same of these readings, which may be of some slots only.
    fn input_of(&self, samples: &[(Part, Sample)], groups: &[Group]) -> JudgeInput {
        let (spec, timing, recording) = (&self.spec, &self.spec.timing, &self.recording);
        let parts = timing.parts().into_iter();
        let phases = parts.filter(|(part, _)| matches!(part, Part::Phase(_)));
        JudgeInput {
            design: timing.design,
            blocks: rates::blocks(samples, groups, timing.block.as_secs() as usize),
            kappa: self.kappa.clone(),
            gates: spec.gates.clone(),
            metrics: self.metrics.clone(),
            confidence: spec.confidence,
            settle: timing.settle,
            ticks: rates::ticks(samples, groups),
            expected_ticks: phases.map(|(_, duration)| duration.as_secs() as usize).sum(),
            rules: self.deliveries(),
            aborted: recording.aborted.clone(),
            not_ready: preflight::refusals(&self.watched.preflight),
            invariants: self.watched.invariants.clone(),
        }
    }

    /// What each rule did while it was armed.
    fn deliveries(&self) -> Vec<RuleDelivery> {
        let on: Vec<[&Sample; 2]> = rates::parts(&self.recording.samples)
            .filter(|(part, _)| part.is_on())
            .filter_map(|(_, samples)| Some([&samples.first()?.1, &samples.last()?.1]))
            .collect();
        let during = |rule: usize, group: Group| {
            let slots: BTreeSet<usize> =
                self.slots.iter().enumerate().filter(|(_, of)| **of == group).map(|(slot, _)| slot).collect();
            let of = |sample: &Sample, slot: usize| {
                sample.rules.get(rule).and_then(|slots| slots.get(slot)).copied().unwrap_or(RuleStats::ZERO)
            };
            let each = on.iter().flat_map(|[first, last]| {
                slots.iter().map(|slot| of(last, *slot).since(of(first, *slot))).collect::<Vec<_>>()
            });
            each.fold(RuleStats::ZERO, RuleStats::plus)
        };
        let delivery = |(number, planned): (usize, &RuleDelivery)| RuleDelivery {
            experiment: during(number, Group::Experiment),
            control: during(number, Group::Control),
            ..planned.clone()
        };
        self.rules.iter().enumerate().map(delivery).collect()
    }

    /// The report.
    pub fn report(&self, judgement: &Judgement) -> Report {
        let (spec, facts) = (&self.spec, self.facts.clone());
        let facts = Facts {
            tool_version: facts.tool_version,
            kernel: facts.kernel,
            name: spec.name.clone(),
            hypothesis: spec.hypothesis.clone(),
            groups: facts.groups,
            phases: self.phases(),
            seed: spec.timing.design.has_pulses().then_some(spec.timing.seed),
            mechanisms: facts.mechanisms,
            calls: facts.has_calls.then(|| self.recording.calls.clone()),
            targets: self.by_target(),
            watched: self.watched.clone(),
            rollback: facts.rollback,
        };
        Report::new(facts, judgement.clone())
    }

    fn phases(&self) -> Vec<PhaseRecord> {
        let samples = &self.recording.samples;
        let origin_ns = samples.first().map_or(0, |(_, sample)| sample.begin_ns);
        let since_origin_s = |ns: u64| ns.saturating_sub(origin_ns) as f64 / 1e9;
        let planned = self.spec.timing.parts();
        let record = |(part, samples): (Part, &[(Part, Sample)])| {
            let ((_, first), (_, last)) = (samples.first()?, samples.last()?);
            let (ticks, planned) = (samples.len() - 1, planned.iter().find(|(of, _)| *of == part)?.1);
            Some(PhaseRecord {
                phase: part.phase(),
                pair: match part {
                    Part::Phase(_) => None,
                    Part::Block { pair, .. } => Some(pair),
                },
                start_s: since_origin_s(first.begin_ns),
                seconds: since_origin_s(last.begin_ns) - since_origin_s(first.begin_ns),
                ticks,
                lost: ((planned.as_secs() / TICK.as_secs()) as usize).saturating_sub(ticks),
            })
        };
        rates::parts(samples).filter_map(record).collect()
    }
}
