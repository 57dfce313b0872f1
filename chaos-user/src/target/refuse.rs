//! Targets that must not be hurt.

use std::{fmt, path::PathBuf};

use procfs::process::Process;

use super::{Cgroup, Hierarchy, Target};

/// What makes a target off limits. Each kind is overridden by its own word, so that nobody overrides more
/// than they meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protected {
    /// The root of the hierarchy: the whole host.
    Root,
    /// kchaos itself, and the shell it was started from.
    Own,
    /// Process 1.
    Init,
    /// The way in.
    Sshd,
    /// The node's agent.
    Kubelet,
    /// A container runtime.
    Runtime,
}

impl Protected {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Root, Self::Own, Self::Init, Self::Sshd, Self::Kubelet, Self::Runtime];

    /// The word that overrides it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Own => "own",
            Self::Init => "init",
            Self::Sshd => "sshd",
            Self::Kubelet => "kubelet",
            Self::Runtime => "runtime",
        }
    }

    /// What a process's name makes it.
    fn of_process(pid: i32, name: &str) -> Option<Self> {
        match name {
            _ if pid == 1 => Some(Self::Init),
            "sshd" => Some(Self::Sshd),
            "kubelet" => Some(Self::Kubelet),
            "dockerd" | "containerd" | "crio" | "podman" => Some(Self::Runtime),
            _ => None,
        }
    }
}

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A target that is off limits, and how to insist.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{target} is refused: {} {reason}; --allow-target {kind} overrides this", path.display())]
pub struct Refusal {
    /// As asked.
    pub target: Target,
    /// The cgroup.
    pub path: PathBuf,
    /// Why.
    pub kind: Protected,
    /// Why, in words.
    pub reason: String,
}

/// Refuses a target that contains what must not be hurt, unless `allowed` says otherwise.
pub fn check(
    hierarchy: &Hierarchy,
    target: &Target,
    cgroup: &Cgroup,
    allowed: &[Protected],
) -> Result<(), Refusal> {
    let refuse = |kind: Protected, reason: String| {
        if allowed.contains(&kind) {
            return Ok(());
        }
        Err(Refusal { target: target.clone(), path: cgroup.path.clone(), kind, reason })
    };
    if cgroup.level == 0 {
        return refuse(Protected::Root, "is the root cgroup, which is the whole host".into());
    }
    if hierarchy.path_of(std::process::id() as i32).is_ok_and(|own| cgroup.contains(&own)) {
        refuse(Protected::Own, "holds kchaos itself".into())?;
    }
    for pid in cgroup.processes() {
        let Ok(stat) = Process::new(pid).and_then(|process| process.stat()) else { continue };
        if let Some(kind) = Protected::of_process(pid, &stat.comm) {
            refuse(kind, format!("holds {} (process {pid})", stat.comm))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_matter() {
        assert_eq!(Protected::of_process(1, "anything"), Some(Protected::Init));
        assert_eq!(Protected::of_process(7, "sshd"), Some(Protected::Sshd));
        assert_eq!(Protected::of_process(7, "containerd"), Some(Protected::Runtime));
        assert_eq!(Protected::of_process(7, "nginx"), None);
    }
}
