//! Which clauses name an address or a port. Arrays are looked up without calling a helper (docs/adr/0008).

use chaos_common::{
    net::{local_port_key, peer_port_key, uses},
    ranges::{Range, WideRange, is_less, is_less_wide, search},
};

use super::uses;
use crate::{
    maps::{NET, PEERS_V4, PEERS_V6, PORTS, global},
    skb::opaque,
};

/// The clauses that name a network with this peer in it, given as a packet has it.
#[inline(always)]
pub fn peers_v4(peer: u32) -> u64 {
    if uses(uses::PEERS) { clauses_of_v4(u32::from_be(peer)) } else { 0 }
}

/// The same in IPv6.
#[inline(always)]
pub fn peers_v6(peer: [u32; 4]) -> u64 {
    if !uses(uses::PEERS) {
        return 0;
    }
    let half = |high: u32, low: u32| (u64::from(u32::from_be(high)) << 32) | u64::from(u32::from_be(low));
    clauses_of_v6(half(peer[0], peer[1]), half(peer[2], peer[3]))
}

/// The clauses that let two ports through.
#[inline(always)]
pub fn named_ports(peer: u16, local: u16) -> u64 {
    (global(&NET.any_peer_port) | clauses_of_port(peer_port_key(peer)))
        & (global(&NET.any_local_port) | clauses_of_port(local_port_key(local)))
}

#[inline(always)]
fn clauses_of_v4(address: u32) -> u64 {
    let key = u64::from(address);
    let is_before = |range: &Range| unbranched(is_less(key, range.from));
    let found = search(global(&NET.peer_v4_steps), |range| PEERS_V4.get(range).map(is_before));
    found.and_then(|range| PEERS_V4.get(range)).map_or(0, |range| range.clauses)
}

#[inline(always)]
fn clauses_of_v6(high: u64, low: u64) -> u64 {
    let is_before = |range: &WideRange| unbranched(is_less_wide([high, low], range.from));
    let found = search(global(&NET.peer_v6_steps), |range| PEERS_V6.get(range).map(is_before));
    found.and_then(|range| PEERS_V6.get(range)).map_or(0, |range| range.clauses)
}

#[inline(always)]
fn clauses_of_port(key: u32) -> u64 {
    let key = u64::from(key);
    let is_before = |range: &Range| unbranched(is_less(key, range.from));
    let found = search(global(&NET.port_steps), |range| PORTS.get(range).map(is_before));
    found.and_then(|range| PORTS.get(range)).map_or(0, |range| range.clauses)
}

/// Keeps the compiler from making a branch of a comparison.
#[inline(always)]
fn unbranched(is: u32) -> u32 {
    opaque(is as usize) as u32
}
