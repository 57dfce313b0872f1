//! The ladder: for each thing a fault needs, the ways to do it, best first.

use std::fmt;

use serde::Serialize;

use super::capability::{Capabilities, Capability};

/// One way to do a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// A TCX link on each device, in the target's network namespace.
    TcxEgress,
    /// A tc filter on a clsact qdisc on each device.
    ClsactEgress,
    /// A TCX link on each device, where packets arrive.
    TcxIngress,
    /// A tc filter on a clsact qdisc on each device, where packets arrive.
    ClsactIngress,
    /// A link at the target's cgroup.
    CgroupSkbIngress,
    /// The root qdisc that sends each packet at its time.
    Fq,
    /// The device through which what arrives takes a way round, so that a qdisc can hold it back.
    Ifb,
    /// A root qdisc with queues that delay what is sent to them.
    Netem,
    /// Links at the target's cgroup, where calls on sockets pass.
    CgroupSock,
    /// Requests to sock_diag, in the target's network namespaces.
    SockDiag,
    /// Programs at hooks of the security modules.
    Lsm,
    /// Programs in the place of the functions that run these hooks.
    FmodRetSecurity,
    /// Programs in the place of the functions of system calls.
    FmodRetSyscall,
    /// The same by kprobes.
    Kprobe,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::TcxEgress,
        Self::ClsactEgress,
        Self::TcxIngress,
        Self::ClsactIngress,
        Self::CgroupSkbIngress,
        Self::Fq,
        Self::Ifb,
        Self::Netem,
        Self::CgroupSock,
        Self::SockDiag,
        Self::Lsm,
        Self::FmodRetSecurity,
        Self::FmodRetSyscall,
        Self::Kprobe,
    ];

    /// As users read and write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcxEgress => "tcx-egress",
            Self::ClsactEgress => "clsact-egress",
            Self::TcxIngress => "tcx-ingress",
            Self::ClsactIngress => "clsact-ingress",
            Self::CgroupSkbIngress => "cgroup-skb-ingress",
            Self::Fq => "fq",
            Self::Ifb => "ifb",
            Self::Netem => "netem",
            Self::CgroupSock => "cgroup-sock",
            Self::SockDiag => "sock-diag",
            Self::Lsm => "lsm",
            Self::FmodRetSecurity => "fmod-ret-security",
            Self::FmodRetSyscall => "fmod-ret-syscall",
            Self::Kprobe => "kprobe",
        }
    }

    /// What the kernel must be able to do.
    pub const fn needs(self) -> Capability {
        match self {
            Self::TcxEgress => Capability::Tcx,
            Self::ClsactEgress => Capability::Clsact,
            Self::TcxIngress => Capability::TcxIngress,
            Self::ClsactIngress => Capability::ClsactIngress,
            Self::CgroupSkbIngress => Capability::CgroupSkb,
            Self::Fq => Capability::Fq,
            Self::Ifb => Capability::Ifb,
            Self::Netem => Capability::Netem,
            Self::CgroupSock => Capability::SockAddr,
            Self::SockDiag => Capability::SockDestroy,
            Self::Lsm => Capability::Lsm,
            Self::FmodRetSecurity => Capability::FmodRetSecurity,
            Self::FmodRetSyscall => Capability::FmodRetSyscall,
            Self::Kprobe => Capability::Override,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Nothing this kernel can do would work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unplannable {
    /// What was asked for.
    pub what: String,
    /// Each mechanism tried, and what it lacked.
    pub tried: Vec<Tried>,
}

/// A mechanism that would not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Which.
    pub mechanism: Mechanism,
    /// What it lacks.
    pub lacks: Capability,
    /// What the kernel said when that was tried.
    pub because: Option<String>,
}

impl Tried {
    /// Of a kernel that can do these.
    pub fn new(mechanism: Mechanism, lacks: Capability, capabilities: &Capabilities) -> Self {
        Self { mechanism, lacks, because: capabilities.missing_because(lacks).map(str::to_owned) }
    }
}

impl fmt::Display for Unplannable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this kernel cannot do {}:", self.what)?;
        if self.tried.is_empty() {
            f.write_str(" it has no such call, or no place to meet it;")?;
        }
        for Tried { mechanism, lacks, because } in &self.tried {
            write!(f, " {mechanism} needs {lacks} ({})", lacks.provided_by())?;
            if let Some(because) = because {
                write!(f, ", and here {because}")?;
            }
            f.write_str(";")?;
        }
        write!(f, " `kchaos doctor` shows what it has")
    }
}

/// The first mechanism of a ladder that the kernel can do. `forced` narrows the ladder to itself where it
/// is on it; `what` is for the error.
pub fn choose(
    ladder: &[Mechanism],
    what: &str,
    capabilities: &Capabilities,
    forced: Option<Mechanism>,
) -> Result<Mechanism, Unplannable> {
    let forced = forced.filter(|mechanism| ladder.contains(mechanism));
    let candidates =
        || ladder.iter().copied().filter(|mechanism| forced.is_none_or(|only| only == *mechanism));
    candidates().find(|mechanism| capabilities.has(mechanism.needs())).ok_or_else(|| Unplannable {
        what: what.to_owned(),
        tried: candidates().map(|mechanism| Tried::new(mechanism, mechanism.needs(), capabilities)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EGRESS: &[Mechanism] = &[Mechanism::TcxEgress, Mechanism::ClsactEgress];

    #[test]
    fn the_best_comes_first_and_the_next_when_it_is_missing() {
        let all = Capabilities::all_but(&[]);
        assert_eq!(choose(EGRESS, "it", &all, None), Ok(Mechanism::TcxEgress));
        let old = Capabilities::all_but(&[Capability::Tcx]);
        assert_eq!(choose(EGRESS, "it", &old, None), Ok(Mechanism::ClsactEgress));
        let forced = Some(Mechanism::ClsactEgress);
        assert_eq!(choose(EGRESS, "it", &all, forced), Ok(Mechanism::ClsactEgress));
        let ingress = &[Mechanism::CgroupSkbIngress];
        assert_eq!(choose(ingress, "it", &all, forced), Ok(Mechanism::CgroupSkbIngress));
    }

    #[test]
    fn a_kernel_without_any_is_told_what_each_lacked() {
        let none = Capabilities::all_but(&[Capability::Tcx, Capability::Clsact]);
        let error = choose(EGRESS, "it", &none, None).expect_err("nothing is there");
        assert_eq!(error.tried.len(), 2);
        let lacks = "tcx-egress needs tcx (Linux 6.6 with CONFIG_NET_XGRESS), and here not there;";
        assert!(error.to_string().contains(lacks), "{error}");
    }
}
