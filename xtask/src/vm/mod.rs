//! `cargo xtask vm`: the tests of the running kernel, on other kernels. Each is booted in QEMU with the host's
//! files as its own, read-only, and runs the same test program. `cargo xtask kernel` builds the one kernel that
//! no distribution has.

mod arm64;
mod cache;
mod console;
mod debian;
mod doctor;
mod fei;
mod fetch;
mod initramfs;
mod kernels;
mod logs;
mod matrix;
mod programs;
mod qemu;
mod results;
mod run;
mod summary;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum as _};

use crate::setup::{self, Need};
pub(crate) use arm64::check as check_arm64;
use doctor::Diagnosis;
use fetch::Bootable;
use kernels::{LabKernel, Source};
use programs::Programs;
use qemu::Accel;
pub(crate) use results::Results;
pub(crate) use run::AGAIN_VARIABLE;
use run::Report;
pub(crate) use summary::Totals;

/// How long each kernel may take: twice what all its tests need on a machine with nothing else to do.
const LIMIT_MIN: u64 = 35;

/// Options of `cargo xtask vm`.
#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    /// On which kernels; all of them if none is named.
    #[arg(value_enum)]
    kernels: Vec<LabKernel>,
    /// This image instead of the fei612 that is built.
    #[arg(long, value_name = "IMAGE")]
    kernel: Option<PathBuf>,
    /// How many guests at a time; as many as there are CPUs if not given. Each has 2 GB.
    #[arg(long)]
    jobs: Option<usize>,
    /// How the guests' processors are made.
    #[arg(long, value_enum, default_value = "tcg")]
    accel: Accel,
    /// How long each kernel may take.
    #[arg(long, value_name = "MINUTES", default_value_t = LIMIT_MIN)]
    limit: u64,
    /// The output of the tests on the running kernel, for a column of its own.
    #[arg(long, value_name = "FILE")]
    native: Option<PathBuf>,
    /// A test program that is built already.
    #[arg(long, value_name = "PROGRAM")]
    tests: Option<PathBuf>,
    /// Runs the tests that one kernel is enough for on one of the lab's, as `cargo xtask test` does; else each kernel
    /// runs them.
    #[arg(long, conflicts_with = "run")]
    in_turn: bool,
    /// Runs this in a shell of the guest instead of the tests.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["native", "tests", "filter"])]
    run: Option<String>,
    /// Only tests with this in their name (and other options for the test program).
    #[arg(last = true)]
    filter: Vec<OsString>,
}

/// Options of `cargo xtask kernel`.
#[derive(Debug, Args)]
pub(crate) struct KernelArgs {
    /// Only unpacks and configures it.
    #[arg(long)]
    configure: bool,
}

/// Builds fei612 unless the cache has it.
pub(crate) fn build_kernel(args: &KernelArgs) -> Result<()> {
    let path = if args.configure { fei::configure()? } else { fei::build()? };
    println!("{}", path.display());
    Ok(())
}

/// Runs what `cargo xtask vm` was asked for; an error if any of it failed.
pub(crate) fn test(args: &VmArgs) -> Result<()> {
    equip()?;
    let native = args.native.as_ref().map(fs::read_to_string).transpose().context("--native")?;
    let lab = Lab {
        kernels: match args.kernels.as_slice() {
            [] => LabKernel::value_variants().to_vec(),
            named => unique(named),
        },
        image: args.kernel.clone(),
        jobs: args.jobs,
        accel: args.accel,
        limit: Duration::from_secs(args.limit * 60),
        native: native.map(|output| Results::of(&output)),
        tests: args.tests.clone(),
        instead: args.run.clone(),
        in_turn: args.in_turn,
        filter: args.filter.clone(),
    };
    let totals = lab.run()?;
    println!("\n{totals}");
    totals.check()
}

/// Makes this machine able to run the lab, or says why it is not.
pub(crate) fn equip() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the lab's kernels are for x86-64");
    }
    setup::ensure(Need::Vm)
}

/// What to run in the lab.
#[derive(Debug)]
pub(crate) struct Lab {
    kernels: Vec<LabKernel>,
    image: Option<PathBuf>,
    jobs: Option<usize>,
    accel: Accel,
    limit: Duration,
    native: Option<Results>,
    tests: Option<PathBuf>,
    instead: Option<String>,
    in_turn: bool,
    filter: Vec<OsString>,
}

impl Lab {
    /// All kernels, emulated, with what the tests came to on the running kernel, if they were run there.
    pub(crate) fn whole(native: Option<Results>, filter: &[OsString]) -> Self {
        Self {
            kernels: LabKernel::value_variants().to_vec(),
            image: None,
            jobs: None,
            accel: Accel::Tcg,
            limit: Duration::from_secs(LIMIT_MIN * 60),
            native,
            tests: None,
            instead: None,
            in_turn: true,
            filter: filter.to_vec(),
        }
    }

    /// Runs it, and shows what came of it.
    pub(crate) fn run(self) -> Result<Totals> {
        let programs = Programs::ensure(self.tests, self.instead.is_none())?;
        let bootable =
            self.kernels.iter().map(|kernel| Ok((*kernel, bootable(*kernel, self.image.as_deref())?)));
        let bootable = bootable.collect::<Result<Vec<_>>>()?;
        // Only the whole lab can say that a test runs nowhere.
        let whole = bootable.len() == LabKernel::value_variants().len();
        let plan = run::Plan {
            programs,
            accel: self.accel,
            limit: self.limit,
            filter: self.filter,
            instead: self.instead,
            in_turn: self.in_turn,
            passed: self.native.as_ref().map(logs::keep_passed).transpose()?,
        };
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let reports = run_all(&plan, bootable, self.jobs.unwrap_or(cpus))?;
        Ok(summary::report(&reports, self.native.as_ref(), whole))
    }
}

/// Names of the lab's kernels.
pub(crate) fn kernel_names() -> Vec<&'static str> {
    LabKernel::value_variants().iter().map(|kernel| kernel.name()).collect()
}

/// What the tests printed on each kernel in its last run.
pub(crate) fn outputs() -> Result<Vec<(&'static str, String)>> {
    logs::kept("out")
}

/// What `kchaos doctor --json` said on each kernel in its last run.
pub(crate) fn diagnoses() -> Result<Vec<(&'static str, serde_json::Value)>> {
    let said = logs::kept("doctor.json")?.into_iter().filter(|(_, text)| !text.is_empty());
    said.map(|(kernel, text)| Ok((kernel, Diagnosis::read(&text).context(kernel)?.into_report()))).collect()
}

fn unique(named: &[LabKernel]) -> Vec<LabKernel> {
    let mut kernels = named.to_vec();
    kernels.sort_unstable();
    kernels.dedup();
    kernels
}

fn bootable(kernel: LabKernel, image: Option<&Path>) -> Result<Bootable> {
    let bootable = match kernel.source() {
        Source::Packages(packages) => fetch::ensure(kernel, &packages),
        Source::Built => fei::ensure(image),
    };
    bootable.with_context(|| kernel.name())
}

/// Runs so many guests at a time, and returns their reports in the order of the kernels.
fn run_all(plan: &run::Plan, kernels: Vec<(LabKernel, Bootable)>, jobs: usize) -> Result<Vec<Report>> {
    let waiting = Mutex::new(kernels.into_iter());
    let next = || waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
    let work = || {
        let mut reports = Vec::new();
        while let Some((kernel, bootable)) = next() {
            reports.push(plan.run(kernel, &bootable)?);
        }
        Ok::<_, anyhow::Error>(reports)
    };
    let mut reports = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..jobs.clamp(1, LabKernel::value_variants().len())).map(|_| scope.spawn(work)).collect();
        let ended =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a thread panicked")));
        ended.collect::<Result<Vec<_>>>()
    })?
    .concat();
    reports.sort_by_key(|report| report.kernel);
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_named_twice_is_run_once() {
        use LabKernel::{Deb61, Fei612};
        assert_eq!(unique(&[Fei612, Deb61, Fei612]), [Deb61, Fei612]);
    }
}
