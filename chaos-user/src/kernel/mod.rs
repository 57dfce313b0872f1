//! The kernel: what it can do, and injections in force. The only place that knows aya.

mod attach;
mod btf;
mod call;
mod clock;
mod constant;
mod counters;
#[cfg(test)]
pub mod fake;
pub mod fault_point;
mod filter_action;
pub mod fq;
mod held;
pub mod host;
pub mod ifb;
mod info;
mod injection;
pub mod journal;
mod kfunc;
mod lease;
mod live;
mod loading;
mod log;
mod netem;
mod object;
pub mod observe;
pub mod probe;
pub mod qdisc;
mod raw_prog;
mod reset;
mod shaper;
pub mod sleep;
mod sock_diag;
pub mod sweep;
mod symbols;
mod targets;
pub mod test_run;
pub mod verify;
mod watchdog;
mod wire;

use std::time::Duration;

pub use clock::monotonic_ns;
pub use injection::LiveInjection;
pub use live::LiveKernel;
pub use log::KernelLog;
pub use raw_prog::{RawPlace, RawProgramError};
pub use sleep::Delays;
pub use watchdog::{WATCHDOG_VERB, watch};

use crate::{
    fault::{capability::Capabilities, plan::Plan, wanted::Wanted},
    steady::sample::Sample,
};

/// A kernel that faults can be injected into.
pub trait Kernel {
    /// What it makes of a plan.
    type Injection: Injection;

    /// What it can do of what is wanted, found out by trying.
    fn capabilities(&mut self, wanted: &Wanted) -> Result<Capabilities, KernelError>;

    /// Loads, fills and attaches; arms nothing.
    fn inject(&mut self, name: &str, plan: &Plan) -> Result<Self::Injection, KernelError>;
}

/// A plan in force. Dropping it rolls it back.
pub trait Injection {
    /// Lets the faults happen for `duration` at most, as long as the controller lives and keeps sampling.
    fn arm(&mut self, duration: Duration) -> Result<(), KernelError>;

    /// The same with rules that only count what they could hit, and let all of it by. What the faults remember, such as how
    /// much of `max` is left, is not touched. [`Self::arm`] makes them what they are.
    fn arm_dry(&mut self, duration: Duration) -> Result<(), KernelError>;

    /// Ends the faults; everything stays attached.
    fn disarm(&mut self) -> Result<(), KernelError>;

    /// Reads every counter.
    fn sample(&mut self) -> Result<Sample, KernelError>;

    /// What came of faults of system calls so far.
    fn calls(&mut self) -> Result<CallReport, KernelError>;

    /// Disarms, detaches, undoes.
    fn rollback(self) -> Rollback;
}

/// What came of faults of system calls, beside what the rules count.
#[derive(Clone, Debug, Default, PartialEq, schemars::JsonSchema, serde::Serialize, serde::Deserialize)]
pub struct CallReport {
    /// Calls, of anybody on the host, that the kernel did not show to a program of ours because it ran already.
    pub recursion_misses: u64,
    /// What came of delays; `None` where nothing delays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delays: Option<Delays>,
}

impl CallReport {
    /// What was missed, in words; `None` if nothing was.
    pub fn missed(&self) -> Option<String> {
        let missed = self.recursion_misses;
        let text =
            "calls on this host were not looked at: our program ran already on their CPU (recursion misses)";
        (missed > 0).then(|| format!("{missed} {text}"))
    }
}

/// What rolling back did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rollback {
    /// In the order done.
    pub steps: Vec<RollbackStep>,
}

/// One thing undone.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RollbackStep {
    /// What, in words or as the command a human would type.
    pub what: String,
    /// Why it failed.
    pub error: Option<String>,
}

impl Rollback {
    /// Whether nothing is left behind.
    pub fn is_complete(&self) -> bool {
        self.steps.iter().all(|step| step.error.is_none())
    }

    fn step<E: std::fmt::Display>(&mut self, what: impl Into<String>, result: Result<(), E>) {
        self.steps
            .push(RollbackStep { what: what.into(), error: result.err().map(|error| error.to_string()) });
    }
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object could not be loaded.
    #[error("loading the kernel programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("{what}: {source}{}", verifier_log(source))]
    Program {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: aya::programs::ProgramError,
    },
    /// A program that aya does not load was refused.
    #[error(transparent)]
    RawProgram(#[from] RawProgramError),
    /// A map was refused.
    #[error("map {map}: {source}")]
    Map {
        /// Which.
        map: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// Everything else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        source: std::io::Error,
    },
    /// Renewing the lease, or changing the rules, stopped working, so the faults have ended.
    #[error("the lease or its rules could not be written, the faults have ended: {0}")]
    Lease(String),
}

fn verifier_log(error: &aya::programs::ProgramError) -> String {
    match error {
        aya::programs::ProgramError::LoadError { verifier_log, .. } => format!("\n{verifier_log}"),
        _ => String::new(),
    }
}

impl KernelError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    fn btf(why: String) -> Self {
        Self::io("BTF")(std::io::Error::other(why))
    }

    fn program(what: impl Into<String>) -> impl FnOnce(aya::programs::ProgramError) -> Self {
        let what = what.into();
        move |source| Self::Program { what, source }
    }

    fn map(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { map, source }
    }
}
