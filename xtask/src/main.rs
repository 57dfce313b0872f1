//! The tasks of this repository: `cargo xtask <task>`.

mod built;
mod docker;
mod docs;
mod fuzz;
mod run;
mod setup;
mod stages;
mod support;
mod table;
mod tally;
mod tidy;
// chaos-user's build script includes this file too; each of the two uses its part of it.
#[allow(dead_code)]
mod toolchain;
mod verified;
mod vm;

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Parser;

use fuzz::FuzzArgs;
use run::{cargo, line, target_dir};
use setup::Need;
use stages::Stage;
use support::SupportArgs;
use vm::{KernelArgs, VmArgs};

/// The tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Installs what building and testing need, and says what it did.
    Setup {
        /// What for.
        #[arg(value_enum, long = "for", default_value = "everything")]
        need: Need,
    },
    /// Builds kchaos and shows it at work, on this machine, on processes of its own.
    Demo {
        /// For `kchaos demo`.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Runs every check and every test, in stages; needs root for the last.
    Test {
        /// Only this stage.
        #[arg(value_enum, long)]
        stage: Option<Stage>,
        /// Only tests with this in their name (and other options for the test programs).
        #[arg(last = true)]
        filter: Vec<OsString>,
    },
    /// Runs the native tests on other kernels, in QEMU.
    Vm(VmArgs),
    /// Builds kchaos for arm64 and tries it on an emulated machine.
    Arm64,
    /// Builds the one kernel of these that no distribution has.
    Kernel(KernelArgs),
    /// Writes docs/programs.md: what the verifiers of the lab's kernels say of each kernel program.
    Programs {
        /// Only says whether the page is what the lab found.
        #[arg(long)]
        check: bool,
    },
    /// Writes docs/kernel-support.md: what the lab's kernels can do.
    KernelSupport(SupportArgs),
    /// Measures what a fault costs those whom it does not mean; needs root.
    Bench {
        /// For the bench program: names of benchmarks and options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs the parsers on made-up input, each for a while.
    Fuzz(FuzzArgs),
    /// Checks the rules that the compiler cannot.
    Tidy,
}

fn main() -> ExitCode {
    match perform(Task::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup { need } => setup::ensure(need).map(|()| ExitCode::SUCCESS),
        Task::Demo { args } => demo(&args),
        Task::Test { stage, filter } => stages::test(stage, &filter),
        Task::Vm(args) => vm::test(&args).map(|()| ExitCode::SUCCESS),
        Task::Arm64 => vm::check_arm64().map(|()| ExitCode::SUCCESS),
        Task::Kernel(args) => vm::build_kernel(&args).map(|()| ExitCode::SUCCESS),
        Task::Programs { check } => verified::page(check).map(|()| ExitCode::SUCCESS),
        Task::KernelSupport(args) => support::page(&args).map(|()| ExitCode::SUCCESS),
        Task::Bench { args } => bench(&args),
        Task::Fuzz(args) => fuzz::perform(&args).map(|()| ExitCode::SUCCESS),
        Task::Tidy => Ok(tidy::report()),
    }
}

fn demo(args: &[OsString]) -> Result<ExitCode> {
    setup::ensure(Need::Build)?;
    build_release()?;
    // In our place, so that signals and the exit code are its own.
    become_program(Command::new(target_dir().join("release/kchaos")).arg("demo").args(args))
}

fn bench(args: &[OsString]) -> Result<ExitCode> {
    setup::ensure(Need::Bench)?;
    // Some of them start it.
    build_release()?;
    let bench = ["run", "--release", "--package", "chaos-tests", "--bin", "bench", "--"];
    become_program(cargo().args(bench).args(args))
}

fn build_release() -> Result<()> {
    run::run(cargo().args(["build", "--release", "--package", "chaos-user", "--bin", "kchaos"]))
}

fn become_program(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", line(command)))
}
