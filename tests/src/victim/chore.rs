//! A program that makes so many calls of a kind and no others, so that they can be counted. What it hears and says goes
//! through pipes, which are no files.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::program::stay_on_one_cpu;
use crate::lab::Cgroup;

/// The word under which this program does chores.
pub const VERB: &str = "chores";

/// How long a call sleeps that waits.
const NAP: Duration = Duration::from_millis(20);

/// `chores FOLDER`: does what each line asks for, and says how many nanoseconds that took, until there are no more.
pub fn main(arguments: &[String]) -> ExitCode {
    stay_on_one_cpu();
    let done = match arguments {
        [folder] => Place::new(Path::new(folder)).and_then(|mut place| place.obey()),
        _ => Err(anyhow::anyhow!("expected FOLDER")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// What chores are done on.
struct Place {
    name: CString,
    fifo: CString,
    file: File,
    sockets: [OwnedFd; 2],
    pid: i32,
    hoard: Vec<u8>,
}

impl Place {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        // SAFETY: the function does nothing.
        let before = unsafe {
            libc::signal(libc::SIGUSR1, ignore as extern "C" fn(libc::c_int) as libc::sighandler_t)
        };
        ensure!(before != libc::SIG_ERR, io::Error::last_os_error());
        let path = folder.join(std::process::id().to_string());
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        let mut sockets = [0; 2];
        // SAFETY: the array has room for two descriptors, which are ours then.
        let sockets = unsafe {
            let made = libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, sockets.as_mut_ptr());
            ensure!(made == 0, io::Error::last_os_error());
            sockets.map(|socket| OwnedFd::from_raw_fd(socket))
        };
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes());
        Ok(Self {
            name: name(&path)?,
            fifo: name(&folder.join("fifo"))?,
            file,
            sockets,
            pid: std::process::id() as i32,
            hoard: Vec::new(),
        })
    }

    /// Lines and answers are as short as their buffers, which are there from the first on.
    fn obey(&mut self) -> anyhow::Result<()> {
        let (mut line, mut lines) = (String::with_capacity(256), io::stdin().lock());
        let mut answers = io::stdout().lock();
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut words = line.split_whitespace();
            let (what, times) = (words.next().unwrap_or_default(), words.next().unwrap_or("0"));
            let (times, begin): (u64, _) = (times.parse()?, Instant::now());
            match what {
                "hoard" => self.hoard.resize(times as usize, 1),
                "spin" => while begin.elapsed() < Duration::from_millis(times) {},
                _ => (0..times).try_for_each(|_| self.call(what))?,
            }
            writeln!(answers, "{}", begin.elapsed().as_nanos())?;
        }
    }

    /// Makes one call itself, so that no library makes others.
    fn call(&self, what: &str) -> anyhow::Result<()> {
        let (file, [one, other]) = (self.file.as_raw_fd(), self.sockets.each_ref().map(AsRawFd::as_raw_fd));
        let mut byte = [0_u8; 1];
        let nap = libc::timespec { tv_sec: 0, tv_nsec: NAP.subsec_nanos().into() };
        let nowhere = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: what is pointed to outlives the call, and has the length that it is said to have.
        let returned = unsafe {
            match what {
                "pread64" => libc::syscall(libc::SYS_pread64, file, byte.as_mut_ptr(), 1, 0),
                "pwrite64" => libc::syscall(libc::SYS_pwrite64, file, byte.as_ptr(), 1, 0),
                "write" => libc::syscall(libc::SYS_write, file, byte.as_ptr(), 1),
                "fsync" => libc::syscall(libc::SYS_fsync, file),
                "faccessat" => libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, self.name.as_ptr(), 0),
                "sendto" => libc::syscall(libc::SYS_sendto, one, byte.as_ptr(), 1, 0, nowhere, 0),
                "recvfrom" => {
                    libc::syscall(libc::SYS_recvfrom, other, byte.as_mut_ptr(), 1, 0, nowhere, nowhere)
                }
                "write-socket" => libc::syscall(libc::SYS_write, one, byte.as_ptr(), 1),
                "read-socket" => libc::syscall(libc::SYS_read, other, byte.as_mut_ptr(), 1),
                "munmap" => libc::syscall(libc::SYS_munmap, nowhere, 4096),
                "kill" => libc::syscall(libc::SYS_kill, self.pid, 0),
                "signal" => libc::syscall(libc::SYS_kill, self.pid, libc::SIGUSR1),
                "terminate" => libc::syscall(libc::SYS_kill, self.pid, libc::SIGTERM),
                "getpriority" => libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0),
                "nanosleep" => libc::syscall(libc::SYS_nanosleep, &raw const nap, nowhere),
                "close" => libc::syscall(libc::SYS_close, -1),
                "look-nowhere" => libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, c"/nowhere".as_ptr(), 0),
                "open-fifo" => return self.open_fifo(),
                "read-device" => return read_device(),
                _ => bail!("no chore {what}"),
            }
        };
        let fails = ["close", "look-nowhere"].contains(&what);
        ensure!(fails == (returned < 0), "{what} returned {returned}: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Waits until somebody opens it to write.
    fn open_fifo(&self) -> anyhow::Result<()> {
        // SAFETY: the name ends with a zero, and the descriptor is ours then.
        unsafe {
            let fifo = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, self.fifo.as_ptr(), libc::O_RDONLY);
            ensure!(fifo >= 0, io::Error::last_os_error());
            drop(OwnedFd::from_raw_fd(fifo as i32));
        }
        Ok(())
    }
}

/// Reads a block from the device that tests have, and from no cache.
fn read_device() -> anyhow::Result<()> {
    const BLOCK_BYTES: usize = 4096;
    #[repr(align(4096))]
    struct Block([u8; BLOCK_BYTES]);
    let mut block = Block([0; BLOCK_BYTES]);
    let device = File::options().read(true).custom_flags(libc::O_DIRECT).open("/dev/nullb0")?;
    ensure!((&device).read(&mut block.0)? == BLOCK_BYTES, "a block is not as long as it is");
    Ok(())
}

/// One who does chores, ended when this goes.
pub struct Chores {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Chores {
    /// Starts one in a cgroup. It has heard and said something before, so that no buffer is missing.
    pub fn start(cgroup: &Cgroup, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(VERB).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting one who does chores")?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("its standard output")?);
        let mut chores = Self { child, requests, answers };
        chores.do_all(&[("getpriority", 1)])?;
        fs::write(cgroup.dir.join("cgroup.procs"), chores.child.id().to_string())?;
        Ok(chores)
    }

    /// Has it do these, each so many times; says how long each took.
    pub fn do_all(&mut self, chores: &[(&str, u64)]) -> anyhow::Result<Vec<Duration>> {
        chores.iter().map(|(what, times)| self.ask(what, *times).and_then(|()| self.answer())).collect()
    }

    /// Asks for one, and does not wait.
    pub fn ask(&mut self, what: &str, times: u64) -> anyhow::Result<()> {
        let requests = self.requests.as_mut().context("it is to end")?;
        Ok(writeln!(requests, "{what} {times}")?)
    }

    /// How long it has taken.
    pub fn answer(&mut self) -> anyhow::Result<Duration> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let ns = line.trim_end().parse().with_context(|| format!("an answer, not {line:?}"))?;
        Ok(Duration::from_nanos(ns))
    }

    /// Ends it as nothing else does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended.
    pub fn ended(mut self) -> anyhow::Result<()> {
        const WITHIN: Duration = Duration::from_secs(20);
        self.requests = None;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begin.elapsed() < WITHIN, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
