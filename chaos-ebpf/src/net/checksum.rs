//! The checksum of TCP and UDP (RFC 1071): made to fit what was changed, or made wrong.

use aya_ebpf::{
    bindings::{
        BPF_CSUM_LEVEL_RESET, BPF_F_MARK_MANGLED_0, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{bpf_csum_level, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room},
};

use super::{parse::ipproto, segment::Segment};
use crate::{
    maps::{HEADER_BYTES, HEADERS},
    skb::Skb,
};

/// The size of what is replaced is given in the flags.
const TWO_BYTES: u64 = 2;
/// Where the device has summed the whole packet (CHECKSUM_COMPLETE), its sum follows what is stored.
pub const RECOMPUTE: u64 = BPF_F_RECOMPUTE_CSUM as u64;

/// Makes the checksum fit one changed byte. Where it is not computed yet (CHECKSUM_PARTIAL) there is nothing to do,
/// and a UDP datagram without one stays without (net/core/filter.c, `bpf_l4_csum_replace`, 6.18).
#[inline(always)]
pub fn follow(skb: Skb, segment: &Segment, at: u32, before: u8, after: u8) -> bool {
    // Words are summed; the byte beside ours has not changed, so it may as well be 0. Calculated, as the verifier
    // would follow both ways from here for each bit.
    let word = |byte: u8| u16::from_le(u16::from(byte) << (((at - segment.transport) & 1) * 8));
    let flags = TWO_BYTES | (u64::from(segment.udp) * u64::from(BPF_F_MARK_MANGLED_0));
    // SAFETY: the helper has no preconditions.
    unsafe {
        bpf_l4_csum_replace(skb.0, segment.checksum(), word(before).into(), word(after).into(), flags) == 0
    }
}

/// Makes a GSO packet its own first segment.
#[inline(always)]
pub fn shorten(skb: Skb, segment: &mut Segment, payload_bytes: u32) -> bool {
    let end = segment.payload + payload_bytes;
    if end > segment.end || !skb.resize(end) {
        return false;
    }
    segment.end = end;
    let network_bytes = (end - segment.network) as u16;
    let stored = if segment.ipv6 != 0 {
        skb.store_at(segment.network + 4, &(network_bytes - 40).to_be_bytes(), RECOMPUTE)
    } else {
        ipv4_length(skb, segment.network, network_bytes)
    };
    let datagram_bytes = ((end - segment.transport) as u16).to_be_bytes();
    stored && (segment.udp == 0 || skb.store_at(segment.transport + 4, &datagram_bytes, RECOMPUTE))
}

/// Changes the length in an IPv4 header, and its checksum (RFC 791, section 3.1).
#[inline(always)]
fn ipv4_length(skb: Skb, header: u32, bytes: u16) -> bool {
    let Some(before) = skb.bytes_at(header + 2).map(u16::from_ne_bytes) else { return false };
    let after = bytes.to_be();
    // SAFETY: the helper has no preconditions.
    let fits =
        unsafe { bpf_l3_csum_replace(skb.0, header + 10, before.into(), after.into(), TWO_BYTES) == 0 };
    fits && skb.store_at(header + 2, &after.to_ne_bytes(), 0)
}

/// Gives a packet a checksum that is certainly wrong, and makes the kernel forget that nobody need verify it.
#[inline(always)]
pub fn spoil(skb: Skb, segment: &Segment, draw: u32) -> bool {
    // SAFETY: the helper has no preconditions; it changes nothing unless the device has verified the packet.
    unsafe { bpf_csum_level(skb.0, BPF_CSUM_LEVEL_RESET.into()) };
    if is_left_to_the_device(skb, segment) {
        // Asked again: taking it back changes the answer, or has failed.
        if !take_back(skb, segment) || is_left_to_the_device(skb, segment) {
            return false;
        }
    }
    let field = segment.checksum();
    if !skb.store_at(field, &[0, 0], RECOMPUTE) {
        return false;
    }
    let Some(right) = right(skb, segment) else { return false };
    skb.store_at(field, &wrong(right, draw).to_ne_bytes(), RECOMPUTE)
}

/// One bit of 16 makes the sum another in any case; 0 would say that a datagram has none.
#[inline(always)]
fn wrong(right: u16, draw: u32) -> u16 {
    match right ^ (1 << (draw & 15)) {
        0 => right ^ (1 << ((draw + 1) & 15)),
        wrong => wrong,
    }
}

/// Whether the checksum is still to be made by the device (CHECKSUM_PARTIAL), which would make it fit, or is taken on
/// trust by the other end of a veth, which has none to make. No field tells; the helper leaves it alone then, and
/// changes it otherwise.
#[inline(always)]
fn is_left_to_the_device(skb: Skb, segment: &Segment) -> bool {
    let field = segment.checksum();
    let before: Option<[u8; 2]> = skb.bytes_at(field);
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_l4_csum_replace(skb.0, field, 0, 1, TWO_BYTES) };
    let stays = before == skb.bytes_at(field);
    // Undone: a sum over all (CHECKSUM_COMPLETE) has not followed, and would be wrong from here on by as much.
    // SAFETY: as above.
    unsafe { bpf_l4_csum_replace(skb.0, field, 1, 0, TWO_BYTES) };
    stays
}

/// Makes the checksum ours to write: the kernel drops CHECKSUM_PARTIAL from a packet that loses the header to be
/// summed (include/linux/skbuff.h, `skb_postpull_rcsum`, 6.18). So the headers are taken out and put back.
#[inline(always)]
fn take_back(skb: Skb, segment: &Segment) -> bool {
    const ROOM: usize = HEADER_BYTES;
    /// What the kernel wants to be left (net/core/filter.c, `bpf_skb_net_base_len`, 6.18).
    const LEFT: u32 = 40;
    if segment.transport >= ROOM as u32 {
        return false;
    }
    let (length, least) = (skb.len(), segment.network + ROOM as u32 + LEFT);
    if length < least && !skb.resize(least) {
        return false;
    }
    // SAFETY: nobody else uses this CPU's before we are done.
    let Some(headers) = HEADERS.get_ptr_mut(0).map(|headers| unsafe { &mut *headers }) else { return false };
    if !skb.load_at(segment.network, headers) {
        return false;
    }
    // SAFETY: the helper has no preconditions.
    let moved = unsafe {
        bpf_skb_adjust_room(skb.0, -(ROOM as i32), BPF_ADJ_ROOM_MAC, 0) == 0
            && bpf_skb_adjust_room(skb.0, ROOM as i32, BPF_ADJ_ROOM_MAC, 0) == 0
    };
    moved && skb.store_at(segment.network, headers, RECOMPUTE) && (length >= least || skb.resize(length))
}

/// The right checksum of a segment whose own is 0.
#[inline(always)]
fn right(skb: Skb, segment: &Segment) -> Option<u16> {
    let addresses = if segment.ipv6 != 0 {
        total(skb.words_at::<8>(segment.network + 8)?)
    } else {
        total(skb.words_at::<2>(segment.network + 12)?)
    };
    let protocol = if segment.udp != 0 { ipproto::UDP } else { ipproto::TCP };
    let bytes = segment.end - segment.transport;
    let pseudo_header = addresses + u64::from(u16::from(protocol).to_be()) + u64::from(bytes.to_be());
    let mut sum = pseudo_header + sum(skb, segment.transport, segment.end)?;
    for _ in 0..4 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    Some(!(sum as u16))
}

/// Sums the bytes of a packet as words, in their own order; 32 bits at a time, which folds to the same.
#[inline(always)]
fn sum(skb: Skb, start: u32, end: u32) -> Option<u64> {
    /// The longest packet that can be summed has 16 KiB, more than any that is no GSO packet.
    const BLOCKS: u32 = 256;
    const BLOCK_WORDS: usize = 16;
    const BLOCK: u32 = 4 * BLOCK_WORDS as u32;
    let (mut at, mut sum) = (start, 0);
    for _ in 0..BLOCKS {
        if end - at < BLOCK {
            break;
        }
        sum += total(skb.words_at::<BLOCK_WORDS>(at)?);
        at += BLOCK;
    }
    for _ in 0..BLOCK_WORDS {
        if end - at < 4 {
            break;
        }
        sum += total(skb.words_at::<1>(at)?);
        at += 4;
    }
    for n in 0..3_u32 {
        if at == end {
            break;
        }
        let [byte] = skb.bytes_at(at)?;
        sum += u64::from(u16::from_ne_bytes(if n & 1 == 0 { [byte, 0] } else { [0, byte] }));
        at += 1;
    }
    (at == end).then_some(sum)
}

#[inline(always)]
fn total<const N: usize>(words: [u32; N]) -> u64 {
    words.iter().fold(0, |sum, word| sum + u64::from(*word))
}
