//! Network faults. Direction is a parameter: what leaves and what arrives goes through the same code.

mod loss;
mod parse;

use chaos_common::net::Direction;

use crate::{
    gate,
    maps::{NET, global},
    skb::{LOOPBACK_IFINDEX, Skb},
};

/// The gate for packets: whether a rule says that this one is lost, and which.
#[inline(always)]
fn gate(skb: Skb, direction: Direction) -> Option<u32> {
    let hook_rules = match direction {
        Direction::Egress => global(&NET.egress_rules),
        Direction::Ingress => global(&NET.ingress_rules),
    };
    let subject = gate::subject(|level| skb.ancestor_cgroup_id(level))?;
    let rules = subject.rules & hook_rules;
    if rules == 0 || (skb.ifindex() == LOOPBACK_IFINDEX && !uses(chaos_common::net::uses::LOOPBACK)) {
        return None;
    }
    gate::any(rules, subject.slot, || parse::clauses(skb, direction))
}

/// Whether any rule makes use of a feature.
#[inline(always)]
fn uses(feature: u32) -> bool {
    global(&NET.uses) & feature != 0
}
