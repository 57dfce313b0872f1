//! What kchaos says about what it does: the kernel's log, `status`, counters.

use anyhow::{Context, ensure};

use crate::{
    Test,
    controller::{self, Running, exit},
    flow::Flow,
    lab::{Cgroup, Lab},
    tests,
    victim::Victim,
};

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on any kernel: status_shows_what_is_running;
        EGRESS on one kernel: kernel_log_shows_each_loss
    ]
}

fn kernel_log_shows_each_loss() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    let arguments = format!("loss --every 10 --kernel-log --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    ensure!(flow.lost(100)? == 10, "--every 10 did not lose 10 of 100");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let records = ended.said.lines().filter(|line| line.contains("rule 0: lost")).count();
    ensure!(records == 10, "{records} of 10 losses were logged: {}", ended.said);
    flow.is_open("after")
}

fn status_shows_what_is_running() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let _victim = Victim::start(&lab, &cgroup)?;
    let kchaos = controller::inject(&format!("loss --percent 3 --on {}", cgroup.target()))?;
    let pid = kchaos.pid();
    let listed = || -> anyhow::Result<Option<serde_json::Value>> {
        let entries = controller::run("status --json")?.json()?;
        let entries = entries.as_array().context("status is no list")?.clone();
        Ok(entries.into_iter().find(|entry| entry["pid"] == pid))
    };
    let entry = listed()?.context("status --json does not list it")?;
    ensure!(entry["alive"] == true && entry["attached"].as_array().is_some_and(|a| !a.is_empty()), "{entry}");
    let id = entry["id"].as_str().context("no id")?;
    let text = controller::run("status")?.output;
    ensure!(text.lines().any(|line| line.contains(id) && line.contains("3")), "{text}");
    let still = controller::run("sweep")?;
    ensure!(still.output.contains(&format!("{id} is still running")), "{}", still.output);
    Running::interrupt(kchaos)?;
    ensure!(listed()?.is_none(), "status still lists it");
    Ok(())
}
