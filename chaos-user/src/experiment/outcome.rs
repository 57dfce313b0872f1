//! What a run knows of itself, as reports have it.

use std::io;

use super::record::RunFacts;
use crate::{
    fault::plan::{Plan, PlannedRule},
    kernel::Rollback,
    report::{Groups, Member, RollbackStep},
    target::{Group, Scope},
};

/// What the run knows and readings do not tell.
pub(super) fn facts(scope: &Scope, plan: &Plan, rollback: &Rollback) -> io::Result<RunFacts> {
    let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let step = |step: &crate::kernel::RollbackStep| RollbackStep {
        what: step.error.as_ref().map_or(step.what.clone(), |error| format!("{}: {error}", step.what)),
        ok: step.error.is_none(),
    };
    Ok(RunFacts {
        tool_version: env!("CARGO_PKG_VERSION").into(),
        kernel,
        groups: groups(scope),
        mechanisms: plan.rules.iter().map(mechanisms).collect(),
        has_calls: plan.rules.iter().any(|rule| !rule.calls.is_empty()),
        rollback: rollback.steps.iter().map(step).collect(),
    })
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
