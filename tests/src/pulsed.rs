//! Experiments whose faults go on and off, and gates on what is not packets.

use std::{fs, thread, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Test,
    controller::{self, Running, exit},
    experiment::{Groups, Run, undisturbed},
    tests,
    victim::chore::Chores,
};

pub fn tests() -> Vec<Test> {
    tests![
        EXPERIMENT on one kernel: pulses_go_on_and_off_and_find_what_they_do, without_load_nothing_is_injected;
        EXPERIMENT on any kernel: a_recorded_run_is_judged_the_same_again, a_limit_ends_a_run,
            targets_are_measured_by_themselves;
        OBSERVE on one kernel: gates_on_calls_and_processes_see_what_happens;
        OBSERVE_MEMORY on one kernel: gates_on_memory_see_it_grow
    ]
}

const PULSES: &str =
    "{ design: pulse, pulses: 8, block: 4s, baseline: 5s, recover: 8s, settle: 0s, seed: 7 }";

/// The fault acts in the ON blocks and in no other, and the gate of what it does fails.
fn pulses_go_on_and_off_and_find_what_they_do() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let before = groups.snapshot()?;
    let gates = "{ metric: tcp.retrans_ratio, increase: 0.5pp }";
    let arguments = groups.spec_of(gates, "{ loss: { percent: 10%, protocol: tcp } }", PULSES)?;
    let kchaos = Running::start(controller::command(&arguments))?;
    let controller = kchaos.pid();
    let ended = groups.under_load(|| kchaos.ended())?;
    let report = groups.report(&ended)?;
    ensure!(report["verdict"] == "fail", "{report:#}");
    ended.ensure_code(exit::FAIL)?;
    let blocks: Vec<&Value> = report["phases"].as_array().context("no phases")?.iter().collect();
    let pair = |block: &&&Value| block["pair"].as_u64();
    let pairs: Vec<u64> = blocks.iter().filter_map(|block| pair(&block)).collect();
    ensure!(
        pairs.len() == 16 && pairs.chunks(2).enumerate().all(|(n, pair)| pair == [n as u64; 2]),
        "{pairs:?}"
    );
    // On a busy machine, a pair may lose a reading, and is left out.
    let judged = report["pulses"]["pairs"].as_u64();
    ensure!(report["seed"] == 7 && judged >= Some(6), "{report:#}");
    let gate = &report["gates"][0];
    ensure!(gate["verdict"] == "fail" && gate["estimate"]["pairs"].as_u64() == judged, "{gate:#}");
    let cells = &gate["estimate"]["cells"];
    let cell = |name: &str| cells[name].as_f64().context("a cell is missing");
    ensure!(cell("control_during")? < 0.002, "the control group is hit: {cells:#}");
    // Segments that were lost at the end of an ON block are sent again in the OFF block after it.
    ensure!(cell("experiment_during")? > 5.0 * cell("experiment_before")?, "{cells:#}");
    let fault = &report["faults"][0];
    ensure!(fault["fired"] == "as_asked" && fault["control"]["injected"] == 0, "{fault:#}");
    before.ensure_restored(&groups.lab, &[&groups.control, &groups.experiment], controller)
}

/// Neither for want of load nor for want of anything that the fault could hit.
fn without_load_nothing_is_injected() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let before = groups.snapshot()?;
    let gates = "{ metric: net.tx_packets, decrease: 30% }";
    let arguments = groups.spec(gates, "{ loss: { percent: 100% } }")?.replace("--force ", "");
    let kchaos = Running::start(controller::command(&arguments))?;
    let controller = kchaos.pid();
    let ended = kchaos.ended()?;
    ended.ensure_code(exit::INVALID)?;
    let report = groups.report(&ended)?;
    ensure!(report["verdict"] == "invalid" && report["faults"][0]["injected"] == 0, "{report:#}");
    let phases = report["phases"].as_array().context("no phases")?;
    ensure!(phases.len() == 1 && phases[0]["phase"] == "baseline", "{phases:#?}");
    let reasons = report["invalid"].to_string();
    ensure!(reasons.contains("activity") && reasons.contains("eligible"), "{reasons}");
    before.ensure_restored(&groups.lab, &[&groups.control, &groups.experiment], controller)?;
    let arguments = groups.spec(gates, "{ loss: { percent: 100%, ports: 9 } }")?.replace("--force ", "");
    let Run { ended, report, .. } = groups.run_under_load(&arguments)?;
    ended.ensure_code(exit::INVALID)?;
    let reasons = report["invalid"].to_string();
    ensure!(reasons.contains("would never fire") && !reasons.contains("activity"), "{reasons}");
    ensure!(report["phases"].as_array().is_some_and(|phases| phases.len() == 1), "{report:#}");
    Ok(())
}

/// To the byte, whatever the verdict is.
fn a_recorded_run_is_judged_the_same_again() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let folder = groups.folder.path().display().to_string();
    let gates = "{ metric: tcp.retrans_ratio, increase: 0.5pp }, { metric: net.tx_bytes, within: 50% }";
    let arguments = groups.spec_of(gates, "{ loss: { percent: 5%, protocol: tcp } }", PULSES)?;
    let arguments = arguments.replace("run ", &format!("run --record {folder}/run.ndjson "));
    let Run { ended, .. } = groups.run_under_load(&arguments)?;
    let again = controller::run(&format!("judge --replay {folder}/run.ndjson --json {folder}/again.json"))?;
    let read = |name: &str| fs::read_to_string(groups.folder.path().join(name));
    let (first, second) = (read("report.json")?, read("again.json")?);
    ensure!(first == second, "the reports differ:\n{first}\n{second}");
    ensure!(again.code == ended.code, "{:?} and {:?}", again.code, ended.code);
    let lines: Vec<String> = read("run.ndjson")?.lines().map(str::to_owned).collect();
    ensure!(lines.len() > 60, "{} lines", lines.len());
    let cut = lines[..lines.len() - 1].join("\n");
    fs::write(groups.folder.path().join("cut.ndjson"), cut)?;
    controller::run(&format!("judge --replay {folder}/cut.ndjson"))?
        .ensure_refused(&["ends before the run did"])
}

/// Nothing is injected, and what comes of it is taken by a run.
fn targets_are_measured_by_themselves() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let before = groups.snapshot()?;
    let folder = groups.folder.path().display().to_string();
    let gates = "{ metric: net.tx_packets, within: 60% }";
    let pulses = "{ design: pulse, pulses: 6, block: 4s, settle: 1s }";
    groups.spec_of(gates, "{ loss: { percent: 100% } }", pulses)?;
    let arguments = format!("calibrate {folder}/spec.yaml --for 56s --out {folder}/baseline.json");
    let kchaos = Running::start(controller::command(&arguments))?;
    let controller = kchaos.pid();
    let ended = groups.under_load(|| kchaos.ended())?;
    ended.ensure_code(exit::OK)?;
    let baseline: Value = serde_json::from_str(&fs::read_to_string(format!("{folder}/baseline.json"))?)?;
    let gate = &baseline["gates"][0];
    ensure!(baseline["schema"] == "kchaos-baseline/1" && gate["metric"] == "net.tx_packets", "{baseline:#}");
    ensure!(gate["runs"].as_u64() >= Some(2) && gate["fail"] == 0, "{baseline:#}");
    ensure!(gate["power"]["pair_sd"].as_f64() > Some(0.0), "{baseline:#}");
    before.ensure_restored(&groups.lab, &[&groups.control, &groups.experiment], controller)?;
    // Streams that lost all their packets would have stopped.
    let short = groups.spec(gates, "{ loss: { percent: 1%, protocol: tcp } }")?;
    let taken = short.replace("run ", &format!("run --baseline {folder}/baseline.json "));
    let Run { report, .. } = groups.run_under_load(&taken)?;
    ensure!(report["faults"][0]["fired"] == "as_asked", "{report:#}");
    let wrong = short.replace("run ", &format!("run --baseline {folder}/spec.yaml "));
    controller::run(&wrong)?.ensure_refused(&["spec.yaml"])
}

/// A run whose limit is broken ends at once, and nothing is lost afterwards.
fn a_limit_ends_a_run() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let before = groups.snapshot()?;
    let gates = "{ metric: net.tx_bytes, decrease: 20% }";
    let abort = "{ metric: tcp.retrans_ratio, above: 2%, for: 1s }";
    let run = format!("{{ baseline: 5s, inject: 40s, recover: 5s, settle: 0s }}\nabort_if: [{abort}]");
    let arguments = groups.spec_of(gates, "{ loss: { percent: 30%, protocol: tcp } }", &run)?;
    let kchaos = Running::start(controller::command(&arguments))?;
    let controller = kchaos.pid();
    let ended = groups.under_load(|| kchaos.ended())?;
    ended.ensure_code(exit::ABORTED)?;
    let report = groups.report(&ended)?;
    ensure!(report["aborted"]["guard"]["guard"].is_string(), "{:#}", report["aborted"]);
    let injected_s = report["phases"][1]["seconds"].as_f64().context("no inject phase")?;
    ensure!(injected_s < 30.0, "it went on for {injected_s} s");
    ensure!(report["guards"][0]["fired"] == true, "{:#}", report["guards"]);
    before.ensure_restored(&groups.lab, &[&groups.control, &groups.experiment], controller)
}

const SHORT: &str = "{ baseline: 6s, inject: 6s, recover: 5s, settle: 0s }";

/// Calls of a class fail and a process is killed while the fault is on, in one group alone.
fn gates_on_calls_and_processes_see_what_happens() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let folder = groups.folder.path();
    let (mut control, mut experiment) =
        (Chores::start(&groups.control, folder)?, Chores::start(&groups.experiment, folder)?);
    let gates = "{ metric: syscall.unexpected_error_ratio, increase: 5pp }, { metric: proc.killed, max: 0 }, \
                 { metric: syscalls.open_stat, within: 60% }, { metric: syscall.error_ratio.other, increase: 5pp }";
    // It counts, and does nothing: what happens is done by us.
    let run = format!("{SHORT}\nabort_if: [{{ processes: ignore }}]");
    let arguments = groups.spec_of(gates, "{ loss: { percent: 1%, protocol: udp } }", &run)?;
    let mut run = || {
        let mut victim = Chores::start(&groups.experiment, folder)?;
        let mut kchaos = Running::start(controller::command(&arguments))?;
        let controller = kchaos.pid();
        kchaos.wait_for("baseline: ")?;
        for second in 0..12 {
            for chores in [&mut control, &mut experiment] {
                chores.do_all(&[("getpriority", 200), ("faccessat", 50)])?;
            }
            if second >= 7 {
                experiment.do_all(&[("close", 100)])?;
            }
            if second == 9 {
                victim.kill()?;
            }
            thread::sleep(Duration::from_millis(900));
        }
        let ended = kchaos.ended()?;
        Ok(Run { report: groups.report(&ended)?, ended, controller })
    };
    let Run { report, .. } = undisturbed(&mut run)?;
    let gate = |metric: &str| {
        let gates = report["gates"].as_array().into_iter().flatten();
        gates.into_iter().find(|gate| gate["metric"] == metric).with_context(|| format!("{report:#}"))
    };
    for metric in ["syscall.unexpected_error_ratio", "syscall.error_ratio.other", "proc.killed"] {
        ensure!(gate(metric)?["verdict"] == "fail", "{metric}: {:#}", gate(metric)?);
    }
    ensure!(gate("syscalls.open_stat")?["verdict"] != "fail", "{:#}", gate("syscalls.open_stat")?);
    let killed = &gate("proc.killed")?["estimate"]["cells"];
    ensure!(killed["experiment_during"] == 1.0 && killed["control_during"] == 0.0, "{killed:#}");
    Ok(())
}

/// A leak while the fault is on, in one group alone.
fn gates_on_memory_see_it_grow() -> anyhow::Result<()> {
    let groups = Groups::new()?;
    let folder = groups.folder.path();
    for group in [&groups.control, &groups.experiment] {
        ensure!(group.dir.join("memory.current").is_file(), "the memory controller is not on for tests");
    }
    let mut leaks = Chores::start(&groups.experiment, folder)?;
    let mut idle = Chores::start(&groups.control, folder)?;
    idle.do_all(&[("hoard", 16 << 20)])?;
    leaks.do_all(&[("hoard", 16 << 20)])?;
    let gates = "{ metric: mem.anon, increase: 50% }, { metric: mem.oom_kills, max: 0 }";
    let arguments = groups.spec_of(gates, "{ loss: { percent: 1%, protocol: udp } }", SHORT)?;
    let mut kchaos = Running::start(controller::command(&arguments))?;
    kchaos.wait_for("inject: ")?;
    leaks.do_all(&[("hoard", 128 << 20)])?;
    let ended = kchaos.ended()?;
    let report = groups.report(&ended)?;
    let gates = &report["gates"];
    ensure!(gates[0]["metric"] == "mem.anon" && gates[0]["verdict"] == "fail", "{gates:#}");
    ensure!(gates[1]["metric"] == "mem.oom_kills" && gates[1]["verdict"] == "pass", "{gates:#}");
    Ok(())
}
