//! Corruption and checksums: mended, the changed payload reaches the application; broken, the receiver's stack
//! discards the packet, and the application never sees it.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use chaos_common::net::Direction;
use kchaos::target::Netns;

use super::{numbers::Numbers, zeros::Zeros};
use crate::{
    Test,
    controller::{self, exit},
    lab::{Cgroup, Lab, OUTSIDE, OUTSIDE_V6},
    offload::{self, Offload},
    tests,
    victim::Victim,
};

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: corrupt_with_a_mended_checksum_reaches_the_application, corrupt_with_a_broken_checksum_loses_datagrams,
            corrupt_leaves_segments_without_payload_alone,
            corrupt_with_a_broken_checksum_never_reaches_the_application
    ]
}

const BYTES: u64 = 2 << 20;

/// What the devices at both ends leave to each other.
const OFFLOADS: [&[Offload]; 3] = [
    // Packets of 64 KiB with no checksum yet: what a veth does by itself.
    &[],
    // One packet for each segment, with no checksum yet.
    &[Offload::Segmentation],
    // One packet for each segment, with its checksum.
    &[Offload::Segmentation, Offload::Checksums],
];

const WAYS: [(Direction, &str); 2] = [(Direction::Egress, "egress"), (Direction::Ingress, "ingress")];

/// Runs a test for each way and each kind of packet, and for both versions of IP.
fn everywhere(test: impl Fn(&Lab, &str, Direction, IpAddr) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for without in OFFLOADS {
        let lab = Lab::new()?;
        offload::turn_off(&lab, without)?;
        for (way, name) in WAYS {
            // What devices leave to each other is the same for both.
            let addresses = if without.is_empty() { &[OUTSIDE, OUTSIDE_V6][..] } else { &[OUTSIDE] };
            for address in addresses {
                test(&lab, name, way, *address)
                    .with_context(|| format!("{name} {address} without {without:?}"))?;
            }
        }
    }
    Ok(())
}

/// TCP notices nothing: as many bytes arrive as were sent, of which as many bits as were flipped are others.
fn corrupt_with_a_mended_checksum_reaches_the_application() -> anyhow::Result<()> {
    const BITS: u64 = 3;
    everywhere(|lab, direction, way, address| {
        let cgroup = Cgroup::new()?;
        let victim = Victim::start(lab, &cgroup)?;
        let zeros = Zeros::new(lab, &victim, address)?;
        ensure!(zeros.send(way, BYTES)? == 0, "bits are flipped before anything is injected");
        let (errors, before) = (checksum_errors(lab)?, zeros.sender(way)?.retransmitted);
        let kchaos = controller::inject(&format!(
            "corrupt --every 5 --bits {BITS} --direction {direction} --on {}",
            cgroup.target()
        ))?;
        let flipped = zeros.send(way, BYTES)?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        let (injected, again) = (ended.outcome("injected")?, zeros.sender(way)?.retransmitted - before);
        ensure!(checksum_errors(lab)? == errors, "the receiver found wrong checksums");
        // What is sent again although it has arrived is corrupted as well, and not looked at.
        let (most, unseen) = (injected * BITS, u64::from(again) * BITS);
        ensure!(
            (most.saturating_sub(unseen)..=most).contains(&flipped) && flipped > 0,
            "{flipped} bits arrived flipped, {injected} packets were changed, {again} segments sent again"
        );
        ensure!(zeros.send(way, BYTES)? == 0, "bits are flipped afterwards");
        Ok(())
    })
}

/// Everything arrives as it was sent, after having been sent again.
fn corrupt_with_a_broken_checksum_never_reaches_the_application() -> anyhow::Result<()> {
    everywhere(|lab, direction, way, address| {
        let cgroup = Cgroup::new()?;
        let victim = Victim::start(lab, &cgroup)?;
        let zeros = Zeros::new(lab, &victim, address)?;
        ensure!(zeros.send(way, BYTES)? == 0, "bits are flipped before anything is injected");
        let (errors, before) = (checksum_errors(lab)?, zeros.sender(way)?.retransmitted);
        let kchaos = controller::inject(&format!(
            "corrupt --every 8 --bits 2 --checksum break --direction {direction} --on {}",
            cgroup.target()
        ))?;
        let flipped = zeros.send(way, BYTES)?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        let (injected, again) = (ended.outcome("injected")?, zeros.sender(way)?.retransmitted - before);
        let errors = checksum_errors(lab)? - errors;
        ensure!(flipped == 0, "{flipped} flipped bits reached the application");
        ensure!(
            injected > 0 && errors == injected,
            "{injected} packets broken, {errors} wrong checksums found"
        );
        ensure!(u64::from(again) >= injected, "{injected} packets broken, {again} segments sent again");
        ensure!(zeros.send(way, BYTES)? == 0, "bits are flipped afterwards");
        Ok(())
    })
}

/// Datagrams as short as they get.
fn corrupt_with_a_broken_checksum_loses_datagrams() -> anyhow::Result<()> {
    const PACKETS: u64 = 150;
    everywhere(|lab, direction, way, address| {
        let cgroup = Cgroup::new()?;
        let victim = Victim::start(lab, &cgroup)?;
        let mut numbers = Numbers::new(lab, &victim, address)?;
        ensure!(numbers.arrived(way, PACKETS)?.len() as u64 == PACKETS, "lost before anything is injected");
        let errors = checksum_errors(lab)?;
        let kchaos = controller::inject(&format!(
            "corrupt --every 3 --checksum break --direction {direction} --on {}",
            cgroup.target()
        ))?;
        let first = numbers.next();
        let arrived = numbers.arrived(way, PACKETS)?;
        let ended = kchaos.interrupt()?;
        let (injected, errors) = (ended.outcome("injected")?, checksum_errors(lab)? - errors);
        let expected: Vec<u64> = (first..first + PACKETS).filter(|n| (n - first) % 3 != 2).collect();
        ensure!(arrived == expected, "other datagrams arrived than those that were spared");
        ensure!((injected, errors) == (PACKETS / 3, PACKETS / 3), "{injected} broken, {errors} errors");
        ensure!(numbers.arrived(way, PACKETS)?.len() as u64 == PACKETS, "lost afterwards");
        Ok(())
    })
}

/// Acknowledgements have nothing in them to change, and do not count.
fn corrupt_leaves_segments_without_payload_alone() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let zeros = Zeros::new(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("corrupt --percent 100 --on {}", cgroup.target()))?;
    ensure!(zeros.send(Direction::Ingress, BYTES)? == 0, "bits were flipped the other way");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::INVALID)?;
    ensure!(ended.outcome("filtered")? > 0 && ended.json()?["eligible"] == 0, "{}", ended.output);
    Ok(())
}

/// Wrong checksums that the stacks of both ends have found, of TCP and UDP, IPv4 and IPv6.
fn checksum_errors(lab: &Lab) -> anyhow::Result<u64> {
    Ok(checksum_errors_in(&lab.inside)? + checksum_errors_in(&lab.outside)?)
}

fn checksum_errors_in(netns: &Netns) -> anyhow::Result<u64> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let (v4, v6) = netns.run(|| Ok::<_, std::io::Error>((read("snmp")?, read("snmp6")?)))??;
    let mut errors = 0;
    for protocol in ["Tcp:", "Udp:"] {
        let mut lines = v4.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let found = names.split_whitespace().zip(values.split_whitespace());
        let value = found.filter(|(name, _)| *name == "InCsumErrors").map(|(_, value)| value);
        errors += value.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    }
    let udp6 =
        v6.lines().find_map(|line| line.strip_prefix("Udp6InCsumErrors")).context("Udp6InCsumErrors")?;
    Ok(errors + udp6.trim().parse::<u64>()?)
}
