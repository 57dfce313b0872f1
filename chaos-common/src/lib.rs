//! Everything that crosses the boundary between kchaos and its kernel programs, and nothing else.
//!
//! Both halves compile this crate: the kernel programs for `bpfel-unknown-none`, the controller for
//! the host. A constant, a layout or a formula that both need stands here once. Decisions that can be
//! written as pure functions (does this draw hit, does this occurrence count, what does a loss model do
//! next) stand here too, so that unit tests on the host exercise the very code the kernel runs.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod pod;

pub mod budget;
pub mod chance;
pub mod corrupt;
pub mod dns;
pub mod duplicate;
pub mod h2;
pub mod kfunc;
pub mod leap;
pub mod lease;
pub mod names;
pub mod net;
pub mod packet;
pub mod pattern;
pub mod priority;
pub mod random;
pub mod ranges;
pub mod rule;
pub mod shape;
pub mod sleep;
pub mod sock;
pub mod steady;
pub mod syscall;
pub mod targets;
pub mod when;

pub use budget::Budget;
pub use chance::Chance;
pub use corrupt::Corruption;
pub use duplicate::Duplication;
pub use leap::Leaps;
pub use lease::Lease;
pub use pattern::Pattern;
pub use pod::Pod;
pub use rule::{Rule, RuleState, RuleStats};
pub use steady::Counters;
pub use targets::Target;
pub use when::When;
