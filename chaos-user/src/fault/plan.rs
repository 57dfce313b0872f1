//! From faults and scope to what will be done: data, printable, nothing hidden.

use std::{collections::BTreeSet, time::Duration};

use chaos_common::{
    Corruption, Duplication, Rule, Target as TargetEntry, When,
    dns::DnsAnswer,
    net::{Direction, MAX_HOOKS, NetConfig, uses},
    rule::{Levels, MAX_LEVELS, MAX_RULES_PER_HOOK, MAX_SLOTS},
    shape::{MAX_SHAPES, Shape},
    syscall::{CallEffect, CallFilter, MAX_CALLS},
};

use super::{
    Fault, Limits, NetEffect, NetFault, Pattern,
    attachment::attachments,
    capability::{Capabilities, Capability},
    clause::{ClauseError, Clauses},
    count,
    course::Course,
    filter::directions,
    host_change::{HoldError, HostChange, queues, to_hold},
    mechanism::{Mechanism, Unplannable, choose},
    net::Hook,
    netem, note,
    show::way,
    spared::{self, Spared},
    syscall::{
        Syscall,
        point::{PlannedCall, Points},
    },
};
pub use super::{
    attachment::{Attachment, Place, TC_ORDER, Via, is_last, tc_rank},
    note::Note,
};
use crate::{
    experiment::hypothesis::Metric,
    steady::family::Family,
    target::{Cgroup, Group, Scope},
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
    /// The default allow-list; empty if no fault heeds it.
    pub spared: Vec<Spared>,
    /// What is attached, in order.
    pub attachments: Vec<Attachment>,
    /// What is changed on the host then, in order.
    pub host_changes: Vec<HostChange>,
    /// Where system calls are judged.
    pub points: Points,
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
    /// What goes into the map, at first.
    pub rule: Rule,
    /// What its programs need to know besides.
    pub parameters: Parameters,
    /// How it is done, each way it goes.
    pub ways: Vec<Way>,
    /// What holds packets back, if it does.
    pub queues: Vec<Mechanism>,
    /// How the controller does it itself, where no program does.
    pub ourselves: Option<Mechanism>,
    /// The system calls that it is for, and how each is met.
    pub calls: Vec<PlannedCall>,
    /// Those that this kernel has no way for.
    pub unmet: Vec<Syscall>,
}

/// What the programs of a fault need to know besides its rule. Each kind has a map of its own, by rule number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// Nothing.
    None,
    /// How packets are held back.
    Shape(Shape),
    /// What calls fail with.
    Refuse {
        /// The error's number.
        errno: u32,
    },
    /// How to answer: one of [`reject`](chaos_common::net::reject).
    Reject(u32),
    /// What to answer.
    Dns(DnsAnswer),
    /// Of a fault that corrupts.
    Corrupt(Corruption),
    /// Of a fault that duplicates.
    Duplicate(Duplication),
    /// What happens to system calls, and to which.
    Call {
        /// What.
        effect: CallEffect,
        /// Which, but for the paths.
        filter: CallFilter,
    },
}

/// How a fault is done to what goes one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which way.
    pub direction: Direction,
    /// By what.
    pub mechanism: Mechanism,
    /// The program that asks the gate.
    pub hook: Hook,
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

/// How to plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Decide and count everything, inject nothing.
    pub dry_run: bool,
    /// Use this mechanism wherever it is on the ladder.
    pub forced: Option<Mechanism>,
    /// Metrics that must be measured, beside what the kernel can measure anyway; nothing is if `None`.
    pub gates: Option<Vec<Metric>>,
    /// What is to be counted beside that.
    pub observe: Vec<Family>,
}

impl Options {
    pub(super) fn is_gated(&self, metric: Metric) -> bool {
        self.gates.as_ref().is_some_and(|gates| gates.contains(&metric))
    }
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
    /// Nothing is left to be hit.
    #[error(
        "{fault}: all that its filter asks for is spared by default: {}; write `allow_defaults: false` \
         (`--allow-defaults false`) if you mean it",
        spared::list(entries)
    )]
    AllSpared {
        /// The fault.
        fault: &'static str,
        /// What it asks for.
        entries: Vec<Spared>,
    },
    /// Too many faults.
    #[error("{0} faults for one target; at most {MAX_RULES_PER_HOOK} can look at one packet")]
    TooManyRules(usize),
    /// Too many that add up.
    #[error("{0} faults hold packets back; at most {MAX_SHAPES} can add up for one packet")]
    TooManyShapes(usize),
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
    /// Packets cannot be held back there.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// Some of what the target does would pass by.
    #[error(
        "{fault}: {target} uses io_uring (process {process}), and this kernel meets {call} only at the call itself, which \
         rings pass by; write `io_uring: ignore` (`--io-uring ignore`) if that will do"
    )]
    Rings {
        /// The fault.
        fault: &'static str,
        /// As asked.
        target: String,
        /// Who.
        process: u32,
        /// What would pass by.
        call: Syscall,
    },
    /// Too many pairs of a point and a call.
    #[error("{0} system calls at one point or another; at most {MAX_CALLS}: choose fewer calls")]
    TooManyCalls(usize),
    /// A kprobe's answer would be lost.
    #[error(
        "{function} would be failed by a kprobe, and another of these faults has a program of its own there, which takes the \
         kprobe's answer away: inject one after the other"
    )]
    AnswerLost {
        /// Where.
        function: String,
    },
    /// Nothing to meet packets at.
    #[error(
        "{target}: its network namespace has no device that is up besides lo, where packets could be met"
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
    let (spared, named) = spared::heeded(faults, scope)?;
    clauses.spare(&spared)?;
    let mut rules = faults
        .iter()
        .map(|fault| match fault {
            Fault::Net(net) => plan_net(net, capabilities, options, &mut clauses),
            Fault::Refuse(refuse) => refuse.plan(capabilities, options, &mut clauses),
            Fault::Reset(reset) => reset.plan(capabilities, options),
            Fault::Call(call) => call.plan(capabilities, options),
        })
        .collect::<Result<Vec<_>, _>>()?;
    for planned in &mut rules {
        if let Some(course) = Course::of(&planned.fault) {
            planned.rule = course.rule_at(planned.rule, Duration::ZERO);
        }
    }
    let shapes = rules.iter().filter(|rule| matches!(rule.parameters, Parameters::Shape(_))).count();
    if shapes > MAX_SHAPES as usize {
        return Err(PlanError::TooManyShapes(shapes));
    }
    clauses.finish()?;
    if scope.devices().all(|device| device.ethernet) {
        clauses.config.uses |= uses::ETHERNET;
    }
    clauses.config.rules = hook_rules(&rules);
    clauses.config.told = rules_that(&rules, |net| net.effect.is_told());
    let (families, mut notes) = count::countable(capabilities, options)?;
    let mut metrics = count::metrics(&families, options);
    // Where no fault gives errors, all are organic, and that is one of the metrics already.
    let gives_errors = rules.iter().any(|planned| planned.fault.gives_errors());
    metrics
        .retain(|metric| *metric != Metric::OrganicErrorRatio || gives_errors || options.is_gated(*metric));
    let points = planned_points(&rules, scope)?;
    let attachments = attachments(&rules, &points, scope, &families)?;
    let (host_changes, known) = to_hold(&rules, scope, options.dry_run)?;
    notes.extend(known);
    notes.extend(note::of_residue(&attachments));
    notes.extend(note::of_calls(&rules));
    notes.extend(named);
    Ok(Plan {
        host_changes,
        targets: targets(scope, rules.len())?,
        levels: levels(scope)?,
        rules,
        clauses,
        spared,
        points,
        attachments,
        metrics,
        notes,
    })
}

fn plan_net(
    net: &NetFault,
    capabilities: &Capabilities,
    options: &Options,
    clauses: &mut Clauses,
) -> Result<PlannedRule, PlanError> {
    let queues = queues(net, capabilities, options.forced)?;
    let by_netem = queues.contains(&Mechanism::Netem);
    let hook = |direction| if by_netem { Hook::PRIORITY } else { net.effect.hook(direction) };
    let way = |direction: &Direction| {
        let what = format!("{} on {}", net.effect.name(), way(*direction));
        let mechanism = choose(net.effect.ladder(*direction), &what, capabilities, options.forced)?;
        Ok::<_, Unplannable>(Way { direction: *direction, mechanism, hook: hook(*direction) })
    };
    let ways = directions(net.direction).iter().map(way).collect::<Result<Vec<_>, _>>()?;
    let clauses = match &net.effect {
        NetEffect::Dns(dns) => clauses.add_queries(&net.filter, dns)?,
        _ => clauses.add(&net.filter)?,
    };
    let rule = rule(&net.pattern, &net.limits, clauses, options);
    let parameters = if by_netem { netem::parameters(&net.effect) } else { net.effect.parameters() };
    Ok(PlannedRule {
        fault: Fault::Net(net.clone()),
        rule,
        parameters,
        ways,
        queues,
        ourselves: None,
        calls: Vec::new(),
        unmet: Vec::new(),
    })
}

/// What goes into the map: `clauses` are those of which one must match, and those of which none may.
pub fn rule(pattern: &Pattern, limits: &Limits, clauses: (u64, u64), options: &Options) -> Rule {
    let (match_clauses, allow_clauses) = clauses;
    Rule {
        dry_run: options.dry_run.into(),
        dormant: 0,
        match_clauses,
        allow_clauses,
        when: match pattern {
            Pattern::Every(n) => When::every(*n),
            _ => limits.when,
        },
        seed: limits.seed.unwrap_or(0),
        budget: limits.budget(),
        pattern: pattern.to_kernel(),
    }
}

/// The rules of which something is true.
fn rules_that(rules: &[PlannedRule], is: impl Fn(&NetFault) -> bool) -> u64 {
    let those = (0..).zip(rules).filter(|(_, rule)| match &rule.fault {
        Fault::Net(net) => is(net),
        Fault::Refuse(_) | Fault::Reset(_) | Fault::Call(_) => false,
    });
    those.fold(0, |rules, (number, _): (u32, _)| rules | 1 << number)
}

/// For each hook, the rules that it asks.
fn hook_rules(rules: &[PlannedRule]) -> [u64; MAX_HOOKS] {
    let mut hooks = [0; MAX_HOOKS];
    for (number, rule) in rules.iter().enumerate() {
        rule.ways.iter().for_each(|way| hooks[way.hook.index] |= 1_u64 << number);
    }
    hooks
}

/// Whom it concerns: each member, with a slot of its own.
pub fn targets(scope: &Scope, rules: usize) -> Result<Vec<PlannedTarget>, PlanError> {
    if scope.members.len() > MAX_SLOTS as usize {
        return Err(PlanError::TooManyTargets(scope.members.len()));
    }
    let all_rules = (1_u64 << rules) - 1;
    let targets = (0..).zip(&scope.members).map(|(slot, member)| PlannedTarget {
        cgroup: member.cgroup.clone(),
        group: member.group,
        entry: TargetEntry::of(
            member.cgroup.id,
            if member.group == Group::Experiment { all_rules } else { 0 },
            slot,
        ),
    });
    Ok(targets.collect())
}

/// The depths that members sit at.
pub fn levels(scope: &Scope) -> Result<Levels, PlanError> {
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

/// Where calls are judged; a target whose rings would pass by is refused.
fn planned_points(rules: &[PlannedRule], scope: &Scope) -> Result<Points, PlanError> {
    for planned in rules {
        let Fault::Call(fault) = &planned.fault else { continue };
        let Some(call) = fault.rings_pass_by(planned) else { continue };
        for (_, member) in scope.group(Group::Experiment) {
            if let Some(process) = member.ring {
                let target = member.target.to_string();
                return Err(PlanError::Rings { fault: fault.name, target, process, call });
            }
        }
    }
    let points = Points::of(rules);
    if let Some(function) = points.answer_lost() {
        return Err(PlanError::AnswerLost { function: function.to_owned() });
    }
    match points.points.iter().map(|point| point.entries.len()).sum() {
        count if count > MAX_CALLS as usize => Err(PlanError::TooManyCalls(count)),
        _ => Ok(points),
    }
}

impl Plan {
    /// Constants that all network programs share.
    pub const fn net_config(&self) -> NetConfig {
        self.clauses.config
    }

    /// The rules whose pattern moves on by one step for each segment of a packet.
    pub fn by_segment(&self) -> u64 {
        rules_that(&self.rules, |net| net.effect.is_by_segment() && !net.pattern.to_kernel().is_memoryless())
    }

    /// Whether any rule names paths.
    pub fn by_path(&self) -> bool {
        self.rules.iter().any(PlannedRule::names_paths)
    }
}

impl PlannedRule {
    /// Whether it names paths.
    fn names_paths(&self) -> bool {
        matches!(&self.fault, Fault::Call(fault) if !fault.filter.paths.is_empty())
    }

    /// By what it is done.
    pub fn mechanisms(&self) -> impl Iterator<Item = Mechanism> {
        let ways = self.ways.iter().map(|way| way.mechanism);
        let calls = self.calls.iter().map(|planned| planned.way.rung.mechanism());
        let queues = self.queues.iter().copied();
        let mut mechanisms: Vec<_> = Vec::new();
        for mechanism in ways.chain(queues).chain(self.ourselves).chain(calls) {
            if !mechanisms.contains(&mechanism) {
                mechanisms.push(mechanism);
            }
        }
        mechanisms.into_iter()
    }
}
