//! The catalogue of faults, and planning: pure, no I/O.

pub mod capability;
pub mod catalogue;
pub mod clause;
pub mod flags;
pub mod mechanism;
pub mod net;
pub mod plan;
mod show;

pub use net::{DirectionSpec, LossFault, LossModel, NetFilter, PortRange};

use chaos_common::When;

/// What goes wrong, in the user's terms.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Packets disappear on the way.
    Loss(LossFault),
}

/// What every fault can be limited by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Which matching occurrences count, per target.
    pub when: When,
    /// Most injections altogether.
    pub max: Option<u64>,
    /// Most injections in a second.
    pub rate_per_s: Option<u64>,
    /// Replays the same decisions for the same sequence of occurrences.
    pub seed: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { when: When::ALWAYS, max: None, rate_per_s: None, seed: None }
    }
}
