//! Holding packets back where there is no `fq`: a root `prio`, which sends other packets as `pfifo_fast` would, with a
//! `netem` for each target, to which our program sends what is to wait. netem holds everything back in one way, so
//! there is one fault for each injection, and what netem cannot do is refused or documented.

use std::{fmt, time::Duration};

use chaos_common::{net::Direction, priority::MAX_BANDS, shape::Shape};

use super::{
    Fault, NetEffect,
    delay::{Delay, MOST},
    host_change::{HoldError, HostChange, limit},
    jitter::{Jitter, Order},
    mechanism::Mechanism,
    plan::{Parameters, Place, PlannedRule},
    rate::Rate,
    reorder::Reorder,
};
use crate::{
    target::root_qdisc::RootQdisc,
    units::{BitRate, show_duration},
};

/// What a netem does to every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Netem {
    /// How long it holds each back.
    pub delay: Duration,
    /// How much more or less.
    pub jitter: Option<Jitter>,
    /// How fast the wire is on which they wait for one another, if there is one.
    pub bits_per_s: Option<u64>,
    /// What its random numbers follow from, where the kernel lets us say so.
    pub seed: Option<u64>,
    /// How many packets it holds.
    pub limit: u32,
}

/// A netem for one effect; `None` if that holds nothing back.
fn netem(effect: &NetEffect, seed: Option<u64>) -> Option<Netem> {
    let plain = Netem {
        delay: Duration::ZERO,
        jitter: None,
        bits_per_s: None,
        seed,
        limit: limit(effect.most_held()),
    };
    match effect {
        NetEffect::Delay(Delay { by, jitter }) => Some(Netem { delay: *by, jitter: *jitter, ..plain }),
        NetEffect::Rate(Rate { bits_per_s, .. }) => Some(Netem { bits_per_s: Some(*bits_per_s), ..plain }),
        NetEffect::Reorder(Reorder { by }) => Some(Netem { delay: *by, ..plain }),
        _ => None,
    }
}

/// What the program needs to know that chooses the queue. The jitter is netem's own.
pub fn parameters(effect: &NetEffect) -> Parameters {
    match effect.parameters() {
        Parameters::Shape(shape) => Parameters::Shape(Shape { jitter_ns: 0, ..shape }),
        other => other,
    }
}

/// What it takes to hold packets of so many targets back at `places` by netem.
pub fn to_hold(
    rules: &[PlannedRule],
    places: &[Place],
    targets: usize,
) -> Result<Vec<HostChange>, HoldError> {
    let (netem, hold) = only(rules, targets)?;
    let bands = u32::try_from(targets).unwrap_or(MAX_BANDS).min(MAX_BANDS);
    let at_place = |at: &Place| match &at.device.root {
        RootQdisc::Default { kind } => {
            Ok(HostChange::RootNetem { at: at.clone(), replaces: kind.clone(), netem, bands, hold })
        }
        RootQdisc::Ours => Err(HoldError::ours(at)),
        RootQdisc::Configured { kind, handle } => Err(HoldError::configured(at, kind, *handle)),
        RootQdisc::Fq(_) => Err(HoldError::FqInTheWay { device: at.device.name.clone() }),
    };
    places.iter().map(at_place).collect()
}

/// The one fault that can be done so, as a netem, and how long it holds a packet back at most.
fn only(rules: &[PlannedRule], targets: usize) -> Result<(Netem, Duration), HoldError> {
    let by_netem = || rules.iter().filter(|rule| rule.queues.contains(&Mechanism::Netem));
    let count = by_netem().count();
    let one = by_netem().find_map(|rule| match &rule.fault {
        Fault::Net(net) => Some((rule, net, netem(&net.effect, net.limits.seed)?)),
        Fault::Refuse(_) | Fault::Reset(_) | Fault::Call(_) => None,
    });
    let Some((rule, net, netem)) = one.filter(|_| count == 1) else {
        return Err(HoldError::OneByNetem { count });
    };
    if rule.ways.iter().any(|way| way.direction == Direction::Ingress) {
        return Err(HoldError::NetemOnIngress { fault: net.effect.name() });
    }
    // A wire is for one target; a delay may be for many.
    if netem.bits_per_s.is_some() && targets > MAX_BANDS as usize {
        return Err(HoldError::TooManyWires { targets });
    }
    let hold = net.effect.most_held();
    debug_assert!(hold <= MOST, "parsed");
    Ok((netem, hold))
}

impl Netem {
    /// Whether a packet that is held back longer keeps those behind it waiting.
    pub fn keeps_order(&self) -> bool {
        self.jitter.is_some_and(|jitter| jitter.order == Order::Keep)
    }
}

impl fmt::Display for Netem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits_per_s {
            Some(bits_per_s) => write!(f, "rate {}", BitRate(bits_per_s))?,
            None => write!(f, "delay {}", show_duration(self.delay))?,
        }
        match self.jitter {
            Some(jitter) => write!(f, " ±{} {}", show_duration(jitter.by), jitter.distribution),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::{
            capability::{Capabilities, Capability},
            host_change::tests::{default, delay, fault, scope},
            plan::{Attachment, Note, Options, Plan, PlanError, plan},
        },
        target::{Scope, root_qdisc::Fq},
    };

    fn planned(faults: &[Fault], scope: &Scope) -> Result<Plan, PlanError> {
        plan(faults, scope, &Capabilities::all_but(&[Capability::Fq]), &Options::default())
    }

    fn refused(faults: &[Fault], root: RootQdisc) -> String {
        planned(faults, &scope(&[root])).unwrap_err().to_string()
    }

    fn rate() -> Fault {
        fault("rate", &[("bandwidth", "10mbit")])
    }

    fn with_targets(count: usize) -> Scope {
        let mut scope = scope(&[default("noqueue")]);
        let member = scope.members[0].clone();
        for number in 1..count as u64 {
            let mut other = member.clone();
            other.cgroup.id += number;
            other.cgroup.path.push(number.to_string());
            scope.members.push(other);
        }
        scope
    }

    #[test]
    fn a_kernel_without_fq_holds_packets_back_by_netem() {
        for (fault, does) in [
            (delay("50ms"), "delay 50ms"),
            (fault("delay", &[("by", "1s"), ("jitter", "10ms")]), "delay 1s ±10ms uniform"),
            (rate(), "rate 10mbit"),
            (fault("reorder", &[("by", "10ms"), ("gap", "5")]), "delay 10ms"),
        ] {
            let plan = planned(&[fault], &scope(&[default("noqueue")])).unwrap();
            let change = plan.host_changes[0].to_string();
            let begins = format!("prio with 1 netem ({does}) as root qdisc of eth0 in network namespace ");
            assert!(change.starts_with(&begins) && change.ends_with(", instead of noqueue"), "{change}");
            assert!(plan.rules[0].mechanisms().any(|mechanism| mechanism == Mechanism::Netem));
            assert!(plan.notes.contains(&Note::NetemResidue));
            let programs: Vec<&str> = plan
                .attachments
                .iter()
                .filter_map(|attachment| match attachment {
                    Attachment::Tc { program, .. } => Some(*program),
                    _ => None,
                })
                .collect();
            assert_eq!(programs, ["priority_egress"]);
        }
    }

    #[test]
    fn fq_is_preferred_and_netem_can_be_asked_for() {
        let by = |forced| {
            let options = Options { forced, ..Options::default() };
            let scope = scope(&[default("noqueue")]);
            let plan = plan(&[delay("50ms")], &scope, &Capabilities::all_but(&[]), &options).unwrap();
            plan.rules[0].queues[0]
        };
        assert_eq!(by(None), Mechanism::Fq);
        assert_eq!(by(Some(Mechanism::Netem)), Mechanism::Netem);
        assert_eq!(by(Some(Mechanism::ClsactEgress)), Mechanism::Fq);
    }

    #[test]
    fn each_target_has_a_netem_as_long_as_there_are_bands() {
        let bands = |faults: &[Fault], targets| {
            let plan = planned(faults, &with_targets(targets)).unwrap();
            match &plan.host_changes[..] {
                [HostChange::RootNetem { bands, .. }] => *bands,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(bands(&[rate()], 13), 13);
        assert_eq!(bands(&[delay("50ms")], 20), 13);
        let refused = planned(&[rate()], &with_targets(14)).unwrap_err().to_string();
        assert!(refused.contains("14 targets") && refused.contains("room for 13"), "{refused}");
    }

    #[test]
    fn several_faults_do_not_add_up() {
        let refused = refused(&[delay("50ms"), rate()], default("noqueue"));
        assert!(refused.contains("2 faults hold packets back"), "{refused}");
        assert!(refused.contains("kernel with fq (Linux 5.18"), "{refused}");
        let loss = fault("loss", &[("percent", "5")]);
        planned(&[delay("50ms"), loss], &scope(&[default("noqueue")])).unwrap();
    }

    #[test]
    fn what_is_somebodys_is_refused_with_advice() {
        let configured = RootQdisc::Configured { kind: "htb".into(), handle: 0x10 };
        let said = refused(&[delay("50ms")], configured);
        assert!(said.contains("htb 10:") && said.contains("tc qdisc del dev eth0 root"), "{said}");
        let said = refused(&[delay("50ms")], RootQdisc::Ours);
        assert!(said.contains("another injection"), "{said}");
        let fq = Fq { limit: 10_000, flow_limit: 100, horizon: Duration::from_secs(10) };
        let said = refused(&[delay("50ms")], RootQdisc::Fq(fq));
        assert!(said.contains("eth0 has an fq already"), "{said}");
    }

    #[test]
    fn what_arrives_is_not_held_back_so() {
        let mut plan = planned(&[delay("50ms")], &scope(&[default("noqueue")])).unwrap();
        plan.rules[0].ways[0].direction = Direction::Ingress;
        let refused = to_hold(&plan.rules, &[], 1).unwrap_err().to_string();
        assert!(refused.contains("delay on ingress"), "{refused}");
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let options = Options { dry_run: true, ..Options::default() };
        let without = Capabilities::all_but(&[Capability::Fq]);
        let plan = plan(&[delay("50ms")], &scope(&[default("noqueue")]), &without, &options).unwrap();
        assert!(plan.host_changes.is_empty() && !plan.notes.contains(&Note::NetemResidue));
        assert!(!plan.attachments.is_empty());
    }
}
