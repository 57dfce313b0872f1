//! Corruption: which bits are flipped, and that each flipped bit reaches the application.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::Duration,
};

use anyhow::{bail, ensure};
use chaos_common::net::Direction;
use nix::sys::signal::Signal;

use super::numbers::Numbers;
use crate::{
    Test,
    controller::{self, exit},
    flow::ensure_binomial,
    lab::{self, Cgroup, INSIDE, Lab, OUTSIDE, OUTSIDE_V6},
    tests,
    tun::{FAR, Tun},
    victim::{Answer, Ask, Victim, program},
};

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS: corrupt_flips_bits_of_what_leaves;
        EGRESS on one kernel: corrupt_by_clsact_does_the_same, corrupt_keeps_to_its_bytes_of_the_payload,
            corrupt_with_a_seed_flips_the_same_bits_again, corrupt_leaves_datagrams_without_a_checksum_without,
            corrupt_in_a_dry_run_is_only_counted, corrupt_ends_when_the_controller_is_stopped,
            corrupt_hits_its_share_and_spares_a_neighbour, corrupt_flips_bits_of_what_arrives;
        TUN on one kernel: corrupt_spares_what_is_only_forwarded
    ]
}

/// How many packets arrived changed, each of them by so many bits.
fn changed(pairs: &[(u64, u64)], bits: u32) -> anyhow::Result<u64> {
    let changed: Vec<u32> =
        pairs.iter().map(|(sent, arrived)| (sent ^ arrived).count_ones()).filter(|bits| *bits > 0).collect();
    ensure!(changed.iter().all(|flipped| *flipped == bits), "not all have {bits} bits flipped: {changed:?}");
    Ok(changed.len() as u64)
}

/// All of what goes one way arrives unchanged before and after, and all of it changed during.
fn flips(options: &str, way: Direction, address: IpAddr, bits: u32) -> anyhow::Result<()> {
    const PACKETS: u64 = 500;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, address)?;
    ensure!(changed(&numbers.send(way, PACKETS)?, 0)? == 0);
    let kchaos = controller::inject(&format!("corrupt --percent 100 {options} --on {}", cgroup.target()))?;
    let during = changed(&numbers.send(way, PACKETS)?, bits)?;
    ensure!(during == PACKETS, "{during} of {PACKETS} were changed");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("injected")? == PACKETS, "{}", ended.output);
    ensure!(changed(&numbers.send(way, PACKETS)?, 0)? == 0);
    Ok(())
}

fn corrupt_flips_bits_of_what_leaves() -> anyhow::Result<()> {
    flips("", Direction::Egress, OUTSIDE, 1)?;
    flips("--bits 64", Direction::Egress, OUTSIDE, 64)?;
    flips("--bits 7", Direction::Egress, OUTSIDE_V6, 7)
}

fn corrupt_flips_bits_of_what_arrives() -> anyhow::Result<()> {
    flips("--direction ingress", Direction::Ingress, OUTSIDE, 1)?;
    flips("--direction ingress --bits 7", Direction::Ingress, OUTSIDE_V6, 7)?;
    flips("--direction both --bits 3", Direction::Ingress, OUTSIDE, 3)
}

fn corrupt_by_clsact_does_the_same() -> anyhow::Result<()> {
    flips("--mechanism clsact-egress", Direction::Egress, OUTSIDE, 1)?;
    flips("--direction ingress --mechanism clsact-ingress", Direction::Ingress, OUTSIDE_V6, 1)
}

/// Two cgroups send and receive through one device; one of them is hit, each way in a run of its own.
fn corrupt_hits_its_share_and_spares_a_neighbour() -> anyhow::Result<()> {
    const PACKETS: u64 = 2_000;
    for (direction, way) in [("egress", Direction::Egress), ("ingress", Direction::Ingress)] {
        let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
        let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
        let (mut hurt, mut spared) =
            (Numbers::new(&lab, &victim, OUTSIDE)?, Numbers::new(&lab, &neighbour, OUTSIDE_V6)?);
        let arguments = format!("corrupt --percent 30 --direction {direction} --on {}", cgroup.target());
        let kchaos = controller::inject(&arguments)?;
        let mut all = 0;
        ensure_binomial("packets changed", PACKETS, 0.3, || {
            let changed = changed(&hurt.send(way, PACKETS)?, 1)?;
            all += changed;
            Ok(changed)
        })?;
        ensure!(changed(&spared.send(way, PACKETS)?, 0)? == 0, "the neighbour's were changed");
        let ended = kchaos.interrupt()?;
        ensure!(ended.outcome("injected")? == all, "{all} were changed: {}", ended.output);
    }
    Ok(())
}

/// Packets whose payload has no such byte are not asked about.
fn corrupt_keeps_to_its_bytes_of_the_payload() -> anyhow::Result<()> {
    const PACKETS: u64 = 200;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
    for (offset, mask) in [("0..1", 0xffff << 48), ("7", 0xff), ("6..", 0xffff)] {
        let arguments = format!("corrupt --percent 100 --bits 2 --offset {offset} --on {}", cgroup.target());
        let kchaos = controller::inject(&arguments)?;
        let pairs = numbers.send(Direction::Egress, PACKETS)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        ensure!(changed(&pairs, 2)? == PACKETS, "--offset {offset} did not change all");
        let elsewhere = pairs.iter().any(|(sent, arrived)| (sent ^ arrived) & !mask != 0);
        ensure!(!elsewhere, "--offset {offset} changed other bytes: {pairs:x?}");
    }
    let arguments = format!("corrupt --percent 100 --offset 8.. --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    ensure!(changed(&numbers.send(Direction::Egress, PACKETS)?, 0)? == 0);
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::INVALID)?;
    ensure!(ended.outcome("filtered")? == PACKETS, "{}", ended.output);
    Ok(())
}

fn corrupt_with_a_seed_flips_the_same_bits_again() -> anyhow::Result<()> {
    let arrived = |seed| -> anyhow::Result<Vec<(u64, u64)>> {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
        let arguments = format!("corrupt --percent 50 --bits 3 --seed {seed} --on {}", cgroup.target());
        let kchaos = controller::inject(&arguments)?;
        let pairs = numbers.send(Direction::Egress, 300)?;
        kchaos.interrupt()?;
        Ok(pairs)
    };
    let first = arrived(42)?;
    ensure!(arrived(42)? == first, "the same seed flipped other bits");
    ensure!(arrived(43)? != first, "another seed flipped the same bits");
    Ok(())
}

/// 0 says that there is none, and it stays so: what arrives is not verified.
fn corrupt_leaves_datagrams_without_a_checksum_without() -> anyhow::Result<()> {
    const PACKETS: u64 = 200;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
    victim.ask(Ask::NoChecksums { socket: numbers.socket() })?;
    let kchaos = controller::inject(&format!("corrupt --percent 100 --on {}", cgroup.target()))?;
    let during = changed(&numbers.send(Direction::Egress, PACKETS)?, 1)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    ensure!(during == PACKETS, "{during} of {PACKETS} were changed");
    Ok(())
}

fn corrupt_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    const PACKETS: u64 = 200;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
    let arguments = format!("corrupt --percent 100 --direction both --dry-run --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    ensure!(
        changed(&numbers.send(Direction::Egress, PACKETS)?, 0)?
            + changed(&numbers.send(Direction::Ingress, PACKETS)?, 0)?
            == 0
    );
    let ended = kchaos.interrupt()?;
    let (would, injected) = (ended.outcome("dry_run")?, ended.outcome("injected")?);
    ensure!((would, injected) == (2 * PACKETS, 0), "{}", ended.output);
    Ok(())
}

/// A stopped controller renews no lease.
fn corrupt_ends_when_the_controller_is_stopped() -> anyhow::Result<()> {
    const PACKETS: u64 = 100;
    /// The lease, and what it takes to notice that it has run out.
    const WITHIN: Duration = Duration::from_secs(4);
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
    let arguments = format!("corrupt --percent 100 --direction both --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    let mut changed_each_way = || -> anyhow::Result<[u64; 2]> {
        let mut one = |way| changed(&numbers.send(way, PACKETS)?, 1);
        Ok([one(Direction::Egress)?, one(Direction::Ingress)?])
    };
    ensure!(changed_each_way()? == [PACKETS; 2], "not all were changed");
    kchaos.signal(Signal::SIGSTOP)?;
    thread::sleep(WITHIN);
    ensure!(changed_each_way()? == [0; 2], "some were changed without a lease");
    kchaos.signal(Signal::SIGCONT)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    ensure!(changed_each_way()? == [0; 2], "some were changed afterwards");
    Ok(())
}

/// The victim listens on all addresses, so it would get the packet if it were not for somebody behind this host.
fn corrupt_spares_what_is_only_forwarded() -> anyhow::Result<()> {
    const PACKETS: u64 = 50;
    const PORT: u16 = 7001;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let mut behind = Tun::new(&lab.inside)?;
    lab.inside.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
    lab::run_in(&lab.outside, &format!("ip route add {FAR} via {INSIDE}"))?;
    let victim = Victim::start(&lab, &cgroup)?;
    let socket = victim.udp((Ipv4Addr::UNSPECIFIED, PORT).into(), None)?;
    let ours = lab.receiver(OUTSIDE)?;
    let send = |to: IpAddr| {
        let refused = program::send_numbers(&ours, Some((to, PORT).into()), 0, PACKETS);
        ensure!(refused.is_empty(), "the sender was told: {refused:?}");
        Ok(())
    };
    let arguments = format!("corrupt --percent 100 --direction ingress --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    send(FAR.into())?;
    let forwarded = behind.datagrams()?;
    send(INSIDE)?;
    let Answer::Numbers(own) = victim.ask(Ask::Numbers { socket })? else { bail!("expected numbers") };
    let ended = kchaos.interrupt()?;
    let sent: Vec<[u8; 8]> = (0..PACKETS).map(u64::to_be_bytes).collect();
    ensure!(forwarded.iter().map(|datagram| &datagram.payload[..]).eq(&sent), "forwarded: {forwarded:?}");
    let own: Vec<(u64, u64)> = (0..).zip(own).collect();
    ensure!(changed(&own, 1)? == PACKETS, "not all of the victim's own were changed");
    ensure!((ended.outcome("injected")?, ended.outcome("filtered")?) == (PACKETS, 0), "{}", ended.output);
    Ok(())
}
