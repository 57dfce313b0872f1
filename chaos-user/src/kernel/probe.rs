//! What this kernel can do, found out by trying: each program is loaded and attached for a moment, at places
//! made for it.

use std::{fs::File, path::PathBuf};

use aya::Ebpf;
use chaos_common::{names::program, net::Direction};

use super::{
    KernelError, attach, btf,
    object::{self, Globals},
    qdisc,
};
use crate::{
    fault::{
        capability::{Capabilities, Capability, Probed},
        plan::Place,
    },
    target::{Device, Hierarchy, Netns},
};

/// Tries every capability.
pub fn probe() -> Result<Capabilities, KernelError> {
    // Every link of the trials ends with this object.
    let mut ebpf = object::load(&Globals::minimal())?;
    let mut probed =
        |capability| Probed { capability, missing_because: try_one(&mut ebpf, capability).err() };
    Ok(Capabilities { probed: Capability::ALL.into_iter().map(&mut probed).collect() })
}

/// The error is what the kernel said.
fn try_one(ebpf: &mut Ebpf, capability: Capability) -> Result<(), String> {
    match capability {
        Capability::Btf => btf::sock_layout().map(drop),
        Capability::Tcx => in_scratch_namespace(|at| attach::tcx(ebpf, at).map_err(|error| why(&error))),
        Capability::Clsact => in_scratch_namespace(|at| {
            at.netns
                .run(|| qdisc::add_clsact(&at.device.name))
                .and_then(|added| added)
                .map_err(|e| e.to_string())?;
            attach::clsact_filter(ebpf, at).map_err(|error| why(&error))
        }),
        Capability::CgroupSkb => in_scratch_cgroup(|dir| {
            attach::cgroup_skb(ebpf, program::NET_INGRESS, Direction::Ingress, dir)
                .and_then(|()| attach::cgroup_skb(ebpf, program::STEADY_EGRESS, Direction::Egress, dir))
                .map_err(|error| why(&error))
        }),
        Capability::SyscallTracepoint => {
            attach::raw_tracepoint(ebpf, program::STEADY_SYSCALLS, "sys_exit").map_err(|error| why(&error))
        }
        Capability::RetransmitTracepoint => btf::sock_layout().map(drop).and_then(|()| {
            attach::raw_tracepoint(ebpf, program::STEADY_RETRANSMITS, "tcp_retransmit_skb")
                .map_err(|error| why(&error))
        }),
    }
}

/// An error with what lies below it, on one line.
fn why(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let below_text = below.to_string();
        if !text.contains(&below_text) {
            text = format!("{text}: {below_text}");
        }
        source = below.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

/// Runs a trial on `lo` of a network namespace that ends with it.
fn in_scratch_namespace(trial: impl FnOnce(&Place) -> Result<(), String>) -> Result<(), String> {
    let netns = Netns::create().map_err(|error| format!("a network namespace: {error}"))?;
    trial(&Place { netns, device: Device { ifindex: 1, name: "lo".into() } })
}

/// Runs a trial on a cgroup that is removed after it.
fn in_scratch_cgroup(trial: impl FnOnce(&File) -> Result<(), String>) -> Result<(), String> {
    let hierarchy = Hierarchy::find().map_err(|error| error.to_string())?;
    let dir = hierarchy.mount().join(format!("kchaos-probe-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let _remove = RemoveDir(dir.clone());
    File::open(&dir).map_err(|error| error.to_string()).and_then(|dir| trial(&dir))
}

struct RemoveDir(PathBuf);

impl Drop for RemoveDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            log::warn!("{} was left behind: {error}", self.0.display());
        }
    }
}
