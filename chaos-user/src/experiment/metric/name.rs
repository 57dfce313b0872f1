//! Names of metrics, as users write them and reports have them.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Mutex, time::Duration};

use chaos_common::steady::series;

use super::{CallClass, FileRate, Level, Metric, ProbeStat, Stall, Stat, TcpCount, Timed};
use crate::{
    steady::calls::NAMES,
    units::{BadValue, Errno, did_you_mean, parse_duration, quoted, show_duration},
};

/// A word of a spec, kept for the life of the process: a spec has a few dozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(&'static str);

static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

impl Word {
    /// Keeps it.
    pub fn new(text: &str) -> Self {
        let mut words = WORDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(kept) = words.get(text) {
            return Self(kept);
        }
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        words.insert(kept);
        Self(kept)
    }

    /// The text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Metrics that have no parameters.
pub(super) const PLAIN: &[(&str, Metric)] = &[
    ("net.rx_bytes", Metric::RxBytes),
    ("net.tx_bytes", Metric::TxBytes),
    ("net.rx_packets", Metric::RxPackets),
    ("net.tx_packets", Metric::TxPackets),
    ("syscalls", Metric::Syscalls),
    ("syscall.error_ratio", Metric::SyscallErrorRatio),
    ("syscall.organic_error_ratio", Metric::OrganicErrorRatio),
    ("syscall.unexpected_error_ratio", Metric::UnexpectedErrorRatio),
    ("syscalls.per_packet", Metric::CallsPerPacket),
    ("tcp.retrans_ratio", Metric::TcpRetransRatio),
    ("tcp.connects", Metric::Tcp(TcpCount::Connects)),
    ("tcp.accepted", Metric::Tcp(TcpCount::Accepted)),
    ("tcp.resets_sent", Metric::Tcp(TcpCount::ResetsSent)),
    ("tcp.resets_received", Metric::Tcp(TcpCount::ResetsReceived)),
    ("mem.current", Metric::Level(Level::Memory)),
    ("mem.anon", Metric::Level(Level::Anon)),
    ("mem.file", Metric::Level(Level::File)),
    ("pids.current", Metric::Level(Level::Tasks)),
    ("mem.current.growth", Metric::Growth),
    ("mem.page_faults", Metric::Rate(FileRate::PageFaults)),
    ("mem.major_faults", Metric::Rate(FileRate::MajorFaults)),
    ("mem.oom_kills", Metric::OomKills),
    ("mem.psi_some", Metric::Stalled(Stall::MemorySome)),
    ("mem.psi_full", Metric::Stalled(Stall::MemoryFull)),
    ("cpu.usage", Metric::Rate(FileRate::CpuUs)),
    ("cpu.per_packet", Metric::CpuPerPacket),
    ("cpu.throttled", Metric::Stalled(Stall::Throttled)),
    ("cpu.psi_some", Metric::Stalled(Stall::CpuSome)),
    ("io.psi_some", Metric::Stalled(Stall::IoSome)),
    ("io.psi_full", Metric::Stalled(Stall::IoFull)),
    ("io.read_bytes", Metric::Rate(FileRate::ReadBytes)),
    ("io.written_bytes", Metric::Rate(FileRate::WrittenBytes)),
    ("io.reads", Metric::Rate(FileRate::Reads)),
    ("io.writes", Metric::Rate(FileRate::Writes)),
    ("proc.exits", Metric::Exits),
    ("proc.killed", Metric::Killed),
];

/// Names of what is timed beside classes of calls.
const TIMED: &[(&str, u32)] = &[
    ("tcp.round_trip", series::ROUND_TRIP),
    ("run_queue", series::RUN_QUEUE),
    ("block.read", series::BLOCK_READ),
    ("block.write", series::BLOCK_WRITE),
    ("block.other", series::BLOCK_OTHER),
];

/// What the names of kernel metrics begin with, and those of probes may not.
pub const FIRST_WORDS: [&str; 13] = [
    "net",
    "syscall",
    "syscalls",
    "tcp",
    "latency",
    "run_queue",
    "block",
    "mem",
    "cpu",
    "io",
    "pids",
    "proc",
    "kchaos",
];

impl CallClass {
    /// As users write it.
    pub const fn name(self) -> &'static str {
        NAMES[self.index()]
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::all().find(|class| class.name() == name)
    }
}

impl Timed {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|timed| timed.name() == name)
    }

    /// As users write it.
    pub fn name(self) -> String {
        match TIMED.iter().find(|(_, series)| *series == self.series()) {
            Some((name, _)) => (*name).to_owned(),
            None => format!("latency.{}", NAMES[self.series() as usize]),
        }
    }
}

impl fmt::Display for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantile(per_mille) => write!(f, "p{}", f64::from(*per_mille) / 10.0),
            Self::Above(ns) => write!(f, "p(>{})", show_duration(Duration::from_nanos(*ns))),
        }
    }
}

impl Metric {
    /// As users write it.
    pub fn name(self) -> &'static str {
        if let Some((name, _)) = PLAIN.iter().find(|(_, metric)| *metric == self) {
            return name;
        }
        let name = match self {
            Self::ErrorRatio(errno) => format!("syscall.organic_error_ratio.{}", errno.name()),
            Self::Calls(class) => format!("syscalls.{}", class.name()),
            Self::CallErrors(class) => format!("syscall.error_ratio.{}", class.name()),
            Self::Time(timed, stat) => format!("{}.{stat}", timed.name()),
            Self::Probe(id, stat) => match stat {
                ProbeStat::Throughput => format!("{id}.throughput"),
                ProbeStat::ErrorRatio => format!("{id}.error_ratio"),
                ProbeStat::Latency(stat) => format!("{id}.{stat}"),
                ProbeStat::Rate(series) => format!("{id}.rate({series})"),
                ProbeStat::Level(series) => format!("{id}.level({series})"),
                ProbeStat::Above(series, ns) => {
                    format!("{id}.p({series}>{})", show_duration(Duration::from_nanos(ns)))
                }
            },
            plain => format!("{plain:?}"),
        };
        Word::new(&name).as_str()
    }
}

impl FromStr for Metric {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let name = text.trim();
        if let Some((_, metric)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
            return Ok(*metric);
        }
        let first = name.split('.').next().unwrap_or_default();
        let found = if FIRST_WORDS.contains(&first) { of_kernel(name)? } else { of_probe(name)? };
        found.ok_or_else(|| {
            let known = known();
            let right = did_you_mean(name, known.iter().map(String::as_str));
            BadValue::new(format!("{} is not a metric", quoted(text)), right)
        })
    }
}

/// Every name that has no number in it.
fn known() -> Vec<String> {
    let plain = PLAIN.iter().map(|(name, _)| (*name).to_owned());
    let classes = CallClass::all().map(|class| Metric::Calls(class).name().to_owned());
    let timed =
        Timed::all().flat_map(|timed| [Stat::P50, Stat::P99].map(|stat| format!("{}.{stat}", timed.name())));
    plain.chain(classes).chain(timed).collect()
}

fn of_kernel(name: &str) -> Result<Option<Metric>, BadValue> {
    if let Some(errno) = name.strip_prefix("syscall.organic_error_ratio.") {
        return errno.parse::<Errno>().map(|errno| Some(Metric::ErrorRatio(errno)));
    }
    if let Some(class) = name.strip_prefix("syscall.error_ratio.").and_then(CallClass::named) {
        return Ok(Some(Metric::CallErrors(class)));
    }
    if let Some(class) = name.strip_prefix("syscalls.").and_then(CallClass::named) {
        return Ok(Some(Metric::Calls(class)));
    }
    let timed =
        Timed::all().find_map(|timed| Some((timed, name.strip_prefix(&timed.name())?.strip_prefix('.')?)));
    match timed {
        Some((timed, text)) => Ok(Some(Metric::Time(timed, stat(text)?))),
        None => Ok(None),
    }
}

/// `p99`, `p99.9`, `p(>20ms)`.
fn stat(text: &str) -> Result<Stat, BadValue> {
    const RIGHT: &str = "write a quantile such as `p99`, or a share such as `p(>20ms)`";
    let wrong = || BadValue::new(format!("{} says nothing of durations", quoted(text)), RIGHT);
    let rest = text.strip_prefix('p').ok_or_else(wrong)?;
    if let Some(limit) = rest.strip_prefix("(>").and_then(|rest| rest.strip_suffix(')')) {
        return Ok(Stat::Above(nanoseconds(limit)?));
    }
    let percent: f64 = rest.parse().map_err(|_| wrong())?;
    let per_mille = (percent * 10.0).round();
    let is_whole = (per_mille - percent * 10.0).abs() < 1e-6;
    if !is_whole || !(1.0..=999.0).contains(&per_mille) {
        return Err(BadValue::new(format!("{} is not between p0.1 and p99.9", quoted(text)), RIGHT));
    }
    Ok(Stat::Quantile(per_mille as u16))
}

fn nanoseconds(text: &str) -> Result<u64, BadValue> {
    let duration = parse_duration(text)?;
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if ns == 0 {
        return Err(BadValue::new("everything takes longer than nothing", "write a limit such as `20ms`"));
    }
    Ok(ns)
}

/// `get.throughput`, `get.error_ratio`, `get.p99`, `app.rate(requests_total)`, `app.p(seconds>0.5s)`. Whether there is such
/// a probe is for the spec to say.
fn of_probe(name: &str) -> Result<Option<Metric>, BadValue> {
    let Some((id, what)) = name.split_once('.') else { return Ok(None) };
    if id.is_empty()
        || !id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        return Ok(None);
    }
    let inside = |word: &str| what.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')');
    let stat = match what {
        "throughput" => ProbeStat::Throughput,
        "error_ratio" => ProbeStat::ErrorRatio,
        _ => match (inside("rate"), inside("level"), inside("p")) {
            (Some(series), _, _) => ProbeStat::Rate(series_name(series)?),
            (_, Some(series), _) => ProbeStat::Level(series_name(series)?),
            (_, _, Some(text)) if !text.starts_with('>') => {
                let (series, limit) = text.split_once('>').ok_or_else(|| {
                    BadValue::new(
                        format!("{} has no limit", quoted(what)),
                        "write one such as `p(request_seconds>0.5s)`",
                    )
                })?;
                ProbeStat::Above(series_name(series)?, nanoseconds(limit)?)
            }
            _ if what.starts_with('p') => ProbeStat::Latency(stat(what)?),
            _ => return Ok(None),
        },
    };
    Ok(Some(Metric::Probe(Word::new(id), stat)))
}

/// A metric of Prometheus (its data model: `[a-zA-Z_:][a-zA-Z0-9_:]*`), maybe with labels.
fn series_name(text: &str) -> Result<Word, BadValue> {
    let name = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let is_name = name.len() <= 200
        && name.starts_with(|c: char| fits(c) && !c.is_ascii_digit())
        && name.chars().all(fits);
    if is_name {
        return Ok(Word::new(name));
    }
    let right = "write the name alone, such as `http_requests_total`; all its labels are added up";
    Err(BadValue::new(format!("{} is not the name of a series", quoted(text)), right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for name in [
            "net.rx_bytes",
            "syscalls.fsync",
            "syscall.error_ratio.file_write",
            "syscall.organic_error_ratio.EIO",
            "latency.fsync.p99",
            "latency.file_read.p(>20ms)",
            "tcp.round_trip.p50",
            "run_queue.p99.9",
            "block.read.p(>1ms500us)",
            "get.p(>20ms)",
            "get.throughput",
            "get-2.error_ratio",
            "app.rate(http_requests_total)",
            "app.level(process_resident_memory_bytes)",
            "app.p(http_request_seconds>500ms)",
        ] {
            assert_eq!(name.parse::<Metric>().unwrap().name(), name);
        }
        for (name, metric) in PLAIN {
            assert_eq!(metric.name(), *name);
            assert_eq!(name.parse(), Ok(*metric));
            assert!(FIRST_WORDS.contains(&name.split('.').next().unwrap()), "{name}");
        }
    }

    #[test]
    fn near_misses_are_told() {
        for (text, part) in [
            ("net.rx_byte", "net.rx_bytes"),
            ("latency.fsnc.p99", "latency.fsync.p99"),
            ("latency.fsync.99", "p99"),
            ("latency.fsync.p100", "between p0.1 and p99.9"),
            ("latency.fsync.p99.99", "between p0.1 and p99.9"),
            ("latency.waiting.p99", "is not a metric"),
            ("syscalls.fsnyc", "syscalls.fsync"),
            ("syscall.organic_error_ratio.EI0", "name of an error"),
            ("block.read.p(>0s)", "20ms"),
            ("get.p(seconds)", "p(request_seconds>0.5s)"),
            ("get.rate(a b)", "http_requests_total"),
            ("", "is not a metric"),
            ("throughput", "is not a metric"),
            ("Get.throughput", "is not a metric"),
        ] {
            let error = text.parse::<Metric>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn words_are_kept_once() {
        assert_eq!(Word::new("abc").as_str().as_ptr(), Word::new("abc").as_str().as_ptr());
    }
}
