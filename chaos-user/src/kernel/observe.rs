//! Counters alone: attached where something happens, and nothing else. Nothing of the host is changed, and all of it ends
//! with our descriptors, whatever becomes of us.

use std::fs::File;

use aya::Ebpf;
use chaos_common::{names::program, net::Direction, steady::SockLayout, syscall::CallLayout};
use serde::Serialize;

use super::{
    KernelError, Rollback, attach, btf, counters,
    held::HeldSignals,
    loading,
    object::{self, Globals, SteadyGlobals},
    probe::why,
};
use crate::{
    fault::{
        attachment::topmost,
        plan::{Attachment, PlanError, levels, targets},
    },
    steady::{family::Family, reading::Reading},
    target::{Cgroup, Scope},
};

/// Those of which a plan attaches every program.
pub(super) fn counted_by(attachments: &[Attachment]) -> Vec<Family> {
    let at_tracepoint = |wanted: &&str| {
        attachments.iter().any(
            |attachment| matches!(attachment, Attachment::RawTracepoint { program, .. } if program == wanted),
        )
    };
    let at_cgroup = || {
        attachments.iter().any(|attachment| {
            matches!(attachment, Attachment::CgroupSkb { program, .. } if *program == program::STEADY_EGRESS)
        })
    };
    let is_counted = |family: &Family| match family {
        Family::Net => at_cgroup(),
        _ => family.tracepoints().iter().all(|(program, _)| at_tracepoint(program)),
    };
    Family::ALL.into_iter().filter(is_counted).collect()
}

/// A family that this kernel cannot count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Which.
    pub family: Family,
    /// What it said.
    pub because: String,
}

/// Why nothing can be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The targets are too many, or at too many depths.
    #[error(transparent)]
    Targets(#[from] PlanError),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Counters that count.
#[must_use = "dropping it ends counting"]
pub struct Observation {
    ebpf: Ebpf,
    cgroups: Vec<Cgroup>,
    counted: Vec<Family>,
    programs: usize,
    missing: Vec<Missing>,
}

/// What BTF says; all of it, or none.
fn layouts() -> Result<(SockLayout, CallLayout), String> {
    let (sockets, calls) = (btf::sock_layout()?, btf::call_layout()?);
    btf::steady_layout().map(|_| (sockets, calls))
}

impl Observation {
    /// Attaches what counts these families, as far as the kernel can.
    pub fn start(scope: &Scope, families: &[Family]) -> Result<Self, ObserveError> {
        let _held = HeldSignals::hold()?;
        let (targets, levels) = (targets(scope, 0)?, levels(scope)?);
        let layouts = layouts();
        let steady = SteadyGlobals::of(families);
        let (sockets, calls) = layouts.clone().unwrap_or((SockLayout::UNKNOWN, CallLayout::UNKNOWN));
        let slots = targets.len().max(1) as u32;
        let globals = Globals::of_counters(levels, object::targets(&targets), slots, sockets, calls, steady);
        let ebpf = loading::load(&globals)?;
        let cgroups = scope.members.iter().map(|member| member.cgroup.clone()).collect();
        let mut observation = Self { ebpf, cgroups, counted: Vec::new(), programs: 0, missing: Vec::new() };
        for family in families {
            let attached = match &layouts {
                Err(because) if family.needs_btf() => Err(because.clone()),
                _ => observation.attach(*family, scope),
            };
            match attached {
                Ok(()) => observation.counted.push(*family),
                Err(because) => observation.missing.push(Missing { family: *family, because }),
            }
        }
        Ok(observation)
    }

    fn attach(&mut self, family: Family, scope: &Scope) -> Result<(), String> {
        for (program, tracepoint) in family.tracepoints() {
            attach::raw_tracepoint(&mut self.ebpf, program, tracepoint)
                .map_err(|error| format!("{tracepoint}: {}", why(&error)))?;
            self.programs += 1;
        }
        if family == Family::Net {
            for cgroup in topmost(scope, |_| true) {
                self.attach_at(&cgroup)?;
            }
        }
        Ok(())
    }

    fn attach_at(&mut self, cgroup: &Cgroup) -> Result<(), String> {
        let dir = File::open(&cgroup.dir).map_err(|error| format!("{}: {error}", cgroup.dir.display()))?;
        for (name, direction) in
            [(program::STEADY_EGRESS, Direction::Egress), (program::STEADY_INGRESS, Direction::Ingress)]
        {
            attach::cgroup_skb(&mut self.ebpf, name, direction, &dir).map_err(|error| why(&error))?;
            self.programs += 1;
        }
        Ok(())
    }

    /// What cannot be counted here, and why.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Reads everything.
    pub fn read(&mut self) -> Result<Reading, KernelError> {
        counters::reading(&mut self.ebpf, &self.cgroups, &self.counted)
    }

    /// Detaches everything.
    pub fn rollback(self) -> Rollback {
        let programs = self.programs;
        // A link ends when the kernel loses the last reference to it: its handle in here.
        drop(self);
        let mut rollback = Rollback::default();
        rollback.step::<KernelError>(format!("detach {programs} programs"), Ok(()));
        rollback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_counted_if_nothing_of_it_is_missing() {
        let at = |program, tracepoint| Attachment::RawTracepoint { program, tracepoint };
        let calls = at(program::STEADY_SYSCALLS, "sys_exit");
        let retransmits = at(program::STEADY_RETRANSMITS, "tcp_retransmit_skb");
        assert_eq!(counted_by(&[]), []);
        assert_eq!(counted_by(&[calls, retransmits]), [Family::Calls]);
        let all = Family::ALL.into_iter().flat_map(|family| family.tracepoints());
        let all: Vec<_> = all.map(|(program, tracepoint)| at(program, tracepoint)).collect();
        assert_eq!(counted_by(&all), Family::ALL[1..]);
    }
}
