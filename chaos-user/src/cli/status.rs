//! `kchaos status`: what is being injected on this host.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::{exit, terminal, terminal::say};
use crate::{
    kernel::journal::{self, Entry},
    units,
};

/// Options of `kchaos status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    entry: Entry,
    alive: bool,
}

/// Lists the journals.
pub fn run(args: &StatusArgs) -> anyhow::Result<u8> {
    let shown: Vec<Shown> =
        journal::entries()?.into_iter().map(|entry| Shown { alive: entry.is_alive(), entry }).collect();
    if args.json {
        say!("{}", serde_json::to_string_pretty(&shown)?);
    } else if shown.is_empty() {
        say!("nothing is being injected");
    } else {
        print(&shown);
    }
    Ok(exit::OK)
}

fn print(shown: &[Shown]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut table = terminal::table(&["id", "name", "controller", "for", "attached"]);
    for Shown { entry, alive } in shown {
        let state = if *alive { "" } else { " (dead: run `kchaos sweep`)" };
        let age = Duration::from_secs(now.saturating_sub(entry.created_unix_s));
        table.add_row([
            entry.id.clone(),
            entry.name.clone(),
            format!("{}{state}", entry.pid),
            units::show_duration(age),
            format!("{} programs", entry.attached.len()),
        ]);
    }
    terminal::print(&table);
}
