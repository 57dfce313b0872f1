//! Faults of system calls: that each call which a mechanism can meet fails as asked, once, and without an effect.

pub mod act;
mod counted;
mod effects;
mod filter;
mod matrix;
pub mod missed;
mod own;
mod prepare;
mod ring;
pub mod stage;
mod table;

use std::{sync::MutexGuard, time::Duration};

use anyhow::{Context, bail, ensure};
use chaos_common::rule::RuleStats;
use kchaos::{
    fault::{
        Fault,
        catalogue::find,
        mechanism::Mechanism,
        plan::{Options, Plan, plan},
        text::Given,
        wanted::wanted,
    },
    kernel::{Injection, Kernel, LiveInjection, LiveKernel},
    target::{self, Netns},
};

use crate::{
    Test,
    lab::Cgroup,
    turn::at_calls,
    victim::{Answer, Ask, Victim},
};
use stage::{Made, Making};

pub fn tests() -> Vec<Test> {
    [matrix::tests(), effects::tests(), filter::tests(), counted::tests(), missed::tests()].concat()
}

/// Nobody renews it.
const LEASE: Duration = Duration::from_secs(300);

/// A fault and its parameters.
type Wish = (&'static str, Vec<(&'static str, String)>);

/// A fault of these parameters.
fn wish<const N: usize>(name: &'static str, parameters: [(&'static str, &str); N]) -> Wish {
    (name, parameters.map(|(name, value)| (name, value.to_owned())).to_vec())
}

fn fault((name, parameters): &Wish) -> anyhow::Result<Fault> {
    let entry = find(name).with_context(|| format!("the catalogue has {name}"))?;
    let given = parameters.iter().fold(Given::new(entry), |given, (name, value)| given.with(name, value));
    Ok((entry.build)(&given)?)
}

/// Who makes acts: a victim outside of any target, whose children are in a target or beside it.
struct Scene {
    cgroup: Cgroup,
    sibling: Cgroup,
    victim: Victim,
    /// Does nothing but be there: a target has a process.
    _resident: Victim,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let _alone = at_calls();
        let (cgroup, netns) = (Cgroup::new()?, Netns::current()?);
        let _resident = Victim::start_in(&netns, Some(&cgroup.dir))?;
        let victim = Victim::start_in(&netns, None)?;
        Ok(Self { cgroup, sibling: Cgroup::new()?, victim, _resident, _alone })
    }

    fn make(&self, making: Making) -> anyhow::Result<Made> {
        match self.victim.ask(Ask::Act(making))? {
            Answer::Made(made) => Ok(made),
            other => bail!("expected what came of an act, got {other:?}"),
        }
    }

    /// An act of the target's.
    fn act(&self, act: &str, times: usize) -> anyhow::Result<Made> {
        self.make(self.making(act, times))
    }

    fn making(&self, act: &str, times: usize) -> Making {
        Making { act: act.to_owned(), times, cgroup: Some(self.cgroup.dir.clone()), ..Making::default() }
    }

    /// The same beside it.
    fn beside(&self, act: &str, times: usize) -> anyhow::Result<Made> {
        let cgroup = Some(self.sibling.dir.clone());
        self.make(Making { act: act.to_owned(), times, cgroup, ..Making::default() })
    }

    /// What would be done about these wishes by one mechanism.
    fn plan(&self, wishes: &[Wish], forced: Option<Mechanism>) -> anyhow::Result<Plan> {
        self.plan_with(wishes, &Options { forced, ..Options::default() })
    }

    /// The same for several, each alone, of a kernel that is probed once.
    fn plans(
        &self,
        all: &[Vec<Wish>],
        forced: Option<Mechanism>,
    ) -> anyhow::Result<Vec<anyhow::Result<Plan>>> {
        self.plans_with(all, &Options { forced, ..Options::default() })
    }

    /// What would be done about these wishes, with options.
    fn plan_with(&self, wishes: &[Wish], options: &Options) -> anyhow::Result<Plan> {
        self.plans_with(&[wishes.to_vec()], options)?.into_iter().next().context("one plan")?
    }

    fn plans_with(&self, all: &[Vec<Wish>], options: &Options) -> anyhow::Result<Vec<anyhow::Result<Plan>>> {
        let faults = |wishes: &Vec<Wish>| wishes.iter().map(fault).collect::<anyhow::Result<Vec<_>>>();
        let all = all.iter().map(faults).collect::<anyhow::Result<Vec<_>>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let scope = runtime.block_on(target::resolve(&[], &[self.cgroup.target().parse()?], &[]))?;
        let capabilities = LiveKernel::default().capabilities(&wanted(&all.concat(), options))?;
        Ok(all.iter().map(|faults| Ok(plan(faults, &scope, &capabilities, options)?)).collect())
    }

    /// Has them happen.
    fn armed(&self, wishes: &[Wish], forced: Option<Mechanism>) -> anyhow::Result<LiveInjection> {
        let mut injection = LiveKernel::default().inject("test", &self.plan(wishes, forced)?)?;
        injection.arm(LEASE)?;
        Ok(injection)
    }
}

/// What a rule has counted so far. Keeps the lease alive, too.
fn counted(injection: &mut LiveInjection, rule: usize) -> anyhow::Result<RuleStats> {
    let sample = injection.sample()?;
    Ok(*sample.rules.get(rule).and_then(|slots| slots.first()).context("no such rule")?)
}

/// How many it has let happen or might have.
fn eligible(stats: &RuleStats) -> u64 {
    stats.injected + stats.when + stats.chance + stats.budget + stats.lease + stats.dry_run
}

fn ensure_counted(injection: &mut LiveInjection, rule: usize, injected: u64, all: u64) -> anyhow::Result<()> {
    let stats = counted(injection, rule)?;
    ensure!(
        stats.injected == injected && eligible(&stats) == all,
        "{injected} of {all} were to be injected: {stats:?}"
    );
    Ok(())
}

fn end(injection: LiveInjection) -> anyhow::Result<()> {
    let rollback = injection.rollback();
    ensure!(rollback.is_complete(), "{rollback:?}");
    Ok(())
}

fn errno(name: &str) -> anyhow::Result<i64> {
    let errno: kchaos::units::Errno = name.parse()?;
    Ok(-i64::from(errno.number()))
}
