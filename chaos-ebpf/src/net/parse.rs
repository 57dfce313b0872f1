//! From packet to filter clauses: bounds first, then addresses, protocol and ports.

use aya_ebpf::maps::lpm_trie::Key;
use chaos_common::net::{Direction, local_port_index, peer_port_index, uses};

use super::uses;
use crate::{
    maps::{NET, PEERS_V4, PEERS_V6, PORTS, global},
    skb::Skb,
};

/// EtherTypes (include/uapi/linux/if_ether.h).
pub(super) mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
}

/// Protocol numbers (include/uapi/linux/in.h, in6.h).
pub mod ipproto {
    pub const HOP_OPTIONS: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// How many IPv6 extension headers are walked; a packet with more counts as "other protocol".
const MAX_EXTENSION_HEADERS: u32 = 4;

/// Where the transport header is, if this packet holds it.
pub(super) struct Transport {
    pub protocol: u8,
    /// Offset from the network header; `None` for fragments after the first.
    pub offset: Option<u32>,
    /// Whether this is only a part of what was sent, the first one included.
    pub fragment: bool,
}

/// The filter clauses that a packet matches.
#[inline(always)]
pub fn clauses(skb: Skb, direction: Direction) -> u64 {
    if !uses(uses::CLAUSES) {
        return 0;
    }
    let (peers, transport) = match skb.protocol() {
        ethertype::IPV4 => ipv4(skb, direction),
        ethertype::IPV6 => ipv6(skb, direction),
        _ => None,
    }
    .unwrap_or((0, Transport { protocol: u8::MAX, offset: None, fragment: false }));
    (global(&NET.any_peer) | peers)
        & protocol_clauses(transport.protocol)
        & port_clauses(skb, direction, &transport)
        & connection_clauses(skb, &transport)
}

#[inline(always)]
fn ipv4(skb: Skb, direction: Direction) -> Option<(u64, Transport)> {
    let header: [u8; 20] = skb.bytes(0)?;
    let at = match direction {
        Direction::Egress => 16,
        Direction::Ingress => 12,
    };
    let peer = [header[at], header[at + 1], header[at + 2], header[at + 3]];
    let peers = peers_v4(peer);
    Some((peers, ipv4_transport(&header)))
}

/// What an IPv4 header says about the one behind it (RFC 791, section 3.1).
#[inline(always)]
pub(super) fn ipv4_transport(header: &[u8; 20]) -> Transport {
    const OFFSET: u16 = 0x1fff;
    const MORE_FRAGMENTS: u16 = 0x2000;
    let header_bytes = u32::from(header[0] & 0x0f) * 4;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & (OFFSET | MORE_FRAGMENTS);
    Transport {
        protocol: header[9],
        offset: (fragment & OFFSET == 0).then_some(header_bytes),
        fragment: fragment != 0,
    }
}

#[inline(always)]
fn ipv6(skb: Skb, direction: Direction) -> Option<(u64, Transport)> {
    let peer: [u8; 16] = skb.bytes(match direction {
        Direction::Egress => 24,
        Direction::Ingress => 8,
    })?;
    let peers = peers_v6(peer);
    Some((peers, ipv6_transport(skb)?))
}

/// The clauses that name a network with this peer in it.
#[inline(always)]
pub fn peers_v4(peer: [u8; 4]) -> u64 {
    if uses(uses::PEERS) { PEERS_V4.get(Key::new(32, peer)).copied().unwrap_or(0) } else { 0 }
}

/// The same in IPv6.
#[inline(always)]
pub fn peers_v6(peer: [u8; 16]) -> u64 {
    if uses(uses::PEERS) { PEERS_V6.get(Key::new(128, peer)).copied().unwrap_or(0) } else { 0 }
}

/// Walks to the transport header (RFC 8200, section 4).
#[inline(always)]
pub(super) fn ipv6_transport(skb: Skb) -> Option<Transport> {
    let [next_header] = skb.bytes::<1>(6)?;
    let (mut protocol, mut offset) = (next_header, 40_u32);
    let (mut fragment, mut later_fragment) = (false, false);
    for _ in 0..MAX_EXTENSION_HEADERS {
        match protocol {
            ipproto::HOP_OPTIONS | ipproto::ROUTING | ipproto::DESTINATION_OPTIONS => {
                let Some([next, eight_bytes]) = skb.bytes::<2>(offset) else { break };
                (protocol, offset) = (next, offset + (u32::from(eight_bytes) + 1) * 8);
            }
            ipproto::FRAGMENT => {
                let Some([next, _, high, low]) = skb.bytes::<4>(offset) else { break };
                fragment = true;
                later_fragment |= u16::from_be_bytes([high, low]) & !7 != 0;
                (protocol, offset) = (next, offset + 8);
            }
            _ => break,
        }
    }
    Some(Transport { protocol, offset: (!later_fragment).then_some(offset), fragment })
}

/// The clauses that let a protocol through.
#[inline(always)]
pub fn protocol_clauses(protocol: u8) -> u64 {
    match protocol {
        ipproto::TCP => global(&NET.tcp),
        ipproto::UDP => global(&NET.udp),
        ipproto::ICMP | ipproto::ICMPV6 => global(&NET.icmp),
        _ => global(&NET.other),
    }
}

/// TCP and UDP both begin with source and destination port. Packets without ports match only clauses
/// that name none.
#[inline(always)]
fn port_clauses(skb: Skb, direction: Direction, transport: &Transport) -> u64 {
    let (any_peer, any_local) = (global(&NET.any_peer_port), global(&NET.any_local_port));
    if !uses(uses::PORTS) || !matches!(transport.protocol, ipproto::TCP | ipproto::UDP) {
        return any_peer & any_local;
    }
    let Some(ports) = transport.offset.and_then(|offset| skb.bytes::<4>(offset)) else {
        return any_peer & any_local;
    };
    let source = u16::from_be_bytes([ports[0], ports[1]]);
    let destination = u16::from_be_bytes([ports[2], ports[3]]);
    let (peer, local) = match direction {
        Direction::Egress => (destination, source),
        Direction::Ingress => (source, destination),
    };
    named_ports(peer, local)
}

/// The clauses that let two ports through.
#[inline(always)]
pub fn named_ports(peer: u16, local: u16) -> u64 {
    let named = |index| PORTS.get(index).copied().unwrap_or(0);
    (global(&NET.any_peer_port) | named(peer_port_index(peer)))
        & (global(&NET.any_local_port) | named(local_port_index(local)))
}

/// Where the flags are in a TCP header, and the one that only the first two segments of a connection have (RFC 9293,
/// section 3.1).
const TCP_FLAGS_OFFSET: u32 = 13;
const TCP_SYN: u8 = 0x02;

/// Segments whose flags are not in this packet (fragments after the first) match only clauses that do not ask.
#[inline(always)]
fn connection_clauses(skb: Skb, transport: &Transport) -> u64 {
    if !uses(uses::CONNECTIONS) || transport.protocol != ipproto::TCP {
        return u64::MAX;
    }
    let (new, established) = (global(&NET.new), global(&NET.established));
    match transport.offset.and_then(|offset| skb.bytes::<1>(offset + TCP_FLAGS_OFFSET)) {
        Some([flags]) if flags & TCP_SYN != 0 => new,
        Some(_) => established,
        None => new & established,
    }
}
