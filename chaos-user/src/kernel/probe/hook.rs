//! Hooks of BPF, each tried by a program that is made to run.

use std::{fs, io, sync::OnceLock, thread, time::Duration};

use aya::{
    Btf, Ebpf,
    maps::Array,
    programs::{
        CgroupAttachMode, CgroupSockAddr, FEntry, FExit, KProbe, Lsm, Program, ProgramError, SchedClassifier,
        SockOps,
    },
};
use chaos_common::{
    Counters,
    names::{map, program},
    net::Direction,
};
use libc::c_int;

use super::{act, attach_raw, scratch, scratch::ScratchCgroup, sleep, why};
use crate::{
    fault::plan::Place,
    kernel::{
        KernelError, attach, btf, counters, loading,
        object::{Globals, ProbeGlobals},
        qdisc::{self, FilterHandle},
        raw_prog::{RawPlace, RawProgram},
    },
    steady::sample::Sample,
};

/// What programs that answer in somebody's place answer: nothing that the trials would meet otherwise.
const ANSWER: c_int = libc::EIO;

/// An entry point that any process may call, with nothing at stake.
pub const SYSCALL: &str = if cfg!(target_arch = "x86_64") {
    "__x64_sys_getpriority"
} else if cfg!(target_arch = "aarch64") {
    "__arm64_sys_getpriority"
} else {
    "sys_getpriority"
};

/// Where the kernel says which security modules are active.
pub const ACTIVE_LSMS: &str = "/sys/kernel/security/lsm";

const NEVER_RUNS: &str = "it attaches but never runs";

/// What came of a trial; the error is what the kernel said.
pub type Trial = Result<(), String>;

pub fn tcx(ebpf: &mut Ebpf, cgroup: Option<&ScratchCgroup>) -> Trial {
    at_tcx(ebpf, cgroup, program::LOSS_EGRESS, Direction::Egress)
}

pub fn clsact(ebpf: &mut Ebpf, cgroup: Option<&ScratchCgroup>) -> Trial {
    at_clsact(ebpf, cgroup, program::LOSS_EGRESS, Direction::Egress)
}

/// The packet has to be taken for the cgroup's.
pub fn tcx_ingress(ebpf: &mut Ebpf, cgroup: Option<&ScratchCgroup>) -> Trial {
    btf::sock_layout()?;
    at_tcx(ebpf, cgroup, program::DUPLICATE_INGRESS, Direction::Ingress)
}

/// The same.
pub fn clsact_ingress(ebpf: &mut Ebpf, cgroup: Option<&ScratchCgroup>) -> Trial {
    btf::sock_layout()?;
    at_clsact(ebpf, cgroup, program::DUPLICATE_INGRESS, Direction::Ingress)
}

fn at_tcx(ebpf: &mut Ebpf, cgroup: Option<&ScratchCgroup>, name: &str, direction: Direction) -> Trial {
    let lo = scratch::lo()?;
    attach::tcx(ebpf, name, direction, &lo).map_err(|error| why(&error))?;
    cgroup.map_or(Ok(()), |cgroup| count(ebpf, &[judged], || send(cgroup, &lo)))
}

fn at_clsact(ebpf: &mut Ebpf, cgroup: Option<&ScratchCgroup>, name: &str, direction: Direction) -> Trial {
    let lo = scratch::lo()?;
    let added = lo.netns.run(|| qdisc::add_clsact(&lo.device.name)).and_then(|added| added);
    added.map_err(|error| error.to_string())?;
    attach::clsact_filter(ebpf, name, direction, &lo, FilterHandle::new(0)).map_err(|error| why(&error))?;
    cgroup.map_or(Ok(()), |cgroup| count(ebpf, &[judged], || send(cgroup, &lo)))
}

/// Whether a packet can be given the time at which fq is to send it.
pub fn shape(ebpf: &mut Ebpf) -> Trial {
    let program: &mut SchedClassifier = find(ebpf, program::SHAPE_EGRESS)?;
    program.load().map_err(|error| why(&error))
}

/// The program that injects and those that count, both ways.
pub fn cgroup_skb(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    let (lo, dir) = (scratch::lo()?, cgroup.open()?);
    for (name, direction) in [
        (program::STEADY_EGRESS, Direction::Egress),
        (program::STEADY_INGRESS, Direction::Ingress),
        (program::LOSS_INGRESS, Direction::Ingress),
    ] {
        attach::cgroup_skb(ebpf, name, direction, &dir).map_err(|error| why(&error))?;
    }
    let (sent, received) = (|s: &Sample| counters(s).tx_packets, |s: &Sample| counters(s).rx_packets);
    count(ebpf, &[judged, sent, received], || send(cgroup, &lo))
}

/// The program that injects, and then one that answers: after a refusal the first would not be asked.
pub fn sock_addr(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    let (lo, dir) = (scratch::lo()?, cgroup.open()?);
    attach::cgroup_sock(ebpf, program::REFUSE_CONNECT4, &dir).map_err(|error| why(&error))?;
    let program: &mut CgroupSockAddr = find(ebpf, program::PROBE_CONNECT)?;
    let attached = program.load().and_then(|()| program.attach(&dir, CgroupAttachMode::Single));
    attached.map_err(|error| why(&error))?;
    count(ebpf, &[judged], || answers(cgroup.act(Some(&lo.netns), act::connect_udp)?, "connect"))
}

pub fn sock_ops(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    let (lo, dir) = (scratch::lo()?, cgroup.open()?);
    let program: &mut SockOps = find(ebpf, program::PROBE_SOCK_OPS)?;
    let attached = program.load().and_then(|()| program.attach(&dir, CgroupAttachMode::Single));
    attached.map_err(|error| why(&error))?;
    // Nobody listens; asking is enough.
    let ask = || cgroup.act(Some(&lo.netns), act::connect_tcp);
    if hits_during(ebpf, ask)? == 0 { Err(NEVER_RUNS.into()) } else { Ok(()) }
}

pub fn syscall_tracepoint(ebpf: &mut Ebpf, cgroup: Option<&ScratchCgroup>) -> Trial {
    attach::raw_tracepoint(ebpf, program::STEADY_SYSCALLS, "sys_exit").map_err(|error| why(&error))?;
    let call = |cgroup: &ScratchCgroup| cgroup.act(None, act::getpriority).map(drop);
    cgroup.map_or(Ok(()), |cgroup| count(ebpf, &[|s| counters(s).syscalls], || call(cgroup)))
}

/// Attached only.
pub fn retransmit_tracepoint(ebpf: &mut Ebpf) -> Trial {
    btf::sock_layout()?;
    let (program, tracepoint) = (program::STEADY_RETRANSMITS, "tcp_retransmit_skb");
    attach::raw_tracepoint(ebpf, program, tracepoint).map_err(|error| why(&error))
}

/// The same, and a retransmission counted for the cgroup that it happened to.
pub fn retransmissions_counted(ebpf: &mut Ebpf, cgroup: Option<&ScratchCgroup>) -> Trial {
    retransmit_tracepoint(ebpf)?;
    let Some(cgroup) = cgroup else { return Ok(()) };
    let lo = scratch::lo()?;
    let retransmit =
        || succeed(cgroup.act(Some(&lo.netns), act::retransmit)?, "having a segment of TCP retransmitted");
    count(ebpf, &[|s| counters(s).tcp_retransmits], retransmit)
}

pub fn fentry(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    let btf = vmlinux()?;
    let entry: &mut FEntry = find(ebpf, program::PROBE_FENTRY)?;
    entry.load(SYSCALL, btf).and_then(|()| entry.attach()).map_err(|error| why(&error))?;
    let exit: &mut FExit = find(ebpf, program::PROBE_FEXIT)?;
    exit.load(SYSCALL, btf).and_then(|()| exit.attach()).map_err(|error| why(&error))?;
    match hits_during(ebpf, || cgroup.act(None, act::getpriority))? {
        0 => Err(NEVER_RUNS.into()),
        1 => Err("only one of the two runs".into()),
        _ => Ok(()),
    }
}

pub fn lsm(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    let program: &mut Lsm = find(ebpf, program::PROBE_LSM)?;
    let attached = program.load("file_open", vmlinux()?).and_then(|()| program.attach());
    attached.map_err(|error| why(&error))?;
    if hits_during(ebpf, || cgroup.act(None, act::open))? > 0 {
        return Ok(());
    }
    let active = fs::read_to_string(ACTIVE_LSMS);
    let active = active.map(|active| format!(" (active: {})", active.trim())).unwrap_or_default();
    Err(format!("{NEVER_RUNS}: bpf is none of the active security modules{active}"))
}

pub fn fmod_ret_security(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    fmod_ret(ebpf, cgroup, "security_file_open", act::open)
}

pub fn fmod_ret_syscall(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    fmod_ret(ebpf, cgroup, SYSCALL, act::getpriority)
}

fn fmod_ret(ebpf: &Ebpf, cgroup: &ScratchCgroup, function: &str, act: fn() -> c_int) -> Trial {
    let at = RawPlace::ModifyReturn(function);
    let program = RawProgram { program: program::PROBE_RETURN, at, written_for: None, sleepable: false };
    let link = attach_raw(ebpf, program).map_err(|error| why(&error))?;
    answers_sometimes(|| cgroup.act(None, act), function)?;
    drop(link);
    // Whoever was forked by another thread a moment ago has the link too, until it becomes another program.
    patiently(|| succeed(cgroup.act(None, act)?, "the same after the end of the link"))
}

pub fn kprobe(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    attach_kprobe(ebpf, program::PROBE_KPROBE)?;
    let times = hits_during(ebpf, || cgroup.act(None, act::getpriority))?;
    if times == 0 { Err(NEVER_RUNS.into()) } else { Ok(()) }
}

pub fn kprobe_override(ebpf: &mut Ebpf, cgroup: &ScratchCgroup) -> Trial {
    attach_kprobe(ebpf, program::PROBE_OVERRIDE)?;
    answers_sometimes(|| cgroup.act(None, act::getpriority), SYSCALL)
}

fn attach_kprobe(ebpf: &mut Ebpf, name: &str) -> Trial {
    let program: &mut KProbe = find(ebpf, name)?;
    program.load().and_then(|()| program.attach(SYSCALL, 0)).map_err(|error| why(&error))?;
    Ok(())
}

/// The object, with one rule for every packet of the scratch cgroup. The lease stays disarmed, so the rule
/// counts and does nothing. `reads_sockets` is for programs that do.
pub fn load(cgroup: Option<&ScratchCgroup>, reads_sockets: bool) -> Result<Ebpf, KernelError> {
    let (id, level) = cgroup.map_or((0, 0), |cgroup| (cgroup.id, cgroup.level));
    let probe = ProbeGlobals { cgroup: id, ret: -ANSWER, sleep_ns: sleep::PROBE_NS };
    loading::load(&Globals::of_probe(probe, level, reads_sockets))
}

/// How often probe programs met a process of the probe.
pub fn hits(ebpf: &Ebpf) -> Result<u64, KernelError> {
    let missing = || aya::maps::MapError::InvalidName { name: map::PROBE_HITS.into() };
    let hits = ebpf.map(map::PROBE_HITS).ok_or_else(missing).and_then(Array::<_, u64>::try_from);
    hits.and_then(|hits| hits.get(&0, 0)).map_err(KernelError::map(map::PROBE_HITS))
}

/// The running kernel's types, as aya takes them; read once.
pub fn vmlinux() -> Result<&'static Btf, String> {
    static TYPES: OnceLock<Result<Btf, String>> = OnceLock::new();
    let read = || Btf::from_sys_fs().map_err(|error| format!("{}: {}", btf::VMLINUX, why(&error)));
    TYPES.get_or_init(read).as_ref().map_err(Clone::clone)
}

/// A number in a sample.
type Counter = fn(&Sample) -> u64;

/// Packets that the rule was asked about.
fn judged(sample: &Sample) -> u64 {
    sample.rules.iter().flatten().map(|stats| stats.lease).sum()
}

fn counters(sample: &Sample) -> Counters {
    sample.counters(0)
}

/// Whether all of these count while somebody acts.
fn count(ebpf: &mut Ebpf, wanted: &[Counter], act: impl FnOnce() -> Trial) -> Trial {
    let mut read = || counters::sample(ebpf, 1, 1).map_err(|error| why(&error));
    let before = read()?;
    act()?;
    let after = read()?;
    let runs = wanted.iter().all(|counter| counter(&after) > counter(&before));
    if runs { Ok(()) } else { Err(NEVER_RUNS.into()) }
}

/// How often probe programs meet somebody who acts.
fn hits_during(ebpf: &Ebpf, act: impl FnOnce() -> Result<c_int, String>) -> Result<u64, String> {
    let read = || hits(ebpf).map_err(|error| why(&error));
    let before = read()?;
    act()?;
    Ok(read()? - before)
}

fn send(cgroup: &ScratchCgroup, lo: &Place) -> Trial {
    succeed(cgroup.act(Some(&lo.netns), act::send_to_itself)?, "sending a packet")
}

fn find<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded);
    program.and_then(TryInto::try_into).map_err(|error| why(&error))
}

fn succeed(errno: c_int, what: &str) -> Trial {
    if errno == 0 { Ok(()) } else { Err(format!("{what}: {}", io::Error::from_raw_os_error(errno))) }
}

/// The same for programs that are skipped where they run already on the CPU: whoever was interrupted in one of them, probes of
/// somebody else's included, keeps the next caller from it (kernel/bpf/trampoline.c, `__bpf_prog_enter_recur`, and
/// kernel/trace/bpf_trace.c, `trace_call_bpf`, 6.18).
fn answers_sometimes(act: impl Fn() -> Result<c_int, String>, what: &str) -> Trial {
    // Where one processor has much to do, whoever is within the program has to come to its turn.
    patiently(|| answers(act()?, what))
}

/// Tries until it comes out right, for a tenth of a second at most.
fn patiently(attempt: impl Fn() -> Trial) -> Trial {
    const ATTEMPTS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(2);
    let mut came_to = attempt();
    for number in 1..ATTEMPTS {
        if came_to.is_ok() {
            break;
        }
        thread::sleep(PAUSE * number);
        came_to = attempt();
    }
    came_to
}

/// Whether the answer was the program's.
fn answers(errno: c_int, what: &str) -> Trial {
    match errno {
        ANSWER => Ok(()),
        0 => Err(format!("it attaches, but {what} succeeds all the same")),
        other => {
            let other = io::Error::from_raw_os_error(other);
            Err(format!("it attaches, but {what} fails with {other} instead of what it was told"))
        }
    }
}
