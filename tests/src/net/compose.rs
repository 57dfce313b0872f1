//! Specs with several faults for one target: each does what it does alone, and counts for itself.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use chaos_common::net::Direction;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    dns::{NOERROR, NXDOMAIN, ask},
    numbers::Numbers,
};
use crate::{
    Test,
    controller::{self, Running},
    flow::Flow,
    lab::{Cgroup, ELSEWHERE, INSIDE, Lab, OUTSIDE, OUTSIDE_V6},
    lag::{Lags, in_a_quiet_moment, median},
    tests,
    victim::{
        Victim,
        call::{Call, Kind},
        resolve::{A, Question, serve},
    },
};

pub fn tests() -> Vec<Test> {
    tests![
        COMPOSED on one kernel: compose_six_faults_each_for_itself, compose_a_pulse_and_a_ramp,
            compose_with_seeds_is_the_same_again;
        HOLD on one kernel: compose_delay_loss_and_corruption
    ]
}

/// The port of `Numbers` in the target.
const NUMBERS: &str = "local_ports: 7001";
/// So long nothing is injected in a run; no spec may ask for less.
const BASELINE: &str = "5s";

/// A target, a neighbour and a spec for them.
struct Composed {
    lab: Lab,
    target: Cgroup,
    neighbours: Cgroup,
    victim: Victim,
    neighbour: Victim,
    folder: TempDir,
}

impl Composed {
    fn new() -> anyhow::Result<Self> {
        let (lab, target, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
        let (victim, neighbour) = (Victim::start(&lab, &target)?, Victim::start(&lab, &neighbours)?);
        Ok(Self { lab, target, neighbours, victim, neighbour, folder: TempDir::new()? })
    }

    /// Runs a spec with these faults up to where they are on. It would stay there for long.
    fn begin(&self, faults: &[&str]) -> anyhow::Result<Running> {
        let faults: String = faults.iter().map(|fault| format!("  - {{ {fault} }}\n")).collect();
        let spec = format!(
            "version: 1\nname: composed\ngroups: {{ control: '{}', experiment: '{}' }}\n\
             steady_state: {{ gates: [{{ metric: net.tx_bytes, decrease: 99% }}] }}\nfaults:\n{faults}\
             run: {{ baseline: {BASELINE}, inject: 5m, recover: 5s, settle: 0s }}\n",
            self.neighbours.target(),
            self.target.target(),
        );
        let path = self.folder.path().join("spec.yaml");
        fs::write(&path, spec)?;
        let arguments = format!("run --force --json {} {}", self.report().display(), path.display());
        let mut kchaos = Running::start(controller::command(&arguments))?;
        kchaos.wait_for("inject: ")?;
        Ok(kchaos)
    }

    fn report(&self) -> PathBuf {
        self.folder.path().join("report.json")
    }

    /// Ends it early; how often each fault has hit the target. Nobody else was hit.
    fn end(&self, kchaos: Running) -> anyhow::Result<Vec<u64>> {
        thread::sleep(Duration::from_millis(1_200)); // counters are read each second
        let ended = kchaos.interrupt()?;
        let report = fs::read(self.report()).with_context(|| ended.said.clone())?;
        let report: Value = serde_json::from_slice(&report)?;
        let faults = report["faults"].as_array().context("a report without faults")?;
        let hits = faults.iter().map(|fault| {
            ensure!(fault["control"]["injected"] == 0, "the neighbour was hit: {fault:#}");
            fault["injected"].as_u64().with_context(|| format!("{fault:#}"))
        });
        hits.collect()
    }
}

/// How many numbered packets somebody sends at a time.
const PACKETS: u64 = 120;

/// What somebody sees of six faults.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// How a connection to the partitioned peer ends.
    connect: Vec<i32>,
    /// How binding to a port ends.
    bind: Vec<i32>,
    /// What a name server says.
    rcode: Option<u8>,
    /// How many packets arrive, and how many of them are changed.
    packets: usize,
    changed: usize,
}

impl Seen {
    /// What there is to see where nothing is injected.
    const QUIET: fn() -> Self = || Self {
        connect: vec![0],
        bind: vec![0],
        rcode: Some(NOERROR),
        packets: PACKETS as usize,
        changed: 0,
    };

    fn by(victim: &Victim, numbers: &mut Numbers<'_>, peer: SocketAddr) -> anyhow::Result<Self> {
        let server = SocketAddr::new(OUTSIDE, 53);
        let names = vec!["www.example.com".to_owned()];
        let question = Question { bind: SocketAddr::new(INSIDE, 0), server, names, kind: A, edns: true };
        let sent = numbers.next()..numbers.next() + PACKETS;
        let arrived = numbers.arrived(Direction::Egress, PACKETS)?;
        Ok(Self {
            connect: victim.call(Call::Connect { kind: Kind::Tcp, from: None, to: peer }, 1)?,
            bind: victim.call(Call::Bind { kind: Kind::Udp, at: SocketAddr::new(INSIDE, 7777) }, 1)?,
            rcode: ask(victim, &question)?.map(|reply| reply.rcode),
            packets: arrived.len(),
            changed: arrived.iter().filter(|number| !sent.contains(number)).count(),
        })
    }
}

/// Six faults of which each has its own effect; three of them share the same packets.
fn compose_six_faults_each_for_itself() -> anyhow::Result<()> {
    let composed = Composed::new()?;
    let listener = composed.lab.listener(ELSEWHERE)?;
    let peer = listener.local_addr()?;
    let server = composed.lab.outside.run(|| UdpSocket::bind(SocketAddr::new(OUTSIDE, 53)))??;
    thread::spawn(move || serve(server, [192, 0, 2, 1], [0; 16]));
    let mut numbers = Numbers::new(&composed.lab, &composed.victim, OUTSIDE)?;
    let mut others = Numbers::new(&composed.lab, &composed.neighbour, OUTSIDE_V6)?;
    let quiet = |victim: &Victim, numbers: &mut Numbers<'_>, when: &str| {
        let seen = Seen::by(victim, numbers, peer)?;
        ensure!(seen == (Seen::QUIET)(), "{when}: {seen:?}");
        Ok(())
    };
    quiet(&composed.victim, &mut numbers, "before")?;
    let kchaos = composed.begin(&[
        &format!("partition: {{ peers: {ELSEWHERE}, reject: rst }}"),
        "dns: { answer: nxdomain, names: example.com }",
        &format!("loss: {{ every: 4, {NUMBERS} }}"),
        // Its first two bytes: no number that is sent is so large.
        &format!("corrupt: {{ every: 2, bits: 3, offset: 0..2, {NUMBERS} }}"),
        &format!("duplicate: {{ percent: 100%, {NUMBERS} }}"),
        "refuse: { calls: bind, error: EADDRINUSE, local_ports: 7777 }",
    ])?;
    let seen = Seen::by(&composed.victim, &mut numbers, peer)?;
    quiet(&composed.neighbour, &mut others, "a neighbour, during")?;
    let hits = composed.end(kchaos)?;
    let expected = Seen {
        connect: vec![libc::ECONNREFUSED],
        bind: vec![libc::EADDRINUSE],
        rcode: Some(NXDOMAIN),
        // Of 120 are 90 left, of which 45 are changed; all of them come twice.
        packets: 180,
        changed: 90,
    };
    ensure!(seen == expected, "{seen:?}, expected {expected:?}");
    ensure!(hits == [1, 1, 30, 45, 90, 1], "counted {hits:?}");
    quiet(&composed.victim, &mut numbers, "after")
}

/// Each keeps its own time: one comes and goes, the other grows.
fn compose_a_pulse_and_a_ramp() -> anyhow::Result<()> {
    const EVERY: Duration = Duration::from_millis(5);
    const COUNT: u64 = 800;
    let composed = Composed::new()?;
    let other = Victim::start(&composed.lab, &composed.target)?;
    let mut pulsed = Flow::new(&composed.lab, &composed.victim)?;
    let mut ramped = Flow::new(&composed.lab, &other)?;
    let mut spared = Flow::new(&composed.lab, &composed.neighbour)?;
    let kchaos = composed.begin(&[
        &format!(
            "partition: {{ direction: egress, ports: {}, pulse: {{ active: 1s, dormant: 1s }} }}",
            pulsed.port()?
        ),
        &format!("loss: {{ ports: {}, ramp: {{ from: 0%, to: 100%, over: 4s }} }}", ramped.port()?),
    ])?;
    let (by_pulse, by_ramp) = thread::scope(|scope| {
        let ramped = scope.spawn(|| ramped.paced(COUNT, EVERY));
        let pulsed = pulsed.paced(COUNT, EVERY);
        (pulsed, ramped.join())
    });
    let (by_pulse, by_ramp) = (by_pulse?, by_ramp.map_err(|_| anyhow!("sending panicked"))??);
    spared.is_open("a neighbour, during")?;
    let hits = composed.end(kchaos)?;
    let lost = |packets: &[(u64, bool)]| packets.iter().filter(|(_, lost)| *lost).count() as u64;
    ensure!(hits == [lost(&by_pulse), lost(&by_ramp)], "{hits:?} are counted");
    // Four seconds have two pulses, or one more if the sender begins late.
    let pulses = by_pulse.chunk_by(|one, next| one.1 == next.1).filter(|run| run[0].1).count();
    let share = lost(&by_pulse) as f64 / COUNT as f64;
    ensure!((2..=3).contains(&pulses) && (0.35..0.65).contains(&share), "{pulses} pulses, {share:.2} lost");
    let quarters: Vec<u64> = by_ramp.chunks(by_ramp.len() / 4).take(4).map(lost).collect();
    ensure!(quarters.is_sorted_by(|one, next| one < next), "it does not grow: {quarters:?}");
    pulsed.is_open("after")?;
    ramped.is_open("after")
}

/// The same of each fault's decisions, one after another on the same packets.
fn compose_with_seeds_is_the_same_again() -> anyhow::Result<()> {
    let arrived = || -> anyhow::Result<(Vec<u64>, Vec<u64>)> {
        let composed = Composed::new()?;
        let mut numbers = Numbers::new(&composed.lab, &composed.victim, OUTSIDE)?;
        let kchaos = composed.begin(&[
            &format!("loss: {{ percent: 30%, seed: 1, {NUMBERS} }}"),
            &format!("corrupt: {{ percent: 40%, bits: 3, seed: 2, {NUMBERS} }}"),
            &format!("duplicate: {{ gemodel: {{ p: 10%, r: 30% }}, seed: 3, {NUMBERS} }}"),
        ])?;
        let arrived = numbers.arrived(Direction::Egress, 4 * PACKETS)?;
        Ok((arrived, composed.end(kchaos)?))
    };
    let (first, hits) = arrived()?;
    ensure!(hits.iter().all(|hits| *hits > 10), "nothing to compare: {hits:?}");
    let again = arrived()?;
    ensure!(again == (first, hits), "the same seeds have decided otherwise");
    Ok(())
}

/// What is changed is late, and of what is late some is lost.
fn compose_delay_loss_and_corruption() -> anyhow::Result<()> {
    const BY: Duration = Duration::from_millis(60);
    const COUNT: u64 = 60;
    in_a_quiet_moment(|| {
        let composed = Composed::new()?;
        let mut lags = Lags::to(&composed.lab, &composed.victim, OUTSIDE)?;
        let mut numbers = Numbers::new(&composed.lab, &composed.victim, OUTSIDE_V6)?;
        let mut send = |count| lags.send(count, Duration::from_millis(5), Duration::from_millis(500));
        let arrivals = send(COUNT)?;
        ensure!(arrivals.len() as u64 == COUNT && median(&arrivals) < 30.0, "not quiet before");
        let kchaos = composed.begin(&[
            "delay: { by: 60ms }",
            "loss: { every: 3 }",
            &format!("corrupt: {{ percent: 100%, bits: 3, offset: 0..2, {NUMBERS} }}"),
        ])?;
        let late = send(COUNT)?;
        let started = Instant::now();
        let changed = numbers.arrived(Direction::Egress, 3)?;
        let took = started.elapsed();
        let hits = composed.end(kchaos)?;
        let after = send(COUNT)?;
        let earliest = late.iter().map(|arrival| arrival.lag_ms).fold(f64::INFINITY, f64::min);
        ensure!(late.len() as u64 == COUNT * 2 / 3, "{} of {COUNT} arrived", late.len());
        ensure!(earliest >= BY.as_secs_f64() * 1e3 - 0.1, "one took only {earliest:.3} ms");
        ensure!(changed.len() == 2 && changed.iter().all(|number| *number > 2), "{changed:x?}");
        ensure!(took >= BY, "changed packets took {took:?}");
        let sent = COUNT + 3;
        ensure!(hits == [sent * 2 / 3, sent / 3, 2], "counted {hits:?}");
        ensure!(after.len() as u64 == COUNT && median(&after) < 30.0, "not quiet afterwards");
        Ok(())
    })
}
