//! `kchaos faults`: the catalogue.

use anyhow::bail;
use clap::Args;

use super::{exit, terminal, terminal::say};
use crate::fault::catalogue::{self, CATALOGUE, FaultEntry};

/// Options of `kchaos faults`.
#[derive(Debug, Args)]
pub struct FaultsArgs {
    /// Only this one
    fault: Option<String>,
}

/// Shows all faults, or one.
pub fn run(args: &FaultsArgs) -> anyhow::Result<u8> {
    match &args.fault {
        None => CATALOGUE.iter().for_each(print),
        Some(name) => match catalogue::find(name) {
            Some(entry) => print(entry),
            None => bail!("there is no fault `{name}`; {}", catalogue::did_you_mean(name)),
        },
    }
    Ok(exit::OK)
}

fn print(entry: &FaultEntry) {
    say!("{}: {}", entry.name, entry.summary);
    let mut table = terminal::table(&["parameter", "value", "default", "meaning"]);
    for parameter in entry.parameters() {
        table.add_row([parameter.name, parameter.syntax, parameter.default, parameter.meaning]);
    }
    terminal::print(&table);
    say!("on the command line\n  {}", entry.command);
    say!("in a spec");
    for line in entry.yaml.lines() {
        say!("  {line}");
    }
}
