//! The toolchain that compiles the kernel half, and its linker.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{already, apt, apt::Apt, install};
use crate::{
    run::{capture, quietly},
    toolchain::{self, LINKED, MIN_RUST, NIGHTLY, OVERRIDE, Rustc, Toolchain, Unsuitable},
};

/// The bpf-linker that is installed where there is none. It links with the LLVMs 21, 22 and 23.
const LINKER_VERSION: &str = "0.13.0";

const DOWNLOAD_WITHIN_S: u64 = 300;
const COMPILE_WITHIN_S: u64 = 900;

/// One way to come by a toolchain.
type Route = (&'static str, fn(&mut Apt) -> Result<()>);

/// What the machine already has, else the first route that leads to a toolchain.
pub(super) fn ensure(apt: &mut Apt) -> Result<Toolchain> {
    let unsuitable = match toolchain::select() {
        Ok(toolchain) => {
            already(format!("toolchain {toolchain}"));
            return Ok(toolchain);
        }
        Err(unsuitable) => unsuitable,
    };
    report(&unsuitable);
    if let Ok(name) = std::env::var(OVERRIDE) {
        bail!("{OVERRIDE} names `{name}`, which will not do; unset it to have one chosen");
    }
    if !quietly(Command::new("rustup").arg("--version")) {
        bail!("rustup is needed to choose between toolchains: https://rustup.rs");
    }
    for (name, route) in routes(Apt::usable()) {
        let selected = route(apt).and_then(|()| toolchain::select().map_err(|u| anyhow!("{}", listed(&u))));
        match selected {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => println!("✗ {name}: {error:#}"),
        }
    }
    bail!("no toolchain for the kernel half. By hand, {BY_HAND}");
}

/// Debian first where its packages can be installed: compiler and LLVM come from one source and fit, whereas
/// rustup's nightly wants an LLVM newer than a stable distribution has.
fn routes(apt_usable: bool) -> Vec<Route> {
    let debian: Route = ("Debian's packages", from_debian);
    let rustup: Route = ("rustup's nightly", from_rustup);
    if apt_usable { vec![debian, rustup] } else { vec![rustup] }
}

const BY_HAND: &str = "one of:
  rustup toolchain install nightly --profile minimal --component rust-src,clippy && cargo binstall bpf-linker
  (Debian 12, as root) apt-get install rustc-web cargo-web rust-web-src rust-web-clippy llvm-22-dev libpolly-22-dev
      rustup toolchain link kchaos-ebpf /usr
      LLVM_SYS_220_PREFIX=/usr/lib/llvm-22 LLVM_PREFIX=/usr/lib/llvm-22 \\
          cargo install bpf-linker --version 0.13.0 --locked --no-default-features --features llvm-22";

fn from_debian(apt: &mut Apt) -> Result<()> {
    let version = apt.candidate("rustc-web").context("there is no package rustc-web")?;
    if apt::major_minor(&version).is_none_or(|version| version < MIN_RUST) {
        bail!("rustc-web is {version}; is the security suite among the sources of apt?");
    }
    apt.install(&["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"])?;
    let mut link = Command::new("rustup");
    install("a name for it", link.args(["toolchain", "link", LINKED, "/usr"]), DOWNLOAD_WITHIN_S)?;
    ensure_linker(apt, LINKED)
}

/// Adds to an existing nightly rather than update it: others may depend on what it is.
fn from_rustup(apt: &mut Apt) -> Result<()> {
    let facts = toolchain::facts(NIGHTLY);
    let mut command = Command::new("rustup");
    match facts.rustc {
        None => command.args(["toolchain", "install", NIGHTLY, "--no-self-update", "--profile", "minimal"]),
        Some(_) if !facts.has_source => {
            command.args(["component", "add", "--toolchain", NIGHTLY, "rust-src"])
        }
        Some(_) => return ensure_linker(apt, NIGHTLY),
    };
    if facts.rustc.is_none() {
        command.args(["--component", "rust-src", "--component", "clippy"]);
    }
    install("nightly with the sources of `core`", &mut command, DOWNLOAD_WITHIN_S)?;
    ensure_linker(apt, NIGHTLY)
}

/// A bpf-linker for this toolchain.
fn ensure_linker(apt: &mut Apt, toolchain: &str) -> Result<()> {
    let facts = toolchain::facts(toolchain);
    let linker = toolchain::linker();
    if toolchain::suits(toolchain, &facts, linker.as_ref()).is_ok() {
        return Ok(());
    }
    let Rustc { llvm, .. } = facts.rustc.with_context(|| format!("{toolchain} does not run"))?;
    if quietly(Command::new("cargo").args(["binstall", "-V"])) {
        let mut command = Command::new("cargo");
        let binstall = install(
            "bpf-linker, with its own LLVM",
            command.args(["binstall", "--no-confirm", "--force", "bpf-linker"]),
            DOWNLOAD_WITHIN_S,
        );
        match binstall {
            Ok(()) => return Ok(()),
            Err(error) => println!("✗ {error:#}"),
        }
    }
    let prefix = llvm_prefix(apt, llvm)?;
    install("bpf-linker", &mut cargo_install_linker(llvm, &prefix), COMPILE_WITHIN_S)
}

/// Where LLVM's libraries of this version are; on Debian they are installed if need be.
fn llvm_prefix(apt: &mut Apt, llvm: u32) -> Result<PathBuf> {
    if let Some(prefix) = find_llvm(llvm) {
        return Ok(prefix);
    }
    let (library, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    if Apt::usable() && apt.candidate(&library).is_some() {
        apt.install(&[&library, &polly])?;
    }
    find_llvm(llvm).with_context(|| format!("no LLVM {llvm} to build bpf-linker with"))
}

fn find_llvm(llvm: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if debian.join("bin/llvm-config").exists() {
        return Some(debian);
    }
    [format!("llvm-config-{llvm}"), "llvm-config".to_owned()].into_iter().find_map(|config| {
        let ask = |question| capture(Command::new(&config).arg(question)).ok();
        let version = ask("--version")?;
        (version.split('.').next()?.parse() == Ok(llvm)).then_some(())?;
        ask("--prefix").map(|prefix| PathBuf::from(prefix.trim()))
    })
}

fn cargo_install_linker(llvm: u32, prefix: &std::path::Path) -> Command {
    let mut command = Command::new("cargo");
    command.env(format!("LLVM_SYS_{llvm}0_PREFIX"), prefix).env("LLVM_PREFIX", prefix);
    command.args(["install", "--quiet", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
    command.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    command
}

fn report(unsuitable: &[Unsuitable]) {
    println!("… no toolchain for the kernel half yet ({})", listed(unsuitable));
}

fn listed(unsuitable: &[Unsuitable]) -> String {
    unsuitable.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::line;

    #[test]
    fn debian_comes_first_where_it_can_be_used() {
        let names = |usable| routes(usable).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(true), ["Debian's packages", "rustup's nightly"]);
        assert_eq!(names(false), ["rustup's nightly"]);
    }

    #[test]
    fn the_linker_is_built_with_the_compilers_llvm() {
        let command = line(&cargo_install_linker(22, "/usr/lib/llvm-22".as_ref()));
        assert!(command.contains("LLVM_SYS_220_PREFIX=/usr/lib/llvm-22"), "{command}");
        assert!(command.ends_with("--no-default-features --features llvm-22"), "{command}");
    }
}
