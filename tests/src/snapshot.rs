//! What a test compares before and after: everything that kchaos could leave behind.

use std::{fs, io, os::unix::fs::MetadataExt};

use anyhow::ensure;
use aya::programs::{SchedClassifier, TcAttachType};
use futures_util::TryStreamExt;
use kchaos::{
    kernel::journal,
    target::{Hierarchy, netns::with_netlink},
};
use rtnetlink::{
    Handle,
    packet_route::{
        link::LinkAttribute,
        tc::{TcAttribute, TcMessage},
    },
};

use crate::{
    bpf::{self, CgroupHook},
    lab::{Cgroup, DEVICE, Lab},
};

/// The state of a lab, and of what controllers keep on the host; one line each.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(Vec<String>);

impl Snapshot {
    /// Now. Other tests run at the same time, so nothing of theirs is looked at.
    pub fn take(lab: &Lab, cgroups: &[&Cgroup]) -> anyhow::Result<Self> {
        let mut lines = Vec::new();
        for (name, netns) in [("inside", &lab.inside), ("outside", &lab.outside)] {
            let devices = netns.run(|| with_netlink(async |handle| devices(&handle).await))??;
            lines.extend(devices.into_iter().map(|line| format!("{name}: {line}")));
        }
        for attach_type in [TcAttachType::Egress, TcAttachType::Ingress] {
            // Before Linux 6.6 there is nothing to ask for.
            let queried = lab.inside.run(|| SchedClassifier::query_tcx(DEVICE, attach_type))?;
            let programs = queried.map(|(_, programs)| programs).unwrap_or_default();
            lines.extend(programs.iter().map(|program| format!("tcx {attach_type:?}: {}", program.id())));
        }
        for cgroup in cgroups {
            lines.extend(of_cgroup(cgroup)?);
        }
        Ok(Self(lines))
    }

    /// Nothing has changed, and nothing of a controller is left on the host.
    pub fn ensure_restored(&self, lab: &Lab, cgroups: &[&Cgroup], controller: i32) -> anyhow::Result<()> {
        let now = Self::take(lab, cgroups)?;
        ensure!(*self == now, "not as it was: {self:#?} became {now:#?}");
        let left = left_by(controller)?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

async fn devices(handle: &Handle) -> io::Result<Vec<String>> {
    // One dump after another: the kernel refuses two at once on one socket.
    let links: Vec<_> = handle.link().get().execute().try_collect().await.map_err(io::Error::other)?;
    let qdiscs: Vec<_> = handle.qdisc().get().execute().try_collect().await.map_err(io::Error::other)?;
    let mut lines: Vec<String> = qdiscs.iter().map(|qdisc| format!("qdisc {}", tc(qdisc))).collect();
    for link in links {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        });
        let (index, flags) = (link.header.index, link.header.flags);
        lines.push(format!("device {index} {} {flags:?}", name.unwrap_or_default()));
        let filters = || handle.traffic_filter(index as i32).get();
        for (way, request) in [("egress", filters().egress()), ("ingress", filters().ingress())] {
            let filters: Vec<_> = request.execute().try_collect().await.map_err(io::Error::other)?;
            lines.extend(filters.iter().map(|filter| format!("{way} filter {}", tc(filter))));
        }
    }
    Ok(lines)
}

fn tc(message: &TcMessage) -> String {
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    });
    let (index, handle, parent) = (message.header.index, message.header.handle, message.header.parent);
    format!("{} on {index}, {:#x} at {:#x}", kind.unwrap_or_default(), u32::from(handle), u32::from(parent))
}

/// Cgroups in it, and programs at it.
fn of_cgroup(cgroup: &Cgroup) -> anyhow::Result<Vec<String>> {
    let mut lines = vec![format!("{} is {}", cgroup.target(), fs::metadata(&cgroup.dir)?.ino())];
    for below in fs::read_dir(&cgroup.dir)?.flatten().filter(|entry| entry.path().is_dir()) {
        lines.push(below.path().display().to_string());
    }
    for hook in [CgroupHook::Ingress, CgroupHook::Egress] {
        let programs = bpf::programs_at(&cgroup.dir, hook)?;
        lines.push(format!("{} {hook:?}: {programs:?}", cgroup.target()));
    }
    Ok(lines)
}

/// What one controller has on the host: journals, and cgroups named after it.
pub fn left_by(controller: i32) -> anyhow::Result<Vec<String>> {
    let journals = journal::entries()?.into_iter().filter(|entry| entry.pid == controller);
    let mut left: Vec<String> = journals.map(|entry| entry.dir().display().to_string()).collect();
    for entry in fs::read_dir(Hierarchy::find()?.mount())?.flatten() {
        let name = entry.file_name();
        let named_after = name.to_str().and_then(|name| name.rsplit('-').next()?.parse::<i32>().ok());
        if name.to_string_lossy().starts_with("kchaos-") && named_after == Some(controller) {
            left.push(entry.path().display().to_string());
        }
    }
    Ok(left)
}
