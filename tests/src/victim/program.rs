//! The victim's side: requests in, answers out, until there are no more.

use std::{
    fs,
    io::{self, BufRead, Read, Write},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kchaos::target::Netns;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, getsockopt,
        setsockopt, socket, sockopt,
    },
    unistd::Pid,
};

use super::{Answer, Ask, Tcp, Victim, resolve::resolve};
use crate::{calls::stage, lag};

/// So many packets, then a pause: faster than any test needs, slower than any queue on the way overflows.
const BURST: u64 = 32;
const PAUSE: Duration = Duration::from_millis(1);
/// When nothing has arrived for so long, nothing will: the wire has no delay.
pub const QUIET: Duration = Duration::from_millis(150);
/// Holds every packet that a test sends before anybody reads them.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;
/// More than TCP needs to send something again.
const READ_WITHIN: Duration = Duration::from_secs(20);
const ECHO_WITHIN: Duration = Duration::from_millis(200);

enum Socket {
    Udp(UdpSocket),
    Listener(TcpListener),
    Stream(TcpStream),
}

/// Both ends of a wire on the same CPU: what is sent from two overtakes itself, and TCP takes that for loss.
pub fn stay_on_one_cpu() {
    let current = Pid::from_raw(0);
    let one = || -> nix::Result<()> {
        let allowed = sched_getaffinity(current)?;
        let mut one = CpuSet::new();
        let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        one.set(first.unwrap_or(0))?;
        sched_setaffinity(current, &one)
    };
    if let Err(error) = one() {
        eprintln!("staying on one CPU: {error}");
    }
}

/// Answers until standard input ends.
pub fn main() -> ExitCode {
    stay_on_one_cpu();
    let mut sockets = Vec::new();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let answer = serde_json::from_str(&line)
            .map_err(io::Error::other)
            .and_then(|ask| perform(&mut sockets, ask))
            .map_err(|error| error.to_string());
        let Ok(text) = serde_json::to_string(&answer) else { break };
        if writeln!(io::stdout(), "{text}").is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn perform(sockets: &mut Vec<Socket>, ask: Ask) -> io::Result<Answer> {
    let mut keep = |socket| {
        sockets.push(socket);
        Ok(Answer::Socket(sockets.len() - 1))
    };
    match ask {
        Ask::Udp { bind, peer } => keep(Socket::Udp(udp_socket(bind, peer)?)),
        Ask::Listen { bind } => keep(Socket::Listener(TcpListener::bind(bind)?)),
        Ask::Connect { bind, to, within_ms } => {
            keep(Socket::Stream(tcp_connect(bind, to, Duration::from_millis(within_ms))?))
        }
        Ask::Accept { listener } => {
            let (stream, _) = match &sockets[listener] {
                Socket::Listener(listener) => listener.accept()?,
                _ => return Err(not_a("listener")),
            };
            swallow(stream.try_clone()?);
            sockets.push(Socket::Stream(stream));
            Ok(Answer::Socket(sockets.len() - 1))
        }
        Ask::SendNumbers { socket, to, first, count } => {
            Ok(Answer::Refused(send_numbers(udp(sockets, socket)?, to, first, count)))
        }
        Ask::SendDatagram { socket, bytes } => {
            udp(sockets, socket)?.send(&vec![b'?'; bytes]).map(|_| Answer::Done)
        }
        Ask::SendStamped { socket, first, count, gap_us } => Ok(Answer::Refused(send_stamped(
            udp(sockets, socket)?,
            first,
            count,
            Duration::from_micros(gap_us),
        ))),
        Ask::Mark { socket, mark } => {
            setsockopt(udp(sockets, socket)?, sockopt::Mark, &mark)?;
            Ok(Answer::Done)
        }
        Ask::Priority { socket, priority } => {
            setsockopt(udp(sockets, socket)?, sockopt::Priority, &priority)?;
            Ok(Answer::Done)
        }
        Ask::SendTrains { socket, first, trains, length } => {
            send_trains(udp(sockets, socket)?, first, trains, length).map(|()| Answer::Done)
        }
        Ask::SendTimes { socket, count, every_us } => {
            let every = Duration::from_micros(every_us);
            send_times(udp(sockets, socket)?, count, every).map(Answer::Numbers)
        }
        Ask::Numbers { socket } => numbers(udp(sockets, socket)?).map(Answer::Numbers),
        Ask::Stamp { socket } => lag::stamp(udp(sockets, socket)?).map(|()| Answer::Done),
        Ask::Arrivals { socket, first, count, quiet_ms } => {
            let quiet = Duration::from_millis(quiet_ms);
            lag::arrivals(udp(sockets, socket)?, first, count, quiet).map(Answer::Arrivals)
        }
        Ask::NoChecksums { socket } => no_checksums(udp(sockets, socket)?).map(|()| Answer::Done),
        Ask::ErrorQueue { socket } => error_queue(udp(sockets, socket)?).map(Answer::Count),
        Ask::Write { socket, bytes, within_ms } => {
            write(stream(sockets, socket)?, bytes, Duration::from_millis(within_ms)).map(Answer::Count)
        }
        Ask::ReadZeros { socket, bytes } => {
            let stream = stream(sockets, socket)?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(READ_WITHIN))?;
            read_zeros(stream, bytes).map(Answer::Count)
        }
        Ask::Tcp { socket } => tcp_info(stream(sockets, socket)?).map(Answer::Tcp),
        Ask::Ping { to, count } => ping(to, count).map(Answer::Count),
        Ask::Try { call, times } => {
            Ok(Answer::Errnos((0..times).map(|_| call.perform()).collect::<io::Result<_>>()?))
        }
        Ask::Hear { socket, within_ms } => {
            hear(stream(sockets, socket)?, Duration::from_millis(within_ms)).map(Answer::End)
        }
        Ask::Resolve { question, within_ms } => {
            resolve(&question, Duration::from_millis(within_ms)).map(Answer::Resolved)
        }
        Ask::Rename { name } => fs::write("/proc/self/comm", name).map(|()| Answer::Done),
        Ask::Act(making) => stage::perform(&making).map(Answer::Made),
        Ask::InChild { cgroup, asks } => in_child(cgroup.as_deref(), asks).map(Answer::Child),
    }
}

fn not_a(kind: &str) -> io::Error {
    io::Error::other(format!("not a {kind}"))
}

fn udp(sockets: &[Socket], number: usize) -> io::Result<&UdpSocket> {
    match sockets.get(number) {
        Some(Socket::Udp(socket)) => Ok(socket),
        _ => Err(not_a("UDP socket")),
    }
}

fn stream(sockets: &mut [Socket], number: usize) -> io::Result<&mut TcpStream> {
    match sockets.get_mut(number) {
        Some(Socket::Stream(stream)) => Ok(stream),
        _ => Err(not_a("connection")),
    }
}

fn udp_socket(bind: SocketAddr, peer: Option<SocketAddr>) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(bind)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
    // Errors that the network reports go to a queue, and to the next call.
    match bind {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    if let Some(peer) = peer {
        socket.connect(peer)?;
    }
    Ok(socket)
}

/// Sends all of them whatever happens, and returns what was said where that failed.
pub fn send_numbers(socket: &UdpSocket, to: Option<SocketAddr>, first: u64, count: u64) -> Vec<String> {
    let mut failures = Vec::new();
    for number in first..first + count {
        let packet = number.to_be_bytes();
        let sent = match to {
            Some(to) => socket.send_to(&packet, to),
            None => socket.send(&packet),
        };
        if let Err(error) = sent {
            failures.push(format!("packet {number}: {error}"));
        }
        if number % BURST == 0 {
            thread::sleep(PAUSE);
        }
    }
    failures
}

/// The same, each with the time at which it is sent, at even distances.
pub fn send_stamped(socket: &UdpSocket, first: u64, count: u64, gap: Duration) -> Vec<String> {
    let mut failures = Vec::new();
    let start = Instant::now();
    for number in 0..count {
        if !gap.is_zero() {
            thread::sleep((gap * number as u32).saturating_sub(start.elapsed()));
        }
        let packet = [(first + number).to_be_bytes(), realtime_ns().to_be_bytes()].concat();
        if let Err(error) = socket.send(&packet) {
            failures.push(format!("packet {number}: {error}"));
        }
    }
    failures
}

/// The clock by which the kernel stamps what arrives.
fn realtime_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn send_trains(socket: &UdpSocket, first: u64, trains: u64, length: u64) -> io::Result<()> {
    const NUMBER_BYTES: i32 = size_of::<u64>() as i32;
    setsockopt(socket, sockopt::UdpGsoSegment, &NUMBER_BYTES)?;
    for train in 0..trains {
        let begin = first + train * length;
        let numbers: Vec<u8> = (begin..begin + length).flat_map(u64::to_be_bytes).collect();
        socket.send(&numbers)?;
        if train % (BURST / length).max(1) == 0 {
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Late packets do not make later ones late: each has its time.
fn send_times(socket: &UdpSocket, count: u64, every: Duration) -> io::Result<Vec<u64>> {
    let start = Instant::now();
    let mut times = Vec::new();
    for number in 0..count {
        thread::sleep((every * number as u32).saturating_sub(start.elapsed()));
        let now_ns = kchaos::kernel::monotonic_ns();
        socket.send(&now_ns.to_be_bytes())?;
        times.push(now_ns);
    }
    Ok(times)
}

/// Every number that has arrived, and those that arrive until it is quiet.
pub fn numbers(socket: &UdpSocket) -> io::Result<Vec<u64>> {
    socket.set_read_timeout(Some(QUIET))?;
    let mut numbers = Vec::new();
    let mut packet = [0; size_of::<u64>()];
    loop {
        match socket.recv(&mut packet) {
            Ok(_) => numbers.push(u64::from_be_bytes(packet)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(numbers),
            Err(error) => return Err(error),
        }
    }
}

/// No crate has this option.
fn no_checksums(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is as long as it says.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            length,
        )
    };
    Errno::result(result)?;
    Ok(())
}

fn error_queue(socket: &UdpSocket) -> io::Result<u64> {
    let mut errors = 0;
    let mut buffer = [0_u8; 64];
    loop {
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the buffer is as long as it says.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
        match Errno::result(got) {
            Ok(_) => errors += 1,
            Err(Errno::EAGAIN) => return Ok(errors),
            Err(error) => return Err(error.into()),
        }
    }
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn tcp_connect(local: SocketAddr, to: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family(to), SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    if !becomes(&fd, PollFlags::POLLOUT, within)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let error = getsockopt(&fd, sockopt::SocketError)?;
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok(TcpStream::from(fd))
}

/// Reads whatever comes, until the peer is gone.
pub fn swallow(mut stream: TcpStream) {
    const BLOCK_BYTES: usize = 1 << 20;
    thread::spawn(move || {
        stay_on_one_cpu();
        let mut block = vec![0; BLOCK_BYTES];
        while !matches!(stream.read(&mut block), Ok(0) | Err(_)) {}
    });
}

/// How a connection ends in time: 0 for in peace, or an errno; `None` if it does not.
pub fn hear(stream: &mut TcpStream, within: Duration) -> io::Result<Option<i32>> {
    let deadline = Instant::now() + within;
    stream.set_nonblocking(true)?;
    let end = loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => break Some(0),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !becomes(&*stream, PollFlags::POLLIN, left)? {
                    break None;
                }
            }
            Err(error) => break Some(error.raw_os_error().ok_or(error)?),
        }
    };
    stream.set_nonblocking(false)?;
    Ok(end)
}

/// Reads so many bytes; says how many of their bits are not 0.
pub fn read_zeros(stream: &mut impl Read, bytes: u64) -> io::Result<u64> {
    const BLOCK_BYTES: u64 = 64 << 10;
    let mut block = vec![0; BLOCK_BYTES as usize];
    let (mut left, mut flipped) = (bytes, 0);
    while left > 0 {
        let got = stream.read(&mut block[..left.min(BLOCK_BYTES) as usize])?;
        if got == 0 {
            return Err(io::Error::other(format!("it ended {left} bytes early")));
        }
        flipped += block[..got].iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        left -= got as u64;
    }
    Ok(flipped)
}

/// Whether it becomes ready in time.
fn becomes(fd: &impl AsFd, flags: PollFlags, within: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut [PollFd::new(fd.as_fd(), flags)], timeout)? > 0)
}

/// Writes, waits until the peer has acknowledged all of it, and returns how much it has acknowledged.
pub fn write(stream: &mut TcpStream, bytes: u64, within: Duration) -> io::Result<u64> {
    let deadline = Instant::now() + within;
    let before = tcp_info(stream)?.bytes_acked;
    let block = [0_u8; 64 << 10];
    let mut written = 0;
    stream.set_nonblocking(true)?;
    while written < bytes && Instant::now() < deadline {
        let wanted = block.len().min((bytes - written) as usize);
        match stream.write(&block[..wanted]) {
            Ok(count) => written += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                becomes(&*stream, PollFlags::POLLOUT, deadline.saturating_duration_since(Instant::now()))?;
            }
            Err(error) => return Err(error),
        }
    }
    loop {
        let acked = tcp_info(stream)?.bytes_acked - before;
        if acked >= written || Instant::now() > deadline {
            return Ok(acked);
        }
        thread::sleep(PAUSE);
    }
}

/// `struct tcp_info` (include/uapi/linux/tcp.h, 6.18), of which libc knows only the beginning.
pub fn tcp_info(stream: &TcpStream) -> io::Result<Tcp> {
    const BYTES: usize = 240;
    let mut info = MaybeUninit::<[u8; BYTES]>::zeroed();
    let mut length = BYTES as libc::socklen_t;
    // SAFETY: the buffer is as long as it says; a shorter struct leaves zeros behind it.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    Errno::result(result)?;
    // SAFETY: zeroed, so every byte is initialised.
    let info = unsafe { info.assume_init() };
    let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    let long = |at: usize| {
        let low_first = cfg!(target_endian = "little");
        let (low, high) = if low_first { (word(at), word(at + 4)) } else { (word(at + 4), word(at)) };
        u64::from(low) | (u64::from(high) << 32)
    };
    Ok(Tcp {
        retransmitted: word(100),
        bytes_acked: long(120),
        segments_out: word(136),
        data_segments_out: word(156),
        out_of_order: word(224),
    })
}

fn ping(to: SocketAddr, count: u64) -> io::Result<u64> {
    let protocol = if to.is_ipv4() { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
    let fd = socket(family(to), SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to.ip(), 0)))?;
    let mut socket = fs::File::from(fd);
    let mut answered = 0;
    for number in 0..count {
        socket.write_all(&echo_request(to.ip(), number as u16))?;
        if echoed(&mut socket, to.ip(), number as u16)? {
            answered += 1;
        }
    }
    Ok(answered)
}

const ECHO_REQUEST: [u8; 2] = [8, 128];
const ECHO_REPLY: [u8; 2] = [0, 129];

/// An echo request without data (RFC 792, RFC 4443). The kernel makes the checksum of ICMPv6.
fn echo_request(to: IpAddr, number: u16) -> [u8; 8] {
    let [high, low] = number.to_be_bytes();
    let [id_high, id_low] = (std::process::id() as u16).to_be_bytes();
    let mut packet = [ECHO_REQUEST[usize::from(to.is_ipv6())], 0, 0, 0, id_high, id_low, high, low];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}

fn echoed(socket: &mut fs::File, to: IpAddr, number: u16) -> io::Result<bool> {
    let deadline = Instant::now() + ECHO_WITHIN;
    let mut packet = [0; 256];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !becomes(&*socket, PollFlags::POLLIN, left)? {
            return Ok(false);
        }
        let length = socket.read(&mut packet)?;
        // A raw IPv4 socket hands over the IP header as well.
        let header = if to.is_ipv4() { usize::from(packet[0] & 0x0f) * 4 } else { 0 };
        let icmp = packet.get(header..length).unwrap_or_default();
        let expected = echo_request(to, number);
        if icmp.len() >= 8 && icmp[0] == ECHO_REPLY[usize::from(to.is_ipv6())] && icmp[4..8] == expected[4..8]
        {
            return Ok(true);
        }
    }
}

/// A child has our cgroup, unless it gets another.
fn in_child(cgroup: Option<&Path>, asks: Vec<Ask>) -> io::Result<Vec<Answer>> {
    let child = Victim::start_in(&Netns::current()?, cgroup).map_err(io::Error::other)?;
    asks.into_iter().map(|ask| child.ask(ask).map_err(io::Error::other)).collect()
}
