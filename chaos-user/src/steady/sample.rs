//! What the counters said at one instant.

use chaos_common::{Counters, RuleStats};

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

/// One reading of all counters, which only ever count up. Both groups are read back to back.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// CLOCK_MONOTONIC before the first counter was read, in nanoseconds.
    pub begin_ns: u64,
    /// CLOCK_MONOTONIC after the last counter was read, in nanoseconds.
    pub end_ns: u64,
    /// Counters by slot (index of the member in the scope).
    pub slots: Vec<Counters>,
    /// Outcomes by rule, then by slot.
    pub rules: Vec<Vec<RuleStats>>,
}
