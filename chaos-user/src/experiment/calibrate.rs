//! What a workload does by itself: a run in which nothing is injected, and what that says of runs to come.

use serde::{Deserialize, Serialize};

use super::{
    Insist, Progress, RunError, Spec, Stop, addresses, ask,
    hypothesis::Metric,
    phases::{self, Beside},
    prepare,
};
use crate::{
    judge::{
        AbortReason,
        calibrate::{Calibrated, Layout, calibrate},
        power::{Power, Shape},
    },
    kernel::{Injection, Kernel, Rollback},
    steady::{
        rates,
        sample::{Part, Phase},
    },
};

/// The version of the file's shape.
pub const SCHEMA: &str = "kchaos-baseline/1";

/// What came of it.
#[derive(Debug)]
pub struct Quiet {
    /// Gate by gate.
    pub gates: Vec<Calibrated>,
    /// How many seconds were measured.
    pub seconds: usize,
    /// Why it ended early.
    pub aborted: Option<AbortReason>,
    /// What was undone.
    pub rollback: Rollback,
}

/// Measures for so long, with everything attached and the faults armed dry, so that what watching costs is in it.
pub async fn measure<K: Kernel>(
    spec: &Spec,
    duration: std::time::Duration,
    insist: &Insist,
    kernel: &mut K,
    stop: &mut Stop,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Quiet, RunError> {
    let (scope, plan) = prepare(spec, insist, kernel).await?;
    let targets = addresses(spec, &scope)?;
    let mut injection = kernel.inject(&spec.name, &plan)?;
    let asked = ask(spec, &targets)?;
    let parts = [(Part::Phase(Phase::Baseline), duration)];
    let beside = Beside { asked, ..Beside::default() };
    let recording = phases::drive(&parts, &scope, &mut injection, beside, stop, progress).await;
    progress(Progress::RollingBack);
    let rollback = injection.rollback();
    let ticks = rates::ticks(&recording.samples, &scope.groups());
    let gates = calibrate(&spec.gates, &ticks, layout(spec), spec.confidence, spec.timing.seed);
    Ok(Quiet { gates, seconds: ticks.len(), aborted: recording.aborted, rollback })
}

/// How the runs to come are laid out.
fn layout(spec: &Spec) -> Layout {
    let timing = &spec.timing;
    let settle = timing.settle.as_secs_f64().ceil() as usize;
    Layout {
        shape: Shape { block: timing.block.as_secs() as usize, settle, pairs: timing.pulses },
        // Of pulses alone, inject is nobody's choice, and blocks may take longer to settle.
        hold: [timing.baseline.as_secs() as usize, (timing.inject.as_secs() as usize).saturating_sub(settle)],
    }
}

/// What is kept for runs to come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of which experiment.
    pub name: String,
    /// How many seconds were measured.
    pub seconds: usize,
    /// Gate by gate.
    pub gates: Vec<KnownGate>,
}

/// What is known of a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownGate {
    /// Which.
    pub metric: String,
    /// By what the standard errors of a hold must be multiplied.
    pub kappa: Option<f64>,
    /// What pulses can be expected to show.
    pub power: Option<Power>,
    /// Of so many runs in which nothing was done …
    pub runs: usize,
    /// … so many passed,
    pub pass: usize,
    /// so many failed,
    pub fail: usize,
    /// and in so many no change at all was rejected at 5 %.
    pub different: usize,
}

impl Baseline {
    /// Of a quiet run.
    pub fn new(spec: &Spec, quiet: &Quiet) -> Self {
        let gate = |one: &Calibrated| KnownGate {
            metric: one.metric.name().to_owned(),
            kappa: one.kappa,
            power: one.power.clone(),
            runs: one.placebos.runs,
            pass: one.placebos.pass,
            fail: one.placebos.fail,
            different: one.placebos.different,
        };
        Self {
            schema: SCHEMA.into(),
            name: spec.name.clone(),
            seconds: quiet.seconds,
            gates: quiet.gates.iter().map(gate).collect(),
        }
    }

    /// What is known of each metric.
    pub fn known(&self) -> Vec<Known> {
        let known = |gate: &KnownGate| {
            let metric = gate.metric.parse().ok()?;
            Some(Known { metric, kappa: gate.kappa, power: gate.power.clone() })
        };
        self.gates.iter().filter_map(known).collect()
    }
}

/// What a quiet run said of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Which.
    pub metric: Metric,
    /// By what the standard errors of a hold must be multiplied.
    pub kappa: Option<f64>,
    /// What pulses can be expected to show.
    pub power: Option<Power>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiment::parse, judge::simulation::World};

    #[test]
    fn pulses_that_settle_for_longer_than_a_hold_takes() {
        let text = "version: 1\nname: slow\ngroups: { control: docker:a, experiment: docker:b }\n\
                    steady_state: { gates: [{ metric: net.rx_bytes, decrease: 10% }] }\nfaults: [{ loss: { percent: 5 } }]\n\
                    run: { design: pulse, block: 60s, settle: 25s }";
        let spec = parse(text).unwrap();
        let ticks = World { phases: [300, 0, 0], ..World::QUIET }.ticks(1);
        let [gate] = &calibrate(&spec.gates, &ticks, layout(&spec), spec.confidence, 1)[..] else { panic!() };
        assert_eq!(gate.kappa, None, "there is no hold to be known of");
    }
}
