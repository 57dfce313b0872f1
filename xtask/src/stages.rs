//! `cargo xtask test`: every check and every test, the quick ones first.

use std::{
    env,
    ffi::OsString,
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;

use crate::{
    built::{self, cargo_test},
    docker::{self, Docker},
    docs, fuzz,
    run::{bounded, cargo, check_bounded, line, run, target_dir},
    setup::{self, Need, ebpf_cargo, has_subcommand, is_root},
    tally::Tally,
    tidy,
    toolchain::{self, Toolchain},
    vm::{self, AGAIN_VARIABLE, Lab, Results},
};

/// One of the things that are checked, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// The rules that the compiler cannot check.
    Tidy,
    /// Formatting.
    Fmt,
    /// Clippy, on both halves.
    Clippy,
    /// Tests that need neither root nor the kernel half in the kernel.
    Unit,
    /// The documentation's commands and specs.
    Docs,
    /// The parsers on made-up input, for a moment each; only if asked for, as it compiles everything anew with a sanitizer.
    Fuzz,
    /// Tests against the running kernel; they need root.
    Native,
    /// The same on other kernels, in QEMU.
    Vm,
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Is run without being asked for.
    fn is_usual(self) -> bool {
        self != Self::Fuzz
    }

    /// Has tests to choose from, and is quick if few are chosen.
    fn is_filtered(self) -> bool {
        matches!(self, Self::Unit | Self::Native)
    }
}

/// What stages use and what they leave to one another.
struct Run<'a> {
    ebpf: Toolchain,
    filter: &'a [OsString],
    tally: Tally,
    /// What the tests came to on the running kernel.
    native: Option<Results>,
}

/// A stage that has ended.
struct Ended {
    stage: Stage,
    took: Duration,
    result: Result<()>,
}

/// Runs the stages up to the first that fails. The last line printed is the tally.
pub(crate) fn test(only: Option<Stage>, filter: &[OsString]) -> Result<ExitCode> {
    let stages = chosen(only, !filter.is_empty());
    setup::ensure(Need::Test)?;
    let ebpf = toolchain::select().map_err(|_| anyhow!("no toolchain for the kernel half"))?;
    let mut run = Run { ebpf, filter, tally: Tally::default(), native: None };
    let mut ended: Vec<Ended> = Vec::new();
    for &stage in &stages {
        println!("\n=== {} ===", stage.name());
        let started = Instant::now();
        let failed_before = run.tally.failed();
        let result = run.perform(stage);
        if let Err(error) = &result {
            println!("error: {error:#}");
            if run.tally.failed() == failed_before {
                run.tally.fail_once(&format!("stage {}: {error:#}", stage.name()));
            }
        }
        let failed = result.is_err();
        ended.push(Ended { stage, took: started.elapsed(), result });
        if failed {
            break;
        }
    }
    summarize(&stages, &ended, &run.tally);
    let failed = ended.iter().any(|ended| ended.result.is_err());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All stages; with a filter, only those that have tests to choose from.
fn chosen(only: Option<Stage>, filtered: bool) -> Vec<Stage> {
    match only {
        Some(stage) => vec![stage],
        None => {
            let usual = Stage::value_variants().iter().copied().filter(|stage| stage.is_usual());
            usual.filter(|stage| !filtered || stage.is_filtered()).collect()
        }
    }
}

impl Run<'_> {
    fn perform(&mut self, stage: Stage) -> Result<()> {
        match stage {
            Stage::Tidy => match tidy::report() == ExitCode::SUCCESS {
                true => Ok(()),
                false => bail!("the tree is not tidy"),
            },
            Stage::Fmt => run(lint(&self.ebpf, "fmt").args(["--all", "--check"])),
            Stage::Clippy => clippy(&self.ebpf),
            Stage::Unit => self.unit(),
            Stage::Docs => self.docs(),
            Stage::Fuzz => fuzz::run(fuzz::SECONDS),
            Stage::Native => self.native(),
            Stage::Vm => self.vm(),
        }
    }

    fn unit(&mut self) -> Result<()> {
        let mut command = cargo_test();
        run_tests(command.args(["--no-fail-fast", "--"]).args(self.filter), &mut self.tally).map(drop)
    }

    fn docs(&mut self) -> Result<()> {
        let tasks = docs::check()?;
        tasks.lines().for_each(|line| {
            println!("{line}");
            self.tally.read(line);
        });
        let failed = self.tally.failed();
        let mut command = cargo_test();
        command.args(["--test", "docs", "--"]).args(self.filter);
        run_tests(&mut command, &mut self.tally)?;
        match failed {
            0 => Ok(()),
            failed => bail!("{failed} commands of the documentation are wrong"),
        }
    }

    fn native(&mut self) -> Result<()> {
        run(&mut built::command())?;
        let mut command = cargo_test();
        command.args(["--test", "kchaos", "--"]).args(self.filter);
        if !is_root() {
            println!("not root: the tests are run by sudo");
            let target = format!("{}_UNKNOWN_LINUX_GNU", env::consts::ARCH.to_uppercase());
            command.env(format!("CARGO_TARGET_{target}_RUNNER"), "sudo --preserve-env");
        }
        let docker = Docker::start();
        match &docker {
            Ok(docker) => {
                println!("Docker is at {}", docker.host());
                command.env(docker::HOST_VARIABLE, docker.host());
            }
            Err(error) => println!("no Docker for the tests that need it: {error:#}"),
        }
        command.env(AGAIN_VARIABLE, "1");
        let output = run_tests(&mut command, &mut self.tally)?;
        let results = Results::of(&output);
        let problem = results.too_many_again();
        self.native = Some(results);
        problem.map_or(Ok(()), |problem| bail!(problem))
    }

    /// Fails in CI where there can be no lab: then tests that this kernel skips run nowhere.
    fn vm(&mut self) -> Result<()> {
        if let Err(why) = vm::equip() {
            return without_lab(&why, env::var_os("CI").is_some(), &mut self.tally);
        }
        let totals = Lab::whole(self.native.take(), self.filter).run()?;
        let result = totals.check();
        self.tally.add(totals);
        result
    }
}

fn without_lab(why: &anyhow::Error, in_ci: bool, tally: &mut Tally) -> Result<()> {
    if in_ci {
        bail!("the lab cannot run here: {why:#}");
    }
    println!("the lab cannot run here: {why:#}");
    tally.skip(vec![format!("every test on the lab's kernels: {why:#}")]);
    Ok(())
}

/// A subcommand of this cargo, or of the kernel half's where this one has none.
fn lint(ebpf: &Toolchain, subcommand: &str) -> Command {
    let own = has_subcommand(&mut cargo(), subcommand);
    let mut command = if own { cargo() } else { ebpf_cargo(ebpf) };
    command.arg(subcommand);
    command
}

fn clippy(ebpf: &Toolchain) -> Result<()> {
    // `--all-targets` leaves out those that tests/Cargo.toml says are run only if asked for.
    for targets in [&["--all-targets"][..], &["--test", "kchaos", "--test", "docs"]] {
        let host = built::SELECTION.iter().chain(targets).chain(&["--", "--deny", "warnings"]);
        run(lint(ebpf, "clippy").args(host))?;
    }
    run(&mut ebpf_clippy(ebpf))
}

/// A nightly has new lints every day, so there they are only shown.
fn ebpf_clippy(ebpf: &Toolchain) -> Command {
    let mut command = ebpf_cargo(ebpf);
    command.args(["clippy", "--package", "chaos-ebpf", "--release", "-Zbuild-std=core"]);
    command.args(["--target", "bpfel-unknown-none", "--target-dir"]).arg(target_dir().join("ebpf-clippy"));
    // The intermediate files and the flags of chaos-user's build script, so that dependencies are compiled once.
    command.env("CARGO_BUILD_BUILD_DIR", target_dir().join("ebpf"));
    let cfg = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    command.env("CARGO_ENCODED_RUSTFLAGS", [&cfg, "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\x1f"));
    if !ebpf.rustc.nightly {
        command.args(["--", "--deny", "warnings"]);
    }
    command
}

/// Runs `cargo test`, showing what it prints and adding it up; returns that.
fn run_tests(command: &mut Command, tally: &mut Tally) -> Result<String> {
    let mut child = bounded(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", line(command)))?;
    let output = child.stdout.take().context("its output was piped")?;
    let mut all = String::new();
    for bytes in BufReader::new(output).split(b'\n') {
        let bytes = bytes?;
        let text = String::from_utf8_lossy(&bytes);
        println!("{text}");
        tally.read(&text);
        all.push_str(&text);
        all.push('\n');
    }
    check_bounded(command, child.wait()?)?;
    Ok(all)
}

fn summarize(stages: &[Stage], ended: &[Ended], tally: &Tally) {
    println!("\n{:<8} {:>8}", "stage", "seconds");
    for stage in stages {
        match ended.iter().find(|ended| ended.stage == *stage) {
            Some(Ended { took, result, .. }) => {
                let outcome = if result.is_ok() { "ok" } else { "FAILED" };
                println!("{:<8} {:>8.1}  {outcome}", stage.name(), took.as_secs_f64());
            }
            None => println!("{:<8} {:>8}  not run", stage.name(), "-"),
        }
    }
    if !tally.skipped_names().is_empty() {
        println!("\nskipped:");
        tally.skipped_names().iter().for_each(|name| println!("  {name}"));
    }
    // Last, so that they are seen where only the end of a long output is.
    let (failed, again) = tally.failures();
    for (heading, names) in [("passed only when run again", again), ("failed", failed)] {
        if !names.is_empty() {
            println!("\n{heading}:");
            names.iter().for_each(|name| println!("  {name}"));
        }
    }
    println!("\n{tally}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_leaves_the_stages_that_have_tests() {
        assert_eq!(chosen(None, true), [Stage::Unit, Stage::Native]);
        assert_eq!(chosen(None, false).len(), 7);
        assert_eq!(chosen(Some(Stage::Fuzz), false), [Stage::Fuzz]);
        assert_eq!(chosen(Some(Stage::Fmt), true), [Stage::Fmt]);
    }

    #[test]
    fn a_machine_without_a_lab_fails_in_ci_only() {
        let why = anyhow!("no QEMU");
        let mut tally = Tally::default();
        assert!(without_lab(&why, true, &mut tally).is_err());
        without_lab(&why, false, &mut tally).unwrap();
        assert_eq!(tally.skipped_names(), ["every test on the lab's kernels: no QEMU"]);
        assert_eq!(tally.to_string(), "0 passed, 0 failed, 1 skipped");
    }
}
