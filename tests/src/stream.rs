//! A TCP connection from a victim to us.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    lab::{INSIDE, INSIDE_V6, Lab},
    victim::{Ask, Socket, Tcp, Victim, program},
};

/// A TCP connection from a victim to us, who read everything.
pub struct Stream<'a> {
    victim: &'a Victim,
    socket: Socket,
    ours: TcpStream,
}

impl<'a> Stream<'a> {
    /// A new one.
    pub fn new(lab: &Lab, victim: &'a Victim, address: IpAddr) -> anyhow::Result<Self> {
        let from = if address.is_ipv4() { INSIDE } else { INSIDE_V6 };
        let listener = lab.listener(address)?;
        let socket = victim.connect(SocketAddr::new(from, 0), listener.local_addr()?)?;
        let (ours, _) = listener.accept()?;
        program::swallow(ours.try_clone()?);
        Ok(Self { victim, socket, ours })
    }

    /// Sends so much, and waits until all of it has been acknowledged.
    pub fn deliver(&self, bytes: u64) -> anyhow::Result<()> {
        let acked = self.victim.write(self.socket, bytes)?;
        ensure!(acked == bytes, "of {bytes} bytes only {acked} were acknowledged in time");
        Ok(())
    }

    /// Sends so much, and says how much is acknowledged in time of what was not before.
    pub fn offer(&self, bytes: u64, within_ms: u64) -> anyhow::Result<u64> {
        self.victim.count(Ask::Write { socket: self.socket, bytes, within_ms })
    }

    /// Waits until so much has been acknowledged since the beginning.
    pub fn catches_up(&self, bytes: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            // The SYN counts as one.
            let acked = self.sender()?.bytes_acked - 1;
            if acked == bytes {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "of {bytes} bytes only {acked} were acknowledged in time");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The victim's view.
    pub fn sender(&self) -> anyhow::Result<Tcp> {
        self.victim.tcp(self.socket)
    }

    /// Our view.
    pub fn receiver(&self) -> io::Result<Tcp> {
        program::tcp_info(&self.ours)
    }
}
