//! Everything that counters and files said of each target at one instant.

use chaos_common::steady::{CallCounts, Counters, ErrorCounts, TaskCounts, TcpCounts, series};

use super::{cgroupfs::CgroupFiles, probe::ProbeReading};
use crate::experiment::metric::Word;

/// One reading of all targets, taken back to back.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// CLOCK_MONOTONIC before the first was read, in nanoseconds.
    pub begin_ns: u64,
    /// CLOCK_MONOTONIC after the last was read, in nanoseconds.
    pub end_ns: u64,
    /// By slot.
    pub slots: Vec<SlotReading>,
}

/// One reading of one target. What is not measured is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotReading {
    /// Packets; in a run also what else it counts with them.
    pub packets: Option<Counters>,
    /// System calls by class.
    pub calls: Option<CallCounts>,
    /// Their errors.
    pub errors: Option<ErrorCounts>,
    /// TCP's connections.
    pub tcp: Option<TcpCounts>,
    /// TCP's segments that were sent again.
    pub retransmits: Option<u64>,
    /// Processes and signals.
    pub tasks: Option<TaskCounts>,
    /// By [`series`]: how many durations there were in each bucket.
    pub times: [Option<Vec<u64>>; series::COUNT as usize],
    /// What its files say.
    pub files: CgroupFiles,
    /// What probes saw of it, by their ids.
    pub probes: Vec<(Word, ProbeReading)>,
}

impl SlotReading {
    /// These counters and nothing else.
    pub fn of(counters: Counters) -> Self {
        Self {
            packets: Some(counters),
            calls: None,
            errors: None,
            tcp: None,
            retransmits: None,
            tasks: None,
            times: std::array::from_fn(|_| None),
            files: CgroupFiles::default(),
            probes: Vec::new(),
        }
    }
}
