//! `kchaos stop`: ends injections and waits until they are rolled back.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use super::{exit, terminal::say};
use crate::{
    kernel::{
        journal::{self, Entry},
        sweep,
    },
    units,
};

/// How long a controller may take to roll back before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of `kchaos stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Which, as `kchaos status` shows it; all of them if left out
    id: Option<String>,
}

/// Asks each controller to stop; one that does not is killed, and what it left is swept.
pub async fn run(args: &StopArgs) -> anyhow::Result<u8> {
    let entries = journal::entries()?;
    let chosen: Vec<&Entry> =
        entries.iter().filter(|entry| args.id.as_ref().is_none_or(|id| *id == entry.id)).collect();
    if chosen.is_empty() {
        match &args.id {
            Some(id) => bail!("there is no injection `{id}`; {}", known(&entries, id)),
            None => say!("nothing is being injected"),
        }
    }
    let mut complete = true;
    for entry in chosen {
        complete &= stop(entry).await.with_context(|| format!("stopping {}", entry.id))?;
    }
    Ok(if complete { exit::OK } else { exit::ROLLBACK_INCOMPLETE })
}

fn known(entries: &[Entry], id: &str) -> String {
    if entries.is_empty() {
        return "nothing is being injected".into();
    }
    let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    units::did_you_mean(id, ids.iter().copied())
}

/// Whether nothing was left behind.
async fn stop(entry: &Entry) -> anyhow::Result<bool> {
    let pid = Pid::from_raw(entry.pid);
    if entry.is_alive() {
        kill(pid, Signal::SIGTERM)?;
        // A stopped controller cannot hear it; its faults have ended with the lease already.
        kill(pid, Signal::SIGCONT)?;
        if ended(entry).await {
            say!("{} {} stopped", entry.id, entry.name);
            return Ok(!entry.dir().exists());
        }
        say!("{} does not answer; killing its controller {}", entry.id, entry.pid);
        kill(pid, Signal::SIGKILL)?;
        ended(entry).await;
    }
    let rollback = sweep::undo_entry(entry);
    super::sweep::print(&entry.id, &rollback);
    Ok(rollback.is_complete())
}

async fn ended(entry: &Entry) -> bool {
    let start = Instant::now();
    while entry.is_alive() && start.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50)).await;
    }
    !entry.is_alive()
}
