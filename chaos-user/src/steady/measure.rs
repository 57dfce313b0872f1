//! From what a group did to the sums that a metric is made of. Pure.

use chaos_common::steady::{CallCounts, ErrorCounts, TaskCounts, TcpCounts};

use super::{
    cgroupfs::CgroupFiles,
    done::{Done, More},
    histogram::Histogram,
    probe::{ProbeReading, Scraped},
    summary::Summary,
};
use crate::experiment::{
    hypothesis::{Metric, Stat},
    metric::{FileRate, Level, ProbeStat, Stall, TcpCount},
};

/// Errors that are answers to ordinary questions: nothing there yet, nothing there, nobody left, not done yet. Beside
/// them, what has no name is what the kernel tells itself to begin a call again.
const EXPECTED: [i32; 6] =
    [libc::EAGAIN, libc::EINTR, libc::EINPROGRESS, libc::ENOENT, libc::ECHILD, libc::ETIMEDOUT];

/// What is counted of time on processors is taken for as many events: a millisecond is about what one has at a time.
const SLICE_US: u64 = 1_000;

/// What a metric is made of, in what a group did in so many seconds; `None` if that was not measured.
pub fn summary(metric: Metric, done: &Done, seconds: f64) -> Option<Summary> {
    let c = &done.counters;
    let rate = |count: u64, events: u64| Some(Summary::count(count as f64, seconds, events));
    let share = |count: u64, of: u64| Some(Summary::count(count as f64, of as f64, count));
    let more = done.more.as_deref();
    match metric {
        Metric::TxPackets => rate(c.tx_packets, c.tx_packets),
        Metric::TxBytes => rate(c.tx_bytes, c.tx_packets),
        Metric::RxPackets => rate(c.rx_packets, c.rx_packets),
        Metric::RxBytes => rate(c.rx_bytes, c.rx_packets),
        Metric::Syscalls => rate(c.syscalls, c.syscalls),
        Metric::SyscallErrorRatio => share(c.syscall_errors, c.syscalls),
        // What a call is given is counted a moment before it returns it, and a request of io_uring returns it to nobody.
        Metric::OrganicErrorRatio => share(c.syscall_errors.saturating_sub(c.injected_errors), c.syscalls),
        Metric::TcpRetransRatio => share(c.tcp_retransmits, c.tx_packets),
        Metric::CallsPerPacket => share(c.syscalls, c.rx_packets),
        Metric::UnexpectedErrorRatio => share(unexpected(more?.errors.as_ref()?), c.syscalls),
        Metric::ErrorRatio(errno) => {
            share(organic(more?.errors.as_ref()?, errno.number() as usize), c.syscalls)
        }
        Metric::Calls(class) => {
            let calls = more?.calls.as_ref()?.calls[class.index()];
            rate(calls, calls)
        }
        Metric::CallErrors(class) => {
            let CallCounts { calls, failed } = more?.calls.as_ref()?;
            share(failed[class.index()], calls[class.index()])
        }
        Metric::Tcp(count) => {
            let count = of_tcp(count, more?.tcp.as_ref()?);
            rate(count, count)
        }
        Metric::Time(timed, stat) => Some(of_times(stat, more?.times[timed.series() as usize].as_ref()?)),
        Metric::Exits => {
            let exits = more?.tasks.as_ref()?.exits.iter().sum();
            rate(exits, exits)
        }
        Metric::Killed => {
            let killed = killed(more?.tasks.as_ref()?);
            rate(killed, killed)
        }
        Metric::OomKills => {
            let kills = more?.files.memory.oom_kills?;
            rate(kills, kills)
        }
        Metric::CpuPerPacket => share(more?.files.cpu.usage_us?, c.rx_packets),
        Metric::Level(level) => Some(Summary::level(of_level(level, &more?.files)? as f64)),
        Metric::Growth => Some(Summary::level(more?.files.memory.current_bytes? as f64)),
        Metric::Rate(file) => {
            let (count, events) = of_files(file, &more?.files)?;
            rate(count, events)
        }
        Metric::Stalled(stall) => stalled(stall, more?, seconds),
        Metric::Probe(id, stat) => {
            let (_, reading) = more?.probes.iter().find(|(of, _)| *of == id)?;
            probed(stat, reading.as_ref()?, seconds)
        }
    }
}

fn killed(tasks: &TaskCounts) -> u64 {
    tasks.exits[1..].iter().sum()
}

fn organic(errors: &ErrorCounts, errno: usize) -> u64 {
    let of = |counts: &[u64]| counts.get(errno).copied().unwrap_or(0);
    of(&errors.returned).saturating_sub(of(&errors.injected))
}

/// Errors that no fault gave and that are no answers.
fn unexpected(errors: &ErrorCounts) -> u64 {
    let is_counted = |errno: &usize| *errno > 0 && !EXPECTED.contains(&(*errno as i32));
    (0..errors.returned.len()).filter(is_counted).map(|errno| organic(errors, errno)).sum()
}

const fn of_tcp(count: TcpCount, tcp: &TcpCounts) -> u64 {
    match count {
        TcpCount::Connects => tcp.connects,
        TcpCount::Accepted => tcp.accepted,
        TcpCount::ResetsSent => tcp.resets_sent,
        TcpCount::ResetsReceived => tcp.resets_received,
    }
}

fn of_times(stat: Stat, times: &Histogram) -> Summary {
    match stat {
        Stat::Quantile(_) => Summary::latency(times.clone()),
        Stat::Above(above_ns) => Summary::tail(times, above_ns),
    }
}

const fn of_level(level: Level, files: &CgroupFiles) -> Option<u64> {
    match level {
        Level::Memory => files.memory.current_bytes,
        Level::Anon => files.memory.anon_bytes,
        Level::File => files.memory.file_bytes,
        Level::Tasks => files.pids,
    }
}

/// How much, in how many parts.
fn of_files(file: FileRate, files: &CgroupFiles) -> Option<(u64, u64)> {
    let each = |count: u64| Some((count, count));
    match file {
        FileRate::CpuUs => files.cpu.usage_us.map(|us| (us, us / SLICE_US)),
        FileRate::PageFaults => each(files.memory.page_faults?),
        FileRate::MajorFaults => each(files.memory.major_faults?),
        FileRate::ReadBytes => files.io.map(|io| (io.read_bytes, io.reads)),
        FileRate::WrittenBytes => files.io.map(|io| (io.written_bytes, io.writes)),
        FileRate::Reads => each(files.io?.reads),
        FileRate::Writes => each(files.io?.writes),
    }
}

/// Seconds lost, of the seconds that all members had.
fn stalled(stall: Stall, more: &More, seconds: f64) -> Option<Summary> {
    let files = &more.files;
    let us = match stall {
        Stall::Throttled => files.cpu.throttled_us,
        Stall::CpuSome => files.cpu_pressure.some_us,
        Stall::MemorySome => files.memory_pressure.some_us,
        Stall::MemoryFull => files.memory_pressure.full_us,
        Stall::IoSome => files.io_pressure.some_us,
        Stall::IoFull => files.io_pressure.full_us,
    }?;
    Some(Summary::count(us as f64 / 1e6, seconds * f64::from(more.members), us / SLICE_US))
}

/// What a probe saw in so many seconds.
fn probed(stat: ProbeStat, reading: &ProbeReading, seconds: f64) -> Option<Summary> {
    let share = |count: u64, of: u64| Summary::count(count as f64, of as f64, count);
    match stat {
        ProbeStat::Throughput => Some(Summary::count(reading.answered as f64, seconds, reading.answered)),
        ProbeStat::ErrorRatio => Some(share(reading.failed, reading.ended())),
        ProbeStat::Latency(stat) => Some(of_times(stat, &reading.latency)),
        ProbeStat::Rate(series) => match reading.scraped.get(series.as_str())? {
            // Pages are read at moments of their own.
            Scraped::Counter(count) => {
                Some(Summary::count(*count, reading.scraped_ns as f64 / 1e9, *count as u64))
            }
            _ => None,
        },
        ProbeStat::Level(series) => match reading.scraped.get(series.as_str())? {
            Scraped::Level { sum, .. } => Some(Summary::level(*sum)),
            _ => None,
        },
        ProbeStat::Above(series, above_ns) => match reading.scraped.get(series.as_str())? {
            Scraped::Buckets(buckets) => {
                let above = buckets.above(above_ns as f64 / 1e9)?;
                Some(Summary::count(above, buckets.total, above as u64))
            }
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use chaos_common::{Counters, h2, steady::series};

    use super::*;
    use crate::{
        experiment::metric::Word,
        steady::{probe::Buckets, reading::SlotReading},
    };

    fn nothing() -> SlotReading {
        SlotReading::of(Counters::ZERO)
    }

    fn of(metric: &str, done: &Done) -> Option<Summary> {
        summary(metric.parse().unwrap(), done, 2.0)
    }

    #[test]
    fn injected_errors_are_told_from_organic_ones() {
        let counters = Counters { syscalls: 1000, syscall_errors: 30, injected_errors: 20, ..Counters::ZERO };
        let ratio = |metric, counters: Counters| {
            let summary = summary(metric, &counters.into(), 1.0).unwrap();
            summary.count / summary.of
        };
        assert_eq!(ratio(Metric::SyscallErrorRatio, counters), 0.03);
        assert_eq!(ratio(Metric::OrganicErrorRatio, counters), 0.01);
        let early = Counters { injected_errors: 31, ..counters };
        assert_eq!(ratio(Metric::OrganicErrorRatio, early), 0.0);
    }

    #[test]
    fn what_is_not_measured_is_nothing_and_not_zero() {
        let done = Done::between(&nothing(), &nothing()).unwrap();
        for metric in [
            "syscalls.fsync",
            "syscall.error_ratio.mem",
            "syscall.organic_error_ratio.EIO",
            "syscall.unexpected_error_ratio",
            "tcp.connects",
            "latency.fsync.p99",
            "mem.current",
            "mem.current.growth",
            "io.reads",
            "cpu.usage",
            "cpu.psi_some",
            "proc.killed",
            "mem.oom_kills",
        ] {
            assert_eq!(of(metric, &done), None, "{metric}");
        }
        assert_eq!(of("net.rx_packets", &done), Some(Summary::count(0.0, 2.0, 0)));
    }

    #[test]
    fn errors_that_are_answers_are_not_unexpected() {
        let mut errors = ErrorCounts::ZERO;
        errors.returned[0] = 7;
        errors.returned[libc::EAGAIN as usize] = 50;
        errors.returned[libc::EIO as usize] = 5;
        errors.injected[libc::EIO as usize] = 3;
        errors.returned[libc::EPIPE as usize] = 1;
        let later = SlotReading {
            packets: Some(Counters { syscalls: 1000, ..Counters::ZERO }),
            errors: Some(errors),
            ..nothing()
        };
        let earlier = SlotReading { errors: Some(ErrorCounts::ZERO), ..nothing() };
        let done = Done::between(&earlier, &later).unwrap();
        assert_eq!(of("syscall.unexpected_error_ratio", &done), Some(Summary::count(3.0, 1000.0, 3)));
        assert_eq!(of("syscall.organic_error_ratio.EIO", &done), Some(Summary::count(2.0, 1000.0, 2)));
    }

    fn with(current: u64, stalled_us: u64, fsync_ns: &[u64]) -> SlotReading {
        let mut slot = nothing();
        slot.files.memory.current_bytes = Some(current);
        slot.files.io_pressure.some_us = Some(stalled_us);
        let mut buckets = vec![0; h2::BUCKETS];
        fsync_ns.iter().for_each(|ns| buckets[h2::bucket(*ns) as usize] += 1);
        slot.times[2] = Some(buckets);
        slot
    }

    #[test]
    fn members_are_added_up() {
        assert_eq!(series::COUNT as usize, nothing().times.len());
        let one = Done::between(&with(1, 0, &[]), &with(100, 500_000, &[1_000, 50_000_000])).unwrap();
        let other = Done::between(&with(1, 0, &[9]), &with(50, 1_500_000, &[9, 1_000])).unwrap();
        let both = one.clone().plus(other);
        assert_eq!(of("mem.current", &both), Some(Summary::level(150.0)));
        assert_eq!(of("io.psi_some", &both), Some(Summary::count(2.0, 4.0, 2000)));
        assert_eq!(of("latency.fsync.p(>20ms)", &both), Some(Summary::count(1.0, 3.0, 1)));
        assert_eq!(of("latency.fsync.p99", &both).unwrap().latency.total(), 3);
        let unknown = Done::between(&nothing(), &nothing()).unwrap();
        assert_eq!(of("mem.current", &one.plus(unknown)), None, "one that is not known leaves all unknown");
    }

    #[test]
    fn what_goes_backwards_is_lost() {
        let ahead = SlotReading { packets: Some(Counters { rx_packets: 3, ..Counters::ZERO }), ..nothing() };
        assert_eq!(Done::between(&ahead, &nothing()), None);
        let done = Done::between(&with(1, 7, &[9]), &with(1, 5, &[])).unwrap();
        assert_eq!(of("io.psi_some", &done), None);
        assert_eq!(of("latency.fsync.p50", &done), None);
    }

    fn seen(answered: u64, failed: u64, scraped_ns: u64, count: f64, slow: f64) -> SlotReading {
        let mut reading =
            ProbeReading { due: answered + failed, answered, failed, scraped_ns, ..ProbeReading::default() };
        for _ in 0..answered {
            reading.latency.record(1_000_000);
        }
        for _ in 0..failed {
            reading.latency.record(250_000_000);
        }
        let buckets = Buckets { bounds: vec![0.1, 0.5], at_most: vec![count - slow, count], total: count };
        let series = [
            ("hits", Scraped::Counter(count)),
            ("queue", Scraped::level(count)),
            ("seconds", Scraped::Buckets(buckets)),
        ];
        reading.scraped = series.into_iter().map(|(name, scraped)| (name.to_owned(), scraped)).collect();
        SlotReading { probes: vec![(Word::new("get"), reading)], ..nothing() }
    }

    #[test]
    fn probes_are_metrics() {
        let done = Done::between(&seen(1, 0, 5, 2.0, 1.0), &seen(91, 10, 4_000_000_005, 10.0, 3.0)).unwrap();
        assert_eq!(of("get.throughput", &done), Some(Summary::count(90.0, 2.0, 90)));
        assert_eq!(of("get.error_ratio", &done), Some(Summary::count(10.0, 100.0, 10)));
        assert_eq!(of("get.p(>20ms)", &done), Some(Summary::count(10.0, 100.0, 10)));
        assert_eq!(of("get.p99", &done).unwrap().latency.total(), 100);
        assert_eq!(of("get.rate(hits)", &done), Some(Summary::count(8.0, 4.0, 8)));
        assert_eq!(of("get.level(queue)", &done), Some(Summary::level(10.0)));
        assert_eq!(of("get.p(seconds>100ms)", &done), Some(Summary::count(2.0, 8.0, 2)));
        for missing in ["put.throughput", "get.rate(queue)", "get.level(nothing)", "get.p(seconds>2s)"] {
            assert_eq!(of(missing, &done), None, "{missing}");
        }
        let both = done.clone().plus(done);
        assert_eq!(of("get.error_ratio", &both), Some(Summary::count(20.0, 200.0, 20)));
    }
}
