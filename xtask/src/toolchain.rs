//! Which toolchain compiles the kernel half. `cargo xtask setup` and chaos-user's build script both
//! include this file, so that they choose alike; hence the standard library only.
//!
//! eBPF in Rust needs `-Z build-std=core`, so the sources of `core` and a compiler that takes unstable
//! flags, and a bpf-linker whose LLVM can read what the compiler's LLVM wrote.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Names the toolchain to use, whatever else there is.
pub const OVERRIDE: &str = "KCHAOS_EBPF_TOOLCHAIN";

/// The name under which `cargo xtask setup` links a distribution's compiler.
pub const LINKED: &str = "kchaos-ebpf";

/// What rustup itself can install.
pub const NIGHTLY: &str = "nightly";

/// The workspace's `rust-version`; cargo refuses to build with less.
pub const MIN_RUST: (u32, u32) = (1, 95);

/// A compiler that builds the kernel half, together with the installed bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// As `rustup run` takes it.
    pub name: String,
    /// What the compiler says of itself.
    pub rustc: Rustc,
    /// The linker it was matched with.
    pub linker: Linker,
}

impl Toolchain {
    /// Whether `RUSTC_BOOTSTRAP=1` must be set for unstable flags to be taken.
    pub fn needs_bootstrap(&self) -> bool {
        !self.rustc.nightly
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rustc, linker } = self;
        write!(f, "{name} (rustc {}, LLVM {})", rustc.release, rustc.llvm)?;
        match linker.llvm {
            Some(llvm) => write!(f, " with {} (LLVM {llvm})", linker.path.display()),
            None => write!(f, " with {} (LLVM unknown)", linker.path.display()),
        }
    }
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rustc {
    /// Such as `1.96.0` or `1.97.0-nightly`.
    pub release: String,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Major version of its LLVM.
    pub llvm: u32,
    /// Whether it takes unstable flags by itself.
    pub nightly: bool,
}

impl Rustc {
    /// Parses the output of `rustc -vV`.
    pub fn parse(output: &str) -> Option<Self> {
        let field = |name: &str| output.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:")?;
        let mut numbers = release.split('.').map(|number| number.parse().ok());
        Some(Self {
            release: release.to_owned(),
            version: (numbers.next()??, numbers.next()??),
            llvm: field("LLVM version:")?.split('.').next()?.parse().ok()?,
            nightly: release.contains("-nightly") || release.contains("-dev"),
        })
    }
}

/// The installed bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// Where it is.
    pub path: PathBuf,
    /// Major version of its LLVM, if it says.
    pub llvm: Option<u32>,
}

/// Facts about one toolchain, from which [`suits`] concludes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `rustc -vV`; `None` if there is no such toolchain.
    pub rustc: Option<Rustc>,
    /// Whether the sources of the standard library are there (rustup's component `rust-src`).
    pub has_source: bool,
}

/// A toolchain that will not do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuitable {
    /// As `rustup run` takes it.
    pub name: String,
    /// What it lacks.
    pub lacks: String,
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.lacks)
    }
}

/// The first toolchain that suits: the one named by [`OVERRIDE`] and no other, else [`LINKED`], else
/// [`NIGHTLY`].
pub fn select() -> Result<Toolchain, Vec<Unsuitable>> {
    let names = match env::var(OVERRIDE) {
        Ok(name) if !name.is_empty() => vec![name],
        _ => vec![LINKED.to_owned(), NIGHTLY.to_owned()],
    };
    let linker = linker();
    let mut unsuitable = Vec::new();
    for name in names {
        match suits(&name, &facts(&name), linker.as_ref()) {
            Ok(toolchain) => return Ok(toolchain),
            Err(lacks) => unsuitable.push(Unsuitable { name, lacks }),
        }
    }
    Err(unsuitable)
}

/// Whether a toolchain builds the kernel half together with this linker; if not, what it lacks.
pub fn suits(name: &str, facts: &Facts, linker: Option<&Linker>) -> Result<Toolchain, String> {
    let rustc = facts.rustc.clone().ok_or("not installed")?;
    if rustc.version < MIN_RUST {
        return Err(format!("rustc is {}, {}.{} is needed", rustc.release, MIN_RUST.0, MIN_RUST.1));
    }
    if !facts.has_source {
        return Err("no sources of `core` (rust-src)".to_owned());
    }
    let linker = linker.cloned().ok_or("no bpf-linker")?;
    // LLVM reads the bitcode of its predecessors, not that of its successors.
    if linker.llvm.is_some_and(|llvm| llvm < rustc.llvm) {
        let linker_llvm = linker.llvm.unwrap_or_default();
        return Err(format!("LLVM {} is too new for bpf-linker's LLVM {linker_llvm}", rustc.llvm));
    }
    Ok(Toolchain { name: name.to_owned(), rustc, linker })
}

/// Asks a toolchain about itself.
pub fn facts(name: &str) -> Facts {
    let rustc = rustc(name, &["-vV"]).and_then(|output| Rustc::parse(&output));
    let sysroot = rustc.as_ref().and_then(|_| self::rustc(name, &["--print", "sysroot"]));
    let has_source = sysroot.is_some_and(|sysroot| {
        Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
    });
    Facts { rustc, has_source }
}

fn rustc(toolchain: &str, args: &[&str]) -> Option<String> {
    output(Command::new("rustup").args(["run", toolchain, "rustc"]).args(args))
}

/// The installed bpf-linker. LLVM's own `--version` names the LLVM it was built with, however it was
/// linked.
pub fn linker() -> Option<Linker> {
    let path = find("bpf-linker")?;
    let version = output(Command::new(&path).args(["--llvm-args=--version", "-o", "/dev/null", "/dev/null"]));
    Some(Linker { llvm: version.as_deref().and_then(llvm_major), path })
}

/// Finds `LLVM version 22.1.8` in what an LLVM tool prints.
pub fn llvm_major(output: &str) -> Option<u32> {
    let (_, version) = output.split_once("LLVM version ")?;
    version.split('.').next()?.trim().parse().ok()
}

/// A program in `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What a command prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
    const NIGHTLY_97: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nrelease: 1.97.0-nightly\n\
        LLVM version: 22.1.4\n";

    fn linker(llvm: Option<u32>) -> Linker {
        Linker { path: "/bin/bpf-linker".into(), llvm }
    }

    fn with(rustc: &str, has_source: bool) -> Facts {
        Facts { rustc: Rustc::parse(rustc), has_source }
    }

    #[test]
    fn reads_what_compilers_say_of_themselves() {
        let debian = Rustc::parse(DEBIAN).unwrap();
        assert_eq!((debian.version, debian.llvm, debian.nightly), ((1, 96), 22, false));
        let nightly = Rustc::parse(NIGHTLY_97).unwrap();
        assert_eq!((nightly.version, nightly.llvm, nightly.nightly), ((1, 97), 22, true));
        assert_eq!(Rustc::parse("error: toolchain 'nightly' is not installed"), None);
    }

    #[test]
    fn reads_the_llvm_of_a_linker() {
        assert_eq!(llvm_major("Debian LLVM version 22.1.8\n  Optimized build.\n"), Some(22));
        assert_eq!(llvm_major("LLVM (http://llvm.org/):\n  LLVM version 23.0.0git\n"), Some(23));
        assert_eq!(llvm_major("error: unexpected argument"), None);
    }

    #[test]
    fn a_stable_compiler_with_sources_suits_and_needs_bootstrap() {
        let toolchain = suits(LINKED, &with(DEBIAN, true), Some(&linker(Some(22)))).unwrap();
        assert!(toolchain.needs_bootstrap());
        assert!(!suits(NIGHTLY, &with(NIGHTLY_97, true), Some(&linker(Some(22)))).unwrap().needs_bootstrap());
    }

    #[test]
    fn says_what_is_lacking() {
        let lacks = |facts: Facts, linker: Option<Linker>| suits("x", &facts, linker.as_ref()).unwrap_err();
        assert_eq!(lacks(Facts::default(), None), "not installed");
        assert_eq!(lacks(with(NIGHTLY_97, false), Some(linker(Some(22)))), "no sources of `core` (rust-src)");
        assert_eq!(lacks(with(DEBIAN, true), None), "no bpf-linker");
        assert_eq!(
            lacks(with(DEBIAN, true), Some(linker(Some(21)))),
            "LLVM 22 is too new for bpf-linker's LLVM 21"
        );
        let old = DEBIAN.replace("1.96.0", "1.85.0");
        assert_eq!(lacks(with(&old, true), Some(linker(Some(22)))), "rustc is 1.85.0, 1.95 is needed");
    }

    #[test]
    fn a_newer_or_silent_linker_suits() {
        for llvm in [Some(23), None] {
            assert!(suits("x", &with(DEBIAN, true), Some(&linker(llvm))).is_ok());
        }
    }
}
