//! An experiment from spec to verdict: the product on one page.

pub mod calibrate;
pub mod events;
pub mod guards;
pub mod hypothesis;
pub mod invariants;
pub mod metric;
mod outcome;
pub mod oversee;
pub mod parse;
pub mod phases;
pub mod preflight;
pub mod preset;
pub mod probe;
pub mod record;
pub mod spec;
pub mod stop;
pub mod watch;

use calibrate::Known;
use hypothesis::Metric;
use oversee::Oversight;
pub use parse::{SpecError, parse};
pub use phases::{Progress, Recording};
use record::Recorded;
pub use spec::{Spec, Timing};
pub use stop::Stop;
use watch::AbortIf;

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
    probe::{ProbeError, ProbeTarget, Prober},
    steady::{cgroupfs::CgroupFiles, done::Done, measure, reading::SlotReading},
    target::{self, Member, Scope, TargetError, address_of, refuse::Protected},
};

/// What came of an experiment.
#[derive(Debug)]
pub struct Outcome {
    /// Whom.
    pub scope: Scope,
    /// How.
    pub plan: Plan,
    /// What was measured.
    pub run: Recorded,
    /// What the judge was given.
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
    /// A probe.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// What this system is.
    #[error("what system this is cannot be told: {0}")]
    System(#[from] std::io::Error),
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
    /// What a quiet run said of the metrics.
    pub known: Vec<Known>,
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
    let rules: Vec<RuleDelivery> = plan.rules.iter().map(delivery_of).collect();
    let targets = addresses(spec, &scope)?;
    let mut injection = kernel.inject(&spec.name, &plan)?;
    let asked = ask(spec, &targets)?;
    let mut oversight = Oversight::new(spec, &scope, rules.clone(), insist);
    let beside = phases::Beside { asked, oversight: Some(&mut oversight), longest: Some(spec.max_duration) };
    let mut recording =
        phases::drive(&spec.timing.parts(), &scope, &mut injection, beside, stop, progress).await;
    progress(Progress::RollingBack);
    let rollback = injection.rollback();
    let mut watched = oversight.watched();
    watched.probes = std::mem::take(&mut recording.heard);
    if recording.not_ready.is_empty() {
        watched.invariants = invariants::run_all(&spec.invariants).await;
    }
    let run = Recorded {
        source: String::new(),
        spec: spec.clone(),
        slots: scope.groups(),
        rules,
        metrics: plan.metrics.clone(),
        kappa: insist.known.iter().filter_map(|known| Some((known.metric, known.kappa?))).collect(),
        facts: outcome::facts(&scope, &plan, &rollback)?,
        watched,
        recording,
    };
    let input = run.judge_input();
    let judgement = judge(&input);
    Ok(Outcome { scope, plan, run, input, judgement, rollback })
}

/// Where the targets are asked, if the spec has probes.
fn addresses(spec: &Spec, scope: &Scope) -> Result<Vec<ProbeTarget>, TargetError> {
    let target = |(slot, member): (usize, &Member)| Ok(ProbeTarget { slot, address: address_of(member)? });
    let members = scope.members.iter().enumerate().filter(|_| !spec.probes.is_empty());
    members.map(target).collect()
}

/// Begins to ask them. Not before programs are loaded: a program asked that ends sends a signal, and while one is pending the
/// kernel verifies nothing (kernel/bpf/verifier.c, `do_check`, EAGAIN, 6.12).
fn ask<'a>(spec: &'a Spec, targets: &[ProbeTarget]) -> Result<Option<phases::Asked<'a>>, ProbeError> {
    if spec.probes.is_empty() {
        return Ok(None);
    }
    Ok(Some(phases::Asked { probes: &spec.probes, prober: Prober::start(&spec.probes, targets)? }))
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
        observe: spec.observe.iter().copied().chain(watched(spec).filter_map(Metric::counted)).collect(),
    };
    told(&scope, spec.gates.iter().map(|gate| gate.metric).chain(watched(spec)))?;
    let capabilities = kernel.capabilities(&wanted(&spec.faults, &options))?;
    let plan = plan(&spec.faults, &scope, &capabilities, &options)?;
    Ok((scope, plan))
}

/// What checks and guards look at, beside the gates.
fn watched(spec: &Spec) -> impl Iterator<Item = Metric> {
    let checks = spec.checks.iter().map(|check| check.0.metric);
    checks.chain(spec.abort_if.iter().filter_map(|guard| match guard {
        AbortIf::Level { limit, .. } => Some(limit.metric),
        AbortIf::Harm(harm) => Some(harm.metric),
        AbortIf::ControlUnhealthy | AbortIf::Processes(_) => None,
    }))
}

/// Refuses metrics on what the files of a target's cgroup do not tell: a controller is off, or an option missing.
fn told(scope: &Scope, metrics: impl Iterator<Item = Metric>) -> Result<(), RunError> {
    let of_files: Vec<Metric> = metrics.filter(|metric| metric.is_of_files()).collect();
    for member in &scope.members {
        let slot =
            SlotReading { files: CgroupFiles::read(&member.cgroup.dir), ..SlotReading::of(Counters::ZERO) };
        let Some(done) = Done::between(&slot, &slot) else { continue };
        let untold = of_files.iter().find(|metric| measure::summary(**metric, &done, 1.0).is_none());
        if let Some(metric) = untold {
            return Err(RunError::Untold { metric: *metric, target: member.target.to_string() });
        }
    }
    Ok(())
}

/// What a rule is to do; it has done nothing yet.
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
