//! The experiment as the user asked for it.

use std::time::Duration;

use chaos_common::random;

use super::{
    hypothesis::Gate,
    probe::Probe,
    watch::{AbortIf, Check, Invariant},
};
use crate::{
    fault::Fault,
    judge::Design,
    steady::{
        family::Family,
        sample::{Part, Phase},
    },
    target::Target,
};

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
    /// What is counted beside what gates take.
    pub observe: Vec<Family>,
    /// What must hold in both groups before anything is done.
    pub checks: Vec<Check>,
    /// What must hold once everything is over.
    pub invariants: Vec<Invariant>,
    /// What ends the run early.
    pub abort_if: Vec<AbortIf>,
    /// What is asked of each target meanwhile; at most 8 of them.
    pub probes: Vec<Probe>,
    /// What goes wrong; at least one.
    pub faults: Vec<Fault>,
    /// How the run is laid out.
    pub timing: Timing,
    /// The run is ended after this, whatever happens.
    pub max_duration: Duration,
    /// Confidence of the verdict, as a fraction; 0.95 unless told.
    pub confidence: f64,
}

/// How a run is laid out. The faults are on in the ON blocks of pulses and in the inject phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Whether there are pulses, a hold, or both.
    pub design: Design,
    /// Attached, not armed.
    pub baseline: Duration,
    /// How many pairs of blocks, of pulses.
    pub pulses: usize,
    /// How long each block takes.
    pub block: Duration,
    /// Armed, of a hold.
    pub inject: Duration,
    /// Attached, no longer armed.
    pub recover: Duration,
    /// Left out at the start of the inject and recover phases, and of each block: the system is on its way.
    pub settle: Duration,
    /// What the order of the blocks is drawn from; 0 until that is chosen.
    pub seed: u64,
}

impl Timing {
    /// The `hold` design, if nothing else is asked for.
    pub const HOLD: Self = Self {
        design: Design::Hold,
        baseline: Duration::from_secs(20),
        pulses: 12,
        block: Duration::from_secs(10),
        inject: Duration::from_secs(20),
        recover: Duration::from_secs(10),
        settle: Duration::from_secs(2),
        seed: 0,
    };

    /// The same of the `pulse` design.
    pub const PULSE: Self = Self {
        design: Design::Pulse,
        baseline: Duration::from_secs(30),
        recover: Duration::from_secs(60),
        ..Self::HOLD
    };

    /// The same of both.
    pub const BOTH: Self = Self {
        design: Design::Both,
        baseline: Duration::from_secs(60),
        inject: Duration::from_secs(60),
        ..Self::PULSE
    };

    /// The parts in order, and how long each takes. Which block of a pair comes first is drawn.
    pub fn parts(&self) -> Vec<(Part, Duration)> {
        let mut parts = vec![(Part::Phase(Phase::Baseline), self.baseline)];
        let pairs = if self.design.has_pulses() { self.pulses } else { 0 };
        for pair in 0..pairs {
            let on_first = random::draw(self.seed, ORDER, pair as u64) & 1 == 0;
            parts.extend([on_first, !on_first].map(|on| (Part::Block { pair, on }, self.block)));
        }
        if self.design.has_hold() {
            parts.push((Part::Phase(Phase::Inject), self.inject));
        }
        parts.push((Part::Phase(Phase::Recover), self.recover));
        parts
    }

    /// How long all of it takes.
    pub fn total(&self) -> Duration {
        self.parts().iter().map(|(_, duration)| *duration).sum()
    }
}

/// What is drawn.
const ORDER: u32 = 1;
