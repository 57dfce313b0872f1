//! A child that undoes, when the controller dies, what the controller's death does not undo.

use std::{
    io::{self, Read},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use nix::sys::signal::{SigHandler, Signal, signal};

use super::{KernelError, journal, sweep};

/// The verb under which the program starts itself.
pub const WATCHDOG_VERB: &str = "watchdog";

/// The child. It lives as long as this does, and a moment longer.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
    /// Closed by the kernel when we die, whatever we die of.
    lifeline: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts it, over one journal.
    pub fn start(journal: &Path) -> Result<Self, KernelError> {
        let mut child = Command::new("/proc/self/exe")
            .arg(WATCHDOG_VERB)
            .arg(journal)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(KernelError::io("the watchdog"))?;
        Ok(Self { lifeline: child.stdin.take(), child })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.lifeline = None;
        // It finds its journal gone, or undoes what is left, and ends; there is nothing to do about an error.
        let _ = self.child.wait();
    }
}

/// The child's side: waits until the controller is gone, then undoes what its journal still names.
pub fn watch(dir: &Path) -> io::Result<()> {
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: ignoring a signal runs no handler.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    // A session of its own, so that a signal to the terminal's process group does not reach it.
    nix::unistd::setsid()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    match journal::read(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(entry) => {
            let rollback = sweep::undo_entry(&entry);
            let failed = rollback.steps.iter().find_map(|step| step.error.clone());
            failed.map_or(Ok(()), |error| Err(io::Error::other(error)))
        }
    }
}
