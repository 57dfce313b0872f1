//! Payloads that are not what was sent.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use chaos_common::{
    Corruption,
    corrupt::MAX_BITS,
    net::{Direction, hook},
};

use super::{checksum, gate_for, owner, segment::Segment, vanish::vanish};
use crate::{
    forget::forget,
    gate::{self, Subject},
    maps::CORRUPTIONS,
    skb::Skb,
};

/// No rule has this number.
const NO_RULE: u32 = u32::MAX;

/// tc egress, as a TCX link or a clsact filter.
#[classifier]
pub fn corrupt_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match gate::subject(|level| skb.ancestor_cgroup_id(level)) {
        None => TC_ACT_UNSPEC,
        Some(subject) => corrupt(&ctx, subject, hook::CORRUPT_EGRESS, Direction::Egress),
    }
}

/// tc ingress, the same way: a program at a cgroup may read what arrives, but not write it. Copies are what their
/// original was.
#[classifier]
pub fn corrupt_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if skb.is_copy() {
        return TC_ACT_UNSPEC;
    }
    match owner::subject(skb, owner::CURRENT_NETNS) {
        None => TC_ACT_UNSPEC,
        Some(subject) => corrupt(&ctx, subject, hook::CORRUPT_INGRESS, Direction::Ingress),
    }
}

/// A packet that cannot be changed, for want of memory, is lost: it must not count as corrupted and arrive whole.
#[inline(always)]
fn corrupt(ctx: &TcContext, subject: Subject, hook: usize, direction: Direction) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(subject) = forget(subject) else { return TC_ACT_UNSPEC };
    let segment = Segment::find(skb).and_then(forget);
    let payload_bytes = segment.map_or(0, |segment| segment.payload_bytes());
    let Some(rule) = forget(decide(skb, &subject, payload_bytes, hook, direction)) else {
        return TC_ACT_UNSPEC;
    };
    let (Some(segment), Some(corruption)) = (segment, CORRUPTIONS.get(rule)) else { return TC_ACT_UNSPEC };
    let draw = gate::draw_for(rule, subject.slot);
    let done = if corruption.breaks_checksum == 0 {
        // A GSO packet has its checksums made when it is cut up, and until then only that of the pseudo header. Of TCP the
        // kernel knows (CHECKSUM_PARTIAL), of UDP it may not: where the device makes none, such a packet is
        // CHECKSUM_NONE (net/ipv4/udp_offload.c, `__udp_gso_segment`, 6.18).
        flip(skb, &segment, corruption, draw, skb.segment_bytes() == 0)
    } else {
        damage(skb, &segment, corruption, draw)
    };
    debug!(ctx, "rule {}: corrupted {} bytes on ifindex {}: {}", rule, skb.len(), skb.ifindex(), done as u32);
    match (done, direction) {
        (true, _) => TC_ACT_UNSPEC,
        (false, Direction::Egress) => vanish(ctx),
        (false, Direction::Ingress) => TC_ACT_SHOT,
    }
}

/// The rule that hits, [`NO_RULE`] if none does. A packet without such a payload as a rule is for is none of its
/// business. A function of its own, for the sake of the stack.
#[inline(never)]
fn decide(skb: Skb, subject: &Subject, payload_bytes: u32, hook: usize, direction: Direction) -> u32 {
    let applies = |rule| CORRUPTIONS.get(rule).is_some_and(|c| c.window(payload_bytes).is_some());
    gate_for(skb, *subject, hook, direction, applies).unwrap_or(NO_RULE)
}

/// Of a GSO packet only its first segment goes on: what is cut later gets new checksums, which would fit. A function
/// of its own, for the sake of the stack.
#[inline(never)]
fn damage(skb: Skb, segment: &Segment, corruption: &Corruption, draw: u32) -> bool {
    let mut segment = *segment;
    let bytes = skb.segment_bytes();
    if bytes != 0 && !checksum::shorten(skb, &mut segment, bytes) {
        return false;
    }
    let Some(segment) = forget(segment) else { return false };
    flip(skb, &segment, corruption, draw, false) && checksum::spoil(skb, &segment, draw)
}

/// Flips bits of the payload, from its end: what may fail is the copy that the kernel makes up to the first byte
/// that is written, so all bits are flipped or none.
#[inline(never)]
fn flip(skb: Skb, segment: &Segment, corruption: &Corruption, draw: u32, follows: bool) -> bool {
    let Some(window) = corruption.window(segment.payload_bytes()) else { return true };
    let count = corruption.bits_in(window);
    // A checksum that follows makes up for what the byte adds to the sum over all (CHECKSUM_COMPLETE).
    let flags = if follows { 0 } else { checksum::RECOMPUTE };
    for done in 0..MAX_BITS {
        if done >= count {
            break;
        }
        let bit = Corruption::bit(window, count - 1 - done, count, draw);
        let at = segment.payload + bit.byte;
        let Some([byte]) = skb.bytes_at(at) else { return false };
        let flipped = byte ^ bit.mask;
        if !skb.store_at(at, &[flipped], flags)
            || (follows && !checksum::follow(skb, segment, at, byte, flipped))
        {
            return false;
        }
    }
    true
}
