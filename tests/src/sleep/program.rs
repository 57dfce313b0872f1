//! What the tests of sleep have other processes do.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    process::ExitCode,
    sync::Barrier,
    thread,
};

use anyhow::{Context, bail};
use kchaos::kernel::{RawPlace, probe::Delayed};

/// The verb of a process that makes calls.
pub const VICTIM_VERB: &str = "sleep-victim";
/// The verb of a process that delays them.
pub const CONTROLLER_VERB: &str = "sleep-controller";

/// The entry point of [`Call::GetPriority`].
pub const SYSCALL: &str =
    if cfg!(target_arch = "aarch64") { "__arm64_sys_getpriority" } else { "__x64_sys_getpriority" };

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// open(2).
    Open,
    /// getpriority(2), which no hook of LSM sees.
    GetPriority,
}

impl Call {
    /// On the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::GetPriority => "getpriority",
        }
    }

    fn read(name: &str) -> anyhow::Result<Self> {
        let call = [Self::Open, Self::GetPriority].into_iter().find(|call| call.name() == name);
        call.with_context(|| format!("no call {name}"))
    }

    fn make(self) -> io::Result<()> {
        // SAFETY: the path ends with a zero; the other call takes no memory.
        let result = unsafe {
            match self {
                Self::Open => libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC).into(),
                Self::GetPriority => libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0),
            }
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// How long a call took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// On the clock.
    pub elapsed_ns: u64,
    /// Of a processor.
    pub used_ns: u64,
}

impl Took {
    fn of(call: Call) -> io::Result<Self> {
        let (begin_ns, begin_used_ns) =
            (now_ns(libc::CLOCK_MONOTONIC), now_ns(libc::CLOCK_THREAD_CPUTIME_ID));
        call.make()?;
        Ok(Self {
            elapsed_ns: now_ns(libc::CLOCK_MONOTONIC) - begin_ns,
            used_ns: now_ns(libc::CLOCK_THREAD_CPUTIME_ID) - begin_used_ns,
        })
    }

    /// As the victim prints it.
    pub fn read(line: &str) -> anyhow::Result<Self> {
        let (elapsed, used) = line.split_once(' ').with_context(|| format!("the victim said `{line}`"))?;
        Ok(Self { elapsed_ns: elapsed.parse()?, used_ns: used.parse()? })
    }
}

fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Enters a cgroup, makes calls and prints how long each took. SIGUSR1 is handled.
pub fn victim(arguments: &[String]) -> ExitCode {
    exit(make_calls(arguments))
}

fn make_calls(arguments: &[String]) -> anyhow::Result<()> {
    let [cgroup, call, threads, calls] = arguments else { bail!("{arguments:?}") };
    let (call, threads, calls) = (Call::read(call)?, threads.parse::<usize>()?, calls.parse::<u32>()?);
    let nothing: extern "C" fn(libc::c_int) = handle;
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGUSR1, nothing as libc::sighandler_t) };
    let (all_there, entered) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    let took = thread::scope(|scope| {
        let make = || {
            // A thread that allocates for the first time may open a file to count the processors.
            let mut took = Vec::with_capacity(calls as usize);
            all_there.wait();
            entered.wait();
            for _ in 0..calls {
                took.push(Took::of(call)?);
            }
            Ok::<_, io::Error>(took)
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(make)).collect();
        all_there.wait();
        let written = fs::write(Path::new(cgroup).join("cgroup.procs"), "0");
        entered.wait();
        written?;
        let mut took = Vec::new();
        for thread in running {
            took.extend(thread.join().map_err(|_| io::Error::other("a thread panicked"))??);
        }
        Ok::<_, io::Error>(took)
    })?;
    took.iter().for_each(|took| println!("{} {}", took.elapsed_ns, took.used_ns));
    Ok(())
}

extern "C" fn handle(_signal: libc::c_int) {}

/// Delays whoever opens a file in the cgroup with this id, until its standard input ends.
pub fn controller(arguments: &[String]) -> ExitCode {
    exit(control(arguments))
}

fn control(arguments: &[String]) -> anyhow::Result<()> {
    let [cgroup, delay_ns] = arguments else { bail!("{arguments:?}") };
    let place = RawPlace::Lsm("file_open");
    let delayed = Delayed::at(place, cgroup.parse()?, delay_ns.parse()?, super::CAPS)?;
    let [daemon, inert, keeper] = delayed.processes();
    println!("{daemon} {inert} {keeper}");
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(delayed);
    Ok(())
}

fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
