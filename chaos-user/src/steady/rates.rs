//! From readings to what happened in between. Pure.

use chaos_common::Counters;

use super::{
    sample::{Phase, Sample},
    summary::{Point, Summary},
};
use crate::{experiment::hypothesis::Metric, target::Group};

/// What both groups did between two readings, within one phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tick {
    /// The phase it lies in wholly.
    pub phase: Phase,
    /// Seconds since the phase began, at the end of this tick.
    pub at_s: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The control group's counts.
    pub control: Counters,
    /// The experimental group's counts.
    pub experiment: Counters,
}

/// A stretch of the `pulse` design: the fault on, or off beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Which pair of blocks it belongs to. Which of both comes first is drawn for each pair.
    pub pair: usize,
    /// Whether the fault was on.
    pub on: bool,
    /// What happened; `at_s` counts from the block's start.
    pub ticks: Vec<Tick>,
    /// How many ticks it should have given.
    pub expected_ticks: usize,
}

/// A tick this many times shorter or longer than usual is not a tick: a reading came late, was missed, or the
/// phase ended in between. The judge's autocorrelation needs ticks that are evenly spaced.
const UNUSUAL: f64 = 1.5;

/// What happened between consecutive readings of the same phase. `groups` says whose each slot is.
///
/// A tick is left out, and so counts as lost, when a counter went backwards (a map was replaced), when the two
/// readings disagree about the slots, or when it is not of the usual length. It is never taken as zero.
pub fn ticks(samples: &[(Phase, Sample)], groups: &[Group]) -> Vec<Tick> {
    let mut ticks = Vec::with_capacity(samples.len());
    let mut began = None;
    for pair in samples.windows(2) {
        let [(phase, earlier), (next_phase, later)] = pair else { continue };
        if phase != next_phase {
            began = None;
            continue;
        }
        let began_s = *began.get_or_insert(read_at_s(earlier));
        ticks.extend(tick(*phase, began_s, earlier, later, groups));
    }
    let usual = median(ticks.iter().map(|tick| tick.seconds).collect());
    ticks.retain(|tick| tick.seconds * UNUSUAL >= usual && tick.seconds <= usual * UNUSUAL);
    ticks
}

/// What happened between the readings of one block, the first of which was taken as it began.
pub fn block(pair: usize, on: bool, samples: &[Sample], groups: &[Group], expected_ticks: usize) -> Block {
    let phase = if on { Phase::Inject } else { Phase::Baseline };
    let samples: Vec<_> = samples.iter().map(|sample| (phase, sample.clone())).collect();
    Block { pair, on, ticks: ticks(&samples, groups), expected_ticks }
}

/// The difference of two readings, if they make sense.
fn tick(phase: Phase, began_s: f64, earlier: &Sample, later: &Sample, groups: &[Group]) -> Option<Tick> {
    let seconds = read_at_s(later) - read_at_s(earlier);
    let readable = earlier.slots.len() == groups.len() && later.slots.len() == groups.len();
    if !readable || seconds <= 0.0 {
        return None;
    }
    let (mut control, mut experiment) = (Counters::ZERO, Counters::ZERO);
    for ((group, before), after) in groups.iter().zip(&earlier.slots).zip(&later.slots) {
        let sum = match group {
            Group::Control => &mut control,
            Group::Experiment => &mut experiment,
        };
        *sum = sum.plus(since(*after, *before)?);
    }
    Some(Tick { phase, at_s: read_at_s(later) - began_s, seconds, control, experiment })
}

/// When a reading was taken: the middle of the time it took, in seconds.
fn read_at_s(sample: &Sample) -> f64 {
    let took_ns = sample.end_ns.saturating_sub(sample.begin_ns);
    (sample.begin_ns as f64 + took_ns as f64 / 2.0) / 1e9
}

/// `later` less `earlier`, `None` if any counter went backwards.
fn since(later: Counters, earlier: Counters) -> Option<Counters> {
    Some(Counters {
        tx_packets: later.tx_packets.checked_sub(earlier.tx_packets)?,
        tx_bytes: later.tx_bytes.checked_sub(earlier.tx_bytes)?,
        rx_packets: later.rx_packets.checked_sub(earlier.rx_packets)?,
        rx_bytes: later.rx_bytes.checked_sub(earlier.rx_bytes)?,
        syscalls: later.syscalls.checked_sub(earlier.syscalls)?,
        syscall_errors: later.syscall_errors.checked_sub(earlier.syscall_errors)?,
        injected_errors: later.injected_errors.checked_sub(earlier.injected_errors)?,
        tcp_retransmits: later.tcp_retransmits.checked_sub(earlier.tcp_retransmits)?,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// What a metric is made of, in one set of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// What is counted: packets, bytes, calls, errors.
    pub count: u64,
    /// What a ratio is taken of; `None` for a rate, which is taken of time.
    pub of: Option<u64>,
    /// How many separate things happened: for bytes the packets they came in, for all else the count.
    pub events: u64,
}

/// The counters a metric is made of.
pub const fn counts(metric: Metric, counters: &Counters) -> Counts {
    let c = counters;
    let (count, of, events) = match metric {
        Metric::TxPackets => (c.tx_packets, None, c.tx_packets),
        Metric::TxBytes => (c.tx_bytes, None, c.tx_packets),
        Metric::RxPackets => (c.rx_packets, None, c.rx_packets),
        Metric::RxBytes => (c.rx_bytes, None, c.rx_packets),
        Metric::Syscalls => (c.syscalls, None, c.syscalls),
        Metric::SyscallErrorRatio => (c.syscall_errors, Some(c.syscalls), c.syscall_errors),
        // What a call is given is counted a moment before it returns it, and a request of io_uring returns it to nobody.
        Metric::OrganicErrorRatio => {
            let organic = c.syscall_errors.saturating_sub(c.injected_errors);
            (organic, Some(c.syscalls), organic)
        }
        Metric::TcpRetransRatio => (c.tcp_retransmits, Some(c.tx_packets), c.tcp_retransmits),
    };
    Counts { count, of, events }
}

/// A metric in a tick, in both groups.
pub fn point(metric: Metric, tick: &Tick) -> Point {
    let summary = |counters| {
        let Counts { count, of, events } = counts(metric, counters);
        Summary::count(count as f64, of.map_or(tick.seconds, |of| of as f64), events)
    };
    Point { control: summary(&tick.control), experiment: summary(&tick.experiment), seconds: tick.seconds }
}

/// The same of several ticks.
pub fn points<'a>(metric: Metric, ticks: impl IntoIterator<Item = &'a Tick>) -> Vec<Point> {
    ticks.into_iter().map(|tick| point(metric, tick)).collect()
}

/// A metric over a stretch of time: per second for a rate, a fraction for a ratio. `None` for a ratio of
/// nothing and for no time.
pub fn value(metric: Metric, counters: &Counters, seconds: f64) -> Option<f64> {
    let Counts { count, of, .. } = counts(metric, counters);
    let exposure = of.map_or(seconds, |of| of as f64);
    (exposure > 0.0).then(|| count as f64 / exposure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injected_errors_are_told_from_organic_ones() {
        let counters = Counters { syscalls: 1000, syscall_errors: 30, injected_errors: 20, ..Counters::ZERO };
        assert_eq!(value(Metric::SyscallErrorRatio, &counters, 1.0), Some(0.03));
        assert_eq!(value(Metric::OrganicErrorRatio, &counters, 1.0), Some(0.01));
        let early = Counters { injected_errors: 31, ..counters };
        assert_eq!(value(Metric::OrganicErrorRatio, &early, 1.0), Some(0.0));
    }

    const GROUPS: [Group; 3] = [Group::Control, Group::Experiment, Group::Experiment];

    fn counters(rx_packets: u64) -> Counters {
        Counters { rx_packets, rx_bytes: rx_packets * 100, ..Counters::ZERO }
    }

    fn sample(at_s: f64, packets: [u64; 3]) -> Sample {
        let begin_ns = (at_s * 1e9) as u64;
        Sample { begin_ns, end_ns: begin_ns, slots: packets.map(counters).to_vec(), rules: vec![] }
    }

    #[test]
    fn slots_are_added_up_by_group_over_the_true_time() {
        let mut late = sample(1.0, [10, 20, 3]);
        late.end_ns += 100_000_000;
        let samples = [(Phase::Baseline, sample(0.0, [1, 2, 3])), (Phase::Baseline, late)];
        let ticks = ticks(&samples, &GROUPS);
        assert_eq!(ticks.len(), 1);
        assert_eq!((ticks[0].control, ticks[0].experiment), (counters(9), counters(18)));
        assert!((ticks[0].seconds - 1.05).abs() < 1e-9, "half of the 0.1 s that the second reading took");
    }

    #[test]
    fn no_tick_spans_two_phases_and_time_starts_anew() {
        let boundary = sample(2.0, [2, 2, 2]);
        let samples = [
            (Phase::Baseline, sample(0.0, [0, 0, 0])),
            (Phase::Baseline, sample(1.0, [1, 1, 1])),
            (Phase::Baseline, boundary.clone()),
            (Phase::Inject, boundary),
            (Phase::Inject, sample(3.0, [9, 9, 9])),
        ];
        let ticks = ticks(&samples, &GROUPS);
        let seen: Vec<_> =
            ticks.iter().map(|tick| (tick.phase, tick.at_s, tick.control.rx_packets)).collect();
        assert_eq!(seen, [(Phase::Baseline, 1.0, 1), (Phase::Baseline, 2.0, 1), (Phase::Inject, 1.0, 7)]);
    }

    #[test]
    fn a_counter_that_goes_backwards_loses_the_tick_and_only_that() {
        let packets = [[0, 5, 5], [1, 6, 6], [2, 7, 0], [3, 8, 1]];
        let samples: Vec<_> = packets
            .iter()
            .enumerate()
            .map(|(second, packets)| (Phase::Inject, sample(second as f64, *packets)))
            .collect();
        let ends: Vec<_> = ticks(&samples, &GROUPS).iter().map(|tick| tick.at_s).collect();
        assert_eq!(ends, [1.0, 3.0]);
    }

    #[test]
    fn a_missed_reading_and_a_stub_are_lost_not_zero() {
        let times = [0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 6.2];
        let samples: Vec<_> =
            times.iter().map(|at_s| (Phase::Inject, sample(*at_s, [(at_s * 10.0) as u64; 3]))).collect();
        let ends: Vec<_> = ticks(&samples, &GROUPS).iter().map(|tick| tick.at_s).collect();
        assert_eq!(ends, [1.0, 2.0, 5.0, 6.0]);
    }

    #[test]
    fn a_block_is_timed_from_its_own_start() {
        let samples: Vec<_> = (40..=42).map(|at| sample(f64::from(at), [at as u64; 3])).collect();
        let block = block(7, true, &samples, &GROUPS, 2);
        let ends: Vec<_> = block.ticks.iter().map(|tick| (tick.phase, tick.at_s)).collect();
        assert_eq!(ends, [(Phase::Inject, 1.0), (Phase::Inject, 2.0)]);
        let both = Point::sum(&points(Metric::RxPackets, &block.ticks));
        assert_eq!((both.control.count, both.experiment.count, both.seconds), (2.0, 4.0, 2.0));
    }

    #[test]
    fn readings_of_other_slots_and_nothing_at_all() {
        let mut short = sample(1.0, [1, 1, 1]);
        short.slots.pop();
        assert_eq!(ticks(&[(Phase::Inject, sample(0.0, [0; 3])), (Phase::Inject, short)], &GROUPS), []);
        assert_eq!(ticks(&[], &GROUPS), []);
        let same = sample(0.0, [0; 3]);
        assert_eq!(ticks(&[(Phase::Inject, same.clone()), (Phase::Inject, same)], &GROUPS), []);
    }

    #[test]
    fn values() {
        let counters = Counters { syscalls: 200, syscall_errors: 3, rx_bytes: 500, ..Counters::ZERO };
        assert_eq!(value(Metric::RxBytes, &counters, 2.0), Some(250.0));
        assert_eq!(value(Metric::SyscallErrorRatio, &counters, 2.0), Some(0.015));
        assert_eq!(value(Metric::TcpRetransRatio, &counters, 2.0), None);
        assert_eq!(value(Metric::RxBytes, &counters, 0.0), None);
    }
}
