//! Whom: from what a user names to what the kernel knows.

pub mod address;
pub mod cgroup;
pub mod docker;
pub mod limits;
pub mod netns;
pub mod parse;
pub mod pid;
pub mod proc;
pub mod refuse;
pub mod root_qdisc;
pub mod scope;
pub mod spared;

pub use address::address_of;
pub use cgroup::{Cgroup, Hierarchy};
pub use netns::{Device, Netns};
pub use scope::{Member, Namespace, Scope, resolve};

use std::path::PathBuf;

/// The two sets of targets that an experiment compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Nothing is done to these.
    Control,
    /// The faults are for these.
    Experiment,
}

/// Whom, as asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `cgroup:/PATH`, from the root of the cgroup v2 hierarchy.
    Cgroup(PathBuf),
    /// `pid:N`: the cgroup that process is in.
    Pid(i32),
    /// `docker:NAME|ID`.
    Docker(String),
}

/// Why a target could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No cgroup v2 hierarchy is mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted; kchaos needs one (hosts with cgroup v1 alone are not supported)"
    )]
    NoCgroup2,
    /// We cannot see the real hierarchy.
    #[error(
        "kchaos runs in a cgroup namespace of its own and cannot see the host's cgroups; \
         start it in the host's (docker run --cgroupns=host)"
    )]
    CgroupNamespace,
    /// There is no such cgroup.
    #[error("{target}: there is no cgroup {}", path.display())]
    NoSuchCgroup {
        /// As asked.
        target: Target,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is no such process.
    #[error("pid:{pid}: there is no such process")]
    NoSuchProcess {
        /// As asked.
        pid: i32,
    },
    /// A process in no cgroup v2 cgroup.
    #[error("pid:{pid}: the process has no cgroup v2 membership")]
    NotInCgroup2 {
        /// As asked.
        pid: i32,
    },
    /// Nothing runs there, so its network namespace is unknown.
    #[error("{target}: no process runs in {}, so its network namespace is unknown; start it first", path.display())]
    Empty {
        /// As asked.
        target: Target,
        /// The cgroup.
        path: PathBuf,
    },
    /// Nothing that a probe could be sent to.
    #[error(
        "{target}: its network namespace has no address but its own loopback, so no probe reaches it; connect it to a network, or leave out `probes`"
    )]
    NoAddress {
        /// As asked.
        target: Target,
    },
    /// Docker did not know the container, or did not answer.
    #[error("docker:{name}: {reason}")]
    Docker {
        /// As asked.
        name: String,
        /// What it said.
        reason: String,
    },
    /// Two targets are the same cgroup or lie in one another, in different groups.
    #[error("{one} and {other} overlap: {} lies in {}; the groups must be disjoint", inner.display(), outer.display())]
    Overlap {
        /// As asked.
        one: Target,
        /// As asked.
        other: Target,
        /// The deeper cgroup.
        inner: PathBuf,
        /// The one above, or the same.
        outer: PathBuf,
    },
    /// Somebody whom kchaos talks to, and who therefore must be spared, cannot be found.
    #[error("{variable} names `{host}`, which must be spared: {reason}; correct it or unset it")]
    Endpoint {
        /// The variable of the environment.
        variable: &'static str,
        /// Whom it names.
        host: String,
        /// Why there is no address.
        reason: String,
    },
    /// A target that must not be hurt.
    #[error(transparent)]
    Refused(#[from] refuse::Refusal),
    /// The system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        source: std::io::Error,
    },
}

impl TargetError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
