//! An experiment from spec to verdict: the product on one page.

pub mod hypothesis;
mod outcome;
pub mod parse;
pub mod phases;
pub mod probe;
pub mod spec;
pub mod stop;

pub use parse::{SpecError, parse};
pub use phases::{Progress, Recording};
pub use spec::{Spec, Timing};
pub use stop::Stop;

use chaos_common::RuleStats;

use crate::{
    fault::{
        Pattern,
        mechanism::Mechanism,
        plan::{Options, Plan, PlanError, PlannedRule, plan},
        wanted::wanted,
    },
    judge::{Design, JudgeInput, Judgement, delivery::RuleDelivery, judge},
    kernel::{Injection, Kernel, KernelError, Rollback},
    steady::{
        rates,
        sample::{Phase, Sample},
    },
    target::{self, Group, Scope, TargetError, refuse::Protected},
};

/// What came of an experiment.
#[derive(Debug)]
pub struct Outcome {
    /// Whom.
    pub scope: Scope,
    /// How.
    pub plan: Plan,
    /// What was measured.
    pub recording: Recording,
    /// What it says.
    pub judgement: Judgement,
    /// What was undone.
    pub rollback: Rollback,
}

/// Why an experiment could not be run. Nothing of the host has changed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What a user may insist on.
#[derive(Clone, Debug, Default)]
pub struct Insist {
    /// Kinds of protected targets that are meant all the same.
    pub allowed: Vec<Protected>,
    /// Use this mechanism wherever it is on the ladder.
    pub mechanism: Option<Mechanism>,
    /// Decide and count everything, inject nothing.
    pub dry_run: bool,
}

/// Runs an experiment. The rollback is done before the verdict is computed: ending a fault never waits for
/// statistics.
pub async fn run<K: Kernel>(
    spec: &Spec,
    insist: &Insist,
    kernel: &mut K,
    stop: &mut Stop,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Outcome, RunError> {
    let (scope, plan) = prepare(spec, insist, kernel).await?;
    let mut injection = kernel.inject(&spec.name, &plan)?;
    let recording = phases::drive(&spec.timing, &scope, &mut injection, stop, progress).await;
    progress(Progress::RollingBack);
    let rollback = injection.rollback();
    let mut judgement = judge(&judge_input(spec, &scope, &plan, &recording));
    judgement.observations.retain(|observation| plan.metrics.contains(&observation.metric));
    Ok(Outcome { scope, plan, recording, judgement, rollback })
}

/// Resolves and plans; changes nothing.
pub async fn prepare<K: Kernel>(
    spec: &Spec,
    insist: &Insist,
    kernel: &mut K,
) -> Result<(Scope, Plan), RunError> {
    let scope = target::resolve(&spec.control, &spec.experiment, &insist.allowed).await?;
    let gates = spec.gates.iter().map(|gate| gate.metric).collect();
    let options = Options { dry_run: insist.dry_run, forced: insist.mechanism, gates: Some(gates) };
    let capabilities = kernel.capabilities(&wanted(&spec.faults, &options))?;
    let plan = plan(&spec.faults, &scope, &capabilities, &options)?;
    Ok((scope, plan))
}

fn judge_input(spec: &Spec, scope: &Scope, plan: &Plan, recording: &Recording) -> JudgeInput {
    let phases = [spec.timing.baseline, spec.timing.inject, spec.timing.recover];
    JudgeInput {
        design: Design::Hold,
        blocks: vec![],
        kappa: vec![],
        gates: spec.gates.clone(),
        confidence: spec.confidence,
        settle: spec.timing.settle,
        ticks: rates::ticks(&recording.samples, &scope.groups()),
        expected_ticks: phases.iter().map(|phase| phase.as_secs() as usize).sum(),
        rules: deliveries(scope, plan, recording),
        aborted: recording.aborted.clone(),
    }
}

/// What each rule did while it was armed.
pub fn deliveries(scope: &Scope, plan: &Plan, recording: &Recording) -> Vec<RuleDelivery> {
    let inject: Vec<&Sample> = recording
        .samples
        .iter()
        .filter(|(phase, _)| *phase == Phase::Inject)
        .map(|(_, sample)| sample)
        .collect();
    let during = |rule: usize, group: Group| {
        let (Some(first), Some(last)) = (inject.first(), inject.last()) else { return RuleStats::ZERO };
        scope.group(group).fold(RuleStats::ZERO, |sum, (slot, _)| {
            let slot = slot as usize;
            sum.plus(last.rules[rule][slot].since(first.rules[rule][slot]))
        })
    };
    let delivery = |(number, planned): (usize, &PlannedRule)| RuleDelivery {
        experiment: during(number, Group::Experiment),
        control: during(number, Group::Control),
        ..delivery_of(planned)
    };
    plan.rules.iter().enumerate().map(delivery).collect()
}

fn delivery_of(planned: &PlannedRule) -> RuleDelivery {
    let fault = &planned.fault;
    let every = matches!(fault.pattern(), Pattern::Every(_));
    let ramp = match fault.pattern() {
        Pattern::Ramp { from, to, .. } => Some([from.min(to).fraction(), from.max(to).fraction()]),
        _ => None,
    };
    RuleDelivery {
        name: fault.label(),
        expected_fraction: ramp.is_none().then(|| fault.pattern().long_run_fraction()),
        expected_range: ramp,
        memoryless: planned.rule.pattern.is_memoryless() && !every,
        limited: fault.limits().change_the_share(),
        dry_run: planned.rule.dry_run != 0,
        experiment: RuleStats::ZERO,
        control: RuleStats::ZERO,
    }
}
