//! Holding packets back: delay, rate and reorder in one program, so that what several of them ask of one packet adds
//! up. A packet gets the time at which it may go on, and an `fq` qdisc sends it then: that of its device if it leaves;
//! if it arrives, that of an ifb of ours, which hands it to the device again where it came from.

use aya_ebpf::{
    bindings::{
        __sk_buff,
        _bindgen_ty_28::{BPF_SKB_TSTAMP_DELIVERY_MONO, BPF_SKB_TSTAMP_UNSPEC},
        TC_ACT_SHOT, TC_ACT_UNSPEC,
    },
    helpers::{
        bpf_clone_redirect, bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_set_hash,
        bpf_skb_set_tstamp,
    },
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use chaos_common::{
    net::{Direction, hook},
    rule::{Outcome, state_index},
    shape::{
        FLOWS, IFB_IFINDEX, NORMAL_QUANTILES, Shape, ShapeState, kind, quantile_index, shaped, shaped_index,
    },
};

use super::{asked, asked_of, owner, parse, segment::Segment, vanish::vanish};
use crate::{
    atomic,
    forget::forget,
    gate::{self, Subject},
    maps::{SHAPE_FLOWS, SHAPE_STATE, SHAPE_TABLES, SHAPES, SLOTS, global},
    skb::{Skb, opaque},
};

/// How far ahead of the present a time may be that others have given a packet, such as a paced TCP: fq drops what
/// is more than 10 s ahead (net/sched/sch_fq.c, `fq_packet_beyond_horizon`, 6.12), and most of that is for us.
const MOST_AHEAD_NS: u64 = 500_000_000;

/// How often two CPUs that want the same place are told apart; then both take it.
const ATTEMPTS: u32 = 4;

/// NET_XMIT_DROP (include/linux/netdevice.h, 6.18): the qdisc took the packet and dropped it.
const XMIT_DROP: i64 = 1;

/// What the rules make of one packet.
pub(super) struct Departure {
    /// When it was looked at.
    now_ns: u64,
    /// When the slowest of its wires lets it go.
    earliest_ns: u64,
    /// What is added to that.
    delay_ns: u64,
    /// The rules that hit it.
    pub hits: u64,
    /// Some rule holds it back.
    is_held: bool,
    /// Some wire has no room for it.
    pub is_dropped: bool,
    /// Some rule lets it overtake nobody.
    keeps_order: bool,
}

/// tc egress, as a TCX link or a clsact filter. What is held back is a copy: see [`send_at`].
#[classifier]
pub fn shape_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match asked(skb, hook::SHAPE_EGRESS) {
        None => TC_ACT_UNSPEC,
        Some(subject) => shape(&ctx, subject, skb.ifindex(), Direction::Egress),
    }
}

/// tc ingress, the same way. What comes back from the ifb passes no program of tc any more (drivers/net/ifb.c,
/// `ifb_ri_tasklet`, 6.18), so it is not asked about twice, and other people's programs had better come before this.
/// Between two ends of a veth a packet may still have its sender's socket (net/core/skbuff.c, `skb_scrub_packet`,
/// 6.18), which is one more reason to send a copy.
#[classifier]
pub fn shape_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let subject = owner::subject(skb, owner::CURRENT_NETNS);
    match subject.and_then(|subject| asked_of(skb, subject, hook::SHAPE_INGRESS)) {
        None => TC_ACT_UNSPEC,
        Some(subject) => shape(&ctx, subject, IFB_IFINDEX, Direction::Ingress),
    }
}

/// What a filter of tc that has actions of its own is told: to go on to the next filter, or to do them (net/sched/cls_bpf.c,
/// `cls_bpf_classify`, 6.1).
mod verdict {
    pub const PASS: i32 = 0;
    pub const ACT: i32 = -1;
}

/// Further ahead than fq keeps anything.
const NEVER_NS: u64 = 60_000_000_000;

/// The same for a filter whose actions send a copy through the ifb and end the packet. An ifb drops what a program sends
/// there by itself before Linux 6.4 (drivers/net/ifb.c, `ifb_xmit`; net/core/filter.c, `__bpf_tx_skb`, 6.1). What the
/// wire has no room for, fq drops.
#[classifier]
pub fn shape_by_action(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let subject = owner::subject(skb, owner::CURRENT_NETNS);
    let Some(subject) = subject.and_then(|subject| asked_of(skb, subject, hook::SHAPE_INGRESS)) else {
        return verdict::PASS;
    };
    let departure = departure(skb, subject, Direction::Ingress);
    if !departure.is_held {
        return verdict::PASS;
    }
    let at_ns = if departure.is_dropped {
        departure.now_ns + NEVER_NS
    } else {
        departure.at_ns(skb, subject.slot, Direction::Ingress)
    };
    debug!(
        &ctx,
        "rules {:x}: {} bytes held back for {} ns",
        departure.hits,
        skb.len(),
        at_ns - departure.now_ns
    );
    // SAFETY: the helper checks its arguments; it refuses what is neither IPv4 nor IPv6.
    if unsafe { bpf_skb_set_tstamp(skb.0, at_ns, BPF_SKB_TSTAMP_DELIVERY_MONO) } != 0 {
        gate::could_not(departure.hits, subject.slot, skb.segments());
        return verdict::PASS;
    }
    verdict::ACT
}

#[inline(always)]
fn shape(ctx: &TcContext, subject: Subject, through: u32, direction: Direction) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let departure = departure(skb, subject, direction);
    if departure.is_dropped {
        debug!(ctx, "rules {:x}: no room on the wire for {} bytes", departure.hits, skb.len());
        return disappear(ctx, direction);
    }
    if !departure.is_held {
        return TC_ACT_UNSPEC;
    }
    let at_ns = departure.at_ns(skb, subject.slot, direction);
    debug!(
        ctx,
        "rules {:x}: {} bytes held back for {} ns",
        departure.hits,
        skb.len(),
        at_ns - departure.now_ns
    );
    match send_at(ctx, through, at_ns) {
        Sent::Copy => disappear(ctx, direction),
        Sent::Nothing => {
            gate::could_not(departure.hits, subject.slot, skb.segments());
            TC_ACT_UNSPEC
        }
        Sent::Dropped => {
            gate::could_not(departure.hits, subject.slot, skb.segments());
            TC_ACT_SHOT
        }
    }
}

/// Where packets arrive, nobody is told of one that is dropped.
#[inline(always)]
fn disappear(ctx: &TcContext, direction: Direction) -> i32 {
    match direction {
        Direction::Egress => vanish(ctx),
        Direction::Ingress => TC_ACT_SHOT,
    }
}

/// Asks every rule, and adds up what they say.
#[inline(always)]
pub(super) fn departure(skb: Skb, subject: Subject, direction: Direction) -> Departure {
    let Subject { rules, slot } = subject;
    let mut departure = Departure {
        // SAFETY: the helper has no preconditions. It is the clock of fq (`ktime_get_ns`).
        now_ns: unsafe { bpf_ktime_get_ns() },
        earliest_ns: 0,
        delay_ns: 0,
        hits: 0,
        is_held: false,
        is_dropped: false,
        keeps_order: false,
    };
    gate::each(
        rules,
        slot,
        skb.segments(),
        || parse::clauses(skb, direction),
        |rule, outcome| {
            let index = state_index(rule, slot, global(&SLOTS));
            let (Some(shape), Some(state)) = (SHAPES.get(rule), SHAPE_STATE.get_ptr_mut(index)) else {
                return;
            };
            if outcome == Outcome::Injected {
                departure.hits |= 1 << rule;
            }
            match (shape.kind, outcome) {
                (kind::DELAY, Outcome::Injected) => {
                    departure.keeps_order |= shape.keeps_order != 0;
                    departure.hold(delay_ns(shape, state, rule, slot, direction));
                }
                (kind::RATE, Outcome::Injected) => {
                    departure.transmit(shape, state, wire_bytes(skb, direction), direction);
                }
                (kind::REORDER, Outcome::When | Outcome::Chance | Outcome::Budget)
                    if !gate::is_dry_run(rule) =>
                {
                    departure.hold(shape.by_ns);
                }
                _ => {}
            }
        },
    );
    departure
}

impl Departure {
    /// Whether it has to wait at all; a wire with room for a burst may let it go at once.
    #[inline(always)]
    pub fn waits(&self) -> bool {
        self.is_held && (self.delay_ns > 0 || self.earliest_ns > self.now_ns)
    }

    #[inline(always)]
    fn hold(&mut self, delay_ns: u64) {
        self.is_held = true;
        self.delay_ns += delay_ns;
    }

    /// Takes a place on a wire.
    #[inline(always)]
    fn transmit(&mut self, shape: &Shape, state: *mut ShapeState, bytes: u32, direction: Direction) {
        // SAFETY: in bounds of the map value.
        let free = unsafe { &raw mut (*state).free_ns[index(direction)] };
        self.is_held = true;
        for _ in 0..ATTEMPTS {
            let free_ns = atomic::load(free);
            let Some(end_ns) = shape.transmit(free_ns, self.now_ns, bytes) else {
                self.is_dropped = true;
                return;
            };
            if end_ns > self.earliest_ns {
                self.earliest_ns = end_ns;
            }
            if atomic::compare_exchange(free, free_ns, end_ns) {
                return;
            }
        }
    }

    /// When it may leave: not before a time that it was given by others, and after those of its flow that it must not
    /// overtake. One that may overtake them gets a flow of its own in fq, where the first of a flow that waits would
    /// keep it waiting (sch_fq.c, `fq_flow_set_throttled`, 6.12); fq goes by the hash of packets without a socket.
    #[inline(always)]
    fn at_ns(&self, skb: Skb, slot: u32, direction: Direction) -> u64 {
        let mut at_ns = paced_ns(skb, self.now_ns);
        if self.earliest_ns > at_ns {
            at_ns = self.earliest_ns;
        }
        at_ns += self.delay_ns;
        // SAFETY: the helper has no preconditions.
        let hash = unsafe { bpf_get_hash_recalc(skb.0) };
        // Both ways have the same hash (net/core/flow_dissector.c, `__flow_hash_consistentify`, 6.18).
        let flow = hash ^ (2 * slot + direction as u32).wrapping_mul(0x9e37_79b9);
        let Some(last) = SHAPE_FLOWS.get_ptr_mut(flow & (FLOWS - 1)) else {
            return at_ns;
        };
        for _ in 0..ATTEMPTS {
            let last_ns = atomic::load(last);
            if at_ns < last_ns {
                if self.keeps_order {
                    return last_ns;
                }
                // SAFETY: the helpers have no preconditions, and the former cannot fail.
                unsafe { bpf_set_hash(skb.0, bpf_get_prandom_u32()) };
                return at_ns;
            }
            if atomic::compare_exchange(last, last_ns, at_ns) {
                return at_ns;
            }
        }
        at_ns
    }
}

/// The time at which a packet was to leave by itself, if it was given one; else the present.
#[inline(always)]
fn paced_ns(skb: Skb, now_ns: u64) -> u64 {
    // SAFETY: the verifier allows reading these fields of the context.
    let (tstamp, tstamp_type) = unsafe { ((*skb.0).tstamp, (*skb.0).tstamp_type) };
    if u32::from(tstamp_type) != BPF_SKB_TSTAMP_DELIVERY_MONO || tstamp < now_ns {
        return now_ns;
    }
    if tstamp > now_ns + MOST_AHEAD_NS { now_ns + MOST_AHEAD_NS } else { tstamp }
}

/// The place of a direction among both: for the verifier, who does not know that there are no more.
#[inline(always)]
fn index(direction: Direction) -> usize {
    opaque(direction as usize) & 1
}

/// Its length on the wire. Where packets arrive, the kernel has not reckoned with the headers of what was put together
/// on the way (net/core/dev.c, `sch_handle_ingress`, 6.12).
#[inline(always)]
fn wire_bytes(skb: Skb, direction: Direction) -> u32 {
    let segment_bytes = skb.segment_bytes();
    if direction == Direction::Egress {
        return skb.wire_len();
    }
    if segment_bytes == 0 {
        return skb.len();
    }
    match Segment::find(skb).and_then(forget) {
        None => skb.len(),
        Some(segment) => {
            let segments = segment.payload_bytes().div_ceil(segment_bytes);
            skb.len() + segments.saturating_sub(1) * segment.payload
        }
    }
}

/// How long a delay holds this packet back.
#[inline(always)]
fn delay_ns(shape: &Shape, state: *mut ShapeState, rule: u32, slot: u32, direction: Direction) -> u64 {
    if shape.jitter_ns == 0 {
        return shape.by_ns;
    }
    let draw = gate::draw_for(rule, slot);
    let Some(normals) = SHAPE_TABLES.get(NORMAL_QUANTILES) else { return shape.by_ns };
    let Some(jitters) = SHAPE_TABLES.get(shaped(shape.distribution)) else { return shape.by_ns };
    // SAFETY: in bounds of the map value.
    let variate = unsafe { &raw mut (*state).variate[index(direction)] };
    let before = atomic::load(variate);
    let next = shape.next_variate(before, normals.values[quantile_index(draw)]);
    if shape.rho != 0 {
        // Of two CPUs at the same instant, one leaves its variate behind.
        atomic::compare_exchange(variate, before, next);
    }
    shape.delay_ns(jitters.values[shaped_index(next)])
}

/// What became of a packet that was to be sent later.
enum Sent {
    /// A copy of it waits in the qdisc.
    Copy,
    /// Nothing: it is as it was.
    Nothing,
    /// The qdisc was full.
    Dropped,
}

/// Puts a copy of a packet into the qdisc of a device, to be sent at its time. The copy has no socket
/// (net/core/skbuff.c, `__skb_clone`, 6.18), so this program lets it by when it comes along here, and TCP Small Queues
/// takes the packet for sent: held back itself, it would keep TCP from sending more.
#[inline(always)]
fn send_at(ctx: &TcContext, through: u32, at_ns: u64) -> Sent {
    let skb = ctx.skb.skb;
    // SAFETY: the verifier allows reading these fields of the context.
    let (tstamp, tstamp_type) = unsafe { ((*skb).tstamp, (*skb).tstamp_type) };
    // SAFETY: the helper checks its arguments; it refuses what is neither IPv4 nor IPv6.
    if unsafe { bpf_skb_set_tstamp(skb, at_ns, BPF_SKB_TSTAMP_DELIVERY_MONO) } != 0 {
        return Sent::Nothing;
    }
    // SAFETY: the helper clones the packet; no pointer into it is held.
    match unsafe { bpf_clone_redirect(skb, through, 0) } {
        XMIT_DROP => Sent::Dropped,
        0.. => Sent::Copy,
        _ => {
            give_back_time(skb, tstamp, tstamp_type);
            Sent::Nothing
        }
    }
}

/// Makes a packet's time what it was: when it is to leave, or when it arrived. The helper takes none but the former;
/// since this program reads the kind, the latter can be written as it is (net/core/filter.c,
/// `bpf_convert_tstamp_write`, 6.18).
#[inline(always)]
fn give_back_time(skb: *mut __sk_buff, tstamp: u64, tstamp_type: u8) {
    let is_departure = u32::from(tstamp_type) == BPF_SKB_TSTAMP_DELIVERY_MONO;
    let (departure, kind) =
        if is_departure { (tstamp, BPF_SKB_TSTAMP_DELIVERY_MONO) } else { (0, BPF_SKB_TSTAMP_UNSPEC) };
    // SAFETY: the helper checks its arguments; it has just been possible. The verifier allows writing the field.
    unsafe {
        bpf_skb_set_tstamp(skb, departure, kind);
        if !is_departure {
            (*skb).tstamp = tstamp;
        }
    }
}
