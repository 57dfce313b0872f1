//! What ends a run early, made of the ticks as they come: limits, tests of harm, the health of the control group. Pure.
//! The arithmetic is in `judge/guard.rs`; which statistic a metric is watched by is decided here.

mod beyond;
mod harm;
#[cfg(test)]
mod tests;

pub use self::{
    beyond::{level, rounded},
    harm::FEW_PER_TICK,
};

use std::time::Duration;

use self::{beyond::Beyond, harm::HarmGuard};
use super::watch::{AbortIf, Check, GuardRecord};
use crate::{
    judge::{guard::alpha_of_each, verdict::AbortReason},
    steady::{rates::Tick, sample::Phase},
    target::Group,
};

/// So long must the control group break a check before that ends a run: one second may be a hiccup.
pub const CONTROL_UNHEALTHY_FOR: Duration = Duration::from_secs(5);

/// A guard that fired, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Fired {
    /// As the spec has it.
    pub guard: String,
    /// What was seen.
    pub because: String,
}

impl From<Fired> for AbortReason {
    fn from(Fired { guard, because }: Fired) -> Self {
        Self::Guard { guard, because }
    }
}

/// All guards of a run that look at metrics.
#[derive(Clone, Debug)]
pub struct Guards {
    guards: Vec<Watching>,
}

#[derive(Clone, Debug)]
struct Watching {
    id: String,
    how: How,
    fired: bool,
}

#[derive(Clone, Debug)]
enum How {
    /// The experimental group is beyond a limit.
    Level(Beyond),
    /// It does worse than the control group.
    Harm(Box<HarmGuard>),
    /// The control group is beyond any of these.
    Control(Vec<Beyond>),
}

impl Guards {
    /// Once the baseline is over. The tests of harm share what may be false alarms among them.
    pub fn new(abort_if: &[AbortIf], checks: &[Check], baseline: &[Tick]) -> Self {
        let harms = abort_if.iter().filter(|one| matches!(one, AbortIf::Harm(_))).count();
        let how = |guard: &AbortIf| match guard {
            AbortIf::Level { limit, lasting } => Some(How::Level(Beyond::new(*limit, *lasting))),
            AbortIf::Harm(harm) => {
                Some(How::Harm(Box::new(HarmGuard::new(*harm, baseline, alpha_of_each(harms)))))
            }
            AbortIf::ControlUnhealthy => Some(How::Control(health(abort_if, checks))),
            // Not made of ticks: see `experiment/events.rs`.
            AbortIf::Processes(_) => None,
        };
        let watching =
            |guard: &AbortIf| Some(Watching { id: guard.to_string(), how: how(guard)?, fired: false });
        Self { guards: abort_if.iter().filter_map(watching).collect() }
    }

    /// A tick, with the fault on or off. What is on its way back to normal has nothing that could be ended.
    ///
    /// Every guard sees every tick, whatever another has said of it. A tick that is missing is none.
    pub fn tick(&mut self, tick: &Tick, on: bool) -> Option<Fired> {
        if tick.phase == Phase::Recover {
            return None;
        }
        let feed = |guard: &mut Watching| guard.feed(tick, on);
        let fired: Vec<Fired> = self.guards.iter_mut().filter_map(feed).collect();
        fired.into_iter().next()
    }

    /// What became of each, for the report.
    pub fn evidence(&self) -> Vec<GuardRecord> {
        self.guards.iter().map(Watching::record).collect()
    }
}

impl Watching {
    fn feed(&mut self, tick: &Tick, on: bool) -> Option<Fired> {
        let because = match &mut self.how {
            How::Level(beyond) => beyond.feed(tick, Group::Experiment),
            How::Harm(harm) => {
                if on {
                    harm.feed(tick)
                } else {
                    None
                }
            }
            How::Control(limits) => {
                let all: Vec<_> =
                    limits.iter_mut().filter_map(|limit| limit.feed(tick, Group::Control)).collect();
                all.into_iter().next()
            }
        }?;
        self.fired = true;
        Some(Fired { guard: self.id.clone(), because })
    }

    fn record(&self) -> GuardRecord {
        let none = GuardRecord {
            id: self.id.clone(),
            metric: None,
            e_value_max: None,
            threshold: None,
            fired: self.fired,
            reason: None,
        };
        match &self.how {
            How::Level(beyond) => GuardRecord { metric: Some(beyond.metric().name().to_string()), ..none },
            How::Harm(harm) => GuardRecord {
                metric: Some(harm.metric().name().to_string()),
                // JSON has no word for what is beyond all numbers.
                e_value_max: harm.evidence().map(|evidence| evidence.e_max.min(f64::MAX)),
                threshold: harm.evidence().map(|evidence| evidence.threshold),
                reason: harm.untestable(),
                ..none
            },
            How::Control(_) => none,
        }
    }
}

/// What the control group must keep: the checks, and the limits that end a run.
fn health(abort_if: &[AbortIf], checks: &[Check]) -> Vec<Beyond> {
    let levels = abort_if.iter().filter_map(|guard| match guard {
        AbortIf::Level { limit, lasting } => Some(Beyond::new(*limit, *lasting)),
        _ => None,
    });
    let checks = checks.iter().map(|check| Beyond::new(check.0, CONTROL_UNHEALTHY_FOR));
    checks.chain(levels).collect()
}
