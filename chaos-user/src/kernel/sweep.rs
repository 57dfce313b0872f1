//! Removing what dead controllers left behind.

use std::{io, time::Duration};

use super::{
    Rollback, fq, ifb,
    journal::{self, Entry, Residue},
    qdisc,
};
use crate::target::{self, Netns};

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sweep {
    /// Injections of dead controllers, and what undoing each did.
    pub swept: Vec<(String, Rollback)>,
    /// Injections whose controllers live, left alone.
    pub alive: Vec<String>,
}

/// Undoes everything that the journals of dead controllers name.
pub fn sweep() -> io::Result<Sweep> {
    let mut sweep = Sweep::default();
    for entry in journal::entries()? {
        if entry.is_alive() {
            sweep.alive.push(entry.id);
        } else {
            let rollback = undo_entry(&entry);
            sweep.swept.push((entry.id, rollback));
        }
    }
    Ok(sweep)
}

/// Undoes what one journal names, then forgets it.
pub fn undo_entry(entry: &Entry) -> Rollback {
    let mut rollback = Rollback::default();
    let netns_of = |residue: &Residue| match residue {
        Residue::Clsact { netns, .. }
        | Residue::RootFq { netns, .. }
        | Residue::RootNetem { netns, .. }
        | Residue::Ifb { netns, .. } => Netns::find(*netns),
        Residue::Cgroups { .. } => None,
    };
    // The lease of a controller that is dead may not be over: its filters hold packets back until they are gone.
    for residue in &entry.residue {
        if let (Residue::Clsact { device, handle, .. }, Some(netns)) = (residue, netns_of(residue)) {
            let removed = qdisc::undo_filters(&netns, device, *handle);
            rollback.step(format!("tc filters on {device} (in network namespace {})", netns.inode), removed);
        }
    }
    for residue in entry.residue.iter().rev() {
        let netns = netns_of(residue);
        rollback.step(command(residue, netns.as_ref()), undo(residue, netns.as_ref()));
    }
    if rollback.is_complete() {
        let dir = entry.dir();
        rollback.step(format!("rm -r {}", dir.display()), journal::remove(&dir));
    }
    rollback
}

/// Undoes one thing. A namespace that is gone has taken its devices with it.
pub fn undo(residue: &Residue, netns: Option<&Netns>) -> io::Result<()> {
    match residue {
        Residue::Clsact { device, handle, adds_qdisc, .. } => {
            netns.map_or(Ok(()), |netns| qdisc::undo(netns, device, *handle, *adds_qdisc))
        }
        Residue::RootFq { device, hold_ms, .. } | Residue::RootNetem { device, hold_ms, .. } => {
            netns.map_or(Ok(()), |netns| fq::undo(netns, device, Duration::from_millis(*hold_ms)))
        }
        Residue::Ifb { hold_ms, .. } => {
            netns.map_or(Ok(()), |netns| ifb::undo(netns, Duration::from_millis(*hold_ms)))
        }
        Residue::Cgroups { dir } => target::cgroup::remove(dir),
    }
}

/// The same as a human would type it.
pub fn command(residue: &Residue, netns: Option<&Netns>) -> String {
    let gone = if netns.is_none() { ", if it still exists" } else { "" };
    match residue {
        Residue::Clsact { netns: inode, device, handle, adds_qdisc } => {
            let commands = qdisc::undo_commands(device, Some(*handle), *adds_qdisc);
            format!("{commands} (in network namespace {inode}{gone})")
        }
        Residue::RootFq { netns: inode, device, .. } | Residue::RootNetem { netns: inode, device, .. } => {
            format!("{} (in network namespace {inode}{gone})", fq::undo_command(device))
        }
        Residue::Ifb { netns: inode, .. } => {
            format!("{} (in network namespace {inode}{gone})", ifb::undo_command())
        }
        Residue::Cgroups { dir } => format!("rmdir {0}/* {0}", dir.display()),
    }
}

/// Whether something left behind lies in a namespace.
pub fn lies_in(residue: &Residue, netns: &Netns) -> bool {
    match residue {
        Residue::Clsact { netns: inode, .. }
        | Residue::RootFq { netns: inode, .. }
        | Residue::RootNetem { netns: inode, .. }
        | Residue::Ifb { netns: inode, .. } => *inode == netns.inode,
        Residue::Cgroups { .. } => false,
    }
}
