//! What the counters said at one instant.

use chaos_common::{Counters, RuleStats};

use super::reading::SlotReading;

/// A part of the `hold` design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Attached, not armed.
    Baseline,
    /// Armed.
    Inject,
    /// Attached, no longer armed.
    Recover,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// A phase.
    Phase(Phase),
    /// A block of a pair.
    Block {
        /// Which pair, from 0.
        pair: usize,
        /// Whether the faults are on.
        on: bool,
    },
}

impl Part {
    /// Whether the faults are on.
    pub const fn is_on(self) -> bool {
        matches!(self, Self::Phase(Phase::Inject) | Self::Block { on: true, .. })
    }

    /// The phase that it is like.
    pub const fn phase(self) -> Phase {
        match self {
            Self::Phase(phase) => phase,
            Self::Block { on: true, .. } => Phase::Inject,
            Self::Block { on: false, .. } => Phase::Baseline,
        }
    }
}

/// One reading of all counters, which only ever count up. Both groups are read back to back.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// CLOCK_MONOTONIC before the first counter was read, in nanoseconds.
    pub begin_ns: u64,
    /// CLOCK_MONOTONIC after the last counter was read, in nanoseconds.
    pub end_ns: u64,
    /// What was measured, by slot (index of the member in the scope).
    pub slots: Vec<SlotReading>,
    /// Outcomes by rule, then by slot.
    pub rules: Vec<Vec<RuleStats>>,
}

impl Sample {
    /// What every run counts of a slot.
    pub fn counters(&self, slot: usize) -> Counters {
        self.slots.get(slot).and_then(|slot| slot.packets).unwrap_or(Counters::ZERO)
    }
}
