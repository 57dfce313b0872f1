//! `cargo xtask fuzz`: the parsers of kchaos on made-up input, each for a while (fuzz/ and chaos-user/src/fuzz.rs).

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    run::{self, cargo, root, run_within, target_dir},
    setup::{self, ensure_packages},
    toolchain,
};

/// For how long each is run if nobody says otherwise.
pub(crate) const SECONDS: u32 = 10;
/// How long a target may take in addition to its time, to start and to end.
const GRACE: Duration = Duration::from_secs(60);
/// How long one input may take, in seconds, and how much memory; more is a finding.
const INPUT_SECONDS: u32 = 10;
const MEMORY_MB: u32 = 2048;
/// Longer input finds nothing that shorter does not.
const INPUT_BYTES: u32 = 4096;
/// How much of a log is shown when something was found.
const EXCERPT_LINES: usize = 30;

/// Seeds that are in the tree for other reasons.
const MORE_SEEDS: [(&str, &str); 2] = [("spec", "examples"), ("spec", "chaos-user/tests/specs/bad")];

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct FuzzArgs {
    /// How long each is run.
    #[arg(long, value_name = "N", default_value_t = SECONDS)]
    seconds: u32,
    /// Only this one.
    target: Option<String>,
}

/// Runs what was asked for.
pub(crate) fn perform(args: &FuzzArgs) -> Result<()> {
    let all = targets()?;
    match &args.target {
        None => run(args.seconds),
        Some(name) if all.contains(name) => run_all(std::slice::from_ref(name), args.seconds),
        Some(name) => bail!("there is no target {name}; there are {}", all.join(", ")),
    }
}

/// Runs each for so long.
pub(crate) fn run(seconds: u32) -> Result<()> {
    run_all(&targets()?, seconds)
}

fn run_all(names: &[String], seconds: u32) -> Result<()> {
    ensure()?;
    let sanitizer = build()?;
    println!("sanitizer: {sanitizer}");
    let failed = names.iter().filter_map(|name| fuzz(name, seconds).err().map(|error| format!("{error:#}")));
    let failed: Vec<_> = failed.inspect(|failure| println!("✗ {failure}")).collect();
    if failed.is_empty() { Ok(()) } else { bail!("{} of {} found something", failed.len(), names.len()) }
}

fn ensure() -> Result<()> {
    setup::ensure_subcommand("fuzz", "cargo-fuzz")?;
    // libFuzzer is compiled from source.
    if toolchain::find("c++").is_none() { ensure_packages(&["g++"]) } else { Ok(()) }
}

/// The names of fuzz/targets/*.rs.
fn targets() -> Result<Vec<String>> {
    let entries = fs::read_dir(root().join("fuzz/targets")).context("fuzz/targets")?;
    let mut names: Vec<_> =
        entries.flatten().filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The folders with a target's seeds.
fn seeds(name: &str) -> Vec<PathBuf> {
    let more = MORE_SEEDS.iter().filter(|(target, _)| *target == name).map(|(_, folder)| root().join(folder));
    let own = root().join("fuzz/corpus").join(name);
    std::iter::once(own).chain(more).filter(|folder| folder.is_dir()).collect()
}

/// Builds all of them; with AddressSanitizer where it links, else without. Says which.
fn build() -> Result<&'static str> {
    let build = |sanitizer| {
        // The kernel half is not fuzzed. A stable compiler takes the flags only with RUSTC_BOOTSTRAP.
        run::run(
            cargo()
                .env("AYA_BUILD_SKIP", "1")
                .env("RUSTC_BOOTSTRAP", "1")
                .args(["fuzz", "build", "--dev", "--sanitizer", sanitizer, "--target-dir"])
                .arg(target_dir().join("fuzz")),
        )
    };
    match build("address") {
        Ok(()) => Ok("address"),
        Err(error) => {
            println!("not with AddressSanitizer: {error:#}");
            build("none").map(|()| "none")
        }
    }
}

/// Runs one, starting from its seeds and from what earlier runs have found. An input that breaks a rule is kept in
/// fuzz/artifacts; once that is mended, it belongs into fuzz/corpus.
fn fuzz(name: &str, seconds: u32) -> Result<()> {
    let found = target_dir().join("fuzz-corpus").join(name);
    let artifacts = root().join("fuzz/artifacts").join(name);
    let log = target_dir().join("fuzz-corpus").join(format!("{name}.log"));
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let program = target_dir().join("fuzz").join(triple).join("debug").join(name);
    let mut command = Command::new(program);
    command
        .args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={INPUT_SECONDS}"),
            format!("-rss_limit_mb={MEMORY_MB}"),
            format!("-max_len={INPUT_BYTES}"),
            format!("-artifact_prefix={}/", artifacts.display()),
            "-print_final_stats=1".to_owned(),
        ])
        .env("RUST_BACKTRACE", "0")
        // The first is the one that new input is written to.
        .arg(&found)
        .args(seeds(name))
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?);
    let before = count(&found);
    let ended = run_within(&mut command, Duration::from_secs(seconds.into()) + GRACE);
    let said = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    // Fails while somebody's finding is in it, which is as it should be.
    let _ = fs::remove_dir(&artifacts).and_then(|()| fs::remove_dir(root().join("fuzz/artifacts")));
    match ended {
        Ok(()) => {
            println!("✓ {name}: {} runs, {} new inputs", runs(&said), count(&found).saturating_sub(before));
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("{name}: {}", finding(&said, &artifacts))),
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// `123` of `stat::number_of_executed_units: 123`.
fn runs(log: &str) -> &str {
    let line = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    line.map_or("?", str::trim)
}

/// Where the input is, and what became of it.
fn finding(log: &str, artifacts: &Path) -> String {
    let written = log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path);
    let kept = written.map_or_else(|| format!("no input in {}", artifacts.display()), str::to_owned);
    let interesting = log.lines().filter(|line| !line.starts_with(['#', '\t']) && !line.starts_with("INFO:"));
    let excerpt: Vec<_> = interesting.take(EXCERPT_LINES).collect();
    format!("{kept}\n{}\n", excerpt.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_declared_and_has_seeds() {
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        for name in targets().unwrap() {
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
            assert!(seeds(&name).iter().any(|folder| count(folder) > 0), "{name} has no seeds");
        }
    }

    #[test]
    fn reads_what_libfuzzer_says() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 5\nthread panicked at x.rs:1:\nDone 5 runs in 1 second(s)\n\
            stat::number_of_executed_units: 12345\n";
        assert_eq!(runs(log), "12345");
        let log = "#2\tINITED\n\nthread '<unnamed>' panicked at a.rs:1:2:\nno\nartifact_prefix='/x/'; \
            Test unit written to /x/crash-1\n";
        let finding = finding(log, Path::new("/x"));
        assert!(finding.starts_with("/x/crash-1\n\nthread"), "{finding}");
    }
}
