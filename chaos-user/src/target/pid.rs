//! `pid:N`: the cgroup that process is in.

use super::{Cgroup, Hierarchy, Target, TargetError};

/// Resolves a process to its cgroup. Everything else in that cgroup is meant too.
pub fn resolve(hierarchy: &Hierarchy, target: &Target, pid: i32) -> Result<Cgroup, TargetError> {
    hierarchy.cgroup(target, &hierarchy.path_of(pid)?)
}
