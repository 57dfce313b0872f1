//! The `fq` qdisc that holds packets back until their time, where a device has none. It outlives the controller, so it
//! is journalled first and undone by name; by itself it delays nothing.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use rtnetlink::{
    packet_core::{
        DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
        NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage},
    },
};

use super::{
    KernelError,
    fault_point::FaultPoint,
    journal::{Journal, Residue},
};
use crate::{
    fault::plan::Place,
    target::{
        Netns,
        netns::with_netlink,
        root_qdisc::{self, OUR_HANDLE, RootQdisc, attribute},
    },
};

const TCA_OPTIONS: u16 = 2;
/// How far ahead a packet's time may be, as in a new fq.
const HORIZON: Duration = Duration::from_secs(10);
/// As many flows as there are hashes: those that share one wait for one another.
const ORPHAN_MASK: u32 = u32::MAX;
/// The trees that flows are kept in.
const BUCKETS_LOG: u32 = 14;
/// No pacing of sockets: those of others shall not notice more than they must.
const NO_PACING: u32 = 0;

/// How long the end of a fault waits for packets that are held back; those that are held back longer are lost.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(2);

/// Makes it the root qdisc of a device, journalled.
pub fn replace_root(
    journal: &mut Journal,
    at: &Place,
    limit: u32,
    hold: Duration,
) -> Result<(), KernelError> {
    let Place { netns, device } = at;
    let residue =
        Residue::RootFq { netns: netns.inode, device: device.name.clone(), hold_ms: hold.as_millis() as u64 };
    journal.note(residue).map_err(KernelError::io("the journal"))?;
    FaultPoint::FqNoted.reached();
    let added = netns.run(|| add(&device.name, limit)).and_then(|added| added);
    added.map_err(KernelError::io(format!("fq qdisc on {}", device.name)))?;
    FaultPoint::FqAdded.reached();
    Ok(())
}

/// Adds it to a device of the calling thread's namespace; not where somebody has configured another.
pub(super) fn add(device: &str, limit: u32) -> io::Result<()> {
    let options = [
        (attribute::PLIMIT, limit),
        (attribute::FLOW_PLIMIT, limit),
        (attribute::RATE_ENABLE, NO_PACING),
        (attribute::BUCKETS_LOG, BUCKETS_LOG),
        (attribute::ORPHAN_MASK, ORPHAN_MASK),
        (attribute::HORIZON, HORIZON.as_micros() as u32),
    ];
    let options = options.map(|(kind, value)| DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
    make(root(device)?, "fq", attributes(&options))
}

/// As they stand in a qdisc's options.
pub(super) fn attributes(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// Makes a qdisc where a message says; not where somebody has configured another.
pub(super) fn make(mut message: TcMessage, kind: &str, options: Vec<u8>) -> io::Result<()> {
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)));
    request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes it, if it is ours, once what it holds has left. What is already gone is no error.
pub fn undo(netns: &Netns, device: &str, hold: Duration) -> io::Result<()> {
    netns.run(|| {
        if !ours(device)? {
            return Ok(());
        }
        wait_until_empty(device, hold)?;
        let removed = root(device).and_then(|root| request(RouteNetlinkMessage::DelQueueDiscipline(root), 0));
        // A sweep and the watchdog may be at it at the same time, and one of them comes too late.
        if ours(device)? { removed } else { Ok(()) }
    })?
}

/// Waits until packets that may be held back for so long have left; not longer than anybody's patience.
pub(super) fn wait_until_empty(device: &str, hold: Duration) -> io::Result<()> {
    let deadline = Instant::now() + hold.min(PATIENCE);
    while waiting(device)? > 0 && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    Ok(())
}

/// The same as a command that a human would type in that namespace.
pub fn undo_command(device: &str) -> String {
    format!("tc qdisc del dev {device} root")
}

/// Whether a device is there and has ours.
fn ours(device: &str) -> io::Result<bool> {
    let Ok(index) = ifindex(device) else { return Ok(false) };
    Ok(RootQdisc::of(index, &root_qdisc::list()?) == RootQdisc::Ours)
}

/// How many packets wait in it.
fn waiting(device: &str) -> io::Result<u32> {
    let index = ifindex(device)? as i32;
    let qdiscs = root_qdisc::list()?;
    let root =
        qdiscs.iter().find(|qdisc| qdisc.header.index == index && qdisc.header.parent == TcHandle::ROOT);
    Ok(root.map_or(0, root_qdisc::waiting))
}

/// Where our root qdisc of a device is.
pub(super) fn root(device: &str) -> io::Result<TcMessage> {
    let mut message = TcMessage::with_index(ifindex(device)? as i32);
    message.header.parent = TcHandle::ROOT;
    message.header.handle = TcHandle { major: OUR_HANDLE, minor: 0 };
    Ok(message)
}

pub(super) fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    with_netlink(async |mut handle| {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
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

fn ifindex(device: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(device).map_err(io::Error::from)
}
