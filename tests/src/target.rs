//! Whom: what is covered by a target, and what is refused.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{bail, ensure};
use kchaos::target::{Netns, address::address_among};

use crate::{
    Test,
    controller::{self, exit},
    flow::Flow,
    lab::{Cgroup, INSIDE, Lab, OUTSIDE},
    snapshot::Snapshot,
    tests,
    victim::{Answer, Ask, Victim, program},
};

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: targets_at_two_depths_are_both_hit, a_process_stands_for_its_cgroup,
            protected_targets_can_be_insisted_on, a_cgroup_made_later_below_the_target_is_hit,
            a_cgroup_beside_the_target_is_spared, a_child_started_later_is_hit;
        EGRESS on any kernel: protected_targets_are_refused_by_name, the_root_and_our_own_cgroup_are_refused,
            targets_that_are_not_there_are_refused, overlapping_groups_are_refused,
            a_target_is_asked_at_its_own_address
    ]
}

const PACKETS: u64 = 100;

/// How many packets of a new child of the victim's arrive.
fn arrive_from_child(lab: &Lab, victim: &Victim, cgroup: Option<PathBuf>) -> anyhow::Result<u64> {
    let receiver = lab.receiver(OUTSIDE)?;
    let open = Ask::Udp { bind: SocketAddr::new(INSIDE, 0), peer: Some(receiver.local_addr()?) };
    let send = Ask::SendNumbers { socket: 0, to: None, first: 0, count: PACKETS };
    match victim.ask(Ask::InChild { cgroup, asks: vec![open, send] })? {
        Answer::Child(answers) if matches!(&answers[..], [_, Answer::Refused(none)] if none.is_empty()) => {}
        other => bail!("the child could not send: {other:?}"),
    }
    Ok(program::numbers(&receiver)?.len() as u64)
}

fn a_child_started_later_is_hit() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    ensure!(arrive_from_child(&lab, &victim, None)? == PACKETS, "lost before anything is injected");
    let kchaos = controller::inject(&format!("loss --percent 100 --on {}", cgroup.target()))?;
    let arrived = arrive_from_child(&lab, &victim, None)?;
    ensure!(arrived == 0, "{arrived} packets of a child arrived");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    ensure!(arrive_from_child(&lab, &victim, None)? == PACKETS, "lost afterwards");
    Ok(())
}

fn a_cgroup_made_later_below_the_target_is_hit() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let kchaos = controller::inject(&format!("loss --percent 100 --on {}", cgroup.target()))?;
    let below = cgroup.below("later")?;
    let arrived = arrive_from_child(&lab, &victim, Some(below.clone()))?;
    ensure!(arrived == 0, "{arrived} packets from below the target arrived");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    ensure!(arrive_from_child(&lab, &victim, Some(below))? == PACKETS, "lost afterwards");
    Ok(())
}

fn a_cgroup_beside_the_target_is_spared() -> anyhow::Result<()> {
    let (lab, cgroup, beside) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &beside)?);
    let (mut hit, mut spared) = (Flow::new(&lab, &victim)?, Flow::new(&lab, &neighbour)?);
    hit.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 --on {}", cgroup.target()))?;
    hit.is_shut("during")?;
    spared.is_open("during")?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.json()?["eligible"] == 200, "others' packets were counted: {}", ended.output);
    hit.is_open("after")
}

fn targets_at_two_depths_are_both_hit() -> anyhow::Result<()> {
    let (lab, high, around) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let low = around.below("low")?;
    let [first, second, third] =
        [Victim::start(&lab, &high)?, Victim::start(&lab, &around)?, Victim::start(&lab, &around)?];
    fs::write(low.join("cgroup.procs"), second.pid.to_string())?;
    let (mut first, mut second) = (Flow::new(&lab, &first)?, Flow::new(&lab, &second)?);
    let mut spared = Flow::new(&lab, &third)?;
    first.is_open("before")?;
    second.is_open("before")?;
    let on = format!("--on {} --on {}/low", high.target(), around.target());
    let kchaos = controller::inject(&format!("loss --percent 100 {on}"))?;
    first.is_shut("during, high")?;
    second.is_shut("during, low")?;
    spared.is_open("during, between")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    first.is_open("after")?;
    second.is_open("after")
}

fn a_process_stands_for_its_cgroup() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let (victim, other) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &cgroup)?);
    let (mut named, mut beside) = (Flow::new(&lab, &victim)?, Flow::new(&lab, &other)?);
    named.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 --on pid:{}", victim.pid))?;
    named.is_shut("during")?;
    beside.is_shut("during")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    named.is_open("after")
}

const PROTECTED: [(&str, &str); 4] =
    [("sshd", "sshd"), ("dockerd", "runtime"), ("containerd", "runtime"), ("kubelet", "kubelet")];

/// Nothing is attached, and the way to insist is named.
fn protected_targets_are_refused_by_name() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    for (name, kind) in PROTECTED {
        victim.ask(Ask::Rename { name: name.into() })?;
        let refused = controller::run(&format!("inject loss --percent 100 --on {}", cgroup.target()))?;
        refused.ensure_refused(&["is refused", name, &format!("--allow-target {kind}")])?;
        let wrong = if kind == "sshd" { "runtime" } else { "sshd" };
        let arguments = format!("inject loss --percent 100 --on {} --allow-target {wrong}", cgroup.target());
        controller::run(&arguments)?.ensure_refused(&["is refused"])?;
    }
    flow.is_open("after four refusals")?;
    ensure!(before == Snapshot::take(&lab, &[&cgroup])?, "something was attached");
    Ok(())
}

fn protected_targets_can_be_insisted_on() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    victim.ask(Ask::Rename { name: "sshd".into() })?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let arguments = format!("loss --percent 100 --on {} --allow-target sshd", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    flow.is_shut("during")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    flow.is_open("after")
}

fn the_root_and_our_own_cgroup_are_refused() -> anyhow::Result<()> {
    let root = controller::run("inject loss --percent 100 --on cgroup:/")?;
    root.ensure_refused(&["is refused", "the whole host", "--allow-target root"])?;
    let cgroup = Cgroup::new()?;
    let inside = controller::run_in(&cgroup, &format!("inject loss --percent 100 --on {}", cgroup.target()))?;
    inside.ensure_refused(&["is refused", "kchaos itself", "--allow-target own"])
}

fn targets_that_are_not_there_are_refused() -> anyhow::Result<()> {
    let empty = Cgroup::new()?;
    let dead = {
        let lab = Lab::new()?;
        let cgroup = Cgroup::new()?;
        Victim::start(&lab, &cgroup)?.pid
    };
    for (target, words) in [
        (empty.target(), "no process runs in"),
        ("cgroup:/kchaos-test-nowhere".into(), "there is no cgroup"),
        (format!("pid:{dead}"), "there is no such process"),
        ("docker:kchaos-test-nobody".into(), "docker:kchaos-test-nobody: "),
        ("nonsense".into(), "does not say what kind of target"),
    ] {
        controller::run(&format!("inject loss --percent 100 --on {target}"))?.ensure_refused(&[words])?;
    }
    Ok(())
}

fn overlapping_groups_are_refused() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let arguments = format!("inject loss --percent 100 --on {} --on pid:{}", cgroup.target(), victim.pid);
    controller::run(&arguments)?.ensure_refused(&["overlap"])
}

fn a_target_is_asked_at_its_own_address() -> anyhow::Result<()> {
    let (lab, unconnected) = (Lab::new()?, Netns::create()?);
    ensure!(address_among(&[&lab.inside])? == Some(INSIDE), "{:?}", address_among(&[&lab.inside])?);
    ensure!(address_among(&[&lab.outside])? == Some(OUTSIDE), "{:?}", address_among(&[&lab.outside])?);
    ensure!(address_among(&[&unconnected])?.is_none(), "{:?}", address_among(&[&unconnected])?);
    ensure!(address_among(&[&unconnected, &lab.inside])? == Some(INSIDE), "the first that has one");
    Ok(())
}
