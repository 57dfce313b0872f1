//! The steady state: readings of counters, and what happened between two of them.

pub mod rates;
pub mod sample;
