//! Loss models: whether losses come as theory says. Seeded, so that each test always sees the same losses.

use anyhow::ensure;

use crate::{
    Test, controller,
    flow::Flow,
    lab::{Cgroup, Lab},
    tests,
    victim::Victim,
};

const PACKETS: u64 = 8_000;

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: loss_with_a_seed_takes_the_same_packets_again, loss_gemodel_comes_in_bursts,
            loss_correlation_comes_in_bursts, loss_state_comes_in_bursts
    ]
}

/// Which of `count` packets are lost, in order.
fn losses(options: &str, count: u64) -> anyhow::Result<Vec<bool>> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("loss {options} --on {}", cgroup.target()))?;
    let arrived = flow.send(count)?;
    kchaos.interrupt()?;
    flow.is_open("after")?;
    Ok((0..count).map(|number| arrived.binary_search(&number).is_err()).collect())
}

fn loss_with_a_seed_takes_the_same_packets_again() -> anyhow::Result<()> {
    let first = losses("--percent 30 --seed 42", 500)?;
    ensure!(losses("--percent 30 --seed 42", 500)? == first, "the same seed lost other packets");
    ensure!(losses("--percent 30 --seed 43", 500)? != first, "another seed lost the same packets");
    Ok(())
}

/// Share lost, and mean length of a burst.
fn shape(losses: &[bool]) -> (f64, f64) {
    let lost = losses.iter().filter(|lost| **lost).count() as f64;
    let bursts = losses.chunk_by(|one, next| one == next).filter(|run| run[0]).count() as f64;
    (lost / losses.len() as f64, lost / bursts)
}

fn ensure_shape(options: &str, share: f64, burst: f64) -> anyhow::Result<()> {
    let seen = shape(&losses(&format!("{options} --seed 7"), PACKETS)?);
    // Some 200 bursts or more: four standard errors of their mean length are below 20 %, of the share as well.
    let near = |seen: f64, expected: f64| (seen / expected - 1.0).abs() < 0.2;
    ensure!(
        near(seen.0, share) && near(seen.1, burst),
        "{options}: share and burst {seen:?}, expected {:?}",
        (share, burst)
    );
    Ok(())
}

/// p / (p + r) of the packets, in bursts of 1 / r.
fn loss_gemodel_comes_in_bursts() -> anyhow::Result<()> {
    ensure_shape("--gemodel 5%,20%", 0.05 / 0.25, 1.0 / 0.2)
}

/// The share asked for, in bursts of 1 / ((1 - P)(1 - ρ)).
fn loss_correlation_comes_in_bursts() -> anyhow::Result<()> {
    ensure_shape("--percent 20 --correlation 75%", 0.2, 1.0 / (0.8 * 0.25))
}

/// Without states 2 and 4 the four-state model is a simple Gilbert one.
fn loss_state_comes_in_bursts() -> anyhow::Result<()> {
    ensure_shape("--state 5%,20%", 0.25 / 1.25, 1.0 / 0.2)
}
