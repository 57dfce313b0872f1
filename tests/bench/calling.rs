//! A process that makes system calls in a tight loop and says what one of them takes; with a supervisor by seccomp if
//! it shall have one.

use std::{
    fs, io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// Its verb.
pub const VERB: &str = "calling";
/// With a supervisor.
pub const SUPERVISED: &str = "supervised";
/// Without.
pub const ALONE: &str = "alone";

/// Each call has as many turns, of as long; the fastest counts, as a busy machine takes the processor away in some. They
/// are short, so that it does not in all.
const TURNS: usize = 60;
const TURN: Duration = Duration::from_millis(2);
/// Between two looks at the clock. As many descriptors are open at once.
const BATCH: u32 = 50;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Nothing is ever attached to it.
    GetParent,
    /// No hook of LSM sees it.
    GetPriority,
    /// Of /dev/null. Closing it again is not timed.
    Open,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GetParent, Self::GetPriority, Self::Open];

    /// As strace calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GetParent => "getppid",
            Self::GetPriority => "getpriority",
            Self::Open => "openat",
        }
    }

    /// By its number, as the C library makes others of some.
    fn make(self) -> io::Result<Option<OwnedFd>> {
        // SAFETY: the path ends with a zero; the others take no memory.
        let result = unsafe {
            match self {
                Self::GetParent => libc::syscall(libc::SYS_getppid),
                Self::GetPriority => libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0),
                Self::Open => {
                    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
                    libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), flags)
                }
            }
        };
        match self {
            _ if result < 0 => Err(io::Error::last_os_error()),
            // SAFETY: the call has just made it, and nobody else has it.
            Self::Open => Ok(Some(unsafe { OwnedFd::from_raw_fd(result as i32) })),
            Self::GetParent | Self::GetPriority => Ok(None),
        }
    }

    /// Nanoseconds per call, in one turn.
    fn turn(self) -> io::Result<f64> {
        let (mut spent, mut made) = (Duration::ZERO, 0);
        while spent < TURN {
            let mut opened = Vec::with_capacity(BATCH as usize);
            let begin = Instant::now();
            for _ in 0..BATCH {
                opened.push(self.make()?);
            }
            spent += begin.elapsed();
            made += BATCH;
        }
        Ok(spent.as_nanos() as f64 / f64::from(made))
    }
}

/// Enters a cgroup and prints nanoseconds per call, for each of [`Call::ALL`].
pub fn main(arguments: &[String]) -> anyhow::Result<()> {
    let [cgroup, how] = arguments else { bail!("{arguments:?}") };
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0").context("entering a cgroup")?;
    if how == SUPERVISED {
        supervise().context("seccomp")?;
    }
    let mut fastest = [f64::INFINITY; Call::ALL.len()];
    for _ in 0..TURNS {
        for (call, fastest) in Call::ALL.into_iter().zip(&mut fastest) {
            *fastest = fastest.min(call.turn()?);
        }
    }
    println!("{}", fastest.map(|ns| ns.to_string()).join(" "));
    Ok(())
}

/// What it has printed.
pub fn read(output: &[u8]) -> anyhow::Result<[f64; Call::ALL.len()]> {
    let text = std::str::from_utf8(output)?;
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
    let numbers = numbers.with_context(|| text.to_owned())?;
    numbers.try_into().map_err(|_| anyhow::anyhow!("it said `{text}`"))
}

/// From now on each `getpriority` and `openat` of this thread waits until another has said that it may go on.
fn supervise() -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel();
    // Before there is a filter, which a new thread would inherit.
    thread::spawn(move || receiver.recv().map(answer));
    let number = |call| libc::sock_filter { code: EQUAL, jt: 1, jf: 0, k: call as u32 };
    let ret = |k| libc::sock_filter { code: RETURN, jt: 0, jf: 0, k };
    let mut filter = [
        libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { jt: 2, ..number(libc::SYS_getpriority) },
        number(libc::SYS_openat),
        ret(libc::SECCOMP_RET_ALLOW),
        ret(libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program outlives the call.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    ensure!(listener >= 0, io::Error::last_os_error());
    // SAFETY: the call has just made it, and nobody else has it.
    sender.send(unsafe { OwnedFd::from_raw_fd(listener as i32) })?;
    Ok(())
}

/// BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K and BPF_RET | BPF_K (include/uapi/linux/filter.h). The number of
/// the call comes first in what they look at.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Has each call go on, until the process ends.
fn answer(listener: OwnedFd) {
    // SAFETY: all zeros is a value of both, and the kernel writes into the one and reads the other.
    unsafe {
        loop {
            let mut asked: libc::seccomp_notif = mem::zeroed();
            if libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) != 0 {
                // Who asked is gone.
                continue;
            }
            let mut answer: libc::seccomp_notif_resp = mem::zeroed();
            answer.id = asked.id;
            answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
            libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
        }
    }
}
