//! A Docker daemon for the tests that need one: the machine's own if it answers, else one of our own,
//! in its own mount and network namespaces and with all its files in one temporary folder, so that
//! nothing of the machine changes. Dropping it ends it.

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::run::{capture, quietly};

/// Tells the tests where the daemon is.
pub(crate) const HOST_VARIABLE: &str = "KCHAOS_TEST_DOCKER_HOST";

const SYSTEM_SOCKET: &str = "/var/run/docker.sock";
const READY_WITHIN: Duration = Duration::from_secs(40);
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const FOLDER_PREFIX: &str = "kchaos-docker-";

/// Runs in the daemon's namespaces. Docker and containerd write to some fixed places, which get a throw-away
/// layer on top. Docker takes version 2 of cgroups only if that is what is mounted at /sys/fs/cgroup; the
/// tree itself is the machine's, so containers appear in it as /docker/<id>.
const START: &str = r#"
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir "$1/layers"
mount -t tmpfs tmpfs "$1/layers"
for folder in etc opt; do
    mkdir -p "$1/layers/$folder" "$1/layers/$folder-work"
    mount -t overlay overlay /$folder \
        -o "lowerdir=/$folder,upperdir=$1/layers/$folder,workdir=$1/layers/$folder-work" || true
done
if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -l /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
exec dockerd --host "unix://$1/docker.sock" --data-root "$1/data" --exec-root "$1/exec" \
    --pidfile "$1/pid" --storage-driver "$2" --live-restore=false
"#;

/// A daemon that answers.
#[must_use = "dropping it ends the daemon"]
pub(crate) enum Docker {
    /// The machine's own.
    System,
    /// Ours.
    Own(Daemon),
}

impl Docker {
    /// Finds or starts a daemon.
    pub(crate) fn start() -> Result<Self> {
        if answers(Path::new(SYSTEM_SOCKET)) {
            return Ok(Self::System);
        }
        sweep();
        // overlay2 is quick; vfs works on every file system.
        Daemon::start("overlay2").or_else(|_| Daemon::start("vfs")).map(Self::Own)
    }

    /// As `DOCKER_HOST` takes it.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::System => format!("unix://{SYSTEM_SOCKET}"),
            Self::Own(daemon) => daemon.host(),
        }
    }
}

/// A daemon that we started.
pub(crate) struct Daemon {
    process: Child,
    folder: PathBuf,
    cgroups: Cgroups,
}

impl Daemon {
    fn start(storage_driver: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("{FOLDER_PREFIX}{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let log = fs::File::create(folder.join("log"))?;
        let cgroups = Cgroups::now();
        // PDEATHSIG: if we are killed, the daemon ends too, and with it its containers.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "unshare", "--mount", "--net", "sh", "-c", START, "dockerd"])
            .arg(&folder)
            .arg(storage_driver)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting dockerd (setpriv, unshare: package util-linux)")?;
        let mut daemon = Self { process, folder, cgroups };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !answers(&self.socket()) {
            if let Some(status) = self.process.try_wait()? {
                bail!("dockerd ended ({status}): {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("dockerd did not answer within {} s: {}", READY_WITHIN.as_secs(), self.last_words());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Tests remove their containers; one that died has not.
    fn remove_containers(&self) {
        let docker = || {
            let mut docker = Command::new("docker");
            docker.args(["--host", &self.host()]);
            docker
        };
        let Ok(ids) = capture(docker().args(["ps", "--all", "--quiet"])) else { return };
        let ids: Vec<_> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            quietly(docker().args(["rm", "--force"]).args(ids));
        }
    }

    fn end_process(&mut self) {
        let namespace = mount_namespace(&self.process.id().to_string());
        signal("TERM", &[self.process.id().to_string()]);
        let deadline = Instant::now() + ENDS_WITHIN;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        // containerd and its shims share the daemon's mount namespace, and nobody else does.
        if let Some(namespace) = namespace.filter(|ours| mount_namespace("self").as_ref() != Some(ours)) {
            signal("KILL", &processes_in(&namespace));
        }
        // It has ended, or it cannot; there is nothing else to do about it.
        let _ = self.process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.remove_containers();
        self.end_process();
        self.cgroups.restore();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("could not remove {}: {error}", self.folder.display());
        }
    }
}

/// Whether a Docker daemon answers on this socket.
fn answers(socket: &Path) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut status = [0; 15];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b"200 OK"))
    };
    ping().unwrap_or(false)
}

/// What the daemon changes in the machine's cgroup tree: it makes folders, and enables controllers.
struct Cgroups {
    root: Option<PathBuf>,
    folders: HashSet<PathBuf>,
    controllers: HashSet<String>,
}

impl Cgroups {
    fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = cgroup2_mount(&mounts).map(PathBuf::from);
        let (folders, controllers) = root.as_deref().map(contents).unwrap_or_default();
        Self { root, folders, controllers }
    }

    /// Removes what was not there before. A folder that is still in use stays, as rmdir refuses.
    fn restore(&self) {
        let Some(root) = &self.root else { return };
        let (folders, controllers) = contents(root);
        for folder in folders.difference(&self.folders).filter(|folder| is_dockers(folder)) {
            remove_empty(folder);
        }
        for controller in controllers.difference(&self.controllers) {
            // Refused while somebody below uses it, which is then not ours to end.
            let _ = fs::write(root.join("cgroup.subtree_control"), format!("-{controller}"));
        }
    }
}

fn contents(root: &Path) -> (HashSet<PathBuf>, HashSet<String>) {
    let controllers = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    (folders_in(root).collect(), controllers.split_whitespace().map(str::to_owned).collect())
}

fn folders_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

fn is_dockers(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name == "docker" || name == "containerd" || name == "moby")
}

fn remove_empty(folder: &Path) {
    folders_in(folder).for_each(|child| remove_empty(&child));
    // Fails for a folder with processes in it, which must stay.
    let _ = fs::remove_dir(folder);
}

fn cgroup2_mount(mounts: &str) -> Option<&str> {
    mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [_, at, "cgroup2", ..] => Some(at),
        _ => None,
    })
}

/// Removes the folders of daemons whose starter was killed.
fn sweep() {
    for folder in folders_in(&std::env::temp_dir()) {
        let starter = folder.file_name().and_then(|name| name.to_str()?.strip_prefix(FOLDER_PREFIX));
        if starter.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Somebody else's, or still in use: it stays.
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

fn mount_namespace(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn processes_in(namespace: &Path) -> Vec<String> {
    let names =
        folders_in(Path::new("/proc")).filter_map(|folder| folder.file_name()?.to_str().map(str::to_owned));
    names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| mount_namespace(pid).as_deref() == Some(namespace))
        .collect()
}

fn signal(name: &str, pids: &[String]) {
    if !pids.is_empty() {
        quietly(Command::new("sh").args(["-c", r#"kill -s "$0" "$@""#, name]).args(pids));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cgroup2_among_the_mounts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_missing_socket_does_not_answer() {
        assert!(!answers(Path::new("/nonexistent/docker.sock")));
    }
}
