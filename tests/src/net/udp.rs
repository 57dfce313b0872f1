//! Loss as UDP sees it.

use anyhow::ensure;

use crate::{
    Test,
    controller::{self, exit},
    flow::{Flow, Inflow, ensure_binomial},
    lab::{Cgroup, Lab},
    tests,
    victim::{Ask, Victim},
};

const PACKETS: u64 = 4_000;

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS: loss_of_everything_on_egress;
        EGRESS on one kernel: loss_of_nothing_on_egress, loss_of_1_percent_on_egress,
            loss_is_told_to_the_sender_if_asked_for, loss_is_not_told_to_the_sender,
            loss_of_30_percent_on_egress;
        INGRESS: loss_of_everything_on_ingress;
        INGRESS on one kernel: loss_of_30_percent_on_ingress
    ]
}

fn loss_of_nothing_on_egress() -> anyhow::Result<()> {
    egress(0)
}

fn loss_of_1_percent_on_egress() -> anyhow::Result<()> {
    egress(1)
}

fn loss_of_30_percent_on_egress() -> anyhow::Result<()> {
    egress(30)
}

fn loss_of_everything_on_egress() -> anyhow::Result<()> {
    egress(100)
}

fn loss_of_30_percent_on_ingress() -> anyhow::Result<()> {
    ingress(30)
}

fn loss_of_everything_on_ingress() -> anyhow::Result<()> {
    ingress(100)
}

fn egress(percent: u32) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    ensure!(flow.lost(PACKETS)? == 0, "packets are lost before anything is injected");
    takes(percent, &format!("loss --percent {percent} --on {}", cgroup.target()), || flow.lost(PACKETS))?;
    ensure!(flow.lost(PACKETS)? == 0, "packets are lost afterwards");
    Ok(())
}

fn ingress(percent: u32) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Inflow::new(&lab, &victim, 7001)?;
    ensure!(flow.lost(PACKETS)? == 0, "packets are lost before anything is injected");
    let arguments = format!("loss --percent {percent} --direction ingress --on {}", cgroup.target());
    takes(percent, &arguments, || flow.lost(PACKETS))?;
    ensure!(flow.lost(PACKETS)? == 0, "packets are lost afterwards");
    Ok(())
}

/// The receiver misses as many as a coin of that kind would take, and the report says exactly how many.
fn takes(percent: u32, arguments: &str, mut lost: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<()> {
    let (mut all_sent, mut all_lost) = (0, 0);
    let kchaos = controller::inject(arguments)?;
    ensure_binomial("packets lost", PACKETS, f64::from(percent) / 100.0, || {
        let lost = lost()?;
        (all_sent, all_lost) = (all_sent + PACKETS, all_lost + lost);
        Ok(lost)
    })?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(if percent == 0 { exit::INVALID } else { exit::OK })?;
    let (injected, spared) = (ended.outcome("injected")?, ended.outcome("chance")?);
    ensure!(
        (injected, spared) == (all_lost, all_sent - all_lost),
        "reported {injected} lost and {spared} spared; {all_lost} of {all_sent} were missed"
    );
    Ok(())
}

/// Neither a call fails nor does the socket's error queue fill: the packet was sent, and got lost.
fn loss_is_not_told_to_the_sender() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 --on {}", cgroup.target()))?;
    flow.is_shut("during")?; // an error of any call would fail this
    let errors = victim.count(Ask::ErrorQueue { socket: flow.socket() })?;
    ensure!(errors == 0, "{errors} errors in the sender's queue");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    flow.is_open("after")
}

/// Each packet lost is one call that fails, for whoever has asked for errors; and no other.
fn loss_is_told_to_the_sender_if_asked_for() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let arguments = format!("loss --percent 30 --visibility local --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    let (arrived, told) = flow.send_and_hear(PACKETS)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let lost = PACKETS - arrived;
    let injected = ended.outcome("injected")?;
    ensure!(
        lost > 0 && (told.len() as u64, injected) == (lost, lost),
        "{lost} lost, {injected} counted, {} calls failed",
        told.len()
    );
    ensure!(told.iter().all(|told| told.contains("No buffer space")), "told otherwise: {:?}", told[0]);
    flow.is_open("after")
}
