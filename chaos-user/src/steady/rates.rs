//! From readings to what happened in between. Pure.

use chaos_common::Counters;

use super::{
    done::Done,
    measure,
    reading::SlotReading,
    sample::{Part, Phase, Sample},
    summary::Point,
};
use crate::{experiment::hypothesis::Metric, target::Group};

/// What both groups did between two readings, within one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// The phase it lies in wholly.
    pub phase: Phase,
    /// Seconds since the phase began, at the end of this tick.
    pub at_s: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What the control group did.
    pub control: Done,
    /// What the experimental group did.
    pub experiment: Done,
    /// What each target did, of groups that have [`MIN_TARGETS`].
    pub apart: Vec<(Group, Done)>,
}

/// Of fewer targets in a group nothing is concluded from how they differ, and they are not kept apart: the standard
/// deviation of three is a guess.
pub const MIN_TARGETS: usize = 4;

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
/// A tick is left out, and so counts as lost, when a counter went backwards (a map was replaced), when the two
/// readings disagree about the slots, or when it is not of the usual length. It is never taken as zero.
pub fn ticks(samples: &[(Part, Sample)], groups: &[Group]) -> Vec<Tick> {
    let phases = parts(samples).filter(|(part, _)| matches!(part, Part::Phase(_)));
    usual(phases.flat_map(|(part, samples)| between_all(part.phase(), samples, groups)).collect())
}

/// The blocks in order; each should have given so many ticks.
pub fn blocks(samples: &[(Part, Sample)], groups: &[Group], expected_ticks: usize) -> Vec<Block> {
    let block = |(part, samples): (Part, &[(Part, Sample)])| match part {
        Part::Phase(_) => None,
        Part::Block { pair, on } => {
            let ticks = usual(between_all(part.phase(), samples, groups));
            Some(Block { pair, on, ticks, expected_ticks })
        }
    };
    parts(samples).filter_map(block).collect()
}

/// The readings of each part of a run.
pub fn parts(samples: &[(Part, Sample)]) -> impl Iterator<Item = (Part, &[(Part, Sample)])> {
    let chunks = samples.chunk_by(|(one, _), (other, _)| one == other);
    chunks.filter_map(|chunk| chunk.first().map(|(part, _)| (*part, chunk)))
}

fn between_all(phase: Phase, samples: &[(Part, Sample)], groups: &[Group]) -> Vec<Tick> {
    let Some((_, first)) = samples.first() else { return Vec::new() };
    let began_s = read_at_s(first);
    let between = |pair: &[(Part, Sample)]| match pair {
        [(_, earlier), (_, later)] => tick(phase, began_s, earlier, later, groups),
        _ => None,
    };
    samples.windows(2).filter_map(between).collect()
}

/// Those of the usual length.
fn usual(mut ticks: Vec<Tick>) -> Vec<Tick> {
    let usual = median(ticks.iter().map(|tick| tick.seconds).collect());
    ticks.retain(|tick| tick.seconds * UNUSUAL >= usual && tick.seconds <= usual * UNUSUAL);
    ticks
}

/// What happened between two readings, if they make sense.
pub fn last_tick(part: Part, earlier: &Sample, later: &Sample, groups: &[Group]) -> Option<Tick> {
    tick(part.phase(), read_at_s(earlier), earlier, later, groups)
}

/// The difference of two readings, if they make sense.
fn tick(phase: Phase, began_s: f64, earlier: &Sample, later: &Sample, groups: &[Group]) -> Option<Tick> {
    let seconds = read_at_s(later) - read_at_s(earlier);
    let readable = earlier.slots.len() == groups.len() && later.slots.len() == groups.len();
    if !readable || seconds <= 0.0 {
        return None;
    }
    let between = |(earlier, later): (&SlotReading, &SlotReading)| Done::between(earlier, later);
    let mut apart = vec![];
    let mut of = |wanted: Group| {
        let of_group = groups.iter().zip(earlier.slots.iter().zip(&later.slots));
        let of_group = of_group.filter(|(group, _)| **group == wanted);
        let members: Vec<Done> = of_group.map(|(_, slots)| between(slots)).collect::<Option<_>>()?;
        if members.len() >= MIN_TARGETS {
            apart.extend(members.iter().map(|done| (wanted, done.clone())));
        }
        Some(members.into_iter().reduce(Done::plus).unwrap_or_else(|| Counters::ZERO.into()))
    };
    let (control, experiment) = (of(Group::Control)?, of(Group::Experiment)?);
    Some(Tick { phase, at_s: read_at_s(later) - began_s, seconds, control, experiment, apart })
}

/// When a reading was taken: the middle of the time it took, in seconds.
fn read_at_s(sample: &Sample) -> f64 {
    let took_ns = sample.end_ns.saturating_sub(sample.begin_ns);
    (sample.begin_ns as f64 + took_ns as f64 / 2.0) / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A metric in a tick, in both groups; `None` where it was not measured in either.
pub fn point(metric: Metric, tick: &Tick) -> Option<Point> {
    Some(Point {
        control: measure::summary(metric, &tick.control, tick.seconds)?,
        experiment: measure::summary(metric, &tick.experiment, tick.seconds)?,
        seconds: tick.seconds,
    })
}

/// The same of several ticks.
pub fn points<'a>(metric: Metric, ticks: impl IntoIterator<Item = &'a Tick>) -> Vec<Point> {
    ticks.into_iter().filter_map(|tick| point(metric, tick)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INJECT: Part = Part::Phase(Phase::Inject);
    const GROUPS: [Group; 3] = [Group::Control, Group::Experiment, Group::Experiment];

    fn counters(rx_packets: u64) -> Counters {
        Counters { rx_packets, rx_bytes: rx_packets * 100, ..Counters::ZERO }
    }

    fn sample(at_s: f64, packets: [u64; 3]) -> Sample {
        let begin_ns = (at_s * 1e9) as u64;
        Sample {
            begin_ns,
            end_ns: begin_ns,
            slots: packets.map(|n| SlotReading::of(counters(n))).to_vec(),
            rules: vec![],
        }
    }

    #[test]
    fn slots_are_added_up_by_group_over_the_true_time() {
        let mut late = sample(1.0, [10, 20, 3]);
        late.end_ns += 100_000_000;
        let samples =
            [(Part::Phase(Phase::Baseline), sample(0.0, [1, 2, 3])), (Part::Phase(Phase::Baseline), late)];
        let ticks = ticks(&samples, &GROUPS);
        assert_eq!(ticks.len(), 1);
        assert_eq!((ticks[0].control.counters, ticks[0].experiment.counters), (counters(9), counters(18)));
        assert!((ticks[0].seconds - 1.05).abs() < 1e-9, "half of the 0.1 s that the second reading took");
    }

    #[test]
    fn targets_of_a_group_that_has_enough_are_kept_apart() {
        let sample = |n: u64| Sample {
            begin_ns: n * 1_000_000_000,
            end_ns: n * 1_000_000_000,
            slots: (1..=6).map(|slot| SlotReading::of(counters(n * slot))).collect(),
            rules: vec![],
        };
        let apart = |groups: [Group; 6]| -> Vec<(Group, u64)> {
            let tick = ticks(&[(INJECT, sample(0)), (INJECT, sample(1))], &groups).remove(0);
            tick.apart.iter().map(|(group, done)| (*group, done.counters.rx_packets)).collect()
        };
        let (c, e) = (Group::Control, Group::Experiment);
        assert_eq!(apart([c, e, e, c, e, e]), [(e, 2), (e, 3), (e, 5), (e, 6)]);
        assert_eq!(apart([c, c, c, e, e, e]), []);
    }

    #[test]
    fn no_tick_spans_two_phases_and_time_starts_anew() {
        let boundary = sample(2.0, [2, 2, 2]);
        let samples = [
            (Part::Phase(Phase::Baseline), sample(0.0, [0, 0, 0])),
            (Part::Phase(Phase::Baseline), sample(1.0, [1, 1, 1])),
            (Part::Phase(Phase::Baseline), boundary.clone()),
            (Part::Phase(Phase::Inject), boundary),
            (Part::Phase(Phase::Inject), sample(3.0, [9, 9, 9])),
        ];
        let ticks = ticks(&samples, &GROUPS);
        let seen: Vec<_> =
            ticks.iter().map(|tick| (tick.phase, tick.at_s, tick.control.counters.rx_packets)).collect();
        assert_eq!(seen, [(Phase::Baseline, 1.0, 1), (Phase::Baseline, 2.0, 1), (Phase::Inject, 1.0, 7)]);
    }

    #[test]
    fn a_counter_that_goes_backwards_loses_the_tick_and_only_that() {
        let packets = [[0, 5, 5], [1, 6, 6], [2, 7, 0], [3, 8, 1]];
        let samples: Vec<_> = packets
            .iter()
            .enumerate()
            .map(|(second, packets)| (Part::Phase(Phase::Inject), sample(second as f64, *packets)))
            .collect();
        let ends: Vec<_> = ticks(&samples, &GROUPS).iter().map(|tick| tick.at_s).collect();
        assert_eq!(ends, [1.0, 3.0]);
    }

    #[test]
    fn a_missed_reading_and_a_stub_are_lost_not_zero() {
        let times = [0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 6.2];
        let samples: Vec<_> = times
            .iter()
            .map(|at_s| (Part::Phase(Phase::Inject), sample(*at_s, [(at_s * 10.0) as u64; 3])))
            .collect();
        let ends: Vec<_> = ticks(&samples, &GROUPS).iter().map(|tick| tick.at_s).collect();
        assert_eq!(ends, [1.0, 2.0, 5.0, 6.0]);
    }

    #[test]
    fn a_block_is_timed_from_its_own_start() {
        let part = Part::Block { pair: 7, on: true };
        let samples: Vec<_> = (40..=42).map(|at| (part, sample(f64::from(at), [at as u64; 3]))).collect();
        assert_eq!(ticks(&samples, &GROUPS), []);
        let block = blocks(&samples, &GROUPS, 2).remove(0);
        assert_eq!((block.pair, block.on, block.expected_ticks), (7, true, 2));
        let ends: Vec<_> = block.ticks.iter().map(|tick| (tick.phase, tick.at_s)).collect();
        assert_eq!(ends, [(Phase::Inject, 1.0), (Phase::Inject, 2.0)]);
        let both = Point::sum(&points(Metric::RxPackets, &block.ticks));
        assert_eq!((both.control.count, both.experiment.count, both.seconds), (2.0, 4.0, 2.0));
    }

    #[test]
    fn readings_of_other_slots_and_nothing_at_all() {
        let mut short = sample(1.0, [1, 1, 1]);
        short.slots.pop();
        assert_eq!(
            ticks(
                &[(Part::Phase(Phase::Inject), sample(0.0, [0; 3])), (Part::Phase(Phase::Inject), short)],
                &GROUPS
            ),
            []
        );
        assert_eq!(ticks(&[], &GROUPS), []);
        let same = sample(0.0, [0; 3]);
        assert_eq!(ticks(&[(INJECT, same.clone()), (INJECT, same)], &GROUPS), []);
    }
}
