//! An experiment from spec to verdict: the product on one page.

pub mod events;
pub mod guards;
pub mod hypothesis;
pub mod invariants;
pub mod metric;
mod outcome;
pub mod parse;
pub mod phases;
pub mod preflight;
pub mod preset;
pub mod probe;
pub mod record;
pub mod spec;
pub mod stop;
pub mod watch;

use hypothesis::{Gate, Metric};
pub use parse::{SpecError, parse};
pub use phases::{Progress, Recording};
pub use spec::{Spec, Timing};
pub use stop::Stop;

use chaos_common::{Counters, RuleStats};

use crate::{
    fault::{
        Pattern,
        mechanism::Mechanism,
        plan::{Options, Plan, PlanError, PlannedRule, plan},
        wanted::wanted,
    },
    judge::{JudgeInput, Judgement, delivery::RuleDelivery, judge},
    kernel::{Injection, Kernel, KernelError, Rollback},
    steady::{
        cgroupfs::CgroupFiles,
        done::Done,
        measure, rates,
        reading::SlotReading,
        sample::{Part, Sample},
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
    /// What the verdict is made from.
    pub input: JudgeInput,
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
    /// A gate on what a file should tell, and does not.
    #[error(
        "{metric} cannot be measured of {target}: its cgroup does not tell (the controller is not enabled for it, or the \
         kernel was built without); leave the gate out, or enable the controller in `cgroup.subtree_control` above it"
    )]
    Untold {
        /// What is gated.
        metric: Metric,
        /// Whose cgroup.
        target: String,
    },
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
    /// Go on although the baseline says that little can be learned: see [`preflight`].
    pub force: bool,
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
    let input = judge_input(spec, &scope, &plan, &recording);
    let judgement = judge(&input);
    Ok(Outcome { scope, plan, recording, input, judgement, rollback })
}

/// Resolves and plans; changes nothing.
pub async fn prepare<K: Kernel>(
    spec: &Spec,
    insist: &Insist,
    kernel: &mut K,
) -> Result<(Scope, Plan), RunError> {
    let scope = target::resolve(&spec.control, &spec.experiment, &insist.allowed).await?;
    let gates = spec.gates.iter().map(|gate| gate.metric).collect();
    let options = Options {
        dry_run: insist.dry_run,
        forced: insist.mechanism,
        gates: Some(gates),
        observe: spec.observe.clone(),
    };
    told(&scope, &spec.gates)?;
    let capabilities = kernel.capabilities(&wanted(&spec.faults, &options))?;
    let plan = plan(&spec.faults, &scope, &capabilities, &options)?;
    Ok((scope, plan))
}

/// Refuses gates on what the files of a target's cgroup do not tell: a controller is off, or an option missing.
fn told(scope: &Scope, gates: &[Gate]) -> Result<(), RunError> {
    for member in &scope.members {
        let slot =
            SlotReading { files: CgroupFiles::read(&member.cgroup.dir), ..SlotReading::of(Counters::ZERO) };
        let Some(done) = Done::between(&slot, &slot) else { continue };
        let is_untold =
            |gate: &&Gate| gate.metric.is_of_files() && measure::summary(gate.metric, &done, 1.0).is_none();
        if let Some(gate) = gates.iter().find(is_untold) {
            return Err(RunError::Untold { metric: gate.metric, target: member.target.to_string() });
        }
    }
    Ok(())
}

fn judge_input(spec: &Spec, scope: &Scope, plan: &Plan, recording: &Recording) -> JudgeInput {
    let (timing, groups) = (&spec.timing, scope.groups());
    let parts = timing.parts().into_iter();
    let phases = parts.filter(|(part, _)| matches!(part, Part::Phase(_)));
    JudgeInput {
        design: timing.design,
        blocks: rates::blocks(&recording.samples, &groups, timing.block.as_secs() as usize),
        kappa: vec![],
        gates: spec.gates.clone(),
        metrics: plan.metrics.clone(),
        confidence: spec.confidence,
        settle: timing.settle,
        ticks: rates::ticks(&recording.samples, &groups),
        expected_ticks: phases.map(|(_, duration)| duration.as_secs() as usize).sum(),
        rules: deliveries(scope, plan, recording),
        aborted: recording.aborted.clone(),
        not_ready: vec![],
        invariants: vec![],
    }
}

/// What each rule did while it was armed.
pub fn deliveries(scope: &Scope, plan: &Plan, recording: &Recording) -> Vec<RuleDelivery> {
    let on: Vec<[&Sample; 2]> = rates::parts(&recording.samples)
        .filter(|(part, _)| part.is_on())
        .filter_map(|(_, samples)| Some([&samples.first()?.1, &samples.last()?.1]))
        .collect();
    let during = |rule: usize, group: Group| {
        let each = on.iter().flat_map(|[first, last]| {
            let of_slot = move |(slot, _): (u32, _)| {
                last.rules[rule][slot as usize].since(first.rules[rule][slot as usize])
            };
            scope.group(group).map(of_slot)
        });
        each.fold(RuleStats::ZERO, RuleStats::plus)
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
