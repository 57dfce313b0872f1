//! Wakes sleepers: answers each reader of the file when its delay is over.
//!
//! **Signals.** Any signal makes the kernel tell us so, once (fs/fuse/dev.c, `request_wait_answer`, 6.18), and then it
//! waits for us even if the next one kills. So whoever has a signal is looked at: where one that kills is pending, it
//! is woken at once, and until then again and again. A signal that the target handles does not shorten its delay:
//! the handler runs when the delay is over, and a call that begins anew after it is delayed anew. Nor does one that
//! dumps core, which the kernel does not turn into a SIGKILL: the target ends when the delay is over.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    ptr, slice,
    sync::atomic::{Ordering, fence},
};

use chaos_common::sleep::{SLOTS, SleepRequest};
use nix::sys::prctl;

use super::{
    fuse::{REQUEST_BYTES, Reply, Request},
    keeper::HEARTBEAT_NS,
};
use crate::kernel::clock::monotonic_ns;

/// How often a sleeper that has got a signal is looked at.
const LOOK_NS: u64 = 5_000_000;

/// Who waits for us.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    unique: u64,
    tid: u32,
    due_ns: u64,
    /// When to look whether it is being killed; never, if it has got no signal.
    look_ns: u64,
}

/// What it works with.
pub struct Daemon {
    /// The kernel's requests.
    pub fuse: File,
    /// What sleepers ask for.
    pub slots: Slots,
    /// Length of a page.
    pub page_bytes: u64,
    /// Where we say that we are well.
    pub heartbeat: File,
}

impl Daemon {
    /// Works until the controller has died or the filesystem has ended. Its memory is locked, so that it does not wait
    /// for a disk, or for those whom it is to wake.
    pub fn run(mut self) -> io::Result<()> {
        lock_memory()?;
        // It is to wake when it says, not 50 µs later.
        prctl::set_timerslack(1)?;
        let mut waiting: Vec<Waiting> = Vec::with_capacity(SLOTS as usize);
        let mut beat_ns = 0;
        loop {
            let now_ns = monotonic_ns();
            self.wake(&mut waiting, now_ns)?;
            if beat_ns <= now_ns {
                self.beat()?;
                beat_ns = now_ns + HEARTBEAT_NS;
            }
            let next_ns = waiting.iter().map(|one| one.due_ns.min(one.look_ns)).fold(beat_ns, u64::min);
            if self.wait(next_ns.saturating_sub(monotonic_ns()))? == Woken::ByTheEnd {
                return Ok(());
            }
            while self.take(&mut waiting)? {}
        }
    }

    /// Answers those whose time has come, and those who are being killed.
    fn wake(&mut self, waiting: &mut Vec<Waiting>, now_ns: u64) -> io::Result<()> {
        let mut result = Ok(());
        waiting.retain_mut(|one| {
            let ends = one.due_ns <= now_ns || (one.look_ns <= now_ns && is_being_killed(one.tid));
            if !ends {
                one.look_ns = if one.look_ns <= now_ns { now_ns + LOOK_NS } else { one.look_ns };
            } else if let Err(error) = self.answer(&Reply::to_reader(one.unique)) {
                result = Err(error);
            }
            !ends
        });
        result
    }

    /// Takes one request; says whether there was one.
    fn take(&mut self, waiting: &mut Vec<Waiting>) -> io::Result<bool> {
        let mut bytes = [0; REQUEST_BYTES];
        let length = match self.fuse.read(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // Whoever asked has died before we could hear it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(true),
            Err(error) => return Err(error),
        };
        match Request::parse(&bytes[..length], u64::from(SLOTS) * self.page_bytes) {
            None => return Err(io::Error::other("the kernel speaks another FUSE")),
            Some(Request::Notice) => {}
            Some(Request::AtOnce(reply)) => self.answer(&reply)?,
            Some(Request::Interrupt { unique }) => {
                // Where it has been answered already, there is nobody to wake.
                waiting.iter_mut().filter(|one| one.unique == unique).for_each(|one| one.look_ns = 0);
                self.wake(waiting, monotonic_ns())?;
            }
            Some(Request::Read { unique, offset, tid }) => {
                let due_ns = self.slots.due_ns(offset / self.page_bytes, monotonic_ns());
                waiting.push(Waiting { unique, tid, due_ns, look_ns: u64::MAX });
            }
        }
        Ok(true)
    }

    /// One who has died meanwhile is not waiting any more.
    fn answer(&mut self, reply: &Reply) -> io::Result<()> {
        match self.fuse.write(reply.bytes()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Where nobody takes it, there is no room for it in the end.
    fn beat(&mut self) -> io::Result<()> {
        match self.heartbeat.write(b"!") {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result.map(drop),
        }
    }

    fn wait(&self, at_most_ns: u64) -> io::Result<Woken> {
        let descriptor = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut descriptors = [descriptor(self.fuse.as_raw_fd()), descriptor(libc::STDIN_FILENO)];
        let (seconds, rest) = (at_most_ns / 1_000_000_000, at_most_ns % 1_000_000_000);
        let timeout = libc::timespec { tv_sec: seconds as libc::time_t, tv_nsec: rest as libc::c_long };
        // SAFETY: there are two of them; the signal mask stays.
        let result = unsafe { libc::ppoll(descriptors.as_mut_ptr(), 2, &raw const timeout, ptr::null()) };
        if result < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(Woken::ByWork) } else { Err(error) };
        }
        // Nobody writes to our standard input: that something can be read from it means that it has been closed.
        Ok(if descriptors[1].revents != 0 { Woken::ByTheEnd } else { Woken::ByWork })
    }
}

fn lock_memory() -> io::Result<()> {
    // SAFETY: the call takes no memory.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    ByWork,
    ByTheEnd,
}

/// Whether a signal that kills is pending for a thread. Each fatal one without a core dump becomes a SIGKILL for every
/// thread (kernel/signal.c, `complete_signal`, 6.18). One that we cannot look at is let go.
fn is_being_killed(tid: u32) -> bool {
    fs::read_to_string(format!("/proc/{tid}/status")).map_or(true, |status| has_sigkill(&status))
}

fn has_sigkill(status: &str) -> bool {
    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
    let pending = |line: &str| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|mask| mask & SIGKILL != 0)
}

/// The map of what sleepers ask for, in our own memory.
#[derive(Debug)]
pub struct Slots(ptr::NonNull<SleepRequest>);

impl Slots {
    /// Of this map, which can be mapped.
    pub fn new(map: &impl AsRawFd) -> io::Result<Self> {
        let length = size_of::<SleepRequest>() * SLOTS as usize;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: a new mapping, which nobody else knows.
        let address = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, map.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = ptr::NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self(address))
    }

    /// When whoever reads this page is to be woken. Its slot does not change while it waits.
    fn due_ns(&self, page: u64, now_ns: u64) -> u64 {
        // SAFETY: it is mapped as long as we live, and that long.
        let slots = unsafe { slice::from_raw_parts(self.0.as_ptr(), SLOTS as usize) };
        fence(Ordering::Acquire);
        // SAFETY: a reference is valid for reads.
        let read = |request: &SleepRequest| unsafe { ptr::read_volatile(request) };
        slots.get(page as usize).map_or(now_ns, |request| read(request).due_ns(now_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_who_is_being_killed() {
        let status = |thread: &str, process: &str| {
            format!(
                "Name:\tx\nSigQ:\t0/1\nSigPnd:\t{thread}\nShdPnd:\t{process}\nSigBlk:\t0000000000000100\n"
            )
        };
        let none = "0000000000000000";
        assert!(!has_sigkill(&status(none, none)));
        assert!(has_sigkill(&status("0000000000000100", none)));
        assert!(has_sigkill(&status(none, "0000000000004100")));
        // SIGALRM alone.
        assert!(!has_sigkill(&status("0000000000002000", none)));
    }

    #[test]
    fn whoever_cannot_be_looked_at_is_let_go() {
        assert!(is_being_killed(0));
        assert!(!is_being_killed(std::process::id()));
    }
}
