//! What a kernel can do, found out by trying.

use std::fmt;

use serde::Serialize;

/// One thing a kernel can or cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Type information of the kernel itself.
    Btf,
    /// BPF links at tc (TCX).
    Tcx,
    /// BPF filters on a clsact qdisc.
    Clsact,
    /// BPF links at tc where packets arrive, with the cgroup readable that they are for.
    TcxIngress,
    /// BPF filters on a clsact qdisc, the same way.
    ClsactIngress,
    /// BPF links at a cgroup's packets.
    CgroupSkb,
    /// BPF at a cgroup's calls on sockets, with an error of our choice.
    SockAddr,
    /// BPF at a cgroup's TCP events.
    SockOps,
    /// BPF at the exit of every system call.
    SyscallTracepoint,
    /// BPF at TCP retransmissions, with the socket's cgroup readable.
    RetransmitTracepoint,
    /// BPF before and after a function of the kernel.
    Fentry,
    /// BPF among the security modules.
    Lsm,
    /// BPF that changes what a security hook returns.
    FmodRetSecurity,
    /// BPF that changes what a system call returns.
    FmodRetSyscall,
    /// Putting whoever calls to sleep, by a page of a filesystem of ours.
    FuseSleep,
    /// BPF at a kprobe.
    Kprobe,
    /// BPF at a kprobe that answers in the function's place.
    Override,
    /// Destroying a connection of somebody else's.
    SockDestroy,
    /// The qdisc that sends each packet at its time.
    Fq,
    /// The qdisc that emulates a network, and the one that chooses who goes through it.
    Netem,
    /// The device that lets a qdisc see what arrives.
    Ifb,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Btf,
        Self::Tcx,
        Self::Clsact,
        Self::TcxIngress,
        Self::ClsactIngress,
        Self::CgroupSkb,
        Self::SockAddr,
        Self::SockOps,
        Self::SyscallTracepoint,
        Self::RetransmitTracepoint,
        Self::Fentry,
        Self::Lsm,
        Self::FmodRetSecurity,
        Self::FmodRetSyscall,
        Self::FuseSleep,
        Self::Kprobe,
        Self::Override,
        Self::SockDestroy,
        Self::Fq,
        Self::Netem,
        Self::Ifb,
    ];

    /// Those that a plan may ask for; the others are for `kchaos doctor`.
    pub const PLANNABLE: [Self; 19] = [
        Self::Btf,
        Self::Tcx,
        Self::Clsact,
        Self::TcxIngress,
        Self::ClsactIngress,
        Self::CgroupSkb,
        Self::SockAddr,
        Self::SyscallTracepoint,
        Self::RetransmitTracepoint,
        Self::Fq,
        Self::Ifb,
        Self::Netem,
        Self::SockDestroy,
        Self::Lsm,
        Self::FmodRetSecurity,
        Self::FmodRetSyscall,
        Self::FuseSleep,
        Self::Kprobe,
        Self::Override,
    ];

    /// As users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::TcxIngress => "tcx ingress",
            Self::ClsactIngress => "clsact ingress",
            Self::CgroupSkb => "cgroup_skb",
            Self::SockAddr => "sock_addr",
            Self::SockOps => "sock_ops",
            Self::SyscallTracepoint => "raw_tp sys_exit",
            Self::RetransmitTracepoint => "raw_tp tcp_retransmit_skb",
            Self::Fentry => "fentry/fexit",
            Self::Lsm => "lsm",
            Self::FmodRetSecurity => "fmod_ret security_*",
            Self::FmodRetSyscall => "fmod_ret syscalls",
            Self::FuseSleep => "fuse sleep",
            Self::Kprobe => "kprobe",
            Self::Override => "kprobe override",
            Self::SockDestroy => "sock_destroy",
            Self::Fq => "fq",
            Self::Netem => "netem",
            Self::Ifb => "ifb",
        }
    }

    /// Which kernels have it.
    pub const fn provided_by(self) -> &'static str {
        match self {
            Self::Btf => "CONFIG_DEBUG_INFO_BTF (every current distribution)",
            Self::Tcx => "Linux 6.6 with CONFIG_NET_XGRESS",
            Self::Clsact => "CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF",
            Self::TcxIngress => "tcx and btf",
            Self::ClsactIngress => "clsact and btf",
            Self::CgroupSkb => "CONFIG_CGROUP_BPF and a cgroup v2 hierarchy",
            Self::SockAddr => "Linux 6.1 with CONFIG_CGROUP_BPF, a cgroup v2 hierarchy and btf",
            Self::SockOps => "CONFIG_CGROUP_BPF and a cgroup v2 hierarchy",
            Self::SyscallTracepoint => "CONFIG_BPF_EVENTS and CONFIG_HAVE_SYSCALL_TRACEPOINTS",
            Self::RetransmitTracepoint => "CONFIG_BPF_EVENTS and btf",
            Self::Fentry => "btf, CONFIG_BPF_EVENTS and ftrace with direct calls",
            Self::Lsm => "CONFIG_BPF_LSM, and `bpf` in lsm= on the kernel's command line",
            Self::FmodRetSecurity => "CONFIG_SECURITY and what fentry/fexit needs",
            Self::FmodRetSyscall => {
                "CONFIG_FUNCTION_ERROR_INJECTION (Ubuntu, RHEL 9) or Linux 7.2, and what fentry/fexit needs"
            }
            Self::FuseSleep => "Linux 6.2 with CONFIG_FUSE_FS, and lsm or fmod_ret syscalls",
            Self::Kprobe => "CONFIG_KPROBES and CONFIG_BPF_EVENTS",
            Self::Override => "CONFIG_BPF_KPROBE_OVERRIDE (Ubuntu, Amazon Linux 2023, Arch)",
            Self::SockDestroy => "CONFIG_INET_DIAG_DESTROY, and CONFIG_SOCK_CGROUP_DATA",
            Self::Fq => "Linux 5.18 with CONFIG_NET_SCH_FQ",
            Self::Netem => "CONFIG_NET_SCH_NETEM and CONFIG_NET_SCH_PRIO",
            Self::Ifb => "CONFIG_IFB",
        }
    }

    /// What needs it.
    pub const fn needed_for(self) -> &'static str {
        match self {
            Self::Btf => "tcp.retrans_ratio; everything at functions of the kernel",
            Self::Tcx => "network faults on what leaves, gone with the controller",
            Self::Clsact => "the same before Linux 6.6",
            Self::TcxIngress => "changing and copying what arrives, gone with the controller",
            Self::ClsactIngress => "the same before Linux 6.6",
            Self::CgroupSkb => "losing what arrives; net.* metrics",
            Self::SockAddr => "refusing connect, bind, sendmsg and the like, at no cost for others",
            Self::SockOps => "TCP metrics, at no cost for others",
            Self::SyscallTracepoint => "syscalls, syscall.error_ratio, syscall.organic_error_ratio",
            Self::RetransmitTracepoint => "tcp.retrans_ratio",
            Self::Fentry => "watching functions of the kernel",
            Self::Lsm => "failing and delaying system calls",
            Self::FmodRetSecurity => "failing system calls where lsm is not active",
            Self::FmodRetSyscall => "failing system calls that no security hook sees",
            Self::FuseSleep => "delaying system calls without using the processor",
            Self::Kprobe => "watching functions of the kernel without btf",
            Self::Override => "failing system calls without fmod_ret",
            Self::SockDestroy => "resetting connections",
            Self::Fq => "delays and rates",
            Self::Netem => "delays and rates without fq",
            Self::Ifb => "delays and rates of what arrives",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of trying one capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probed {
    /// Which.
    pub capability: Capability,
    /// What the kernel said if it cannot.
    pub missing_because: Option<String>,
    /// What else there is to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What this kernel can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Every capability that was tried.
    pub probed: Vec<Probed>,
    /// Functions that were looked for and are not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
    /// Functions of system calls that no program of fmod_ret may answer for, though it may for others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmodifiable: Vec<String>,
}

impl Capabilities {
    /// Whether the kernel has it. What was not tried is not there.
    pub fn has(&self, capability: Capability) -> bool {
        self.probed.iter().any(|probed| probed.capability == capability && probed.missing_because.is_none())
    }

    /// What the kernel said when it was tried, if it has it not.
    pub fn missing_because(&self, capability: Capability) -> Option<&str> {
        self.probed.iter().find(|probed| probed.capability == capability)?.missing_because.as_deref()
    }

    /// Whether a function is there that was looked for.
    pub fn has_function(&self, function: &String) -> bool {
        !self.lacking.contains(function)
    }

    /// Whether programs of fmod_ret may answer for a function, if they may for any of a system call.
    pub fn can_modify(&self, function: &String) -> bool {
        !self.unmodifiable.contains(function)
    }

    /// All but these.
    pub fn all_but(missing: &[Capability]) -> Self {
        let because = |capability: &Capability| missing.contains(capability).then(|| "not there".to_owned());
        let probed = Capability::ALL
            .iter()
            .map(|capability| Probed {
                capability: *capability,
                missing_because: because(capability),
                note: None,
            })
            .collect();
        Self { probed, lacking: Vec::new(), unmodifiable: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::{count, mechanism::Mechanism},
        steady::family::Family,
    };

    #[test]
    fn whatever_a_plan_may_ask_for_is_tried_for_it() {
        let by_mechanisms = Mechanism::ALL.into_iter().map(Mechanism::needs);
        let by_metrics = Family::ALL.into_iter().flat_map(|family| count::needs(family).iter().copied());
        for needed in by_mechanisms.chain(by_metrics) {
            assert!(Capability::PLANNABLE.contains(&needed), "{needed}");
        }
    }

    #[test]
    fn each_is_there_once() {
        for (number, capability) in Capability::ALL.into_iter().enumerate() {
            assert_eq!(capability as usize, number, "{capability}");
        }
    }
}
