//! What the files of a cgroup say (Documentation/admin-guide/cgroup-v2.rst, 6.18). What a file does not say, or a file
//! that is not there, is `None` and never 0: a controller may be off, an option of the kernel missing, the cgroup gone.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

/// One reading of a cgroup's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupFiles {
    /// Memory.
    pub memory: Memory,
    /// Processors.
    pub cpu: Cpu,
    /// Time that threads lost, waiting for a processor.
    pub cpu_pressure: Stalls,
    /// The same for memory.
    pub memory_pressure: Stalls,
    /// The same for devices.
    pub io_pressure: Stalls,
    /// What went to devices and came from them, all devices together.
    pub io: Option<Io>,
    /// Processes and threads in it and below.
    pub pids: Option<u64>,
}

/// What `memory.current`, `memory.stat` and `memory.events` say. The first three are what there is, the others count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it, in bytes.
    pub current_bytes: Option<u64>,
    /// Memory of no file, in bytes.
    pub anon_bytes: Option<u64>,
    /// Memory of files, in bytes.
    pub file_bytes: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Those that had to wait for a device.
    pub major_faults: Option<u64>,
    /// Pages of no file that were taken away and soon wanted back.
    pub refaults_anon: Option<u64>,
    /// The same for pages of files.
    pub refaults_file: Option<u64>,
    /// How often its limit was reached and nothing could be taken away.
    pub oom: Option<u64>,
    /// Processes killed for that.
    pub oom_kills: Option<u64>,
}

/// What `cpu.stat` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Time on processors, in microseconds.
    pub usage_us: Option<u64>,
    /// Periods in which its share was used up; none where no share is set.
    pub throttled: Option<u64>,
    /// Time that its threads were held back then, in microseconds.
    pub throttled_us: Option<u64>,
}

/// What a `*.pressure` says since the cgroup was made, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalls {
    /// Time in which some thread waited.
    pub some_us: Option<u64>,
    /// Time in which all did.
    pub full_us: Option<u64>,
}

/// What `io.stat` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests that read.
    pub reads: u64,
    /// Requests that wrote.
    pub writes: u64,
}

impl CgroupFiles {
    /// Reads them all.
    pub fn read(dir: &Path) -> Self {
        let text = |name| fs::read_to_string(dir.join(name)).ok();
        let (stat, events, cpu) = (text("memory.stat"), text("memory.events"), text("cpu.stat"));
        let of = |text: &Option<String>, key| keyed(text.as_deref()?, key);
        let stalls = |name| text(name).map_or_else(Stalls::default, |text| stalls(&text));
        Self {
            memory: Memory {
                current_bytes: text("memory.current").and_then(|text| number(&text)),
                anon_bytes: of(&stat, "anon"),
                file_bytes: of(&stat, "file"),
                page_faults: of(&stat, "pgfault"),
                major_faults: of(&stat, "pgmajfault"),
                refaults_anon: of(&stat, "workingset_refault_anon"),
                refaults_file: of(&stat, "workingset_refault_file"),
                oom: of(&events, "oom"),
                oom_kills: of(&events, "oom_kill"),
            },
            cpu: Cpu {
                usage_us: of(&cpu, "usage_usec"),
                throttled: of(&cpu, "nr_throttled"),
                throttled_us: of(&cpu, "throttled_usec"),
            },
            cpu_pressure: stalls("cpu.pressure"),
            memory_pressure: stalls("memory.pressure"),
            io_pressure: stalls("io.pressure"),
            io: text("io.stat").and_then(|text| io(&text)),
            pids: text("pids.current").and_then(|text| number(&text)),
        }
    }
}

impl CgroupFiles {
    /// Both together, as far as both are known.
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |of: fn(&Self) -> Option<u64>| of(self)?.checked_add(of(other)?);
        let io = self.io.zip(other.io);
        Self {
            memory: Memory {
                current_bytes: sum(|files| files.memory.current_bytes),
                anon_bytes: sum(|files| files.memory.anon_bytes),
                file_bytes: sum(|files| files.memory.file_bytes),
                page_faults: sum(|files| files.memory.page_faults),
                major_faults: sum(|files| files.memory.major_faults),
                refaults_anon: sum(|files| files.memory.refaults_anon),
                refaults_file: sum(|files| files.memory.refaults_file),
                oom: sum(|files| files.memory.oom),
                oom_kills: sum(|files| files.memory.oom_kills),
            },
            cpu: Cpu {
                usage_us: sum(|files| files.cpu.usage_us),
                throttled: sum(|files| files.cpu.throttled),
                throttled_us: sum(|files| files.cpu.throttled_us),
            },
            cpu_pressure: Stalls {
                some_us: sum(|files| files.cpu_pressure.some_us),
                full_us: sum(|files| files.cpu_pressure.full_us),
            },
            memory_pressure: Stalls {
                some_us: sum(|files| files.memory_pressure.some_us),
                full_us: sum(|files| files.memory_pressure.full_us),
            },
            io_pressure: Stalls {
                some_us: sum(|files| files.io_pressure.some_us),
                full_us: sum(|files| files.io_pressure.full_us),
            },
            io: io.map(|(one, other)| Io {
                read_bytes: one.read_bytes.saturating_add(other.read_bytes),
                written_bytes: one.written_bytes.saturating_add(other.written_bytes),
                reads: one.reads.saturating_add(other.reads),
                writes: one.writes.saturating_add(other.writes),
            }),
            pids: sum(|files| files.pids),
        }
    }
}

/// A file that is one number.
pub fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

/// The number beside a key: `anon 4096`.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).and_then(number)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`, which cpu.pressure has since 5.13.
pub fn stalls(text: &str) -> Stalls {
    let total = |which: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(' '))?;
        number(line.split(' ').find_map(|field| field.strip_prefix("total="))?)
    };
    Stalls { some_us: total("some"), full_us: total("full") }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6` for each device; nothing yet where there is no line. A device
/// that has said nothing stands there by its number alone (block/blk-cgroup.c, `blkcg_print_one_stat`, 6.1).
pub fn io(text: &str) -> Option<Io> {
    let of = |line: &str, key: &str| {
        let field = line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        field.map_or(Some(0), number)
    };
    text.lines().try_fold(Io::default(), |sum, line| {
        Some(Io {
            read_bytes: sum.read_bytes.checked_add(of(line, "rbytes")?)?,
            written_bytes: sum.written_bytes.checked_add(of(line, "wbytes")?)?,
            reads: sum.reads.checked_add(of(line, "rios")?)?,
            writes: sum.writes.checked_add(of(line, "wios")?)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let text = "anon 4096\nanon_thp 7\nfile 0\nworkingset_refault_file 12\n";
        assert_eq!(keyed(text, "anon"), Some(4096));
        assert_eq!(keyed(text, "workingset_refault_file"), Some(12));
        assert_eq!(keyed(text, "workingset_refault"), None);
        assert_eq!(keyed("oom many\n", "oom"), None);
        assert_eq!((number("12\n"), number("max\n"), number("")), (Some(12), None, None));
    }

    #[test]
    fn pressure_is_its_total() {
        let text = "some avg10=1.00 avg60=0.20 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=45\n";
        assert_eq!(stalls(text), Stalls { some_us: Some(123), full_us: Some(45) });
        let older = "some avg10=1.00 avg60=0.20 avg300=0.00 total=9\n";
        assert_eq!(stalls(older), Stalls { some_us: Some(9), full_us: None });
        assert_eq!(stalls(""), Stalls::default());
    }

    #[test]
    fn devices_are_added_up() {
        let text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n259:1 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=0 dios=0\n";
        let sum = Io { read_bytes: 11, written_bytes: 22, reads: 33, writes: 44 };
        assert_eq!(io(text), Some(sum));
        assert_eq!((io(""), io("8:0 \n")), (Some(Io::default()), Some(Io::default())));
        assert_eq!(io("8:0 rbytes=x wbytes=2\n"), None);
        assert_eq!(io(&format!("8:0 rbytes={0}\n8:1 rbytes={0}\n", u64::MAX)), None);
    }

    #[test]
    fn what_is_not_there_is_nothing_and_not_zero() {
        assert_eq!(CgroupFiles::read(Path::new("/nonexistent")), CgroupFiles::default());
        let dir = std::env::temp_dir().join(format!("kchaos-cgroupfs-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("memory.current"), "8192\n").unwrap();
        fs::write(dir.join("cpu.stat"), "usage_usec 7\nuser_usec 3\n").unwrap();
        let files = CgroupFiles::read(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!((files.memory.current_bytes, files.memory.anon_bytes), (Some(8192), None));
        assert_eq!((files.cpu.usage_us, files.cpu.throttled, files.io), (Some(7), None, None));
    }
}
