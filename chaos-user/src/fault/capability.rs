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
    /// BPF links at a cgroup's packets.
    CgroupSkb,
    /// BPF at the exit of every system call.
    SyscallTracepoint,
    /// BPF at TCP retransmissions, with the socket's cgroup readable.
    RetransmitTracepoint,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Btf,
        Self::Tcx,
        Self::Clsact,
        Self::CgroupSkb,
        Self::SyscallTracepoint,
        Self::RetransmitTracepoint,
    ];

    /// As users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::CgroupSkb => "cgroup_skb",
            Self::SyscallTracepoint => "raw_tp sys_exit",
            Self::RetransmitTracepoint => "raw_tp tcp_retransmit_skb",
        }
    }

    /// Which kernels have it.
    pub const fn provided_by(self) -> &'static str {
        match self {
            Self::Btf => "CONFIG_DEBUG_INFO_BTF (every current distribution)",
            Self::Tcx => "Linux 6.6 with CONFIG_NET_XGRESS",
            Self::Clsact => "CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF",
            Self::CgroupSkb => "CONFIG_CGROUP_BPF and a cgroup v2 hierarchy",
            Self::SyscallTracepoint => "CONFIG_BPF_EVENTS and CONFIG_HAVE_SYSCALL_TRACEPOINTS",
            Self::RetransmitTracepoint => "CONFIG_BPF_EVENTS and btf",
        }
    }

    /// What needs it.
    pub const fn needed_for(self) -> &'static str {
        match self {
            Self::Btf => "tcp.retrans_ratio",
            Self::Tcx => "network faults on what leaves, gone with the controller",
            Self::Clsact => "the same before Linux 6.6",
            Self::CgroupSkb => "network faults on what arrives; net.* metrics",
            Self::SyscallTracepoint => "syscalls, syscall.error_ratio",
            Self::RetransmitTracepoint => "tcp.retrans_ratio",
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
}

/// What this kernel can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Every capability, tried.
    pub probed: Vec<Probed>,
}

impl Capabilities {
    /// Whether the kernel has it.
    pub fn has(&self, capability: Capability) -> bool {
        self.probed.iter().any(|probed| probed.capability == capability && probed.missing_because.is_none())
    }

    /// All but these.
    pub fn all_but(missing: &[Capability]) -> Self {
        let because = |capability: &Capability| missing.contains(capability).then(|| "not there".to_owned());
        let probed = Capability::ALL
            .iter()
            .map(|capability| Probed { capability: *capability, missing_because: because(capability) })
            .collect();
        Self { probed }
    }
}
