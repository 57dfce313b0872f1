//! The `ifb` device that what arrives takes a way round through, so that an `fq` can hold it back. It outlives the
//! controller, so it is journalled first and undone by name; by itself nothing goes through it.

use std::{io, time::Duration};

use chaos_common::shape::IFB_IFINDEX;
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkIfb, LinkUnspec,
    packet_route::link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
    },
};

use super::{
    KernelError,
    fault_point::FaultPoint,
    fq,
    journal::{Journal, Residue},
};
use crate::target::{
    Netns,
    netns::{OUR_IFB, has_our_ifb, with_netlink},
};

/// How many packets may be on their way from its qdisc back to their device: 32 stop the qdisc again and again
/// (drivers/net/ifb.c, TX_Q_LIMIT and `ifb_xmit`, 6.18).
const QUEUE_PACKETS: u32 = 1000;

/// Makes it, journalled.
pub fn make(journal: &mut Journal, netns: &Netns, limit: u32, hold: Duration) -> Result<(), KernelError> {
    let what = || format!("ifb device {OUR_IFB}");
    // What somebody else has made since it was planned shall not be undone by us.
    if netns.run(has_our_ifb).map_err(KernelError::io(what()))? {
        return Err(KernelError::io(what())(io::ErrorKind::AlreadyExists.into()));
    }
    let residue = Residue::Ifb { netns: netns.inode, hold_ms: hold.as_millis() as u64 };
    journal.note(residue).map_err(KernelError::io("the journal"))?;
    FaultPoint::IfbNoted.reached();
    netns.run(add).and_then(|added| added).map_err(KernelError::io(what()))?;
    FaultPoint::IfbAdded.reached();
    let up = netns.run(|| fq::add(OUR_IFB, limit).and_then(|()| bring_up()));
    up.and_then(|up| up).map_err(KernelError::io(what()))?;
    FaultPoint::IfbUp.reached();
    Ok(())
}

/// Adds it to the calling thread's namespace, by the index that the kernel half knows.
fn add() -> io::Result<()> {
    with_netlink(async |handle| {
        let mut device = LinkIfb::new(OUR_IFB).build();
        device.header.index = IFB_IFINDEX;
        device.attributes.push(LinkAttribute::TxQueueLen(QUEUE_PACKETS));
        handle.link().add(device).execute().await.map_err(kernels)
    })
}

/// Brings it up, without an address of its own: it is nobody's way to anywhere.
fn bring_up() -> io::Result<()> {
    with_netlink(async |handle| {
        let mut quiet = LinkUnspec::new_with_index(IFB_IFINDEX).build();
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        quiet.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        // A kernel without IPv6 gives it no address anyway.
        let _ = handle.link().set(quiet).execute().await;
        let up = LinkUnspec::new_with_index(IFB_IFINDEX).up().build();
        handle.link().set(up).execute().await.map_err(kernels)
    })
}

/// Removes it, once what it holds has left. A dead controller's filters are undone before. What is already gone is no
/// error.
pub fn undo(netns: &Netns, hold: Duration) -> io::Result<()> {
    netns.run(|| {
        let Some(index) = with_netlink(async |handle| ours(&handle).await)? else { return Ok(()) };
        let removed = remove(index, hold);
        // A sweep and the watchdog may be at it at the same time, and one of them comes too late.
        if has_our_ifb() { removed } else { Ok(()) }
    })?
}

fn remove(index: u32, hold: Duration) -> io::Result<()> {
    fq::wait_until_empty(OUR_IFB, hold)?;
    with_netlink(async |handle| handle.link().del(index).execute().await.map_err(kernels))
}

/// The same as a command that a human would type in that namespace.
pub fn undo_command() -> String {
    format!("ip link del {OUR_IFB}")
}

/// The index of ours, if it is there.
async fn ours(handle: &Handle) -> io::Result<Option<u32>> {
    let links = links(handle).await?;
    Ok(links.iter().find(|link| name(link) == Some(OUR_IFB) && is_ifb(link)).map(|link| link.header.index))
}

async fn links(handle: &Handle) -> io::Result<Vec<LinkMessage>> {
    handle.link().get().execute().try_collect().await.map_err(kernels)
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn is_ifb(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Ifb)))
        }
        _ => false,
    })
}

/// What the kernel said, without what the library makes of it.
fn kernels(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(error) => error.to_io(),
        other => io::Error::other(other),
    }
}
