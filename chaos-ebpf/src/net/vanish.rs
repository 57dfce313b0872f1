//! Making a packet disappear without telling its sender.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_UNSPEC},
    helpers::bpf_redirect,
    programs::TcContext,
};

use crate::skb::{LOOPBACK_IFINDEX, Skb};

/// A unicast address that `lo`, whose own is all zeros, does not have (locally administered).
const NOBODY: [u8; 6] = [0x02, 0x6b, 0x63, 0x68, 0x61, 0x6f];

/// Makes a packet disappear behind the sender's back: it is redirected to `lo`'s receive side, which drops
/// it as meant for another host, and the sender gets NET_XMIT_SUCCESS (net/core/dev.c,
/// `sch_handle_egress`, TC_ACT_REDIRECT, 6.18). TC_ACT_SHOT would report NET_XMIT_DROP up to TCP, which
/// then knows at once, and TCX maps TC_ACT_STOLEN to "next program": the packet would pass.
#[inline(always)]
pub(super) fn vanish(ctx: &TcContext) -> i32 {
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
