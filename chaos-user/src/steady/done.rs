//! What one group did between two readings: all its members together. Pure. What was not measured of any of them is `None`
//! and never 0.

use chaos_common::steady::{CallCounts, Counters, ErrorCounts, TaskCounts, TcpCounts, series};

use super::{
    activity, cgroupfs::CgroupFiles, histogram::Histogram, probe::ProbeReading, reading::SlotReading,
};
use crate::experiment::metric::Word;

/// What one group did.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// What every run counts.
    pub counters: Counters,
    /// What else was measured.
    pub more: Option<Box<More>>,
}

/// What is counted beside [`Counters`].
#[derive(Clone, Debug, PartialEq)]
pub struct More {
    /// How many members there are.
    pub members: u32,
    /// System calls by class.
    pub calls: Option<CallCounts>,
    /// Their errors.
    pub errors: Option<ErrorCounts>,
    /// TCP's connections.
    pub tcp: Option<TcpCounts>,
    /// Processes and signals.
    pub tasks: Option<TaskCounts>,
    /// Durations, by [`series`].
    pub times: [Option<Histogram>; series::COUNT as usize],
    /// What files count, and what there is.
    pub files: CgroupFiles,
    /// What probes saw, by their ids.
    pub probes: Vec<Probed>,
}

/// What a probe saw of a group, if it is known of all its members.
pub type Probed = (Word, Option<ProbeReading>);

impl From<Counters> for Done {
    fn from(counters: Counters) -> Self {
        Self { counters, more: None }
    }
}

impl Done {
    /// What a member did between two readings; `None` if a counter went backwards that every run has.
    pub fn between(earlier: &SlotReading, later: &SlotReading) -> Option<Self> {
        let before = earlier.packets.unwrap_or(Counters::ZERO);
        let counters = counters(later.packets.unwrap_or(Counters::ZERO), before)?;
        Some(Self { counters, more: Some(Box::new(More::between(earlier, later))) })
    }

    /// Both members together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let more = match (self.more, other.more) {
            (Some(one), Some(other)) => Some(Box::new(one.plus(&other))),
            _ => None,
        };
        Self { counters: self.counters.plus(other.counters), more }
    }
}

impl More {
    fn between(earlier: &SlotReading, later: &SlotReading) -> Self {
        let calls = activity::both(earlier.calls, later.calls, |earlier, later| {
            Some(CallCounts {
                calls: less(earlier.calls, later.calls)?,
                failed: less(earlier.failed, later.failed)?,
            })
        });
        let errors = activity::both(earlier.errors, later.errors, |earlier, later| {
            Some(ErrorCounts {
                returned: less(earlier.returned, later.returned)?,
                injected: less(earlier.injected, later.injected)?,
            })
        });
        let tasks = activity::both(earlier.tasks, later.tasks, |earlier, later| {
            Some(TaskCounts {
                exits: less(earlier.exits, later.exits)?,
                signals: less(earlier.signals, later.signals)?,
            })
        });
        let times = std::array::from_fn(|series| {
            let (earlier, later) = (earlier.times[series].as_ref()?, later.times[series].as_ref()?);
            Histogram::from_dense(later).since(&Histogram::from_dense(earlier))
        });
        let files = activity::files(&earlier.files, &later.files);
        let both_saw = |((id, earlier), (same, later)): (&(Word, ProbeReading), &(Word, ProbeReading))| {
            (*id, later.since(earlier).filter(|_| id == same))
        };
        let probes = earlier.probes.iter().zip(&later.probes).map(both_saw).collect();
        Self {
            probes,
            members: 1,
            calls,
            errors,
            tcp: activity::both(earlier.tcp, later.tcp, tcp),
            tasks,
            times,
            files,
        }
    }

    fn plus(&self, other: &Self) -> Self {
        let times = std::array::from_fn(|series| {
            let (one, other) = (self.times[series].as_ref()?, other.times[series].as_ref()?);
            let mut sum = one.clone();
            sum.merge(other);
            Some(sum)
        });
        Self {
            members: self.members + other.members,
            calls: activity::both(self.calls, other.calls, |one, other| Some(one.plus(other))),
            errors: activity::both(self.errors, other.errors, |one, other| Some(one.plus(other))),
            tcp: activity::both(self.tcp, other.tcp, |one, other| Some(one.plus(other))),
            tasks: activity::both(self.tasks, other.tasks, |one, other| Some(one.plus(other))),
            times,
            files: self.files.plus(&other.files),
            probes: self.probes.iter().zip(&other.probes).map(merged).collect(),
        }
    }
}

/// What a probe saw of both.
fn merged(((id, one), (same, other)): (&Probed, &Probed)) -> Probed {
    let readings = one.as_ref().zip(other.as_ref()).filter(|_| id == same);
    (*id, readings.and_then(|(one, other)| ProbeReading::sum([one, other])))
}

/// How much each has grown; `None` if any went backwards.
fn less<const N: usize>(earlier: [u64; N], later: [u64; N]) -> Option<[u64; N]> {
    let mut grown = [0; N];
    for (place, grown) in grown.iter_mut().enumerate() {
        *grown = later[place].checked_sub(earlier[place])?;
    }
    Some(grown)
}

fn tcp(earlier: TcpCounts, later: TcpCounts) -> Option<TcpCounts> {
    Some(TcpCounts {
        connects: later.connects.checked_sub(earlier.connects)?,
        connected: later.connected.checked_sub(earlier.connected)?,
        accepted: later.accepted.checked_sub(earlier.accepted)?,
        resets_sent: later.resets_sent.checked_sub(earlier.resets_sent)?,
        resets_received: later.resets_received.checked_sub(earlier.resets_received)?,
    })
}

/// `later` less `earlier`, `None` if any counter went backwards.
fn counters(later: Counters, earlier: Counters) -> Option<Counters> {
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
