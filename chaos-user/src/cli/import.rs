//! `kchaos import`: a spec from an experiment of another tool.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{exit, terminal::say};
use crate::import::chaos_toolkit;

/// Options of `kchaos import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// Print a spec with the HTTP probes of a Chaos Toolkit experiment, and what could not be taken over
    ChaosToolkit {
        /// The experiment, JSON or YAML
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Prints the spec; on standard error, what is not in it.
pub fn run(args: &ImportArgs) -> anyhow::Result<u8> {
    let From::ChaosToolkit { file } = &args.from;
    let name = || file.display().to_string();
    let text = fs::read_to_string(file).with_context(name)?;
    let imported = chaos_toolkit::import(&text).with_context(name)?;
    for line in &imported.left_out {
        eprintln!("left out: {line}");
    }
    anyhow::ensure!(imported.probes > 0, "{}: none of its probes can be taken over", name());
    say!("{}", imported.spec.trim_end());
    Ok(exit::OK)
}
