//! What came of an experiment, as reports have it.

use std::io;

use super::{Outcome, Recording, Spec, phases::TICK};
use crate::{
    fault::plan::PlannedRule,
    report::{Facts, Groups, Member, PhaseRecord, Report, RollbackStep, Watched},
    steady::sample::{Phase, Sample},
    target::{Group, Scope},
};

impl Outcome {
    /// The report.
    pub fn report(&self, spec: &Spec) -> io::Result<Report> {
        let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        let step = |step: &crate::kernel::RollbackStep| RollbackStep {
            what: step.error.as_ref().map_or(step.what.clone(), |error| format!("{}: {error}", step.what)),
            ok: step.error.is_none(),
        };
        let facts = Facts {
            tool_version: env!("CARGO_PKG_VERSION").into(),
            kernel,
            name: spec.name.clone(),
            hypothesis: spec.hypothesis.clone(),
            groups: groups(&self.scope),
            phases: phases(spec, &self.recording),
            mechanisms: self.plan.rules.iter().map(mechanisms).collect(),
            calls: self
                .plan
                .rules
                .iter()
                .any(|rule| !rule.calls.is_empty())
                .then(|| self.recording.calls.clone()),
            watched: Watched::default(),
            rollback: self.rollback.steps.iter().map(step).collect(),
        };
        Ok(Report::new(facts, self.judgement.clone()))
    }
}

fn groups(scope: &Scope) -> Groups {
    let members = |group: Group| {
        let member = |(_, member): (u32, &crate::target::Member)| Member {
            target: member.target.to_string(),
            cgroup: member.cgroup.path.display().to_string(),
            cgroup_id: member.cgroup.id.to_string(),
        };
        scope.group(group).map(member).collect()
    };
    Groups { control: members(Group::Control), experiment: members(Group::Experiment) }
}

fn mechanisms(rule: &PlannedRule) -> String {
    rule.mechanisms().map(|mechanism| mechanism.name()).collect::<Vec<_>>().join("+")
}

fn phases(spec: &Spec, recording: &Recording) -> Vec<PhaseRecord> {
    let origin_ns = recording.samples.first().map_or(0, |(_, sample)| sample.begin_ns);
    let since_origin_s = |ns: u64| ns.saturating_sub(origin_ns) as f64 / 1e9;
    let timing = spec.timing;
    [(Phase::Baseline, timing.baseline), (Phase::Inject, timing.inject), (Phase::Recover, timing.recover)]
        .into_iter()
        .filter_map(|(phase, planned)| {
            let of_phase: Vec<&Sample> =
                recording.samples.iter().filter(|(of, _)| *of == phase).map(|(_, sample)| sample).collect();
            let (first, last) = (of_phase.first()?, of_phase.last()?);
            let ticks = of_phase.len() - 1;
            Some(PhaseRecord {
                phase,
                start_s: since_origin_s(first.begin_ns),
                seconds: since_origin_s(last.begin_ns) - since_origin_s(first.begin_ns),
                ticks,
                lost: ((planned.as_secs() / TICK.as_secs()) as usize).saturating_sub(ticks),
            })
        })
        .collect()
}
