//! `kchaos sweep`: removes what killed controllers left behind.

use clap::Args;

use super::{exit, terminal::say};
use crate::kernel::{Rollback, sweep};

/// Options of `kchaos sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Undoes everything that dead controllers' journals name.
pub fn run(args: &SweepArgs) -> anyhow::Result<u8> {
    let swept = sweep::sweep()?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&swept)?);
    } else if swept.swept.is_empty() {
        say!("nothing to sweep");
    }
    if !args.json {
        swept.swept.iter().for_each(|(id, rollback)| print(id, rollback));
        swept.alive.iter().for_each(|id| say!("{id} is still running; `kchaos stop {id}` ends it"));
    }
    let complete = swept.swept.iter().all(|(_, rollback)| rollback.is_complete());
    Ok(if complete { exit::OK } else { exit::ROLLBACK_INCOMPLETE })
}

/// Each step as the command a human would type.
pub fn print(id: &str, rollback: &Rollback) {
    say!("{id}");
    for step in &rollback.steps {
        match &step.error {
            None => say!("  done    {}", step.what),
            Some(error) => say!("  failed  {}: {error}", step.what),
        }
    }
}
