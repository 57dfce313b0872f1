//! Partitions that answer: the target is told at once, as if by its peer, that nothing gets through.

use aya_ebpf::{
    EbpfContext,
    bindings::TC_ACT_UNSPEC,
    macros::{cgroup_skb, classifier},
    programs::{SkBuffContext, TcContext},
};
use chaos_common::{
    net::{Direction, hook, reject},
    packet::{IPV4_BYTES, IPV6_BYTES, TCP_BYTES, checksum, is_our_reset, protocol, write_reset},
};

use super::{
    gate,
    loss::cgroup_verdict,
    parse::ethertype,
    turn::{self, Sent, sum_of},
    vanish::vanish,
};
use crate::{
    maps::{REJECT_ANSWER, REJECTS},
    skb::Skb,
};

/// tc egress. What cannot be answered disappears.
#[classifier]
pub fn reject_egress(ctx: TcContext) -> i32 {
    match gate(Skb(ctx.skb.skb), hook::REJECT_EGRESS, Direction::Egress) {
        None => TC_ACT_UNSPEC,
        Some(rule) => match answer(&ctx, rule) {
            Some(()) => turn::back(&ctx),
            None => vanish(&ctx),
        },
    }
}

/// cgroup_skb ingress. Our resets come by here: they are spared, and are not asked about.
#[cgroup_skb(ingress)]
pub fn reject_ingress(ctx: SkBuffContext) -> i32 {
    let skb = Skb(ctx.as_ptr().cast());
    if is_answer(skb) {
        return cgroup_verdict::PASS;
    }
    match gate(skb, hook::REJECT_INGRESS, Direction::Ingress) {
        None => cgroup_verdict::PASS,
        Some(_) => cgroup_verdict::DROP,
    }
}

/// How an answer goes on after its IP header.
struct Shape {
    protocol: u8,
    bytes: u16,
    checksum_at: usize,
}

#[inline(always)]
fn answer(ctx: &TcContext, rule: u32) -> Option<()> {
    let (skb, sent) = (Skb(ctx.skb.skb), Sent::read(ctx)?);
    // SAFETY: the map's one entry is there, and is this CPU's own.
    let answer = unsafe { &mut *REJECT_ANSWER.get_ptr_mut(0)? };
    let payload = answer.payload.first_chunk_mut()?;
    *payload = [0; PAYLOAD_BYTES];
    let shape = match *REJECTS.get(rule)? {
        reject::RST => reset(skb, &sent, payload)?,
        _ => prohibited(skb, &sent, payload)?,
    };
    let sum = sum_of(payload)?;
    let pseudo = sent.address(skb, answer, shape.protocol, shape.bytes)?;
    // ICMP alone has no pseudo-header in its checksum (RFC 792).
    let sum = if shape.protocol == protocol::ICMP { sum } else { sum + pseudo };
    answer.payload[shape.checksum_at..shape.checksum_at + 2].copy_from_slice(&checksum(sum).to_be_bytes());
    sent.turn(ctx, answer, shape.bytes)
}

/// Room for the longest: an ICMPv6 message.
const PAYLOAD_BYTES: usize = 64;

#[inline(always)]
fn reset(skb: Skb, sent: &Sent, payload: &mut [u8; PAYLOAD_BYTES]) -> Option<Shape> {
    if sent.protocol != protocol::TCP {
        return None;
    }
    let header: [u8; TCP_BYTES] = skb.bytes(sent.ip_bytes())?;
    let header_bytes = u32::from(header[12] >> 4) * 4;
    write_reset(payload.first_chunk_mut()?, &header, sent.payload_bytes.checked_sub(header_bytes)?)?;
    Some(Shape { protocol: protocol::TCP, bytes: TCP_BYTES as u16, checksum_at: 16 })
}

/// "Communication administratively prohibited", which Linux tells programs as EHOSTUNREACH for IPv4
/// (net/ipv4/icmp.c, `icmp_err_convert`) and as EACCES for IPv6 (net/ipv6/icmp.c, `tab_unreach`, 6.18).
///
/// The message quotes the packet that it is about: its IP header, and a little of the rest (RFC 792).
#[inline(always)]
fn prohibited(skb: Skb, sent: &Sent, payload: &mut [u8; PAYLOAD_BYTES]) -> Option<Shape> {
    const ICMP_BYTES: usize = 8;
    const QUOTED_V4_BYTES: usize = IPV4_BYTES + 8;
    const QUOTED_V6_BYTES: usize = IPV6_BYTES + 8;
    if !may_be_told(skb, sent) {
        return None;
    }
    let (header, quote) = payload.split_at_mut(ICMP_BYTES);
    if sent.is_v4 {
        (header[0], header[1]) = (3, 13);
        skb.load(0, &mut quote[..QUOTED_V4_BYTES])?;
        Some(Shape { protocol: protocol::ICMP, bytes: (ICMP_BYTES + QUOTED_V4_BYTES) as u16, checksum_at: 2 })
    } else {
        (header[0], header[1]) = (1, 1);
        skb.load(0, &mut quote[..QUOTED_V6_BYTES])?;
        Some(Shape {
            protocol: protocol::ICMPV6,
            bytes: (ICMP_BYTES + QUOTED_V6_BYTES) as u16,
            checksum_at: 2,
        })
    }
}

/// Nobody answers an error with another (RFC 1122, section 3.2.2): of ICMP, only requests are answered.
#[inline(always)]
fn may_be_told(skb: Skb, sent: &Sent) -> bool {
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REQUEST_V6: u8 = 128;
    let request = match sent.protocol {
        protocol::ICMP => ECHO_REQUEST,
        protocol::ICMPV6 => ECHO_REQUEST_V6,
        _ => return true,
    };
    skb.bytes(sent.ip_bytes()) == Some([request])
}

/// Whether an arriving packet is a reset that [`reject_egress`] has made.
#[inline(always)]
fn is_answer(skb: Skb) -> bool {
    const FLAGS: u32 = 13;
    let (protocol_at, ip_bytes) = match skb.protocol() {
        ethertype::IPV4 => (9, IPV4_BYTES as u32),
        ethertype::IPV6 => (6, IPV6_BYTES as u32),
        _ => return false,
    };
    skb.bytes(protocol_at) == Some([protocol::TCP])
        && skb.bytes(ip_bytes + FLAGS).is_some_and(|tail| is_our_reset(&tail))
}
