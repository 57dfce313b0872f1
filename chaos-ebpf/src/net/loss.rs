//! Loss that looks like the wire's: the sender is not told, the receiver sees nothing.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_INGRESS, TC_ACT_UNSPEC},
    helpers::bpf_redirect,
    macros::{cgroup_skb, classifier},
    programs::{SkBuffContext, TcContext},
};
use aya_log_ebpf::debug;
use chaos_common::net::Direction;

use super::gate;
use crate::skb::{LOOPBACK_IFINDEX, Skb};

/// Verdicts of a cgroup_skb program (kernel/bpf/cgroup.c, `__cgroup_bpf_run_filter_skb`, 6.18).
mod cgroup_verdict {
    pub const DROP: i32 = 0;
    pub const PASS: i32 = 1;
}

/// A unicast address that `lo`, whose own is all zeros, does not have (locally administered).
const NOBODY: [u8; 6] = [0x02, 0x6b, 0x63, 0x68, 0x61, 0x6f];

/// tc egress, as a TCX link or a clsact filter. Packets that are not lost go on to the next program:
/// TC_ACT_UNSPEC is TCX_NEXT, where TC_ACT_OK would end the chain and bypass a CNI's programs.
#[classifier]
pub fn net_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match gate(skb, Direction::Egress) {
        None => TC_ACT_UNSPEC,
        Some(rule) => {
            debug!(&ctx, "rule {}: lost {} bytes leaving ifindex {}", rule, skb.len(), skb.ifindex());
            lose(&ctx)
        }
    }
}

/// cgroup_skb ingress: attached to the target's cgroup, so nobody else's packets come by.
#[cgroup_skb(ingress)]
pub fn net_ingress(ctx: SkBuffContext) -> i32 {
    let skb = Skb(ctx.as_ptr().cast());
    match gate(skb, Direction::Ingress) {
        None => cgroup_verdict::PASS,
        Some(rule) => {
            debug!(&ctx, "rule {}: lost {} bytes arriving on ifindex {}", rule, skb.len(), skb.ifindex());
            cgroup_verdict::DROP
        }
    }
}

/// Makes a packet disappear behind the sender's back: it is redirected to `lo`'s receive side, which drops
/// it as meant for another host, and the sender gets NET_XMIT_SUCCESS (net/core/dev.c,
/// `sch_handle_egress`, TC_ACT_REDIRECT, 6.18). TC_ACT_SHOT would report NET_XMIT_DROP up to TCP, which
/// then knows at once, and TCX maps TC_ACT_STOLEN to "next program": the packet would pass.
#[inline(always)]
fn lose(ctx: &TcContext) -> i32 {
    if Skb(ctx.skb.skb).ifindex() == LOOPBACK_IFINDEX {
        // On lo itself the destination address is lo's own; make it somebody else's. If that fails
        // (no memory), the packet passes rather than being reported as dropped.
        if ctx.skb.store(0, &NOBODY, 0).is_err() {
            return TC_ACT_UNSPEC;
        }
    }
    // SAFETY: the helper only notes where to redirect to.
    unsafe { bpf_redirect(LOOPBACK_IFINDEX, u64::from(BPF_F_INGRESS)) as i32 }
}
