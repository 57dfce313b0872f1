//! Targets resolved: the scope of an injection.

use super::{
    Cgroup, Device, Group, Hierarchy, Netns, Target, TargetError, docker, netns::has_our_ifb, pid, refuse,
    spared,
};
use crate::fault::spared::Spared;

/// How many processes of one target are asked for their network namespace.
const MAX_PROCESSES_ASKED: usize = 10_000;

/// Whom, as the kernel knows them. A member's index is its slot in the kernel's maps.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// Control first, then experiment, each in the order asked.
    pub members: Vec<Member>,
    /// What is spared here unless a fault says otherwise.
    pub spared: Vec<Spared>,
}

/// One target, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Which group it is in.
    pub group: Group,
    /// As asked.
    pub target: Target,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Of a container, its image.
    pub image: Option<String>,
    /// The network namespaces of the processes in it now.
    pub namespaces: Vec<Namespace>,
    /// A process in it that has a ring of io_uring.
    pub ring: Option<u32>,
}

/// A network namespace and the devices at which packets leave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// The namespace.
    pub netns: Netns,
    /// Its devices, as [`Netns::devices`] picks them.
    pub devices: Vec<Device>,
    /// Another injection holds back what arrives there.
    pub is_held: bool,
}

impl Scope {
    /// The group of each slot.
    pub fn groups(&self) -> Vec<Group> {
        self.members.iter().map(|member| member.group).collect()
    }

    /// The devices at which packets of any member leave.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.members.iter().flat_map(|member| &member.namespaces).flat_map(|namespace| &namespace.devices)
    }

    /// The members of one group, with their slots.
    pub fn group(&self, group: Group) -> impl Iterator<Item = (u32, &Member)> {
        (0..).zip(&self.members).filter(move |(_, member)| member.group == group)
    }
}

/// Resolves both groups. Only the experimental group is checked against what must not be hurt: nothing is
/// done to the control group.
pub async fn resolve(
    control: &[Target],
    experiment: &[Target],
    allowed: &[refuse::Protected],
) -> Result<Scope, TargetError> {
    let hierarchy = Hierarchy::find()?;
    let mut members = Vec::new();
    for (group, targets) in [(Group::Control, control), (Group::Experiment, experiment)] {
        for target in targets {
            let (cgroup, image) = cgroup_of(&hierarchy, target).await?;
            if group == Group::Experiment {
                refuse::check(&hierarchy, target, &cgroup, allowed)?;
            }
            let namespaces = namespaces(target, &cgroup)?;
            let ring = ring(&cgroup);
            members.push(Member { group, target: target.clone(), cgroup, image, namespaces, ring });
        }
    }
    check_disjoint(&members)?;
    Ok(Scope { spared: spared::here(&members).await?, members })
}

async fn cgroup_of(hierarchy: &Hierarchy, target: &Target) -> Result<(Cgroup, Option<String>), TargetError> {
    match target {
        Target::Cgroup(path) => Ok((hierarchy.cgroup(target, path)?, None)),
        Target::Pid(number) => Ok((pid::resolve(hierarchy, target, *number)?, None)),
        Target::Docker(name) => docker::resolve(hierarchy, target, name).await,
    }
}

/// A process that has a ring of io_uring: a descriptor says so (io_uring/io_uring.c, `io_uring_get_file`, 6.12).
fn ring(cgroup: &Cgroup) -> Option<u32> {
    const RING: &str = "anon_inode:[io_uring]";
    let has_ring = |pid: &i32| {
        // A process that is gone by now has none.
        let files = procfs::process::Process::new(*pid).and_then(|process| process.fd());
        let is_ring = |file: &procfs::process::FDInfo| match &file.target {
            procfs::process::FDTarget::AnonInode(name) => format!("anon_inode:{name}") == RING,
            procfs::process::FDTarget::Path(path) => path.as_os_str() == RING,
            _ => false,
        };
        files.is_ok_and(|files| files.flatten().any(|file| is_ring(&file)))
    };
    let processes = cgroup.processes().into_iter().take(MAX_PROCESSES_ASKED);
    processes.into_iter().find(has_ring).map(|pid| pid as u32)
}

fn namespaces(target: &Target, cgroup: &Cgroup) -> Result<Vec<Namespace>, TargetError> {
    let mut found: Vec<Netns> = Vec::new();
    for pid in cgroup.processes().into_iter().take(MAX_PROCESSES_ASKED) {
        // A process that is gone by now has no namespace to care for.
        if let Ok(netns) = Netns::of_process(pid)
            && !found.contains(&netns)
        {
            found.push(netns);
        }
    }
    if found.is_empty() {
        return Err(TargetError::Empty { target: target.clone(), path: cgroup.dir.clone() });
    }
    found.into_iter().map(namespace).collect()
}

fn namespace(netns: Netns) -> Result<Namespace, TargetError> {
    let is_held = netns
        .run(has_our_ifb)
        .map_err(TargetError::io(format!("devices of network namespace {}", netns.inode)))?;
    Ok(Namespace { devices: netns.devices()?, is_held, netns })
}

/// Two members may nest within a group, but not across groups, and never be the same cgroup.
fn check_disjoint(members: &[Member]) -> Result<(), TargetError> {
    for (i, one) in members.iter().enumerate() {
        for other in &members[i + 1..] {
            let same = one.cgroup.id == other.cgroup.id;
            let (inner, outer) = match one.cgroup.contains(&other.cgroup.path) {
                true => (other, one),
                false => (one, other),
            };
            if same || (one.group != other.group && outer.cgroup.contains(&inner.cgroup.path)) {
                return Err(TargetError::Overlap {
                    one: one.target.clone(),
                    other: other.target.clone(),
                    inner: inner.cgroup.path.clone(),
                    outer: outer.cgroup.path.clone(),
                });
            }
        }
    }
    Ok(())
}
