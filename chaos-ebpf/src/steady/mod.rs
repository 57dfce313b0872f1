//! Steady-state counters. Nothing here changes what happens; it only counts, for the groups' slots.

mod block;
mod calls;
mod queue;
mod task;
mod tcp;

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_ancestor_cgroup_id, bpf_ktime_get_ns},
    macros::cgroup_skb,
    maps::LruHashMap,
    programs::SkBuffContext,
};
use chaos_common::{
    Counters, h2,
    net::Direction,
    steady::{Since, errno_index, histogram_index},
};

use crate::{
    atomic, cgroup, gate,
    maps::{STEADY, STEADY_ERRORS, STEADY_TIMES},
    skb::Skb,
};

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

/// An error that a fault gave to a call of a slot, negative as calls return it.
#[inline(always)]
pub fn injected_error(slot: u32, error: i64) {
    if let Some(counters) = STEADY.get_ptr_mut(slot) {
        // SAFETY: in bounds of the map value.
        atomic::add(unsafe { &raw mut (*counters).injected_errors }, 1);
    }
    if let Some(errors) = STEADY_ERRORS.get_ptr_mut(slot) {
        // SAFETY: as above.
        add_at(unsafe { &raw mut (*errors).injected }, errno_index(error), 1);
    }
}

/// The counters of the slot that an ancestor belongs to.
#[inline(always)]
fn counters(ancestor_id: impl Fn(u32) -> u64) -> Option<*mut Counters> {
    STEADY.get_ptr_mut(gate::subject(ancestor_id)?.slot)
}

/// The slot of the thread that runs. Not for softirqs and timers, where that is whoever was interrupted.
#[inline(always)]
fn slot_of_current() -> Option<u32> {
    // SAFETY: the helper has no preconditions.
    let ancestor = |level: u32| unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
    Some(gate::subject(ancestor)?.slot)
}

/// The slot of a cgroup.
#[inline(always)]
fn slot_of(cgroup: u64) -> Option<u32> {
    Some(gate::subject(|level| cgroup::ancestor_id(cgroup, level).unwrap_or(0))?.slot)
}

/// Since now.
#[inline(always)]
fn since_now(slot: u32, series: u32) -> Since {
    // SAFETY: the helper has no preconditions.
    Since { ns: unsafe { bpf_ktime_get_ns() }, slot, series }
}

/// What was noted of a thread, once.
#[inline(always)]
fn end(map: &LruHashMap<u32, Since>, tid: u32) -> Option<Since> {
    let noted = map.get_ptr_mut(tid)?;
    // SAFETY: as above.
    let since = unsafe { *noted };
    // SAFETY: as above.
    unsafe { (*noted).ns = 0 };
    (since.ns != 0).then_some(since)
}

/// Counts how long it has taken until now.
#[inline(always)]
fn count_time(since: Since) {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    count_duration(since.slot, since.series, now_ns.saturating_sub(since.ns));
}

/// Counts a duration.
#[inline(always)]
fn count_duration(slot: u32, series: u32, ns: u64) {
    if let Some(times) = STEADY_TIMES.get_ptr_mut(histogram_index(slot, series)) {
        // SAFETY: in bounds of the map value.
        add_at(unsafe { &raw mut (*times).buckets }, h2::bucket(ns) as usize, 1);
    }
}

/// Adds to one of several counters, if there is such a one. The compiler may know that there is and leave out asking,
/// which the verifier wants to see.
#[inline(always)]
fn add_at<const N: usize>(counters: *mut [u64; N], index: usize, value: u64) {
    let mut asked = index;
    // SAFETY: changes nothing, of which the compiler does not know.
    unsafe { asm!("{0} += 0", inout(reg) asked, options(pure, nomem, nostack)) };
    if asked < N {
        // SAFETY: in bounds of the array.
        atomic::add(unsafe { counters.cast::<u64>().add(asked) }, value);
    }
}
