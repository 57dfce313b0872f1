//! Numbered packets between a victim and us, either way.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{bail, ensure};
use chaos_common::net::Direction;

use crate::{
    lab::{INSIDE, INSIDE_V6, Lab},
    victim::{Answer, Ask, Socket, Victim, program},
};

/// Numbered packets between a victim and us, 8 bytes each.
pub struct Numbers<'a> {
    victim: &'a Victim,
    socket: Socket,
    ours: UdpSocket,
    next: u64,
}

impl<'a> Numbers<'a> {
    /// Between a new socket of the victim's and one of ours.
    pub fn new(lab: &Lab, victim: &'a Victim, address: IpAddr) -> anyhow::Result<Self> {
        const PORT: u16 = 7001;
        let ours = lab.receiver(address)?;
        let inside = SocketAddr::new(if address.is_ipv4() { INSIDE } else { INSIDE_V6 }, PORT);
        let socket = victim.udp(inside, Some(ours.local_addr()?))?;
        ours.connect(inside)?;
        Ok(Self { victim, socket, ours, next: 0 })
    }

    /// The victim's socket.
    pub fn socket(&self) -> Socket {
        self.socket
    }

    /// The number of the next packet.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Sends `count` more one way, seen from the victim; returns what arrived, in that order. The sender must not
    /// have been told of anything.
    pub fn arrived(&mut self, way: Direction, count: u64) -> anyhow::Result<Vec<u64>> {
        let (first, socket) = (self.next, self.socket);
        self.next += count;
        let refused = match way {
            Direction::Ingress => program::send_numbers(&self.ours, None, first, count),
            Direction::Egress => {
                match self.victim.ask(Ask::SendNumbers { socket, to: None, first, count })? {
                    Answer::Refused(refused) => refused,
                    other => bail!("expected refusals, got {other:?}"),
                }
            }
        };
        ensure!(refused.is_empty(), "the sender was told: {refused:?}");
        match way {
            Direction::Egress => Ok(program::numbers(&self.ours)?),
            Direction::Ingress => match self.victim.ask(Ask::Numbers { socket })? {
                Answer::Numbers(arrived) => Ok(arrived),
                other => bail!("expected numbers, got {other:?}"),
            },
        }
    }

    /// The same where all of them arrive: what was sent, and what of it arrived. Nothing overtakes anything, so the
    /// n-th that arrives is the n-th that was sent.
    pub fn send(&mut self, way: Direction, count: u64) -> anyhow::Result<Vec<(u64, u64)>> {
        let first = self.next;
        let arrived = self.arrived(way, count)?;
        ensure!(arrived.len() as u64 == count, "{} of {count} packets arrived", arrived.len());
        Ok((first..).zip(arrived).collect())
    }
}
