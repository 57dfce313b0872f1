//! Corruption and duplication on a device without link layer, where packets start with their network header.

use anyhow::{Context, ensure};

use crate::{
    Test,
    controller::{self, exit},
    lab::{Cgroup, Lab},
    tests,
    tun::{Datagram, FAR, NEAR, Tun},
    victim::{Answer, Ask, Socket, Victim},
};

pub fn tests() -> Vec<Test> {
    tests![
        TUN on one kernel: corrupt_without_link_layer, duplicate_without_link_layer
    ]
}

const PACKETS: u64 = 50;
const PORTS: [u16; 2] = [7002, 7001];

/// A victim behind a tun, and us at its other end.
struct Behind {
    _lab: Lab,
    cgroup: Cgroup,
    victim: Victim,
    socket: Socket,
    tun: Tun,
}

impl Behind {
    fn new() -> anyhow::Result<Self> {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let tun = Tun::new(&lab.inside)?;
        let victim = Victim::start(&lab, &cgroup)?;
        let socket = victim.udp((NEAR, PORTS[1]).into(), Some((FAR, PORTS[0]).into()))?;
        Ok(Self { _lab: lab, cgroup, victim, socket, tun })
    }

    /// What leaves when the victim sends the numbers from 0.
    fn leaving(&mut self) -> anyhow::Result<Vec<Datagram>> {
        let send = Ask::SendNumbers { socket: self.socket, to: None, first: 0, count: PACKETS };
        match self.victim.ask(send)? {
            Answer::Refused(refused) if refused.is_empty() => Ok(self.tun.datagrams()?),
            other => anyhow::bail!("the sender was told: {other:?}"),
        }
    }

    /// What the victim receives when we send the same.
    fn arriving(&mut self) -> anyhow::Result<Vec<u64>> {
        for number in 0..PACKETS {
            self.tun.send(PORTS, &number.to_be_bytes())?;
        }
        match self.victim.ask(Ask::Numbers { socket: self.socket })? {
            Answer::Numbers(arrived) => Ok(arrived),
            other => anyhow::bail!("expected numbers, got {other:?}"),
        }
    }

    /// What both ways come to while a fault is on.
    fn during(&mut self, fault: &str) -> anyhow::Result<(Vec<Datagram>, Vec<u64>)> {
        let target = self.cgroup.target();
        let kchaos = controller::inject(&format!("{fault} --direction both --on {target}"))?;
        let seen = (self.leaving()?, self.arriving()?);
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        ensure!(ended.outcome("injected")? == 2 * PACKETS, "{}", ended.output);
        Ok(seen)
    }

    /// Nothing is changed and nothing is copied.
    fn is_quiet(&mut self) -> anyhow::Result<()> {
        let left = numbers(&self.leaving()?, true)?;
        let arrived = self.arriving()?;
        let all: Vec<u64> = (0..PACKETS).collect();
        ensure!(left == all && arrived == all, "left: {left:?}, arrived: {arrived:?}");
        Ok(())
    }
}

/// What datagrams carry, all of which have a right checksum or all a wrong one.
fn numbers(datagrams: &[Datagram], fit: bool) -> anyhow::Result<Vec<u64>> {
    let each = |datagram: &Datagram| {
        ensure!(datagram.checksum_fits == fit, "a checksum is not as it should be: {datagram:?}");
        let payload = datagram.payload.as_slice().try_into().context("another length")?;
        Ok(u64::from_be_bytes(payload))
    };
    datagrams.iter().map(each).collect()
}

/// All numbers are there, each with so many bits flipped.
fn ensure_flipped(numbers: &[u64], bits: u32) -> anyhow::Result<()> {
    ensure!(numbers.len() as u64 == PACKETS, "{} of {PACKETS} packets: {numbers:?}", numbers.len());
    let flipped = (0..).zip(numbers).all(|(sent, arrived): (u64, _)| (sent ^ arrived).count_ones() == bits);
    ensure!(flipped, "not all have {bits} bits flipped: {numbers:x?}");
    Ok(())
}

fn corrupt_without_link_layer() -> anyhow::Result<()> {
    let mut behind = Behind::new()?;
    behind.is_quiet()?;
    let (left, arrived) = behind.during("corrupt --percent 100 --bits 5")?;
    ensure_flipped(&numbers(&left, true)?, 5).context("leaving")?;
    ensure_flipped(&arrived, 5).context("arriving")?;
    let (left, arrived) = behind.during("corrupt --percent 100 --bits 5 --checksum break")?;
    ensure_flipped(&numbers(&left, false)?, 5).context("leaving")?;
    ensure!(arrived.is_empty(), "arrived in spite of a wrong checksum: {arrived:?}");
    behind.is_quiet()
}

fn duplicate_without_link_layer() -> anyhow::Result<()> {
    let mut behind = Behind::new()?;
    behind.is_quiet()?;
    let (left, arrived) = behind.during("duplicate --percent 100 --copies 2")?;
    let thrice: Vec<u64> = (0..PACKETS).flat_map(|number| [number; 3]).collect();
    ensure!(numbers(&left, true)? == thrice, "leaving: {left:?}");
    let mut sorted = arrived.clone();
    sorted.sort_unstable();
    ensure!(sorted == thrice, "arriving: {arrived:?}");
    behind.is_quiet()
}
