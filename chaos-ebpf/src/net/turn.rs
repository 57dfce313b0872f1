//! Turning a packet around: what the target has sent comes back to it, as an answer in its peer's name.
//!
//! The answer goes through the receive side of the device that the packet was about to leave by, as one from the
//! wire would: past the ingress programs of others, netfilter and the check of its source address. The socket is
//! forgotten on the way (net/ipv4/ip_input.c, `ip_rcv_core`, 6.18), and so is the route.

use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::{bpf_csum_diff, bpf_redirect, bpf_skb_change_tail, bpf_skb_store_bytes},
    programs::TcContext,
};
use chaos_common::{
    dns::MESSAGE_BYTES,
    packet::{
        IPV4_ADDRESSES, IPV4_BYTES, IPV6_ADDRESSES, IPV6_BYTES, UDP_BYTES, checksum, fold, ipv4_start,
        ipv6_start,
    },
};

use super::parse::ethertype;
use crate::skb::Skb;

/// Bytes of an Ethernet header, and of each of the two addresses it starts with.
const ETHERNET_BYTES: u32 = 14;
const STATION_BYTES: usize = 6;

/// Where answers are made: the stack has no room for them. tc programs run with bottom halves off, so nobody comes
/// in between on the same CPU.
#[repr(C)]
pub struct Answer {
    stations: [u8; 2 * STATION_BYTES],
    ip: [u8; IPV6_BYTES],
    /// What follows the IP header.
    pub payload: [u8; UDP_BYTES + MESSAGE_BYTES],
}

/// A packet that can be answered, as the target has sent it.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    /// Whether its IP header is one of IPv4.
    pub is_v4: bool,
    /// What follows the IP header.
    pub protocol: u8,
    /// How much of it there is.
    pub payload_bytes: u32,
    /// Bytes in front of the IP header.
    link_bytes: u32,
}

impl Sent {
    /// Takes in the headers of a packet to one host. `None` for all others, and for fragments, IP options and
    /// extension headers, which whoever answers would have to look behind.
    #[inline(always)]
    pub fn read(ctx: &TcContext) -> Option<Self> {
        let skb = Skb(ctx.skb.skb);
        let (is_v4, protocol) = match skb.protocol() {
            ethertype::IPV4 => (true, ipv4_protocol(skb)?),
            ethertype::IPV6 => (false, ipv6_protocol(skb)?),
            _ => return None,
        };
        let mut sent = Self { is_v4, protocol, payload_bytes: 0, link_bytes: link_bytes(ctx)? };
        sent.payload_bytes = skb.len().checked_sub(sent.link_bytes + sent.ip_bytes())?;
        Some(sent)
    }

    /// Where what follows the IP header starts, from the IP header on.
    #[inline(always)]
    pub fn ip_bytes(&self) -> u32 {
        if self.is_v4 { IPV4_BYTES as u32 } else { IPV6_BYTES as u32 }
    }

    /// Makes the IP header of an answer with so many bytes of `protocol`. Returns the sum of its pseudo-header
    /// (RFC 9293, section 3.1; RFC 8200, section 8.1).
    #[inline(always)]
    pub fn address(&self, skb: Skb, answer: &mut Answer, protocol: u8, bytes: u16) -> Option<u32> {
        let addresses = if self.is_v4 {
            answer.ip[..IPV4_ADDRESSES].copy_from_slice(&ipv4_start(protocol, bytes));
            skb.load(16, &mut answer.ip[12..16])?;
            skb.load(12, &mut answer.ip[16..20])?;
            let sum = sum_of(answer.ip.first_chunk_mut::<IPV4_BYTES>()?)?;
            answer.ip[10..12].copy_from_slice(&checksum(sum).to_be_bytes());
            sum_of(answer.ip[IPV4_ADDRESSES..].first_chunk_mut::<8>()?)?
        } else {
            answer.ip[..IPV6_ADDRESSES].copy_from_slice(&ipv6_start(protocol, bytes));
            skb.load(24, &mut answer.ip[8..24])?;
            skb.load(8, &mut answer.ip[24..40])?;
            sum_of(answer.ip[IPV6_ADDRESSES..].first_chunk_mut::<32>()?)?
        };
        Some(addresses + u32::from(protocol) + u32::from(bytes))
    }

    /// Makes the packet the answer, with the first `bytes` of what follows its IP header.
    ///
    /// The length is changed in any case: that also makes one plain packet of a GSO packet, and takes its bytes
    /// away from the sender's queue, which shares them (net/core/filter.c, `__bpf_skb_change_tail`, 6.18).
    #[inline(always)]
    pub fn turn(&self, ctx: &TcContext, answer: &mut Answer, bytes: u16) -> Option<()> {
        let payload_at = self.link_bytes + self.ip_bytes();
        // SAFETY: the context is the program's own.
        if unsafe { bpf_skb_change_tail(ctx.skb.skb, payload_at + u32::from(bytes), 0) } != 0 {
            return None;
        }
        if self.link_bytes == ETHERNET_BYTES {
            let (to, from): ([u8; STATION_BYTES], [u8; STATION_BYTES]) =
                (ctx.load(0).ok()?, ctx.load(STATION_BYTES).ok()?);
            answer.stations[..STATION_BYTES].copy_from_slice(&from);
            answer.stations[STATION_BYTES..].copy_from_slice(&to);
            write(ctx, 0, &answer.stations)?;
        }
        if self.is_v4 {
            write(ctx, self.link_bytes, answer.ip.first_chunk::<IPV4_BYTES>()?)?;
        } else {
            write(ctx, self.link_bytes, &answer.ip)?;
        }
        write(ctx, payload_at, answer.payload.get(..usize::from(bytes))?)
    }
}

/// Sends the packet to where it came from.
#[inline(always)]
pub(super) fn back(ctx: &TcContext) -> i32 {
    // SAFETY: the helper only notes where to redirect to.
    unsafe { bpf_redirect(Skb(ctx.skb.skb).ifindex(), u64::from(BPF_F_INGRESS)) as i32 }
}

/// The sum of 16-bit words in network order: the kernel adds them as this machine has them (lib/checksum.c), and
/// their sum turns around as they do.
#[inline(always)]
pub(super) fn sum_of<const N: usize>(bytes: &mut [u8; N]) -> Option<u32> {
    const {
        assert!(
            N.is_multiple_of(4) && N <= 512,
            "as the helper wants it (net/core/filter.c, `bpf_csum_diff`, 6.1)"
        )
    };
    // SAFETY: there are N bytes; nothing is read from where there is nothing.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_mut_ptr().cast(), N as u32, 0) };
    (sum >= 0).then(|| u32::from(u16::from_be(fold(sum as u32))))
}

#[inline(always)]
fn write(ctx: &TcContext, at: u32, bytes: &[u8]) -> Option<()> {
    let (from, length) = (bytes.as_ptr().cast(), bytes.len() as u32);
    if length == 0 {
        return None; // what the verifier does not allow
    }
    // SAFETY: there are that many bytes.
    let result = unsafe { bpf_skb_store_bytes(ctx.skb.skb, at, from, length, 0) };
    (result == 0).then_some(())
}

#[inline(always)]
fn ipv4_protocol(skb: Skb) -> Option<u8> {
    const NO_OPTIONS: u8 = 0x45;
    const FRAGMENT: u8 = 0x3f;
    const MULTICAST: u8 = 224;
    let [version_and_length] = skb.bytes(0)?;
    let [high, low, _, protocol] = skb.bytes(6)?;
    let [destination] = skb.bytes(16)?;
    let plain = version_and_length == NO_OPTIONS && high & FRAGMENT == 0 && low == 0;
    (plain && destination < MULTICAST).then_some(protocol)
}

#[inline(always)]
fn ipv6_protocol(skb: Skb) -> Option<u8> {
    const MULTICAST: u8 = 0xff;
    let ([protocol], [destination]) = (skb.bytes(6)?, skb.bytes(24)?);
    (destination != MULTICAST).then_some(protocol)
}

/// How much the device puts in front of the IP header: nothing, or an Ethernet header with the address of one
/// station. The packet is looked at from its start and from its IP header, which tells.
#[inline(always)]
fn link_bytes(ctx: &TcContext) -> Option<u32> {
    const GROUP: u8 = 1;
    let ip = u64::from_ne_bytes(Skb(ctx.skb.skb).bytes(0)?);
    if ctx.load::<u64>(0).ok()? == ip {
        return Some(0);
    }
    let to_one = ctx.load::<u8>(0).ok()? & GROUP == 0;
    (to_one && ctx.load::<u64>(ETHERNET_BYTES as usize).ok()? == ip).then_some(ETHERNET_BYTES)
}
