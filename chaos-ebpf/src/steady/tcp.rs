//! TCP, by the *socket's* cgroup: it happens in softirqs and timers, where `current` is whoever was interrupted. The
//! socket is the first argument of all these tracepoints (include/trace/events/tcp.h and sock.h, 6.1 to 7.3).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use chaos_common::steady::series;

use super::{count_duration, counters, slot_of};
use crate::{
    atomic,
    cgroup::{self, read},
    maps::{STEADY_LAYOUT, STEADY_TCP, global},
};

/// States of a connection (include/net/tcp_states.h).
mod state {
    pub const ESTABLISHED: u64 = 1;
    pub const SYN_SENT: u64 = 2;
    pub const SYN_RECV: u64 = 3;
}

/// IPPROTO_TCP. Others have the same states.
const TCP: u16 = 6;
/// `srtt_us` is kept in eighths of a microsecond (include/linux/tcp.h, 6.18).
const NS_BY_EIGHTH_US: u64 = 1000 / 8;

/// Retransmissions.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn steady_retransmits(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let Some(cgroup) = cgroup::of_socket(sk) else { return 0 };
    if let Some(counters) = counters(|level| cgroup::ancestor_id(cgroup, level).unwrap_or(0)) {
        // SAFETY: in bounds of the map value.
        unsafe { atomic::add(&raw mut (*counters).tcp_retransmits, 1) };
    }
    0
}

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn steady_connections(ctx: RawTracePointContext) -> i32 {
    let (sk, old, new): (u64, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let event = match (old, new) {
        (_, state::SYN_SENT) => Event::Connect,
        (state::SYN_SENT, state::ESTABLISHED) => Event::Connected,
        (state::SYN_RECV, state::ESTABLISHED) => Event::Accepted,
        _ => return 0,
    };
    let protocol: u16 = read(sk + u64::from(global(&STEADY_LAYOUT.sk_protocol))).unwrap_or(0);
    if protocol == TCP {
        count(sk, event);
    }
    0
}

/// `TP_PROTO(const struct sock *sk, …)`; there is none where nobody listens.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn steady_resets_sent(ctx: RawTracePointContext) -> i32 {
    count(ctx.arg(0), Event::ResetSent);
    0
}

/// `TP_PROTO(struct sock *sk)`.
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn steady_resets_received(ctx: RawTracePointContext) -> i32 {
    count(ctx.arg(0), Event::ResetReceived);
    0
}

/// Once for each segment that an open connection receives: `TP_PROTO(struct sock *sk, …)`
/// (net/ipv4/tcp_input.c, `tcp_rcv_established`, 6.18).
#[raw_tracepoint(tracepoint = "tcp_probe")]
pub fn steady_round_trips(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    if let Some(slot) = cgroup::of_socket(sk).and_then(slot_of) {
        let eighths: u32 = read(sk + u64::from(global(&STEADY_LAYOUT.tcp_srtt))).unwrap_or(0);
        // 0 is a connection that has not measured any yet.
        if eighths != 0 {
            count_duration(slot, series::ROUND_TRIP, u64::from(eighths) * NS_BY_EIGHTH_US);
        }
    }
    0
}

/// What is counted.
#[derive(Clone, Copy)]
enum Event {
    Connect,
    Connected,
    Accepted,
    ResetSent,
    ResetReceived,
}

#[inline(always)]
fn count(sk: u64, event: Event) {
    let slot = cgroup::of_any_socket(sk).and_then(slot_of);
    let Some(counts) = slot.and_then(|slot| STEADY_TCP.get_ptr_mut(slot)) else { return };
    // SAFETY: in bounds of the map value.
    let counter = unsafe {
        match event {
            Event::Connect => &raw mut (*counts).connects,
            Event::Connected => &raw mut (*counts).connected,
            Event::Accepted => &raw mut (*counts).accepted,
            Event::ResetSent => &raw mut (*counts).resets_sent,
            Event::ResetReceived => &raw mut (*counts).resets_received,
        }
    };
    atomic::add(counter, 1);
}
