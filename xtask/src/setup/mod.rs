//! Makes a machine able to build and test kchaos: looks, installs what is missing, says what it did.

mod apt;
mod kernel_half;
mod programs;

pub(crate) use programs::ebpf_cargo;

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::run::{capture, cargo, line, quietly, run_within};
use apt::Apt;

/// What the machine shall be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Need {
    /// Build kchaos.
    Build,
    /// Build and run the tests.
    Test,
    /// Build and run the benchmarks.
    Bench,
    /// Run the tests on other kernels.
    Vm,
    /// All of it.
    Everything,
}

impl Need {
    fn tests(self) -> bool {
        matches!(self, Self::Test | Self::Everything)
    }

    fn benchmarks(self) -> bool {
        matches!(self, Self::Bench | Self::Everything)
    }

    /// Anything but building.
    fn runs(self) -> bool {
        self != Self::Build
    }

    fn guests(self) -> bool {
        matches!(self, Self::Vm | Self::Everything)
    }
}

/// Installs what is missing; does nothing the second time.
pub(crate) fn ensure(need: Need) -> Result<()> {
    let mut apt = Apt::default();
    let toolchain = kernel_half::ensure(&mut apt)?;
    if need.tests() {
        programs::ensure_lints(&mut apt, &toolchain)?;
    }
    programs::ensure(&mut apt, need)?;
    println!("✓ the kernel half builds with {toolchain}");
    Ok(())
}

/// Installs those of Debian's packages that are missing.
pub(crate) fn ensure_packages(packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !apt::is_installed(package)).collect();
    match missing.as_slice() {
        [] => Ok(()),
        missing => Apt::default().install(missing),
    }
}

/// Installs a subcommand of cargo from crates.io if it is missing.
pub(crate) fn ensure_subcommand(name: &str, package: &str) -> Result<()> {
    const LIMIT_S: u64 = 600;
    if has_subcommand(&mut cargo(), name) {
        return Ok(());
    }
    install(package, cargo().args(["install", package, "--locked"]), LIMIT_S)
}

/// Says that nothing had to be done.
fn already(what: impl std::fmt::Display) {
    println!("✓ already there: {what}");
}

/// Runs an installing command, bounded, and says so.
fn install(what: &str, command: &mut Command, limit_s: u64) -> Result<()> {
    println!("… installing {what}: {}", line(command));
    run_within(command, std::time::Duration::from_secs(limit_s))
        .with_context(|| format!("installing {what}"))?;
    println!("→ installed {what}: {}", line(command));
    Ok(())
}

/// Whether we may install packages.
pub(crate) fn is_root() -> bool {
    capture(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

/// Whether this cargo has a subcommand such as `clippy`.
pub(crate) fn has_subcommand(cargo: &mut Command, name: &str) -> bool {
    quietly(cargo.args([name, "--version"]))
}
