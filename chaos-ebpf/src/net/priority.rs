//! Holding packets back where there is no `fq`: a packet is sent by the queue that does it, a `netem`, which delays
//! whatever comes to it. There is one rule that does so; the plan refuses more.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, helpers::bpf_ktime_get_ns, macros::classifier, programs::TcContext};
use aya_log_ebpf::debug;
use chaos_common::{
    net::{Direction, hook},
    priority,
    rule::{Outcome, state_index},
    shape::kind,
};

use super::{asked, parse, vanish::vanish};
use crate::{
    atomic,
    gate::{self, Subject},
    maps::{SHAPE_STATE, SHAPES, SLOTS, global},
    skb::Skb,
};

/// The priority of packets that nobody has given any (include/uapi/linux/pkt_sched.h, TC_PRIO_BESTEFFORT).
const BEST_EFFORT: u32 = 0;

/// How often two CPUs that want the same place are told apart; then both take it.
const ATTEMPTS: u32 = 4;

/// What becomes of a packet.
enum Departure {
    /// It leaves as it would.
    AtOnce,
    /// It waits.
    Later,
    /// There is no room for it on the wire.
    Never,
}

/// tc egress, as a TCX link or a clsact filter. No copy is needed: netem takes the packet off its socket's account
/// (net/sched/sch_netem.c, `netem_enqueue`, `skb_orphan_partial`, 6.18).
#[classifier]
pub fn priority_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if has_waited(skb) {
        return TC_ACT_UNSPEC;
    }
    let Some(subject) = asked(skb, hook::PRIORITY_EGRESS) else { return TC_ACT_UNSPEC };
    let Subject { rules, slot } = subject;
    let asked = gate::only(rules, slot, skb.segments(), || parse::clauses(skb, Direction::Egress));
    let Some((rule, outcome)) = asked else { return TC_ACT_UNSPEC };
    match departure(skb, slot, rule, outcome) {
        Departure::AtOnce => TC_ACT_UNSPEC,
        Departure::Later => {
            debug!(&ctx, "rule {}: {} bytes sent to where they wait", rule, skb.len());
            skb.set_priority(priority::of_slot(slot));
            TC_ACT_UNSPEC
        }
        Departure::Never => {
            debug!(&ctx, "rule {}: no room on the wire for {} bytes", rule, skb.len());
            vanish(&ctx)
        }
    }
}

/// Whether a packet has been held back already, at a device on top of this one, such as a VLAN. It still has its
/// socket, and the priority that would make it wait here too.
#[inline(always)]
fn has_waited(skb: Skb) -> bool {
    let waited = priority::is_ours(skb.priority());
    if waited {
        skb.set_priority(BEST_EFFORT);
    }
    waited
}

/// What a rule's shape makes of what came of asking it.
#[inline(always)]
fn departure(skb: Skb, slot: u32, rule: u32, outcome: Outcome) -> Departure {
    let Some(shape) = SHAPES.get(rule) else { return Departure::AtOnce };
    match (shape.kind, outcome) {
        (kind::DELAY, Outcome::Injected) => Departure::Later,
        (kind::RATE, Outcome::Injected) => transmit(skb, slot, rule),
        (kind::REORDER, Outcome::When | Outcome::Chance | Outcome::Budget) if !gate::is_dry_run(rule) => {
            Departure::Later
        }
        _ => Departure::AtOnce,
    }
}

/// Takes a place on a rule's wire. netem keeps the same account of what waits, but has no burst and no limit in time.
#[inline(always)]
fn transmit(skb: Skb, slot: u32, rule: u32) -> Departure {
    let state = SHAPE_STATE.get_ptr_mut(state_index(rule, slot, global(&SLOTS)));
    let (Some(shape), Some(state)) = (SHAPES.get(rule), state) else { return Departure::AtOnce };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: in bounds of the map value.
    let free = unsafe { &raw mut (*state).free_ns };
    let mut departure = Departure::Later;
    for _ in 0..ATTEMPTS {
        let free_ns = atomic::load(free);
        let Some(end_ns) = shape.transmit(free_ns, now_ns, skb.wire_len()) else { return Departure::Never };
        departure = if end_ns > now_ns { Departure::Later } else { Departure::AtOnce };
        if atomic::compare_exchange(free, free_ns, end_ns) {
            break;
        }
    }
    departure
}
