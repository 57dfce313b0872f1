//! Where the lab keeps what it fetched and built. A folder appears under its final name only when it is
//! complete, so what is there can be used.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::run::{root, target_dir};

/// Where the cache is.
const FOLDER_VARIABLE: &str = "KCHAOS_CACHE";

/// The cache's folder.
pub(super) fn folder() -> PathBuf {
    match env::var_os(FOLDER_VARIABLE) {
        Some(folder) if !folder.is_empty() => root().join(folder),
        _ => target_dir().join("vm-cache"),
    }
}

/// The newest entry whose name is between these.
pub(super) fn newest(folder: &Path, prefix: &str, suffix: &str) -> Option<PathBuf> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    pick_newest(names.iter().map(String::as_str), prefix, suffix).map(|name| folder.join(name))
}

/// The name with the highest version between prefix and suffix.
pub(super) fn pick_newest<'a>(
    names: impl Iterator<Item = &'a str>,
    prefix: &str,
    suffix: &str,
) -> Option<&'a str> {
    let version = |name: &str| name.strip_prefix(prefix)?.strip_suffix(suffix).and_then(numbers);
    names.filter_map(|name| Some((version(name)?, name))).max().map(|(_, name)| name)
}

/// `[12, 117, 12]` of `12.117+deb12`; `None` for what is more than a version, as `1.0-56-cloud`.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let parts = version.split(['.', '-', '+', '~', '_']);
    parts.map(|part| part.trim_start_matches("deb").trim_start_matches("bpo").parse().ok()).collect()
}

/// Makes a folder of the cache: `fill` gets an empty one, which then gets its name.
pub(super) fn make(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = folder.with_file_name(name);
    remove(&partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
    fill(&partial)?;
    fs::rename(&partial, folder).with_context(|| format!("naming {}", folder.display()))
}

/// Removes a folder that may not be there.
pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_highest_version_and_no_flavour() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-57-amd64-dbg",
            "linux-image-6.1.0-58-cloud-amd64",
            "linux-image-6.1.0-59-rt-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.95+deb12-amd64",
            "linux-image-6.12.95+deb12.1-amd64",
            "linux-image-6.12-amd64",
        ];
        let newest = |prefix| pick_newest(names.into_iter(), prefix, "-amd64");
        assert_eq!(newest("linux-image-6.1."), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(newest("linux-image-6.12."), Some("linux-image-6.12.117+deb12-amd64"));
        assert_eq!(newest("linux-image-7.3."), None);
    }

    #[test]
    fn a_point_release_is_newer() {
        let names = ["6.12.90+deb12", "6.12.90+deb12.1"];
        assert_eq!(pick_newest(names.into_iter(), "6.12.", ""), Some("6.12.90+deb12.1"));
    }

    #[test]
    fn what_was_not_finished_does_not_appear() {
        let root = env::temp_dir().join(format!("kchaos-cache-{}", std::process::id()));
        let folder = root.join("k-1.2");
        assert!(make(&folder, |_| anyhow::bail!("no network")).is_err());
        assert_eq!(newest(&root, "k-", ""), None);
        make(&folder, |partial| Ok(fs::write(partial.join("file"), "")?)).unwrap();
        assert_eq!(newest(&root, "k-", ""), Some(folder));
        remove(&root).unwrap();
    }
}
