//! The steady state: readings of counters, and what happened between two of them.

pub mod histogram;
pub mod rates;
pub mod sample;
pub mod summary;
