//! The clsact qdisc and our filters on it, for kernels without TCX. What is made here outlives the
//! controller, so it is journalled first and undone by name.

use std::io;

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle as Parent};
use serde::{Deserialize, Serialize};

use crate::{
    fault::plan::{is_last, tc_rank},
    target::netns::{Netns, with_netlink},
};

/// Our filters are early in the chain, a priority for each program, or its last.
const FIRST_PRIORITY: u16 = 1;
const LAST_PRIORITY: u16 = u16::MAX;

/// By which the filters of one injection are known: each has another, so that they end each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterHandle(u32);

impl FilterHandle {
    /// "k", and a number of which 24 bits count.
    pub const fn new(number: u32) -> Self {
        Self(0x6b00_0000 | number & 0xff_ffff)
    }

    /// As tc has it.
    pub const fn get(self) -> u32 {
        self.0
    }

    const fn aya(self) -> TcHandle {
        TcHandle::new((self.0 >> 16) as u16, self.0 as u16)
    }
}

/// Where and under which name the filter is attached with a program.
pub fn attach_options(program: &str, handle: FilterHandle) -> TcAttachOptions {
    TcAttachOptions::Netlink(NlOptions { priority: priority(program), handle: handle.aya(), classid: None })
}

/// The place of a program's filter in the chain.
pub fn priority(program: &str) -> u16 {
    if is_last(program) { LAST_PRIORITY } else { FIRST_PRIORITY + tc_rank(program) as u16 }
}

/// Whether a device of the calling thread's namespace has a clsact qdisc.
pub fn has_clsact(device: &str) -> io::Result<bool> {
    let index = ifindex(device)?;
    with_netlink(async |handle| {
        let mut qdiscs = handle.qdisc().get().execute();
        while let Some(qdisc) = qdiscs.try_next().await.map_err(io::Error::other)? {
            let is_clsact =
                |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact");
            if qdisc.header.index == index as i32 && qdisc.attributes.iter().any(is_clsact) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Adds a clsact qdisc to a device of the calling thread's namespace.
pub fn add_clsact(device: &str) -> io::Result<()> {
    aya::programs::tc::qdisc_add_clsact(device).map_err(io::Error::other)
}

/// Removes the filters of one injection, and the qdisc if it is ours and nobody else hangs on it by now. What is already
/// gone is no error.
pub fn undo(netns: &Netns, device: &str, handle: FilterHandle, adds_qdisc: bool) -> io::Result<()> {
    netns.run(|| {
        let Ok(index) = ifindex(device) else { return Ok(()) };
        if !has_clsact(device)? {
            return Ok(());
        }
        remove_filters(device, index, handle)?;
        if adds_qdisc && filters(index)?.is_empty() {
            let removed = remove_clsact(index);
            // A sweep and the watchdog may be at it at the same time, and one of them comes too late.
            return if has_clsact(device)? { removed } else { Ok(()) };
        }
        Ok(())
    })?
}

/// Removes the filters alone, before what they use is taken away. What is already gone is no error.
pub fn undo_filters(netns: &Netns, device: &str, handle: FilterHandle) -> io::Result<()> {
    netns.run(|| match ifindex(device) {
        Ok(index) if has_clsact(device)? => remove_filters(device, index, handle),
        _ => Ok(()),
    })?
}

fn remove_filters(device: &str, index: u32, handle: FilterHandle) -> io::Result<()> {
    let ours = filters(index)?.into_iter().filter(|filter| filter.handle == handle.get());
    for Filter { direction, priority, .. } in ours {
        let link = SchedClassifierLink::attached(device, direction, priority, handle.aya(), None)?;
        drop(link); // a filter is detached when its link is dropped
    }
    Ok(())
}

/// The same as commands that a human would type in that namespace; `handle` is not known before an injection is made.
pub fn undo_commands(device: &str, handle: Option<FilterHandle>, adds_qdisc: bool) -> String {
    if adds_qdisc {
        return format!("tc qdisc del dev {device} clsact");
    }
    let handle = handle.map_or("0x6b…".to_owned(), |handle| format!("{:#x}", handle.get()));
    format!("tc filter del dev {device} egress|ingress pref N handle {handle} bpf, for each such filter")
}

fn remove_clsact(index: u32) -> io::Result<()> {
    with_netlink(async |handle| {
        let mut request = handle.qdisc().del(index as i32);
        request.message_mut().header.parent = Parent::CLSACT;
        request.message_mut().header.handle = Parent { major: 0xffff, minor: 0 };
        request.execute().await.map_err(io::Error::other)
    })
}

/// A filter on a clsact qdisc.
struct Filter {
    direction: TcAttachType,
    priority: u16,
    handle: u32,
}

/// All filters on a device's clsact qdisc, both ways.
fn filters(index: u32) -> io::Result<Vec<Filter>> {
    with_netlink(async |handle| {
        let mut found = Vec::new();
        let requests = [
            (TcAttachType::Ingress, handle.traffic_filter(index as i32).get().ingress()),
            (TcAttachType::Egress, handle.traffic_filter(index as i32).get().egress()),
        ];
        for (direction, request) in requests {
            let mut filters = request.execute();
            while let Some(filter) = filters.try_next().await.map_err(io::Error::other)? {
                // The upper half of `tcm_info` (include/uapi/linux/pkt_sched.h, TC_H_MAJ, 6.18).
                let priority = (filter.header.info >> 16) as u16;
                found.push(Filter { direction, priority, handle: u32::from(filter.header.handle) });
            }
        }
        Ok(found)
    })
}

fn ifindex(device: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(device).map_err(io::Error::from)
}
