//! Effects that were planted, and the verdict on them. How large an effect must be to be found is for
//! `cargo xtask bench planted`.

use std::{fs, sync::atomic::Ordering};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Test,
    controller::{self, Running, exit},
    tests,
    toy::{Planted, World, server::Does},
};

pub fn tests() -> Vec<Test> {
    tests![
        EXPERIMENT on any kernel: one_percent_of_errors_fails_its_gate, a_fault_that_nobody_minds_never_fails
    ]
}

/// Few requests, and patience with them: a guest is emulated.
const STEADY: &str = "probes: [{ id: get, http: 'http://{target}:7800/', rate: 100/s, timeout: 2s }], \
                      gates: [{ metric: get.error_ratio, increase: 0.2pp }]";
const PULSES: &str =
    "{ design: pulse, pulses: 6, block: 4s, settle: 1s, baseline: 5s, recover: 8s, seed: 7 }";
const CLIENTS_PER_S: f64 = 20.0;

struct Judged {
    code: Option<i32>,
    report: Value,
}

/// Runs it with what was planted. Doubts whether it can be found do not matter here.
fn judged(planted: Planted) -> anyhow::Result<Judged> {
    let world = World::new(planted, CLIENTS_PER_S, 0)?;
    let [spec, report] = world.spec(STEADY, PULSES)?;
    // From outside, where it can ask both groups.
    let kchaos = controller::command(&format!("run --force --json {report} {spec}"));
    let ended = world.networks.outside.run(|| Running::start(kchaos))??.ended()?;
    let text = fs::read(&report).with_context(|| format!("no report: {}{}", ended.output, ended.said))?;
    // Two ON blocks at most follow one another, of six: it fell silent three times, and came back.
    ensure!(world.told.load(Ordering::Relaxed) >= 6, "the beacon was not silenced");
    Ok(Judged { code: ended.code, report: serde_json::from_slice(&text)? })
}

fn one_percent_of_errors_fails_its_gate() -> anyhow::Result<()> {
    let Judged { code, report } = judged(Planted::new(Does::Errors))?;
    ensure!(report["verdict"] == "fail" && code == Some(exit::FAIL), "{report:#}");
    let gate = &report["gates"][0];
    ensure!(gate["metric"] == "get.error_ratio" && gate["verdict"] == "fail", "{gate:#}");
    let fault = &report["faults"][0];
    ensure!(fault["injected"].as_u64() > Some(100) && fault["control"]["injected"] == 0, "{fault:#}");
    Ok(())
}

fn a_fault_that_nobody_minds_never_fails() -> anyhow::Result<()> {
    let Judged { report, .. } = judged(Planted::NOTHING)?;
    ensure!(report["verdict"] != "fail" && report["gates"][0]["verdict"] != "fail", "{report:#}");
    ensure!(report["faults"][0]["injected"].as_u64() > Some(100), "{report:#}");
    Ok(())
}
