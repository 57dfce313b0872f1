//! One gate: the effect against the margin declared before the run.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    estimate::{Contrast, Estimate, Missing},
    holm,
};
use crate::experiment::hypothesis::{Gate, Kind, Margin, Metric, Scale};

/// How a metric's effect is measured: by phases or by pulses.
pub type Measure<'a> = &'a dyn Fn(Metric, Contrast) -> Result<Estimate, Missing>;

/// What one gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GateVerdict {
    /// The interval lies inside the margin.
    Pass,
    /// The interval lies outside the margin, also after Holm.
    Fail,
    /// Neither.
    Inconclusive,
}

/// A gate, judged.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct GateResult {
    /// What was measured.
    pub metric: Metric,
    /// How far it may move.
    pub margin: Margin,
    /// What it says.
    pub verdict: GateVerdict,
    /// The effect, if it could be estimated.
    pub estimate: Option<Estimate>,
    /// Why it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
    /// What has been demonstrated with the confidence of the verdict.
    pub bound: Option<Bound>,
    /// One-sided p-value of "inside the margin".
    pub p_fail: Option<f64>,
    /// The same, adjusted for all gates.
    pub p_fail_holm: Option<f64>,
    /// p-value of "no change at all" that needs no model, of pulses. Never decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_randomization: Option<f64>,
    /// The interval excludes no change at all. Never decides.
    pub detectable: bool,
    /// If inconclusive: a phase of about this many seconds, and a baseline in proportion, would settle it if the
    /// effect is as estimated. `None` if that is more than [`MOST_LONGER`] times as long, or targets differ too much.
    pub needs_s: Option<f64>,
    /// The same in pairs of blocks, of pulses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs_pairs: Option<usize>,
}

/// A gate is not worth running more than this many times as long.
const MOST_LONGER: f64 = 50.0;

/// What an interval demonstrates, as a change in the metric's own terms.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// It did so by less than this; 0 if it did not do so at all.
    LessThan {
        /// Which way.
        direction: Direction,
        /// How far.
        by: f64,
    },
    /// It did so by more than this.
    MoreThan {
        /// Which way.
        direction: Direction,
        /// How far.
        by: f64,
    },
}

/// Which way a metric went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Down.
    Fell,
    /// Up.
    Rose,
    /// Either.
    Moved,
}

/// Lower and upper limit of theta: the margin on the scale of the test.
pub fn limits(kind: Kind, margin: Margin) -> [f64; 2] {
    let scale = |change: f64| match kind.scale() {
        Scale::Relative => change.max(-1.0).ln_1p(),
        Scale::Points | Scale::PerMinute | Scale::Number => change,
    };
    let low = margin.decrease.map_or(f64::NEG_INFINITY, |decrease| scale(-decrease));
    let high = margin.increase.map_or(f64::INFINITY, scale);
    [low, high]
}

/// Judges every gate. See [`judge_all`].
pub fn judge(gates: &[Gate], measure: Measure, confidence: f64) -> Vec<GateResult> {
    judge_all(gates, &[measure], confidence).into_iter().flatten().collect()
}

/// Judges every gate by each of these measures. PASS needs no correction, because all gates must pass (an
/// intersection–union test, Berger 1982); FAIL is adjusted by Holm, because one is enough.
pub fn judge_all(gates: &[Gate], measures: &[Measure], confidence: f64) -> Vec<Vec<GateResult>> {
    let alpha = 1.0 - confidence;
    let alone = |measure: &Measure| gates.iter().map(|gate| gate_alone(gate, *measure)).collect::<Vec<_>>();
    let mut results: Vec<GateResult> = measures.iter().flat_map(alone).collect();
    let p: Vec<f64> = results.iter().map(|result| result.p_fail.unwrap_or(1.0)).collect();
    for (result, p_holm) in results.iter_mut().zip(holm::adjust(&p)) {
        result.p_fail_holm = result.p_fail.map(|_| p_holm);
        if p_holm <= alpha {
            result.verdict = GateVerdict::Fail;
        }
        let Some(effect) = result.estimate.as_ref().filter(|effect| effect.kind != Kind::Event) else {
            continue;
        };
        result.bound = Some(bound(effect, result.margin, result.verdict));
        let longer = times_longer(effect, result);
        result.needs_pairs = longer.and_then(|times| Some((times * effect.pairs? as f64).ceil() as usize));
        result.needs_s = longer.filter(|_| effect.pairs.is_none()).map(|times| times * effect.seconds);
    }
    results.chunks(gates.len().max(1)).map(<[GateResult]>::to_vec).collect()
}

/// A gate before the others are looked at: PASS or not yet decided.
fn gate_alone(gate: &Gate, measure: Measure) -> GateResult {
    let estimate = measure(gate.metric, Contrast::Groups);
    let missing = estimate.as_ref().err().copied();
    let estimate = estimate.ok();
    let verdict = estimate.as_ref().map_or(GateVerdict::Inconclusive, |effect| alone(effect, gate.margin));
    let tested = estimate.as_ref().filter(|effect| effect.kind != Kind::Event);
    GateResult {
        metric: gate.metric,
        margin: gate.margin,
        verdict,
        p_fail: tested.map(|effect| p_fail(effect, gate.margin)),
        detectable: estimate.as_ref().is_some_and(|effect| !(effect.ci[0]..=effect.ci[1]).contains(&0.0)),
        estimate,
        missing,
        bound: None,
        p_fail_holm: None,
        p_randomization: None,
        needs_s: None,
        needs_pairs: None,
    }
}

/// What a gate says before the others are looked at. Of what is counted and not estimated it is all there is to say.
fn alone(effect: &Estimate, margin: Margin) -> GateVerdict {
    let most = margin.increase.unwrap_or(f64::INFINITY);
    match effect.kind {
        Kind::Event if effect.cells.experiment_during > most => GateVerdict::Fail,
        Kind::Event => GateVerdict::Pass,
        _ if is_inside(effect, margin) => GateVerdict::Pass,
        _ => GateVerdict::Inconclusive,
    }
}

/// Whether the interval lies inside the margin: two one-sided tests.
pub fn is_inside(effect: &Estimate, margin: Margin) -> bool {
    let [low, high] = limits(effect.kind, margin);
    effect.theta_ci[0] > low && effect.theta_ci[1] < high
}

/// The smaller p-value of both sides; where there is no margin nothing can be outside it.
pub fn p_fail(effect: &Estimate, margin: Margin) -> f64 {
    let [low, high] = limits(effect.kind, margin);
    let above = if high.is_finite() { effect.p_beyond(high, true) } else { 1.0 };
    let below = if low.is_finite() { effect.p_beyond(low, false) } else { 1.0 };
    above.min(below)
}

fn bound(effect: &Estimate, margin: Margin, verdict: GateVerdict) -> Bound {
    let [low, high] = effect.ci;
    if verdict == GateVerdict::Fail {
        return match effect.theta > 0.0 {
            true => Bound::MoreThan { direction: Direction::Rose, by: low },
            false => Bound::MoreThan { direction: Direction::Fell, by: -high },
        };
    }
    let (direction, by) = match (margin.increase, margin.decrease) {
        (Some(_), None) => (Direction::Rose, high),
        (None, Some(_)) => (Direction::Fell, -low),
        _ => (Direction::Moved, low.abs().max(high.abs())),
    };
    Bound::LessThan { direction, by: by.max(0.0) }
}

/// The half-width shrinks with the root of the time: (half / distance to the limit)² times as long.
fn times_longer(effect: &Estimate, gate: &GateResult) -> Option<f64> {
    // Longer, the same targets would differ all the same.
    if gate.verdict != GateVerdict::Inconclusive || effect.is_by_targets() {
        return None;
    }
    let [low, high] = limits(effect.kind, gate.margin);
    let [ci_low, ci_high] = effect.theta_ci;
    let (up, down) = (ci_high - effect.theta, effect.theta - ci_low);
    let longer = |half: f64, limit: f64| (half / (limit - effect.theta)).powi(2);
    let times = if effect.theta > high {
        longer(down, high)
    } else if effect.theta < low {
        longer(up, low)
    } else {
        longer(up, high).max(longer(down, low))
    };
    // Just outside after Holm: the interval itself would do, the adjustment does not.
    (times <= MOST_LONGER).then_some(times.max(1.0))
}

/// Whether the control group itself stayed where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Steady {
    /// Its change lies inside the margin.
    Yes,
    /// Its change lies outside the margin.
    No,
    /// Its change may lie on either side.
    Unclear,
}

/// What the control group did by itself: where it moves with the fault, the fault leaked or the load did.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct ControlResult {
    /// What was measured.
    pub metric: Metric,
    /// Whether it stayed inside the margin.
    pub steady: Steady,
    /// Its change, if it could be estimated.
    pub estimate: Option<Estimate>,
}

/// The control group's own change, against the gate's margin taken both ways: any move of the yardstick matters.
pub fn judge_control(gate: &Gate, measure: Measure) -> ControlResult {
    let estimate = measure(gate.metric, Contrast::Control).ok();
    let steady = estimate.as_ref().map_or(Steady::Unclear, |effect| {
        let limits = both_ways(limits(effect.kind, gate.margin));
        let [ci_low, ci_high] = effect.theta_ci;
        if ci_low > limits[0] && ci_high < limits[1] {
            Steady::Yes
        } else if is_outside(effect, limits) {
            Steady::No
        } else {
            Steady::Unclear
        }
    });
    ControlResult { metric: gate.metric, steady, estimate }
}

/// Whether the interval lies wholly outside these limits.
pub fn is_outside(effect: &Estimate, [low, high]: [f64; 2]) -> bool {
    effect.theta_ci[0] > high || effect.theta_ci[1] < low
}

/// Where one side has no limit, the other's mirror image.
pub fn both_ways([low, high]: [f64; 2]) -> [f64; 2] {
    [if low.is_finite() { low } else { -high }, if high.is_finite() { high } else { -low }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::estimate::estimate,
        steady::summary::{Point, Summary},
    };

    fn effect(kind: Kind, control: f64, before: f64, during: f64, of: f64) -> Estimate {
        let phase = |experiment: f64| -> Vec<Point> {
            let of = |value: f64, t: usize| {
                let wobble = 1.0 + [0.01, -0.02, 0.0, 0.02, -0.01][t % 5];
                Summary::count(value * wobble, of, value as u64)
            };
            let point =
                |t| Point { control: of(control, t), experiment: of(experiment, t + 2), seconds: 1.0 };
            (0..60).map(point).collect()
        };
        estimate(kind, Contrast::Groups, &phase(before), &phase(during), 0.95).unwrap()
    }

    const RISES_BY_A_TENTH: Margin = Margin { increase: Some(0.1), decrease: None };

    #[test]
    fn ratios_levels_and_shares_of_time_move_as_far_as_they_do() {
        let per_request = effect(Kind::Ratio, 5_000.0, 5_000.0, 6_000.0, 300.0);
        assert!((per_request.change - 0.2).abs() < 1e-6 && per_request.ci[0] > 0.1, "{per_request:?}");
        assert!(p_fail(&per_request, RISES_BY_A_TENTH) < 0.01);
        let level = effect(Kind::Gauge, 1e8, 2e8, 2.1e8, 1.0);
        assert!((level.change - 0.05).abs() < 1e-6, "{level:?}");
        assert_eq!(alone(&level, RISES_BY_A_TENTH), GateVerdict::Pass);
        let stalled = effect(Kind::TimeShare, 0.01, 0.01, 0.04, 1.0);
        assert!((stalled.change - 0.03).abs() < 1e-6, "{stalled:?}");
        let never = effect(Kind::TimeShare, 0.0, 0.0, 0.0, 1.0);
        assert!(never.ci[0] < 0.0 && never.ci[1] > 0.0, "no stall has an interval too: {never:?}");
    }

    #[test]
    fn events_are_counted_and_not_estimated() {
        let most = |most| Margin { increase: Some(most), decrease: None };
        let killed = effect(Kind::Event, 0.0, 0.0, 1.0, 1.0);
        assert!((killed.cells.experiment_during - 60.0).abs() < 1e-6, "{killed:?}");
        assert_eq!(alone(&killed, most(59.0)), GateVerdict::Fail);
        assert_eq!(alone(&killed, most(61.0)), GateVerdict::Pass);
        let before = effect(Kind::Event, 0.0, 1.0, 0.0, 1.0);
        assert_eq!(
            alone(&before, most(0.0)),
            GateVerdict::Pass,
            "what was before the fault is not its doing"
        );
    }
}
