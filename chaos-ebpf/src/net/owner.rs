//! Whose a packet is that arrives at a device: it has no socket yet, so the one that will get it is looked up.
//!
//! What no TCP or UDP socket will get is nobody's: ICMP, fragments, what is only forwarded.

use core::{mem::size_of, ptr};

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        BPF_FIB_LKUP_RET_UNSUPP_LWT, bpf_sock,
    },
    helpers::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};

use super::parse::{Transport, ethertype, ipproto, ipv4_transport, ipv6_transport};
use crate::{
    cgroup,
    forget::forget,
    gate::{self, Subject},
    skb::Skb,
};

/// The network namespace of the device that the packet is on. Any other is named by the id that this one has
/// for it (include/uapi/linux/bpf.h, BPF_F_CURRENT_NETNS, 6.18).
pub const CURRENT_NETNS: u64 = u64::MAX;

/// Address families (include/linux/socket.h).
mod family {
    pub const INET: u8 = 2;
    pub const INET6: u8 = 10;
}

/// `struct bpf_sock_tuple`: both addresses, of `A` bytes together, and both ports, as packets have them.
#[repr(C, align(4))]
struct Tuple<const A: usize> {
    addresses: [u8; A],
    ports: [u8; 4],
}

/// Whom a packet that arrives is for, if a rule is for them too. The socket is looked for in `netns`.
#[inline(always)]
pub fn subject(skb: Skb, netns: u64) -> Option<Subject> {
    let mut subject = Subject { rules: 0, slot: 0 };
    is_somebodys(skb, netns, &mut subject).then_some(subject)
}

/// A function of its own, for the sake of the stack: a program and those functions that it is in the midst of share
/// 512 bytes (include/linux/filter.h, MAX_BPF_STACK, 6.18).
#[inline(never)]
fn is_somebodys(skb: Skb, netns: u64, subject: &mut Subject) -> bool {
    let Some(found) = find(skb, netns) else { return false };
    *subject = found;
    true
}

#[inline(always)]
fn find(skb: Skb, netns: u64) -> Option<Subject> {
    match skb.protocol() {
        ethertype::IPV4 => {
            let transport = ipv4_transport(&skb.words(0)?);
            let mut tuple = Tuple { addresses: skb.bytes::<8>(12)?, ports: ports(skb, &transport)? };
            let subject = socket_subject(skb, transport.protocol, &mut tuple, netns)?;
            (netns != CURRENT_NETNS || stays(skb, family::INET, &tuple)).then_some(subject)
        }
        ethertype::IPV6 => {
            let transport = ipv6_transport(skb)?;
            let mut tuple = Tuple { addresses: skb.bytes::<32>(8)?, ports: ports(skb, &transport)? };
            let subject = socket_subject(skb, transport.protocol, &mut tuple, netns)?;
            (netns != CURRENT_NETNS || stays(skb, family::INET6, &tuple)).then_some(subject)
        }
        _ => None,
    }
}

/// TCP and UDP both begin with source and destination port.
#[inline(always)]
fn ports(skb: Skb, transport: &Transport) -> Option<[u8; 4]> {
    if transport.fragment {
        return None;
    }
    skb.bytes(transport.offset?)
}

/// The subject that the receiving socket belongs to.
#[inline(always)]
fn socket_subject<const A: usize>(
    skb: Skb,
    protocol: u8,
    tuple: &mut Tuple<A>,
    netns: u64,
) -> Option<Subject> {
    let (context, tuple, length) = (skb.0.cast(), ptr::from_mut(tuple).cast(), size_of::<Tuple<A>>() as u32);
    // SAFETY: the tuple is as long as it is said to be.
    let socket = unsafe {
        match protocol {
            ipproto::TCP => bpf_skc_lookup_tcp(context, tuple, length, netns, 0),
            ipproto::UDP => bpf_sk_lookup_udp(context, tuple, length, netns, 0),
            _ => return None,
        }
    };
    if socket.is_null() {
        return None;
    }
    let subject = address(socket).and_then(subject_of);
    // SAFETY: the socket is ours until now, and nobody uses it from here on.
    unsafe { bpf_sk_release(socket.cast()) };
    subject
}

/// `bpf_sk_ancestor_cgroup_id` is not for programs of tc (net/core/filter.c, `tc_cls_act_func_proto`, 6.18), so the
/// cgroup is read out of the socket.
#[inline(always)]
fn subject_of(socket: u64) -> Option<Subject> {
    let cgroup = cgroup::of_any_socket(socket)?;
    gate::subject(|level| cgroup::ancestor_id(cgroup, level).unwrap_or(0))
}

/// A socket as a number: the verifier lets nobody calculate with what it knows to be one.
#[inline(always)]
fn address(socket: *mut bpf_sock) -> Option<u64> {
    forget(socket).map(|socket| socket as u64)
}

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h, 6.18).
#[repr(C)]
struct Route {
    family: u8,
    protocol: u8,
    ports: [u16; 2],
    length: u16,
    ifindex: u32,
    class: u32,
    source: [u8; 16],
    destination: [u8; 16],
    answer: [u32; 4],
}

/// Whether a packet is for this host and not for one behind it. A listener on all addresses would be found for
/// what is only forwarded, too.
#[inline(always)]
fn stays<const A: usize>(skb: Skb, family: u8, tuple: &Tuple<A>) -> bool {
    let (source, destination) = tuple.addresses.split_at(A / 2);
    let mut route = Route {
        family,
        protocol: 0,
        ports: [0; 2],
        length: 0,
        ifindex: skb.ifindex(),
        class: 0,
        source: [0; 16],
        destination: [0; 16],
        answer: [0; 4],
    };
    route.source[..A / 2].copy_from_slice(source);
    route.destination[..A / 2].copy_from_slice(destination);
    let length = size_of::<Route>() as i32;
    // SAFETY: the question is as long as it is said to be.
    let answer = unsafe { bpf_fib_lookup(skb.0.cast(), ptr::from_mut(&mut route).cast(), length, 0) };
    !matches!(
        answer as u32,
        BPF_FIB_LKUP_RET_SUCCESS
            | BPF_FIB_LKUP_RET_UNSUPP_LWT
            | BPF_FIB_LKUP_RET_NO_NEIGH
            | BPF_FIB_LKUP_RET_FRAG_NEEDED
    )
}
