//! Whether the kernel takes every program, and what its verifier says of each: how many instructions it walked
//! through, how much of the stack may be used. Programs that grow meet the limits of older kernels first.
//!
//! Each program is loaded alone, the way its use loads it, and attached to nothing: by aya (programs for fmod_ret by
//! `raw_prog`), and then with each set of constants by `raw_prog`, for the verifier's statistics, which aya drops
//! where loading succeeds. By aya once is enough: constants change what the verifier walks through, not what it is
//! given.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};
use aya_obj::{
    ProgramSection,
    btf::{BtfError, BtfKind},
    generated::{bpf_attach_type, bpf_prog_type},
};
use chaos_common::{
    names::program,
    net::{MAX_HOOKS, NetConfig},
    ranges::MAX_STEPS,
    rule::{Levels, MAX_LEVELS, MAX_RULES_PER_HOOK},
    sleep::LONGEST_NS,
    steady::{SockLayout, SteadyLayout},
    syscall::{CallLayout, CallPoint, point},
};

use super::{
    KernelError, btf, info, loading,
    object::{self, Globals, ProbeGlobals, SteadyGlobals},
    probe::{SYSCALL, one_line, probe, vmlinux, why},
    raw_prog::{ProgramKind, RawPlace, RelocatedObject},
    targets::Targets,
};
use crate::fault::capability::Capability;

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Where its section in the object says, or the verifier does not care.
    Section,
    /// A hook of LSM.
    Lsm(&'static str),
    /// A hook of LSM, for a program that may sleep and calls functions of the kernel, which aya cannot load.
    SleepableLsm(&'static str),
    /// A function of the kernel, before or after it.
    Function(&'static str),
    /// The same, for a program that stands in the object as one for LSM.
    RawFentry(&'static str),
    /// After a function of the kernel, for a program that may sleep.
    SleepableFexit(&'static str),
    /// A function of the kernel, in its place.
    ModifyReturn(&'static str),
}

/// One use of a program.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    program: &'static str,
    at: At,
    /// Without this a kernel cannot have it.
    needs: Capability,
}

const fn at(program: &'static str, at: At, needs: Capability) -> Use {
    Use { program, at, needs }
}

/// Every use of every program. A program that is loaded for several functions stands here for one of each kind.
pub const USES: &[Use] = &[
    at(program::LOSS_EGRESS, At::Section, Capability::Clsact),
    at(program::LOSS_INGRESS, At::Section, Capability::CgroupSkb),
    at(program::SHAPE_EGRESS, At::Section, Capability::Clsact),
    at(program::SHAPE_INGRESS, At::Section, Capability::ClsactIngress),
    at(program::SHAPE_BY_ACTION, At::Section, Capability::ClsactIngress),
    at(program::PRIORITY_EGRESS, At::Section, Capability::Clsact),
    at(program::CORRUPT_EGRESS, At::Section, Capability::Clsact),
    at(program::CORRUPT_INGRESS, At::Section, Capability::ClsactIngress),
    at(program::DUPLICATE_EGRESS, At::Section, Capability::Clsact),
    at(program::DUPLICATE_INGRESS, At::Section, Capability::ClsactIngress),
    at(program::REJECT_EGRESS, At::Section, Capability::Clsact),
    at(program::REJECT_INGRESS, At::Section, Capability::CgroupSkb),
    at(program::DNS_EGRESS, At::Section, Capability::Clsact),
    at(program::REFUSE_CONNECT4, At::Section, Capability::SockAddr),
    at(program::REFUSE_CONNECT6, At::Section, Capability::SockAddr),
    at(program::REFUSE_BIND4, At::Section, Capability::SockAddr),
    at(program::REFUSE_BIND6, At::Section, Capability::SockAddr),
    at(program::REFUSE_SENDMSG4, At::Section, Capability::SockAddr),
    at(program::REFUSE_SENDMSG6, At::Section, Capability::SockAddr),
    at(program::REFUSE_SOCKET, At::Section, Capability::SockAddr),
    at(program::REFUSE_SETSOCKOPT, At::Section, Capability::SockAddr),
    at(program::REFUSE_GETSOCKOPT, At::Section, Capability::SockAddr),
    at(program::CALL_HOOK, At::Lsm("file_open"), Capability::Lsm),
    at(program::CALL_HOOK, At::ModifyReturn("security_file_open"), Capability::FmodRetSecurity),
    at(program::CALL_HOOK, At::ModifyReturn(SYSCALL), Capability::FmodRetSyscall),
    at(program::CALL_OVERRIDE, At::Section, Capability::Override),
    at(program::CALL_BEGIN, At::Function(SYSCALL), Capability::Fentry),
    at(program::CALL_JUDGE, At::RawFentry(SYSCALL), Capability::Fentry),
    at(program::CALL_WAIT, At::SleepableFexit(SYSCALL), Capability::FmodRetSyscall),
    at(program::CALL_SLOW, At::SleepableLsm("file_open"), Capability::FuseSleep),
    at(program::CALL_SPIN, At::Lsm("file_open"), Capability::Lsm),
    at(program::STEADY_EGRESS, At::Section, Capability::CgroupSkb),
    at(program::STEADY_INGRESS, At::Section, Capability::CgroupSkb),
    at(program::STEADY_SYSCALLS, At::Section, Capability::SyscallTracepoint),
    at(program::STEADY_CALL_BEGINS, At::Section, Capability::SyscallTracepoint),
    at(program::STEADY_RETRANSMITS, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_CONNECTIONS, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_RESETS_SENT, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_RESETS_RECEIVED, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_ROUND_TRIPS, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_EXITS, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_SIGNALS, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_WAKEUPS, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_SWITCHES, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_BLOCK_ISSUES, At::Section, Capability::RetransmitTracepoint),
    at(program::STEADY_BLOCK_ENDS, At::Section, Capability::RetransmitTracepoint),
    at(program::PROBE_LSM, At::Lsm("file_open"), Capability::Lsm),
    at(program::PROBE_RETURN, At::ModifyReturn("security_file_open"), Capability::FmodRetSecurity),
    at(program::PROBE_RETURN, At::ModifyReturn(SYSCALL), Capability::FmodRetSyscall),
    at(program::PROBE_SLEEP, At::SleepableLsm("file_open"), Capability::FuseSleep),
    at(program::PROBE_FENTRY, At::Function(SYSCALL), Capability::Fentry),
    at(program::PROBE_FEXIT, At::Function(SYSCALL), Capability::Fentry),
    at(program::PROBE_KPROBE, At::Section, Capability::Kprobe),
    at(program::PROBE_OVERRIDE, At::Section, Capability::Override),
    at(program::PROBE_CONNECT, At::Section, Capability::SockAddr),
    at(program::PROBE_SOCK_OPS, At::Section, Capability::SockOps),
    at(program::BENCH_EMPTY, At::Section, Capability::Clsact),
];

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        match self.at {
            At::Section => Ok(()),
            At::Lsm(hook) => write!(f, ":lsm/{hook}"),
            At::SleepableLsm(hook) => write!(f, ":lsm.s/{hook}"),
            At::Function(function) => write!(f, ":{function}"),
            At::RawFentry(function) => write!(f, ":fentry/{function}"),
            At::SleepableFexit(function) => write!(f, ":fexit.s/{function}"),
            At::ModifyReturn(function) => write!(f, ":fmod_ret/{function}"),
        }
    }
}

/// With what constants programs are loaded: the verifier removes the code that these make unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constants {
    /// Those of a plan that asks for nothing.
    Nothing,
    /// Those of a plan that uses everything.
    Everything,
    /// The same with the kernel's log.
    EverythingLogged,
}

impl Constants {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Everything, Self::EverythingLogged];

    /// Whether they are others for this program than all before them: those of calls, which take verifiers longest, log
    /// nothing.
    fn concern(self, of: &Use) -> bool {
        self != Self::EverythingLogged || !of.program.starts_with("call_")
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Everything => "everything",
            Self::EverythingLogged => "everything+log",
        }
    }

    fn globals(self) -> Globals {
        if self == Self::Nothing {
            let (levels, probe) = (Levels { count: 0, level: [0; MAX_LEVELS] }, ProbeGlobals::NOBODY);
            let net = NetConfig::NONE;
            return Globals {
                levels,
                targets: Targets::none(),
                slots: 1,
                rules: 1,
                net,
                by_segment: 0,
                by_path: false,
                copy: 1,
                kernel_log: false,
                layout: SockLayout::UNKNOWN,
                calls: CallLayout::UNKNOWN,
                judges_calls: false,
                point: CallPoint::NONE,
                steady: SteadyGlobals::NOTHING,
                probe,
            };
        }
        let hook_rules = (1 << MAX_RULES_PER_HOOK) - 1;
        let net = NetConfig {
            rules: [hook_rules; MAX_HOOKS],
            any_peer: 1,
            any_name: 1 << 9,
            any_peer_port: 1 << 1,
            any_local_port: 1 << 2,
            tcp: 1 << 3,
            udp: 1 << 4,
            icmp: 1 << 5,
            other: 1 << 6,
            new: 1 << 7,
            established: 1 << 8,
            told: hook_rules,
            peer_v4_steps: MAX_STEPS,
            peer_v6_steps: MAX_STEPS,
            port_steps: MAX_STEPS,
            uses: u32::MAX,
        };
        Globals {
            levels: Levels { count: MAX_LEVELS as u32, level: [1, 2, 3, 4] },
            targets: Targets::none(),
            slots: 2,
            rules: MAX_RULES_PER_HOOK,
            net,
            by_segment: u64::MAX,
            by_path: true,
            copy: 1,
            kernel_log: self == Self::EverythingLogged,
            layout: btf::sock_layout().unwrap_or(SockLayout::UNKNOWN),
            calls: btf::call_layout().unwrap_or(CallLayout::UNKNOWN),
            judges_calls: true,
            point: CallPoint {
                is: point::AGAIN | point::FILE | point::MASK | point::URING,
                ..CallPoint::NONE
            },
            steady: SteadyGlobals {
                layout: btf::steady_layout().unwrap_or(SteadyLayout::UNKNOWN),
                calls: true,
                times: true,
            },
            probe: ProbeGlobals { cgroup: u64::MAX, ret: -libc::EIO, sleep_ns: LONGEST_NS },
        }
    }
}

/// What the kernel says of a program that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Instructions that the verifier walked through, every path counted; at most 1,000,000.
    pub verified: u32,
    /// Instructions that are left when it is done.
    pub translated: u32,
    /// Stack of the program and of all functions in it, in bytes; at most 512 along one path of calls.
    pub stack_bytes: u32,
}

/// What came of loading a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel took it.
    Verified(Figures),
    /// The kernel lacks what the program is for; why it says so.
    Lacking(Capability, String),
    /// The kernel refused it, though it should not have.
    Refused(String),
}

/// One program loaded once. Shown as one line, which `cargo xtask programs` reads.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Which, and what for.
    pub of: Use,
    /// With what.
    pub constants: Constants,
    /// What came of it.
    pub outcome: Outcome,
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {} with={} ", self.of, self.constants.name())?;
        match &self.outcome {
            Outcome::Verified(Figures { verified, translated, stack_bytes }) => {
                write!(f, "verified={verified} translated={translated} stack={stack_bytes}")
            }
            Outcome::Lacking(capability, why) => write!(f, "lacking {capability}: {why}"),
            Outcome::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

/// Loads everything.
pub fn verify_all() -> Result<Vec<Verification>, KernelError> {
    let mut by_aya = loading::load(&Constants::Nothing.globals())?;
    let by_aya: Vec<Result<(), String>> = USES.iter().map(|of| load_by_aya(&mut by_aya, of)).collect();
    let mut verifications = Vec::new();
    for constants in Constants::ALL {
        let ebpf = loading::load(&constants.globals())?;
        let object = RelocatedObject::new(object::OBJECT, &ebpf)?;
        for (of, by_aya) in USES.iter().zip(&by_aya).filter(|(of, _)| constants.concern(of)) {
            let loaded = by_aya.clone().and_then(|()| load_raw(&ebpf, &object, of));
            let outcome = match loaded {
                Ok(figures) => Outcome::Verified(figures),
                Err(why) => excuse(of.needs, why),
            };
            verifications.push(Verification { of: *of, constants, outcome });
        }
    }
    Ok(verifications)
}

/// A kernel may lack what a program is for, and no more than that.
fn excuse(needs: Capability, why: String) -> Outcome {
    let probed = match probe(&[needs]) {
        Ok(capabilities) => capabilities.probed,
        Err(error) => return Outcome::Refused(format!("{why}; {error}")),
    };
    match probed.into_iter().find_map(|probed| probed.missing_because) {
        Some(because) => Outcome::Lacking(needs, because),
        None => Outcome::Refused(why),
    }
}

/// Loads and lets go again. aya has no fmod_ret, and no functions of the kernel for programs to call.
fn load_by_aya(ebpf: &mut Ebpf, of: &Use) -> Result<(), String> {
    macro_rules! once {
        ($program:expr, $load:expr) => {{
            let loaded: Result<(), ProgramError> = $load;
            loaded.and_then(|()| $program.unload())
        }};
    }
    let program = ebpf.program_mut(of.program).ok_or("the object has no such program")?;
    let loaded = match (program, of.at) {
        (_, At::ModifyReturn(_) | At::SleepableLsm(_) | At::RawFentry(_) | At::SleepableFexit(_)) => Ok(()),
        (Program::SchedClassifier(program), At::Section) => once!(program, program.load()),
        (Program::CgroupSkb(program), At::Section) => once!(program, program.load()),
        (Program::CgroupSock(program), At::Section) => once!(program, program.load()),
        (Program::CgroupSockAddr(program), At::Section) => once!(program, program.load()),
        (Program::CgroupSockopt(program), At::Section) => once!(program, program.load()),
        (Program::SockOps(program), At::Section) => once!(program, program.load()),
        (Program::SkLookup(program), At::Section) => once!(program, program.load()),
        (Program::RawTracePoint(program), At::Section) => once!(program, program.load()),
        (Program::TracePoint(program), At::Section) => once!(program, program.load()),
        (Program::KProbe(program), At::Section) => once!(program, program.load()),
        (Program::Lsm(program), At::Lsm(hook)) => once!(program, program.load(hook, vmlinux()?)),
        (Program::FEntry(program), At::Function(function)) => {
            once!(program, program.load(function, vmlinux()?))
        }
        (Program::FExit(program), At::Function(function)) => {
            once!(program, program.load(function, vmlinux()?))
        }
        (program, at) => {
            return Err(format!("kernel/verify.rs does not know a {:?} at {at:?}", program.prog_type()));
        }
    };
    loaded.map_err(|error| why(&error))
}

fn load_raw(ebpf: &Ebpf, object: &RelocatedObject, of: &Use) -> Result<Figures, String> {
    let program = ebpf.program(of.program).ok_or("the object has no such program")?;
    let program_type = bpf_prog_type::from(program.prog_type()) as u32;
    let relocated = object.program(of.program, vmlinux()?).map_err(|error| why(&error))?;
    let kind = match of.at {
        At::ModifyReturn(function) => raw_kind(RawPlace::ModifyReturn(function), false)?,
        At::SleepableLsm(hook) => raw_kind(RawPlace::Lsm(hook), true)?,
        At::RawFentry(function) => raw_kind(RawPlace::Fentry(function), false)?,
        At::SleepableFexit(function) => raw_kind(RawPlace::Fexit(function), true)?,
        at => section_kind(program_type, relocated.section(), at)?,
    };
    let statistics = relocated.load_with_statistics(kind);
    let (loaded, said) = statistics.map_err(|(error, log)| one_line(&format!("{error}{log}")))?;
    let translated = translated(&loaded).map_err(|error| error.to_string())?;
    let (verified, stack_bytes) =
        read_statistics(&said).ok_or_else(|| format!("no statistics in the verifier's log: {said}"))?;
    Ok(Figures { verified, translated, stack_bytes })
}

fn raw_kind(at: RawPlace<'_>, sleepable: bool) -> Result<ProgramKind, String> {
    at.kind(vmlinux()?, sleepable).map_err(|error| why(&error))
}

/// The same for the kernel, as aya tells it.
fn section_kind(program_type: u32, section: &ProgramSection, at: At) -> Result<ProgramKind, String> {
    use bpf_attach_type::{
        BPF_CGROUP_SOCK_OPS, BPF_LSM_MAC, BPF_SK_LOOKUP, BPF_TRACE_FENTRY, BPF_TRACE_FEXIT,
    };
    let attach_type = match section {
        ProgramSection::CgroupSkb { attach_type } => attach_type.map(bpf_attach_type::from),
        ProgramSection::CgroupSock { attach_type } => Some((*attach_type).into()),
        ProgramSection::CgroupSockAddr { attach_type } => Some((*attach_type).into()),
        ProgramSection::CgroupSockopt { attach_type } => Some((*attach_type).into()),
        ProgramSection::SockOps => Some(BPF_CGROUP_SOCK_OPS),
        ProgramSection::SkLookup => Some(BPF_SK_LOOKUP),
        ProgramSection::Lsm { .. } => Some(BPF_LSM_MAC),
        ProgramSection::FEntry { .. } => Some(BPF_TRACE_FENTRY),
        ProgramSection::FExit { .. } => Some(BPF_TRACE_FEXIT),
        _ => None,
    };
    let function_id = match at {
        At::Section => 0,
        At::Lsm(hook) | At::SleepableLsm(hook) => function_id(&format!("bpf_lsm_{hook}"))?,
        At::Function(function)
        | At::RawFentry(function)
        | At::SleepableFexit(function)
        | At::ModifyReturn(function) => function_id(function)?,
    };
    let sleepable = matches!(
        section,
        ProgramSection::Lsm { sleepable: true }
            | ProgramSection::FEntry { sleepable: true }
            | ProgramSection::FExit { sleepable: true }
    );
    let attach_type = attach_type.map_or(0, |attach_type| attach_type as u32);
    Ok(ProgramKind { program_type, attach_type, function_id, sleepable })
}

fn function_id(function: &str) -> Result<u32, String> {
    let id = vmlinux()?.id_by_type_name_kind(function, BtfKind::Func);
    id.map_err(|error: BtfError| format!("this kernel has no function {function}: {error}"))
}

/// How many instructions the kernel has left of a program.
fn translated(program: &OwnedFd) -> io::Result<u32> {
    const INSTRUCTION_BYTES: u32 = 8;
    Ok(info::of(program.as_fd())?.xlated_prog_len / INSTRUCTION_BYTES)
}

/// Instructions and stack from the end of a log (kernel/bpf/verifier.c, `print_verification_stats`):
/// `processed 12 insns (limit 1000000) …`, and `stack depth 32+16` up to 6.18, in 7.3 for each function a line
/// `subprog 1 (NAME) static insns_self 5 insns_total 5 stack 16`.
fn read_statistics(log: &str) -> Option<(u32, u32)> {
    let after = |words: &str| log.lines().find_map(|line| line.trim().strip_prefix(words));
    let verified = after("processed ")?.split(' ').next()?.parse().ok()?;
    let sum = |depths: Vec<&str>| depths.into_iter().map(|depth| depth.parse::<u32>().ok()).sum();
    let functions = log.lines().filter(|line| line.starts_with("subprog "));
    let stack_bytes: Option<u32> = match after("stack depth ")? {
        text if text.starts_with("max ") => {
            sum(functions.filter_map(|line| line.rsplit(' ').next()).collect())
        }
        text => sum(text.split('+').collect()),
    };
    Some((verified, stack_bytes?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_use() {
        for name in program::ALL {
            assert!(
                USES.iter().any(|of| of.program == *name),
                "say in kernel/verify.rs where {name} goes, so that it is verified on every kernel of the lab"
            );
        }
    }

    #[test]
    fn reads_what_the_verifier_says() {
        let log = "verification time 55 usec\nstack depth 104+8\nprocessed 236 insns (limit 1000000) \
            max_states_per_insn 1 total_states 20 peak_states 20 mark_read 5\n";
        assert_eq!(read_statistics(log), Some((236, 112)));
        assert_eq!(read_statistics("processed 2 insns (limit 1000000)\nstack depth 0\n"), Some((2, 0)));
        let newer = "verification time 9 usec\nstack depth max 208\n\
            subprog 0 (<unknown>) main insns_self 25706 insns_total 28524 stack 112\n\
            subprog 1 (<unknown>) static insns_self 2632 insns_total 2818 stack 88\n\
            processed 28524 insns (limit 1000000) max_states_per_insn 18 total_states 1463\n";
        assert_eq!(read_statistics(newer), Some((28524, 200)));
        assert_eq!(read_statistics("processed 2 insns (limit 1000000)\n"), None);
    }

    #[test]
    fn a_line_says_it_all() {
        let of = at(program::PROBE_LSM, At::Lsm("file_open"), Capability::Lsm);
        let figures = Figures { verified: 12, translated: 10, stack_bytes: 8 };
        let line = |outcome| Verification { of, constants: Constants::Everything, outcome }.to_string();
        assert_eq!(
            line(Outcome::Verified(figures)),
            "program probe_lsm:lsm/file_open with=everything verified=12 translated=10 stack=8"
        );
        assert_eq!(
            line(Outcome::Lacking(Capability::Lsm, "not permitted".into())),
            "program probe_lsm:lsm/file_open with=everything lacking lsm: not permitted"
        );
    }
}
