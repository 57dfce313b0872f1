//! Holding packets back where there is no `fq`: a packet is sent by the queue that does it, a `netem`, which delays
//! whatever comes to it.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use aya_log_ebpf::debug;
use chaos_common::{
    net::{Direction, hook},
    priority,
};

use super::{asked, shape::departure, vanish::vanish};
use crate::skb::Skb;

/// The priority of packets that nobody has given any (include/uapi/linux/pkt_sched.h, TC_PRIO_BESTEFFORT).
const BEST_EFFORT: u32 = 0;

/// tc egress, as a TCX link or a clsact filter. No copy is needed: netem takes the packet off its socket's account
/// (net/sched/sch_netem.c, `netem_enqueue`, `skb_orphan_partial`, 6.18).
#[classifier]
pub fn priority_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if has_waited(skb) {
        return TC_ACT_UNSPEC;
    }
    let Some(subject) = asked(skb, hook::PRIORITY_EGRESS) else { return TC_ACT_UNSPEC };
    let departure = departure(skb, subject, Direction::Egress);
    if departure.is_dropped {
        debug!(&ctx, "rules {:x}: no room on the wire for {} bytes", departure.hits, skb.len());
        return vanish(&ctx);
    }
    if departure.waits() {
        debug!(&ctx, "rules {:x}: {} bytes sent to where they wait", departure.hits, skb.len());
        skb.set_priority(priority::of_slot(subject.slot));
    }
    TC_ACT_UNSPEC
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
