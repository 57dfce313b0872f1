//! What a plan counts, and so which metrics there are.

use super::{
    capability::{Capabilities, Capability},
    note::Note,
    plan::{Options, PlanError},
};
use crate::{experiment::hypothesis::Metric, steady::family::Family};

impl Options {
    /// What is counted where the kernel can. System calls, and what is timed, are only if a gate asks or the user does:
    /// their tracepoints cost every task of the host something.
    pub(crate) fn families(&self) -> Vec<Family> {
        let Some(gates) = &self.gates else { return Vec::new() };
        let always = [Family::Net, Family::Tcp, Family::Processes];
        let asked = gates.iter().filter_map(|gate| gate.counted()).chain(self.observe.iter().copied());
        let asked: Vec<Family> = always.into_iter().chain(asked).collect();
        let is_asked = |family: &Family| match family {
            // How long calls took is told by where they end.
            Family::Calls => asked.contains(family) || asked.contains(&Family::Latency),
            _ => asked.contains(family),
        };
        Family::ALL.into_iter().filter(is_asked).collect()
    }

    /// A gate that is made of this.
    fn gate_on(&self, family: Family) -> Option<Metric> {
        self.gates.iter().flatten().find(|gate| gate.counted() == Some(family)).copied()
    }
}

/// What will be counted.
pub(super) fn countable(
    capabilities: &Capabilities,
    options: &Options,
) -> Result<(Vec<Family>, Vec<Note>), PlanError> {
    let (mut families, mut notes) = (Vec::new(), Vec::new());
    for family in options.families() {
        let lacks = needs(family).iter().find(|capability| !capabilities.has(**capability));
        match (lacks, options.gate_on(family)) {
            (None, _) => families.push(family),
            (Some(lacks), Some(metric)) => return Err(PlanError::Unmeasurable { metric, lacks: *lacks }),
            (Some(lacks), None) => notes.push(Note::NotMeasured { family, lacks: *lacks }),
        }
    }
    if families.contains(&Family::Calls) {
        notes.push(Note::SyscallTracepoint);
    }
    Ok((families, notes))
}

/// What will be measured: gates first, each once.
pub(crate) fn metrics(families: &[Family], options: &Options) -> Vec<Metric> {
    let Some(gates) = &options.gates else { return Vec::new() };
    let counted = families.iter().flat_map(|family| Metric::counted_with(*family));
    let mut metrics = Vec::new();
    for metric in gates.iter().copied().chain(counted).chain(Metric::of_files()) {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    metrics
}

/// What it takes to count something.
pub const fn needs(family: Family) -> &'static [Capability] {
    match family {
        Family::Net => &[Capability::CgroupSkb],
        Family::Calls => &[Capability::SyscallTracepoint],
        Family::Latency => &[Capability::SyscallTracepoint, Capability::RetransmitTracepoint],
        // All of them are raw tracepoints whose programs read the kernel's memory.
        Family::Tcp | Family::Processes | Family::RunQueue | Family::Block => {
            &[Capability::RetransmitTracepoint]
        }
    }
}
