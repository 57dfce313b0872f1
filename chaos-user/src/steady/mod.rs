//! The steady state: readings of counters, and what happened between two of them.

pub mod activity;
pub mod calls;
pub mod cgroupfs;
pub mod done;
pub mod family;
pub mod histogram;
pub mod measure;
pub mod probe;
pub mod rates;
pub mod reading;
pub mod sample;
pub mod summary;
