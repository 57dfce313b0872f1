//! Partitions in silence: nothing gets through, and nobody is told.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::ensure;

use super::tcp::PROBES;
use crate::{
    Test,
    controller::{self, exit},
    flow::{Flow, Inflow},
    lab::{Cgroup, ELSEWHERE, INSIDE, INSIDE_V6, Lab, OUTSIDE, OUTSIDE_V6},
    stream::Stream,
    tests,
    victim::{Ask, Victim},
};

/// Enough to see whether TCP gets anywhere.
const BYTES: u64 = 256 << 10;
/// Fits into any socket's buffer, so that all of it waits for the partition to end.
const WAITING_BYTES: u64 = 8 << 10;
/// TCP's first few attempts to send again.
const WHILE_MS: u64 = 1_200;

pub fn tests() -> Vec<Test> {
    tests![
        BOTH_WAYS on one kernel: partition_stops_packets_both_ways, partition_keeps_new_connections_from_being_made, partition_can_be_of_one_peer,
            partition_spares_whom_it_is_told_to, partition_in_a_dry_run_is_only_counted,
            partition_stalls_a_connection_which_then_goes_on, partition_of_v6_is_one_too;
        EGRESS on one kernel: partition_can_be_of_what_leaves;
        INGRESS on one kernel: partition_can_be_of_what_arrives
    ]
}

/// Arrivals and departures stop; a neighbour on the same device notices nothing.
fn partition_stops_packets_both_ways() -> anyhow::Result<()> {
    const PACKETS: u64 = 500;
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    let (mut out, mut spared_out) = (Flow::new(&lab, &victim)?, Flow::new(&lab, &neighbour)?);
    let (mut into, mut spared_in) = (Inflow::new(&lab, &victim, 7001)?, Inflow::new(&lab, &neighbour, 7002)?);
    let open = |out: &mut Flow<'_>, into: &mut Inflow<'_>, when: &str| {
        out.is_open(when)?;
        into.is_open(when)
    };
    open(&mut out, &mut into, "before")?;
    let kchaos = controller::inject(&format!("partition --on {}", cgroup.target()))?;
    ensure!(out.lost(PACKETS)? == PACKETS, "something left");
    ensure!(into.lost(PACKETS)? == PACKETS, "something arrived");
    open(&mut spared_out, &mut spared_in, "the neighbour's, during")?;
    let errors = victim.count(Ask::ErrorQueue { socket: out.socket() })?;
    ensure!(errors == 0, "the sender was told {errors} times");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("injected")? == 2 * PACKETS, "{}", ended.output);
    open(&mut out, &mut into, "after")
}

fn partition_can_be_of_what_leaves() -> anyhow::Result<()> {
    one_way("egress", true)
}

fn partition_can_be_of_what_arrives() -> anyhow::Result<()> {
    one_way("ingress", false)
}

fn one_way(direction: &str, leaving: bool) -> anyhow::Result<()> {
    const PACKETS: u64 = 200;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut out, mut into) = (Flow::new(&lab, &victim)?, Inflow::new(&lab, &victim, 7001)?);
    let kchaos = controller::inject(&format!("partition --direction {direction} --on {}", cgroup.target()))?;
    let lost = [out.lost(PACKETS)?, into.lost(PACKETS)?];
    let expected = if leaving { [PACKETS, 0] } else { [0, PACKETS] };
    ensure!(lost == expected, "leaving and arriving, {lost:?} of {PACKETS} were lost");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    out.is_open("after")?;
    into.is_open("after")
}

/// What TCP could not deliver it delivers when the partition is over.
fn partition_stalls_a_connection_which_then_goes_on() -> anyhow::Result<()> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    let (hurt, spared) = (Stream::new(&lab, &victim, OUTSIDE)?, Stream::new(&lab, &neighbour, OUTSIDE)?);
    hurt.deliver(BYTES)?;
    let kchaos = controller::inject(&format!("partition --on {}", cgroup.target()))?;
    let acked = hurt.offer(WAITING_BYTES, WHILE_MS)?;
    ensure!(acked == 0, "{acked} bytes were acknowledged through a partition");
    spared.deliver(BYTES)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    hurt.catches_up(BYTES + WAITING_BYTES)?;
    hurt.deliver(BYTES)?;
    ensure!(hurt.sender()?.retransmitted > 0, "nothing had to be sent again");
    let neighbours = spared.sender()?.retransmitted;
    ensure!(neighbours <= PROBES, "the neighbour had to send {neighbours} segments again");
    Ok(())
}

/// Whether a connection can be made within the time of one retransmission.
pub fn connects(lab: &Lab, victim: &Victim, address: IpAddr) -> anyhow::Result<bool> {
    let listener = lab.listener(address)?;
    let from = if address.is_ipv4() { INSIDE } else { INSIDE_V6 };
    let bind = SocketAddr::new(from, 0);
    match victim.ask(Ask::Connect { bind, to: listener.local_addr()?, within_ms: 1_500 }) {
        Ok(_) => Ok(true),
        Err(error) if error.to_string().contains("timed out") => Ok(false),
        Err(error) => Err(error),
    }
}

fn partition_keeps_new_connections_from_being_made() -> anyhow::Result<()> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    ensure!(connects(&lab, &victim, OUTSIDE)?, "no connection can be made before");
    let kchaos = controller::inject(&format!("partition --on {}", cgroup.target()))?;
    ensure!(!connects(&lab, &victim, OUTSIDE)?, "a connection was made through a partition");
    ensure!(connects(&lab, &neighbour, OUTSIDE)?, "the neighbour can make none");
    ensure!(!reaches(&lab, &victim)?, "a connection was made to the target");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    ensure!(connects(&lab, &victim, OUTSIDE)?, "no connection can be made afterwards");
    ensure!(reaches(&lab, &victim)?, "none can be made to the target afterwards");
    Ok(())
}

/// Whether somebody outside can make a connection to the victim.
fn reaches(lab: &Lab, victim: &Victim) -> anyhow::Result<bool> {
    let address = SocketAddr::new(INSIDE, 7101);
    let outsider = Victim::start_in(&lab.outside, None)?;
    // It is already there the second time.
    let _ = victim.ask(Ask::Listen { bind: address });
    let bind = SocketAddr::new(OUTSIDE, 0);
    match outsider.ask(Ask::Connect { bind, to: address, within_ms: 1_500 }) {
        Ok(_) => Ok(true),
        Err(error) if error.to_string().contains("timed out") => Ok(false),
        Err(error) => Err(error),
    }
}

fn partition_of_v6_is_one_too() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::to(&lab, &victim, OUTSIDE_V6)?;
    let stream = Stream::new(&lab, &victim, OUTSIDE_V6)?;
    flow.is_open("before")?;
    stream.deliver(BYTES)?;
    let kchaos = controller::inject(&format!("partition --on {}", cgroup.target()))?;
    flow.is_shut("during")?;
    ensure!(stream.offer(WAITING_BYTES, 300)? == 0, "something was acknowledged through a partition");
    ensure!(!connects(&lab, &victim, OUTSIDE_V6)?, "a connection was made through a partition");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    flow.is_open("after")?;
    stream.catches_up(BYTES + WAITING_BYTES)
}

fn partition_can_be_of_one_peer() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut hit, mut spared) = (Flow::to(&lab, &victim, ELSEWHERE)?, Flow::new(&lab, &victim)?);
    let options = format!("--peers {ELSEWHERE} --ports {}", hit.port()?);
    let kchaos = controller::inject(&format!("partition {options} --on {}", cgroup.target()))?;
    hit.is_shut("during")?;
    spared.is_open("another peer's, during")?;
    ensure!(connects(&lab, &victim, ELSEWHERE)?, "another port was hit");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    hit.is_open("after")
}

/// The allow-list wins over the filter that names the same peer, both ways.
fn partition_spares_whom_it_is_told_to() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut hit, mut spared) = (Flow::new(&lab, &victim)?, Flow::to(&lab, &victim, ELSEWHERE)?);
    let stream = Stream::new(&lab, &victim, ELSEWHERE)?;
    let mut own_port = Inflow::new(&lab, &victim, 7001)?;
    let options = format!("--peers 10.107.1.0/24 --allow {ELSEWHERE},:7001");
    let kchaos = controller::inject(&format!("partition {options} --on {}", cgroup.target()))?;
    hit.is_shut("during")?;
    spared.is_open("the allowed peer's, during")?;
    own_port.is_open("the allowed port's, during")?;
    stream.deliver(BYTES)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("filtered")? > 0, "{}", ended.output);
    hit.is_open("after")
}

fn partition_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut out, mut into) = (Flow::new(&lab, &victim)?, Inflow::new(&lab, &victim, 7001)?);
    let kchaos = controller::inject(&format!("partition --dry-run --on {}", cgroup.target()))?;
    ensure!(out.lost(100)? == 0 && into.lost(100)? == 0, "a dry run lost something");
    thread::sleep(Duration::from_millis(50));
    let ended = kchaos.interrupt()?;
    let (would, injected) = (ended.outcome("dry_run")?, ended.outcome("injected")?);
    ensure!((would, injected) == (200, 0), "{}", ended.output);
    Ok(())
}
