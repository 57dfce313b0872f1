//! Debian's packages.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::{install, is_root};
use crate::run::{capture, line};

const INSTALL_WITHIN_S: u64 = 900;

/// apt-get, which is asked to update its lists once at most.
#[derive(Default)]
pub(super) struct Apt {
    updated: bool,
}

impl Apt {
    /// Whether there is an apt-get that we may use.
    pub(super) fn usable() -> bool {
        which::which("apt-get").is_ok() && is_root()
    }

    /// Installs packages, or says which command would.
    pub(super) fn install(&mut self, packages: &[&str]) -> Result<()> {
        let mut command = install_command(packages);
        if which::which("apt-get").is_err() {
            bail!("this is not Debian; please install what it calls {}", packages.join(", "));
        }
        if !is_root() {
            bail!("not root; please run: sudo {}", line(&command));
        }
        self.update();
        install(&packages.join(" "), &mut command, INSTALL_WITHIN_S)
    }

    /// The version that an installation would give, such as `1.96.0+dfsg1-1~deb12u2`.
    pub(super) fn candidate(&mut self, package: &str) -> Option<String> {
        if Self::usable() {
            self.update();
        }
        candidate(&capture(Command::new("apt-cache").args(["policy", package])).ok()?)
    }

    /// A list that cannot be fetched need not be the one that is needed, so failure is only told.
    fn update(&mut self) {
        if std::mem::replace(&mut self.updated, true) {
            return;
        }
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "DPkg::Lock::Timeout=120", "update"]);
        if let Err(error) = install("lists of packages", &mut command, INSTALL_WITHIN_S) {
            println!("✗ {error:#}");
        }
    }
}

/// Whether a package is there already.
pub(super) fn is_installed(package: &str) -> bool {
    let status = capture(Command::new("dpkg-query").args(["--show", "--showformat=${Status}", package]));
    status.is_ok_and(|status| status.ends_with(" installed"))
}

fn install_command(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]);
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    command
}

fn candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Major and minor number of a package's version.
pub(super) fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '+', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_candidates() {
        let policy =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate(policy).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn reads_versions() {
        assert_eq!(major_minor("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(major_minor("unknown"), None);
    }
}
