//! Debian's packages.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{install, is_root};
use crate::run::{capture, line, run};

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

    /// Installs a package whose service of the same name neither starts now nor with the machine.
    pub(super) fn install_without_service(&mut self, package: &str) -> Result<()> {
        let _policy = NoServices::declare(Path::new(POLICY))?;
        self.install(&[package])?;
        if is_installed("init-system-helpers") {
            run(Command::new("update-rc.d").args([package, "disable"]))?;
        }
        Ok(())
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

/// What packages ask whether they may start services (invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Packages may start no services until this goes.
struct NoServices<'a>(&'a Path);

impl<'a> NoServices<'a> {
    /// Nothing to do where somebody has a policy already, which then is none of ours to change.
    fn declare(policy: &'a Path) -> Result<Option<Self>> {
        match fs::File::options().write(true).create_new(true).mode(0o755).open(policy) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            // Not root: installing will say what to run.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            // 101 says that what is asked is forbidden.
            file => {
                let mut file = file.with_context(|| policy.display().to_string())?;
                let declared = Self(policy);
                file.write_all(b"#!/bin/sh\nexit 101\n")?;
                Ok(Some(declared))
            }
        }
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(self.0) {
            println!("✗ {} was left behind: {error}", self.0.display());
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
    fn forbids_services_for_a_while() {
        let policy = std::env::temp_dir().join(format!("kchaos-policy-rc.d-{}", std::process::id()));
        let declared = NoServices::declare(&policy).unwrap();
        assert_eq!(Command::new(&policy).status().unwrap().code(), Some(101));
        assert!(NoServices::declare(&policy).unwrap().is_none());
        assert!(policy.exists());
        drop(declared);
        assert!(!policy.exists());
    }

    #[test]
    fn reads_versions() {
        assert_eq!(major_minor("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(major_minor("unknown"), None);
    }
}
