//! What this kernel can do, found out by trying: each program is loaded, attached at a place made for it, and
//! made to run by a child process of ours. A BPF LSM that is not active, for instance, loads, attaches and never
//! runs.
//!
//! Nothing of it lasts: links end with their descriptors, namespaces with their last one, the child exits, its
//! cgroup is removed.

mod act;
mod destroy;
mod device;
mod hook;
mod scratch;
mod sleep;

use std::error::Error;

use aya::{Ebpf, programs::Program};
use chaos_common::names::program;

use super::{
    KernelError, btf, loading,
    object::{self, Globals, ProbeGlobals},
    raw_prog::{RawLink, RawPlace, RawProgram, RelocatedObject},
};
use crate::fault::capability::{Capabilities, Capability, Probed};
pub use destroy::destroys_connections;
pub use hook::ACTIVE_LSMS;
pub(super) use hook::{SYSCALL, vmlinux};
use scratch::ScratchCgroup;
pub use sleep::Delayed;

/// Tries these capabilities, as quickly as can be.
pub fn probe(wanted: &[Capability]) -> Result<Capabilities, KernelError> {
    try_all(wanted, Patience::None)
}

/// Tries everything, and waits for what takes its time.
pub fn diagnose() -> Result<Capabilities, KernelError> {
    try_all(&Capability::ALL, Patience::Some)
}

/// Whether a trial may take longer than its users notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    None,
    Some,
}

fn try_all(wanted: &[Capability], patience: Patience) -> Result<Capabilities, KernelError> {
    let cgroup = ScratchCgroup::new();
    let reads_sockets = wanted.iter().copied().any(reads_sockets);
    let mut bench = Bench { ebpf: hook::load(cgroup.as_ref().ok(), reads_sockets)?, cgroup, patience };
    let mut probed = |capability: &Capability| {
        let (missing_because, note) = match bench.try_one(*capability) {
            Ok(note) => (None, note),
            Err(why) => (Some(why), None),
        };
        bench.detach_all();
        Probed { capability: *capability, missing_because, note }
    };
    Ok(Capabilities {
        probed: wanted.iter().map(&mut probed).collect(),
        lacking: Vec::new(),
        unmodifiable: Vec::new(),
    })
}

/// Which of these functions no program of fmod_ret may answer for, found out by loading one for each. Those
/// of calls without parameters are not called what Linux 7.2 and later go by (kernel/bpf/verifier.c,
/// `has_arch_syscall_prefix`, 7.3): there it takes error injection, as on kernels before.
pub fn unmodifiable(functions: &[String]) -> Result<Vec<String>, KernelError> {
    let of_call_without_parameters = |function: &&String| function.starts_with("__do_sys_");
    let asked: Vec<&String> = functions.iter().filter(of_call_without_parameters).collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let ebpf = hook::load(None, false)?;
    let object = RelocatedObject::new(object::OBJECT, &ebpf)?;
    let btf = hook::vmlinux().map_err(KernelError::btf)?;
    let program = object.program(program::PROBE_RETURN, btf)?;
    let is_refused = |function: &&&String| {
        let kind = RawPlace::ModifyReturn(function.as_str()).kind(btf, false);
        kind.is_err() || kind.is_ok_and(|kind| program.load(kind).is_err())
    };
    Ok(asked.iter().filter(is_refused).map(|function| (*function).clone()).collect())
}

/// Whether it is tried by a program that reads the kernel's own account of a socket.
const fn reads_sockets(capability: Capability) -> bool {
    use Capability::{ClsactIngress, RetransmitTracepoint, SockAddr, TcxIngress};
    matches!(capability, TcxIngress | ClsactIngress | SockAddr | RetransmitTracepoint)
}

/// Where everything is tried, one thing at a time.
struct Bench {
    ebpf: Ebpf,
    cgroup: Result<ScratchCgroup, String>,
    patience: Patience,
}

impl Bench {
    /// Tries one; says what else there is to know. The error is what the kernel said.
    fn try_one(&mut self, capability: Capability) -> Result<Option<String>, String> {
        match capability {
            Capability::Btf => btf::sock_layout().map(|_| None),
            Capability::Tcx => self.at_hook_or_beside(hook::tcx),
            Capability::Clsact => self.at_hook_or_beside(hook::clsact),
            Capability::TcxIngress => self.at_hook_or_beside(hook::tcx_ingress),
            Capability::ClsactIngress => self.at_hook_or_beside(hook::clsact_ingress),
            Capability::CgroupSkb => self.at_hook(hook::cgroup_skb),
            Capability::SockAddr => self.at_hook(hook::sock_addr),
            Capability::SockOps => self.at_hook(hook::sock_ops),
            Capability::SyscallTracepoint => self.at_hook_or_beside(hook::syscall_tracepoint),
            Capability::RetransmitTracepoint => self.at_retransmissions(),
            Capability::Fentry => self.at_hook(hook::fentry),
            Capability::Lsm => self.at_hook(hook::lsm),
            Capability::FmodRetSecurity => self.at_hook(hook::fmod_ret_security),
            Capability::FmodRetSyscall => self.at_hook(hook::fmod_ret_syscall),
            Capability::FuseSleep => self.at_hook(sleep::fuse_sleep),
            Capability::Kprobe => self.at_hook(hook::kprobe),
            Capability::Override => self.at_hook(hook::kprobe_override),
            Capability::SockDestroy => destroy::sock_destroy(),
            Capability::Fq => {
                hook::shape(&mut self.ebpf)?;
                device::qdisc("fq", "sch_fq", None)
            }
            Capability::Netem => device::netem(),
            Capability::Ifb => device::ifb(),
        }
    }

    fn at_hook(
        &mut self,
        trial: fn(&mut Ebpf, &ScratchCgroup) -> Result<(), String>,
    ) -> Result<Option<String>, String> {
        trial(&mut self.ebpf, self.cgroup.as_ref().map_err(Clone::clone)?).map(|()| None)
    }

    /// The same for hooks that are not at a cgroup: where none can be made, attaching has to do.
    fn at_hook_or_beside(
        &mut self,
        trial: fn(&mut Ebpf, Option<&ScratchCgroup>) -> Result<(), String>,
    ) -> Result<Option<String>, String> {
        trial(&mut self.ebpf, self.cgroup.as_ref().ok())?;
        Ok(self.cgroup.as_ref().err().map(|why| format!("it attaches, but could not be made to run: {why}")))
    }

    /// TCP retransmits after 200 ms at the earliest, for which no plan wants to wait: there attaching has to do.
    fn at_retransmissions(&mut self) -> Result<Option<String>, String> {
        match self.patience {
            Patience::Some => self.at_hook_or_beside(hook::retransmissions_counted),
            Patience::None => hook::retransmit_tracepoint(&mut self.ebpf).map(|()| None),
        }
    }

    /// Ends every link, so that trials do not count for one another. A filter of clsact goes with its namespace.
    fn detach_all(&mut self) {
        for (_, program) in self.ebpf.programs_mut() {
            // Those that the trial did not load are no error.
            let _ = match program {
                Program::SchedClassifier(program) => program.unload(),
                Program::CgroupSkb(program) => program.unload(),
                Program::CgroupSock(program) => program.unload(),
                Program::CgroupSockAddr(program) => program.unload(),
                Program::CgroupSockopt(program) => program.unload(),
                Program::SockOps(program) => program.unload(),
                Program::RawTracePoint(program) => program.unload(),
                Program::FEntry(program) => program.unload(),
                Program::FExit(program) => program.unload(),
                Program::Lsm(program) => program.unload(),
                Program::KProbe(program) => program.unload(),
                _ => Ok(()),
            };
        }
    }
}

/// A program that concerns the processes of one cgroup and nobody else: the loader of raw programs at work, for tests
/// of it.
#[must_use = "dropping it ends it"]
pub struct Hooked {
    _link: RawLink,
    ebpf: Ebpf,
}

impl Hooked {
    /// Answers `ret` to the processes of a cgroup, if the function there takes what `written_for` takes.
    pub fn at(
        at: RawPlace<'_>,
        written_for: Option<&str>,
        sleepable: bool,
        cgroup: u64,
        ret: i32,
    ) -> Result<Self, KernelError> {
        let ebpf = loading::load(&Globals::of_probe(
            ProbeGlobals { ret, cgroup, ..ProbeGlobals::NOBODY },
            0,
            false,
        ))?;
        let program = RawProgram { program: program::PROBE_RETURN, at, written_for, sleepable };
        let link = attach_raw(&ebpf, program)?;
        Ok(Self { _link: link, ebpf })
    }

    /// How often it has met them.
    pub fn hits(&self) -> Result<u64, KernelError> {
        hook::hits(&self.ebpf)
    }
}

fn attach_raw(ebpf: &Ebpf, program: RawProgram<'_>) -> Result<RawLink, KernelError> {
    let btf = hook::vmlinux().map_err(KernelError::btf)?;
    Ok(RawLink::attach(object::OBJECT, ebpf, btf, program)?)
}

/// An error with what lies below it, on one line: its beginning, and what the verifier said last.
pub(super) fn why(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let below_text = below.to_string();
        if !text.contains(&below_text) {
            text = format!("{text}: {below_text}");
        }
        source = below.source();
    }
    one_line(&text)
}

/// The beginning of an error and what the verifier said last.
pub(super) fn one_line(text: &str) -> String {
    const MARK: &str = " Verifier output:";
    // The verifier ends with how much it did.
    let is_reason = |line: &&str| {
        let statistics = ["processed ", "stack depth ", "subprog ", "verification time "];
        !line.is_empty() && !statistics.iter().any(|word| line.starts_with(word))
    };
    let text = text.replace(MARK, "\n");
    let mut lines = text.lines().map(str::trim).filter(is_reason);
    let first = lines.next().unwrap_or_default().trim_end_matches('.');
    match lines.next_back() {
        Some(last) => format!("{first}: {last}"),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_verifier_said_last_is_told() {
        let text = "loading for __x64_sys_getpriority: Invalid argument (os error 22)\n\
            __x64_sys_getpriority() is not modifiable\n\
            processed 0 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(
            one_line(text),
            "loading for __x64_sys_getpriority: Invalid argument (os error 22): \
             __x64_sys_getpriority() is not modifiable"
        );
        assert_eq!(
            one_line(
                "the BPF_PROG_LOAD syscall returned Operation not permitted (os error 1). Verifier output: "
            ),
            "the BPF_PROG_LOAD syscall returned Operation not permitted (os error 1)"
        );
    }
}
