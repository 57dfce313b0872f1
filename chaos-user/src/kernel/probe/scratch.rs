//! Places made for a probe, where nobody else is hurt: a cgroup with a child of ours in it, and network
//! namespaces with nothing but `lo`. All of it ends with the probe.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use libc::c_int;
use rtnetlink::LinkUnspec;

use crate::{
    fault::plan::Place,
    target::{Device, Hierarchy, Netns, netns::with_netlink, root_qdisc::RootQdisc},
};

const PREFIX: &str = "kchaos-probe-";
/// Depth of a cgroup right below the root.
const LEVEL: u32 = 1;
const LO: u32 = 1;

/// A cgroup of the probe's own, right below the root.
#[derive(Debug)]
pub struct ScratchCgroup {
    dir: PathBuf,
    /// As the kernel knows it.
    pub id: u64,
    /// Its depth.
    pub level: u32,
}

impl ScratchCgroup {
    /// A new one. Those of probes that were killed are removed.
    pub fn new() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let hierarchy = Hierarchy::find().map_err(|error| error.to_string())?;
        sweep(hierarchy.mount());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = hierarchy.mount().join(format!("{PREFIX}{}-{number}", process::id()));
        let made = fs::create_dir(&dir).and_then(|()| fs::metadata(&dir));
        let id = made.map_err(|error| format!("{}: {error}", dir.display()))?.ino();
        Ok(Self { dir, id, level: LEVEL })
    }

    /// Opened, to attach something to it.
    pub fn open(&self) -> Result<File, String> {
        File::open(&self.dir).map_err(|error| format!("{}: {error}", self.dir.display()))
    }

    /// Lets a child in this cgroup and in `netns` act, and returns what came of it: 0 or an errno.
    ///
    /// `act` runs between fork and exit of a program with threads: it may make system calls and nothing else,
    /// no allocation in particular (signal-safety(7)).
    pub fn act(&self, netns: Option<&Netns>, act: impl Fn() -> c_int) -> Result<c_int, String> {
        let procs = self.dir.join("cgroup.procs");
        let procs = fs::OpenOptions::new().write(true).open(&procs);
        let procs = procs.map_err(|error| format!("{}: {error}", self.dir.display()))?;
        let netns = netns.map(|netns| netns.file().as_raw_fd());
        // SAFETY: the child makes system calls and exits.
        match unsafe { libc::fork() } {
            -1 => Err(format!("fork: {}", io::Error::last_os_error())),
            0 => child(procs.as_raw_fd(), netns, act),
            pid => outcome(pid),
        }
    }
}

impl Drop for ScratchCgroup {
    fn drop(&mut self) {
        const ATTEMPTS: u32 = 100;
        // A process leaves its cgroup a moment after its parent has heard of its end.
        for _ in 0..ATTEMPTS {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return log::warn!("{} was left behind: {error}", self.dir.display()),
                Ok(()) => return,
            }
        }
        log::warn!("{} was left behind: it stays in use", self.dir.display());
    }
}

/// Removes what probes that were killed have left: their processes ended with them.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another probe may be doing the same at this moment.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Exit codes that no errno has (include/uapi/asm-generic/errno.h ends at 133).
const NOT_IN_CGROUP: c_int = 200;
const NOT_IN_NETNS: c_int = 201;

/// How long a child may take.
const SECONDS: u32 = 10;

fn child(procs: RawFd, netns: Option<RawFd>, act: impl Fn() -> c_int) -> ! {
    // SAFETY: system calls on descriptors that are open and memory that is there; `_exit` runs no destructor.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(SECONDS);
        let code = if libc::write(procs, c"0".as_ptr().cast(), 1) != 1 {
            NOT_IN_CGROUP
        } else if netns.is_some_and(|netns| libc::setns(netns, libc::CLONE_NEWNET) != 0) {
            NOT_IN_NETNS
        } else {
            act()
        };
        libc::_exit(code)
    }
}

fn outcome(pid: libc::pid_t) -> Result<c_int, String> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours.
        match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(format!("waitpid: {}", io::Error::last_os_error())),
            _ => break,
        }
    }
    if !libc::WIFEXITED(status) {
        return Err(match libc::WTERMSIG(status) {
            libc::SIGALRM => format!("the trial took longer than {SECONDS} s"),
            signal => format!("the trial was ended by signal {signal}"),
        });
    }
    match libc::WEXITSTATUS(status) {
        NOT_IN_CGROUP => Err("the trial could not enter its cgroup".into()),
        NOT_IN_NETNS => Err("the trial could not enter its network namespace".into()),
        code => Ok(code),
    }
}

/// `lo`, up, in a network namespace of its own.
pub fn lo() -> Result<Place, String> {
    let netns = Netns::create().map_err(|error| format!("a network namespace: {error}"))?;
    let up = netns.run(|| {
        with_netlink(async |handle| {
            let up = LinkUnspec::new_with_index(LO).up().build();
            handle.link().set(up).execute().await.map_err(io::Error::other)
        })
    });
    up.and_then(|up| up).map_err(|error| format!("lo of a network namespace: {error}"))?;
    let device = Device { ifindex: LO, name: "lo".into(), ethernet: true, root: RootQdisc::none() };
    Ok(Place { netns, device })
}
