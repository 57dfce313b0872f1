//! Compiles the kernel half and leaves the object in `OUT_DIR/chaos-ebpf`, from where it is embedded.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use aya_build::Package;

// One rule for `cargo xtask setup` and for this script; each uses its part of the file.
#[allow(dead_code)]
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

fn main() -> Result<()> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?)
        .parent()
        .context("chaos-user is not in a workspace")?
        .to_owned();
    rerun_if_changed(&root);

    if env::var("AYA_BUILD_SKIP").is_ok_and(|skip| skip == "1" || skip.eq_ignore_ascii_case("true")) {
        return skip(&out_dir);
    }
    let toolchain = match toolchain::select() {
        Ok(toolchain) => toolchain,
        Err(unsuitable) => {
            let tried: Vec<_> = unsuitable.iter().map(|toolchain| format!("  {toolchain}\n")).collect();
            bail!("no toolchain for the kernel half; run `cargo xtask setup`. Tried:\n{}", tried.concat());
        }
    };
    println!("cargo:rerun-if-changed={}", toolchain.linker.path.display());
    set_environment(&toolchain, &out_dir);
    let ebpf = root.join("chaos-ebpf");
    let ebpf = ebpf.to_str().context("the path of the workspace is not UTF-8")?;
    let package = Package { name: "chaos-ebpf", root_dir: ebpf, ..Package::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(&toolchain.name))
        .with_context(|| format!("building the kernel half with {toolchain}"))
}

/// aya-build watches chaos-ebpf itself.
fn rerun_if_changed(root: &std::path::Path) {
    println!("cargo:rerun-if-env-changed={}", toolchain::OVERRIDE);
    println!("cargo:rerun-if-env-changed=AYA_BUILD_SKIP");
    for path in ["chaos-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
}

/// For `AYA_BUILD_SKIP=1 cargo check` where there is no toolchain for the kernel half: an empty object
/// satisfies the compiler, and nothing else.
fn skip(out_dir: &std::path::Path) -> Result<()> {
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        bail!("AYA_BUILD_SKIP is for `cargo check`: a release without its kernel half does nothing");
    }
    println!("cargo:warning=AYA_BUILD_SKIP is set: the kernel half is empty");
    fs::write(out_dir.join("chaos-ebpf"), []).context("writing the empty kernel half")
}

/// What aya-build hands down to the cargo that it starts.
fn set_environment(toolchain: &toolchain::Toolchain, out_dir: &std::path::Path) {
    // aya-build turns what cargo prints into warnings of this script, progress included.
    let mut variables = vec![("CARGO_TERM_QUIET", "true".into())];
    if toolchain.needs_bootstrap() {
        variables.push(("RUSTC_BOOTSTRAP", "1".into()));
    }
    // OUT_DIR is target/<profile>/build/<package>/out. The kernel half is always a release build, so all
    // profiles can share its intermediate files.
    if let Some(target) = out_dir.ancestors().nth(4) {
        variables.push(("CARGO_BUILD_BUILD_DIR", target.join("ebpf").into_os_string()));
    }
    for (name, value) in variables {
        // SAFETY: nothing else runs in this process yet; aya-build starts its threads later.
        unsafe { env::set_var(name, value) };
    }
}
