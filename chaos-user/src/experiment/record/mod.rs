//! A run as it was measured, in a file.

mod wire;

pub use wire::{LineError, SampleLine};
