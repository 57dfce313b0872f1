//! Loss as TCP sees it.

use std::{net::SocketAddr, thread};

use anyhow::{Context, anyhow, ensure};

use crate::{
    Test,
    controller::{self, Ended, exit},
    foreign::Foreign,
    lab::{Cgroup, INSIDE, Lab, OUTSIDE},
    stream::Stream,
    tests,
    victim::{Ask, Victim},
};

const BYTES: u64 = 16 << 20;
/// An answer that is late because the machine is busy makes TCP send a segment again though nothing is lost
/// (tail loss probe, RFC 8985).
pub const PROBES: u32 = 3;

pub fn tests() -> Vec<Test> {
    tests![
        TCX on one kernel: loss_is_silent_where_a_drop_is_not;
        EGRESS on one kernel: loss_makes_tcp_retransmit_and_spares_a_neighbour
    ]
}

/// Two cgroups send through one device at the same time; one of them loses packets.
fn loss_makes_tcp_retransmit_and_spares_a_neighbour() -> anyhow::Result<()> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    let (hurt, spared) = (Stream::new(&lab, &victim, OUTSIDE)?, Stream::new(&lab, &neighbour, OUTSIDE)?);
    let both = || {
        thread::scope(|scope| {
            let neighbour = scope.spawn(|| spared.deliver(BYTES));
            hurt.deliver(BYTES)?;
            neighbour.join().map_err(|_| anyhow!("delivering panicked"))?
        })
    };
    both()?;
    let before = hurt.sender()?.retransmitted;
    ensure!(before <= PROBES, "{before} segments are sent again before anything is injected");
    let kchaos = controller::inject(&format!("loss --percent 5 --on {}", cgroup.target()))?;
    both()?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let during = hurt.sender()?.retransmitted;
    let lost = ended.outcome("injected")?;
    ensure!(
        lost > 0 && u64::from(during) >= lost,
        "{lost} packets lost, but only {during} segments sent again"
    );
    ensure!(hurt.receiver()?.out_of_order > 0, "the receiver has seen no gap");
    both()?;
    let after = hurt.sender()?.retransmitted - during;
    ensure!(after <= PROBES, "{after} segments are sent again afterwards");
    let neighbours = spared.sender()?.retransmitted;
    ensure!(neighbours <= PROBES, "the neighbour had to send {neighbours} segments again");
    ensure!(spared.receiver()?.out_of_order == 0, "something of the neighbour's got lost on the way");
    Ok(())
}

/// Each `NTH` buffer of some segments is lost. Silently lost, it leaves a gap, and its segments are sent again
/// one by one, whether it was lost at the sender's device or in front of the receiver. Dropped so that the
/// sender is told, it just stays in the sender's queue as if it had not been sent at all.
fn loss_is_silent_where_a_drop_is_not() -> anyhow::Result<()> {
    let (silently, gaps) = lost_leaving("wire")?;
    ensure!(gaps > 0, "the receiver has seen no gap");
    let lost_arriving = lost_arriving()?;
    let (told, _) = lost_leaving("local")?;
    let dropped = dropped()?;
    let seen = format!(
        "{silently:.1} lost leaving, {lost_arriving:.1} lost arriving, {told:.1} with the sender told, \
         {dropped:.1} dropped by somebody else"
    );
    println!("segments sent again for each buffer: {seen}");
    // Some 20 to 45 segments each, against a few in the unlucky drop that breaks a train of segments.
    let alike = (1.0 / 3.0..3.0).contains(&(silently / lost_arriving));
    let otherwise = silently > 3.0 * told && silently > 3.0 * dropped;
    ensure!(alike && otherwise, "segments sent again for each buffer: {seen}");
    Ok(())
}

const NTH: u64 = 50;
/// More connections even out how long the trains are that get broken.
const CONNECTIONS: u32 = 3;

/// How many segments are sent again for each buffer lost, and how many gaps the receiver has seen.
fn lost_leaving(visibility: &str) -> anyhow::Result<(f64, u32)> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let arguments = format!("loss --every {NTH} --visibility {visibility} --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    let (mut again, mut gaps) = (0, 0);
    for _ in 0..CONNECTIONS {
        let stream = Stream::new(&lab, &victim, OUTSIDE)?;
        stream.deliver(BYTES)?;
        again += stream.sender()?.retransmitted;
        gaps += stream.receiver()?.out_of_order;
    }
    Ok((f64::from(again) / injected(&kchaos.interrupt()?)?, gaps))
}

fn lost_arriving() -> anyhow::Result<f64> {
    let (lab, senders, receivers) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let sender = Victim::start(&lab, &senders)?;
    let receiver = Victim::start_in(&lab.outside, Some(&receivers.dir))?;
    let address = SocketAddr::new(OUTSIDE, 7001);
    let listener = receiver.socket(Ask::Listen { bind: address })?;
    let arguments = format!("loss --every {NTH} --direction ingress --on {}", receivers.target());
    let kchaos = controller::inject(&arguments)?;
    let mut again = 0;
    for _ in 0..CONNECTIONS {
        let socket = sender.connect(SocketAddr::new(INSIDE, 0), address)?;
        receiver.socket(Ask::Accept { listener })?;
        ensure!(sender.write(socket, BYTES)? == BYTES, "not everything was acknowledged in time");
        again += sender.tcp(socket)?.retransmitted;
    }
    Ok(f64::from(again) / injected(&kchaos.interrupt()?)?)
}

/// How many were lost, which must be the share asked for.
fn injected(ended: &Ended) -> anyhow::Result<f64> {
    ended.ensure_code(exit::OK)?;
    let eligible = ended.json()?["eligible"].as_u64().context("no count of those eligible")?;
    let injected = ended.outcome("injected")?;
    ensure!(injected == eligible / NTH, "{injected} of {eligible} were lost, though each {NTH}th should be");
    Ok(injected as f64)
}

fn dropped() -> anyhow::Result<f64> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut foreign = Foreign::dropping(NTH as i32)?;
    foreign.attach_tcx(&lab.inside)?;
    let mut again = 0;
    for _ in 0..CONNECTIONS {
        let stream = Stream::new(&lab, &victim, OUTSIDE)?;
        stream.deliver(BYTES)?;
        again += stream.sender()?.retransmitted;
    }
    let dropped = foreign.seen()? / NTH;
    ensure!(dropped > 0, "nothing was dropped");
    Ok(f64::from(again) / dropped as f64)
}
