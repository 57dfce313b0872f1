//! What watches over a run: what must hold before it, what ends it early, and what must hold after it.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::hypothesis::Metric;
use crate::{
    fault::Fault,
    units::{show_duration, show_level, show_margin},
};

/// A level of a metric that is a limit: beyond it is bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Of what.
    pub metric: Metric,
    /// Which side of it is bad.
    pub side: Side,
    /// Where, in the metric's own terms: see [`crate::units::parse_level`].
    pub level: f64,
}

/// Which side of a limit is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is above it.
    Above,
    /// What is below it.
    Below,
}

impl Side {
    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

impl Limit {
    /// Whether a level is beyond it.
    pub fn is_broken_by(&self, level: f64) -> bool {
        match self.side {
            Side::Above => level > self.level,
            Side::Below => level < self.level,
        }
    }
}

impl fmt::Display for Limit {
    /// `syscall.error_ratio above 5%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = show_level(self.level, self.metric.kind());
        write!(f, "{} {} {level}", self.metric.name(), self.side.name())
    }
}

/// What must hold in both groups in the baseline, or nothing is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check(pub Limit);

/// Harm that ends a run, compared with the control group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Harm {
    /// Of what.
    pub metric: Metric,
    /// Whether an increase hurts; else a decrease does.
    pub increase: bool,
    /// How much is allowed: as a margin, see [`crate::units::parse_margin`].
    pub most: f64,
}

impl fmt::Display for Harm {
    /// `net.rx_bytes harm -30%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.increase { '+' } else { '-' };
        write!(f, "{} harm {sign}{}", self.metric.name(), show_margin(self.most, self.metric))
    }
}

/// Something that ends a run early.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AbortIf {
    /// The experimental group is beyond a limit for so long.
    Level {
        /// Which.
        limit: Limit,
        /// On end.
        lasting: Duration,
    },
    /// The fault does more harm than this.
    Harm(Harm),
    /// The control group breaks a check, or a limit that ends the run.
    ControlUnhealthy,
    /// A process of a target is killed or crashes. It does so unless it is told otherwise.
    Processes(Processes),
}

impl fmt::Display for AbortIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level { limit, lasting } if lasting.is_zero() => write!(f, "{limit}"),
            Self::Level { limit, lasting } => write!(f, "{limit} for {}", show_duration(*lasting)),
            Self::Harm(harm) => write!(f, "{harm}"),
            Self::ControlUnhealthy => f.write_str("control: unhealthy"),
            Self::Processes(processes) => write!(f, "processes: {}", processes.name()),
        }
    }
}

/// What becomes of a run when a process of a target is killed or crashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Processes {
    /// It is ended.
    #[default]
    Exit,
    /// Nothing.
    Ignore,
}

impl Processes {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Exit, Self::Ignore];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Ignore => "ignore",
        }
    }

    /// As asked for among what ends a run; unless asked, not where a fault itself gives processes signals.
    pub fn of(abort_if: &[AbortIf], faults: &[Fault]) -> Self {
        let asked = abort_if.iter().find_map(|one| match one {
            AbortIf::Processes(processes) => Some(*processes),
            _ => None,
        });
        let gives_signals = |fault: &Fault| matches!(fault, Fault::Call(call) if call.signal.is_some());
        let unless_asked = if faults.iter().any(gives_signals) { Self::Ignore } else { Self::Exit };
        asked.unwrap_or(unless_asked)
    }
}

/// What must hold once everything is over: a command that must succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// What reports call it.
    pub id: String,
    /// A program and its arguments.
    pub run: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What became of a guard.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct GuardRecord {
    /// As the spec has it.
    pub id: String,
    /// Of what, if it is about a metric.
    pub metric: Option<String>,
    /// The largest e-value, of a test of harm.
    pub e_value_max: Option<f64>,
    /// From where on it fires, of a test of harm.
    pub threshold: Option<f64>,
    /// Whether it has.
    pub fired: bool,
    /// Why it could not watch, if it could not.
    pub reason: Option<String>,
}

/// Why a probe's last bad answer was one.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct BadAnswer {
    /// The probe, as the spec has it.
    pub id: String,
    /// Whom it asked.
    pub target: String,
    /// Which group that is in.
    pub group: String,
    /// Such as `connection refused`.
    pub why: String,
}

/// What became of an invariant.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct InvariantRecord {
    /// As the spec has it.
    pub id: String,
    /// Whether it holds.
    pub ok: bool,
    /// How it ended, and the last lines that it said.
    pub detail: String,
    /// How long it took.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::parse;

    #[test]
    fn they_are_called_what_the_spec_has() {
        let limit = Limit { metric: Metric::SyscallErrorRatio, side: Side::Above, level: 0.05 };
        let lasting = Duration::from_secs(5);
        let harm = Harm { metric: Metric::RxBytes, increase: false, most: 0.3 };
        let guards = [
            AbortIf::Level { limit, lasting },
            AbortIf::Level { limit, lasting: Duration::ZERO },
            AbortIf::Harm(harm),
            AbortIf::ControlUnhealthy,
            AbortIf::Processes(Processes::Ignore),
        ];
        let names = guards.map(|guard| guard.to_string());
        assert_eq!(names[0], "syscall.error_ratio above 5% for 5s");
        assert_eq!(names[1], "syscall.error_ratio above 5%");
        assert_eq!(names[2], "net.rx_bytes harm -30%");
        assert_eq!(names[3..], ["control: unhealthy", "processes: ignore"]);
    }

    #[test]
    fn crashes_end_a_run_unless_they_are_asked_for() {
        let fault = |name: &str, given: &[(&str, &str)]| {
            let given =
                given.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ");
            let spec = format!(
                "version: 1\nname: test\ngroups: {{ control: docker:a, experiment: docker:b }}\n\
                 steady_state: {{ gates: [{{ metric: syscalls, within: 10% }}] }}\nfaults: [{{ {name}: {{ {given} }} }}]\n"
            );
            parse(&spec).unwrap().faults
        };
        let loss = fault("loss", &[("percent", "5%")]);
        let signal = fault("signal", &[("syscalls", "openat"), ("signal", "SIGSEGV")]);
        let asked = |processes| [AbortIf::ControlUnhealthy, AbortIf::Processes(processes)];
        assert_eq!(Processes::of(&[], &loss), Processes::Exit);
        assert_eq!(Processes::of(&[], &signal), Processes::Ignore);
        assert_eq!(Processes::of(&asked(Processes::Ignore), &loss), Processes::Ignore);
        assert_eq!(Processes::of(&asked(Processes::Exit), &signal), Processes::Exit);
    }

    #[test]
    fn at_the_limit_is_not_beyond_it() {
        let limit = |side| Limit { metric: Metric::RxPackets, side, level: 10.0 };
        assert!(!limit(Side::Above).is_broken_by(10.0) && limit(Side::Above).is_broken_by(10.1));
        assert!(!limit(Side::Below).is_broken_by(10.0) && limit(Side::Below).is_broken_by(9.9));
    }
}
