//! Whole experiments: from a spec file to a verdict.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use chaos_common::net::Direction;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Test,
    controller::{self, Ended, Running, exit},
    flow::{Flow, Inflow},
    lab::{Cgroup, Lab, OUTSIDE},
    net::numbers::Numbers,
    snapshot::Snapshot,
    stream::Stream,
    tests,
    victim::Victim,
};

pub fn tests() -> Vec<Test> {
    tests![
        EXPERIMENT: experiment_counts_what_victims_did;
        EXPERIMENT on one kernel: experiment_with_harmless_loss_passes, experiment_that_never_fires_is_invalid,
            experiment_that_is_interrupted_is_aborted, experiment_with_two_faults_does_both,
            experiment_with_pulses_is_held_to_what_came_while_they_were_on,
            experiment_loses_then_corrupts_then_duplicates, experiment_with_loss_fails_its_gate;
        EXPERIMENT on any kernel: experiment_with_a_broken_spec_changes_nothing
    ]
}

/// Two cgroups with a victim each, on one device.
pub struct Groups {
    pub lab: Lab,
    pub control: Cgroup,
    pub experiment: Cgroup,
    victims: [Victim; 2],
    pub folder: TempDir,
}

impl Groups {
    pub fn new() -> anyhow::Result<Self> {
        let (lab, control, experiment) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
        let victims = [Victim::start(&lab, &control)?, Victim::start(&lab, &experiment)?];
        Ok(Self { lab, control, experiment, victims, folder: TempDir::new()? })
    }

    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Snapshot::take(&self.lab, &[&self.control, &self.experiment])
    }

    /// Writes a spec; each phase is as short as it may be. Returns what runs it.
    pub fn spec(&self, gates: &str, faults: &str) -> anyhow::Result<String> {
        self.spec_of(gates, faults, "{ baseline: 5s, inject: 5s, recover: 5s, settle: 0s }")
    }

    /// The same with phases of one's own.
    pub fn spec_of(&self, gates: &str, faults: &str, run: &str) -> anyhow::Result<String> {
        let path = self.folder.path().join("spec.yaml");
        let text = format!(
            "version: 1\nname: kchaos-test\ngroups: {{ control: '{}', experiment: '{}' }}\n\
             steady_state: {{ gates: [{gates}] }}\nfaults: [{faults}]\n\
             run: {run}\n",
            self.control.target(),
            self.experiment.target(),
        );
        fs::write(&path, text)?;
        Ok(format!("run --force --json {}/report.json {}", self.folder.path().display(), path.display()))
    }

    pub fn report(&self, ended: &Ended) -> anyhow::Result<Value> {
        let path = self.folder.path().join("report.json");
        let text = fs::read(path).with_context(|| format!("no report: {}{}", ended.output, ended.said))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Runs a spec to its end while both victims send over TCP without a pause.
    pub fn run_under_load(&self, arguments: &str) -> anyhow::Result<Run> {
        undisturbed(|| {
            let kchaos = Running::start(controller::command(arguments))?;
            let controller = kchaos.pid();
            let ended = self.under_load(|| kchaos.ended())?;
            Ok(Run { report: self.report(&ended)?, ended, controller })
        })
    }

    /// Runs `work` while both victims send over TCP without a pause.
    pub fn under_load<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let streams = [0, 1].map(|i| Stream::new(&self.lab, &self.victims[i], OUTSIDE));
        let over = &AtomicBool::new(false);
        thread::scope(|scope| {
            let senders = streams.map(|stream| {
                scope.spawn(move || -> anyhow::Result<()> {
                    let stream = stream?;
                    while !over.load(Ordering::Relaxed) {
                        stream.deliver(100 << 10)?;
                        thread::sleep(Duration::from_millis(10));
                    }
                    Ok(())
                })
            });
            let result = work();
            over.store(true, Ordering::Relaxed);
            for sender in senders {
                sender.join().map_err(|_| anyhow!("sending panicked"))??;
            }
            result
        })
    }
}

/// What came of an experiment.
pub struct Run {
    pub ended: Ended,
    pub report: Value,
    pub controller: i32,
}

/// Phases are so short that no reading may come late, which it does on a busy machine. The report says so;
/// then it is done again.
pub fn undisturbed(mut run: impl FnMut() -> anyhow::Result<Run>) -> anyhow::Result<Run> {
    const ATTEMPTS: u32 = 5;
    for _ in 0..ATTEMPTS {
        let run = run()?;
        let doubts =
            ["invalid", "caveats"].into_iter().filter_map(|list| run.report[list].as_array()).flatten();
        if doubts.into_iter().all(|doubt| doubt["lost_ticks"].is_null()) {
            return Ok(run);
        }
    }
    bail!("the machine is too busy: {ATTEMPTS} experiments in a row have lost readings")
}

const RETRANSMITS: &str = "{ metric: tcp.retrans_ratio, increase: 0.5pp }";

fn experiment_with_loss_fails_its_gate() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let before = groups.snapshot()?;
    // TCP gives way to so much loss by far more than that, even in a few seconds.
    let gate = "{ metric: net.tx_bytes, decrease: 20% }";
    let arguments = groups.spec(gate, "{ loss: { percent: 20%, protocol: tcp } }")?;
    let Run { ended, report, controller } = groups.run_under_load(&arguments)?;
    ended.ensure_code(exit::FAIL)?;
    ensure!(report["verdict"] == "fail" && report["schema"] == "kchaos-report/1", "{report:#}");
    let fault = &report["faults"][0];
    ensure!(fault["injected"].as_u64() > Some(0) && fault["fired"] == "as_asked", "{fault:#}");
    ensure!(fault["control"]["injected"] == 0, "the control group was hit: {fault:#}");
    ensure!(report["phases"].as_array().is_some_and(|phases| phases.len() == 3), "{report:#}");
    before.ensure_restored(&groups.lab, &[&groups.control, &groups.experiment], controller)
}

/// A fault that hits nothing proves nothing, however calm everything was.
fn experiment_that_never_fires_is_invalid() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let arguments = groups.spec(RETRANSMITS, "{ loss: { percent: 100%, ports: 9 } }")?;
    let Run { ended, report, .. } = groups.run_under_load(&arguments)?;
    ended.ensure_code(exit::INVALID)?;
    ensure!(report["verdict"] == "invalid" && report["faults"][0]["injected"] == 0, "{report:#}");
    Ok(())
}

fn experiment_that_is_interrupted_is_aborted() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let before = groups.snapshot()?;
    let mut flow = Flow::new(&groups.lab, &groups.victims[1])?;
    flow.is_open("before")?;
    let arguments = groups.spec(RETRANSMITS, "{ loss: { percent: 100% } }")?;
    let mut kchaos = Running::start(controller::command(&arguments))?;
    kchaos.wait_for("inject: ")?;
    flow.is_shut("during")?;
    let pid = kchaos.pid();
    let ended = kchaos.interrupt()?;
    flow.is_open("right after the exit")?;
    ended.ensure_code(exit::ABORTED)?;
    let report = groups.report(&ended)?;
    ensure!(report["verdict"] == "aborted" && !report["aborted"].is_null(), "{report:#}");
    let steps = report["rollback"].as_array().context("no rollback")?;
    ensure!(!steps.is_empty() && steps.iter().all(|step| step["ok"] == true), "{report:#}");
    before.ensure_restored(&groups.lab, &[&groups.control, &groups.experiment], pid)
}

/// What the victims of the control group did, to the packet; and of whom TCP sent segments again.
fn experiment_counts_what_victims_did() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let [control, experiment] = &groups.victims;
    let mut sent = Flow::new(&groups.lab, control)?;
    let mut received = Inflow::new(&groups.lab, control, 7001)?;
    let stream = Stream::new(&groups.lab, experiment, OUTSIDE)?;
    let gates = "{ metric: net.tx_packets, within: 90% }, { metric: net.rx_packets, within: 90% }";
    let gates = format!("{gates}, {RETRANSMITS}");
    // Long enough for a machine that is busy to send all of it.
    let phases = "{ baseline: 15s, inject: 15s, recover: 5s, settle: 0s }";
    let arguments = groups.spec_of(&gates, "{ loss: { every: 5, protocol: tcp } }", phases)?;
    let mut run = || {
        let mut kchaos = Running::start(controller::command(&arguments))?;
        let controller = kchaos.pid();
        for (phase, to_send, to_receive) in [("baseline: ", 500, 100), ("inject: ", 800, 300)] {
            kchaos.wait_for(phase)?;
            for _ in 0..5 {
                thread::sleep(Duration::from_millis(100)); // not all in one tick
                ensure!(
                    sent.lost(to_send)? == 0 && received.lost(to_receive)? == 0,
                    "the control group is hit"
                );
                stream.deliver(100 << 10)?;
            }
        }
        let ended = kchaos.ended()?;
        Ok(Run { report: groups.report(&ended)?, ended, controller })
    };
    let mut report = undisturbed(&mut run)?.report;
    // Where readings are late, as on a busy machine, they are of other moments than their times say.
    if counted_exactly(&report).is_err() {
        report = undisturbed(&mut run)?.report;
    }
    counted_exactly(&report)?;
    let (ratio, _) = measured(&report, "tcp.retrans_ratio", "experiment_during")?;
    let (packets_per_s, seconds) = measured(&report, "net.tx_packets", "experiment_during")?;
    // The kernel's tracepoint is called once for a buffer, in which there can be several segments.
    let (buffers, segments) = (ratio * packets_per_s * seconds, f64::from(stream.sender()?.retransmitted));
    ensure!((0.5..=segments + 0.5).contains(&buffers), "{buffers:.1} retransmissions counted, of {segments}");
    let (control, _) = measured(&report, "tcp.retrans_ratio", "control_during")?;
    ensure!(control == 0.0, "the other group's retransmissions are counted for control: {control}");
    Ok(())
}

/// What the victim of the control group sent and received.
fn counted_exactly(report: &Value) -> anyhow::Result<()> {
    for (metric, cell, expected) in [
        ("net.tx_packets", "control_before", 5.0 * 500.0),
        ("net.tx_packets", "control_during", 5.0 * 800.0),
        ("net.rx_packets", "control_before", 5.0 * 100.0),
        ("net.rx_packets", "control_during", 5.0 * 300.0),
    ] {
        let (rate, seconds) = measured(report, metric, cell)?;
        let count = rate * seconds;
        ensure!((count - expected).abs() <= 5.0, "{metric} {cell}: {count:.1} counted, {expected} were sent");
    }
    Ok(())
}

/// A cell of a metric, and over how many seconds it was measured.
fn measured(report: &Value, metric: &str, cell: &str) -> anyhow::Result<(f64, f64)> {
    let both = ["gates", "observations"].into_iter().filter_map(|list| report[list].as_array());
    let found = both
        .flatten()
        .find(|one| one["metric"] == metric)
        .with_context(|| format!("{metric}: {report:#}"))?;
    let value = found["estimate"]["cells"][cell].as_f64();
    let phase = usize::from(cell.ends_with("during"));
    let seconds = report["phases"][phase]["seconds"].as_f64();
    value.zip(seconds).with_context(|| format!("{metric} was not measured: {found:#}"))
}

/// Retransmissions are what was allowed for.
fn experiment_with_harmless_loss_passes() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let gate = "{ metric: tcp.retrans_ratio, increase: 50pp }";
    let arguments = groups.spec(gate, "{ loss: { every: 20, protocol: tcp } }")?;
    let Run { ended, report, .. } = groups.run_under_load(&arguments)?;
    ended.ensure_code(exit::OK)?;
    ensure!(report["verdict"] == "pass" && report["faults"][0]["injected"].as_u64() > Some(0), "{report:#}");
    Ok(())
}

/// What came between pulses is counted, but neither the share delivered nor the share asked for is taken of it. A ramp's
/// share lies between its ends.
fn experiment_with_pulses_is_held_to_what_came_while_they_were_on() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let pulsing = "{ loss: { percent: 30%, protocol: tcp, pulse: { delay: 1s, active: 1s, dormant: 1s } } }";
    let ramping = "{ loss: { ramp: { from: 5%, to: 15%, over: 5s }, protocol: tcp } }";
    let arguments = groups.spec(RETRANSMITS, &format!("{pulsing}, {ramping}"))?;
    let Run { report, .. } = groups.run_under_load(&arguments)?;
    let [pulsing, ramping] = [0, 1].map(|fault| &report["faults"][fault]);
    ensure!(pulsing["fired"] == "as_asked" && pulsing["check"] == "binomial", "{pulsing:#}");
    ensure!(pulsing["experiment"]["dormant"].as_u64() > Some(0), "{pulsing:#}");
    let counts = ["when", "chance", "budget", "dry_run", "injected"];
    let eligible: u64 = counts.iter().filter_map(|count| pulsing["experiment"][count].as_u64()).sum();
    ensure!(pulsing["eligible"] == eligible && eligible > 0, "{pulsing:#}");
    ensure!(pulsing["segments"]["eligible"].as_u64() >= Some(eligible), "{pulsing:#}");
    ensure!(ramping["fired"] == "as_asked" && ramping["expected_fraction"].is_null(), "{ramping:#}");
    let range = [0, 1].map(|end| ramping["expected_range"][end].as_f64().unwrap_or_default());
    ensure!((range[0] - 0.05).abs() < 1e-6 && (range[1] - 0.15).abs() < 1e-6, "{ramping:#}");
    Ok(())
}

fn experiment_with_two_faults_does_both() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let from = |port| Flow::from_port(&groups.lab, &groups.victims[1], OUTSIDE, port);
    let (mut all, mut third, mut none) = (from(7001)?, from(7002)?, from(7003)?);
    let faults = "{ loss: { percent: 100%, local_ports: 7001 } }, { loss: { every: 3, local_ports: 7002 } }";
    let arguments = groups.spec(RETRANSMITS, faults)?;
    let mut kchaos = Running::start(controller::command(&arguments))?;
    none.is_open("before")?;
    kchaos.wait_for("inject: ")?;
    all.is_shut("during")?;
    let lost = third.lost(300)?;
    ensure!(lost == 100, "{lost} of 300 packets were lost, though every third should be");
    none.is_open("during")?;
    thread::sleep(Duration::from_millis(1_200)); // counters are read each second
    let report = groups.report(&kchaos.interrupt()?)?;
    let injected = [0, 1].map(|fault| report["faults"][fault]["injected"].as_u64());
    ensure!(injected == [Some(200), Some(100)], "{:#}", report["faults"]);
    all.is_open("after")?;
    third.is_open("after")
}

/// In this order, whatever the spec's: every third packet is lost, of those left every second is changed, and all
/// of those are copied as they are.
fn experiment_loses_then_corrupts_then_duplicates() -> anyhow::Result<()> {
    const PACKETS: u64 = 300;
    let faults =
        "{ duplicate: { percent: 100% } }, { corrupt: { every: 2, bits: 3 } }, { loss: { every: 3 } }";
    for mechanism in ["", "--mechanism clsact-egress"] {
        let groups = Groups::new()?;
        let mut numbers = Numbers::new(&groups.lab, &groups.victims[1], OUTSIDE)?;
        let arguments = groups.spec(RETRANSMITS, faults)?;
        let mut kchaos = Running::start(controller::command(&format!("{arguments} {mechanism}")))?;
        kchaos.wait_for("inject: ")?;
        let arrived = numbers.arrived(Direction::Egress, PACKETS)?;
        thread::sleep(Duration::from_millis(1_200)); // counters are read each second
        let report = groups.report(&kchaos.interrupt()?)?;
        let injected = [0, 1, 2].map(|fault| report["faults"][fault]["injected"].as_u64());
        ensure!(injected == [Some(200), Some(100), Some(100)], "{:#}", report["faults"]);
        let (pairs, rest) = arrived.as_chunks::<2>();
        ensure!(pairs.iter().all(|[one, copy]| one == copy) && rest.is_empty(), "not in pairs: {arrived:x?}");
        ensure!(pairs.len() == 200, "{} packets arrived in pairs", pairs.len());
        let sent = (0..PACKETS).filter(|number| number % 3 != 2);
        for (n, (sent, [arrived, _])) in sent.zip(pairs).enumerate() {
            let bits = (sent ^ arrived).count_ones();
            ensure!(bits == if n % 2 == 0 { 0 } else { 3 }, "{sent} arrived as {arrived:x}");
        }
    }
    Ok(())
}

fn experiment_with_a_broken_spec_changes_nothing() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let before = groups.snapshot()?;
    for (faults, words) in [
        ("{ loss: { percent: 500% } }", &["faults[0].loss.percent", "500%"][..]),
        ("{ loss: { percentage: 5% } }", &["percentage"]),
        ("{ loss: { percent: 5%, every: 3 } }", &["every"]),
        ("{ losses: { percent: 5% } }", &["losses"]),
    ] {
        controller::run(&groups.spec(RETRANSMITS, faults)?)?.ensure_refused(words)?;
        controller::run(&groups.spec(RETRANSMITS, faults)?.replace("run --force", "run --force --dry-run"))?
            .ensure_refused(words)?;
    }
    ensure!(before == groups.snapshot()?, "something was attached");
    controller::run("run /nonexistent.yaml")?.ensure_refused(&["/nonexistent.yaml"])
}
