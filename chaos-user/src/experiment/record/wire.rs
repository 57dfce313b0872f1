//! Readings as lines of a recording: small, exact, and the same on every machine.

use chaos_common::{
    Counters, RuleStats,
    h2::BUCKETS,
    steady::{CLASSES, CallCounts, ERRNOS, ErrorCounts, SIGNALS, TaskCounts, TcpCounts, series},
};
use serde::{Deserialize, Serialize};

use crate::experiment::metric::Word;
use crate::steady::{
    cgroupfs::CgroupFiles,
    probe::ProbeReading,
    reading::SlotReading,
    sample::{Part, Phase, Sample},
};

/// One reading, in the part it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleLine {
    /// `baseline`, `inject`, `recover`, `on`, `off`.
    pub part: String,
    /// Of `on` and `off`, which pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<usize>,
    /// CLOCK_MONOTONIC in nanoseconds, before and after.
    pub at_ns: [u64; 2],
    /// By slot.
    pub slots: Vec<SlotLine>,
    /// By rule, then by slot: the fields of [`RuleStats`] in order.
    pub rules: Vec<Vec<[u64; RULE_FIELDS]>>,
}

const RULE_FIELDS: usize = 11;

/// How often, of those that were at all.
type Sparse = Vec<(usize, u64)>;

/// One target's part of a reading. What was not measured is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotLine {
    /// The fields of [`Counters`] in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counters: Option<[u64; 8]>,
    /// By class: calls, and those that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calls: Option<[[u64; CLASSES]; 2]>,
    /// By errno: returned, and given by faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errors: Option<[Sparse; 2]>,
    /// The fields of [`TcpCounts`] in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp: Option<[u64; 5]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retransmits: Option<u64>,
    /// By signal: exits, and signals taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tasks: Option<[Sparse; 2]>,
    /// By series: buckets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    times: Vec<(u32, Sparse)>,
    files: CgroupFiles,
    /// By the ids of probes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    probes: Vec<(String, ProbeReading)>,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A part that no run has.
    #[error("there is no such part of a run")]
    Part,
    /// A number of an errno, a signal, a bucket or a series that there is not.
    #[error("a number is larger than there are")]
    Number,
}

impl SampleLine {
    /// For a recording.
    pub fn new(part: Part, sample: &Sample) -> Self {
        let (name, pair) = match part {
            Part::Phase(Phase::Baseline) => ("baseline", None),
            Part::Phase(Phase::Inject) => ("inject", None),
            Part::Phase(Phase::Recover) => ("recover", None),
            Part::Block { pair, on: true } => ("on", Some(pair)),
            Part::Block { pair, on: false } => ("off", Some(pair)),
        };
        Self {
            part: name.to_owned(),
            pair,
            at_ns: [sample.begin_ns, sample.end_ns],
            slots: sample.slots.iter().map(SlotLine::new).collect(),
            rules: sample.rules.iter().map(|slots| slots.iter().map(rule_fields).collect()).collect(),
        }
    }

    /// From a recording.
    pub fn sample(&self) -> Result<(Part, Sample), LineError> {
        let part = match (self.part.as_str(), self.pair) {
            ("baseline", None) => Part::Phase(Phase::Baseline),
            ("inject", None) => Part::Phase(Phase::Inject),
            ("recover", None) => Part::Phase(Phase::Recover),
            ("on", Some(pair)) => Part::Block { pair, on: true },
            ("off", Some(pair)) => Part::Block { pair, on: false },
            _ => return Err(LineError::Part),
        };
        let sample = Sample {
            begin_ns: self.at_ns[0],
            end_ns: self.at_ns[1],
            slots: self.slots.iter().map(SlotLine::reading).collect::<Result<_, _>>()?,
            rules: self.rules.iter().map(|slots| slots.iter().map(rule_stats).collect()).collect(),
        };
        Ok((part, sample))
    }
}

impl SlotLine {
    fn new(slot: &SlotReading) -> Self {
        let series = (0..).zip(&slot.times);
        let times = series.filter_map(|(series, times)| Some((series, sparse(times.as_ref()?))));
        Self {
            counters: slot.packets.map(|c| {
                [
                    c.tx_packets,
                    c.tx_bytes,
                    c.rx_packets,
                    c.rx_bytes,
                    c.syscalls,
                    c.syscall_errors,
                    c.injected_errors,
                    c.tcp_retransmits,
                ]
            }),
            calls: slot.calls.map(|calls| [calls.calls, calls.failed]),
            errors: slot.errors.map(|errors| [sparse(&errors.returned), sparse(&errors.injected)]),
            tcp: slot.tcp.map(|t| [t.connects, t.connected, t.accepted, t.resets_sent, t.resets_received]),
            retransmits: slot.retransmits,
            tasks: slot.tasks.map(|tasks| [sparse(&tasks.exits), sparse(&tasks.signals)]),
            times: times.collect(),
            files: slot.files,
            probes: slot.probes.iter().map(|(id, seen)| (id.to_string(), seen.clone())).collect(),
        }
    }

    fn reading(&self) -> Result<SlotReading, LineError> {
        let errors = |[returned, injected]: &[Sparse; 2]| {
            Ok(ErrorCounts { returned: dense::<ERRNOS>(returned)?, injected: dense::<ERRNOS>(injected)? })
        };
        let tasks = |[exits, signals]: &[Sparse; 2]| {
            Ok(TaskCounts { exits: dense::<SIGNALS>(exits)?, signals: dense::<SIGNALS>(signals)? })
        };
        let mut times = std::array::from_fn::<_, { series::COUNT as usize }, _>(|_| None);
        for (series, buckets) in &self.times {
            let place = times.get_mut(*series as usize).ok_or(LineError::Number)?;
            *place = Some(dense_vec(buckets)?);
        }
        Ok(SlotReading {
            packets: self.counters.map(counters),
            calls: self.calls.map(|[calls, failed]| CallCounts { calls, failed }),
            errors: self.errors.as_ref().map(errors).transpose()?,
            tcp: self.tcp.map(tcp),
            retransmits: self.retransmits,
            tasks: self.tasks.as_ref().map(tasks).transpose()?,
            times,
            files: self.files,
            probes: self.probes.iter().map(|(id, seen)| (Word::new(id), seen.clone())).collect(),
        })
    }
}

const fn counters(
    [tx_packets, tx_bytes, rx_packets, rx_bytes, syscalls, syscall_errors, injected_errors, tcp_retransmits]: [u64;
        8],
) -> Counters {
    Counters {
        tx_packets,
        tx_bytes,
        rx_packets,
        rx_bytes,
        syscalls,
        syscall_errors,
        injected_errors,
        tcp_retransmits,
    }
}

const fn tcp([connects, connected, accepted, resets_sent, resets_received]: [u64; 5]) -> TcpCounts {
    TcpCounts { connects, connected, accepted, resets_sent, resets_received }
}

fn rule_fields(s: &RuleStats) -> [u64; RULE_FIELDS] {
    [
        s.filtered,
        s.lease,
        s.when,
        s.chance,
        s.budget,
        s.dry_run,
        s.injected,
        s.failed,
        s.dormant,
        s.segments_eligible,
        s.segments_hit,
    ]
}

fn rule_stats(fields: &[u64; RULE_FIELDS]) -> RuleStats {
    let [
        filtered,
        lease,
        when,
        chance,
        budget,
        dry_run,
        injected,
        failed,
        dormant,
        segments_eligible,
        segments_hit,
    ] = *fields;
    RuleStats {
        filtered,
        lease,
        when,
        chance,
        budget,
        dry_run,
        injected,
        failed,
        dormant,
        segments_eligible,
        segments_hit,
    }
}

fn sparse(counts: &[u64]) -> Sparse {
    counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
}

fn dense<const N: usize>(counts: &Sparse) -> Result<[u64; N], LineError> {
    let mut dense = [0; N];
    for (place, count) in counts {
        *dense.get_mut(*place).ok_or(LineError::Number)? = *count;
    }
    Ok(dense)
}

fn dense_vec(counts: &Sparse) -> Result<Vec<u64>, LineError> {
    let mut dense = vec![0; BUCKETS];
    for (place, count) in counts {
        *dense.get_mut(*place).ok_or(LineError::Number)? = *count;
    }
    Ok(dense)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steady::probe::Scraped;

    #[test]
    fn readings_come_back_as_they_were() {
        let mut slot = SlotReading::of(counters([1, 2, 3, 4, 5, 6, 7, u64::MAX]));
        slot.calls = Some(CallCounts { calls: [7; CLASSES], failed: [1; CLASSES] });
        let mut errors = ErrorCounts::ZERO;
        (errors.returned[5], errors.injected[0]) = (9, 2);
        slot.errors = Some(errors);
        slot.tcp = Some(tcp([1, 2, 3, 4, 5]));
        let mut tasks = TaskCounts::ZERO;
        (tasks.exits[9], tasks.signals[64]) = (1, 3);
        slot.tasks = Some(tasks);
        let mut buckets = vec![0; BUCKETS];
        (buckets[0], buckets[BUCKETS - 1]) = (4, 1);
        slot.times[2] = Some(buckets);
        slot.times[3] = Some(vec![0; BUCKETS]);
        slot.files.memory.current_bytes = Some(0);
        let mut seen = ProbeReading { due: 3, answered: 2, failed: 1, ..ProbeReading::default() };
        seen.latency.record(123_456);
        seen.scraped.insert("hits".into(), Scraped::Counter(0.1 + 0.2));
        slot.probes = vec![(Word::new("get"), seen)];
        let rules = vec![vec![rule_stats(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])]];
        let sample = Sample { begin_ns: 5, end_ns: 8, slots: vec![slot], rules };
        for part in [Part::Phase(Phase::Recover), Part::Block { pair: 3, on: false }] {
            let text = serde_json::to_string(&SampleLine::new(part, &sample)).unwrap();
            let line: SampleLine = serde_json::from_str(&text).unwrap();
            assert_eq!(line.sample(), Ok((part, sample.clone())));
        }
    }

    #[test]
    fn what_no_run_has_is_refused() {
        let sample = Sample { begin_ns: 0, end_ns: 0, slots: vec![], rules: vec![] };
        let line = SampleLine::new(Part::Phase(Phase::Inject), &sample);
        let wrong = SampleLine { pair: Some(1), ..line.clone() };
        assert_eq!(wrong.sample(), Err(LineError::Part));
        let slot = SlotLine {
            errors: Some([vec![(999, 1)], vec![]]),
            ..SlotLine::new(&SlotReading::of(Counters::ZERO))
        };
        let wrong = SampleLine { slots: vec![slot], ..line };
        assert_eq!(wrong.sample(), Err(LineError::Number));
    }
}
