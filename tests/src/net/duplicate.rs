//! Duplication: how often packets arrive.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::ensure;
use chaos_common::net::Direction;

use super::{numbers::Numbers, zeros::Zeros};
use crate::{
    Test,
    controller::{self, exit},
    flow::ensure_binomial,
    foreign::{At, Foreign},
    lab::{Cgroup, INSIDE, INSIDE_V6, Lab, OUTSIDE, OUTSIDE_V6},
    offload::{self, Offload},
    snapshot::Snapshot,
    tests,
    victim::{Ask, Victim},
};

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS: duplicate_sends_what_leaves_more_than_once, duplicate_hands_over_what_arrives_more_than_once;
        EGRESS on one kernel: duplicate_of_what_arrives_is_swept_after_sigkill, duplicate_does_not_confuse_tcp, duplicate_by_clsact_leaves_marks_of_others_alone,
            duplicate_in_a_dry_run_is_only_counted, duplicate_hits_its_share_and_spares_a_neighbour,
            duplicate_meets_connections_while_they_are_opened, duplicate_by_clsact_does_the_same;
        TCX on one kernel: duplicate_leaves_marks_of_others_alone
    ]
}

/// Nine of each must fit into the queue between devices and the stack, should a busy machine let them all wait there: it holds
/// 1000 (net.core.netdev_max_backlog).
const PACKETS: u64 = 100;

/// Everything arrives once before and after, and so much more often during.
fn copies(options: &str, way: Direction, address: IpAddr, copies: usize) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, address)?;
    arrive(&mut numbers, way, 1)?;
    let arguments = format!("duplicate --percent 100 --copies {copies} {options} --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    arrive(&mut numbers, way, copies + 1)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!((ended.outcome("injected")?, ended.outcome("filtered")?) == (PACKETS, 0), "{}", ended.output);
    arrive(&mut numbers, way, 1)
}

/// All packets arrive so often.
fn arrive(numbers: &mut Numbers<'_>, way: Direction, times: usize) -> anyhow::Result<()> {
    let first = numbers.next();
    let mut arrived = numbers.arrived(way, PACKETS)?;
    arrived.sort_unstable(); // copies of what arrives may wait for one another
    let expected: Vec<u64> = (first..numbers.next()).flat_map(|n| vec![n; times]).collect();
    ensure!(arrived == expected, "not each of {PACKETS} arrived {times} times: {} arrived", arrived.len());
    Ok(())
}

fn duplicate_sends_what_leaves_more_than_once() -> anyhow::Result<()> {
    copies("", Direction::Egress, OUTSIDE, 1)?;
    copies("", Direction::Egress, OUTSIDE_V6, 8)
}

fn duplicate_hands_over_what_arrives_more_than_once() -> anyhow::Result<()> {
    copies("--direction ingress", Direction::Ingress, OUTSIDE, 1)?;
    copies("--direction ingress", Direction::Ingress, OUTSIDE_V6, 8)?;
    copies("--direction both", Direction::Ingress, OUTSIDE, 3)
}

fn duplicate_by_clsact_does_the_same() -> anyhow::Result<()> {
    copies("--mechanism clsact-egress", Direction::Egress, OUTSIDE, 2)?;
    copies("--direction ingress --mechanism clsact-ingress", Direction::Ingress, OUTSIDE_V6, 2)
}

/// Two cgroups send and receive through one device; one of them is hit, each way in a run of its own.
fn duplicate_hits_its_share_and_spares_a_neighbour() -> anyhow::Result<()> {
    const PACKETS: u64 = 2_000;
    for (direction, way) in [("egress", Direction::Egress), ("ingress", Direction::Ingress)] {
        let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
        let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
        let mut hit = Numbers::new(&lab, &victim, OUTSIDE)?;
        let mut spared = Numbers::new(&lab, &neighbour, OUTSIDE_V6)?;
        let arguments = format!("duplicate --percent 30 --direction {direction} --on {}", cgroup.target());
        let kchaos = controller::inject(&arguments)?;
        let mut all = 0;
        ensure_binomial("packets duplicated", PACKETS, 0.3, || {
            let duplicated = hit.arrived(way, PACKETS)?.len() as u64 - PACKETS;
            all += duplicated;
            Ok(duplicated)
        })?;
        arrive(&mut spared, way, 1)?;
        let ended = kchaos.interrupt()?;
        ensure!(ended.outcome("injected")? == all, "{all} were duplicated: {}", ended.output);
    }
    Ok(())
}

/// What it receives twice it takes once, in large packets and in small ones.
fn duplicate_does_not_confuse_tcp() -> anyhow::Result<()> {
    const BYTES: u64 = 2 << 20;
    for without in [&[][..], &[Offload::Segmentation]] {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        offload::turn_off(&lab, without)?;
        let victim = Victim::start(&lab, &cgroup)?;
        let zeros = Zeros::new(&lab, &victim, OUTSIDE)?;
        let arguments = format!("duplicate --percent 100 --direction both --on {}", cgroup.target());
        let kchaos = controller::inject(&arguments)?;
        for way in [Direction::Egress, Direction::Ingress] {
            ensure!(zeros.send(way, BYTES)? == 0, "what arrived is not what was sent");
        }
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        ensure!(ended.outcome("injected")? > 0, "{}", ended.output);
    }
    Ok(())
}

/// What opens a connection is for the listener: it asks for it, and acknowledges the answer.
fn duplicate_meets_connections_while_they_are_opened() -> anyhow::Result<()> {
    const SEGMENTS: u64 = 2;
    const PORT: u16 = 7001;
    for address in [INSIDE, INSIDE_V6] {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let address = SocketAddr::new(address, PORT);
        victim.socket(Ask::Listen { bind: address })?;
        let arguments =
            format!("duplicate --percent 100 --direction ingress --dry-run --on {}", cgroup.target());
        let kchaos = controller::inject(&arguments)?;
        let _open = lab.outside.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))??;
        thread::sleep(Duration::from_millis(200)); // connected is who has not yet said so
        let ended = kchaos.interrupt()?;
        ensure!(ended.outcome("dry_run")? == SEGMENTS, "{}", ended.output);
    }
    Ok(())
}

fn duplicate_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
    let arguments = format!("duplicate --percent 100 --direction both --dry-run --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    arrive(&mut numbers, Direction::Egress, 1)?;
    arrive(&mut numbers, Direction::Ingress, 1)?;
    let ended = kchaos.interrupt()?;
    let (would, injected) = (ended.outcome("dry_run")?, ended.outcome("injected")?);
    ensure!((would, injected) == (2 * PACKETS, 0), "{}", ended.output);
    Ok(())
}

fn duplicate_leaves_marks_of_others_alone() -> anyhow::Result<()> {
    leaves_marks_alone(At::Tcx, "tcx-ingress")
}

fn duplicate_by_clsact_leaves_marks_of_others_alone() -> anyhow::Result<()> {
    leaves_marks_alone(At::Clsact, "clsact-ingress")
}

/// Somebody before us marks packets that have no mark yet, and somebody behind us counts those that have it and
/// nothing of ours. Copies come by with the mark of their original, and all pass with the mark alone.
fn leaves_marks_alone(at: At, mechanism: &str) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
    let arguments = format!(
        "duplicate --percent 100 --direction ingress --mechanism {mechanism} --on {}",
        cgroup.target()
    );
    let kchaos = controller::inject(&arguments)?;
    let (mut marking, mut counting) = (Foreign::marking()?, Foreign::counting_marked()?);
    marking.attach_before(at, &lab.inside, Direction::Ingress)?;
    counting.attach_behind(at, &lab.inside, Direction::Ingress)?;
    arrive(&mut numbers, Direction::Ingress, 2)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let (kept, passed) = (marking.seen()?, counting.seen()?);
    ensure!(kept == PACKETS, "{kept} of {PACKETS} copies had the mark of their original");
    // Neighbour discovery and the like are marked as well.
    ensure!((2 * PACKETS..2 * PACKETS + 30).contains(&passed), "{passed} packets passed with the mark alone");
    Ok(())
}

/// A filter where packets arrive survives its controller as well as one where they leave.
fn duplicate_of_what_arrives_is_swept_after_sigkill() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let arguments = format!(
        "duplicate --percent 100 --direction both --mechanism clsact-ingress --on {}",
        cgroup.target()
    );
    let kchaos = controller::inject(&arguments)?;
    arrive(&mut numbers, Direction::Ingress, 2)?;
    let pid = kchaos.pid();
    kchaos.kill()?;
    controller::run("sweep")?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)?;
    arrive(&mut numbers, Direction::Ingress, 1)
}
