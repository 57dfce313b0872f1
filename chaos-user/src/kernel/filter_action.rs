//! A tc filter with actions: what its program tells to, they send through an ifb. aya attaches filters that decide by
//! themselves only.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use chaos_common::shape::IFB_IFINDEX;
use rtnetlink::{
    packet_core::{DefaultNla, Emitable, NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage},
    },
};

use super::{
    fq::request,
    qdisc::{self, FilterHandle},
};

/// Attributes (include/uapi/linux/rtnetlink.h, pkt_cls.h, tc_act/tc_mirred.h and tc_gact.h, 6.18).
mod attribute {
    pub const OPTIONS: u16 = 2;
    pub const BPF_ACT: u16 = 1;
    pub const BPF_FD: u16 = 6;
    pub const BPF_NAME: u16 = 7;
    pub const ACT_KIND: u16 = 1;
    pub const ACT_OPTIONS: u16 = 2;
    /// Of both actions.
    pub const PARMS: u16 = 2;
}

/// TC_ACT_SHOT: the packet ends here.
const SHOT: u32 = 2;
/// TC_ACT_PIPE: on to the next action. It is a copy that is sent then, which has no socket (net/sched/act_mirred.c,
/// `tcf_mirred_can_reinsert`, 6.1).
const PIPE: u32 = 3;
/// TCA_EGRESS_REDIR: as if it left there.
const EGRESS_REDIRECT: u32 = 1;
const ALL_PROTOCOLS: u16 = 0x0003;

/// Adds it where packets arrive at a device of the calling thread's namespace. The ifb must be there.
pub fn add(device: &str, name: &str, handle: FilterHandle, program: BorrowedFd<'_>) -> io::Result<()> {
    let ifindex = nix::net::if_::if_nametoindex(device)?;
    let priority = qdisc::priority(name);
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
    message.header.handle = TcHandle::from(handle.get());
    message.header.info = u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS.to_be());
    let options = nested(
        attribute::OPTIONS,
        &[
            DefaultNla::new(attribute::BPF_FD, program.as_raw_fd().to_ne_bytes().to_vec()),
            DefaultNla::new(attribute::BPF_NAME, text(name)),
            nested(
                attribute::BPF_ACT,
                &[action(1, "mirred", PIPE, &[EGRESS_REDIRECT, IFB_IFINDEX]), action(2, "gact", SHOT, &[])],
            ),
        ],
    );
    message.attributes = vec![TcAttribute::Kind("bpf".to_owned()), TcAttribute::Other(options)];
    request(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// One action: what all have (`tc_gen`: index, capabilities, verdict and two counts), and what is its own.
fn action(place: u16, kind: &str, verdict: u32, own: &[u32]) -> DefaultNla {
    let words = [0, 0, verdict, 0, 0].into_iter().chain(own.iter().copied());
    let parameters = DefaultNla::new(attribute::PARMS, words.flat_map(u32::to_ne_bytes).collect());
    nested(
        place,
        &[DefaultNla::new(attribute::ACT_KIND, text(kind)), nested(attribute::ACT_OPTIONS, &[parameters])],
    )
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind, bytes)
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
