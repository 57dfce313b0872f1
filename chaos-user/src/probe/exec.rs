//! A program that is run again and again, in a process group of its own: whatever it started ends with it.

use std::{io, net::IpAddr, process::Stdio};

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, Command},
    signal::unix::{SignalKind, signal},
    time::{Duration, timeout},
};

use super::plain;
use crate::experiment::probe::{self, PLACEHOLDER};

/// How much of what it says last is kept.
const MAX_SAID_BYTES: usize = 4096;
/// How long its last words are waited for, once it has ended.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Where programs find whom to ask, if not in their arguments.
const VARIABLE: &str = "KCHAOS_TARGET";

/// A program, ready to ask one target.
#[derive(Debug)]
pub(super) struct Program {
    program: String,
    arguments: Vec<String>,
    address: String,
}

impl Program {
    pub(super) fn new(command: &probe::Command, address: IpAddr) -> Self {
        let address = address.to_string();
        let arguments = command.arguments.iter().map(|word| word.replace(PLACEHOLDER, &address)).collect();
        Self { program: command.program.clone(), arguments, address }
    }

    /// Runs it to its end. If this is dropped before, the program and its children are killed.
    pub(super) async fn run(&self) -> Result<(), String> {
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env(VARIABLE, &self.address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("{}: program not found", self.program),
                _ => format!("{}: {}", self.program, plain(&error)),
            })?;
        let (status, said) = Group::of(child).end().await.map_err(|error| plain(&error))?;
        if status.success() {
            return Ok(());
        }
        // `exit status: 1` and `signal: 9 (SIGKILL)`.
        let ended = status.to_string();
        Err(last_line(&said).map_or_else(|| ended.clone(), |line| format!("{ended}: {line}")))
    }
}

/// A child that leads a process group, and has not been waited for: until then its number is nobody else's.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    fn of(child: Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { child, leader }
    }

    /// Waits until the leader has ended, kills what it left running, and says what it said.
    async fn end(mut self) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
        let mut said = Vec::new();
        let mut stderr = self.child.stderr.take();
        // Before the first look, so that no end is missed in between.
        let mut ends = signal(SignalKind::child())?;
        while !self.leader_has_ended()? {
            tokio::select! {
                _ = ends.recv() => {}
                more = hear(&mut stderr, &mut said), if stderr.is_some() => {
                    if !more { stderr = None; }
                }
            }
        }
        self.kill();
        let last_words = async { while hear(&mut stderr, &mut said).await {} };
        // Who left the group may keep it open.
        let _ = timeout(LAST_WORDS, last_words).await;
        let status = self.child.wait().await?;
        self.leader = None;
        Ok((status, said))
    }

    /// Looks without reaping it.
    fn leader_has_ended(&self) -> io::Result<bool> {
        let Some(leader) = self.leader else { return Ok(true) };
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(waitid(Id::Pid(leader), look)? != WaitStatus::StillAlive)
    }

    fn kill(&self) {
        if let Some(leader) = self.leader {
            // Nobody may be left in it.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    /// The runtime reaps the child afterwards.
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads on, and keeps the end. Says whether there may be more.
async fn hear(stderr: &mut Option<ChildStderr>, said: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 1024];
    let Some(stderr) = stderr else { return false };
    match stderr.read(&mut bytes).await {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            said.extend_from_slice(&bytes[..count]);
            said.drain(..said.len().saturating_sub(MAX_SAID_BYTES));
            true
        }
    }
}

fn last_line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    said.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}
