//! A group beyond a limit.

use std::time::Duration;

use crate::{
    experiment::{
        hypothesis::{Kind, Metric},
        watch::{Limit, Side},
    },
    judge::{
        guard::{EventLimit, Guard, LevelLimit, Reading},
        names,
        score::{self, Cell},
    },
    steady::{
        rates::{Tick, points},
        summary::Summary,
    },
    target::Group,
    units::{show_duration, show_level},
};

/// One limit, and for how long a group has been beyond it.
#[derive(Clone, Debug)]
pub struct Beyond {
    limit: Limit,
    lasting: Duration,
    guard: Guard,
}

impl Beyond {
    /// Fires once a group has been beyond it for so long on end; for a single tick, if that is 0.
    pub fn new(limit: Limit, lasting: Duration) -> Self {
        let guard = match limit.metric.kind() {
            Kind::Event => Guard::Event(EventLimit::new(limit.level as u64)),
            _ => Guard::Level(LevelLimit::new(signed(limit.side, limit.level), lasting.as_secs_f64())),
        };
        Self { limit, lasting, guard }
    }

    /// Of what.
    pub fn metric(&self) -> Metric {
        self.limit.metric
    }

    /// A tick of a group; what was seen, if that is reason to stop.
    pub fn feed(&mut self, tick: &Tick, group: Group) -> Option<String> {
        let point = points(self.limit.metric, [tick]).into_iter().next()?;
        let summary = score::side(group, &point);
        let level = level(self.limit.metric.kind(), summary);
        let reading = match self.guard {
            Guard::Event(_) => Reading::Counts(summary.count as u64, 0),
            _ => Reading::Value(level.map(|level| signed(self.limit.side, level))),
        };
        self.guard.feed(reading, tick.seconds).then(|| self.because(group, level))
    }

    /// `the experimental group: syscall.error_ratio at 7.5%, above 5% for 5s`.
    fn because(&self, group: Group, level: Option<f64>) -> String {
        let kind = self.limit.metric.kind();
        let at = match (kind, level) {
            (Kind::Event, _) => String::new(),
            (_, Some(level)) => format!(" at {}", show_level(rounded(level), kind)),
            (_, None) => String::new(),
        };
        let lasting = if self.lasting.is_zero() {
            String::new()
        } else {
            format!(" for {}", show_duration(self.lasting))
        };
        let (name, side) = (self.limit.metric.name(), self.limit.side.name());
        let limit = show_level(self.limit.level, kind);
        format!("{name} of the {} group{at}, {side} {limit}{lasting}", names::group(group))
    }
}

/// What one group's level is in its own terms; `None` where there was nothing to take it of.
pub fn level(kind: Kind, summary: &Summary) -> Option<f64> {
    Cell::merged(kind, summary.clone()).map(|cell| cell.value()).filter(|value| value.is_finite())
}

/// So that more is always worse.
fn signed(side: Side, level: f64) -> f64 {
    match side {
        Side::Above => level,
        Side::Below => -level,
    }
}

/// To three digits, for people.
pub fn rounded(level: f64) -> f64 {
    format!("{level:.2e}").parse().unwrap_or(level)
}
