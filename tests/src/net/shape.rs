//! Faults that come and go while they are in force.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    Test,
    controller::{self, exit},
    flow::Flow,
    lab::{Cgroup, Lab},
    safety::LEASE,
    snapshot::Snapshot,
    tests,
    victim::Victim,
};

const PACE: Duration = Duration::from_millis(5);
/// A busy machine may write a moment late, and send one.
const LATE_S: f64 = 0.2;

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: loss_on_a_ramp_grows, loss_after_a_delay_is_not_said_to_have_fired_before,
            a_dead_controller_begins_no_pulse, sigkill_in_a_pulse_ends_loss_within_the_lease,
            loss_in_pulses_comes_and_goes
    ]
}

/// When the first and the last packet of each run of losses were sent, in seconds since the first packet of all.
fn runs_of_losses(packets: &[(u64, bool)]) -> Vec<(f64, f64)> {
    let start = packets.first().map_or(0, |(time, _)| *time);
    let at_s = |(time, _): &(u64, bool)| (time - start) as f64 / 1e9;
    let runs = packets.chunk_by(|(_, one), (_, next)| one == next);
    runs.filter(|run| run[0].1).map(|run| (at_s(&run[0]), at_s(&run[run.len() - 1]))).collect()
}

/// Everything is lost while a pulse is on, nothing in between, and what came in between is counted apart.
fn loss_in_pulses_comes_and_goes() -> anyhow::Result<()> {
    const ACTIVE_S: f64 = 0.6;
    const PERIOD_S: f64 = 1.5;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos =
        controller::inject(&format!("loss --percent 100 --pulse 1s,600ms,900ms --on {}", cgroup.target()))?;
    let packets = flow.paced(1_000, PACE)?;
    let ended = kchaos.interrupt()?;
    flow.is_open("after")?;
    ended.ensure_code(exit::OK)?;
    let runs = runs_of_losses(&packets);
    ensure!(runs.len() == 3, "three pulses in 5 s, but packets were lost {runs:?}");
    ensure!((1.0 - LATE_S..1.0 + LATE_S).contains(&runs[0].0), "the first pulse came at {:.3} s", runs[0].0);
    for (number, (begin, end)) in runs.iter().enumerate() {
        let lasted = end - begin;
        ensure!((lasted - ACTIVE_S).abs() < LATE_S, "pulse {number} lasted {lasted:.3} s: {runs:?}");
        let due = runs[0].0 + PERIOD_S * number as f64;
        ensure!((begin - due).abs() < LATE_S, "pulse {number} came at {begin:.3} s, not {due:.3}: {runs:?}");
    }
    let lost = packets.iter().filter(|(_, lost)| *lost).count() as u64;
    let counted = (ended.outcome("injected")?, ended.outcome("dormant")?);
    ensure!(counted == (lost, packets.len() as u64 - lost), "{lost} were lost, counted {counted:?}");
    ensure!(ended.json()?["eligible"] == lost, "what came while dormant was eligible: {}", ended.output);
    println!("pulses at {runs:.3?} s");
    Ok(())
}

/// The share lost grows in a straight line to its end, and stays there.
fn loss_on_a_ramp_grows() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --ramp 0,100,4s --seed 5 --on {}", cgroup.target()))?;
    let packets = flow.paced(2_500, PACE / 2)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    flow.is_open("after")?;
    let start = packets[0].0;
    let mut shares = Vec::new();
    for (second, expected) in (0..).zip([0.125, 0.375, 0.625, 0.875, 1.0]) {
        let of_second = |(time, _): &&(u64, bool)| (time - start) / 1_000_000_000 == second;
        let within: Vec<_> = packets.iter().filter(of_second).collect();
        let share = within.iter().filter(|(_, lost)| *lost).count() as f64 / within.len() as f64;
        // Some 400 packets: four standard deviations are 10 %; a quarter of a second late is 6 %.
        ensure!(
            (share - expected).abs() < 0.15,
            "in second {second} {share:.3} of {} were lost",
            within.len()
        );
        shares.push(share);
    }
    println!("shares lost in each second: {shares:.3?}");
    Ok(())
}

/// A run that ends before its first pulse says so, and does not pass for one that fired.
fn loss_after_a_delay_is_not_said_to_have_fired_before() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    let kchaos = controller::inject(&format!("loss --percent 100 --pulse 50s --on {}", cgroup.target()))?;
    flow.is_open("before the first pulse")?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::INVALID)?;
    let counted = (ended.outcome("dormant")?, ended.outcome("injected")?);
    ensure!(counted == (200, 0) && ended.json()?["eligible"] == 0, "{}", ended.output);
    Ok(())
}

fn sigkill_in_a_pulse_ends_loss_within_the_lease() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Flow::new(&lab, &victim)?;
    let kchaos = controller::inject(&format!("loss --percent 100 --pulse ,50s,1s --on {}", cgroup.target()))?;
    flow.is_shut("during a pulse")?;
    let (pid, killed) = (kchaos.pid(), Instant::now());
    kchaos.kill()?;
    flow.opens_within(LEASE, killed)?;
    flow.is_open("after")?;
    controller::run("sweep")?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

/// The lease is still live when the pulse would begin, but nobody is there to begin it.
fn a_dead_controller_begins_no_pulse() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    let kchaos = controller::inject(&format!("loss --percent 100 --pulse 1500ms --on {}", cgroup.target()))?;
    let armed = Instant::now();
    kchaos.kill()?;
    ensure!(armed.elapsed() < Duration::from_millis(1_000), "this machine is too slow to be in time");
    while armed.elapsed() < LEASE {
        flow.is_open("without a controller")?;
        thread::sleep(Duration::from_millis(50));
    }
    controller::run("sweep")?.ensure_code(exit::OK)
}
