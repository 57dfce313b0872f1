//! How long packets take between a victim and us.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail, ensure};
use chaos_common::net::Direction;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

use crate::{
    lab::{INSIDE, INSIDE_V6, Lab},
    victim::{Answer, Ask, Socket, Victim, program},
};

/// How long one look for a packet takes.
const POLL: Duration = Duration::from_millis(20);

/// One packet that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its number, from 0.
    pub number: u64,
    /// How long it took, from the call that sent it to the device that received it.
    pub lag_ms: f64,
    /// When it arrived, by a clock that all arrivals have in common.
    pub at_ms: f64,
}

/// Numbered packets between a victim and a socket of ours, each with the time at which it was sent.
pub struct Lags<'a> {
    victim: &'a Victim,
    way: Direction,
    /// The victim's socket.
    pub socket: Socket,
    ours: UdpSocket,
    next: u64,
    /// How late timers fired here while packets were last sent, half of the time at least: on a busy machine, or in a
    /// guest that is emulated, nothing that waits for a time is on time.
    pub timers_late_ms: f64,
}

impl<'a> Lags<'a> {
    /// From a new socket of the victim's to a new one of ours.
    pub fn to(lab: &Lab, victim: &'a Victim, address: IpAddr) -> anyhow::Result<Self> {
        let ours = lab.receiver(address)?;
        // The kernel says when each arrived, however late we look.
        stamp(&ours)?;
        let from = if address.is_ipv4() { INSIDE } else { INSIDE_V6 };
        let socket = victim.udp(SocketAddr::new(from, 0), Some(ours.local_addr()?))?;
        Ok(Self { victim, way: Direction::Egress, socket, ours, next: 0, timers_late_ms: 0.0 })
    }

    /// To a new socket of the victim's from a new one of ours.
    pub fn from(lab: &Lab, victim: &'a Victim, address: IpAddr) -> anyhow::Result<Self> {
        static PORT: AtomicU16 = AtomicU16::new(20_000);
        let ours = lab.receiver(address)?;
        let inside = if address.is_ipv4() { INSIDE } else { INSIDE_V6 };
        let to = SocketAddr::new(inside, PORT.fetch_add(1, Ordering::Relaxed));
        let socket = victim.udp(to, Some(ours.local_addr()?))?;
        victim.ask(Ask::Stamp { socket })?;
        ours.connect(to)?;
        Ok(Self { victim, way: Direction::Ingress, socket, ours, next: 0, timers_late_ms: 0.0 })
    }

    /// How many it has sent.
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// Our port.
    pub fn port(&self) -> anyhow::Result<u16> {
        Ok(self.ours.local_addr()?.port())
    }

    /// Sends `count` packets, one each `gap`, and waits for them until nothing has come for `quiet`. The sender must
    /// not have been told of anything.
    pub fn send(&mut self, count: u64, gap: Duration, quiet: Duration) -> anyhow::Result<Vec<Arrival>> {
        let first = self.next;
        self.next += count;
        let sent = AtomicBool::new(false);
        let arrived = thread::scope(|scope| {
            let clock = scope.spawn(|| timer_lateness_ms(&sent));
            let arrived = match self.way {
                Direction::Egress => self.leave(first, count, gap, quiet, &sent),
                Direction::Ingress => self.arrive(first, count, gap, quiet, &sent),
            };
            sent.store(true, Ordering::Relaxed);
            self.timers_late_ms = clock.join().map_err(|_| anyhow!("sleeping panicked"))?;
            arrived
        })?;
        // What was late for an earlier question is not for this one.
        let own = arrived.into_iter().filter(|[number, ..]| (first..first + count).contains(number));
        Ok(own.map(|[number, sent_ns, at_ns]| Arrival::new(number - first, sent_ns, at_ns)).collect())
    }

    fn leave(
        &self,
        first: u64,
        count: u64,
        gap: Duration,
        quiet: Duration,
        sent: &AtomicBool,
    ) -> anyhow::Result<Vec<[u64; 3]>> {
        let gap_us = gap.as_micros() as u64;
        thread::scope(|scope| {
            let receiver = scope.spawn(|| arrivals_until(&self.ours, first, count, quiet, sent));
            let answer = self.victim.ask(Ask::SendStamped { socket: self.socket, first, count, gap_us });
            sent.store(true, Ordering::Relaxed);
            let arrived = receiver.join().map_err(|_| anyhow!("receiving panicked"))?;
            match answer? {
                Answer::Refused(refused) if refused.is_empty() => Ok(arrived?),
                other => bail!("the sender was told: {other:?}"),
            }
        })
    }

    /// The kernel keeps what arrives until the victim looks.
    fn arrive(
        &self,
        first: u64,
        count: u64,
        gap: Duration,
        quiet: Duration,
        sent: &AtomicBool,
    ) -> anyhow::Result<Vec<[u64; 3]>> {
        let refused = program::send_stamped(&self.ours, first, count, gap);
        sent.store(true, Ordering::Relaxed);
        ensure!(refused.is_empty(), "the sender was told: {refused:?}");
        let (socket, quiet_ms) = (self.socket, quiet.as_millis() as u64);
        match self.victim.ask(Ask::Arrivals { socket, first, count, quiet_ms })? {
            Answer::Arrivals(arrived) => Ok(arrived),
            other => bail!("expected arrivals, got {other:?}"),
        }
    }

    /// How long `count` packets take, of which none must be lost.
    pub fn all(&mut self, count: u64, gap: Duration, quiet: Duration) -> anyhow::Result<Vec<Arrival>> {
        let arrivals = self.send(count, gap, quiet)?;
        ensure!(arrivals.len() as u64 == count, "only {} of {count} packets arrived", arrivals.len());
        Ok(arrivals)
    }
}

/// Sleeps until everything is sent, again and again, and says how late it mostly woke up.
fn timer_lateness_ms(sent: &AtomicBool) -> f64 {
    const SLEEP: Duration = Duration::from_millis(10);
    let mut late = vec![0.0];
    while !sent.load(Ordering::Relaxed) {
        let start = Instant::now();
        thread::sleep(SLEEP);
        late.push((start.elapsed() - SLEEP).as_secs_f64() * 1e3);
    }
    late.sort_by(f64::total_cmp);
    late[late.len() / 2]
}

impl Arrival {
    fn new(number: u64, sent_ns: u64, at_ns: u64) -> Self {
        Self { number, lag_ms: (at_ns as f64 - sent_ns as f64) / 1e6, at_ms: at_ns as f64 / 1e6 }
    }
}

/// Has the kernel say when packets arrive.
pub fn stamp(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &true)?)
}

/// What arrives of `count` packets from number `first` on, until it is quiet: its number, when it was sent, and when it
/// arrived.
pub fn arrivals(socket: &UdpSocket, first: u64, count: u64, quiet: Duration) -> io::Result<Vec<[u64; 3]>> {
    arrivals_until(socket, first, count, quiet, &AtomicBool::new(true))
}

/// The same; it is not quiet before everything is `sent`.
fn arrivals_until(
    socket: &UdpSocket,
    first: u64,
    count: u64,
    quiet: Duration,
    sent: &AtomicBool,
) -> io::Result<Vec<[u64; 3]>> {
    socket.set_read_timeout(Some(POLL))?;
    let mut arrivals = Vec::new();
    let mut last = Instant::now();
    while (arrivals.len() as u64) < count && (!sent.load(Ordering::Relaxed) || last.elapsed() < quiet) {
        if !sent.load(Ordering::Relaxed) {
            last = Instant::now();
        }
        let Some((packet, at_ns)) = receive(socket)? else { continue };
        last = Instant::now();
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| packet[at + byte]));
        if word(0) >= first {
            arrivals.push([word(0), word(8), at_ns]);
        }
    }
    Ok(arrivals)
}

/// A packet, and when it arrived in nanoseconds since 1970.
fn receive(socket: &UdpSocket) -> io::Result<Option<([u8; 16], u64)>> {
    let mut packet = [0; 16];
    let mut control = nix::cmsg_space!(libc::timespec);
    let mut buffers = [IoSliceMut::new(&mut packet)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::empty());
    let stamp = match received {
        Err(nix::errno::Errno::EAGAIN) => return Ok(None),
        received => received?.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
            _ => None,
        }),
    };
    let stamp = stamp.ok_or_else(|| io::Error::other("the kernel has not said when a packet arrived"))?;
    Ok(Some((packet, stamp.tv_sec() as u64 * 1_000_000_000 + stamp.tv_nsec() as u64)))
}

/// Measures until it comes out right: a machine that is busy makes everything late, but not always.
pub fn in_a_quiet_moment<T>(mut measure: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    const ATTEMPTS: u32 = 4;
    for _ in 1..ATTEMPTS {
        match measure() {
            Err(error) => println!("once more: {error:#}"),
            right => return right,
        }
        thread::sleep(Duration::from_millis(500));
    }
    measure()
}

/// The lags alone, in order of arrival.
pub fn lags(arrivals: &[Arrival]) -> Vec<f64> {
    arrivals.iter().map(|arrival| arrival.lag_ms).collect()
}

/// The middle one: a busy machine delays some packets, but not half of them.
pub fn median(arrivals: &[Arrival]) -> f64 {
    let mut lags = lags(arrivals);
    lags.sort_by(f64::total_cmp);
    lags[lags.len() / 2]
}

/// Mean and standard deviation.
pub fn spread(arrivals: &[Arrival]) -> (f64, f64) {
    let (lags, count) = (lags(arrivals), arrivals.len() as f64);
    let mean = lags.iter().sum::<f64>() / count;
    let variance = lags.iter().map(|lag| (lag - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// Whether they arrived in the order they were sent in.
pub fn in_order(arrivals: &[Arrival]) -> bool {
    arrivals.is_sorted_by_key(|arrival| arrival.number)
}
