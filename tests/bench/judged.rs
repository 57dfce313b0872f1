//! Running kchaos beside this program, as a user does.

use std::{
    env,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use kchaos::target::Netns;
use nix::{sys::signal::Signal, unistd::Pid};

/// `KCHAOS_BIN`, or what was built beside this program.
pub fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("KCHAOS_BIN") {
        return Ok(path.into());
    }
    let beside = env::current_exe()?.with_file_name("kchaos");
    ensure!(beside.is_file(), "no kchaos beside {}; cargo xtask bench builds it", beside.display());
    Ok(beside)
}

/// Runs it to its end in a network namespace; returns its exit code and what it said.
pub fn run(netns: &Netns, words: &[&str], within: Duration) -> anyhow::Result<(Option<i32>, String)> {
    let said = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(program()?);
    command.args(words).stdin(Stdio::null()).stdout(said.reopen()?).stderr(said.reopen()?);
    let mut child = Running(netns.run(|| command.spawn())?.context("starting kchaos")?);
    let deadline = Instant::now() + within;
    let code = loop {
        if let Some(status) = child.0.try_wait()? {
            break status.code();
        }
        ensure!(Instant::now() < deadline, "kchaos {} does not end", words.join(" "));
        thread::sleep(Duration::from_millis(50));
    };
    Ok((code, std::fs::read_to_string(said.path())?))
}

/// A kchaos that goes on until this goes; it is told to end, and waited for.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // All of them fail only if it has ended already.
        let _ = nix::sys::signal::kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
