//! What came of an experiment, as reports have it.

use std::io;

use super::{Outcome, Recording, Spec, phases::TICK};
use crate::{
    fault::plan::PlannedRule,
    report::{Facts, Groups, Member, PhaseRecord, Report, RollbackStep, Watched},
    steady::{
        rates,
        sample::{Part, Sample},
    },
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
            seed: spec.timing.design.has_pulses().then_some(spec.timing.seed),
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
    let planned = spec.timing.parts();
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
    rates::parts(&recording.samples).filter_map(record).collect()
}
