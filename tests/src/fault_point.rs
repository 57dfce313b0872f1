//! The controller may die anywhere: it is killed at every step of injecting and rolling back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kchaos::{
    fault::mechanism::Mechanism,
    kernel::{fault_point::FaultPoint, journal},
};

use crate::{
    Test,
    controller::{self, Running, exit},
    flow::Flow,
    lab::{Cgroup, Lab},
    snapshot::Snapshot,
    tests,
    victim::Victim,
};

/// A lease lasts 3 s (`chaos_common::lease::LEASE_NS`); a busy machine may look a moment late.
const LEASE: Duration = Duration::from_millis(3_500);
/// How long a watchdog may take to undo what it watches over.
const WATCHDOG: Duration = Duration::from_secs(5);

pub fn tests() -> Vec<Test> {
    tests![
        HOLD_TCX on one kernel: killed_at_every_step_of_a_delay_by_tcx;
        HOLD on one kernel: killed_at_every_step_of_a_delay_by_clsact;
        HOLD_INGRESS_TCX on one kernel: killed_at_every_step_of_a_delay_on_ingress_by_tcx;
        HOLD_INGRESS on one kernel: killed_at_every_step_of_a_delay_on_ingress_by_clsact;
        NETEM on one kernel: killed_at_every_step_of_a_delay_by_netem;
        TCX on one kernel: killed_at_every_step_of_a_tcx_injection;
        CLSACT on one kernel: killed_at_every_step_of_a_clsact_injection
    ]
}

fn killed_at_every_step_of_a_tcx_injection() -> anyhow::Result<()> {
    killed_at_every_step(LOSS, Mechanism::TcxEgress)
}

fn killed_at_every_step_of_a_clsact_injection() -> anyhow::Result<()> {
    killed_at_every_step(LOSS, Mechanism::ClsactEgress)
}

fn killed_at_every_step_of_a_delay_by_tcx() -> anyhow::Result<()> {
    killed_at_every_step(DELAY, Mechanism::TcxEgress)
}

fn killed_at_every_step_of_a_delay_by_clsact() -> anyhow::Result<()> {
    killed_at_every_step(DELAY, Mechanism::ClsactEgress)
}

fn killed_at_every_step_of_a_delay_on_ingress_by_tcx() -> anyhow::Result<()> {
    killed_at_every_step(ARRIVING, Mechanism::TcxIngress)
}

fn killed_at_every_step_of_a_delay_on_ingress_by_clsact() -> anyhow::Result<()> {
    killed_at_every_step(ARRIVING, Mechanism::ClsactIngress)
}

fn killed_at_every_step_of_a_delay_by_netem() -> anyhow::Result<()> {
    killed_at_every_step(DELAY, Mechanism::Netem)
}

const LOSS: &str = "loss --percent 100";
/// Longer than anybody waits, so that the way is shut.
const DELAY: &str = "delay --by 9s";
const ARRIVING: &str = "delay --by 9s --direction ingress";

fn killed_at_every_step(fault: &str, mechanism: Mechanism) -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    // Without saying so it depends on the kernel whether there is a clsact.
    let by_clsact = [FaultPoint::ClsactNoted, FaultPoint::ClsactAdded];
    let unknown = |point: &FaultPoint| mechanism == Mechanism::Netem && by_clsact.contains(point);
    for point in FaultPoint::ALL.into_iter().filter(|point| !unknown(point)) {
        killed_at(point, fault, mechanism)
            .with_context(|| format!("{fault} killed at {} with {mechanism}", point.name()))?;
    }
    Ok(())
}

/// Whatever had been done by then: the fault is gone within the lease, and a sweep leaves nothing.
fn killed_at(point: FaultPoint, fault: &str, mechanism: Mechanism) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let target = cgroup.target();
    let mut command =
        controller::command(&format!("inject {fault} --for 1s --mechanism {mechanism} --on {target}"));
    command.env("KCHAOS_DIE_AT", point.name());
    let kchaos = Running::start(command)?;
    let pid = kchaos.pid();
    let ended = kchaos.ended()?;
    let dead = Instant::now();
    if is_reached(point, fault, mechanism) {
        ensure!(
            ended.code.is_none(),
            "it did not die: build kchaos with the feature fault-points; {ended:?}"
        );
    } else {
        // The fault may not have had anything to hit.
        ensure!([Some(exit::OK), Some(exit::INVALID)].contains(&ended.code), "{ended:?}");
    }
    flow.opens_within(LEASE, dead)?;
    flow.is_open("after")?;
    watchdog_is_done(pid)?;
    controller::run("sweep")?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

/// Only an injection by clsact adds that qdisc, and only one that holds packets back an fq, a netem or an ifb.
fn is_reached(point: FaultPoint, fault: &str, mechanism: Mechanism) -> bool {
    match point {
        FaultPoint::ClsactNoted | FaultPoint::ClsactAdded => {
            matches!(mechanism, Mechanism::ClsactEgress | Mechanism::ClsactIngress)
        }
        FaultPoint::FqNoted | FaultPoint::FqAdded => fault == DELAY && mechanism != Mechanism::Netem,
        FaultPoint::IfbNoted | FaultPoint::IfbAdded | FaultPoint::IfbUp => fault == ARRIVING,
        FaultPoint::NetemNoted | FaultPoint::PrioAdded | FaultPoint::NetemAdded => {
            mechanism == Mechanism::Netem
        }
        _ => true,
    }
}

/// A watchdog works beside us; a sweep at the same time is harmless, but what is restored is looked at once.
fn watchdog_is_done(controller: i32) -> anyhow::Result<()> {
    let deadline = Instant::now() + WATCHDOG;
    let has_residue = || {
        let entries = journal::entries()?;
        anyhow::Ok(entries.iter().any(|entry| entry.pid == controller && !entry.residue.is_empty()))
    };
    while has_residue()? {
        ensure!(Instant::now() < deadline, "the watchdog has undone nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
