//! A TCP connection that carries nothing but zeros, so that each bit that is not 0 has been flipped on the way.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, ensure};
use chaos_common::net::Direction;

use crate::{
    lab::{INSIDE, INSIDE_V6, Lab},
    victim::{Ask, Socket, Tcp, Victim, program},
};

const WITHIN: Duration = Duration::from_secs(30);

/// A connection between a victim and us.
pub struct Zeros<'a> {
    victim: &'a Victim,
    socket: Socket,
    ours: TcpStream,
}

impl<'a> Zeros<'a> {
    /// A new one.
    pub fn new(lab: &Lab, victim: &'a Victim, address: IpAddr) -> anyhow::Result<Self> {
        let from = if address.is_ipv4() { INSIDE } else { INSIDE_V6 };
        let listener = lab.listener(address)?;
        let socket = victim.connect(SocketAddr::new(from, 0), listener.local_addr()?)?;
        let (ours, _) = listener.accept()?;
        ours.set_read_timeout(Some(WITHIN))?;
        ours.set_write_timeout(Some(WITHIN))?;
        Ok(Self { victim, socket, ours })
    }

    /// Sends so many bytes one way, seen from the victim, all of which arrive; says how many bits of them were
    /// flipped.
    pub fn send(&self, way: Direction, bytes: u64) -> anyhow::Result<u64> {
        match way {
            Direction::Egress => self.leaving(bytes),
            Direction::Ingress => self.arriving(bytes),
        }
    }

    fn leaving(&self, bytes: u64) -> anyhow::Result<u64> {
        thread::scope(|scope| {
            let reader = scope.spawn(|| program::read_zeros(&mut &self.ours, bytes));
            let acked = self.victim.write(self.socket, bytes)?;
            ensure!(acked == bytes, "of {bytes} bytes only {acked} were acknowledged in time");
            reader.join().map_err(|_| anyhow!("reading panicked"))?.context("reading what the victim sent")
        })
    }

    fn arriving(&self, bytes: u64) -> anyhow::Result<u64> {
        thread::scope(|scope| {
            let writer = scope.spawn(|| (&self.ours).write_all(&vec![0; bytes as usize]));
            let flipped = self.victim.count(Ask::ReadZeros { socket: self.socket, bytes })?;
            writer.join().map_err(|_| anyhow!("writing panicked"))?.context("sending to the victim")?;
            Ok(flipped)
        })
    }

    /// How TCP is doing at the sender.
    pub fn sender(&self, way: Direction) -> anyhow::Result<Tcp> {
        match way {
            Direction::Egress => self.victim.tcp(self.socket),
            Direction::Ingress => Ok(program::tcp_info(&self.ours)?),
        }
    }
}
