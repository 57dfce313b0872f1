//! Packets that arrive more than once.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_UNSPEC},
    helpers::bpf_clone_redirect,
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use chaos_common::{
    duplicate::MAX_COPIES,
    net::{Direction, hook},
};

use super::{gate, gate_for, owner};
use crate::{
    maps::{COPY, DUPLICATIONS, global},
    skb::Skb,
};

/// tc egress, as a TCX link or a clsact filter. A copy comes by again, and has no socket (net/core/skbuff.c,
/// `__skb_clone`, 6.18): it is nobody's, so that it is neither copied again nor shown to any other fault.
#[classifier]
pub fn duplicate_egress(ctx: TcContext) -> i32 {
    if let Some(rule) = gate(Skb(ctx.skb.skb), hook::DUPLICATE_EGRESS, Direction::Egress) {
        copy(&ctx, rule, 0);
    }
    TC_ACT_UNSPEC
}

/// tc ingress. A copy comes by again and would be somebody's again, so it carries a mark in `tc_index`, which no
/// driver sets and the way back leaves alone, and which `skb->mark` is not: that belongs to others. Packets that have
/// an index already are left alone.
#[classifier]
pub fn duplicate_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if skb.is_copy() {
        skb.set_index(0);
        return TC_ACT_UNSPEC;
    }
    let Some(subject) = owner::subject(skb, owner::CURRENT_NETNS) else { return TC_ACT_UNSPEC };
    let applies = |_| skb.index() == 0;
    if let Some(rule) = gate_for(skb, subject, hook::DUPLICATE_INGRESS, Direction::Ingress, applies) {
        skb.set_index(global(&COPY));
        // A kernel without the field would show us our copies for ever.
        if skb.is_copy() {
            copy(&ctx, rule, u64::from(BPF_F_INGRESS));
        }
        skb.set_index(0);
    }
    TC_ACT_UNSPEC
}

/// Sends copies to where the packet is.
#[inline(always)]
fn copy(ctx: &TcContext, rule: u32, flags: u64) {
    let skb = Skb(ctx.skb.skb);
    let copies = DUPLICATIONS.get(rule).map_or(0, |duplication| duplication.copies);
    debug!(ctx, "rule {}: {} copies of {} bytes on ifindex {}", rule, copies, skb.len(), skb.ifindex());
    for done in 0..MAX_COPIES {
        if done >= copies {
            break;
        }
        // SAFETY: the helper has no preconditions. What it says is what became of the copy on its way, which may
        // end in a full queue like any other packet's.
        unsafe { bpf_clone_redirect(skb.0, skb.ifindex(), flags) };
    }
}
