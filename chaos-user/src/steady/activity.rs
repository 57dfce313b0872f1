//! What a target did between two readings. Pure. What was not measured, at either of them, is `None` and never 0; so is
//! a counter that went backwards, for its cgroup was made anew.

use std::collections::BTreeMap;

use chaos_common::{
    h2,
    steady::{CLASSES, CallCounts, ErrorCounts, TaskCounts, TcpCounts, series},
};
use serde::Serialize;

use super::{
    calls::NAMES,
    cgroupfs::{CgroupFiles, Cpu, Io, Memory, Stalls},
    reading::{Reading, SlotReading},
};
use crate::units::{Errno, Signal};

/// What one target did. Counts are of the time in between, except for memory that there is and processes that there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Activity {
    /// Packets.
    pub net: Option<Net>,
    /// System calls.
    pub calls: Option<Calls>,
    /// How long calls took, by class; of those classes that are timed.
    pub latency: Option<BTreeMap<&'static str, Times>>,
    /// TCP's connections.
    pub tcp: Option<Tcp>,
    /// TCP's smoothed round-trip times, one for each segment received.
    pub round_trip: Option<Times>,
    /// How long threads waited for a processor.
    pub run_queue: Option<Times>,
    /// How long block devices took.
    pub block: Option<Block>,
    /// Processes and signals.
    pub processes: Option<Processes>,
    /// Memory.
    pub memory: Memory,
    /// Processors.
    pub cpu: Cpu,
    /// Time lost to waiting.
    pub pressure: Pressure,
    /// Devices.
    pub io: Option<Io>,
    /// Processes and threads that there are.
    pub pids: Option<u64>,
}

/// Packets, as on the wire, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Net {
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
}

/// System calls that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// All of them.
    pub total: u64,
    /// Those that failed.
    pub failed: u64,
    /// By class.
    pub by_class: BTreeMap<&'static str, Class>,
    /// Errors by name, those that faults gave included: an injection counts them, not who observes. `other` are those
    /// without a name.
    pub errors: BTreeMap<String, u64>,
}

/// Calls of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    /// How many ended.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
}

/// Durations. Each is the longest of its bucket, which is at most 3.1 % more than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Half of them took no longer, in nanoseconds.
    pub p50_ns: Option<u64>,
    /// 99 % of them took no longer.
    pub p99_ns: Option<u64>,
    /// None took longer.
    pub max_ns: Option<u64>,
}

/// What became of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// Connections asked for.
    pub connects: u64,
    /// Those that came about.
    pub connected: u64,
    /// Connections that others asked for and got.
    pub accepted: u64,
    /// Resets sent.
    pub resets_sent: u64,
    /// Resets received.
    pub resets_received: u64,
    /// Segments sent again.
    pub retransmits: Option<u64>,
}

/// What block devices were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// To read.
    pub read: Times,
    /// To write.
    pub write: Times,
    /// Anything else.
    pub other: Times,
}

/// What became of processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Processes {
    /// Those that ended, in whatever way.
    pub exits: u64,
    /// Those that a signal ended, by its name.
    pub killed: BTreeMap<String, u64>,
    /// Signals that threads took, by name. One that ends a process is SIGKILL to each of its threads.
    pub signals: BTreeMap<String, u64>,
}

/// Time lost to waiting, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pressure {
    /// For a processor.
    pub cpu: Stalls,
    /// For memory.
    pub memory: Stalls,
    /// For devices.
    pub io: Stalls,
}

/// What each target did, and the seconds in between.
pub fn activities(earlier: &Reading, later: &Reading) -> (f64, Vec<Activity>) {
    let middle_ns = |reading: &Reading| reading.begin_ns.midpoint(reading.end_ns);
    let seconds = middle_ns(later).saturating_sub(middle_ns(earlier)) as f64 / 1e9;
    let pairs = earlier.slots.iter().zip(&later.slots);
    (seconds, pairs.map(|(earlier, later)| activity(earlier, later)).collect())
}

fn activity(earlier: &SlotReading, later: &SlotReading) -> Activity {
    let times = |series: u32| {
        let series = series as usize;
        times(earlier.times[series].as_deref()?, later.times[series].as_deref()?)
    };
    let block =
        |read, write, other| Some(Block { read: times(read)?, write: times(write)?, other: times(other)? });
    let timed = || (0..CLASSES as u32).filter_map(|class| Some((NAMES[class as usize], times(class)?)));
    let latency: BTreeMap<_, _> = timed().collect();
    Activity {
        net: both(earlier.packets, later.packets, |earlier, later| {
            Some(Net {
                tx_packets: later.tx_packets.checked_sub(earlier.tx_packets)?,
                tx_bytes: later.tx_bytes.checked_sub(earlier.tx_bytes)?,
                rx_packets: later.rx_packets.checked_sub(earlier.rx_packets)?,
                rx_bytes: later.rx_bytes.checked_sub(earlier.rx_bytes)?,
            })
        }),
        calls: both(earlier.calls.zip(earlier.errors), later.calls.zip(later.errors), calls),
        latency: (!latency.is_empty()).then_some(latency),
        tcp: both(earlier.tcp, later.tcp, |one, other| {
            tcp(one, other, less(earlier.retransmits, later.retransmits))
        }),
        round_trip: times(series::ROUND_TRIP),
        run_queue: times(series::RUN_QUEUE),
        block: block(series::BLOCK_READ, series::BLOCK_WRITE, series::BLOCK_OTHER),
        processes: both(earlier.tasks, later.tasks, processes),
        memory: memory(&earlier.files.memory, &later.files.memory),
        cpu: cpu(&earlier.files.cpu, &later.files.cpu),
        pressure: pressure(&earlier.files, &later.files),
        io: both(earlier.files.io, later.files.io, io),
        pids: later.files.pids,
    }
}

/// What is made of both, if both are known.
pub(super) fn both<T, R>(
    earlier: Option<T>,
    later: Option<T>,
    change: impl Fn(T, T) -> Option<R>,
) -> Option<R> {
    change(earlier?, later?)
}

/// How much one counter has grown.
fn less(earlier: Option<u64>, later: Option<u64>) -> Option<u64> {
    later?.checked_sub(earlier?)
}

fn calls(earlier: (CallCounts, ErrorCounts), later: (CallCounts, ErrorCounts)) -> Option<Calls> {
    let class = |class: usize| {
        Some(Class {
            calls: later.0.calls[class].checked_sub(earlier.0.calls[class])?,
            failed: later.0.failed[class].checked_sub(earlier.0.failed[class])?,
        })
    };
    let classes = (0..CLASSES).map(class).collect::<Option<Vec<_>>>()?;
    Some(Calls {
        total: classes.iter().map(|class| class.calls).sum(),
        failed: classes.iter().map(|class| class.failed).sum(),
        by_class: NAMES.into_iter().zip(classes).collect(),
        errors: named(&earlier.1.returned, &later.1.returned, error)?,
    })
}

fn error(number: usize) -> String {
    Errno::numbered(number as u32).map_or_else(|| "other".into(), |errno| errno.to_string())
}

fn signal(number: usize) -> String {
    Signal::numbered(number as u32).map_or_else(|| format!("signal {number}"), |signal| signal.to_string())
}

/// Counts by name, of those that are not 0. Two numbers may share a name.
fn named(earlier: &[u64], later: &[u64], name: fn(usize) -> String) -> Option<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for (number, (earlier, later)) in earlier.iter().zip(later).enumerate() {
        match later.checked_sub(*earlier)? {
            0 => {}
            count => *counts.entry(name(number)).or_default() += count,
        }
    }
    Some(counts)
}

fn tcp(earlier: TcpCounts, later: TcpCounts, retransmits: Option<u64>) -> Option<Tcp> {
    Some(Tcp {
        connects: later.connects.checked_sub(earlier.connects)?,
        connected: later.connected.checked_sub(earlier.connected)?,
        accepted: later.accepted.checked_sub(earlier.accepted)?,
        resets_sent: later.resets_sent.checked_sub(earlier.resets_sent)?,
        resets_received: later.resets_received.checked_sub(earlier.resets_received)?,
        retransmits,
    })
}

fn processes(earlier: TaskCounts, later: TaskCounts) -> Option<Processes> {
    let exits = |counts: &TaskCounts| counts.exits.iter().sum::<u64>();
    Some(Processes {
        exits: exits(&later).checked_sub(exits(&earlier))?,
        // 0 is for those that ended by themselves.
        killed: named(&earlier.exits[1..], &later.exits[1..], |place| signal(place + 1))?,
        signals: named(&earlier.signals, &later.signals, signal)?,
    })
}

fn memory(earlier: &Memory, later: &Memory) -> Memory {
    Memory {
        current_bytes: later.current_bytes,
        anon_bytes: later.anon_bytes,
        file_bytes: later.file_bytes,
        page_faults: less(earlier.page_faults, later.page_faults),
        major_faults: less(earlier.major_faults, later.major_faults),
        refaults_anon: less(earlier.refaults_anon, later.refaults_anon),
        refaults_file: less(earlier.refaults_file, later.refaults_file),
        oom: less(earlier.oom, later.oom),
        oom_kills: less(earlier.oom_kills, later.oom_kills),
    }
}

fn cpu(earlier: &Cpu, later: &Cpu) -> Cpu {
    Cpu {
        usage_us: less(earlier.usage_us, later.usage_us),
        throttled: less(earlier.throttled, later.throttled),
        throttled_us: less(earlier.throttled_us, later.throttled_us),
    }
}

fn pressure(earlier: &CgroupFiles, later: &CgroupFiles) -> Pressure {
    let stalls = |earlier: &Stalls, later: &Stalls| Stalls {
        some_us: less(earlier.some_us, later.some_us),
        full_us: less(earlier.full_us, later.full_us),
    };
    Pressure {
        cpu: stalls(&earlier.cpu_pressure, &later.cpu_pressure),
        memory: stalls(&earlier.memory_pressure, &later.memory_pressure),
        io: stalls(&earlier.io_pressure, &later.io_pressure),
    }
}

/// What files counted in between, and what there is at the end of it.
pub(super) fn files(earlier: &CgroupFiles, later: &CgroupFiles) -> CgroupFiles {
    let stalls = pressure(earlier, later);
    CgroupFiles {
        memory: memory(&earlier.memory, &later.memory),
        cpu: cpu(&earlier.cpu, &later.cpu),
        cpu_pressure: stalls.cpu,
        memory_pressure: stalls.memory,
        io_pressure: stalls.io,
        io: both(earlier.io, later.io, io),
        pids: later.pids,
    }
}

fn io(earlier: Io, later: Io) -> Option<Io> {
    Some(Io {
        read_bytes: later.read_bytes.checked_sub(earlier.read_bytes)?,
        written_bytes: later.written_bytes.checked_sub(earlier.written_bytes)?,
        reads: later.reads.checked_sub(earlier.reads)?,
        writes: later.writes.checked_sub(earlier.writes)?,
    })
}

/// What is known of durations by their buckets.
fn times(earlier: &[u64], later: &[u64]) -> Option<Times> {
    let pairs = later.iter().zip(earlier);
    let counts = pairs.map(|(later, earlier)| later.checked_sub(*earlier)).collect::<Option<Vec<_>>>()?;
    let count: u64 = counts.iter().sum();
    let longest = |share: f64| {
        let wanted = (count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = counts.iter().position(|here| {
            seen += here;
            seen >= wanted
        });
        found.map(|bucket| h2::upper(bucket as u32) - 1)
    };
    Some(Times { count, p50_ns: longest(0.5), p99_ns: longest(0.99), max_ns: longest(1.0) })
}

#[cfg(test)]
mod tests {
    use chaos_common::Counters;

    use super::*;

    fn nothing() -> SlotReading {
        SlotReading {
            packets: None,
            calls: None,
            errors: None,
            tcp: None,
            retransmits: None,
            tasks: None,
            times: Default::default(),
            files: CgroupFiles::default(),
            probes: vec![],
        }
    }

    fn reading(begin_ns: u64, slot: SlotReading) -> Reading {
        Reading { begin_ns, end_ns: begin_ns + 20, slots: vec![slot] }
    }

    fn between(earlier: SlotReading, later: SlotReading) -> Activity {
        let (seconds, mut activities) = activities(&reading(0, earlier), &reading(2_000_000_000, later));
        assert!((seconds - 2.0).abs() < 1e-9);
        activities.remove(0)
    }

    #[test]
    fn what_is_not_measured_is_nothing_and_not_zero() {
        let all = serde_json::to_value(between(nothing(), nothing())).unwrap();
        for (name, value) in all.as_object().unwrap() {
            let empty = |value: &serde_json::Value| match value {
                serde_json::Value::Object(fields) => fields.values().all(|field| match field {
                    serde_json::Value::Object(fields) => fields.values().all(serde_json::Value::is_null),
                    field => field.is_null(),
                }),
                value => value.is_null(),
            };
            assert!(empty(value), "{name}: {value}");
        }
    }

    #[test]
    fn calls_are_counted_by_class_and_by_error() {
        let (mut counts, mut errors) = (CallCounts::ZERO, ErrorCounts::ZERO);
        let earlier = SlotReading { calls: Some(counts), errors: Some(errors), ..nothing() };
        (counts.calls[0], counts.calls[2], counts.failed[2]) = (7, 3, 3);
        (errors.returned[5], errors.returned[0]) = (2, 1);
        let later = SlotReading { calls: Some(counts), errors: Some(errors), ..nothing() };
        let calls = between(earlier.clone(), later.clone()).calls.unwrap();
        assert_eq!((calls.total, calls.failed), (10, 3));
        assert_eq!(calls.by_class["fsync"], Class { calls: 3, failed: 3 });
        assert_eq!(calls.by_class["mem"], Class { calls: 0, failed: 0 });
        assert_eq!(calls.errors, [("EIO".into(), 2), ("other".into(), 1)].into());
        assert_eq!(between(later, earlier).calls, None, "a counter that goes backwards");
    }

    #[test]
    fn durations_are_known_by_their_bucket() {
        let with = |durations: &[(u64, u64)]| {
            let mut buckets = vec![0; h2::BUCKETS];
            durations.iter().for_each(|(ns, count)| buckets[h2::bucket(*ns) as usize] += count);
            let mut slot = nothing();
            slot.times[series::RUN_QUEUE as usize] = Some(buckets);
            slot
        };
        let queue = |earlier, later| between(with(earlier), with(later)).run_queue.unwrap();
        let times = queue(&[(10, 5)], &[(10, 5), (1000, 98), (20_000_000, 2)]);
        let near =
            |ns: Option<u64>, wanted: u64| ns.is_some_and(|ns| ns >= wanted && ns - wanted <= wanted / 32);
        assert_eq!(times.count, 100);
        assert!(near(times.p50_ns, 1000) && near(times.p99_ns, 20_000_000), "{times:?}");
        assert!(near(times.max_ns, 20_000_000), "{times:?}");
        let none = queue(&[(10, 5)], &[(10, 5)]);
        assert_eq!((none.count, none.p50_ns, none.max_ns), (0, None, None));
    }

    #[test]
    fn those_that_ended_by_themselves_were_not_killed() {
        let mut tasks = TaskCounts::ZERO;
        let earlier = SlotReading { tasks: Some(tasks), ..nothing() };
        (tasks.exits[0], tasks.exits[9], tasks.signals[15], tasks.signals[40]) = (3, 1, 2, 1);
        let later = SlotReading { tasks: Some(tasks), ..nothing() };
        let processes = between(earlier, later).processes.unwrap();
        assert_eq!(processes.exits, 4);
        assert_eq!(processes.killed, [("SIGKILL".into(), 1)].into());
        assert_eq!(processes.signals, [("SIGTERM".into(), 2), ("signal 40".into(), 1)].into());
    }

    #[test]
    fn gauges_are_as_they_are_and_counters_as_they_have_grown() {
        let with = |current, faults, packets| {
            let mut slot = nothing();
            slot.packets = Some(Counters { rx_packets: packets, ..Counters::ZERO });
            slot.files.memory =
                Memory { current_bytes: Some(current), page_faults: Some(faults), ..Memory::default() };
            slot
        };
        let activity = between(with(100, 10, 1), with(60, 12, 4));
        assert_eq!((activity.memory.current_bytes, activity.memory.page_faults), (Some(60), Some(2)));
        assert_eq!(activity.net.map(|net| net.rx_packets), Some(3));
    }
}
