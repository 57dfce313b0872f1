//! Is there anything to judge? A run in which nothing could have happened is not a good one.

use super::{Delivery, InvalidReason, JudgeInput, verdict};
use crate::{
    experiment::hypothesis::{Kind, Metric},
    steady::{done::Done, measure, rates::Tick, sample::Phase},
    target::Group,
};

/// More than this share of ticks lost, and what is left may be a selection.
const MOST_LOST: f64 = 0.1;

/// Why there is nothing to judge.
pub(super) fn invalid(input: &JudgeInput, delivery: &[Delivery]) -> Vec<InvalidReason> {
    if !input.not_ready.is_empty() {
        // Whatever else is missing is missing because of that.
        return input.not_ready.clone();
    }
    let mut reasons = verdict::invalid_delivery(delivery, input.design.has_pulses());
    let (lost, expected) = lost_ticks(input);
    if lost as f64 > MOST_LOST * expected as f64 {
        reasons.push(InvalidReason::LostTicks { lost, expected });
    }
    let everything = |group| activity(&Metric::ALL, all_ticks(input), group);
    if everything(Group::Control) == 0.0 && everything(Group::Experiment) > 0.0 {
        reasons.push(InvalidReason::ControlMissing);
    } else {
        reasons.extend(inactive(input));
    }
    reasons
}

/// The ticks of the phases and of the blocks, those of which count as inject where the fault was on.
fn all_ticks(input: &JudgeInput) -> impl Iterator<Item = &Tick> {
    input.ticks.iter().chain(input.blocks.iter().flat_map(|block| &block.ticks))
}

/// Groups that did nothing that any gate is made of. That the experimental group falls silent while injecting may be
/// the effect, and is left to the gates.
fn inactive(input: &JudgeInput) -> Vec<InvalidReason> {
    let metrics: Vec<_> = input.gates.iter().map(|gate| gate.metric).collect();
    let needed = [
        (Group::Control, Phase::Baseline),
        (Group::Experiment, Phase::Baseline),
        (Group::Control, Phase::Inject),
    ];
    let is_idle = |(group, phase): &(Group, Phase)| {
        let ticks = all_ticks(input).filter(|tick| tick.phase == *phase);
        activity(&metrics, ticks, *group) == 0.0
    };
    needed
        .into_iter()
        .filter(is_idle)
        .map(|(group, phase)| InvalidReason::NoActivity { group, phase })
        .collect()
}

/// How much happened that these metrics are made of: of a ratio what it is taken of, since no errors is no idleness.
fn activity<'a>(metrics: &[Metric], ticks: impl IntoIterator<Item = &'a Tick>, group: Group) -> f64 {
    let of_tick = |tick: &Tick, metric: Metric| {
        let summary = measure::summary(metric, side(group, tick), tick.seconds);
        summary.map_or(0.0, |summary| match metric.kind() {
            Kind::Rate | Kind::Gauge | Kind::Trend => summary.count,
            // That nothing happened of what must not happen is no idleness either.
            _ => summary.of,
        })
    };
    ticks.into_iter().flat_map(|tick| metrics.iter().map(move |metric| of_tick(tick, *metric))).sum()
}

/// What one group did in a tick.
const fn side(group: Group, tick: &Tick) -> &Done {
    match group {
        Group::Control => &tick.control,
        Group::Experiment => &tick.experiment,
    }
}

/// How many ticks are lost, of how many.
pub(super) fn lost_ticks(input: &JudgeInput) -> (usize, usize) {
    let expected =
        input.expected_ticks + input.blocks.iter().map(|block| block.expected_ticks).sum::<usize>();
    (expected.saturating_sub(all_ticks(input).count()), expected)
}
