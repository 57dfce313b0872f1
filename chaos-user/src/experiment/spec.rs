//! The experiment as the user asked for it.

use std::time::Duration;

use super::{hypothesis::Gate, probe::Probe};
use crate::{fault::Fault, target::Target};

/// A whole experiment, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What reports call it.
    pub name: String,
    /// What should stay true, in words.
    pub hypothesis: String,
    /// Nothing is done to these.
    pub control: Vec<Target>,
    /// The faults are for these.
    pub experiment: Vec<Target>,
    /// What should stay true, in numbers; 1 to 10 of them.
    pub gates: Vec<Gate>,
    /// What is asked of each target meanwhile; at most 8 of them.
    pub probes: Vec<Probe>,
    /// What goes wrong; at least one.
    pub faults: Vec<Fault>,
    /// How long each phase takes.
    pub timing: Timing,
    /// The run is ended after this, whatever happens.
    pub max_duration: Duration,
    /// Confidence of the verdict, as a fraction; 0.95 unless told.
    pub confidence: f64,
}

/// The `hold` design: how long each phase takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Attached, not armed.
    pub baseline: Duration,
    /// Armed.
    pub inject: Duration,
    /// Attached, no longer armed.
    pub recover: Duration,
    /// Left out at the start of the inject and recover phases: the system is on its way.
    pub settle: Duration,
}
