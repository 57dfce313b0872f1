//! Steady-state counters. Nothing here changes what happens; it only counts, for the groups' slots.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_ancestor_cgroup_id,
    macros::{cgroup_skb, raw_tracepoint},
    programs::{RawTracePointContext, SkBuffContext},
};
use chaos_common::{Counters, net::Direction, steady::is_error};

use crate::{atomic, cgroup, gate, maps::STEADY, skb::Skb};

/// The verdict that lets a packet pass.
const PASS: i32 = 1;

/// Packets leaving the group's sockets.
#[cgroup_skb(egress)]
pub fn steady_egress(ctx: SkBuffContext) -> i32 {
    packet(Skb(ctx.as_ptr().cast()), Direction::Egress)
}

/// Packets arriving at the group's sockets.
#[cgroup_skb(ingress)]
pub fn steady_ingress(ctx: SkBuffContext) -> i32 {
    packet(Skb(ctx.as_ptr().cast()), Direction::Ingress)
}

/// Egress runs in process context with bottom halves on, so softirqs may count on the same CPU in between.
#[inline(always)]
fn packet(skb: Skb, direction: Direction) -> i32 {
    if let Some(counters) = counters(|level| skb.ancestor_cgroup_id(level)) {
        // SAFETY: in bounds of the map value.
        let (packets, bytes) = unsafe {
            match direction {
                Direction::Egress => (&raw mut (*counters).tx_packets, &raw mut (*counters).tx_bytes),
                Direction::Ingress => (&raw mut (*counters).rx_packets, &raw mut (*counters).rx_bytes),
            }
        };
        atomic::add(packets, u64::from(skb.segments()));
        atomic::add(bytes, u64::from(skb.len()));
    }
    PASS
}

/// Finished system calls: `TP_PROTO(struct pt_regs *regs, long ret)` (include/trace/events/syscalls.h, 6.18).
/// The exit alone says both that a call happened and whether it failed.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn steady_syscalls(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the helper has no preconditions; this is task context, so `current` is the caller.
    let ancestor = |level: u32| unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
    if let Some(counters) = counters(ancestor) {
        let ret: u64 = ctx.arg(1);
        // SAFETY: in bounds of the map value.
        unsafe {
            atomic::add(&raw mut (*counters).syscalls, 1);
            if is_error(ret as i64) {
                atomic::add(&raw mut (*counters).syscall_errors, 1);
            }
        }
    }
    0
}

/// TCP retransmissions, by the *socket's* cgroup: they happen in softirq and timers, where `current` is
/// whoever was interrupted. The socket is the first argument (include/trace/events/tcp.h, 6.18).
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn steady_retransmits(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let Some(cgroup) = cgroup::of_socket(sk) else { return 0 };
    if let Some(counters) = counters(|level| cgroup::ancestor_id(cgroup, level).unwrap_or(0)) {
        // SAFETY: in bounds of the map value.
        unsafe { atomic::add(&raw mut (*counters).tcp_retransmits, 1) };
    }
    0
}

/// An error that a fault gave to a call of a slot.
#[inline(always)]
pub fn injected_error(slot: u32) {
    if let Some(counters) = STEADY.get_ptr_mut(slot) {
        // SAFETY: in bounds of the map value.
        atomic::add(unsafe { &raw mut (*counters).injected_errors }, 1);
    }
}

/// The counters of the slot that an ancestor belongs to.
#[inline(always)]
fn counters(ancestor_id: impl Fn(u32) -> u64) -> Option<*mut Counters> {
    STEADY.get_ptr_mut(gate::subject(ancestor_id)?.slot)
}
