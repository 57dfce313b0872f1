//! The `hold` design: the fault stays on for one phase, which is compared with the one before.

use super::{
    Contrast, Design, Estimate, GateVerdict, JudgeInput, Missing, Recovered, Recovery, estimate, ewc, gate,
    jackknife, recovery,
};
use crate::{
    experiment::hypothesis::Metric,
    steady::{
        rates::{Tick, points},
        sample::Phase,
    },
};

/// A series whose batch means resemble their neighbours more than this has no mean to compare: it is on its way.
const MOST_TRENDING: f64 = 0.9;

/// Into how many batches a series is cut for that.
const BATCHES: usize = 20;

/// The effect between two phases.
pub(super) fn effect(
    input: &JudgeInput,
    metric: Metric,
    contrast: Contrast,
    [before, during]: [&[&Tick]; 2],
) -> Result<Estimate, Missing> {
    let of = |ticks: &[&Tick]| points(metric, ticks.iter().copied());
    let confidence = input.usable_confidence();
    let effect = estimate::estimate(metric.kind(), contrast, &of(before), &of(during), confidence)?;
    // κ is for what time says; that seconds resemble each other does not matter to how targets differ.
    let kappa = input.kappa_of(metric).unwrap_or(1.0);
    let targets = jackknife::of_targets(metric, contrast, before, during);
    Ok(effect.inflated(kappa, confidence).or_targets(targets, confidence))
}

/// The ticks of a phase that count: those that lie mostly after the system has settled. The baseline begins settled.
pub(super) fn phase_ticks(input: &JudgeInput, phase: Phase) -> Vec<&Tick> {
    let settle_s = if phase == Phase::Baseline { 0.0 } else { input.settle.as_secs_f64() };
    let middle = |tick: &Tick| tick.at_s - tick.seconds / 2.0;
    input.ticks.iter().filter(|tick| tick.phase == phase && middle(tick) >= settle_s).collect()
}

/// Metastability: is the system back once the trigger is gone? The first half is given to it for coming back.
pub(super) fn recovery(input: &JudgeInput, baseline: &[&Tick]) -> Recovery {
    let mut ticks = phase_ticks(input, Phase::Recover);
    let half_s = ticks.last().map_or(0.0, |tick| tick.at_s / 2.0);
    ticks.retain(|tick| tick.at_s - tick.seconds / 2.0 >= half_s);
    if ticks.len() < ewc::MIN_TICKS {
        return Recovery { outcome: Recovered::NotMeasured, gates: vec![], time: None, index: None };
    }
    let measure = |metric, contrast| effect(input, metric, contrast, [baseline, &ticks]);
    let gates = gate::judge(&input.gates, &measure, input.usable_confidence());
    let outcome = if gates.iter().any(|gate| gate.verdict == GateVerdict::Fail) {
        Recovered::NotRecovered
    } else if gates.iter().all(|gate| gate.verdict == GateVerdict::Pass) {
        Recovered::Recovered
    } else {
        Recovered::Inconclusive
    };
    let time = match input.design {
        Design::Pulse => recovery::time_of_pulses(input, baseline),
        Design::Hold | Design::Both => recovery::time_of_hold(input, baseline),
    };
    let index = input.design.has_hold().then(|| recovery::index(input, baseline)).flatten();
    Recovery { outcome, gates, time, index }
}

/// Whether a level of the experimental group was on its way all through the inject phase.
pub(super) fn is_trending(input: &JudgeInput, metric: Metric) -> bool {
    let ticks = phase_ticks(input, Phase::Inject);
    let values: Vec<f64> = points(metric, ticks).iter().map(|point| point.experiment.count).collect();
    let batch = values.len().div_ceil(BATCHES).max(1);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let means: Vec<f64> = values.chunks(batch).map(mean).collect();
    means.len() >= BATCHES / 2 && ewc::lag1_detached(&means) > MOST_TRENDING
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::simulation::World;

    #[test]
    fn a_level_that_only_grows_is_told_from_one_that_wanders() {
        let wandering = World { rho: 0.5, sd: 0.3, ..World::QUIET }.input(1);
        assert!(!is_trending(&wandering, Metric::RxBytes));
        let mut growing = wandering.clone();
        for (t, tick) in growing.ticks.iter_mut().enumerate() {
            tick.experiment.counters.rx_bytes = 1_000_000 + 50_000 * t as u64;
        }
        assert!(is_trending(&growing, Metric::RxBytes));
        growing.ticks.truncate(65);
        assert!(!is_trending(&growing, Metric::RxBytes), "five seconds say nothing");
    }
}
