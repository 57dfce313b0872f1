//! The journal of what a SIGKILL would leave behind, written before it is made.
//!
//! One folder per injection under `/run/kchaos`: it also tells `status` what is in force and `stop` whom to
//! ask.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::qdisc::FilterHandle;

/// Where journals are; on a tmpfs, as a reboot undoes everything anyway.
pub const FOLDER: &str = "/run/kchaos";
const FILE: &str = "injection.json";

/// One injection, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What `status` shows and `stop` takes.
    pub id: String,
    /// What the user calls it.
    pub name: String,
    /// The controller.
    pub pid: i32,
    /// When the controller started, in clock ticks since boot: tells it from a later process of that number.
    pub pid_started_ticks: u64,
    /// Seconds since 1970.
    pub created_unix_s: u64,
    /// One line per attachment.
    pub attached: Vec<String>,
    /// What outlives the controller.
    pub residue: Vec<Residue>,
}

/// Something that outlives the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residue {
    /// Our tc filters on a device, and perhaps the qdisc that they hang on.
    Clsact {
        /// Inode of the network namespace.
        netns: u64,
        /// Name of the device.
        device: String,
        /// By which they are known.
        handle: FilterHandle,
        /// Whether the qdisc is ours to remove.
        adds_qdisc: bool,
    },
    /// Our fq qdisc at the root of a device.
    RootFq {
        /// Inode of the network namespace.
        netns: u64,
        /// Name of the device.
        device: String,
        /// For how many milliseconds it may hold packets.
        hold_ms: u64,
    },
    /// Our ifb device.
    Ifb {
        /// Inode of the network namespace.
        netns: u64,
        /// For how many milliseconds it may hold packets.
        hold_ms: u64,
    },
    /// Our prio qdisc with netem below at the root of a device.
    RootNetem {
        /// Inode of the network namespace.
        netns: u64,
        /// Name of the device.
        device: String,
        /// For how many milliseconds it may hold packets.
        hold_ms: u64,
    },
    /// A cgroup that we made, with those directly below it.
    Cgroups {
        /// Where.
        dir: PathBuf,
    },
}

/// The journal of one injection, open.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    entry: Entry,
}

impl Journal {
    /// Opens a new one.
    pub fn create(name: &str, attached: Vec<String>) -> io::Result<Self> {
        let pid = std::process::id() as i32;
        let entry = Entry {
            id: new_id(pid),
            name: name.into(),
            pid,
            pid_started_ticks: started_ticks(pid).ok_or_else(|| io::Error::other("/proc/self/stat"))?,
            created_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            attached,
            residue: Vec::new(),
        };
        let journal = Self { dir: Path::new(FOLDER).join(&entry.id), entry };
        create_dir(&journal.dir)?;
        journal.write()?;
        Ok(journal)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes something that is about to be made.
    pub fn note(&mut self, residue: Residue) -> io::Result<()> {
        self.entry.residue.push(residue);
        self.write()
    }

    /// Notes our tc filters on a device, once, and whether their qdisc is made for them.
    pub fn note_clsact(&mut self, netns: u64, device: &str, adds_qdisc: bool) -> io::Result<()> {
        let noted = self.entry.residue.iter().any(|residue| {
            matches!(residue, Residue::Clsact { netns: n, device: d, .. } if *n == netns && d == device)
        });
        if noted {
            return Ok(());
        }
        // Whoever of us ends last removes it.
        let adds_qdisc = adds_qdisc || somebody_added(netns, device)?;
        self.note(Residue::Clsact { netns, device: device.to_owned(), handle: self.filters(), adds_qdisc })
    }

    /// By which its tc filters are known.
    pub fn filters(&self) -> FilterHandle {
        FilterHandle::new(u32::from_str_radix(&self.entry.id, 16).unwrap_or_default())
    }

    /// What has been noted.
    pub fn residue(&self) -> &[Residue] {
        &self.entry.residue
    }

    /// Forgets everything: all has been undone.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.dir)
    }

    /// Whole or not at all: a reader never sees half a journal.
    fn write(&self) -> io::Result<()> {
        let new = self.dir.join("injection.json.new");
        fs::write(&new, serde_json::to_vec_pretty(&self.entry)?)?;
        fs::rename(new, self.dir.join(FILE))
    }
}

impl Entry {
    /// Whether its controller still runs.
    pub fn is_alive(&self) -> bool {
        started_ticks(self.pid) == Some(self.pid_started_ticks)
    }

    /// Where its journal is.
    pub fn dir(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.id)
    }
}

/// All journals, oldest first.
pub fn entries() -> io::Result<Vec<Entry>> {
    let dirs = match fs::read_dir(FOLDER) {
        Ok(dirs) => dirs,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut entries = Vec::new();
    for dir in dirs {
        match dir.and_then(|dir| read(&dir.path())) {
            Ok(entry) => entries.push(entry),
            // Being made, or removed, this moment; the folder itself goes with the last journal.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    entries.sort_by_key(|entry: &Entry| (entry.created_unix_s, entry.id.clone()));
    Ok(entries)
}

/// Whether another injection has added a device's clsact qdisc, alive or not.
fn somebody_added(netns: u64, device: &str) -> io::Result<bool> {
    let adds = |residue: &Residue| matches!(residue, Residue::Clsact { netns: n, device: d, adds_qdisc: true, .. } if *n == netns && d == device);
    Ok(entries()?.iter().any(|entry| entry.residue.iter().any(adds)))
}

/// An injection that ends removes the folder of journals if it is empty, which may be between two steps of this.
fn create_dir(dir: &Path) -> io::Result<()> {
    const ATTEMPTS: u32 = 10;
    for _ in 1..ATTEMPTS {
        match fs::create_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    fs::create_dir_all(dir)
}

/// Reads one journal.
pub fn read(dir: &Path) -> io::Result<Entry> {
    let text = fs::read(dir.join(FILE))?;
    parse(&text).map_err(|error| io::Error::other(format!("{}: {error}", dir.display())))
}

/// What a journal says.
pub fn parse(text: &[u8]) -> serde_json::Result<Entry> {
    serde_json::from_slice(text)
}

/// Removes one journal, and the folder of journals if it was the last.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    // Fails while others are there, which is as it should be.
    let _ = fs::remove_dir(FOLDER);
    Ok(())
}

/// When a process started; `None` if there is none, or only its corpse.
fn started_ticks(pid: i32) -> Option<u64> {
    let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
    (stat.state != 'Z' && stat.state != 'X').then_some(stat.starttime)
}

/// Short enough to type, unlikely to repeat.
fn new_id(pid: i32) -> String {
    let now = super::monotonic_ns();
    format!("{:06x}", chaos_common::random::draw(now, pid as u32, 0) & 0xff_ffff)
}
