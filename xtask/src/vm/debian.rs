//! Debian's archive, asked through an apt of our own: its lists, caches and sources are in our folder, so the
//! machine's apt and what it would install or upgrade are left as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    run::{capture, run_within},
    setup,
};

/// Where Debian is when the machine's own sources do not say.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What has it; distributions made from Debian do not install it.
const KEYRING_PACKAGE: &str = "debian-archive-keyring";
const UPDATE_WITHIN: Duration = Duration::from_secs(300);
const DOWNLOAD_WITHIN: Duration = Duration::from_secs(900);

/// An apt that has fetched the lists of some suites.
pub(super) struct Archive {
    folder: PathBuf,
    architecture: &'static str,
}

impl Archive {
    /// Fetches the lists of these suites into a folder, for the lab's own architecture.
    pub(super) fn open(folder: &Path, suites: &[&str]) -> Result<Self> {
        Self::open_for(folder, suites, "amd64")
    }

    /// The same for another.
    pub(super) fn open_for(folder: &Path, suites: &[&str], architecture: &'static str) -> Result<Self> {
        which::which("apt-get")
            .context("the lab's kernels are packages of Debian, and there is no apt-get here")?;
        setup::ensure_packages(&[KEYRING_PACKAGE])?;
        for sub in ["lists/partial", "archives/partial", "none"] {
            fs::create_dir_all(folder.join(sub)).with_context(|| format!("creating {}", folder.display()))?;
        }
        fs::write(folder.join("lab.sources"), sources(suites, &Mirrors::of_this_machine()))?;
        let archive = Self { folder: folder.to_owned(), architecture };
        println!("… fetching the package lists of {}", suites.join(", "));
        run_within(archive.command("apt-get").args(["-qq", "update"]), UPDATE_WITHIN)?;
        Ok(archive)
    }

    /// Names of packages that begin so.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = capture(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Fetches packages, which apt verifies, and unpacks them over one another.
    pub(super) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let downloads = into.join("packages");
        fs::create_dir_all(&downloads)?;
        println!("… fetching {}", packages.join(", "));
        let mut download = self.command("apt-get");
        run_within(
            download.current_dir(&downloads).args(["-qq", "download"]).args(packages),
            DOWNLOAD_WITHIN,
        )?;
        for package in fs::read_dir(&downloads)? {
            let mut unpack = Command::new("dpkg-deb");
            run_within(unpack.arg("--extract").arg(package?.path()).arg(into), UPDATE_WITHIN)?;
        }
        Ok(fs::remove_dir_all(downloads)?)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.folder.join(name).display().to_string();
        for (option, value) in [
            ("Dir::State", path("")),
            ("Dir::State::lists", path("lists")),
            ("Dir::Cache", path("")),
            ("Dir::Cache::archives", path("archives")),
            ("Dir::Etc::sourcelist", path("lab.sources")),
            ("Dir::Etc::sourceparts", path("none")),
            ("Dir::Etc::preferences", path("none/preferences")),
            ("Dir::Etc::preferencesparts", path("none")),
            ("Acquire::Languages", "none".into()),
            ("APT::Architecture", self.architecture.into()),
            ("APT::Architectures", self.architecture.into()),
            // apt's own user cannot write where we are.
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }
}

/// Where Debian's archives are.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    /// The machine's, if it is a Debian.
    fn of_this_machine() -> Self {
        let format = "$(REPO_URI) $(RELEASE)";
        let targets = capture(Command::new("apt-get").args([
            "indextargets",
            "--format",
            format,
            "Created-By: Packages",
        ]));
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let debian = release.lines().any(|line| line == "ID=debian");
        Self::among(targets.as_deref().ok().filter(|_| debian).unwrap_or_default())
    }

    /// Lines of an address and a suite. The release whose security suite is there is the machine's.
    fn among(targets: &str) -> Self {
        let targets: Vec<_> = targets.lines().filter_map(|line| line.split_once(' ')).collect();
        let find = |suite: &str| targets.iter().find(|(_, s)| *s == suite).map(|(uri, _)| (*uri).to_owned());
        let release = targets.iter().find_map(|(_, suite)| suite.strip_suffix("-security"));
        let main = release.and_then(find);
        let security = release.and_then(|release| find(&format!("{release}-security")));
        Self {
            main: main.unwrap_or_else(|| format!("{DEFAULT_MIRROR}debian")),
            security: security.unwrap_or_else(|| format!("{DEFAULT_MIRROR}debian-security")),
        }
    }
}

/// A list of sources with these suites and nothing else.
fn sources(suites: &[&str], mirrors: &Mirrors) -> String {
    let entry = |suite: &&str| {
        let mirror = if suite.ends_with("-security") { &mirrors.security } else { &mirrors.main };
        format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n")
    };
    suites.iter().map(entry).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_mirrors_of_the_machine() {
        let targets = "http://other/apt stable\nhttp://near/debian/ bookworm\n\
            http://near/debian/ bookworm-updates\nhttp://near/security/ bookworm-security\n";
        let mirrors = Mirrors::among(targets);
        let expected =
            Mirrors { main: "http://near/debian/".into(), security: "http://near/security/".into() };
        assert_eq!(mirrors, expected);
        assert_eq!(Mirrors::among("").main, format!("{DEFAULT_MIRROR}debian"));
    }

    #[test]
    fn lists_each_suite_at_its_mirror() {
        let mirrors = Mirrors { main: "http://m".into(), security: "http://s".into() };
        let text = sources(&["trixie-backports", "bookworm-security"], &mirrors);
        assert!(text.contains("URIs: http://m\nSuites: trixie-backports\n"), "{text}");
        assert!(text.contains("URIs: http://s\nSuites: bookworm-security\n"), "{text}");
        assert_eq!(text.matches("Signed-By: ").count(), 2);
    }
}
