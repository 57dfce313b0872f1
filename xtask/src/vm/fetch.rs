//! Gets the lab's kernels: Debian's packages, unpacked into the cache and never installed.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    cache,
    debian::Archive,
    kernels::{LabKernel, Packages},
};
use crate::run::run_within;

/// Among the modules of a kernel, the folders that the lab has a use for.
const KEPT: [&str; 8] = ["arch", "block", "crypto", "fs", "lib", "mm", "net", "drivers"];
/// The same among its drivers.
const KEPT_DRIVERS: [&str; 6] = ["block", "char", "md", "misc", "net", "virtio"];
const DECOMPRESS_WITHIN: Duration = Duration::from_secs(300);

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Bootable {
    /// The compressed image.
    pub(super) image: PathBuf,
    /// `lib/modules/RELEASE`, uncompressed and with their index; `None` if everything is built in.
    pub(super) modules: Option<PathBuf>,
}

/// The kernel in the cache, fetched first if there is none.
pub(super) fn ensure(kernel: LabKernel, packages: &Packages) -> Result<Bootable> {
    let folder = cache::folder().join(kernel.name());
    let prefix = format!("{}{}", packages.names[0], packages.series);
    let unpacked = match cache::newest(&folder, &prefix, "") {
        Some(unpacked) => unpacked,
        None => fetch(&folder, &prefix, packages)?,
    };
    bootable(&unpacked)
}

fn fetch(folder: &Path, prefix: &str, packages: &Packages) -> Result<PathBuf> {
    let archive = Archive::open(&cache::folder().join("apt").join(packages.series), packages.suites)?;
    let names = archive.names(prefix)?;
    let names = || names.iter().map(String::as_str);
    // The signed ones are the same kernel; unsigned ones are published first.
    let newest = ["-amd64", "-amd64-unsigned"]
        .into_iter()
        .find_map(|suffix| Some((cache::pick_newest(names(), prefix, suffix)?, suffix)));
    let Some((first, suffix)) = newest else {
        bail!("no package {prefix}*-amd64 in {}", packages.suites.join(", "));
    };
    let version = first.strip_prefix(packages.names[0]).and_then(|rest| rest.strip_suffix(suffix));
    let version = version.context("a package's name has changed meanwhile")?;
    let chosen: Vec<_> = std::iter::once(first.to_owned())
        .chain(packages.names[1..].iter().map(|name| format!("{name}{version}-amd64")))
        .collect();
    let unpacked = folder.join(format!("{}{version}", packages.names[0]));
    cache::make(&unpacked, |partial| {
        archive.unpack(&chosen, partial)?;
        prepare_modules(partial)
    })?;
    Ok(unpacked)
}

/// Leaves out what the lab does not need, uncompresses the rest, and writes the index that modprobe reads.
fn prepare_modules(unpacked: &Path) -> Result<()> {
    let modules = modules_folder(unpacked).context("the packages have no modules")?;
    keep(&modules.join("kernel"), &KEPT)?;
    keep(&modules.join("kernel/drivers"), &KEPT_DRIVERS)?;
    // Of the network's drivers, those in folders are for devices that a guest does not have.
    keep_files(&modules.join("kernel/drivers/net"))?;
    let compressed = files_below(&modules, "xz")?;
    for some in compressed.chunks(500) {
        run_within(Command::new("xz").arg("--decompress").args(some), DECOMPRESS_WITHIN)?;
    }
    let release = modules.file_name().unwrap_or_default();
    let base = modules.ancestors().nth(3).unwrap_or(unpacked);
    run_within(Command::new("busybox").args(["depmod", "-b"]).arg(base).arg(release), DECOMPRESS_WITHIN)
}

fn bootable(unpacked: &Path) -> Result<Bootable> {
    let modules = modules_folder(unpacked);
    let images = |folder: PathBuf| {
        let begins = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        };
        entries(&folder).ok()?.into_iter().find(begins)
    };
    let image = images(unpacked.join("boot")).or_else(|| modules.clone().and_then(images));
    let image = image.with_context(|| format!("no kernel in {}; please remove it", unpacked.display()))?;
    Ok(Bootable { image, modules })
}

/// Since Debian 13, packages have them below `usr`.
fn modules_folder(unpacked: &Path) -> Option<PathBuf> {
    ["lib/modules", "usr/lib/modules"].into_iter().find_map(|folder| {
        let entries = fs::read_dir(unpacked.join(folder)).ok()?.flatten();
        entries.map(|entry| entry.path()).find(|path| path.join("kernel").is_dir())
    })
}

fn keep(folder: &Path, names: &[&str]) -> Result<()> {
    for entry in entries(folder)? {
        if !names.iter().any(|name| entry.file_name() == Some(OsStr::new(name))) && entry.is_dir() {
            fs::remove_dir_all(&entry)?;
        }
    }
    Ok(())
}

fn keep_files(folder: &Path) -> Result<()> {
    entries(folder)?.iter().filter(|path| path.is_dir()).try_for_each(|path| Ok(fs::remove_dir_all(path)?))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn files_below(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.extension() == Some(OsStr::new(ending)) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_image_and_modules_where_either_debian_has_them() {
        let root = std::env::temp_dir().join(format!("kchaos-fetch-{}", std::process::id()));
        let (old, new) = (root.join("old"), root.join("new"));
        for file in [
            "old/boot/vmlinuz-6.1.0-56-amd64",
            "old/lib/modules/6.1.0-56-amd64/kernel/fs/9p/9p.ko",
            "new/usr/lib/modules/7.3.4+deb13-amd64/vmlinuz",
            "new/usr/lib/modules/7.3.4+deb13-amd64/kernel/sound/pcm.ko",
        ] {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        assert!(bootable(&old).unwrap().image.ends_with("boot/vmlinuz-6.1.0-56-amd64"));
        assert!(bootable(&new).unwrap().image.ends_with("7.3.4+deb13-amd64/vmlinuz"));
        assert!(bootable(&root).is_err());
        let modules = modules_folder(&new).unwrap();
        keep(&modules.join("kernel"), &KEPT).unwrap();
        assert!(!modules.join("kernel/sound").exists());
        assert_eq!(files_below(&old, "ko").unwrap().len(), 1);
        cache::remove(&root).unwrap();
    }
}
