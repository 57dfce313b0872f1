//! What a plan attaches, where, and in which order.

use std::time::Duration;

use chaos_common::{names::program, net::Direction, syscall::CallPoint};

use super::{
    Fault,
    mechanism::Mechanism,
    net::Hook,
    plan::{PlanError, PlannedRule, Way},
    syscall::{
        place::CallPlace,
        point::{PlannedPoint, Points},
    },
};
use crate::{
    steady::family::Family,
    target::{Cgroup, Device, Group, Netns, Scope},
};

/// So many programs take note that a call begins. Where a kernel preempts threads within programs, it skips one for all
/// other threads of that processor meanwhile (kernel/bpf/trampoline.c, `__bpf_prog_enter_recur`, 7.3), and who was not noted
/// would be taken for still in its last call.
const BEGIN_COPIES: usize = 3;

/// One program at one place.
#[derive(Clone, Debug, PartialEq)]
pub enum Attachment {
    /// A program at a device's packets.
    Tc {
        /// By which of tc's two doors.
        via: Via,
        /// The program.
        program: &'static str,
        /// Which way, seen from the device's network namespace.
        direction: Direction,
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
    /// A link where a cgroup's calls on sockets pass.
    CgroupSock {
        /// The program.
        program: &'static str,
        /// Where.
        cgroup: Cgroup,
    },
    /// A program where system calls pass, on the whole host.
    Call {
        /// Where.
        at: CallPlace,
        /// What it must know.
        point: CallPoint,
    },
    /// Requests to sock_diag, from the controller.
    SockDiag {
        /// For which rule.
        rule: u32,
        /// How often; at once and never again if `None`.
        every: Option<Duration>,
        /// Where.
        netns: Netns,
    },
    /// A raw tracepoint, on the whole host.
    RawTracepoint {
        /// The program.
        program: &'static str,
        /// Where.
        tracepoint: &'static str,
    },
}

/// How a program gets at a device's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A TCX link, before everybody else's.
    Tcx,
    /// A tc filter, on a clsact qdisc that is added if the device has none.
    Clsact,
}

/// The tc programs in the order in which a packet meets them: what takes packets away comes before what changes
/// them, and what holds them back comes last. So does it behind everybody else's on ingress: see [`is_last`].
pub const TC_ORDER: &[&str] = &[
    program::LOSS_EGRESS,
    program::REJECT_EGRESS,
    program::DNS_EGRESS,
    program::CORRUPT_EGRESS,
    program::CORRUPT_INGRESS,
    program::DUPLICATE_EGRESS,
    program::DUPLICATE_INGRESS,
    program::SHAPE_EGRESS,
    program::PRIORITY_EGRESS,
    program::SHAPE_INGRESS,
    program::SHAPE_BY_ACTION,
];

/// Whether a program comes behind everybody else's. What it holds back passes by those that come later.
pub fn is_last(name: &str) -> bool {
    [program::SHAPE_INGRESS, program::SHAPE_BY_ACTION].contains(&name)
}

/// A device in a network namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The namespace.
    pub netns: Netns,
    /// The device.
    pub device: Device,
}

/// Counters first, so that nothing is injected uncounted.
pub fn attachments(
    rules: &[PlannedRule],
    points: &Points,
    scope: &Scope,
    families: &[Family],
) -> Result<Vec<Attachment>, PlanError> {
    let mut attachments = counting(scope, families);
    for way in distinct_ways(rules) {
        let Way { direction, mechanism, hook: Hook { program, .. } } = way;
        let tc = |via, program| {
            let at_each = move |at| Attachment::Tc { via, program, direction, at };
            places(scope).map(|places| places.into_iter().map(at_each))
        };
        match mechanism {
            Mechanism::TcxEgress | Mechanism::TcxIngress => attachments.extend(tc(Via::Tcx, program)?),
            Mechanism::ClsactEgress | Mechanism::ClsactIngress => {
                attachments.extend(tc(Via::Clsact, by_clsact(program, rules))?);
            }
            // Not programs, but the host changes that a program needs.
            Mechanism::Fq | Mechanism::Ifb | Mechanism::Netem => {}
            Mechanism::CgroupSock => {
                let experiment = topmost(scope, |group| group == Group::Experiment);
                attachments.extend(experiment.map(|cgroup| Attachment::CgroupSock { program, cgroup }));
            }
            // No program of ours asks it, and system calls are met at points of their own.
            Mechanism::SockDiag
            | Mechanism::Lsm
            | Mechanism::FmodRetSecurity
            | Mechanism::FmodRetSyscall
            | Mechanism::Kprobe => {}
            Mechanism::CgroupSkbIngress => {
                let experiment = topmost(scope, |group| group == Group::Experiment);
                attachments.extend(experiment.map(|cgroup| Attachment::CgroupSkb {
                    program,
                    direction,
                    cgroup,
                }));
            }
        }
    }
    let begin = |function: &String| vec![CallPlace::Begin(function.clone()); BEGIN_COPIES];
    let begins = points.begins.iter().flat_map(begin);
    let unjudged = begins.chain(points.waits.iter().cloned().map(CallPlace::Delay));
    attachments.extend(unjudged.map(|at| Attachment::Call { at, point: CallPoint::NONE }));
    let call = |planned: &PlannedPoint| Attachment::Call { at: planned.at.clone(), point: planned.point };
    attachments.extend(points.points.iter().map(call));
    for (number, planned) in (0..).zip(rules) {
        if let Fault::Reset(reset) = &planned.fault {
            attachments.extend(reset.attachments(number, scope));
        }
    }
    Ok(attachments)
}

/// What counts these, counters of packets first.
fn counting(scope: &Scope, families: &[Family]) -> Vec<Attachment> {
    let mut attachments = Vec::new();
    if families.contains(&Family::Net) {
        for cgroup in topmost(scope, |_| true) {
            let at =
                |program, direction| Attachment::CgroupSkb { program, direction, cgroup: cgroup.clone() };
            attachments.push(at(program::STEADY_EGRESS, Direction::Egress));
            attachments.push(at(program::STEADY_INGRESS, Direction::Ingress));
        }
    }
    let tracepoints = families.iter().flat_map(|family| family.tracepoints());
    attachments
        .extend(tracepoints.map(|(program, tracepoint)| Attachment::RawTracepoint { program, tracepoint }));
    attachments
}

/// The program that does by a filter what another does by a link. Where nothing is held back, there is no ifb that a
/// filter's actions could name.
fn by_clsact(name: &'static str, rules: &[PlannedRule]) -> &'static str {
    let is_dry_run = rules.iter().all(|planned| planned.rule.dry_run != 0);
    if name == program::SHAPE_INGRESS && !is_dry_run { program::SHAPE_BY_ACTION } else { name }
}

/// Each program once, those first that a packet meets last: a TCX link is put before those that are there.
fn distinct_ways(rules: &[PlannedRule]) -> Vec<Way> {
    let mut ways: Vec<Way> = Vec::new();
    for way in rules.iter().flat_map(|rule| &rule.ways) {
        if !ways.contains(way) {
            ways.push(*way);
        }
    }
    ways.sort_by_key(|way| std::cmp::Reverse(tc_rank(way.hook.program)));
    ways
}

/// How many of [`TC_ORDER`] come before a program.
pub fn tc_rank(program: &str) -> usize {
    TC_ORDER.iter().position(|other| *other == program).unwrap_or(TC_ORDER.len())
}

/// The cgroups that no other member lies above: programs attached there see the packets of all below, and
/// attached to both they would see some twice.
pub fn topmost(scope: &Scope, wanted: impl Fn(Group) -> bool) -> impl Iterator<Item = Cgroup> {
    let members: Vec<&Cgroup> =
        scope.members.iter().filter(|member| wanted(member.group)).map(|member| &member.cgroup).collect();
    let below_another =
        |cgroup: &Cgroup| members.iter().any(|o| o.id != cgroup.id && o.contains(&cgroup.path));
    let topmost: Vec<Cgroup> =
        members.iter().filter(|cgroup| !below_another(cgroup)).map(|c| (*c).clone()).collect();
    topmost.into_iter()
}

/// Every device of every namespace of the experimental group, once.
pub fn places(scope: &Scope) -> Result<Vec<Place>, PlanError> {
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
