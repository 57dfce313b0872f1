//! The process that has the others do their work, and ends it when it must: when the controller has died, however it
//! died, when one of the others has, or when the daemon does not work any more. Ending it wakes every sleeper.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use chaos_common::sleep::SLOTS;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigHandler, Signal, kill, signal},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, SysconfVar, fork, getpid, getppid, pipe2, setsid},
};

use super::{
    daemon::{Daemon, Slots},
    inert::{self, Mapped},
    mount,
};

/// How often the daemon says that it is well.
pub const HEARTBEAT_NS: u64 = 250_000_000;
/// How long it may say nothing before all are woken.
const HEARTBEATS_MISSED: Duration = Duration::from_millis(1_750);
/// How long starting may take before it is given up.
const START_SECONDS: u32 = 10;

/// What it tells the controller when all is ready; on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The inert process.
    pub inert: i32,
    /// The daemon.
    pub daemon: i32,
    /// Where the inert process has mapped the file.
    pub base: u64,
    /// Length of a page.
    pub page_bytes: u64,
}

impl Ready {
    fn line(&self) -> String {
        let Self { inert, daemon, base, page_bytes } = self;
        format!("{inert} {daemon} {base} {page_bytes}\n")
    }

    /// Reads it; what is none is what it has failed of.
    pub fn read(line: &str) -> Result<Self, String> {
        let numbers: Option<Vec<u64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
        match numbers.as_deref() {
            Some([inert, daemon, base, page_bytes]) => Ok(Self {
                inert: *inert as i32,
                daemon: *daemon as i32,
                base: *base,
                page_bytes: *page_bytes,
            }),
            _ if line.trim().is_empty() => Err("it ended without a word".into()),
            _ => Err(line.trim().to_owned()),
        }
    }
}

/// The child's side: `map` is the id of the map of what sleepers ask for. It may be called only while the process has
/// one thread.
pub fn keep(map: u32) -> io::Result<()> {
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE] {
        // SAFETY: ignoring a signal runs no handler.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    // A session of its own, so that a signal to the terminal's process group does not reach it.
    setsid()?;
    // Whatever may keep it from starting does not keep the controller.
    alarm(START_SECONDS);
    let mut kept = Kept::start(map).inspect_err(|error| println!("{error}"))?;
    io::stdout().write_all(kept.ready.line().as_bytes())?;
    alarm(0);
    let watched = kept.watch();
    let ended = kept.end();
    watched.and(ended)
}

/// Ends us then, if it is not 0.
fn alarm(seconds: u32) {
    // SAFETY: the call takes no memory.
    unsafe { libc::alarm(seconds) };
}

/// What it has started.
struct Kept {
    ready: Ready,
    /// Ends the filesystem's connection.
    abort: File,
    heartbeat: File,
    /// Closed when the inert process has ended.
    inert: File,
}

impl Kept {
    fn start(map: u32) -> io::Result<Self> {
        let map = MapData::from_id(map).map_err(io::Error::other)?;
        let slots = Slots::new(&map.fd().as_fd())?;
        let page_bytes = page_bytes()?;
        let (fuse, root) = mount::mount()?;
        let (heartbeat, beats) = pipe(OFlag::O_NONBLOCK)?;
        // What a body is given is closed here once its process is there: the daemon alone has the connection, which
        // ends with it.
        let daemon = start(move || Daemon { fuse, slots, page_bytes, heartbeat: beats }.run())?;
        let (mut report, told) = pipe(OFlag::empty())?;
        let length = SLOTS as usize * page_bytes as usize;
        let inert = start(move || inert::stay(root, length, told))?;
        let mut mapped = [0; Mapped::BYTES];
        report.read_exact(&mut mapped).map_err(|_| io::Error::other("the file could not be mapped"))?;
        let Mapped { base, device } = Mapped::from_bytes(mapped);
        let abort = mount::abort_switch(device)?;
        let ready = Ready { inert: inert.as_raw(), daemon: daemon.as_raw(), base, page_bytes };
        Ok(Self { ready, abort, heartbeat, inert: report })
    }

    /// Returns when the controller has ended; the error says why it had to end before.
    fn watch(&mut self) -> io::Result<()> {
        let mut deadline = Instant::now() + HEARTBEATS_MISSED;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let stdin = io::stdin();
            let mut descriptors = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.heartbeat.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.inert.as_fd(), PollFlags::POLLIN),
            ];
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut descriptors, timeout) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let [controller, daemon, inert] =
                descriptors.map(|descriptor| descriptor.any().unwrap_or_default());
            if controller {
                return Ok(());
            }
            if inert {
                return Err(io::Error::other("the process that sleepers read has ended"));
            }
            if daemon {
                if self.heartbeat.read(&mut [0; 64])? == 0 {
                    return Err(io::Error::other("the process that wakes sleepers has ended"));
                }
                deadline = Instant::now() + HEARTBEATS_MISSED;
            } else if deadline <= Instant::now() {
                return Err(io::Error::other("the process that wakes sleepers did not answer"));
            }
        }
    }

    /// Wakes everybody, then ends the others.
    fn end(mut self) -> io::Result<()> {
        let aborted = match self.abort.write(b"1") {
            // The connection has ended already, with its daemon.
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(()),
            result => result.map(drop),
        };
        let ended = [self.ready.daemon, self.ready.inert].map(|pid| {
            let pid = Pid::from_raw(pid);
            // It may have ended; as our child it is still there to be waited for.
            kill(pid, Signal::SIGKILL).and_then(|()| waitpid(pid, None))
        });
        ended.into_iter().fold(aborted, |result, ended| result.and(ended.map(drop).map_err(Into::into)))
    }
}

/// Starts a process that ends with us, whatever we end of. What `body` owns is its alone.
fn start(body: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    let parent = getpid();
    // SAFETY: we have one thread.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => return Ok(child),
        ForkResult::Child => prctl::set_pdeathsig(Signal::SIGKILL),
    };
    let result = match child {
        // We may have ended before it could say so.
        Ok(()) if getppid() != parent => Ok(()),
        Ok(()) => body(),
        Err(errno) => Err(errno.into()),
    };
    if let Err(error) = &result {
        eprintln!("kchaos: a process for sleepers: {error}");
    }
    // SAFETY: nothing of ours is to be tidied up.
    unsafe { libc::_exit(result.is_err().into()) }
}

fn pipe(how: OFlag) -> io::Result<(File, File)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | how)?;
    Ok((read.into(), write.into()))
}

fn page_bytes() -> io::Result<u64> {
    let bytes = nix::unistd::sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or_default();
    u64::try_from(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let ready = Ready { inert: 12, daemon: 13, base: 0x7fff_0000_0000, page_bytes: 4096 };
        assert_eq!(Ready::read(&ready.line()), Ok(ready));
        assert_eq!(Ready::read("/dev/fuse: not there\n"), Err("/dev/fuse: not there".into()));
        assert!(Ready::read("").is_err_and(|why| why.contains("without a word")));
    }
}
