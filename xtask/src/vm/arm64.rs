//! `cargo xtask arm64`: kchaos built for arm64, and tried on a stock kernel of Debian's there, emulated.
//!
//! That shows what differs by architecture: names of functions, numbers of calls, where a call's arguments are. The
//! whole suite runs on x86-64 only.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{cache, debian::Archive, initramfs};
use crate::{
    run::{cargo, run, target_dir},
    setup,
};

const INIT: &str = include_str!("arm64.sh");
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// What cross-building and emulating take.
const PACKAGES: [&str; 3] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-system-arm"];
/// The kernel without error injection that lets system calls be changed all the same, and a busybox.
const SUITES: [&str; 2] = ["trixie-backports", "bookworm"];
const KERNEL: (&str, &str) = ("linux-binary-7.3.", "-arm64");
const BUSYBOX: &str = "busybox-static";
const LIMIT: Duration = Duration::from_secs(300);
const BEGINS: &str = "arm64: ";

/// Builds, boots, checks.
pub(crate) fn check() -> Result<()> {
    setup::ensure(setup::Need::Build)?;
    setup::ensure_packages(&PACKAGES)?;
    run(Command::new("rustup").args(["target", "add", TARGET]))?;
    let kchaos = build()?;
    let files = fetch()?;
    let image = image(&files)?;
    let guest = target_dir().join("vm-logs/arm64.cpio");
    fs::create_dir_all(target_dir().join("vm-logs"))?;
    let busybox = fs::read(files.join("bin/busybox")).context("the package's busybox")?;
    fs::write(&guest, initramfs::alone(INIT, &[("busybox", &busybox), ("kchaos", &fs::read(kchaos)?)]))?;
    let said = boot(&image, &guest);
    fs::remove_file(&guest)?;
    judge(&said?)
}

/// One file, as the guest has no libraries.
fn build() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "chaos-user", "--bin", "kchaos", "--target", TARGET]);
    build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    build.env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        "-Ctarget-feature=+crt-static -Cstrip=symbols",
    );
    run(&mut build)?;
    Ok(target_dir().join(TARGET).join("release/kchaos"))
}

/// The packages, unpacked into the cache.
fn fetch() -> Result<PathBuf> {
    let folder = cache::folder().join("arm64");
    if let Some(unpacked) = cache::newest(&folder, KERNEL.0, KERNEL.1) {
        return Ok(unpacked);
    }
    let archive = Archive::open_for(&cache::folder().join("apt/arm64"), &SUITES, "arm64")?;
    let names = archive.names(KERNEL.0)?;
    let kernel = cache::pick_newest(names.iter().map(String::as_str), KERNEL.0, KERNEL.1);
    let kernel = kernel.with_context(|| format!("no package {}*{} in {}", KERNEL.0, KERNEL.1, SUITES[0]))?;
    let unpacked = folder.join(kernel);
    cache::make(&unpacked, |partial| archive.unpack(&[kernel.to_owned(), BUSYBOX.to_owned()], partial))?;
    Ok(unpacked)
}

/// The package has it beside where its modules would be.
fn image(files: &Path) -> Result<PathBuf> {
    let releases = fs::read_dir(files.join("usr/lib/modules")).context("the package's modules")?;
    let images = releases.flatten().map(|release| release.path().join("vmlinuz"));
    images.into_iter().find(|image| image.is_file()).context("the package has no kernel")
}

/// Runs the guest to its end; what it said.
fn boot(image: &Path, guest: &Path) -> Result<Vec<String>> {
    let mut qemu = Command::new("setpriv");
    qemu.args([
        "--pdeathsig",
        "TERM",
        "timeout",
        "--kill-after=5",
        &LIMIT.as_secs().to_string(),
        "qemu-system-aarch64",
    ]);
    qemu.args([
        "-machine",
        "virt,gic-version=3",
        "-cpu",
        "max,pauth-impdef=on",
        "-accel",
        "tcg,thread=multi",
    ]);
    qemu.args(["-smp", "2", "-m", "1024", "-display", "none", "-monitor", "none", "-nic", "none"]);
    qemu.args(["-no-reboot", "-nodefaults", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(guest);
    qemu.args(["-append", "console=ttyAMA0 quiet panic=-1 oops=panic lsm=bpf mitigations=off"]);
    println!("arm64: booting {}", image.display());
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting qemu-system-aarch64 (package qemu-system-arm)")?;
    let output = child.stdout.take().context("its output was piped")?;
    let mut said = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        println!("{line}");
        said.push(line);
    }
    child.wait()?;
    Ok(said)
}

fn judge(said: &[String]) -> Result<()> {
    let after = |word: &str| {
        let begins = format!("{BEGINS}{word}");
        said.iter().filter(|line| line.starts_with(&begins)).count()
    };
    let (passed, failed) = (after("ok "), after("FAILED "));
    println!("\n{passed} passed, {failed} failed");
    match (after("done"), failed) {
        (0, _) => bail!("the guest did not come to its end"),
        (_, 0) if passed > 0 => Ok(()),
        _ => bail!("not everything works on arm64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: &[&str]) -> bool {
        judge(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn a_guest_that_stops_early_has_failed() {
        assert!(judged(&["noise", "arm64: ok a", "arm64: done"]));
        assert!(!judged(&["arm64: ok a"]));
        assert!(!judged(&["arm64: ok a", "arm64: FAILED b", "arm64: done"]));
        assert!(!judged(&["arm64: done"]));
    }
}
