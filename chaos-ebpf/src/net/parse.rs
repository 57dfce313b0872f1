//! From packet to filter clauses: bounds first, then addresses, protocol and ports.

use chaos_common::net::{Direction, uses};

use super::{
    named::{named_ports, peers_v4, peers_v6},
    uses,
};
use crate::{
    maps::{NET, global},
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
    let headers = match skb.protocol() {
        ethertype::IPV4 => ipv4(skb, direction),
        ethertype::IPV6 => ipv6(skb, direction),
        _ => None,
    }
    .unwrap_or(Headers {
        peers: 0,
        transport: Transport { protocol: u8::MAX, offset: None, fragment: false },
        behind: None,
    });
    (global(&NET.any_peer) | headers.peers)
        & protocol_clauses(headers.transport.protocol)
        & port_clauses(skb, direction, &headers)
        & connection_clauses(skb, &headers.transport)
}

/// What leaves is read where it is, if that is known: what leaves is met by tc alone.
#[inline(always)]
fn words<const N: usize>(skb: Skb, direction: Direction, offset: u32) -> Option<[u32; N]> {
    let in_place = match direction {
        Direction::Egress if uses(uses::ETHERNET) => skb.words_behind_ethernet(offset),
        _ => None,
    };
    in_place.or_else(|| skb.words(offset))
}

/// What filters ask a packet's headers for.
struct Headers {
    /// The clauses that name a network with its peer in it.
    peers: u64,
    transport: Transport,
    /// How the transport header begins, if that has been read.
    behind: Option<[u8; 4]>,
}

/// Words of an IPv4 header without options.
const IPV4_WORDS: usize = 5;
const IPV4_BYTES: u32 = 4 * IPV4_WORDS as u32;

/// Most have no options, and then the ports are read with it.
#[inline(always)]
fn ipv4(skb: Skb, direction: Direction) -> Option<Headers> {
    let (header, next) = match words::<{ IPV4_WORDS + 1 }>(skb, direction, 0) {
        Some([a, b, c, d, e, next]) => ([a, b, c, d, e], Some(next)),
        None => (skb.words::<IPV4_WORDS>(0)?, None),
    };
    let peer = match direction {
        Direction::Egress => header[4],
        Direction::Ingress => header[3],
    };
    let transport = ipv4_transport(&header);
    let behind = if transport.offset == Some(IPV4_BYTES) { next.map(u32::to_ne_bytes) } else { None };
    Some(Headers { peers: peers_v4(peer), transport, behind })
}

/// What an IPv4 header says about the one behind it (RFC 791, section 3.1).
#[inline(always)]
pub(super) fn ipv4_transport(header: &[u32; IPV4_WORDS]) -> Transport {
    const OFFSET: u16 = 0x1fff;
    const MORE_FRAGMENTS: u16 = 0x2000;
    let [version_and_words, ..] = header[0].to_ne_bytes();
    let [_, _, flags, offset] = header[1].to_ne_bytes();
    let [_, protocol, ..] = header[2].to_ne_bytes();
    let fragment = u16::from_be_bytes([flags, offset]) & (OFFSET | MORE_FRAGMENTS);
    Transport {
        protocol,
        offset: (fragment & OFFSET == 0).then_some(u32::from(version_and_words & 0x0f) * 4),
        fragment: fragment != 0,
    }
}

#[inline(always)]
fn ipv6(skb: Skb, direction: Direction) -> Option<Headers> {
    let at = match direction {
        Direction::Egress => 24,
        Direction::Ingress => 8,
    };
    let peer: [u32; 4] = words(skb, direction, at)?;
    Some(Headers { peers: peers_v6(peer), transport: ipv6_transport(skb)?, behind: None })
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
fn port_clauses(skb: Skb, direction: Direction, headers: &Headers) -> u64 {
    let transport = &headers.transport;
    let none = global(&NET.any_peer_port) & global(&NET.any_local_port);
    if !uses(uses::PORTS) || !matches!(transport.protocol, ipproto::TCP | ipproto::UDP) {
        return none;
    }
    let read = || transport.offset.and_then(|offset| skb.bytes::<4>(offset));
    let Some(ports) = headers.behind.or_else(read) else { return none };
    let source = u16::from_be_bytes([ports[0], ports[1]]);
    let destination = u16::from_be_bytes([ports[2], ports[3]]);
    let (peer, local) = match direction {
        Direction::Egress => (destination, source),
        Direction::Ingress => (source, destination),
    };
    named_ports(peer, local)
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
