//! Connections that are destroyed: what both ends hear, whose, which, and when.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use chaos_common::lease::LEASE_NS;
use kchaos::kernel::Injection;
use serde_json::Value;

use crate::{
    Test,
    controller::{self, Running, exit},
    injection,
    lab::{Cgroup, ELSEWHERE, INSIDE, INSIDE_V6, Lab, OUTSIDE, OUTSIDE_V6},
    safety::hung,
    tests,
    victim::{Ask, Socket, Victim, program::hear},
};

/// For both ends to hear of it, on a busy machine.
const SOON: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_nanos(LEASE_NS);
/// To see that nothing happens.
const A_WHILE: Duration = Duration::from_millis(700);

pub fn tests() -> Vec<Test> {
    tests![
        DESTROY: reset_ends_both_ends_and_spares_a_neighbour;
        DESTROY on one kernel: reset_once_leaves_later_connections_alone, reset_comes_back_every_so_often,
            reset_can_be_limited_to_ports_and_peers, reset_takes_a_share, reset_limits_hold,
            reset_in_a_dry_run_is_only_counted, reset_armed_dry_is_only_counted,
            reset_ends_when_the_run_loop_hangs, reset_is_planned_and_proven_in_an_experiment,
            reset_covers_cgroups_below_and_accepted_ones, reset_ends_with_a_killed_controller
    ]
}

/// A connection from a victim to us.
struct Connection<'a> {
    victim: &'a Victim,
    socket: Socket,
    ours: TcpStream,
    _listener: TcpListener,
}

impl<'a> Connection<'a> {
    fn new(lab: &Lab, victim: &'a Victim, to: IpAddr) -> anyhow::Result<Self> {
        Self::from_port(lab, victim, to, 0)
    }

    fn from_port(lab: &Lab, victim: &'a Victim, to: IpAddr, port: u16) -> anyhow::Result<Self> {
        let listener = lab.listener(to)?;
        let from = if to.is_ipv4() { INSIDE } else { INSIDE_V6 };
        let socket = victim.connect(SocketAddr::new(from, port), listener.local_addr()?)?;
        let (ours, _) = listener.accept()?;
        Ok(Self { victim, socket, ours, _listener: listener })
    }

    fn port(&self) -> anyhow::Result<u16> {
        Ok(self.ours.local_addr()?.port())
    }

    /// Both ends have heard: the victim that its connection was aborted, we that it was reset.
    fn is_reset(&mut self, what: &str) -> anyhow::Result<()> {
        let theirs = self.victim.hear(self.socket, SOON)?;
        ensure!(theirs == Some(libc::ECONNABORTED), "{what}: the victim hears {theirs:?}");
        let ours = hear(&mut self.ours, SOON)?;
        ensure!(ours == Some(libc::ECONNRESET), "{what}: we hear {ours:?}");
        Ok(())
    }

    /// Neither end has heard anything, and bytes get through.
    fn lives(&mut self, what: &str) -> anyhow::Result<()> {
        let ends = (self.victim.hear(self.socket, Duration::ZERO)?, hear(&mut self.ours, Duration::ZERO)?);
        ensure!(ends == (None, None), "{what}: the ends hear {ends:?}");
        let acked = self.victim.write(self.socket, 1000)?;
        ensure!(acked == 1000, "{what}: only {acked} of 1000 bytes are acknowledged");
        Ok(())
    }
}

fn reset_ends_both_ends_and_spares_a_neighbour() -> anyhow::Result<()> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    let mut hit = [Connection::new(&lab, &victim, OUTSIDE)?, Connection::new(&lab, &victim, OUTSIDE_V6)?];
    let mut spared = Connection::new(&lab, &neighbour, OUTSIDE)?;
    hit.iter_mut().try_for_each(|connection| connection.lives("before"))?;
    spared.lives("before")?;
    let kchaos = controller::inject(&format!("reset --on {}", cgroup.target()))?;
    hit.iter_mut().try_for_each(|connection| connection.is_reset("during"))?;
    spared.lives("during")?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let counted = (ended.outcome("injected")?, ended.json()?["eligible"].as_u64());
    ensure!(counted == (2, Some(2)), "{}", ended.output);
    spared.lives("after")?;
    Connection::new(&lab, &victim, OUTSIDE)?.lives("after")
}

/// What could be destroyed is found out again and again, and then it is destroyed.
fn reset_armed_dry_is_only_counted() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut injection = injection::inject(&cgroup, &[("reset", &[])])?;
    injection.arm_dry(Duration::from_secs(60))?;
    let mut connection = Connection::new(&lab, &victim, OUTSIDE)?;
    let until = Instant::now() + SOON;
    while injection.sample()?.rules[0][0].eligible() == 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let dry = injection.sample()?.rules[0][0];
    ensure!(dry.eligible() > 0 && dry.injected == 0, "{dry:?}");
    connection.lives("dry")?;
    injection.arm(Duration::from_secs(60))?;
    connection.is_reset("meant")?;
    // It is counted a moment after both ends have heard of it.
    let until = Instant::now() + SOON;
    while injection.sample()?.rules[0][0].injected == 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let meant = injection.sample()?.rules[0][0];
    ensure!(meant.injected == 1, "{meant:?}");
    let rollback = injection.rollback();
    ensure!(rollback.is_complete(), "{rollback:?}");
    Ok(())
}

fn reset_once_leaves_later_connections_alone() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut before = Connection::new(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("reset --on {}", cgroup.target()))?;
    before.is_reset("during")?;
    let mut later = Connection::new(&lab, &victim, OUTSIDE)?;
    thread::sleep(A_WHILE);
    later.lives("a connection that came later")?;
    let ended = kchaos.interrupt()?;
    ensure!(ended.outcome("injected")? == 1, "{}", ended.output);
    Ok(())
}

/// One connection after the other is destroyed, a second apart; none once it has ended.
fn reset_comes_back_every_so_often() -> anyhow::Result<()> {
    const ROUNDS: u64 = 3;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let kchaos = controller::inject(&format!("reset --every 1s --on {}", cgroup.target()))?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        Connection::new(&lab, &victim, OUTSIDE)?.is_reset(&format!("round {round}"))?;
        times.push(Instant::now());
    }
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("injected")? == ROUNDS, "{}", ended.output);
    let apart: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let about_a_second = Duration::from_millis(600)..Duration::from_millis(1_400);
    ensure!(apart.iter().all(|gap| about_a_second.contains(gap)), "they were {apart:?} apart");
    let mut after = Connection::new(&lab, &victim, OUTSIDE)?;
    thread::sleep(Duration::from_millis(1_500));
    after.lives("after it has ended")
}

fn reset_can_be_limited_to_ports_and_peers() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let from = |to, port| Connection::from_port(&lab, &victim, to, port);
    let mut port = from(OUTSIDE, 0)?;
    let (mut peer, mut v6) = (from(ELSEWHERE, 0)?, from(OUTSIDE_V6, 0)?);
    let (mut own, mut allowed) = (from(OUTSIDE, 7001)?, from(OUTSIDE, 7002)?);
    let on = cgroup.target();
    let reset = |options: &str, filtered: u64| {
        let kchaos = controller::inject(&format!("reset {options} --on {on}"))?;
        thread::sleep(A_WHILE);
        let ended = kchaos.interrupt()?;
        let counted = (ended.outcome("injected")?, ended.outcome("filtered")?);
        ensure!(counted == (1, filtered), "{options}: {}", ended.output);
        Ok(())
    };
    reset(&format!("--ports {}", port.port()?), 4)?;
    port.is_reset("the port")?;
    reset("--peers 10.107.1.128/25 --protocol tcp", 3)?;
    peer.is_reset("the peer")?;
    reset("--local-ports 7001-7002 --allow :7002", 2)?;
    own.is_reset("the target's port")?;
    v6.lives("another family")?;
    reset("--peers fd00::/8,10.0.0.0/8 --allow 10.107.1.2:7002", 1)?;
    v6.is_reset("another family, at last")?;
    allowed.lives("what was allowed all the time")
}

/// Seeded, so that it is always the same: a binomial with n = 40 and p = 1/2 lies within 8 and 32 all but always.
fn reset_takes_a_share() -> anyhow::Result<()> {
    const CONNECTIONS: usize = 40;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let connections: Vec<_> =
        (0..CONNECTIONS).map(|_| Connection::new(&lab, &victim, OUTSIDE)).collect::<anyhow::Result<_>>()?;
    let kchaos = controller::inject(&format!("reset --percent 50 --seed 1 --on {}", cgroup.target()))?;
    thread::sleep(A_WHILE);
    let ended = kchaos.interrupt()?;
    let mut reset = 0;
    for connection in &connections {
        reset += u64::from(victim.hear(connection.socket, Duration::ZERO)?.is_some());
    }
    let counted = (ended.outcome("injected")?, ended.outcome("chance")?);
    ensure!(counted == (reset, CONNECTIONS as u64 - reset), "{reset} were reset: {}", ended.output);
    ensure!((8..=32).contains(&reset), "{reset} of {CONNECTIONS} were reset");
    Ok(())
}

fn reset_limits_hold() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let connections =
        (0..5).map(|_| Connection::new(&lab, &victim, OUTSIDE)).collect::<anyhow::Result<Vec<_>>>()?;
    let kchaos = controller::inject(&format!("reset --when 2..4 --max 2 --on {}", cgroup.target()))?;
    thread::sleep(A_WHILE);
    let ended = kchaos.interrupt()?;
    let counted = ["injected", "when", "budget"].map(|name| ended.outcome(name).unwrap_or(u64::MAX));
    ensure!(counted == [2, 2, 1], "{}", ended.output);
    let mut reset = 0;
    for connection in &connections {
        reset += u64::from(victim.hear(connection.socket, Duration::ZERO)?.is_some());
    }
    ensure!(reset == 2, "{reset} were reset");
    Ok(())
}

fn reset_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut connection = Connection::new(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("reset --dry-run --on {}", cgroup.target()))?;
    thread::sleep(A_WHILE);
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!((ended.outcome("dry_run")?, ended.outcome("injected")?) == (1, 0), "{}", ended.output);
    connection.lives("after a dry run")
}

/// Accepted sockets belong to the cgroup of the socket that listens.
fn reset_covers_cgroups_below_and_accepted_ones() -> anyhow::Result<()> {
    let (lab, cgroup, others) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let server = Victim::start_in(&lab.inside, Some(&cgroup.below("below")?))?;
    let client = Victim::start_in(&lab.outside, Some(&others.dir))?;
    let address = SocketAddr::new(INSIDE, 7001);
    let listener = server.socket(Ask::Listen { bind: address })?;
    let theirs = client.connect(SocketAddr::new(OUTSIDE, 0), address)?;
    server.socket(Ask::Accept { listener })?;
    // One that nobody has accepted yet.
    let waiting = client.connect(SocketAddr::new(OUTSIDE, 0), address)?;
    let kchaos = controller::inject(&format!("reset --local-ports 7001 --on {}", cgroup.target()))?;
    for socket in [theirs, waiting] {
        let end = client.hear(socket, SOON)?;
        ensure!(end == Some(libc::ECONNRESET), "the client hears {end:?}");
    }
    let ended = kchaos.interrupt()?;
    ensure!(ended.outcome("injected")? == 2, "{}", ended.output);
    client.connect(SocketAddr::new(OUTSIDE, 0), address).map(drop)
}

fn reset_ends_with_a_killed_controller() -> anyhow::Result<()> {
    let _sweeps = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let kchaos = controller::inject(&format!("reset --every 200ms --on {}", cgroup.target()))?;
    Connection::new(&lab, &victim, OUTSIDE)?.is_reset("during")?;
    kchaos.kill()?;
    let mut connection = Connection::new(&lab, &victim, OUTSIDE)?;
    thread::sleep(A_WHILE);
    connection.lives("after it was killed")?;
    controller::run("sweep")?.ensure_code(exit::OK)
}

/// The thread that does it still runs, and finds the lease over.
fn reset_ends_when_the_run_loop_hangs() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut injection = hung::inject(&cgroup, "reset", &[("every", "200ms")])?;
    let mut waiting = Connection::new(&lab, &victim, OUTSIDE)?;
    thread::sleep(A_WHILE);
    waiting.lives("before it is armed")?;
    injection.arm(Duration::from_secs(60))?;
    waiting.is_reset("during")?;
    thread::sleep(2 * LEASE);
    let mut connection = Connection::new(&lab, &victim, OUTSIDE)?;
    thread::sleep(A_WHILE);
    connection.lives("after two leases")?;
    let rollback = injection.rollback();
    ensure!(rollback.is_complete(), "{rollback:?}");
    Ok(())
}

/// The plan says where and how often; the report counts what was reset, in the experimental group alone.
fn reset_is_planned_and_proven_in_an_experiment() -> anyhow::Result<()> {
    let (lab, cgroup, control) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, bystander) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &control)?);
    let mut spared = Connection::new(&lab, &bystander, OUTSIDE)?;
    let folder = tempfile::tempdir()?;
    let (spec, report) = (folder.path().join("spec.yaml"), folder.path().join("report.json"));
    let text = format!(
        "version: 1\nname: reset\ngroups: {{ control: '{}', experiment: '{}' }}\n\
         steady_state: {{ gates: [{{ metric: net.tx_bytes, decrease: 50% }}] }}\n\
         faults: [{{ reset: {{ every: 1s }} }}]\n\
         run: {{ baseline: 5s, inject: 5s, recover: 5s, settle: 0s }}\n",
        control.target(),
        cgroup.target(),
    );
    fs::write(&spec, text)?;
    let plan = controller::run(&format!("plan {}", spec.display()))?;
    let line = format!("sock_diag in network namespace {}, every 1s", lab.inside.inode);
    ensure!(plan.output.contains("reset 100% every 1s by sock-diag"), "{}", plan.output);
    ensure!(plan.output.matches(&line).count() == 1, "no `{line}`: {}", plan.output);
    let run = controller::command(&format!("run --force --json {} {}", report.display(), spec.display()));
    let (mut kchaos, mut reset) = (Running::start(run)?, 0);
    let mut connection = Connection::new(&lab, &victim, OUTSIDE)?;
    let over = Instant::now() + Duration::from_secs(120);
    while kchaos.goes_on()? && Instant::now() < over {
        if victim.hear(connection.socket, Duration::from_millis(200))?.is_some() {
            reset += 1;
            connection = Connection::new(&lab, &victim, OUTSIDE)?;
        }
    }
    let ended = kchaos.ended()?;
    let report: Value = serde_json::from_slice(&fs::read(&report).context(ended.said)?)?;
    let fault = &report["faults"][0];
    ensure!(fault["fired"] == "as_asked", "{fault:#}");
    let counted = ["eligible", "injected"].map(|count| fault[count].as_u64());
    ensure!((2..=6).contains(&reset) && counted == [Some(reset); 2], "{reset} were reset: {fault:#}");
    ensure!(fault["control"]["injected"] == 0 && fault["experiment"]["injected"] == reset, "{fault:#}");
    spared.lives("the control group")
}
