//! Runs a guest in QEMU and watches over it.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::console;

/// How often the kernel's console is read.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A kernel in trouble may tell more before it stops.
const LAST_WORDS: Duration = Duration::from_secs(8);
/// The kernel says nothing while it starts, and then only what is wrong. `lsm=bpf` lets BPF programs be
/// security modules, and an oops ends the guest rather than leave it limping. Mitigations cost most in
/// emulation and protect nobody there.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet printk.time=1 panic=-1 oops=panic lsm=bpf mitigations=off audit=0";

/// How the guest's processors are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// Emulated: slow, and works everywhere.
    Tcg,
    /// The machine's own, where /dev/kvm works.
    Kvm,
}

/// A guest to run.
pub(super) struct Machine<'a> {
    /// The compressed kernel.
    pub(super) image: &'a Path,
    /// Its first files.
    pub(super) initramfs: &'a Path,
    /// Where its console is kept.
    pub(super) console: &'a Path,
    /// How its processors are made.
    pub(super) accel: Accel,
    /// How long it may take.
    pub(super) limit: Duration,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// QEMU ended with success: the guest switched itself off, or restarted.
    Off,
    /// QEMU failed.
    Failed(ExitStatus),
    /// The kernel reported trouble.
    Trouble(String),
    /// It took too long.
    TimedOut(Duration),
}

impl Machine<'_> {
    fn command(&self) -> Command {
        // If we are killed, so is the guest.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(match self.accel {
            // One thread for both processors: with two (QEMU 7.2), a kernel that was patching its own code, as
            // every attachment of BPF makes it do, was seen to run into a stale int3 and oops.
            Accel::Tcg => ["-accel", "tcg,thread=single", "-cpu", "max"],
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
        });
        command.args(["-smp", "2", "-m", "2048", "-display", "none", "-monitor", "none", "-nic", "none"]);
        command.args(["-no-reboot", "-nodefaults"]);
        let share = "local,path=/,mount_tag=host,security_model=none,multidevs=remap,readonly=on";
        command.args(["-virtfs", share]);
        // The kernel's console and the tests' output do not mix.
        command.arg("-serial").arg(format!("file:{}", self.console.display())).args(["-serial", "stdio"]);
        command.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        command.args(["-append", COMMAND_LINE]);
        command
    }

    /// Runs it to its end; `said` gets every line of its second serial port.
    pub(super) fn run(&self, mut said: impl FnMut(&str) -> Result<()>) -> Result<End> {
        let started = Instant::now();
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting qemu-system-x86_64 (package qemu-system-x86)")?;
        let lines = lines_of(child.stdout.take().context("its output was piped")?);
        let end = self.watch(&mut child, &lines, started, &mut said);
        if matches!(child.try_wait(), Ok(None)) {
            child.kill()?;
            child.wait()?;
        }
        // What was printed before the end, and was not read yet.
        lines.try_iter().try_for_each(|line| said(&line))?;
        end
    }

    fn watch(
        &self,
        child: &mut Child,
        lines: &Receiver<String>,
        started: Instant,
        said: &mut impl FnMut(&str) -> Result<()>,
    ) -> Result<End> {
        let mut kernel = Console::new(self.console);
        let mut trouble: Option<(Instant, String)> = None;
        loop {
            match lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => said(&line)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY / 10),
            }
            let ended = child.try_wait()?;
            if kernel.due() || ended.is_some() {
                let found = kernel.trouble();
                trouble = trouble.or_else(|| found.map(|what| (Instant::now(), what)));
            }
            match (ended, &trouble) {
                (Some(_), Some((_, what))) => return Ok(End::Trouble(what.clone())),
                (Some(status), None) if status.success() => return Ok(End::Off),
                (Some(status), None) => return Ok(End::Failed(status)),
                (None, Some((since, what))) if since.elapsed() > LAST_WORDS => {
                    return Ok(End::Trouble(what.clone()));
                }
                _ => {}
            }
            if started.elapsed() > self.limit {
                return Ok(End::TimedOut(self.limit));
            }
        }
    }
}

/// Reads lines in a thread of its own, which ends with QEMU.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The kernel's console, read now and then.
struct Console {
    path: PathBuf,
    looked: Instant,
}

impl Console {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), looked: Instant::now() }
    }

    fn due(&self) -> bool {
        self.looked.elapsed() >= LOOK_EVERY
    }

    /// It is short, as the kernel is told to be quiet, so it is read as a whole.
    fn trouble(&mut self) -> Option<String> {
        self.looked = Instant::now();
        console::trouble(&console::read(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::line;

    fn machine(accel: Accel) -> Machine<'static> {
        let limit = Duration::from_secs(1);
        let [image, initramfs, console] = ["/k", "/i", "/c"].map(Path::new);
        Machine { image, initramfs, console, accel, limit }
    }

    #[test]
    fn the_host_is_shared_read_only() {
        let command = line(&machine(Accel::Tcg).command());
        assert!(command.contains("path=/,") && command.contains("readonly=on"), "{command}");
        assert!(command.contains("tcg,thread=single"), "{command}");
        assert!(line(&machine(Accel::Kvm).command()).contains("-accel kvm -cpu host"));
    }
}
