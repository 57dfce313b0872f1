//! Each call by each mechanism: works before, fails during without an effect, once per call, for the target alone;
//! works after.

use anyhow::{Context, ensure};
use kchaos::fault::{
    mechanism::Mechanism,
    syscall::{Arch, Effect, Sockets, Way, ladder},
};

use super::{Scene, Wish, act::Act, end, ensure_counted, errno, own, stage::READY, table::ACTS, wish};
use crate::{Test, tests};

/// So many faults have room in one injection.
const AT_ONCE: usize = 8;

pub fn tests() -> Vec<Test> {
    tests![
        ROOT on one kernel: acts_work_where_nothing_fails;
        LSM: errno_of_each_call_by_lsm;
        SECURITY on one kernel: errno_of_each_call_by_fmod_ret_security;
        SYSCALL: errno_of_each_call_by_fmod_ret_syscall;
        KPROBE: errno_of_each_call_by_kprobe
    ]
}

fn acts_work_where_nothing_fails() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    // Not each kernel takes those.
    let has = |act: &&Act| !act.label.ends_with("32-bit");
    let fails = |act: &Act| works(&scene, act).err().map(|error| format!("{}: {error:#}", act.label));
    let failed: Vec<String> = ACTS.iter().chain(own::ACTS).filter(has).filter_map(fails).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn errno_of_each_call_by_lsm() -> anyhow::Result<()> {
    each_call_by(Mechanism::Lsm, 50)
}

fn errno_of_each_call_by_fmod_ret_security() -> anyhow::Result<()> {
    each_call_by(Mechanism::FmodRetSecurity, 50)
}

fn errno_of_each_call_by_fmod_ret_syscall() -> anyhow::Result<()> {
    each_call_by(Mechanism::FmodRetSyscall, 70)
}

fn errno_of_each_call_by_kprobe() -> anyhow::Result<()> {
    each_call_by(Mechanism::Kprobe, 70)
}

/// The way that a mechanism has to make an act's call fail.
fn way(act: &Act, by: Mechanism) -> anyhow::Result<Option<Way>> {
    let call = act.call().with_context(|| format!("{} is no call", act.label))?;
    let effect = Effect::Errno(act.error.parse()?);
    let ways = ladder(call, &effect, Sockets::Any, Arch::HERE).ways;
    Ok(ways.into_iter().find(|way| way.rung.mechanism() == by))
}

/// All acts for which there is a way; at least so many must have been shown.
fn each_call_by(by: Mechanism, least: usize) -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut asked = Vec::new();
    for act in ACTS {
        if let Some(way) = way(act, by)? {
            asked.push((act, way));
        }
    }
    let wishes: Vec<_> = asked.iter().map(|(act, _)| vec![errno_of(act)]).collect();
    let mut acts = Vec::new();
    for ((act, way), plan) in asked.into_iter().zip(scene.plans(&wishes, Some(by))?) {
        match plan {
            Ok(_) => acts.push((act, way)),
            Err(refused) => println!("{} by {by} is refused: {refused}", act.label),
        }
    }
    let (shown, mut failed) = (acts.len(), Vec::new());
    for batch in batches(acts) {
        failed.extend(fail(&scene, by, &batch)?);
    }
    println!("{shown} acts by {by}");
    ensure!(failed.is_empty(), "{} of {shown} by {by}:\n{}", failed.len(), failed.join("\n"));
    ensure!(shown >= least, "only {shown} acts have a way by {by} here");
    Ok(())
}

fn errno_of(act: &Act) -> Wish {
    let call = act.call().map_or("", |call| call.name());
    wish("errno", [("syscalls", call), ("error", act.error)])
}

/// As many together as there is room for, each call once.
fn batches(acts: Vec<(&Act, Way)>) -> Vec<Vec<(&Act, Way)>> {
    let mut batches: Vec<Vec<(&Act, Way)>> = Vec::new();
    for (act, way) in acts {
        let fits = |batch: &&mut Vec<(&Act, Way)>| {
            batch.len() < AT_ONCE && batch.iter().all(|(other, _)| other.call() != act.call())
        };
        match batches.iter_mut().find(fits) {
            Some(batch) => batch.push((act, way)),
            None => batches.push(vec![(act, way)]),
        }
    }
    batches
}

/// What did not go as it should.
fn fail(scene: &Scene, by: Mechanism, batch: &[(&Act, Way)]) -> anyhow::Result<Vec<String>> {
    let mut failed = Vec::new();
    let mut note = |act: &Act, result: anyhow::Result<()>| {
        if let Err(error) = result {
            failed.push(format!("{}: {error:#}", act.label));
        }
    };
    for (act, _) in batch {
        note(act, works(scene, act).context("before"));
    }
    let wishes: Vec<Wish> = batch.iter().map(|(act, _)| errno_of(act)).collect();
    let names = || batch.iter().map(|(act, _)| act.label).collect::<Vec<_>>().join(", ");
    let mut injection = match scene.armed(&wishes, Some(by)) {
        Ok(injection) => injection,
        Err(error) => return Ok(vec![format!("{}: {error:#}", names())]),
    };
    for (rule, (act, way)) in batch.iter().enumerate() {
        let during = || {
            let made = scene.act(act.label, READY)?;
            ensure!(made.results == [errno(act.error)?; READY], "not {}: {made:?}", act.error);
            let left = if act.comes_first && way.after().is_some() { READY } else { 0 };
            ensure!(made.effects == left, "it had an effect: {made:?}");
            Ok(())
        };
        note(act, during().context("during"));
        note(act, ensure_counted(&mut injection, rule, READY as u64, READY as u64));
        let beside = scene.beside(act.label, READY).and_then(|made| all_worked(&made));
        note(act, beside.context("beside"));
    }
    end(injection)?;
    for (act, _) in batch {
        note(act, works(scene, act).context("after"));
    }
    Ok(failed)
}

fn works(scene: &Scene, act: &Act) -> anyhow::Result<()> {
    all_worked(&scene.act(act.label, READY)?)
}

fn all_worked(made: &super::Made) -> anyhow::Result<()> {
    ensure!(made.results.iter().all(|result| *result >= 0), "it fails: {made:?}");
    ensure!(made.effects == READY, "it had no effect: {made:?}");
    Ok(())
}
