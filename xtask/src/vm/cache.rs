//! Where the lab keeps what it fetched and built. A folder appears under its final name only when it is
//! complete, so what is there can be used.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::run::{root, target_dir};

/// Where the cache is.
const FOLDER_VARIABLE: &str = "KCHAOS_CACHE";
/// Its name among the caches of a user.
const NAME: &str = "kchaos-lab";

/// The cache's folder. It is not the repository's, so that another clone neither fetches nor builds anything
/// a second time.
pub(super) fn folder() -> PathBuf {
    chosen(|variable| env::var_os(variable).filter(|value| !value.is_empty()))
}

/// What these environment variables make of it (XDG Base Directory Specification 0.8: a relative
/// `XDG_CACHE_HOME` is ignored).
fn chosen(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    if let Some(folder) = variable(FOLDER_VARIABLE) {
        return root().join(folder);
    }
    let caches = variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let caches = caches.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
    caches.unwrap_or_else(target_dir).join(NAME)
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
    fn the_cache_is_the_users_unless_told_otherwise() {
        let folder = |set: &[(&str, &str)]| {
            chosen(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).into()))
        };
        let (home, xdg) = (("HOME", "/root"), ("XDG_CACHE_HOME", "/caches"));
        assert_eq!(folder(&[home]), Path::new("/root/.cache/kchaos-lab"));
        assert_eq!(folder(&[home, xdg]), Path::new("/caches/kchaos-lab"));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "here")]), Path::new("/root/.cache/kchaos-lab"));
        assert_eq!(folder(&[home, xdg, (FOLDER_VARIABLE, "/mine")]), Path::new("/mine"));
        assert_eq!(folder(&[]), target_dir().join("kchaos-lab"));
    }

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
