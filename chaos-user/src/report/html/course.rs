//! What each gate's metric did in the course of the run: the points that figures are drawn from.

use crate::{
    experiment::hypothesis::{Kind, Margin, Metric, Scale},
    judge::{JudgeInput, score},
    report::Report,
    steady::{
        rates::{Tick, point},
        sample::Phase,
        summary::Point,
    },
    target::Group,
};

/// One gate's metric, from the first tick to the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is called.
    pub name: String,
    /// How it is compared.
    pub kind: Kind,
    /// How far it may move.
    pub margin: Margin,
    /// What happened, in order.
    pub stretches: Vec<Stretch>,
}

/// A part of the run in which nothing was switched.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// Which part.
    pub part: Part,
    /// When it began, in seconds since the run did.
    pub start_s: f64,
    /// How long it took.
    pub seconds: f64,
    /// What happened: when, in seconds since the stretch began, at the end of each tick; and what.
    pub points: Vec<(f64, Point)>,
}

/// What was going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A phase of its own.
    Phase(Phase),
    /// A block of a pair, the fault on or off.
    Block {
        /// Whether it was on.
        on: bool,
    },
}

impl Part {
    /// Whether there was a fault.
    pub const fn is_on(self) -> bool {
        matches!(self, Self::Phase(Phase::Inject) | Self::Block { on: true })
    }

    /// Whether it shows what is usual: no fault, and none just before, or none a block long.
    pub const fn is_usual(self) -> bool {
        matches!(self, Self::Phase(Phase::Baseline) | Self::Block { on: false })
    }
}

/// A part of the run with its ticks, of whatever metric.
struct Ticks<'a> {
    part: Part,
    start_s: f64,
    seconds: f64,
    ticks: Vec<&'a Tick>,
}

/// All gates' metrics, in the order of the spec.
pub fn series(report: &Report, input: &JudgeInput) -> Vec<Series> {
    let parts = parts(report, input);
    let stretch = |metric: Metric, part: &Ticks<'_>| {
        let points = part.ticks.iter().filter_map(|tick| Some((tick.at_s, point(metric, tick)?))).collect();
        Stretch { part: part.part, start_s: part.start_s, seconds: part.seconds, points }
    };
    let of_gate = |gate: &crate::experiment::hypothesis::Gate| Series {
        name: gate.metric.name().into(),
        kind: gate.metric.kind(),
        margin: gate.margin,
        stretches: parts.iter().map(|part| stretch(gate.metric, part)).collect(),
    };
    input.gates.iter().map(of_gate).collect()
}

/// The baseline, the pulses, the hold and what came after, one after the other.
fn parts<'a>(report: &Report, input: &'a JudgeInput) -> Vec<Ticks<'a>> {
    let phase = |phase: Phase| {
        let ticks: Vec<_> = input.ticks.iter().filter(|tick| tick.phase == phase).collect();
        let record = report.phases.iter().find(|record| record.phase == phase && record.pair.is_none());
        (Part::Phase(phase), record.map_or(0.0, |record| record.seconds), ticks)
    };
    let blocks = input.blocks.iter().map(|block| {
        (Part::Block { on: block.on }, block.expected_ticks as f64, block.ticks.iter().collect::<Vec<_>>())
    });
    let all = [phase(Phase::Baseline)].into_iter().chain(blocks);
    let all = all.chain([phase(Phase::Inject), phase(Phase::Recover)]);
    let mut start_s = 0.0;
    let mut placed = |(part, planned_s, ticks): (Part, f64, Vec<&'a Tick>)| {
        let seconds = ticks.last().map_or(0.0, |tick| tick.at_s).max(planned_s);
        let ticks = Ticks { part, start_s, seconds, ticks };
        start_s += seconds;
        ticks
    };
    all.map(&mut placed).filter(|part| part.seconds > 0.0).collect()
}

impl Series {
    /// When the last stretch ended.
    pub fn end_s(&self) -> f64 {
        self.stretches.last().map_or(0.0, |stretch| stretch.start_s + stretch.seconds)
    }

    /// Whether durations were measured.
    pub fn has_durations(&self) -> bool {
        let mut points = self.stretches.iter().flat_map(|stretch| &stretch.points);
        points.any(|(_, point)| !point.control.latency.is_empty() || !point.experiment.latency.is_empty())
    }

    /// Everything that happened in such parts, added up.
    pub fn total(&self, of: impl Fn(Part) -> bool) -> Point {
        let stretches = self.stretches.iter().filter(|stretch| of(stretch.part));
        Point::sum(stretches.flat_map(|stretch| stretch.points.iter().map(|(_, point)| point)))
    }

    /// How far the groups usually are apart; `None` if that is not known.
    pub fn usual(&self) -> Option<f64> {
        let total = self.total(Part::is_usual);
        let has_both = total.control.count > 0.0 && total.experiment.count > 0.0;
        apart(self.kind, &total).filter(|_| has_both || self.kind.scale() != Scale::Relative)
    }

    /// By how much more the groups are apart in these points than usually, as a change in the metric's own terms.
    pub fn change<'a>(&self, points: impl IntoIterator<Item = &'a Point>, usual: f64) -> Option<f64> {
        self.as_change(apart(self.kind, &Point::sum(points))? - usual)
    }

    /// What the control group usually does; `None` if it does nothing.
    pub fn control_usual(&self) -> Option<f64> {
        self.usual().and_then(|_| statistic(self.kind, Group::Control, &self.total(Part::is_usual)))
    }

    /// How much more the control group does in these points than usually.
    pub fn control_change<'a>(&self, points: impl IntoIterator<Item = &'a Point>, usual: f64) -> Option<f64> {
        self.as_change(statistic(self.kind, Group::Control, &Point::sum(points))? - usual)
    }

    fn as_change(&self, theta: f64) -> Option<f64> {
        let change = if self.kind.scale() == Scale::Relative { theta.exp_m1() } else { theta };
        change.is_finite().then_some(change)
    }

    /// The margin, where it says something about a single tick: not of slopes and of what is counted over a whole run.
    pub fn limits(&self) -> [Option<f64>; 2] {
        match self.kind.scale() {
            Scale::Relative | Scale::Points => [self.margin.decrease.map(|by| -by), self.margin.increase],
            Scale::PerMinute | Scale::Number => [None, None],
        }
    }
}

/// How far the groups are apart, on the scale on which they are compared.
fn apart(kind: Kind, point: &Point) -> Option<f64> {
    Some(statistic(kind, Group::Experiment, point)? - statistic(kind, Group::Control, point)?)
}

/// What a group did, on that scale.
fn statistic(kind: Kind, group: Group, point: &Point) -> Option<f64> {
    let statistic = score::Cell::merged(kind, score::side(group, point).clone())?.statistic();
    statistic.is_finite().then_some(statistic)
}
