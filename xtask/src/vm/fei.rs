//! The kernel that no distribution has: with error injection by kprobes and everything built in. Its image is
//! given, in the cache, or built from Debian's source.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{cache, debian::Archive, fetch::Bootable, logs};
use crate::{
    run::{root, run_within},
    setup,
};

/// A folder with ready images.
const FOLDER_VARIABLE: &str = "KCHAOS_KERNELS";
/// Images are called `bzImage-6.12.*-fei`.
const PREFIX: &str = "bzImage-6.12.";
const SUFFIX: &str = "-fei";

const SOURCE_PACKAGE: &str = "linux-source-6.12";
const SOURCE_SUITES: [&str; 2] = ["bookworm-backports", "bookworm-security"];
/// What building a kernel needs, as Debian calls it.
const BUILD_PACKAGES: [&str; 10] =
    ["bc", "bison", "cpio", "dwarves", "flex", "gcc", "libelf-dev", "libssl-dev", "make", "xz-utils"];
const UNPACK_WITHIN: Duration = Duration::from_secs(600);
const CONFIGURE_WITHIN: Duration = Duration::from_secs(300);
const BUILD_WITHIN: Duration = Duration::from_secs(90 * 60);

/// The image: the one given, that of `KCHAOS_KERNELS`, the one in the cache, else it is built.
pub(super) fn ensure(given: Option<&Path>) -> Result<Bootable> {
    if let Some(image) = given {
        let image = image.canonicalize().with_context(|| image.display().to_string())?;
        return Ok(Bootable { image, modules: None });
    }
    let image = match env::var_os(FOLDER_VARIABLE) {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            let none = || format!("{FOLDER_VARIABLE}: no {PREFIX}*{SUFFIX} in {}", folder.display());
            cache::newest(&folder, PREFIX, SUFFIX).with_context(none)?.canonicalize()?
        }
        None => build()?,
    };
    Ok(Bootable { image, modules: None })
}

/// Builds the image, if the cache has none of this configuration.
pub(crate) fn build() -> Result<PathBuf> {
    let fragment = fragment()?;
    // Another configuration is another kernel.
    let folder = cache::folder().join("fei612").join(fingerprint(&fragment));
    if let Some(image) = cache::newest(&folder, PREFIX, SUFFIX) {
        return Ok(image);
    }
    let source = configure()?;
    let log = logs::folder()?.join("fei612-build.log");
    println!("… building the kernel (about 12 minutes on two CPUs); its output is in {}", log.display());
    let output = File::create(&log)?;
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    let mut make = make(&source);
    make.arg(format!("-j{cpus}")).arg("bzImage").stdout(output.try_clone()?).stderr(output);
    run_within(&mut make, BUILD_WITHIN).with_context(|| format!("see {}", log.display()))?;
    let name = format!("{PREFIX}{}{SUFFIX}", sublevel(&fs::read_to_string(source.join("Makefile"))?)?);
    cache::make(&folder, |partial| {
        fs::copy(source.join("arch/x86/boot/bzImage"), partial.join(&name))?;
        Ok(())
    })?;
    cache::remove(&source)?;
    Ok(folder.join(name))
}

/// Unpacks and configures the source, and returns its folder.
pub(crate) fn configure() -> Result<PathBuf> {
    setup::ensure_packages(&BUILD_PACKAGES)?;
    let source = unpacked_source()?;
    let mut command = make(&source);
    command.arg(format!("KCONFIG_ALLCONFIG={}", fragment_file().display())).arg("allnoconfig");
    run_within(&mut command, CONFIGURE_WITHIN)?;
    let config = fs::read_to_string(source.join(".config"))?;
    let fragment = fragment()?;
    let lost = lost(&fragment, &config);
    if !lost.is_empty() {
        bail!("this kernel's configuration does not take {}", lost.join(", "));
    }
    println!("✓ configured: {}", source.display());
    Ok(source)
}

fn unpacked_source() -> Result<PathBuf> {
    let source = cache::folder().join("fei612/source");
    if source.is_dir() {
        return Ok(source);
    }
    let archive = Archive::open(&cache::folder().join("apt").join("6.12."), &SOURCE_SUITES)?;
    cache::make(&source, |partial| {
        let package = partial.join("package");
        archive.unpack(&[SOURCE_PACKAGE.to_owned()], &package)?;
        let tar = package.join("usr/src").join(format!("{SOURCE_PACKAGE}.tar.xz"));
        let mut unpack = Command::new("tar");
        unpack.arg("--extract").arg("--strip-components=1").arg("--directory").arg(partial);
        run_within(unpack.arg("--file").arg(tar), UNPACK_WITHIN)?;
        cache::remove(&package)
    })?;
    Ok(source)
}

fn make(source: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("--silent").arg("-C").arg(source);
    // The same image from the same source, whoever builds it.
    make.env("KBUILD_BUILD_USER", "kchaos").env("KBUILD_BUILD_HOST", "lab");
    make
}

fn fragment_file() -> PathBuf {
    root().join("xtask/kernel/fei.config")
}

fn fragment() -> Result<String> {
    let file = fragment_file();
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// Lines of the fragment that are not in the configuration.
fn lost<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let options = fragment.lines().filter(|line| line.starts_with("CONFIG_"));
    options.filter(|option| !config.lines().any(|line| line == *option)).collect()
}

/// `117` of a Makefile with `SUBLEVEL = 117`.
fn sublevel(makefile: &str) -> Result<&str> {
    let line = makefile.lines().find_map(|line| line.strip_prefix("SUBLEVEL ="));
    line.map(str::trim).context("the kernel's Makefile has no SUBLEVEL")
}

/// FNV-1a, which stays the same whatever compiles us.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_which_options_were_lost() {
        let fragment = "# comment\nCONFIG_NET=y\nCONFIG_LSM=\"bpf\"\nCONFIG_FUSE_FS=y\n";
        let config = "CONFIG_NET=y\nCONFIG_LSM=\"bpf\"\n# CONFIG_FUSE_FS is not set\n";
        assert_eq!(lost(fragment, config), ["CONFIG_FUSE_FS=y"]);
    }

    #[test]
    fn reads_the_sublevel() {
        assert_eq!(sublevel("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\n").unwrap(), "117");
        assert!(sublevel("").is_err());
    }

    #[test]
    fn another_configuration_has_another_fingerprint() {
        assert_eq!(fingerprint(""), "cbf29ce484222325");
        assert_ne!(fingerprint("CONFIG_NET=y"), fingerprint("CONFIG_NET=n"));
    }
}
