//! What sends a device's packets: its root qdisc.

use std::{io, time::Duration};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcStats2};

use super::netns::with_netlink;

pub use chaos_common::priority::HANDLE as OUR_HANDLE;

/// What sends a device's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootQdisc {
    /// What the kernel gives the device by itself, and gives it again when another is deleted: it has no handle.
    Default {
        /// Its kind; empty if there is none.
        kind: String,
    },
    /// One that sends each packet at its time.
    Fq(Fq),
    /// One that kchaos has made.
    Ours,
    /// One that somebody has configured.
    Configured {
        /// Its kind.
        kind: String,
        /// Its handle's number.
        handle: u16,
    },
}

/// How much an `fq` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fq {
    /// Packets altogether.
    pub limit: u32,
    /// Packets of one flow.
    pub flow_limit: u32,
    /// How far ahead a packet's time may be.
    pub horizon: Duration,
}

/// Attributes of fq's options (include/uapi/linux/pkt_sched.h, 6.18).
pub mod attribute {
    /// Packets altogether.
    pub const PLIMIT: u16 = 1;
    /// Packets of one flow.
    pub const FLOW_PLIMIT: u16 = 2;
    /// Whether it paces sockets.
    pub const RATE_ENABLE: u16 = 5;
    /// How many trees flows are kept in, as a power of two.
    pub const BUCKETS_LOG: u16 = 8;
    /// How many flows packets without a socket are dealt to, less one.
    pub const ORPHAN_MASK: u16 = 10;
    /// How far ahead a packet's time may be, in microseconds.
    pub const HORIZON: u16 = 14;
}

impl RootQdisc {
    /// No qdisc that could be told.
    pub fn none() -> Self {
        Self::Default { kind: String::new() }
    }

    /// The one of a device among all qdiscs of its namespace.
    pub fn of(ifindex: u32, qdiscs: &[TcMessage]) -> Self {
        let own = || qdiscs.iter().filter(|qdisc| qdisc.header.index == ifindex as i32);
        let Some(root) = own().find(|qdisc| qdisc.header.parent == TcHandle::ROOT) else {
            return Self::none();
        };
        let handle = root.header.handle.major;
        let children: Vec<&TcMessage> = own().filter(|qdisc| is_child(qdisc, handle)).collect();
        match kind(root) {
            "fq" | "prio" if handle == OUR_HANDLE => Self::Ours,
            "fq" => Self::Fq(fq(root)),
            "mq" if !children.is_empty() && children.iter().all(|child| kind(child) == "fq") => {
                Self::Fq(children.into_iter().map(fq).reduce(Fq::narrower).unwrap_or(Fq::DEFAULT))
            }
            kind if handle == 0 && children.iter().all(|child| child.header.handle.major == 0) => {
                Self::Default { kind: kind.to_owned() }
            }
            kind => Self::Configured { kind: kind.to_owned(), handle },
        }
    }
}

impl Fq {
    /// As a kernel makes it (net/sched/sch_fq.c, `fq_init`, 6.12).
    const DEFAULT: Self = Self { limit: 10_000, flow_limit: 100, horizon: Duration::from_secs(10) };

    /// What both hold.
    fn narrower(self, other: Self) -> Self {
        Self {
            limit: self.limit.min(other.limit),
            flow_limit: self.flow_limit.min(other.flow_limit),
            horizon: self.horizon.min(other.horizon),
        }
    }
}

/// Where tc ingress and clsact hang is no place for children of the root.
fn is_child(qdisc: &TcMessage, of: u16) -> bool {
    let parent = qdisc.header.parent;
    parent != TcHandle::ROOT && parent != TcHandle::INGRESS && parent.major == of
}

fn kind(qdisc: &TcMessage) -> &str {
    let kind = qdisc.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    });
    kind.unwrap_or_default()
}

/// How much this fq holds; what it does not say is as in a new one.
fn fq(qdisc: &TcMessage) -> Fq {
    let mut fq = Fq::DEFAULT;
    for (kind, value) in options(qdisc) {
        match kind {
            attribute::PLIMIT => fq.limit = value,
            attribute::FLOW_PLIMIT => fq.flow_limit = value,
            attribute::HORIZON => fq.horizon = Duration::from_micros(value.into()),
            _ => {}
        }
    }
    fq
}

/// The attributes of a qdisc's options that are one number.
fn options(qdisc: &TcMessage) -> Vec<(u16, u32)> {
    use rtnetlink::packet_core::{Emitable, Nla, NlasIterator};
    let mut found = Vec::new();
    for attribute in &qdisc.attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            let TcOption::Other(nested) = option else { continue };
            let mut bytes = vec![0; nested.value_len()];
            nested.emit_value(&mut bytes);
            debug_assert!(bytes.len() <= nested.buffer_len());
            for nla in NlasIterator::new(&bytes[..]).flatten() {
                if let Ok(value) = nla.value().try_into() {
                    found.push((nla.kind(), u32::from_ne_bytes(value)));
                }
            }
        }
    }
    found
}

/// How many packets wait in it.
pub fn waiting(qdisc: &TcMessage) -> u32 {
    let of = |attribute: &TcAttribute| match attribute {
        TcAttribute::Stats(stats) => Some(stats.qlen),
        TcAttribute::Stats2(stats) => stats.iter().find_map(|stats| match stats {
            TcStats2::Queue(queue) => Some(queue.qlen),
            _ => None,
        }),
        _ => None,
    };
    qdisc.attributes.iter().find_map(of).unwrap_or(0)
}

/// All qdiscs of the calling thread's namespace.
pub fn list() -> io::Result<Vec<TcMessage>> {
    with_netlink(async |handle| handle.qdisc().get().execute().try_collect().await.map_err(io::Error::other))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::DefaultNla;

    use super::*;

    const DEVICE: u32 = 7;
    const OPTIONS: u16 = 2;

    fn qdisc(kind: &str, handle: u16, parent: TcHandle) -> TcMessage {
        let mut message = TcMessage::with_index(DEVICE as i32);
        message.header.handle = TcHandle { major: handle, minor: 0 };
        message.header.parent = parent;
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        message
    }

    fn root(kind: &str, handle: u16) -> TcMessage {
        qdisc(kind, handle, TcHandle::ROOT)
    }

    fn child(kind: &str, handle: u16, of: u16, number: u16) -> TcMessage {
        qdisc(kind, handle, TcHandle { major: of, minor: number })
    }

    fn holding(mut qdisc: TcMessage, limits: &[(u16, u32)]) -> TcMessage {
        let bytes = limits.iter().flat_map(|(kind, value)| {
            [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
        });
        let nested = TcOption::Other(DefaultNla::new(OPTIONS, bytes.collect()));
        qdisc.attributes.push(TcAttribute::Options(vec![nested]));
        qdisc
    }

    fn of(qdiscs: &[TcMessage]) -> RootQdisc {
        RootQdisc::of(DEVICE, qdiscs)
    }

    #[test]
    fn what_has_no_handle_is_the_kernels_own() {
        let default = |kind: &str| RootQdisc::Default { kind: kind.to_owned() };
        assert_eq!(of(&[]), RootQdisc::none());
        assert_eq!(of(&[root("noqueue", 0)]), default("noqueue"));
        let clsact = qdisc("clsact", 0xffff, TcHandle::INGRESS);
        let multiqueue = [root("mq", 0), child("fq_codel", 0, 0, 1), child("fq_codel", 0, 0, 2), clsact];
        assert_eq!(of(&multiqueue), default("mq"));
        assert_eq!(RootQdisc::of(8, &multiqueue), RootQdisc::none());
    }

    #[test]
    fn what_somebody_configured_is_theirs() {
        let configured = |kind: &str, handle| RootQdisc::Configured { kind: kind.to_owned(), handle };
        assert_eq!(of(&[root("htb", 1), child("fq", 2, 1, 10)]), configured("htb", 1));
        assert_eq!(
            of(&[root("mq", 0), child("fq_codel", 0, 0, 1), child("cake", 0x8001, 0, 2)]),
            configured("mq", 0)
        );
    }

    #[test]
    fn an_fq_is_known_with_what_it_holds() {
        assert_eq!(of(&[root("fq", 0)]), RootQdisc::Fq(Fq::DEFAULT));
        let limits = [(attribute::PLIMIT, 5), (attribute::FLOW_PLIMIT, 3), (attribute::HORIZON, 2_000_000)];
        let narrow = Fq { limit: 5, flow_limit: 3, horizon: Duration::from_secs(2) };
        assert_eq!(of(&[holding(root("fq", 0x8003), &limits)]), RootQdisc::Fq(narrow));
        let children = [root("mq", 1), child("fq", 2, 1, 1), holding(child("fq", 3, 1, 2), &limits)];
        assert_eq!(of(&children), RootQdisc::Fq(narrow));
        assert_eq!(of(&[root("fq", OUR_HANDLE)]), RootQdisc::Ours);
        let netem = child("netem", 0x8001, OUR_HANDLE, 4);
        assert_eq!(of(&[root("prio", OUR_HANDLE), netem]), RootQdisc::Ours);
    }
}
