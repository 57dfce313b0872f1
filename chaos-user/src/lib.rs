//! kchaos: kernel-level fault injection for cgroups, with a verdict.
//!
//! A *spec* says what should go wrong and what should stay true; a *plan* says how this kernel will do it;
//! an *injection* owns it while it lasts and undoes it when it ends; *samples* of a control group and of an
//! experimental group become a *verdict*.

pub mod cli;
pub mod demo;
pub mod experiment;
pub mod fault;
#[cfg(any(feature = "fuzzing", test))]
#[doc(hidden)]
pub mod fuzz;
pub mod import;
pub mod judge;
pub mod kernel;
pub mod probe;
pub mod report;
pub mod steady;
pub mod target;
pub mod units;
