//! The steady state: readings of counters, and what happened between two of them.

pub mod calls;
pub mod rates;
pub mod sample;
