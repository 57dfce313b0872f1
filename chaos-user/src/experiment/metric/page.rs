//! The table of metrics in docs/steady-state.md is what the code says.

use super::{
    CallClass, Counted, FileRate, Level, Metric, ProbeStat, Stall, Stat, TcpCount, Timed, Word, name::PLAIN,
};
use crate::{
    experiment::hypothesis::{Kind, Scale},
    fault::{count, plan::Options},
    units::Errno,
};

const HEAD: &str =
    "| metric | what it is | compared as | margin | from | looked at |\n|---|---|---|---|---|---|\n";

/// Names of metrics with parameters, as the page writes them, and one of each.
fn families() -> Vec<(String, Metric)> {
    let class = CallClass::named("fsync").unwrap();
    let errno: Errno = "EIO".parse().unwrap();
    let mut rows = vec![
        ("syscall.organic_error_ratio.ERRNO".to_owned(), Metric::ErrorRatio(errno)),
        ("syscalls.CLASS".to_owned(), Metric::Calls(class)),
        ("syscall.error_ratio.CLASS".to_owned(), Metric::CallErrors(class)),
    ];
    let of_classes = Timed::named("latency.fsync").unwrap();
    let others = Timed::all().filter(|timed| !timed.name().starts_with("latency."));
    let timed = std::iter::once(("latency.CLASS".to_owned(), of_classes))
        .chain(others.map(|timed| (timed.name(), timed)));
    for (name, timed) in timed {
        rows.push((format!("{name}.pN"), Metric::Time(timed, Stat::P99)));
        rows.push((format!("{name}.p(>TIME)"), Metric::Time(timed, Stat::Above(20_000_000))));
    }
    let series = Word::new("SERIES");
    let of_probes = [
        ("ID.throughput", ProbeStat::Throughput),
        ("ID.error_ratio", ProbeStat::ErrorRatio),
        ("ID.pN", ProbeStat::Latency(Stat::P99)),
        ("ID.p(>TIME)", ProbeStat::Latency(Stat::Above(20_000_000))),
        ("ID.rate(SERIES)", ProbeStat::Rate(series)),
        ("ID.level(SERIES)", ProbeStat::Level(series)),
        ("ID.p(SERIES>TIME)", ProbeStat::Above(series, 20_000_000)),
    ];
    rows.extend(of_probes.map(|(name, stat)| (name.to_owned(), Metric::Probe(Word::new("id"), stat))));
    rows
}

fn table() -> String {
    let plain = PLAIN.iter().map(|(name, metric)| ((*name).to_owned(), *metric));
    let row = |(name, metric): (String, Metric)| {
        let (kind, from) = (metric.kind(), from(metric));
        format!(
            "| `{name}` | {} | {} | {} | {from} | {} |\n",
            is(metric),
            compared(kind),
            margin(kind),
            looked_at(metric)
        )
    };
    HEAD.to_owned() + &plain.chain(families()).map(row).collect::<String>()
}

/// What it is.
const fn is(metric: Metric) -> &'static str {
    match metric {
        Metric::TxPackets => "packets sent per second",
        Metric::TxBytes => "bytes sent per second",
        Metric::RxPackets => "packets received per second",
        Metric::RxBytes => "bytes received per second",
        Metric::Syscalls => "system calls per second",
        Metric::SyscallErrorRatio => "those that failed, per call",
        Metric::OrganicErrorRatio => "the same without those that a fault made fail",
        Metric::UnexpectedErrorRatio => "of these, without [answers](#errors-that-are-answers)",
        Metric::ErrorRatio(_) => "calls that failed by themselves with this error, per call",
        Metric::Calls(_) => "calls of a class per second",
        Metric::CallErrors(_) => "those of a class that failed, per call of the class",
        Metric::CallsPerPacket => "calls per packet received",
        Metric::TcpRetransRatio => "TCP retransmissions per packet sent",
        Metric::Tcp(TcpCount::Connects) => "connections asked for per second",
        Metric::Tcp(TcpCount::Accepted) => "connections given per second",
        Metric::Tcp(TcpCount::ResetsSent) => "resets sent per second",
        Metric::Tcp(TcpCount::ResetsReceived) => "resets received per second",
        Metric::Level(Level::Memory) => "bytes of memory",
        Metric::Level(Level::Anon) => "bytes of memory of no file",
        Metric::Level(Level::File) => "bytes of memory of files",
        Metric::Level(Level::Tasks) => "processes and threads",
        Metric::Growth => "how fast memory grows",
        Metric::Rate(FileRate::CpuUs) => "microseconds on processors per second",
        Metric::Rate(FileRate::PageFaults) => "page faults per second",
        Metric::Rate(FileRate::MajorFaults) => "those that waited for a device",
        Metric::Rate(FileRate::ReadBytes) => "bytes read from devices per second",
        Metric::Rate(FileRate::WrittenBytes) => "bytes written to devices per second",
        Metric::Rate(FileRate::Reads) => "requests that read per second",
        Metric::Rate(FileRate::Writes) => "requests that wrote per second",
        Metric::Stalled(Stall::Throttled) => "time in which its share of the processors was used up",
        Metric::Stalled(Stall::CpuSome) => "time in which some thread waited for a processor",
        Metric::Stalled(Stall::MemorySome) => "time in which some thread waited for memory",
        Metric::Stalled(Stall::MemoryFull) => "time in which all did",
        Metric::Stalled(Stall::IoSome) => "time in which some thread waited for a device",
        Metric::Stalled(Stall::IoFull) => "time in which all did",
        Metric::CpuPerPacket => "microseconds on processors per packet received",
        Metric::Exits => "processes that ended per second",
        Metric::Killed => "processes that a signal ended",
        Metric::OomKills => "processes killed because memory ran out",
        Metric::Time(_, Stat::Quantile(_)) => "a quantile, `p0.1` to `p99.9`",
        Metric::Time(_, Stat::Above(_)) => "the share of those that took longer",
        Metric::Probe(_, ProbeStat::Throughput) => "good answers per second",
        Metric::Probe(_, ProbeStat::ErrorRatio) => "requests without a good answer, per request",
        Metric::Probe(_, ProbeStat::Latency(Stat::Quantile(_))) => "a quantile, from when a request was due",
        Metric::Probe(_, ProbeStat::Latency(Stat::Above(_))) => "the share of those that took longer",
        Metric::Probe(_, ProbeStat::Rate(_)) => "a counter per second",
        Metric::Probe(_, ProbeStat::Level(_)) => "a gauge",
        Metric::Probe(_, ProbeStat::Above(..)) => "the share of a histogram above a bound of its buckets",
    }
}

const fn compared(kind: Kind) -> &'static str {
    match kind {
        Kind::Rate => "rate",
        Kind::Ratio => "ratio",
        Kind::RareRatio => "share",
        Kind::TimeShare => "share of time",
        Kind::Quantile { .. } => "quantile",
        Kind::Tail { .. } => "tail",
        Kind::Gauge => "level, hold only",
        Kind::Trend => "trend, hold only",
        Kind::Event => "event",
    }
}

const fn margin(kind: Kind) -> &'static str {
    match kind.scale() {
        Scale::Relative => "`%`",
        Scale::Points => "`pp`",
        Scale::PerMinute => "`/min`",
        Scale::Number => "`max:`",
    }
}

fn from(metric: Metric) -> String {
    let file = match metric {
        Metric::Level(Level::Memory) | Metric::Growth => "memory.current",
        Metric::Level(_) if matches!(metric, Metric::Level(Level::Tasks)) => "pids.current",
        Metric::Level(_) | Metric::Rate(FileRate::PageFaults | FileRate::MajorFaults) => "memory.stat",
        Metric::OomKills => "memory.events",
        Metric::Rate(FileRate::CpuUs) | Metric::CpuPerPacket | Metric::Stalled(Stall::Throttled) => {
            "cpu.stat"
        }
        Metric::Rate(_) => "io.stat",
        Metric::Stalled(Stall::CpuSome) => "cpu.pressure",
        Metric::Stalled(Stall::MemorySome | Stall::MemoryFull) => "memory.pressure",
        Metric::Stalled(_) => "io.pressure",
        _ => "",
    };
    assert_eq!(metric.is_of_files(), !file.is_empty(), "{metric}");
    let probe = match metric {
        Metric::Probe(_, ProbeStat::Rate(_) | ProbeStat::Level(_) | ProbeStat::Above(..)) => {
            "a probe with `prometheus:`"
        }
        Metric::Probe(..) => "a [probe](probes.md)",
        _ => "",
    };
    let counted = metric.counted().map(|counted| format!("`{}`", counted.name()));
    let file = (!file.is_empty()).then(|| format!("file `{file}`"));
    let probe = (!probe.is_empty()).then(|| probe.to_owned());
    [file, counted, probe].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Whether it is looked at although no gate is on it.
fn looked_at(metric: Metric) -> String {
    let measured = |observe: Vec<Counted>| {
        let options = Options { gates: Some(vec![]), observe, ..Options::default() };
        count::metrics(&options.families(), &options).contains(&metric)
    };
    if measured(vec![]) {
        return "always".to_owned();
    }
    match Counted::ALL.into_iter().find(|counted| measured(vec![*counted])) {
        Some(counted) => {
            let which = if matches!(metric, Metric::Time(..)) { "p50 and p99 with " } else { "with " };
            format!("{which}`observe: {}`", counted.name())
        }
        None => "if gated".to_owned(),
    }
}

#[test]
fn the_page_has_the_table() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/steady-state.md");
    let text = std::fs::read_to_string(page).unwrap();
    assert!(text.contains(&table()), "docs/steady-state.md must have this table:\n{}", table());
}

#[test]
fn the_page_has_every_class_of_calls() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/steady-state.md")).unwrap();
    for class in CallClass::all() {
        let is_timed = Timed::named(&format!("latency.{}", class.name())).is_some();
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", class.name())))
            .unwrap_or_else(|| panic!("{}", class.name()));
        assert!(row.ends_with(if is_timed { "| yes |" } else { "| no |" }), "{row}");
    }
}
