//! What is measured of each group, once a second: metrics, and what each is made of.

mod name;
#[cfg(test)]
mod page;

pub use name::{FIRST_WORDS, Word};

use chaos_common::steady::{CLASSES, class, series};

use super::hypothesis::{Family, Kind};
use crate::{steady::family::Family as Counted, units::Errno};

/// Something measured for each group, once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// `net.tx_packets`: packets sent per second.
    TxPackets,
    /// `net.tx_bytes`: bytes sent per second.
    TxBytes,
    /// `net.rx_packets`: packets received per second.
    RxPackets,
    /// `net.rx_bytes`: bytes received per second.
    RxBytes,
    /// `syscalls`: system calls per second.
    Syscalls,
    /// `syscall.error_ratio`: failed system calls per system call.
    SyscallErrorRatio,
    /// `syscall.organic_error_ratio`: the same without the errors that faults gave.
    OrganicErrorRatio,
    /// `syscall.unexpected_error_ratio`: of these, without those that are answers rather than errors.
    UnexpectedErrorRatio,
    /// `syscall.organic_error_ratio.EIO`: system calls that failed by themselves with this error, per system call.
    ErrorRatio(Errno),
    /// `syscalls.fsync`: system calls of a class per second.
    Calls(CallClass),
    /// `syscall.error_ratio.fsync`: those of a class that failed.
    CallErrors(CallClass),
    /// `syscalls.per_packet`: system calls per packet received.
    CallsPerPacket,
    /// `tcp.retrans_ratio`: TCP retransmissions per packet sent.
    TcpRetransRatio,
    /// `tcp.connects`, `tcp.resets_sent` and the like, per second.
    Tcp(TcpCount),
    /// `latency.fsync.p99`, `tcp.round_trip.p(>20ms)`, `run_queue.p50`, `block.read.p99`: durations.
    Time(Timed, Stat),
    /// `mem.current`, `mem.anon`, `mem.file`, `pids.current`: what there is.
    Level(Level),
    /// `mem.current.growth`: how fast memory grows, in bytes per minute.
    Growth,
    /// `mem.page_faults`, `io.written_bytes` and the like, per second.
    Rate(FileRate),
    /// `mem.psi_some`, `cpu.throttled` and the like: the share of the time.
    Stalled(Stall),
    /// `cpu.per_packet`: microseconds on processors per packet received.
    CpuPerPacket,
    /// `proc.exits`: processes that ended, per second.
    Exits,
    /// `proc.killed`: processes that a signal ended.
    Killed,
    /// `mem.oom_kills`: processes killed because memory ran out.
    OomKills,
    /// `ID.throughput` and the like: what a probe saw.
    Probe(Word, ProbeStat),
}

/// A class of system calls, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallClass(u32);

impl CallClass {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES as u32).map(Self)
    }

    /// Where its counters stand.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is timed: the number of its histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timed(u32);

impl Timed {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let is_timed = |number: &u32| *number >= CLASSES as u32 || class::is_timed(*number);
        (0..series::COUNT).filter(is_timed).map(Self)
    }

    /// Which histogram.
    pub const fn series(self) -> u32 {
        self.0
    }

    const fn family(self) -> Family {
        match self.0 {
            class::FSYNC | series::BLOCK_READ | series::BLOCK_WRITE | series::BLOCK_OTHER => {
                Family::Persistence
            }
            _ => Family::Performance,
        }
    }
}

/// What is said of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stat {
    /// A quantile, in thousandths.
    Quantile(u16),
    /// The share of those that are longer, in nanoseconds.
    Above(u64),
}

impl Stat {
    /// Half of them took no longer.
    pub const P50: Self = Self::Quantile(500);
    /// 99 % of them took no longer.
    pub const P99: Self = Self::Quantile(990);

    const fn kind(self) -> Kind {
        match self {
            Self::Quantile(per_mille) => Kind::Quantile { per_mille },
            Self::Above(above_ns) => Kind::Tail { above_ns },
        }
    }
}

/// What becomes of TCP's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcpCount {
    /// Asked for.
    Connects,
    /// Asked for by others, and given.
    Accepted,
    /// Resets sent.
    ResetsSent,
    /// Resets received.
    ResetsReceived,
}

/// What there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// All memory, in bytes.
    Memory,
    /// Memory of no file, in bytes.
    Anon,
    /// Memory of files, in bytes.
    File,
    /// Processes and threads.
    Tasks,
}

/// What the files of a cgroup count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileRate {
    /// Microseconds on processors.
    CpuUs,
    /// Page faults.
    PageFaults,
    /// Those that waited for a device.
    MajorFaults,
    /// Bytes that came from devices.
    ReadBytes,
    /// Bytes that went to devices.
    WrittenBytes,
    /// Requests to devices that read.
    Reads,
    /// Those that wrote.
    Writes,
}

/// Time lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stall {
    /// Its share of the processors was used up.
    Throttled,
    /// Some thread waited for a processor.
    CpuSome,
    /// Some thread waited for memory.
    MemorySome,
    /// All waited for memory.
    MemoryFull,
    /// Some thread waited for a device.
    IoSome,
    /// All waited for a device.
    IoFull,
}

/// What a probe saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeStat {
    /// Good answers per second.
    Throughput,
    /// Requests without a good answer per request.
    ErrorRatio,
    /// How long they took, from when they were due.
    Latency(Stat),
    /// A counter of Prometheus, per second.
    Rate(Word),
    /// A gauge of Prometheus.
    Level(Word),
    /// The share of a histogram of Prometheus that lies above a bound of its buckets, in nanoseconds.
    Above(Word, u64),
}

impl Metric {
    /// Those that are made of the counters that every run has.
    pub const ALL: [Self; 8] = [
        Self::RxBytes,
        Self::TxBytes,
        Self::RxPackets,
        Self::TxPackets,
        Self::Syscalls,
        Self::SyscallErrorRatio,
        Self::OrganicErrorRatio,
        Self::TcpRetransRatio,
    ];

    /// Those that are looked at whenever this is counted, in the order they are reported.
    pub fn counted_with(counted: Counted) -> Vec<Self> {
        let both = |timed| [Stat::P50, Stat::P99].map(|stat| Self::Time(timed, stat));
        let of_series = |wanted: &[u32]| {
            Timed::all().filter(|timed| wanted.contains(&timed.0)).flat_map(both).collect::<Vec<_>>()
        };
        match counted {
            Counted::Net => vec![Self::RxBytes, Self::TxBytes, Self::RxPackets, Self::TxPackets],
            Counted::Calls => {
                let mut metrics = vec![
                    Self::Syscalls,
                    Self::SyscallErrorRatio,
                    Self::OrganicErrorRatio,
                    Self::UnexpectedErrorRatio,
                ];
                metrics.extend(CallClass::all().map(Self::Calls));
                metrics
            }
            Counted::Tcp => {
                let counts =
                    [TcpCount::Connects, TcpCount::Accepted, TcpCount::ResetsSent, TcpCount::ResetsReceived];
                [Self::TcpRetransRatio].into_iter().chain(counts.map(Self::Tcp)).collect()
            }
            Counted::Processes => vec![Self::Exits],
            Counted::Latency | Counted::RunQueue | Counted::Block => of_series(&counted.series()),
        }
    }

    /// Those that the files of a cgroup tell, and that are looked at in every run.
    pub fn of_files() -> Vec<Self> {
        use FileRate::{CpuUs, MajorFaults, PageFaults, Reads, WrittenBytes};
        let rates = [CpuUs, PageFaults, MajorFaults, Reads, WrittenBytes].map(Self::Rate);
        let stalls = [Stall::Throttled, Stall::CpuSome, Stall::MemorySome, Stall::IoSome].map(Self::Stalled);
        let levels = [Level::Memory, Level::Tasks].map(Self::Level);
        rates.into_iter().chain(stalls).chain(levels).collect()
    }

    /// What must be counted for it; nothing for what files and probes tell.
    pub const fn counted(self) -> Option<Counted> {
        match self {
            Self::TxPackets | Self::TxBytes | Self::RxPackets | Self::RxBytes | Self::CpuPerPacket => {
                Some(Counted::Net)
            }
            Self::Syscalls
            | Self::SyscallErrorRatio
            | Self::OrganicErrorRatio
            | Self::UnexpectedErrorRatio
            | Self::ErrorRatio(_)
            | Self::Calls(_)
            | Self::CallErrors(_)
            | Self::CallsPerPacket => Some(Counted::Calls),
            Self::TcpRetransRatio | Self::Tcp(_) => Some(Counted::Tcp),
            Self::Time(Timed(series::RUN_QUEUE), _) => Some(Counted::RunQueue),
            Self::Time(Timed(series::BLOCK_READ | series::BLOCK_WRITE | series::BLOCK_OTHER), _) => {
                Some(Counted::Block)
            }
            Self::Time(..) => Some(Counted::Latency),
            Self::Exits | Self::Killed => Some(Counted::Processes),
            Self::Level(_)
            | Self::Growth
            | Self::Rate(_)
            | Self::Stalled(_)
            | Self::OomKills
            | Self::Probe(..) => None,
        }
    }

    /// Whether the files of a cgroup tell it, alone or with other things.
    pub const fn is_of_files(self) -> bool {
        matches!(
            self,
            Self::Level(_)
                | Self::Growth
                | Self::Rate(_)
                | Self::Stalled(_)
                | Self::OomKills
                | Self::CpuPerPacket
        )
    }

    /// What it belongs to.
    pub const fn family(self) -> Family {
        match self {
            Self::TxPackets
            | Self::TxBytes
            | Self::RxPackets
            | Self::RxBytes
            | Self::Syscalls
            | Self::CallsPerPacket
            | Self::Tcp(TcpCount::Connects | TcpCount::Accepted)
            | Self::Level(Level::Tasks)
            | Self::Exits => Family::Activity,
            Self::Calls(CallClass(class::FSYNC)) => Family::Persistence,
            Self::Calls(_) => Family::Activity,
            Self::Time(timed, _) => timed.family(),
            Self::Rate(FileRate::CpuUs)
            | Self::CpuPerPacket
            | Self::Stalled(Stall::Throttled | Stall::CpuSome | Stall::IoSome | Stall::IoFull) => {
                Family::Performance
            }
            Self::Level(_)
            | Self::Growth
            | Self::Rate(FileRate::PageFaults | FileRate::MajorFaults)
            | Self::Stalled(Stall::MemorySome | Stall::MemoryFull) => Family::Memory,
            Self::Rate(_) => Family::Persistence,
            Self::SyscallErrorRatio
            | Self::OrganicErrorRatio
            | Self::UnexpectedErrorRatio
            | Self::ErrorRatio(_)
            | Self::CallErrors(_)
            | Self::TcpRetransRatio
            | Self::Tcp(_)
            | Self::Killed
            | Self::OomKills
            | Self::Probe(_, ProbeStat::ErrorRatio) => Family::Errors,
            Self::Probe(_, ProbeStat::Throughput) => Family::Activity,
            Self::Probe(..) => Family::Performance,
        }
    }

    /// How it is compared.
    pub const fn kind(self) -> Kind {
        match self {
            Self::TxPackets
            | Self::TxBytes
            | Self::RxPackets
            | Self::RxBytes
            | Self::Syscalls
            | Self::Calls(_)
            | Self::Tcp(_)
            | Self::Rate(_)
            | Self::Exits
            | Self::Probe(_, ProbeStat::Throughput | ProbeStat::Rate(_)) => Kind::Rate,
            Self::CallsPerPacket | Self::CpuPerPacket => Kind::Ratio,
            Self::SyscallErrorRatio
            | Self::OrganicErrorRatio
            | Self::UnexpectedErrorRatio
            | Self::ErrorRatio(_)
            | Self::CallErrors(_)
            | Self::TcpRetransRatio
            | Self::Probe(_, ProbeStat::ErrorRatio) => Kind::RareRatio,
            Self::Time(_, stat) | Self::Probe(_, ProbeStat::Latency(stat)) => stat.kind(),
            Self::Probe(_, ProbeStat::Above(_, above_ns)) => Kind::Tail { above_ns },
            Self::Level(_) | Self::Probe(_, ProbeStat::Level(_)) => Kind::Gauge,
            Self::Growth => Kind::Trend,
            Self::Stalled(_) => Kind::TimeShare,
            Self::Killed | Self::OomKills => Kind::Event,
        }
    }
}
