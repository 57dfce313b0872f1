//! From faults and scope to what will be done: data, printable, nothing hidden.

use std::collections::BTreeSet;

use chaos_common::{
    Budget, Rule, Target as TargetEntry, When,
    names::program,
    net::{Direction, NetConfig},
    rule::{Levels, MAX_LEVELS, MAX_RULES_PER_HOOK, MAX_SLOTS},
};

use super::{
    DirectionSpec, Fault, LossFault, LossModel,
    capability::{Capabilities, Capability},
    clause::{ClauseError, Clauses},
    mechanism::{Mechanism, Unplannable, choose},
};
use crate::{
    experiment::hypothesis::Metric,
    target::{Cgroup, Device, Group, Netns, Scope},
};

/// How *this* kernel will do it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// By rule number.
    pub rules: Vec<PlannedRule>,
    /// By cgroup.
    pub targets: Vec<PlannedTarget>,
    /// The depths they sit at.
    pub levels: Levels,
    /// What all packet filters come to.
    pub clauses: Clauses,
    /// What is attached, in order.
    pub attachments: Vec<Attachment>,
    /// Metrics that will be measured.
    pub metrics: Vec<Metric>,
    /// What a human should know before saying yes.
    pub notes: Vec<Note>,
}

/// One fault as the kernel will see it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRule {
    /// The fault.
    pub fault: Fault,
    /// What goes into the map.
    pub rule: Rule,
    /// How it is done.
    pub mechanisms: Vec<Mechanism>,
}

/// One cgroup that something concerns.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedTarget {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// Its group.
    pub group: Group,
    /// What goes into the map.
    pub entry: TargetEntry,
}

/// One program at one place.
#[derive(Clone, Debug, PartialEq)]
pub enum Attachment {
    /// A TCX link, first on the device's egress.
    Tcx {
        /// The device.
        at: Place,
    },
    /// A tc filter, on a clsact qdisc that is added if the device has none.
    Clsact {
        /// The device.
        at: Place,
    },
    /// A link at a cgroup's packets.
    CgroupSkb {
        /// The program.
        program: &'static str,
        /// Which way.
        direction: Direction,
        /// Where.
        cgroup: Cgroup,
    },
    /// A raw tracepoint, on the whole host.
    RawTracepoint {
        /// The program.
        program: &'static str,
        /// Where.
        tracepoint: &'static str,
    },
}

/// A device in a network namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The namespace.
    pub netns: Netns,
    /// The device.
    pub device: Device,
}

/// What a human should know before saying yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Costs others something.
    SyscallTracepoint,
    /// Survives a SIGKILL.
    ClsactResidue,
    /// Cannot be measured here.
    NotMeasured {
        /// What.
        metric: Metric,
        /// Because the kernel lacks this.
        lacks: Capability,
    },
}

/// How to plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Decide and count everything, inject nothing.
    pub dry_run: bool,
    /// Use this mechanism wherever it is on the ladder.
    pub forced: Option<Mechanism>,
    /// Metrics that must be measured.
    pub gates: Vec<Metric>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The kernel cannot.
    #[error(transparent)]
    Unplannable(#[from] Unplannable),
    /// The filters do not fit.
    #[error(transparent)]
    Clauses(#[from] ClauseError),
    /// Too many faults.
    #[error("{0} faults for one target; at most {MAX_RULES_PER_HOOK} can look at one packet")]
    TooManyRules(usize),
    /// Too many targets.
    #[error("{0} targets; at most {MAX_SLOTS} can be counted apart: name a cgroup above several of them")]
    TooManyTargets(usize),
    /// Too many depths.
    #[error(
        "the targets sit at {0} different depths of the cgroup hierarchy; at most {MAX_LEVELS} are possible"
    )]
    TooManyLevels(usize),
    /// A gate on something that this kernel cannot measure.
    #[error("{} cannot be measured on this kernel: it lacks {lacks} ({})", metric.name(), lacks.provided_by())]
    Unmeasurable {
        /// The gate's metric.
        metric: Metric,
        /// What is missing.
        lacks: Capability,
    },
    /// Nothing to lose packets at.
    #[error(
        "{target}: its network namespace has no device that is up besides lo, so nothing can be lost on the way out"
    )]
    NoDevices {
        /// As asked.
        target: String,
    },
}

/// Plans faults for a scope on a kernel.
pub fn plan(
    faults: &[Fault],
    scope: &Scope,
    capabilities: &Capabilities,
    options: &Options,
) -> Result<Plan, PlanError> {
    if faults.len() > MAX_RULES_PER_HOOK as usize {
        return Err(PlanError::TooManyRules(faults.len()));
    }
    let mut clauses = Clauses::default();
    let rules = faults
        .iter()
        .map(|Fault::Loss(loss)| plan_loss(loss, capabilities, options, &mut clauses))
        .collect::<Result<Vec<_>, _>>()?;
    clauses.finish()?;
    (clauses.config.egress_rules, clauses.config.ingress_rules) = hook_rules(&rules);
    let (metrics, mut notes) = measurable(capabilities, options)?;
    let attachments = attachments(&rules, scope, &metrics)?;
    notes.extend(residue(&attachments));
    Ok(Plan {
        targets: targets(scope, rules.len())?,
        levels: levels(scope)?,
        rules,
        clauses,
        attachments,
        metrics,
        notes,
    })
}

fn plan_loss(
    loss: &LossFault,
    capabilities: &Capabilities,
    options: &Options,
    clauses: &mut Clauses,
) -> Result<PlannedRule, PlanError> {
    let mechanisms = directions(loss.direction)
        .iter()
        .map(|direction| choose(*direction, capabilities, options.forced))
        .collect::<Result<Vec<_>, _>>()?;
    let (match_clauses, allow_clauses) = clauses.add(&loss.filter)?;
    let budget = Budget { max: loss.limits.max.unwrap_or(u64::MAX), ..Budget::UNLIMITED };
    let rule = Rule {
        dry_run: options.dry_run.into(),
        spare: 0,
        match_clauses,
        allow_clauses,
        when: match loss.model {
            LossModel::Every(n) => When::every(n),
            _ => loss.limits.when,
        },
        seed: loss.limits.seed.unwrap_or(0),
        budget: budget.with_rate(loss.limits.rate_per_s.unwrap_or(0)),
        loss: loss.model.to_kernel(),
    };
    Ok(PlannedRule { fault: Fault::Loss(loss.clone()), rule, mechanisms })
}

/// The directions a specification stands for.
pub const fn directions(spec: DirectionSpec) -> &'static [Direction] {
    match spec {
        DirectionSpec::Egress => &[Direction::Egress],
        DirectionSpec::Ingress => &[Direction::Ingress],
        DirectionSpec::Both => &[Direction::Egress, Direction::Ingress],
    }
}

/// Rules that look at packets leaving, and at packets arriving.
fn hook_rules(rules: &[PlannedRule]) -> (u64, u64) {
    let mask = |wanted: &[Mechanism]| {
        let uses = |rule: &PlannedRule| rule.mechanisms.iter().any(|mechanism| wanted.contains(mechanism));
        (0..).zip(rules).filter(|(_, rule)| uses(rule)).fold(0, |mask, (number, _)| mask | (1_u64 << number))
    };
    (mask(&[Mechanism::TcxEgress, Mechanism::ClsactEgress]), mask(&[Mechanism::CgroupSkbIngress]))
}

/// The metrics that will be measured. System calls are counted only if a gate asks: their tracepoint costs
/// every task of the host something.
fn measurable(capabilities: &Capabilities, options: &Options) -> Result<(Vec<Metric>, Vec<Note>), PlanError> {
    let (mut metrics, mut notes) = (Vec::new(), Vec::new());
    for metric in Metric::ALL {
        let (gated, needs) = (options.gates.contains(&metric), needs(metric));
        let on_request = matches!(needs, Capability::SyscallTracepoint);
        if capabilities.has(needs) {
            if gated || !on_request || options.gates.iter().any(|gate| self::needs(*gate) == needs) {
                metrics.push(metric);
            }
        } else if gated {
            return Err(PlanError::Unmeasurable { metric, lacks: needs });
        } else if !on_request {
            notes.push(Note::NotMeasured { metric, lacks: needs });
        }
    }
    if metrics.contains(&Metric::Syscalls) {
        notes.push(Note::SyscallTracepoint);
    }
    Ok((metrics, notes))
}

/// What it takes to measure a metric.
pub const fn needs(metric: Metric) -> Capability {
    match metric {
        Metric::TxPackets | Metric::TxBytes | Metric::RxPackets | Metric::RxBytes => Capability::CgroupSkb,
        Metric::Syscalls | Metric::SyscallErrorRatio => Capability::SyscallTracepoint,
        Metric::TcpRetransRatio => Capability::RetransmitTracepoint,
    }
}

fn targets(scope: &Scope, rules: usize) -> Result<Vec<PlannedTarget>, PlanError> {
    if scope.members.len() > MAX_SLOTS as usize {
        return Err(PlanError::TooManyTargets(scope.members.len()));
    }
    let all_rules = (1_u64 << rules) - 1;
    let targets = (0..).zip(&scope.members).map(|(slot, member)| PlannedTarget {
        cgroup: member.cgroup.clone(),
        group: member.group,
        entry: TargetEntry {
            rules: if member.group == Group::Experiment { all_rules } else { 0 },
            slot,
            spare: 0,
        },
    });
    Ok(targets.collect())
}

fn levels(scope: &Scope) -> Result<Levels, PlanError> {
    let distinct: BTreeSet<u32> = scope.members.iter().map(|member| member.cgroup.level).collect();
    if distinct.len() > MAX_LEVELS {
        return Err(PlanError::TooManyLevels(distinct.len()));
    }
    let mut levels = Levels { count: distinct.len() as u32, level: [0; MAX_LEVELS] };
    for (entry, level) in levels.level.iter_mut().zip(distinct) {
        *entry = level;
    }
    Ok(levels)
}

/// Counters first, so that nothing is injected uncounted.
fn attachments(
    rules: &[PlannedRule],
    scope: &Scope,
    metrics: &[Metric],
) -> Result<Vec<Attachment>, PlanError> {
    let mut attachments = Vec::new();
    if metrics.contains(&Metric::TxPackets) {
        for cgroup in topmost(scope, |_| true) {
            let at =
                |program, direction| Attachment::CgroupSkb { program, direction, cgroup: cgroup.clone() };
            attachments.push(at(program::STEADY_EGRESS, Direction::Egress));
            attachments.push(at(program::STEADY_INGRESS, Direction::Ingress));
        }
    }
    if metrics.contains(&Metric::Syscalls) {
        attachments
            .push(Attachment::RawTracepoint { program: program::STEADY_SYSCALLS, tracepoint: "sys_exit" });
    }
    if metrics.contains(&Metric::TcpRetransRatio) {
        let (program, tracepoint) = (program::STEADY_RETRANSMITS, "tcp_retransmit_skb");
        attachments.push(Attachment::RawTracepoint { program, tracepoint });
    }
    let uses = |mechanism| rules.iter().any(|rule| rule.mechanisms.contains(&mechanism));
    if uses(Mechanism::TcxEgress) {
        attachments.extend(places(scope)?.into_iter().map(|at| Attachment::Tcx { at }));
    }
    if uses(Mechanism::ClsactEgress) {
        attachments.extend(places(scope)?.into_iter().map(|at| Attachment::Clsact { at }));
    }
    if uses(Mechanism::CgroupSkbIngress) {
        let (program, direction) = (program::NET_INGRESS, Direction::Ingress);
        let experiment = topmost(scope, |group| group == Group::Experiment);
        attachments.extend(experiment.map(|cgroup| Attachment::CgroupSkb { program, direction, cgroup }));
    }
    Ok(attachments)
}

/// The cgroups that no other member lies above: programs attached there see the packets of all below, and
/// attached to both they would see some twice.
fn topmost(scope: &Scope, wanted: impl Fn(Group) -> bool) -> impl Iterator<Item = Cgroup> {
    let members: Vec<&Cgroup> =
        scope.members.iter().filter(|member| wanted(member.group)).map(|member| &member.cgroup).collect();
    let below_another =
        |cgroup: &Cgroup| members.iter().any(|o| o.id != cgroup.id && o.contains(&cgroup.path));
    let topmost: Vec<Cgroup> =
        members.iter().filter(|cgroup| !below_another(cgroup)).map(|c| (*c).clone()).collect();
    topmost.into_iter()
}

/// Every device of every namespace of the experimental group, once.
fn places(scope: &Scope) -> Result<Vec<Place>, PlanError> {
    let mut places: Vec<Place> = Vec::new();
    for (_, member) in scope.group(Group::Experiment) {
        if member.namespaces.iter().all(|namespace| namespace.devices.is_empty()) {
            return Err(PlanError::NoDevices { target: member.target.to_string() });
        }
        for namespace in &member.namespaces {
            for device in &namespace.devices {
                let place = Place { netns: namespace.netns.clone(), device: device.clone() };
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
    }
    Ok(places)
}

fn residue(attachments: &[Attachment]) -> Option<Note> {
    let clsact = attachments.iter().any(|attachment| matches!(attachment, Attachment::Clsact { .. }));
    clsact.then_some(Note::ClsactResidue)
}

impl Plan {
    /// Constants that all network programs share.
    pub const fn net_config(&self) -> NetConfig {
        self.clauses.config
    }
}
