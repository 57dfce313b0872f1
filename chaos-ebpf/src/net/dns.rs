//! A name service that says something else, or nothing: queries are answered before they leave.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, maps::lpm_trie::Key, programs::TcContext};
use chaos_common::{
    dns::{
        A_BYTES, AAAA_BYTES, CLASS_IN, DnsAnswer, HEADER_BYTES, KEY_BYTES, MAX_QUESTION_END, MESSAGE_BYTES,
        QUESTION_TAIL_BYTES, asks_one_question, kind, make_answer, name_end, write_key, write_record,
    },
    net::{Direction, hook},
    packet::{UDP_BYTES, protocol, udp_checksum},
};

use super::{
    gate_with, parse,
    turn::{self, Answer, Sent, sum_of},
    vanish::vanish,
};
use crate::{
    maps::{DNS_ANSWERS, DNS_NAMES, DNS_QUERY, NET, global},
    skb::{Skb, opaque},
};

/// The query that is being looked at on a CPU: too large for the stack. tc programs run with bottom halves off,
/// so nobody else comes in between.
#[repr(C)]
pub struct Query {
    /// The name, as `DNS_NAMES` takes it.
    key: Key<[u8; KEY_BYTES]>,
    /// Where the question ends; 0 if the packet is no query.
    question_end: u32,
    /// The message up to there, and what is made of it.
    answer: Answer,
}

/// tc egress. What matches and is no query, because it is TCP's, disappears.
#[classifier]
pub fn dns_egress(ctx: TcContext) -> i32 {
    let clauses = || clauses(&ctx).unwrap_or(0);
    match gate_with(Skb(ctx.skb.skb), hook::DNS_EGRESS, clauses) {
        None => TC_ACT_UNSPEC,
        Some(rule) => match answer(&ctx, rule) {
            Some(()) => turn::back(&ctx),
            None => vanish(&ctx),
        },
    }
}

/// The filter clauses that a packet matches, its name included.
#[inline(always)]
fn clauses(ctx: &TcContext) -> Option<u64> {
    let clauses = parse::clauses(Skb(ctx.skb.skb), Direction::Egress);
    let any_name = global(&NET.any_name);
    // SAFETY: the map's one entry is there, and is this CPU's own.
    let query = unsafe { &mut *DNS_QUERY.get_ptr_mut(0)? };
    query.question_end = 0;
    if clauses & !any_name == 0 {
        return Some(clauses);
    }
    let names = ask(ctx, query).and_then(|()| DNS_NAMES.get(&query.key).copied()).unwrap_or(0);
    Some(clauses & (any_name | names))
}

/// Reads the query, if it is one, with exactly one question.
#[inline(always)]
fn ask(ctx: &TcContext, query: &mut Query) -> Option<()> {
    let sent = Sent::read(ctx)?;
    if sent.protocol != protocol::UDP {
        return None;
    }
    let message_bytes = (sent.payload_bytes as usize).checked_sub(UDP_BYTES)?;
    load(Skb(ctx.skb.skb), &sent, &mut query.answer, message_bytes.min(MAX_QUESTION_END))?;
    let message = query.answer.payload[UDP_BYTES..].first_chunk()?;
    if !asks_one_question(message.first_chunk()?) {
        return None;
    }
    let end = name_end(message)?;
    let question_end = end + 1 + QUESTION_TAIL_BYTES;
    if question_end > message_bytes {
        return None;
    }
    query.key.prefix_len = write_key(message, end, &mut query.key.data);
    query.question_end = question_end as u32;
    Some(())
}

/// Loads the first bytes of the message, and makes the rest of the room zeros.
#[inline(always)]
fn load(skb: Skb, sent: &Sent, answer: &mut Answer, bytes: usize) -> Option<()> {
    if bytes > MAX_QUESTION_END {
        return None;
    }
    let bytes = opaque(bytes);
    if bytes < HEADER_BYTES {
        return None;
    }
    answer.payload = [0; UDP_BYTES + MESSAGE_BYTES];
    skb.load(sent.ip_bytes() + UDP_BYTES as u32, answer.payload[UDP_BYTES..].get_mut(..bytes)?)
}

#[inline(always)]
fn answer(ctx: &TcContext, rule: u32) -> Option<()> {
    let wanted = DNS_ANSWERS.get(rule)?;
    // SAFETY: as above; the gate has filled it in.
    let query = unsafe { &mut *DNS_QUERY.get_ptr_mut(0)? };
    let (answer, question_end) = (&mut query.answer, query.question_end as usize);
    if wanted.drop != 0 || question_end == 0 {
        return None;
    }
    let (skb, sent) = (Skb(ctx.skb.skb), Sent::read(ctx)?);
    load(skb, &sent, answer, question_end)?;
    let record_bytes = add_record(answer, question_end, wanted)?;
    make_answer(answer.payload[UDP_BYTES..].first_chunk_mut()?, wanted.rcode, (record_bytes > 0) as u8);
    let bytes = opaque(UDP_BYTES + question_end + record_bytes);
    if bytes > SUMMED_BYTES {
        return None; // it never is, which the verifier does not see
    }
    let bytes = bytes as u16;
    add_header(skb, &sent, answer, bytes)?;
    sent.turn(ctx, answer, bytes)
}

/// Adds the record that the question asks for. Returns how long it is: 0 if there is none.
#[inline(always)]
fn add_record(answer: &mut Answer, question_end: usize, wanted: &DnsAnswer) -> Option<usize> {
    let tail = answer.payload.get(UDP_BYTES + question_end - QUESTION_TAIL_BYTES..)?.first_chunk()?;
    let [kind_high, kind_low, class_high, class_low] = *tail;
    if u16::from_be_bytes([class_high, class_low]) != CLASS_IN {
        return Some(0);
    }
    let (kind, bytes, address) = match u16::from_be_bytes([kind_high, kind_low]) {
        kind::A if wanted.has_v4 != 0 => (kind::A, A_BYTES, &wanted.v4),
        kind::AAAA if wanted.has_v6 != 0 => (kind::AAAA, AAAA_BYTES, &wanted.v6),
        _ => return Some(0),
    };
    let record = answer.payload.get_mut(UDP_BYTES + question_end..)?.first_chunk_mut()?;
    write_record(record, kind, wanted.ttl_s, bytes - (AAAA_BYTES - 16), address);
    Some(bytes)
}

/// What of an answer may be something else than 0.
const SUMMED_BYTES: usize = (UDP_BYTES + MAX_QUESTION_END + AAAA_BYTES).next_multiple_of(4);

/// Adds the UDP header of so many bytes, itself included.
#[inline(always)]
fn add_header(skb: Skb, sent: &Sent, answer: &mut Answer, bytes: u16) -> Option<()> {
    let pseudo = sent.address(skb, answer, protocol::UDP, bytes)?;
    let payload = answer.payload.first_chunk_mut::<SUMMED_BYTES>()?;
    skb.load(sent.ip_bytes() + 2, &mut payload[..2])?;
    skb.load(sent.ip_bytes(), &mut payload[2..4])?;
    payload[4..6].copy_from_slice(&bytes.to_be_bytes());
    let sum = pseudo + sum_of(payload)?;
    payload[6..8].copy_from_slice(&udp_checksum(sum).to_be_bytes());
    Some(())
}
