//! Calls on sockets that fail with an error of our choice, at a cgroup: nobody else's calls come by.
//!
//! The kernel runs these programs for the cgroup of the *socket*, the one that its maker was in, so that is whom
//! they ask the gate about: a socket handed to a process of another cgroup stays the target's, and one handed to
//! the target stays somebody else's. io_uring connects by the same function (io_uring/net.c, `io_connect`, 6.18).

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_sock, bpf_sock_addr, bpf_sockopt},
    helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_retval, bpf_set_retval},
    macros::{cgroup_sock, cgroup_sock_addr, cgroup_sockopt},
    programs::{SockAddrContext, SockContext, SockoptContext},
};
use chaos_common::{
    net::{hook, uses},
    sock::Refusal,
};

use crate::{
    cgroup::{ancestor_id, of_socket, read},
    gate::{self, Subject},
    maps::{NET, REFUSALS, global},
    net::{
        named::{named_ports, peers_v4, peers_v6},
        parse::{ipproto, protocol_clauses},
        uses,
    },
    steady,
};

/// Verdicts (kernel/bpf/cgroup.c, `bpf_prog_run_array_cg`, 6.18). Refusing without a reason is EPERM.
mod verdict {
    pub const REFUSE: i32 = 0;
    pub const ALLOW: i32 = 1;
}

/// Address families (include/linux/socket.h).
mod family {
    pub const INET: u32 = 2;
    pub const INET6: u32 = 10;
}

/// Larger options than a page are not copied for programs, and kernels before 6.4 fail them with EFAULT unless
/// the program says 0 (Documentation/bpf/prog_cgroup_sockopt.rst, 6.1). The smallest page there is.
const PAGE_BYTES: i32 = 4096;

/// The other end of a socket, or the one that a call names.
enum Peer {
    None,
    V4(u32, u16),
    V6([u32; 4], u16),
}

#[cgroup_sock_addr(connect4)]
pub fn refuse_connect4(ctx: SockAddrContext) -> i32 {
    verdict(gate(hook::REFUSE_CONNECT, socket_of(ctx.as_ptr()), || call_clauses(ctx.sock_addr, peer_v4)))
}

#[cgroup_sock_addr(connect6)]
pub fn refuse_connect6(ctx: SockAddrContext) -> i32 {
    verdict(gate(hook::REFUSE_CONNECT, socket_of(ctx.as_ptr()), || call_clauses(ctx.sock_addr, peer_v6)))
}

/// UDP alone, and only where the call names a peer (net/ipv4/udp.c, `udp_sendmsg`, 6.18).
#[cgroup_sock_addr(sendmsg4)]
pub fn refuse_sendmsg4(ctx: SockAddrContext) -> i32 {
    verdict(gate(hook::REFUSE_SENDMSG, socket_of(ctx.as_ptr()), || call_clauses(ctx.sock_addr, peer_v4)))
}

/// The same in IPv6 (net/ipv6/udp.c, `udpv6_sendmsg`, 6.18).
#[cgroup_sock_addr(sendmsg6)]
pub fn refuse_sendmsg6(ctx: SockAddrContext) -> i32 {
    verdict(gate(hook::REFUSE_SENDMSG, socket_of(ctx.as_ptr()), || call_clauses(ctx.sock_addr, peer_v6)))
}

#[cgroup_sock_addr(bind4)]
pub fn refuse_bind4(ctx: SockAddrContext) -> i32 {
    verdict(gate(hook::REFUSE_BIND, socket_of(ctx.as_ptr()), || bind_clauses(ctx.sock_addr)))
}

#[cgroup_sock_addr(bind6)]
pub fn refuse_bind6(ctx: SockAddrContext) -> i32 {
    verdict(gate(hook::REFUSE_BIND, socket_of(ctx.as_ptr()), || bind_clauses(ctx.sock_addr)))
}

/// The socket has just been given the cgroup of who makes it (net/core/sock.c, `sk_alloc`, 6.18).
#[cgroup_sock(sock_create)]
pub fn refuse_socket(ctx: SockContext) -> i32 {
    // SAFETY: the verifier allows reading this field of the context.
    let clauses = || clauses(unsafe { (*ctx.sock).protocol }, Peer::None, 0);
    verdict(gate(hook::REFUSE_SOCKET, Owner::Caller, clauses))
}

#[cgroup_sockopt(setsockopt)]
pub fn refuse_setsockopt(ctx: SockoptContext) -> i32 {
    option(hook::REFUSE_SETSOCKOPT, ctx)
}

/// The kernel has answered by now, and the answer is withheld (net/socket.c, `do_sock_getsockopt`, 6.18).
#[cgroup_sockopt(getsockopt)]
pub fn refuse_getsockopt(ctx: SockoptContext) -> i32 {
    option(hook::REFUSE_GETSOCKOPT, ctx)
}

/// Options exist for sockets of every kind; those of other families are none of our business.
#[inline(always)]
fn option(hook: usize, ctx: SockoptContext) -> i32 {
    let socket = socket(ctx.sockopt);
    let Some(socket) = socket else { return verdict::ALLOW };
    let refused = match socket.family {
        family::INET | family::INET6 => option_gate(hook, socket_of(ctx.as_ptr()), || socket.clauses()),
        _ => None,
    };
    // SAFETY: the verifier allows reading and writing this field of the context.
    unsafe {
        if refused.is_none() && (*ctx.sockopt).optlen > PAGE_BYTES {
            (*ctx.sockopt).optlen = 0;
        }
    }
    verdict(refused)
}

/// Whose a call is.
enum Owner {
    /// Whoever made the socket: the kernel's `struct sock *`.
    Socket(u64),
    /// Whoever calls.
    Caller,
}

/// The gate for calls on sockets: whether one of the rules of `hook` refuses this one, and which. A call that has
/// failed already, by the kernel or by somebody else's program, is left as it is.
#[inline(always)]
fn gate(hook: usize, owner: Owner, clauses: impl Fn() -> u64) -> Option<u32> {
    let subject = concerned(hook, owner)?;
    let clauses = || if uses(uses::CLAUSES) { clauses() } else { 0 };
    counted(gate::any(subject.rules, subject.slot, 1, clauses, |_| true), subject.slot)
}

/// Whom a call is asked about, with those of the rules that `hook` asks.
#[inline(always)]
fn concerned(hook: usize, owner: Owner) -> Option<Subject> {
    let subject = match owner {
        Owner::Caller => {
            // SAFETY: the helper has no preconditions.
            gate::subject(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) })
        }
        Owner::Socket(sk) => {
            let cgroup = of_socket(sk)?;
            gate::subject(|level| ancestor_id(cgroup, level).unwrap_or(0))
        }
    }?;
    let rules = subject.rules & global(&NET.rules[hook]);
    // SAFETY: the helper has no preconditions.
    let failed = unsafe { bpf_get_retval() } < 0;
    (rules != 0 && !failed).then_some(Subject { rules, slot: subject.slot })
}

/// The same gate for programs of options, which have no coarse clock (kernel/bpf/cgroup.c, `cg_sockopt_func_proto`,
/// 6.18).
#[inline(always)]
fn option_gate(hook: usize, owner: Owner, clauses: impl Fn() -> u64) -> Option<u32> {
    let subject = concerned(hook, owner)?;
    let clauses = || if uses(uses::CLAUSES) { clauses() } else { 0 };
    counted(gate::any_by_fine_clock(subject.rules, subject.slot, clauses, |_| true), subject.slot)
}

/// The rule that refuses, if any; its error is no organic one.
#[inline(always)]
fn counted(rule: Option<u32>, slot: u32) -> Option<u32> {
    if let Some(refusal) = rule.and_then(|rule| REFUSALS.get(rule)) {
        steady::injected_error(slot, refusal.retval().into());
    }
    rule
}

/// Refuses if a rule says so, with that rule's error.
#[inline(always)]
fn verdict(rule: Option<u32>) -> i32 {
    let Some(refusal) = rule.and_then(|rule| REFUSALS.get(rule)) else { return verdict::ALLOW };
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_set_retval(Refusal::retval(refusal)) };
    verdict::REFUSE
}

/// The kernel's own context begins with the socket, at these hooks (include/linux/filter.h,
/// `struct bpf_sock_addr_kern` and `struct bpf_sockopt_kern`, 5.15 to 6.18). The pointer that programs get instead is one
/// that the verifier allows no arithmetic on.
#[inline(always)]
fn socket_of(ctx: *mut c_void) -> Owner {
    Owner::Socket(read(ctx as u64).unwrap_or(0))
}

/// The filter clauses that a call matches which names a peer.
#[inline(always)]
fn call_clauses(ctx: *mut bpf_sock_addr, peer: impl Fn(*mut bpf_sock_addr) -> Peer) -> u64 {
    // SAFETY: the verifier allows reading these fields of the context; the socket may not be there.
    let (protocol, local) = unsafe {
        let sk = (*ctx).__bindgen_anon_1.sk;
        ((*ctx).protocol, if sk.is_null() { 0 } else { (*sk).src_port as u16 })
    };
    clauses(protocol, peer(ctx), local)
}

/// The same for one that names the socket's own port.
#[inline(always)]
fn bind_clauses(ctx: *mut bpf_sock_addr) -> u64 {
    // SAFETY: the verifier allows reading these fields of the context.
    let (protocol, port) = unsafe { ((*ctx).protocol, (*ctx).user_port as u16) };
    clauses(protocol, Peer::None, u16::from_be(port))
}

#[inline(always)]
fn peer_v4(ctx: *mut bpf_sock_addr) -> Peer {
    // SAFETY: as above.
    unsafe { Peer::V4((*ctx).user_ip4, u16::from_be((*ctx).user_port as u16)) }
}

#[inline(always)]
fn peer_v6(ctx: *mut bpf_sock_addr) -> Peer {
    // SAFETY: as above.
    unsafe {
        let ip = &raw const (*ctx).user_ip6;
        let words = [(*ip)[0], (*ip)[1], (*ip)[2], (*ip)[3]];
        Peer::of_v6(words, u16::from_be((*ctx).user_port as u16))
    }
}

/// What a program may see of a socket that has options.
struct Socket {
    family: u32,
    protocol: u32,
    local_port: u16,
    peer_port: u16,
    sk: *mut bpf_sock,
}

#[inline(always)]
fn socket(ctx: *mut bpf_sockopt) -> Option<Socket> {
    // SAFETY: the verifier allows reading this field of the context and, unless it is null, those of the socket.
    unsafe {
        let sk = (*ctx).__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        Some(Socket {
            family: (*sk).family,
            protocol: (*sk).protocol,
            local_port: (*sk).src_port as u16,
            peer_port: u16::from_be((*sk).dst_port),
            sk,
        })
    }
}

impl Socket {
    #[inline(always)]
    fn clauses(&self) -> u64 {
        clauses(self.protocol, self.peer(), self.local_port)
    }

    /// Before it is connected it has none.
    #[inline(always)]
    fn peer(&self) -> Peer {
        if self.peer_port == 0 {
            return Peer::None;
        }
        // SAFETY: the verifier allows reading these fields of the socket.
        unsafe {
            if self.family == family::INET {
                return Peer::V4((*self.sk).dst_ip4, self.peer_port);
            }
            let ip = &raw const (*self.sk).dst_ip6;
            Peer::of_v6([(*ip)[0], (*ip)[1], (*ip)[2], (*ip)[3]], self.peer_port)
        }
    }
}

impl Peer {
    /// An IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2) is that IPv4 address.
    #[inline(always)]
    fn of_v6(words: [u32; 4], port: u16) -> Self {
        if words[0] == 0 && words[1] == 0 && words[2] == u32::to_be(0xffff) {
            return Self::V4(words[3], port);
        }
        Self::V6(words, port)
    }
}

/// The filter clauses that a socket's protocol, peer and own port match.
#[inline(always)]
fn clauses(protocol: u32, peer: Peer, local: u16) -> u64 {
    // Numbers beyond those of IP, such as MPTCP's, are no protocol that a filter could name.
    let protocol = if protocol > u32::from(u8::MAX) { u8::MAX } else { protocol as u8 };
    let (peers, peer_port) = match peer {
        Peer::None => (0, 0),
        Peer::V4(address, port) => (peers_v4(address), port),
        Peer::V6(address, port) => (peers_v6(address), port),
    };
    let ports = match protocol {
        ipproto::TCP | ipproto::UDP if uses(uses::PORTS) => named_ports(peer_port, local),
        _ => global(&NET.any_peer_port) & global(&NET.any_local_port),
    };
    (global(&NET.any_peer) | peers) & protocol_clauses(protocol) & ports
}
