//! What an experiment reads of failed calls: those that a fault has failed are counted twice, as failed and as injected, so that
//! nothing is left that failed by itself.

use anyhow::{Context, ensure};
use chaos_common::Counters;
use kchaos::{
    experiment::hypothesis::Metric,
    fault::{mechanism::Mechanism, plan::Options},
    kernel::{Injection, Kernel, LiveInjection, LiveKernel},
};

use super::{LEASE, Scene, end, ensure_counted, errno, stage::READY, wish};
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        LSM_COUNTED on one kernel: errno_by_lsm_is_counted_as_injected;
        SECURITY_COUNTED on one kernel: errno_by_fmod_ret_security_is_counted_as_injected;
        SYSCALL_COUNTED on one kernel: errno_by_fmod_ret_syscall_is_counted_as_injected;
        KPROBE_COUNTED on one kernel: errno_by_kprobe_is_counted_as_injected
    ]
}

fn errno_by_lsm_is_counted_as_injected() -> anyhow::Result<()> {
    is_counted_as_injected(Mechanism::Lsm)
}

fn errno_by_fmod_ret_security_is_counted_as_injected() -> anyhow::Result<()> {
    is_counted_as_injected(Mechanism::FmodRetSecurity)
}

fn errno_by_fmod_ret_syscall_is_counted_as_injected() -> anyhow::Result<()> {
    is_counted_as_injected(Mechanism::FmodRetSyscall)
}

fn errno_by_kprobe_is_counted_as_injected() -> anyhow::Result<()> {
    is_counted_as_injected(Mechanism::Kprobe)
}

const ALL: u64 = READY as u64;

/// Before it is armed nothing fails; then each call that fails is seen at its exit and at the fault, and none of somebody
/// else's; one that fails by itself is seen at its exit alone.
fn is_counted_as_injected(by: Mechanism) -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let wishes = [wish("errno", [("syscalls", "mkdir"), ("error", "ENOSPC")])];
    let gates = Some(vec![Metric::SyscallErrorRatio]);
    let plan = scene.plan_with(&wishes, &Options { forced: Some(by), gates, ..Options::default() })?;
    let mut injection = LiveKernel::default().inject("test", &plan)?;
    let none = seen(&mut injection, || scene.act("mkdir", READY).and_then(|made| worked(&made.results)))?;
    ensure!(none.syscalls >= ALL, "not armed, it sees no calls: {none:?}");
    ensure!(none.syscall_errors == 0 && none.injected_errors == 0, "not armed: {none:?}");
    injection.arm(LEASE)?;
    let hurt = seen(&mut injection, || {
        let made = scene.act("mkdir", READY)?;
        ensure!(made.results == [errno("ENOSPC")?; READY] && made.effects == 0, "{made:?}");
        Ok(())
    })?;
    ensure!(hurt.syscall_errors == ALL && hurt.injected_errors == ALL, "armed: {hurt:?}");
    ensure_counted(&mut injection, 0, ALL, 2 * ALL)?;
    let beside =
        seen(&mut injection, || scene.beside("mkdir", READY).and_then(|made| worked(&made.results)))?;
    ensure!(beside.syscall_errors == 0 && beside.injected_errors == 0, "beside: {beside:?}");
    end(injection)?;
    worked(&scene.act("mkdir", READY)?.results).context("after")
}

fn worked(results: &[i64]) -> anyhow::Result<()> {
    ensure!(results == [0; READY], "{results:?}");
    Ok(())
}

/// What the target's counters have gone up by meanwhile.
fn seen(
    injection: &mut LiveInjection,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Counters> {
    let before = target(injection)?;
    work()?;
    let after = target(injection)?;
    Ok(Counters {
        syscalls: after.syscalls - before.syscalls,
        syscall_errors: after.syscall_errors - before.syscall_errors,
        injected_errors: after.injected_errors - before.injected_errors,
        ..Counters::ZERO
    })
}

fn target(injection: &mut LiveInjection) -> anyhow::Result<Counters> {
    Ok(injection.sample()?.counters(0))
}
