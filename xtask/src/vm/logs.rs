//! Where the lab writes what kernels and tests said.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use super::{kernels::LabKernel, results::Results};
use crate::run::target_dir;

/// The files of one kernel.
#[derive(Clone, Debug)]
pub(super) struct Logs {
    /// The kernel's console.
    pub(super) console: PathBuf,
    /// The output of the tests.
    pub(super) output: PathBuf,
    /// What `kchaos doctor --json` said.
    pub(super) doctor: PathBuf,
    /// The initramfs, which is no log but made anew for each run.
    pub(super) initramfs: PathBuf,
}

impl Logs {
    /// Those of this kernel; nothing is left in them of the last run.
    pub(super) fn of(kernel: LabKernel) -> Result<Self> {
        let file =
            |ending: &str| Ok::<_, anyhow::Error>(folder()?.join(format!("{}.{ending}", kernel.name())));
        let logs = Self {
            console: file("log")?,
            output: file("out")?,
            doctor: file("doctor.json")?,
            initramfs: file("cpio")?,
        };
        for path in [&logs.console, &logs.output, &logs.doctor] {
            fs::write(path, "").with_context(|| path.display().to_string())?;
        }
        Ok(logs)
    }
}

/// Writes down what passed on the machine's own kernel, for the guests to read.
pub(super) fn keep_passed(native: &Results) -> Result<PathBuf> {
    let path = folder()?.join("native.passed");
    let names: Vec<&str> = native.passed().collect();
    fs::write(&path, names.join("\n")).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// What the last run of each kernel has left in the file of this ending; a kernel that never ran is left out.
pub(super) fn kept(ending: &str) -> Result<Vec<(&'static str, String)>> {
    let folder = folder()?;
    let kernels = LabKernel::value_variants().iter().map(|kernel| kernel.name());
    let read = |name: &str| fs::read_to_string(folder.join(format!("{name}.{ending}"))).ok();
    Ok(kernels.filter_map(|name| Some((name, read(name)?))).collect())
}

/// Their folder.
pub(super) fn folder() -> Result<PathBuf> {
    let folder = target_dir().join("vm-logs");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
