//! Numbered packets from a victim to us, and what became of them.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use statrs::distribution::{Binomial, DiscreteCDF};

use crate::{
    lab::{INSIDE, INSIDE_V6, Lab, OUTSIDE},
    victim::{Answer, Ask, Socket, Victim, program},
};

/// How many packets show whether a way is open or shut.
pub const PROBE: u64 = 200;

/// Numbered packets from a victim to a socket of ours.
pub struct Flow<'a> {
    victim: &'a Victim,
    socket: Socket,
    receiver: UdpSocket,
    next: u64,
}

impl<'a> Flow<'a> {
    /// From a new socket of the victim's to a new one of ours.
    pub fn new(lab: &Lab, victim: &'a Victim) -> anyhow::Result<Self> {
        Self::to(lab, victim, OUTSIDE)
    }

    /// The same, to one of our addresses.
    pub fn to(lab: &Lab, victim: &'a Victim, address: IpAddr) -> anyhow::Result<Self> {
        Self::from_port(lab, victim, address, 0)
    }

    /// The same, from a port of the victim's.
    pub fn from_port(lab: &Lab, victim: &'a Victim, address: IpAddr, port: u16) -> anyhow::Result<Self> {
        let from = if address.is_ipv4() { INSIDE } else { INSIDE_V6 };
        Self::between(victim, SocketAddr::new(from, port), lab.receiver(address)?)
    }

    /// From an address of the victim's to a socket of ours, wherever that is.
    pub fn between(victim: &'a Victim, from: SocketAddr, receiver: UdpSocket) -> anyhow::Result<Self> {
        let socket = victim.udp(from, Some(receiver.local_addr()?))?;
        Ok(Self { victim, socket, receiver, next: 0 })
    }

    /// The victim's socket.
    pub fn socket(&self) -> Socket {
        self.socket
    }

    /// Our port.
    pub fn port(&self) -> anyhow::Result<u16> {
        Ok(self.receiver.local_addr()?.port())
    }

    /// Sends `count` more packets; returns the numbers of those that arrived, counted from 0, in order. The
    /// sender must not have been told of anything.
    pub fn send(&mut self, count: u64) -> anyhow::Result<Vec<u64>> {
        let (first, socket) = (self.next, self.socket);
        self.next += count;
        match self.victim.ask(Ask::SendNumbers { socket, to: None, first, count })? {
            Answer::Refused(refused) if refused.is_empty() => {}
            other => bail!("the sender was told: {other:?}"),
        }
        let arrived: Vec<u64> = program::numbers(&self.receiver)?;
        ensure!(arrived.is_sorted_by(|one, next| one < next), "packets arrived twice or in another order");
        Ok(arrived.into_iter().map(|number| number - first).collect())
    }

    /// How many of `count` more packets arrive, and what the sender was told where a call failed.
    pub fn send_and_hear(&mut self, count: u64) -> anyhow::Result<(u64, Vec<String>)> {
        let (first, socket) = (self.next, self.socket);
        self.next += count;
        match self.victim.ask(Ask::SendNumbers { socket, to: None, first, count })? {
            Answer::Refused(refused) => Ok((program::numbers(&self.receiver)?.len() as u64, refused)),
            other => bail!("expected failures, got {other:?}"),
        }
    }

    /// The same as `send` in trains of `length`, each of which the victim sends by one call and the kernel cuts up.
    pub fn send_trains(&mut self, trains: u64, length: u64) -> anyhow::Result<Vec<u64>> {
        let (first, socket) = (self.next, self.socket);
        self.next += trains * length;
        self.victim.ask(Ask::SendTrains { socket, first, trains, length })?;
        let arrived = program::numbers(&self.receiver)?;
        ensure!(arrived.is_sorted_by(|one, next| one < next), "packets arrived twice or in another order");
        Ok(arrived.into_iter().map(|number| number - first).collect())
    }

    /// Sends `count` packets at an even pace. When each was sent, in nanoseconds of CLOCK_MONOTONIC, and whether it is
    /// lost.
    pub fn paced(&mut self, count: u64, every: Duration) -> anyhow::Result<Vec<(u64, bool)>> {
        let every_us = every.as_micros() as u64;
        match self.victim.ask(Ask::SendTimes { socket: self.socket, count, every_us })? {
            Answer::Numbers(sent) => {
                let arrived = program::numbers(&self.receiver)?;
                Ok(sent.into_iter().map(|time| (time, arrived.binary_search(&time).is_err())).collect())
            }
            other => bail!("expected times, got {other:?}"),
        }
    }

    /// How many of `count` more packets are lost.
    pub fn lost(&mut self, count: u64) -> anyhow::Result<u64> {
        Ok(count - self.send(count)?.len() as u64)
    }

    /// The way is open.
    pub fn is_open(&mut self, when: &str) -> anyhow::Result<()> {
        let lost = self.lost(PROBE)?;
        ensure!(lost == 0, "{when}: {lost} of {PROBE} packets were lost, though none should be");
        Ok(())
    }

    /// The way is open again, once a call has reported what happened before.
    pub fn resumes(&mut self) -> anyhow::Result<()> {
        let send = Ask::SendNumbers { socket: self.socket, to: None, first: self.next, count: 1 };
        self.victim.ask(send)?;
        program::numbers(&self.receiver)?;
        self.next += 1;
        self.is_open("after")
    }

    /// The way opens again in time, counted from `since`.
    pub fn opens_within(&mut self, limit: Duration, since: Instant) -> anyhow::Result<()> {
        loop {
            let asked = since.elapsed();
            if self.lost(1)? == 0 {
                ensure!(asked < limit, "the way opened only after {asked:?}");
                return Ok(());
            }
            ensure!(asked < limit, "the way has not opened within {limit:?}");
        }
    }

    /// The way is shut.
    pub fn is_shut(&mut self, when: &str) -> anyhow::Result<()> {
        let lost = self.lost(PROBE)?;
        ensure!(lost == PROBE, "{when}: only {lost} of {PROBE} packets were lost, though all should be");
        Ok(())
    }
}

/// Numbered packets from us to a victim.
pub struct Inflow<'a> {
    victim: &'a Victim,
    socket: Socket,
    sender: UdpSocket,
    next: u64,
}

impl<'a> Inflow<'a> {
    /// To a port of the victim's.
    pub fn new(lab: &Lab, victim: &'a Victim, port: u16) -> anyhow::Result<Self> {
        let address = SocketAddr::new(INSIDE, port);
        let socket = victim.udp(address, None)?;
        let sender = lab.receiver(OUTSIDE)?;
        sender.connect(address)?;
        Ok(Self { victim, socket, sender, next: 0 })
    }

    /// How many of `count` more packets are lost.
    pub fn lost(&mut self, count: u64) -> anyhow::Result<u64> {
        let first = self.next;
        self.next += count;
        let refused = program::send_numbers(&self.sender, None, first, count);
        ensure!(refused.is_empty(), "the sender was told: {refused:?}");
        match self.victim.ask(Ask::Numbers { socket: self.socket })? {
            Answer::Numbers(arrived) => Ok(count - arrived.len() as u64),
            other => bail!("expected numbers, got {other:?}"),
        }
    }

    /// The way is open.
    pub fn is_open(&mut self, when: &str) -> anyhow::Result<()> {
        let lost = self.lost(PROBE)?;
        ensure!(lost == 0, "{when}: {lost} of {PROBE} packets were lost, though none should be");
        Ok(())
    }
}

/// Measures how many of `count` independent things with chance `chance` happen. A count outside the 99.9 %
/// interval is measured once more: two in a row happen by accident once in a million.
pub fn ensure_binomial(
    what: &str,
    count: u64,
    chance: f64,
    mut measure: impl FnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<()> {
    let distribution = Binomial::new(chance, count)?;
    let expected = distribution.inverse_cdf(0.0005)..=distribution.inverse_cdf(0.9995);
    let first = measure()?;
    if expected.contains(&first) {
        return Ok(());
    }
    let second = measure()?;
    ensure!(expected.contains(&second), "{what}: {first}, then {second} of {count}; expected {expected:?}");
    Ok(())
}
