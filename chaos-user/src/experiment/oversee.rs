//! Who watches over a run while it goes on: before anything is done, and in every second of it.

use super::{
    Insist, Spec,
    calibrate::Known,
    events::{DoseWatch, Ends, ProcessWatch, doses},
    guards::Guards,
    preflight::{Finding, PreflightInput, dry_rules, members, preflight, refusals},
    watch::{GuardRecord, Processes},
};
use crate::{
    judge::{AbortReason, InvalidReason, delivery::RuleDelivery, power::Shape},
    report::Watched,
    steady::{
        rates,
        sample::{Part, Phase, Sample},
    },
    target::{Group, Scope},
};

/// Everything that watches over one run.
#[derive(Debug)]
pub struct Oversight<'a> {
    spec: &'a Spec,
    scope: &'a Scope,
    groups: Vec<Group>,
    /// As planned: what they did is in the readings.
    rules: Vec<RuleDelivery>,
    force: bool,
    known: Vec<Known>,
    findings: Vec<Finding>,
    watches: Option<Watches>,
}

/// What watches once the baseline is over.
#[derive(Debug)]
struct Watches {
    guards: Guards,
    processes: ProcessWatch,
    doses: DoseWatch,
}

impl<'a> Oversight<'a> {
    /// Over a run of this spec, whose faults were planned as these rules.
    pub fn new(spec: &'a Spec, scope: &'a Scope, rules: Vec<RuleDelivery>, insist: &Insist) -> Self {
        let (groups, force, known) = (scope.groups(), insist.force, insist.known.clone());
        Self { spec, scope, groups, rules, force, known, findings: Vec::new(), watches: None }
    }

    /// Once the baseline is over, in which the rules were armed dry: why nothing may be injected, if so.
    pub fn ready(&mut self, baseline: &[(Part, Sample)]) -> Vec<InvalidReason> {
        let (Some((_, first)), Some((_, last))) = (baseline.first(), baseline.last()) else { return vec![] };
        let ticks = rates::ticks(baseline, &self.groups);
        let names: Vec<String> = self.rules.iter().map(|rule| rule.name.clone()).collect();
        let (timing, facts) = (&self.spec.timing, members(self.scope));
        self.findings = preflight(&PreflightInput {
            gates: &self.spec.gates,
            checks: &self.spec.checks,
            baseline: &ticks,
            confidence: self.spec.confidence,
            pulses: timing.design.has_pulses().then_some(Shape {
                block: timing.block.as_secs() as usize,
                settle: timing.settle.as_secs_f64().ceil() as usize,
                pairs: timing.pulses,
            }),
            known: &self.known,
            members: &facts,
            dry_rules: Some(&dry_rules(&names, &self.groups, [&first.rules, &last.rules])),
            force: self.force,
        });
        let asked = Processes::of(&self.spec.abort_if, &self.spec.faults);
        let targets = self.scope.members.iter().map(|member| (member.group, member.target.to_string()));
        self.watches = Some(Watches {
            guards: Guards::new(&self.spec.abort_if, &self.spec.checks, &ticks),
            processes: ProcessWatch::new(asked, targets.collect(), [&ends(first), &ends(last)]),
            doses: DoseWatch::new(&self.rules, doses(&last.rules, &self.groups)),
        });
        refusals(&self.findings)
    }

    /// Two readings after the baseline, one after the other: why the run must end, if so. What recovers has nothing left
    /// that could be ended.
    pub fn tick(&mut self, part: Part, earlier: &Sample, later: &Sample) -> Result<(), AbortReason> {
        let Some(watches) = &mut self.watches else { return Ok(()) };
        if part == Part::Phase(Phase::Recover) {
            return Ok(());
        }
        let tick = rates::last_tick(part, earlier, later, &self.groups);
        // Every one of them sees every reading.
        let fired = [
            watches.processes.read(&ends(later)),
            watches.doses.read(&doses(&later.rules, &self.groups)),
            tick.and_then(|tick| watches.guards.tick(&tick, part.is_on())),
        ];
        fired.into_iter().flatten().next().map_or(Ok(()), |fired| Err(fired.into()))
    }

    /// What was found and seen, for the report.
    pub fn watched(self) -> Watched {
        let guards = self.watches.map_or_else(Vec::new, |watches| {
            let mut records: Vec<GuardRecord> = watches.guards.evidence();
            records.extend(watches.processes.evidence());
            records.extend(watches.doses.evidence());
            records
        });
        Watched { preflight: self.findings, guards, invariants: Vec::new(), probes: Vec::new() }
    }
}

fn ends(sample: &Sample) -> Vec<Ends> {
    sample.slots.iter().map(Ends::from).collect()
}
