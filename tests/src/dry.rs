//! Faults that are armed without doing anything, and then meant.

use std::time::{Duration, Instant};

use anyhow::ensure;
use chaos_common::RuleStats;
use kchaos::kernel::{Injection, LiveInjection};

use crate::{
    Test,
    flow::Flow,
    injection::inject,
    lab::{Cgroup, Lab, OUTSIDE},
    lag::{Lags, in_a_quiet_moment, median},
    tests,
    victim::Victim,
};

/// More than any of these takes.
const LONG: Duration = Duration::from_secs(60);

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: dry_loss_counts_and_loses_nothing, dry_loss_leaves_limits_as_they_were, dry_loss_may_end_by_itself;
        HOLD on one kernel: dry_delay_holds_nothing_back
    ]
}

/// What the first rule has done to the first target. Reading is the sign of life without which the lease ends.
fn stats(injection: &mut LiveInjection) -> anyhow::Result<RuleStats> {
    Ok(injection.sample()?.rules[0][0])
}

fn ended(injection: LiveInjection) -> anyhow::Result<()> {
    let rollback = injection.rollback();
    ensure!(rollback.is_complete(), "{rollback:?}");
    Ok(())
}

fn dry_loss_counts_and_loses_nothing() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    // A pulse that is off for a minute is met all the same.
    let faults: [(_, &[_]); 1] = [("loss", &[("percent", "100"), ("pulse", "60s")])];
    let mut pulsed = inject(&cgroup, &faults)?;
    pulsed.arm_dry(LONG)?;
    flow.is_open("dry, between pulses")?;
    ensure!(stats(&mut pulsed)?.eligible() >= 200, "{:?}", stats(&mut pulsed)?);
    ended(pulsed)?;
    let mut injection = inject(&cgroup, &[("loss", &[("percent", "100"), ("protocol", "udp")])])?;
    flow.is_open("disarmed")?;
    ensure!(stats(&mut injection)?.eligible() == 0, "{:?}", stats(&mut injection)?);
    injection.arm_dry(LONG)?;
    flow.is_open("dry")?;
    let dry = stats(&mut injection)?;
    ensure!(dry.eligible() == 200 && dry.injected == 0, "{dry:?}");
    injection.arm(LONG)?;
    flow.is_shut("meant")?;
    let meant = stats(&mut injection)?.since(dry);
    ensure!(meant.injected == meant.eligible() && meant.injected >= 200, "{meant:?}");
    injection.disarm()?;
    flow.is_open("disarmed again")?;
    // And back.
    injection.arm_dry(LONG)?;
    flow.is_open("dry again")?;
    injection.disarm()?;
    injection.arm(LONG)?;
    flow.is_shut("meant again")?;
    ended(injection)?;
    flow.is_open("after")
}

/// What is counted dry is missing nowhere once it is meant.
fn dry_loss_leaves_limits_as_they_were() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    for limit in [("max", "30"), ("when", "11..40")] {
        let faults: [(_, &[_]); 1] = [("loss", &[("percent", "100"), limit])];
        let mut injection = inject(&cgroup, &faults)?;
        injection.arm_dry(LONG)?;
        flow.is_open("dry")?;
        let dry = stats(&mut injection)?;
        ensure!(dry.eligible() >= 200 && dry.injected == 0, "{dry:?}");
        injection.arm(LONG)?;
        let arrived = flow.send(100)?;
        let first = arrived.iter().zip(0..).find(|(number, at)| *number != at).map(|(_, at)| at);
        let expected = if limit.0 == "max" { 0 } else { 10 };
        ensure!(arrived.len() == 70 && first == Some(expected), "{limit:?}: {arrived:?} arrived");
        ended(injection)?;
    }
    Ok(())
}

/// Its time was up before anybody meant it.
fn dry_loss_may_end_by_itself() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    let mut injection = inject(&cgroup, &[("loss", &[("percent", "100")])])?;
    injection.arm_dry(Duration::from_millis(300))?;
    let until = Instant::now() + Duration::from_secs(20);
    let before = stats(&mut injection)?.lease;
    while stats(&mut injection)?.lease == before {
        ensure!(Instant::now() < until, "it does not end: {:?}", stats(&mut injection)?);
        flow.is_open("dry, or over")?;
    }
    injection.arm(LONG)?;
    flow.is_shut("meant")?;
    ended(injection)
}

fn dry_delay_holds_nothing_back() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
        let quiet = Duration::from_millis(400);
        let lag = |flow: &mut Lags<'_>| anyhow::Ok(median(&flow.all(20, Duration::ZERO, quiet)?));
        let mut injection = inject(&cgroup, &[("delay", &[("by", "200ms")])])?;
        injection.arm_dry(LONG)?;
        let dry = lag(&mut flow)?;
        let counted = stats(&mut injection)?;
        ensure!(counted.eligible() >= 20 && counted.injected == 0, "{counted:?}");
        injection.arm(LONG)?;
        let meant = lag(&mut flow)?;
        ended(injection)?;
        ensure!(dry < 100.0 && meant >= 199.9, "{dry:.1} ms dry, {meant:.1} ms meant");
        Ok(())
    })
}
