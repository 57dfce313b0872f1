//! Putting a caller to sleep, tried.

use aya::Ebpf;
use chaos_common::{names::program, sleep::SleepStats};
use libc::c_int;

use super::{
    act, attach_raw,
    hook::{self, SYSCALL, Trial},
    scratch::ScratchCgroup,
    why,
};
use crate::kernel::{
    KernelError, loading,
    object::{Globals, ProbeGlobals},
    raw_prog::{RawLink, RawPlace, RawProgram},
    sleep::{self, Caps, SleepService},
};

/// How long a trial sleeps: longer than a call takes on a slow machine, shorter than its users notice.
pub const PROBE_NS: u64 = 20_000_000;

/// Where a program that may sleep can stand: which of them, is the kernel's choice.
const PLACES: [(RawPlace<'static>, fn() -> c_int); 2] =
    [(RawPlace::Lsm("file_open"), act::open), (RawPlace::ModifyReturn(SYSCALL), act::getpriority)];

/// Somebody sleeps as long as asked, and is not on the processor meanwhile. The error is that of the first place: the
/// second is for kernels where BPF is no security module.
pub fn fuse_sleep(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    let _service = SleepService::start(ebpf, Caps::default()).map_err(|error| why(&error))?;
    let [first, second] = PLACES.map(|(at, act)| sleeps_at(ebpf, cgroup, at, act));
    first.or_else(|error| second.map_err(|_| error))
}

fn sleeps_at(ebpf: &Ebpf, cgroup: &ScratchCgroup, at: RawPlace<'_>, act: fn() -> c_int) -> Trial {
    let _link = attach_raw(ebpf, probe_sleep(at)).map_err(|error| why(&error))?;
    let sleeping = || cgroup.act(None, || act::sleeping(act, PROBE_NS));
    match best_of(sleeping)? {
        0 => Ok(()),
        libc::ETIME => Err("it attaches, but the caller does not sleep".into()),
        libc::EBUSY => Err("it attaches, but the caller is delayed on the processor".into()),
        errno => Err(format!("the call fails: {}", std::io::Error::from_raw_os_error(errno))),
    }
}

/// Where the host has taken the processor away in the midst of it, a caller seems to have been busy, or to have gone by
/// as the daemon was not there in time: then again.
fn best_of(sleeping: impl Fn() -> Result<c_int, String>) -> Result<c_int, String> {
    const ATTEMPTS: u32 = 5;
    let mut answer = sleeping()?;
    for _ in 1..ATTEMPTS {
        if !matches!(answer, libc::ETIME | libc::EBUSY) {
            break;
        }
        answer = sleeping()?;
    }
    Ok(answer)
}

fn probe_sleep(at: RawPlace<'_>) -> RawProgram<'_> {
    RawProgram { program: program::PROBE_SLEEP, at, written_for: None, sleepable: true }
}

/// The processes of one cgroup delayed, and nobody else: for tests of how that is done.
pub struct Delayed {
    /// Before the link: detaching takes its time.
    service: SleepService,
    link: Option<RawLink>,
    ebpf: Ebpf,
}

impl Delayed {
    /// Delays each of their calls there.
    pub fn at(at: RawPlace<'_>, cgroup: u64, delay_ns: u64, caps: Caps) -> Result<Self, KernelError> {
        let probe = ProbeGlobals { cgroup, sleep_ns: delay_ns, ..ProbeGlobals::NOBODY };
        let mut ebpf = loading::load(&Globals::of_probe(probe, 0, false))?;
        let service = SleepService::start(&mut ebpf, caps)?;
        let link = Some(attach_raw(&ebpf, probe_sleep(at))?);
        Ok(Self { service, link, ebpf })
    }

    /// The daemon, the inert process and the keeper.
    pub fn processes(&self) -> [i32; 3] {
        self.service.processes()
    }

    /// Delays nobody any more; who sleeps, sleeps on.
    pub fn unhook(&mut self) {
        self.link = None;
    }

    /// How many sleep now.
    pub fn asleep(&mut self) -> Result<u64, KernelError> {
        sleep::asleep(&mut self.ebpf)
    }

    /// What came of it.
    pub fn stats(&mut self) -> Result<SleepStats, KernelError> {
        sleep::stats(&mut self.ebpf)
    }

    /// How often their calls were met.
    pub fn hits(&self) -> Result<u64, KernelError> {
        hook::hits(&self.ebpf)
    }
}
