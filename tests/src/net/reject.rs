//! Partitions that answer: the target is told at once that nothing gets through.

use std::net::{IpAddr, SocketAddr};

use anyhow::{bail, ensure};

use crate::{
    Test,
    controller::{self, Ended, exit},
    flow::Flow,
    lab::{Cgroup, INSIDE, INSIDE_V6, Lab, OUTSIDE, OUTSIDE_V6},
    stream::Stream,
    tests,
    victim::{Answer, Ask, Victim},
};

const BYTES: u64 = 256 << 10;
/// Fits into any socket's buffer, so that all of it waits for the partition to end.
const WAITING_BYTES: u64 = 8 << 10;
/// As much as a GSO packet holds, and then some.
const BULK_BYTES: u64 = 4 << 20;

pub const REFUSED: &str = "Connection refused";
const RESET: &str = "Connection reset by peer";
pub const UNREACHABLE: &str = "No route to host";
pub const PROHIBITED: &str = "Permission denied";

pub fn tests() -> Vec<Test> {
    tests![
        BOTH_WAYS: partition_by_rst_refuses_connections;
        BOTH_WAYS on one kernel: partition_by_icmp_makes_peers_unreachable, partition_by_rst_resets_connections_of_v6, partition_by_rst_is_silent_to_udp,
            partition_by_icmp_is_told_to_udp, partition_by_icmp_is_told_to_udp_of_v6,
            partition_by_icmp_only_stalls_connections, partition_by_rst_refuses_connections_of_v6,
            partition_by_rst_resets_connections, partition_by_rst_resets_a_bulk_stream,
            partition_by_icmp_makes_peers_unreachable_in_v6;
        EGRESS on one kernel: partition_by_rst_ends_after_so_many
    ]
}

/// Why a new connection cannot be made; `None` if it can.
pub fn refusal(lab: &Lab, victim: &Victim, address: IpAddr) -> anyhow::Result<Option<String>> {
    let listener = lab.listener(address)?;
    let from = if address.is_ipv4() { INSIDE } else { INSIDE_V6 };
    let bind = SocketAddr::new(from, 0);
    let attempt = victim.ask(Ask::Connect { bind, to: listener.local_addr()?, within_ms: 10_000 });
    Ok(attempt.err().map(|error| error.to_string()))
}

pub fn ensure_told(told: Option<String>, what: &str) -> anyhow::Result<()> {
    match told {
        Some(told) if told.contains(what) => Ok(()),
        other => bail!("expected `{what}`, got {other:?}"),
    }
}

/// A connection cannot be made during it, for this reason; that took so many segments of the target's.
fn no_connection(address: IpAddr, reject: &str, why: &str) -> anyhow::Result<u64> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    ensure!(refusal(&lab, &victim, address)?.is_none(), "no connection can be made before");
    let kchaos = controller::inject(&format!("partition --reject {reject} --on {}", cgroup.target()))?;
    ensure_told(refusal(&lab, &victim, address)?, why)?;
    ensure!(refusal(&lab, &neighbour, address)?.is_none(), "the neighbour can make no connection");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(refusal(&lab, &victim, address)?.is_none(), "no connection can be made afterwards");
    ended.outcome("injected")
}

/// At once: the first segment is answered, so there is no second.
fn partition_by_rst_refuses_connections() -> anyhow::Result<()> {
    let segments = no_connection(OUTSIDE, "rst", REFUSED)?;
    ensure!(segments == 1, "it took {segments} segments");
    Ok(())
}

fn partition_by_rst_refuses_connections_of_v6() -> anyhow::Result<()> {
    let segments = no_connection(OUTSIDE_V6, "rst", REFUSED)?;
    ensure!(segments == 1, "it took {segments} segments");
    Ok(())
}

/// The second attempt at the latest is told. The answer to the first may come while the call that made it still
/// holds the socket; the kernel then notes it as a mishap that may pass (net/ipv4/tcp_ipv4.c, `tcp_v4_err`, 6.18).
fn partition_by_icmp_makes_peers_unreachable() -> anyhow::Result<()> {
    let segments = no_connection(OUTSIDE, "icmp", UNREACHABLE)?;
    ensure!((1..=2).contains(&segments), "it took {segments} segments");
    Ok(())
}

fn partition_by_icmp_makes_peers_unreachable_in_v6() -> anyhow::Result<()> {
    let segments = no_connection(OUTSIDE_V6, "icmp", PROHIBITED)?;
    ensure!((1..=2).contains(&segments), "it took {segments} segments");
    Ok(())
}

/// An established connection is reset by what is sent next; the neighbour's goes on.
fn reset(address: IpAddr, bytes: u64) -> anyhow::Result<Ended> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    let (hurt, spared) = (Stream::new(&lab, &victim, address)?, Stream::new(&lab, &neighbour, address)?);
    hurt.deliver(bytes)?;
    let kchaos = controller::inject(&format!("partition --reject rst --on {}", cgroup.target()))?;
    // A call that had nothing left to say when the answer came leaves it to the next.
    let told = hurt.offer(bytes, 2_000).err().or_else(|| hurt.offer(1, 2_000).err());
    ensure_told(told.map(|error| error.to_string()), RESET)?;
    spared.deliver(bytes)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    spared.deliver(bytes)?;
    Stream::new(&lab, &victim, address)?.deliver(bytes)?;
    Ok(ended)
}

fn partition_by_rst_resets_connections() -> anyhow::Result<()> {
    let segments = reset(OUTSIDE, 1)?.outcome("injected")?;
    ensure!(segments == 1, "it took {segments} segments");
    Ok(())
}

fn partition_by_rst_resets_connections_of_v6() -> anyhow::Result<()> {
    let segments = reset(OUTSIDE_V6, 1)?.outcome("injected")?;
    ensure!(segments == 1, "it took {segments} segments");
    Ok(())
}

/// Segments that go to the device in one buffer are answered too. The first answer ends the connection, so no more
/// than its window can have been on the way.
fn partition_by_rst_resets_a_bulk_stream() -> anyhow::Result<()> {
    for address in [OUTSIDE, OUTSIDE_V6] {
        let ended = reset(address, BULK_BYTES)?;
        let buffers = ended.outcome("injected")?;
        ensure!((1..200).contains(&buffers), "it took {buffers} buffers");
    }
    Ok(())
}

fn partition_by_rst_is_silent_to_udp() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("partition --reject rst --on {}", cgroup.target()))?;
    flow.is_shut("during")?; // an error of any call would fail this
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    flow.is_open("after")
}

/// Each packet is answered: by an error in the socket's queue, and to the call after it.
pub fn told_to_udp(lab: &Lab, address: IpAddr, why: &str) -> anyhow::Result<()> {
    const PACKETS: u64 = 50;
    let cgroup = Cgroup::new()?;
    let victim = Victim::start(lab, &cgroup)?;
    let mut flow = Flow::to(lab, &victim, address)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("partition --reject icmp --on {}", cgroup.target()))?;
    let send = Ask::SendNumbers { socket: flow.socket(), to: None, first: 0, count: PACKETS };
    let Answer::Refused(refused) = victim.ask(send)? else { bail!("expected errors") };
    ensure!(!refused.is_empty(), "no call has failed");
    ensure!(refused.iter().all(|refused| refused.contains(why)), "{refused:?}");
    let errors = victim.count(Ask::ErrorQueue { socket: flow.socket() })?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let answered = ended.outcome("injected")?;
    ensure!(errors == answered, "{answered} packets were answered, of which the socket has seen {errors}");
    let left = PACKETS - refused.len() as u64;
    ensure!(answered == left, "{left} packets were sent, {answered} answered");
    flow.resumes()
}

fn partition_by_icmp_is_told_to_udp() -> anyhow::Result<()> {
    told_to_udp(&Lab::new()?, OUTSIDE, UNREACHABLE)
}

fn partition_by_icmp_is_told_to_udp_of_v6() -> anyhow::Result<()> {
    told_to_udp(&Lab::new()?, OUTSIDE_V6, PROHIBITED)
}

/// To an established connection ICMP is a mishap that may pass (RFC 1122, section 4.2.3.9).
fn partition_by_icmp_only_stalls_connections() -> anyhow::Result<()> {
    for address in [OUTSIDE, OUTSIDE_V6] {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let stream = Stream::new(&lab, &victim, address)?;
        stream.deliver(BYTES)?;
        let kchaos = controller::inject(&format!("partition --reject icmp --on {}", cgroup.target()))?;
        ensure!(stream.offer(WAITING_BYTES, 800)? == 0, "something was acknowledged through a partition");
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        stream.catches_up(BYTES + WAITING_BYTES)?;
    }
    Ok(())
}

/// The first three segments, each of which asks for a connection, are answered; the others get through.
fn partition_by_rst_ends_after_so_many() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let options = "--reject rst --direction egress --max 3";
    let kchaos = controller::inject(&format!("partition {options} --on {}", cgroup.target()))?;
    for _ in 0..3 {
        ensure_told(refusal(&lab, &victim, OUTSIDE)?, REFUSED)?;
    }
    ensure!(refusal(&lab, &victim, OUTSIDE)?.is_none(), "more than `max` were answered");
    let ended = kchaos.interrupt()?;
    ensure!(ended.outcome("injected")? == 3 && ended.outcome("budget")? > 0, "{}", ended.output);
    Ok(())
}
