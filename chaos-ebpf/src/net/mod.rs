//! Network faults. Direction is a parameter: what leaves and what arrives goes through the same code.

mod checksum;
mod corrupt;
pub mod dns;
mod duplicate;
mod loss;
pub mod named;
mod owner;
pub mod parse;
mod priority;
mod reject;
mod segment;
mod shape;
pub mod turn;
mod vanish;

use chaos_common::net::Direction;

use crate::{
    gate::{self, Subject},
    maps::{NET, global},
    skb::{LOOPBACK_IFINDEX, Skb},
};

/// The gate for packets: whether one of the rules of `hook` hits this one, and which.
#[inline(always)]
fn gate(skb: Skb, hook: usize, direction: Direction) -> Option<u32> {
    gate_with(skb, hook, || parse::clauses(skb, direction))
}

/// The same, for hooks that tell more filter clauses apart.
#[inline(always)]
fn gate_with(skb: Skb, hook: usize, clauses: impl Fn() -> u64) -> Option<u32> {
    let subject = asked(skb, hook)?;
    gate::any(subject.rules, subject.slot, skb.segments(), clauses, |_| true)
}

/// The same for a packet of somebody known; `applies` says whether a rule has anything to do to it.
#[inline(always)]
fn gate_for(
    skb: Skb,
    subject: Subject,
    hook: usize,
    direction: Direction,
    applies: impl Fn(u32) -> bool,
) -> Option<u32> {
    let Subject { rules, slot } = asked_of(skb, subject, hook)?;
    gate::any(rules, slot, skb.segments(), || parse::clauses(skb, direction), applies)
}

/// Whose packet it is, with those rules that `hook` asks; `None` if there are none.
#[inline(always)]
fn asked(skb: Skb, hook: usize) -> Option<Subject> {
    asked_of(skb, gate::subject(|level| skb.ancestor_cgroup_id(level))?, hook)
}

#[inline(always)]
fn asked_of(skb: Skb, subject: Subject, hook: usize) -> Option<Subject> {
    let rules = subject.rules & global(&NET.rules[hook]);
    if rules == 0 || (skb.ifindex() == LOOPBACK_IFINDEX && !uses(chaos_common::net::uses::LOOPBACK)) {
        return None;
    }
    Some(Subject { rules, slot: subject.slot })
}

/// Whether any rule makes use of a feature.
#[inline(always)]
pub fn uses(feature: u32) -> bool {
    global(&NET.uses) & feature != 0
}
