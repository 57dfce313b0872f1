//! Which packets are hit, and which are spared.

use std::net::SocketAddr;

use anyhow::{Context, ensure};

use crate::{
    Test,
    controller::{self, exit},
    flow::{Flow, PROBE},
    lab::{Cgroup, ELSEWHERE, ELSEWHERE_V6, INSIDE, Lab, OUTSIDE, OUTSIDE_V6},
    stream::Stream,
    tests,
    victim::{Ask, Victim},
};

/// Enough to see whether TCP gets anywhere.
const BYTES: u64 = 64 << 10;

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: loss_can_be_limited_to_peers_v4, loss_can_be_limited_to_a_port_of_the_peer,
            loss_can_be_limited_to_a_port_of_the_target, loss_can_be_limited_to_udp,
            loss_can_be_limited_to_icmp, loss_filters_combine, loss_spares_allowed_peers,
            loss_spares_allowed_ports_at_either_end, loss_can_be_limited_to_established_connections,
            loss_can_be_limited_to_peers_v6, loss_can_be_limited_to_new_connections, loss_can_be_limited_to_tcp;
        INGRESS on one kernel: loss_of_arriving_connections_leaves_those_that_exist
    ]
}

/// All flows are open before and after; during loss of everything with these options, some are shut.
fn hits(
    cgroup: &Cgroup,
    options: &str,
    (hit, spared): (&mut [&mut Flow<'_>], &mut [&mut Flow<'_>]),
) -> anyhow::Result<()> {
    let open =
        |flows: &mut [&mut Flow<'_>], what: &str| flows.iter_mut().try_for_each(|flow| flow.is_open(what));
    open(hit, "before")?;
    open(spared, "before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 {options} --on {}", cgroup.target()))?;
    hit.iter_mut().try_for_each(|flow| flow.is_shut(options)).context("what should be hit")?;
    open(spared, options).context("what should be spared")?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(spared.is_empty() || ended.outcome("filtered")? > 0, "nothing was counted as filtered out");
    open(hit, "after")?;
    open(spared, "after")
}

fn loss_can_be_limited_to_a_port_of_the_peer() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut hit, mut spared) = (Flow::new(&lab, &victim)?, Flow::new(&lab, &victim)?);
    let options = format!("--ports {}", hit.port()?);
    hits(&cgroup, &options, (&mut [&mut hit], &mut [&mut spared]))
}

fn loss_can_be_limited_to_a_port_of_the_target() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let from = |port| Flow::from_port(&lab, &victim, OUTSIDE, port);
    let (mut hit, mut also_hit, mut spared) = (from(7001)?, from(7003)?, from(7004)?);
    let flows: (&mut [_], &mut [_]) = (&mut [&mut hit, &mut also_hit], &mut [&mut spared]);
    hits(&cgroup, "--local-ports 7000-7003", flows)
}

fn loss_can_be_limited_to_udp() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut udp, tcp) = (Flow::new(&lab, &victim)?, Stream::new(&lab, &victim, OUTSIDE)?);
    udp.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 --protocol udp --on {}", cgroup.target()))?;
    udp.is_shut("during")?;
    tcp.deliver(BYTES)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    // To the packet; where the machine stalls, TCP sends segments again though nothing was lost.
    let injected = ended.outcome("injected")?;
    ensure!(injected == PROBE, "TCP was hit: {injected} packets were lost, of UDP {PROBE}");
    udp.is_open("after")
}

fn loss_can_be_limited_to_tcp() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut udp = Flow::new(&lab, &victim)?;
    Stream::new(&lab, &victim, OUTSIDE)?.deliver(BYTES)?;
    let kchaos = controller::inject(&format!("loss --percent 100 --protocol tcp --on {}", cgroup.target()))?;
    udp.is_open("during")?;
    ensure!(!connects(&lab, &victim)?, "a connection was made though all TCP is lost");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    ensure!(connects(&lab, &victim)?, "no connection could be made afterwards");
    Ok(())
}

/// Whether a connection to us can be made within the time of one retransmission.
fn connects(lab: &Lab, victim: &Victim) -> anyhow::Result<bool> {
    let listener = lab.listener(OUTSIDE)?;
    let bind = SocketAddr::new(INSIDE, 0);
    match victim.ask(Ask::Connect { bind, to: listener.local_addr()?, within_ms: 1_500 }) {
        Ok(_) => Ok(true),
        Err(error) if error.to_string().contains("timed out") => Ok(false),
        Err(error) => Err(error),
    }
}

fn loss_can_be_limited_to_icmp() -> anyhow::Result<()> {
    const REQUESTS: u64 = 5;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut udp = Flow::new(&lab, &victim)?;
    let answered = || -> anyhow::Result<[u64; 2]> {
        let ping = |address| victim.count(Ask::Ping { to: SocketAddr::new(address, 0), count: REQUESTS });
        Ok([ping(OUTSIDE)?, ping(OUTSIDE_V6)?])
    };
    ensure!(answered()? == [REQUESTS; 2], "echo requests are lost before anything is injected");
    let kchaos = controller::inject(&format!("loss --percent 100 --protocol icmp --on {}", cgroup.target()))?;
    let during = answered()?;
    ensure!(during == [0; 2], "echo requests were answered: {during:?}");
    udp.is_open("during")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    ensure!(answered()? == [REQUESTS; 2], "echo requests are lost afterwards");
    Ok(())
}

fn loss_can_be_limited_to_peers_v4() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let to = |address| Flow::to(&lab, &victim, address);
    let (mut hit, mut spared, mut v6) = (to(ELSEWHERE)?, to(OUTSIDE)?, to(OUTSIDE_V6)?);
    let flows: (&mut [_], &mut [_]) = (&mut [&mut hit], &mut [&mut spared, &mut v6]);
    hits(&cgroup, "--peers 10.107.1.128/25", flows)
}

fn loss_can_be_limited_to_peers_v6() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let to = |address| Flow::to(&lab, &victim, address);
    let (mut hit, mut spared, mut v4) = (to(ELSEWHERE_V6)?, to(OUTSIDE_V6)?, to(OUTSIDE)?);
    let flows: (&mut [_], &mut [_]) = (&mut [&mut hit], &mut [&mut spared, &mut v4]);
    hits(&cgroup, "--peers fd00:0:0:6b63:1::/80", flows)
}

/// Every kind of filter must match; within a list, one entry must.
fn loss_filters_combine() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let from = |address, port| Flow::from_port(&lab, &victim, address, port);
    let (mut v4, mut v6) = (from(ELSEWHERE, 7001)?, from(OUTSIDE_V6, 7002)?);
    let (mut other_peer, mut other_port) = (from(OUTSIDE, 7003)?, from(ELSEWHERE, 7004)?);
    let ports = format!("{},{},{}", v4.port()?, v6.port()?, other_peer.port()?);
    let options =
        format!("--protocol udp --peers {ELSEWHERE},{OUTSIDE_V6} --ports {ports} --local-ports 7001-7003");
    let flows: (&mut [_], &mut [_]) = (&mut [&mut v4, &mut v6], &mut [&mut other_peer, &mut other_port]);
    hits(&cgroup, &options, flows)
}

/// The allow-list wins, even over a filter that names the same peer.
fn loss_spares_allowed_peers() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let to = |address| Flow::to(&lab, &victim, address);
    let (mut hit, mut spared) = (to(OUTSIDE)?, to(ELSEWHERE)?);
    let (mut hit_v6, mut spared_v6) = (to(OUTSIDE_V6)?, to(ELSEWHERE_V6)?);
    let (mut one_port, mut another) = (to(OUTSIDE)?, to(OUTSIDE)?);
    let options = format!(
        "--peers 10.0.0.0/8,fd00::/8 --allow {ELSEWHERE},fd00:0:0:6b63:1::/80,{OUTSIDE}:{}",
        one_port.port()?
    );
    let flows: (&mut [_], &mut [_]) =
        (&mut [&mut hit, &mut hit_v6, &mut another], &mut [&mut spared, &mut spared_v6, &mut one_port]);
    hits(&cgroup, &options, flows)
}

fn loss_spares_allowed_ports_at_either_end() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let from = |port| Flow::from_port(&lab, &victim, OUTSIDE, port);
    let (mut hit, mut own_port, mut peers_port) = (from(7001)?, from(7002)?, from(7003)?);
    let options = format!("--allow :7002,:{}", peers_port.port()?);
    let flows: (&mut [_], &mut [_]) = (&mut [&mut hit], &mut [&mut own_port, &mut peers_port]);
    hits(&cgroup, &options, flows)
}

/// What is there goes on; nothing new comes about.
fn loss_can_be_limited_to_new_connections() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut udp, stream) = (Flow::new(&lab, &victim)?, Stream::new(&lab, &victim, OUTSIDE)?);
    stream.deliver(BYTES)?;
    let kchaos =
        controller::inject(&format!("loss --percent 100 --connections new --on {}", cgroup.target()))?;
    stream.deliver(BYTES)?;
    ensure!(stream.receiver()?.out_of_order == 0, "an established connection was hit");
    udp.is_open("during")?;
    ensure!(!connects(&lab, &victim)?, "a connection was made though no SYN gets out");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    // The SYN, and at least the one sent again after a second.
    ensure!((2..5).contains(&ended.outcome("injected")?), "{}", ended.output);
    ensure!(connects(&lab, &victim)?, "no connection could be made afterwards");
    Ok(())
}

/// A SYN gets through and is answered, but no data follows.
fn loss_can_be_limited_to_established_connections() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut udp, stream) = (Flow::new(&lab, &victim)?, Stream::new(&lab, &victim, OUTSIDE)?);
    stream.deliver(BYTES)?;
    let target = cgroup.target();
    let kchaos = controller::inject(&format!("loss --percent 100 --connections established --on {target}"))?;
    ensure!(connects(&lab, &victim)?, "a SYN is lost, or its answer");
    udp.is_open("during")?;
    let acked = stream.offer(BYTES, 1_000)?;
    ensure!(acked == 0, "{acked} bytes got through");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("filtered")? > 200, "neither UDP nor the SYN was filtered out: {}", ended.output);
    stream.offer(BYTES, 20_000)?;
    // Those held back included.
    stream.catches_up(3 * BYTES)
}

/// A server that nobody new can reach, while those who are there go on.
fn loss_of_arriving_connections_leaves_those_that_exist() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let server = Victim::start(&lab, &cgroup)?;
    let address = SocketAddr::new(INSIDE, 7001);
    let listener = server.socket(Ask::Listen { bind: address })?;
    let client = Victim::start_in(&lab.outside, None)?;
    let connect =
        |within_ms| client.ask(Ask::Connect { bind: SocketAddr::new(OUTSIDE, 0), to: address, within_ms });
    let there = client.connect(SocketAddr::new(OUTSIDE, 0), address)?;
    server.socket(Ask::Accept { listener })?;
    let arguments =
        format!("loss --percent 100 --direction ingress --connections new --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    ensure!(client.write(there, BYTES)? == BYTES, "a connection that existed was hit");
    ensure!(connect(1_500).is_err(), "a connection was made though no SYN gets in");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!((2..5).contains(&ended.outcome("injected")?), "{}", ended.output);
    connect(5_000).map(drop).context("afterwards")
}
