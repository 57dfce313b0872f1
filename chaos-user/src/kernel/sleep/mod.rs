//! A real sleep for whoever makes a call, off the processor, which no helper of BPF offers up to Linux 7.3.
//!
//! A sleepable program reads a page of another process (`bpf_copy_from_user_task`). The page belongs to a file of our
//! own FUSE filesystem, so the kernel has the caller wait for our answer, which comes when the delay is over and is an
//! error: nothing is ever cached, nothing is ever written.
//!
//! | process | what it does |
//! |---|---|
//! | controller | starts the keeper, holds the links |
//! | [`keeper`] | ends the others when the controller has ended, or the daemon or its heartbeat has |
//! | [`daemon`] | answers when a delay is over, or at once where the sleeper is being killed |
//! | [`inert`] | has the file mapped |
//!
//! The daemon alone has the filesystem's connection: with it, the connection ends and everybody is awake. It and the
//! inert process end with the keeper, and the keeper with the controller, whatever they end of. A stopped daemon is
//! noticed by the keeper. If keeper and daemon are both stopped, nobody wakes anybody until one goes on (from Linux 6.17
//! on the kernel may do it by itself, `fs.fuse.max_request_timeout`).
//!
//! Programs for LSM are the ones for this. A TRACING program (fmod_ret, fentry) is skipped on a processor where it
//! sleeps already, which is no outcome that it could count (kernel/bpf/trampoline.c, `__bpf_prog_enter_sleepable_recur`,
//! 6.18): many threads on few processors get few of their delays.
//!
//! While one sleeps, it cannot be frozen, and others wait who end a perf event, a uprobe or a classic tracepoint with
//! BPF, move the task to another processor or take the processor away (it holds `rcu_tasks_trace` and
//! `migrate_disable`): hence the caps in chaos-common/src/sleep.rs.

mod daemon;
mod delays;
mod fuse;
mod inert;
mod keeper;
mod mount;

use std::{
    fs, io,
    io::{BufRead, BufReader},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
    process::{self, Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, Map, PerCpuArray},
};
use chaos_common::{
    names::map,
    sleep::{AT_ONCE, LONGEST_NS, SleepConfig, SleepState, SleepStats},
};
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::resource::{Resource, getrlimit},
};

use super::{KernelError, object, wire::Wire};
pub use delays::Delays;
use keeper::Ready;
pub use keeper::keep;

/// The verb under which the program starts itself.
pub const SLEEP_VERB: &str = "sleep-keeper";

/// What is said of errors.
const WHAT: &str = "the processes that delay calls";

/// How much may be slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Longer delays are refused.
    pub longest_ns: u64,
    /// More at once are refused.
    pub at_once: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self { longest_ns: LONGEST_NS, at_once: AT_ONCE }
    }
}

/// The processes without which nobody sleeps. It should end before links that delay, which take long to end.
#[must_use = "dropping it wakes everybody"]
#[derive(Debug)]
pub struct SleepService {
    keeper: Child,
    /// Closed by the kernel when we die, whatever we die of.
    lifeline: Option<OwnedFd>,
    ready: Ready,
}

impl SleepService {
    /// Starts them for the programs of this object, of which none is attached yet.
    pub fn start(ebpf: &mut Ebpf, caps: Caps) -> Result<Self, KernelError> {
        ensure_first_pid_namespace().map_err(KernelError::io(WHAT))?;
        let slots = id_of_slots(ebpf)?;
        let mut keeper = Command::new("/proc/self/exe")
            .arg(SLEEP_VERB)
            .arg(slots.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(KernelError::io(WHAT))?;
        let lifeline = keeper.stdin.take().map(first_to_close).transpose().map_err(KernelError::io(WHAT))?;
        let mut line = String::new();
        let said = keeper.stdout.take().map(|said| BufReader::new(said).read_line(&mut line)).transpose();
        let ready = said.map_err(|error| error.to_string()).and_then(|_| Ready::read(&line));
        let ready = ready.map_err(|why| KernelError::io(WHAT)(io::Error::other(why)));
        let ready = ready.inspect_err(|_| wait_for_the_end(&mut keeper))?;
        let service = Self { keeper, lifeline, ready };
        service.configure(ebpf, caps)?;
        Ok(service)
    }

    fn configure(&self, ebpf: &mut Ebpf, caps: Caps) -> Result<(), KernelError> {
        let Ready { inert, daemon, base, page_bytes } = self.ready;
        let config = SleepConfig {
            base,
            page_bytes,
            longest_ns: caps.longest_ns,
            at_once: caps.at_once,
            inert_tid: inert as u32,
            spared_tgids: [process::id(), self.keeper.id(), daemon as u32],
        };
        let mut configs: Array<_, Wire<SleepConfig>> = object::typed(ebpf, map::SLEEP_CONFIG)?;
        configs.set(0, Wire(config), 0).map_err(KernelError::map(map::SLEEP_CONFIG))
    }

    /// The daemon, the inert process and the keeper.
    pub fn processes(&self) -> [i32; 3] {
        [self.ready.daemon, self.ready.inert, self.keeper.id() as i32]
    }
}

impl Drop for SleepService {
    fn drop(&mut self) {
        self.lifeline = None;
        wait_for_the_end(&mut self.keeper);
    }
}

/// What a process that dies holds is closed from the highest number on (kernel/task_work.c, `task_work_run`, 6.18: last
/// in, first out), and links to programs take long: the keeper must hear of it before.
fn first_to_close(lifeline: ChildStdin) -> io::Result<OwnedFd> {
    /// Above what a controller holds. The kernel's table of descriptors grows to it, by 8 bytes each.
    const HIGH: RawFd = 4095;
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let least = RawFd::try_from(limit.saturating_sub(1)).unwrap_or(HIGH).min(HIGH);
    let high = fcntl(&lifeline, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: the call has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(high) })
}

/// One that does not end by itself is killed, and its children with it.
fn wait_for_the_end(keeper: &mut Child) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + PATIENCE;
    while matches!(keeper.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    // Both fail only if it has ended.
    let _ = keeper.kill();
    let _ = keeper.wait();
}

/// What came of all delays so far, all processors together.
pub fn stats(ebpf: &mut Ebpf) -> Result<SleepStats, KernelError> {
    let stats: PerCpuArray<_, Wire<SleepStats>> = object::typed(ebpf, map::SLEEP_STATS)?;
    let per_cpu = stats.get(&0, 0).map_err(KernelError::map(map::SLEEP_STATS))?;
    Ok(per_cpu.iter().fold(SleepStats::ZERO, |sum, value| sum.plus(value.0)))
}

/// How many sleep now.
pub fn asleep(ebpf: &mut Ebpf) -> Result<u64, KernelError> {
    let state: Array<_, Wire<SleepState>> = object::typed(ebpf, map::SLEEP_STATE)?;
    Ok(state.get(&0, 0).map_err(KernelError::map(map::SLEEP_STATE))?.0.asleep)
}

fn id_of_slots(ebpf: &Ebpf) -> Result<u32, KernelError> {
    let missing = || aya::maps::MapError::InvalidName { name: map::SLEEP_SLOTS.into() };
    let info = match ebpf.map(map::SLEEP_SLOTS) {
        Some(Map::Array(data)) => data.info(),
        _ => Err(missing()),
    };
    Ok(info.map_err(KernelError::map(map::SLEEP_SLOTS))?.id())
}

/// Programs find the inert process by its number there (kernel/bpf/helpers.c, `bpf_task_from_pid`, 6.18).
fn ensure_first_pid_namespace() -> io::Result<()> {
    /// PROC_PID_INIT_INO (include/linux/proc_ns.h, 6.18).
    const FIRST: u64 = 0xefff_fffc;
    match fs::metadata("/proc/self/ns/pid")?.ino() {
        FIRST => Ok(()),
        _ => Err(io::Error::other("kchaos runs in a pid namespace of its own")),
    }
}
