//! Loss that looks like the wire's: the sender is not told, the receiver sees nothing. Or, if asked for, like a full
//! queue of the sender's own.

use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::{cgroup_skb, classifier},
    programs::{SkBuffContext, TcContext},
};
use aya_log_ebpf::debug;
use chaos_common::net::{Direction, hook};

use super::{gate, vanish::vanish};
use crate::{
    maps::{NET, global},
    skb::Skb,
};

/// Verdicts of a cgroup_skb program (kernel/bpf/cgroup.c, `__cgroup_bpf_run_filter_skb`, 6.18).
pub(super) mod cgroup_verdict {
    pub const DROP: i32 = 0;
    pub const PASS: i32 = 1;
}

/// tc egress, as a TCX link or a clsact filter. Packets that are not lost go on to the next program:
/// TC_ACT_UNSPEC is TCX_NEXT, where TC_ACT_OK would end the chain and bypass a CNI's programs.
#[classifier]
pub fn loss_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match gate(skb, hook::LOSS_EGRESS, Direction::Egress) {
        None => TC_ACT_UNSPEC,
        Some(rule) => {
            debug!(&ctx, "rule {}: lost {} bytes leaving ifindex {}", rule, skb.len(), skb.ifindex());
            if is_told(rule) { TC_ACT_SHOT } else { vanish(&ctx) }
        }
    }
}

/// Whether the sender is told, by NET_XMIT_DROP (net/core/dev.c, `sch_handle_egress`, 6.18).
#[inline(always)]
fn is_told(rule: u32) -> bool {
    global(&NET.told) & (1 << rule) != 0
}

/// cgroup_skb ingress: attached to the target's cgroup, so nobody else's packets come by.
#[cgroup_skb(ingress)]
pub fn loss_ingress(ctx: SkBuffContext) -> i32 {
    let skb = Skb(ctx.as_ptr().cast());
    match gate(skb, hook::LOSS_INGRESS, Direction::Ingress) {
        None => cgroup_verdict::PASS,
        Some(rule) => {
            debug!(&ctx, "rule {}: lost {} bytes arriving on ifindex {}", rule, skb.len(), skb.ifindex());
            cgroup_verdict::DROP
        }
    }
}
