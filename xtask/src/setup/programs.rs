//! Programs that the tests and benchmarks start.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{Need, already, apt::Apt, has_subcommand, install};
use crate::{
    run::cargo,
    toolchain::{self, Toolchain},
};

/// A program, the package of Debian that has it, and who needs it.
struct Program {
    name: &'static str,
    package: &'static str,
    needed: fn(Need) -> bool,
}

const PROGRAMS: [Program; 15] = [
    Program { name: "dockerd", package: "docker.io", needed: Need::tests },
    Program { name: "docker", package: "docker.io", needed: Need::tests },
    Program { name: "busybox", package: "busybox-static", needed: |need| need.tests() || need.guests() },
    Program { name: "ip", package: "iproute2", needed: Need::runs },
    Program { name: "iptables", package: "iptables", needed: Need::runs },
    Program { name: "dig", package: "bind9-dnsutils", needed: Need::tests },
    // A name server without a service; and Redis's server by another name, without one either.
    Program { name: "dnsmasq", package: "dnsmasq-base", needed: Need::tests },
    Program {
        name: "redis-check-rdb",
        package: "redis-tools",
        needed: |need| need.tests() || need.benchmarks(),
    },
    Program { name: "sqlite3", package: "sqlite3", needed: Need::tests },
    Program { name: "curl", package: "curl", needed: Need::tests },
    Program { name: "strace", package: "strace", needed: Need::tests },
    Program { name: "iperf3", package: "iperf3", needed: Need::benchmarks },
    Program { name: "ping", package: "iputils-ping", needed: Need::benchmarks },
    Program { name: "qemu-system-x86_64", package: "qemu-system-x86", needed: Need::guests },
    Program { name: "xz", package: "xz-utils", needed: Need::guests },
];

/// Servers whose packages have a service of that name, which shall not run.
const SERVERS: [Program; 2] = [
    Program { name: "nginx", package: "nginx", needed: |need| need.tests() || need.benchmarks() },
    Program { name: "postgres", package: "postgresql", needed: Need::tests },
];

/// Debian has the versions of PostgreSQL beside one another, outside of the path.
const POSTGRESQL: &str = "/usr/lib/postgresql";

/// Installs the programs that are missing.
pub(super) fn ensure(apt: &mut Apt, need: Need) -> Result<()> {
    ensure_programs(apt, need)?;
    missing(&SERVERS, need).iter().try_for_each(|server| apt.install_without_service(server.package))
}

/// Those that are needed and not there; the others are named.
fn missing(programs: &[Program], need: Need) -> Vec<&Program> {
    let needed = programs.iter().filter(|program| (program.needed)(need));
    let (there, missing): (Vec<_>, Vec<_>) = needed.partition(|program| is_there(program.name));
    if !there.is_empty() {
        already(there.iter().map(|program| program.name).collect::<Vec<_>>().join(", "));
    }
    missing
}

fn ensure_programs(apt: &mut Apt, need: Need) -> Result<()> {
    let missing = missing(&PROGRAMS, need);
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|program| program.package).collect();
    packages.dedup();
    apt.install(&packages)?;
    // Debian 13 and later keep Docker's client in a package of its own.
    if need.tests() && !is_there("docker") {
        apt.install(&["docker-cli"])?;
    }
    Ok(())
}

/// The tests make containers' images from a busybox alone, so it must need no libraries.
fn is_there(name: &str) -> bool {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from).into_iter();
    let mut files = folders.chain(postgresql()).map(|folder| folder.join(name));
    let file = toolchain::find(name).or_else(|| files.find(|file| file.is_file()));
    file.is_some_and(|file| name != "busybox" || is_static(&file))
}

/// Where each version of PostgreSQL has its programs.
fn postgresql() -> impl Iterator<Item = PathBuf> {
    let versions = fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin"))
}

/// A program that needs an interpreter names it near its beginning.
fn is_static(program: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(program).and_then(|file| file.take(4096).read_to_end(&mut head));
    read.is_ok() && !names_interpreter(&head)
}

fn names_interpreter(head: &[u8]) -> bool {
    let contains = |name: &[u8]| head.windows(name.len()).any(|window| window == name);
    contains(b"/ld-linux") || contains(b"/ld-musl")
}

/// Clippy for both halves and rustfmt. Where this cargo has none, that of the kernel half's toolchain will do.
pub(super) fn ensure_lints(apt: &mut Apt, ebpf: &Toolchain) -> Result<()> {
    ensure_clippy(apt, ebpf)?;
    let own = || has_subcommand(&mut cargo(), "fmt");
    let linked = || has_subcommand(&mut ebpf_cargo(ebpf), "fmt");
    if own() || linked() {
        already("cargo fmt");
        return Ok(());
    }
    if (add_component("rustfmt", None) && own())
        || (ebpf.rustc.nightly && add_component("rustfmt", Some(ebpf)))
    {
        return Ok(());
    }
    apt.install(&["rustfmt-web"])
}

fn ensure_clippy(apt: &mut Apt, ebpf: &Toolchain) -> Result<()> {
    if has_subcommand(&mut ebpf_cargo(ebpf), "clippy") {
        already("cargo clippy");
        return Ok(());
    }
    if ebpf.rustc.nightly && add_component("clippy", Some(ebpf)) {
        return Ok(());
    }
    apt.install(&["rust-web-clippy"])
}

fn add_component(component: &str, toolchain: Option<&Toolchain>) -> bool {
    let mut command = Command::new("rustup");
    command.args(["component", "add", component]);
    if let Some(toolchain) = toolchain {
        command.args(["--toolchain", &toolchain.name]);
    }
    install(component, &mut command, 60).inspect_err(|error| println!("✗ {error:#}")).is_ok()
}

/// The cargo of the kernel half's toolchain.
pub(crate) fn ebpf_cargo(toolchain: &Toolchain) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", &toolchain.name, "cargo"]).current_dir(crate::run::root());
    // Ours is another toolchain's, and would be preferred.
    command.env_remove("CARGO");
    if toolchain.needs_bootstrap() {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_static_programs_from_others() {
        assert!(names_interpreter(b"\x7fELF......../lib64/ld-linux-x86-64.so.2\0"));
        assert!(!names_interpreter(b"\x7fELF........"));
        assert!(!is_static(Path::new("/bin/sh")));
        assert!(!is_static(Path::new("/nonexistent")));
    }
}
