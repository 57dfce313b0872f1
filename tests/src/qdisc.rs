//! Root qdiscs that somebody has configured, and what a device has.

use std::{collections::BTreeMap, io};

use anyhow::Context;
use futures_util::StreamExt;
use kchaos::target::{
    Netns,
    netns::with_netlink,
    root_qdisc::{self, RootQdisc},
};
use rtnetlink::{
    packet_core::{
        DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage, TcStats2},
    },
};

const TCA_OPTIONS: u16 = 2;

/// Makes a root qdisc of a device as `tc qdisc replace dev DEVICE root handle HANDLE: KIND` does.
pub fn configure(
    netns: &Netns,
    device: &str,
    handle: u16,
    kind: &str,
    options: Option<Vec<u8>>,
) -> anyhow::Result<()> {
    let configure = || {
        let index = nix::net::if_::if_nametoindex(device)?;
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = TcHandle::ROOT;
        message.header.handle = TcHandle { major: handle, minor: 0 };
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        let options = options.map(|options| DefaultNla::new(TCA_OPTIONS, options));
        message.attributes.extend(options.map(TcAttribute::Other));
        request(message)
    };
    netns.run(configure)?.with_context(|| format!("{kind} as root qdisc of {device}"))
}

fn request(message: TcMessage) -> io::Result<()> {
    with_netlink(async |mut handle| {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut answers = handle.request(request).map_err(io::Error::other)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    })
}

/// `struct tc_netem_qopt` (include/uapi/linux/pkt_sched.h, 6.18) for a delay: its unit is 64 ns
/// (include/net/pkt_sched.h, PSCHED_SHIFT).
pub fn netem_delay(milliseconds: u32) -> Vec<u8> {
    const LIMIT: u32 = 100_000;
    let ticks = milliseconds * 15_625;
    [ticks, LIMIT, 0, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// What sends a device's packets.
pub fn root(netns: &Netns, device: &str) -> anyhow::Result<RootQdisc> {
    let root = || {
        let index = nix::net::if_::if_nametoindex(device)?;
        Ok::<_, io::Error>(RootQdisc::of(index, &root_qdisc::list()?))
    };
    Ok(netns.run(root)??)
}

/// How many packets have gone through what hangs below each class of a device's root qdisc, by the class's number.
pub fn sent_by_class(netns: &Netns, device: &str) -> anyhow::Result<BTreeMap<u16, u32>> {
    let by_class = || {
        let index = nix::net::if_::if_nametoindex(device)? as i32;
        let own = root_qdisc::list()?.into_iter().filter(|qdisc| qdisc.header.index == index);
        let sent = own.map(|qdisc| (qdisc.header.parent.minor, sent(&qdisc)));
        Ok::<_, io::Error>(sent.collect())
    };
    Ok(netns.run(by_class)??)
}

fn sent(qdisc: &TcMessage) -> u32 {
    let of = |attribute: &TcAttribute| match attribute {
        TcAttribute::Stats2(stats) => stats.iter().find_map(|stats| match stats {
            TcStats2::Basic(basic) => Some(basic.packets),
            _ => None,
        }),
        _ => None,
    };
    qdisc.attributes.iter().find_map(of).unwrap_or(0)
}
