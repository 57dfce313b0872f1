//! System calls as acts: what each needs, how it is made, and what shows that it had an effect.

use std::{
    fs, io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
};

use kchaos::fault::syscall::Syscall;

use super::stage::{CONTENT, MAPPED_BYTES, READY, Stage};

/// One way to make a call.
pub struct Act {
    /// What it is called: the call, and what is special about it.
    pub label: &'static str,
    /// An error that the call may give.
    pub error: &'static str,
    /// Makes ready what it needs.
    pub prepare: fn(&mut Stage) -> io::Result<()>,
    /// Makes it.
    pub make: Make,
    /// What shows that it had an effect.
    pub effect: Effect,
    /// Whether the effect comes before a security hook is asked: O_CREAT makes the file, then it is opened
    /// (do_open, fs/namei.c, 6.12).
    pub comes_first: bool,
}

/// How a call is made.
#[derive(Clone, Copy)]
pub enum Make {
    /// With these arguments.
    Call(fn(&Stage, usize) -> [i64; 6]),
    /// By itself.
    Own(fn(&Stage, usize) -> i64),
}

/// What shows that a call had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but what it returned.
    Answers,
    /// It has written what it was asked for.
    Fills,
    /// There is a new entry.
    Makes,
    /// An entry is gone.
    Removes,
    /// A file is not as it was.
    Changes,
    /// A file's mode is another.
    Mode,
    /// A file's owner is another.
    Owner,
    /// The process has so many more descriptors.
    Opens(usize),
    /// It has one less.
    Closes,
    /// It has more memory mapped.
    Maps,
    /// Its memory cannot be written to.
    Protects,
    /// A file is locked.
    Locks,
    /// The other end has something to read.
    Sends,
    /// The other end hears that there is no more.
    Ends,
    /// A socket has a peer.
    Connects,
    /// A socket listens.
    Listens,
    /// An option is set.
    Sets,
    /// Its limit is another.
    Limits,
}

impl Act {
    /// The act of this name.
    pub fn named(label: &str) -> Option<&'static Self> {
        super::table::ACTS.iter().chain(super::own::ACTS).find(|act| act.label == label)
    }

    /// The call that it makes.
    pub fn call(&self) -> Option<Syscall> {
        Syscall::named(self.label.split(' ').next().unwrap_or_default())
    }

    /// Whether it comes back twice.
    pub fn forks(&self) -> bool {
        self.label == "clone"
    }

    /// Removes what would outlive its process.
    pub fn clean(&self, results: &[i64]) {
        for id in results.iter().filter(|id| **id >= 0).map(|id| *id as i32) {
            // SAFETY: they take no memory. Each removes what the act has just made.
            unsafe {
                match self.label {
                    "shmget" => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
                    "msgget" => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
                    "semget" => libc::semctl(id, 0, libc::IPC_RMID),
                    _ => return,
                };
            }
        }
    }

    /// Whether it does not come back when it works.
    pub fn is_program(&self) -> bool {
        self.label == "execve"
    }
}

impl Effect {
    /// How many of the calls had it. The child is alive, and waits.
    pub fn count(self, stage: &Stage, child: i32) -> usize {
        match self {
            Self::Answers => stage.results().iter().filter(|result| **result >= 0).count(),
            Self::Fills => stage.filled(),
            Self::Makes => stage.names(true).filter(|path| path.symlink_metadata().is_ok()).count(),
            Self::Removes => stage.names(false).filter(|path| path.symlink_metadata().is_err()).count(),
            Self::Changes => {
                let differs = |path: &_| fs::read(path).is_ok_and(|content| content != CONTENT);
                stage.names(false).filter(differs).count()
            }
            Self::Mode => of_files(stage, |file| file.mode() & 0o777 == 0o640),
            Self::Owner => of_files(stage, |file| file.uid() == 1),
            Self::Opens(each) => descriptors(child).saturating_sub(descriptors(own())) / each,
            Self::Closes => descriptors(own()).saturating_sub(descriptors(child)),
            Self::Maps => mapped_bytes(child).saturating_sub(mapped_bytes(own())) / MAPPED_BYTES,
            Self::Protects => {
                let maps = fs::read_to_string(format!("/proc/{child}/maps")).unwrap_or_default();
                let is_there = |at: &&usize| {
                    let begins = format!("{at:x}-");
                    maps.lines().any(|line| line.starts_with(&begins) && line.contains(" r--p "))
                };
                stage.memory.iter().filter(is_there).count()
            }
            Self::Locks => stage.names(false).filter(|path| is_locked(path)).count(),
            Self::Sends => stage.ends.iter().filter(|end| peek(end.as_raw_fd()) > 0).count(),
            Self::Ends => stage.ends.iter().filter(|end| peek(end.as_raw_fd()) == 0).count(),
            Self::Connects => stage.fds.iter().filter(|fd| has_peer(fd.as_raw_fd())).count(),
            Self::Listens => of_option(stage, libc::SO_ACCEPTCONN),
            Self::Sets => of_option(stage, libc::SO_PASSCRED),
            Self::Limits => {
                let limits = fs::read_to_string(format!("/proc/{child}/limits")).unwrap_or_default();
                let core = limits.lines().find(|line| line.starts_with("Max core file size"));
                let is_set = core.is_some_and(|line| line.split_whitespace().nth(4) == Some("7"));
                if is_set { READY } else { 0 }
            }
        }
    }
}

fn own() -> i32 {
    std::process::id() as i32
}

fn of_files(stage: &Stage, is_so: fn(&fs::Metadata) -> bool) -> usize {
    stage.names(false).filter(|path| path.symlink_metadata().is_ok_and(|file| is_so(&file))).count()
}

/// Those of somebody who has as many as we, but for the one by which we look at our own.
fn descriptors(process: i32) -> usize {
    let entries = fs::read_dir(format!("/proc/{process}/fd"));
    entries.map_or(0, Iterator::count) - usize::from(process == own())
}

fn mapped_bytes(process: i32) -> usize {
    let pages = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    pages.split_whitespace().next().and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn is_locked(path: &std::path::Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    // SAFETY: a descriptor of ours.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) != 0 }
}

fn peek(fd: i32) -> isize {
    let mut byte = 0_u8;
    // SAFETY: the buffer has one byte.
    unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) }
}

fn has_peer(fd: i32) -> bool {
    nix::sys::socket::getpeername::<nix::sys::socket::UnixAddr>(fd).is_ok()
}

fn of_option(stage: &Stage, option: i32) -> usize {
    let is_set = |fd: i32| {
        let (mut value, mut length) = (0_i32, 4_u32);
        // SAFETY: the buffer has four bytes.
        let result =
            unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut value).cast(), &mut length) };
        result == 0 && value != 0
    };
    stage.fds.iter().filter(|fd| is_set(fd.as_raw_fd())).count()
}
