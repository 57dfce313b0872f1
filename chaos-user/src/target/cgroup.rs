//! The cgroup v2 hierarchy.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Target, TargetError, proc};

/// Inode of the initial cgroup namespace (include/linux/proc_ns.h, PROC_CGROUP_INIT_INO, 6.18).
const INITIAL_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;
/// How many cgroups below a target are walked.
const MAX_DESCENDANTS: usize = 4096;

/// Where the cgroup v2 hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    mount: PathBuf,
}

/// One cgroup, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// From the root of the hierarchy: `/docker/abc`.
    pub path: PathBuf,
    /// Where its files are.
    pub dir: PathBuf,
    /// Its id, what `bpf_skb_cgroup_id` returns: the inode of its directory
    /// (fs/kernfs/mount.c, `kernfs_encode_fh`: on 64-bit hosts the two are one number).
    pub id: u64,
    /// Its depth; the root is 0.
    pub level: u32,
}

impl Hierarchy {
    /// Finds the mount, as its own hierarchy or beside cgroup v1 (a hybrid host, where only membership in
    /// this one counts).
    pub fn find() -> Result<Self, TargetError> {
        let namespace =
            fs::metadata("/proc/self/ns/cgroup").map_err(TargetError::io("/proc/self/ns/cgroup"))?;
        if namespace.ino() != INITIAL_CGROUP_NAMESPACE {
            return Err(TargetError::CgroupNamespace);
        }
        let mounts = fs::read("/proc/self/mountinfo").map_err(TargetError::io("/proc/self/mountinfo"))?;
        proc::cgroup2_mount(&mounts).map(|mount| Self { mount }).ok_or(TargetError::NoCgroup2)
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The cgroup at `path`, counted from the root of the hierarchy.
    pub fn cgroup(&self, target: &Target, path: &Path) -> Result<Cgroup, TargetError> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let dir = self.mount.join(relative);
        let metadata = fs::metadata(dir.join("cgroup.procs"))
            .and_then(|_| fs::metadata(&dir))
            .map_err(|_| TargetError::NoSuchCgroup { target: target.clone(), path: dir.clone() })?;
        Ok(Cgroup {
            path: Path::new("/").join(relative),
            id: metadata.ino(),
            level: relative.components().count() as u32,
            dir,
        })
    }

    /// The cgroup a process is in, from the root of the hierarchy.
    pub fn path_of(&self, pid: i32) -> Result<PathBuf, TargetError> {
        let cgroups =
            fs::read(format!("/proc/{pid}/cgroup")).map_err(|_| TargetError::NoSuchProcess { pid })?;
        proc::cgroup2_path(&cgroups).ok_or(TargetError::NotInCgroup2 { pid })
    }
}

impl Cgroup {
    /// Processes in it and below it, as the kernel lists them now.
    pub fn processes(&self) -> Vec<i32> {
        let mut dirs = vec![self.dir.clone()];
        let mut pids = Vec::new();
        for i in 0..MAX_DESCENDANTS {
            let Some(dir) = dirs.get(i).cloned() else { break };
            // A cgroup may go while we look: what is gone has no processes.
            let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            if let Ok(entries) = fs::read_dir(&dir) {
                dirs.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
            }
        }
        pids
    }

    /// Its id and those of all cgroups below it, as far as they are there now.
    pub fn ids(&self) -> Vec<u64> {
        let mut dirs = vec![self.dir.clone()];
        let mut ids = Vec::new();
        for i in 0..MAX_DESCENDANTS {
            let Some(dir) = dirs.get(i).cloned() else { break };
            // A cgroup may go while we look: what is gone has no id.
            ids.extend(fs::metadata(&dir).map(|dir| dir.ino()));
            if let Ok(entries) = fs::read_dir(&dir) {
                dirs.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
            }
        }
        ids
    }

    /// Whether `other` is this cgroup or lies below it.
    pub fn contains(&self, other: &Path) -> bool {
        other.starts_with(&self.path)
    }
}

/// Removes a cgroup and those directly below it, which must be empty. What is already gone is no error.
pub fn remove(dir: &Path) -> io::Result<()> {
    let below = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        below => below?,
    };
    for entry in below.flatten().filter(|entry| entry.path().is_dir()) {
        fs::remove_dir(entry.path())?;
    }
    fs::remove_dir(dir)
}
