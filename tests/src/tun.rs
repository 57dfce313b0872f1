//! A device without link layer, of which we are the other end: what is sent through it we read, byte by byte.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    time::{Duration, Instant},
};

use anyhow::Context;
use kchaos::target::{Netns, netns::with_netlink};
use nix::{
    errno::Errno,
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use tempfile::TempDir;

use crate::lab;

/// The device.
pub const NAME: &str = "kct-tun";
/// Its address.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 107, 2, 1);
/// An address behind it: ours.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 107, 2, 2);

/// The other end.
pub struct Tun(File);

impl Tun {
    /// A new one in a namespace.
    pub fn new(netns: &Netns) -> anyhow::Result<Self> {
        let file = netns.run(open)?.context("a tun device")?;
        netns
            .run(|| with_netlink(async |handle| lab::bring_up(&handle, NAME, &[IpAddr::V4(NEAR)]).await))??;
        Ok(Self(file))
    }

    /// Reads the UDP datagrams over IPv4 that come until it is quiet.
    pub fn datagrams(&mut self) -> io::Result<Vec<Datagram>> {
        const QUIET: Duration = Duration::from_millis(300);
        let (mut datagrams, mut packet) = (Vec::new(), [0; 2048]);
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            match self.0.read(&mut packet) {
                Ok(length) => {
                    last = Instant::now();
                    datagrams.extend(Datagram::parse(&packet[..length]));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(datagrams)
    }

    /// Sends one towards the device.
    pub fn send(&mut self, ports: [u16; 2], payload: &[u8]) -> io::Result<()> {
        self.0.write_all(&Datagram::make(FAR, NEAR, ports, payload))
    }
}

/// A UDP datagram over IPv4, as it was on the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Behind the UDP header.
    pub payload: Vec<u8>,
    /// Whether its checksum is right.
    pub checksum_fits: bool,
}

impl Datagram {
    /// `None` for other packets (RFC 791, RFC 768).
    fn parse(packet: &[u8]) -> Option<Self> {
        let is_ours = packet.len() >= 28 && packet[0] == 0x45 && packet[9] == 17;
        let datagram = is_ours.then(|| &packet[20..])?;
        let sum = pseudo_header(&packet[12..20], datagram.len()) + sum(datagram);
        Some(Self { payload: datagram[8..].to_vec(), checksum_fits: fold(sum) == 0xffff })
    }

    fn make(from: Ipv4Addr, to: Ipv4Addr, ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
        let datagram_bytes = 8 + payload.len();
        let length = (20 + datagram_bytes) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(from.octets());
        packet.extend(to.octets());
        let header_sum = !fold(sum(&packet));
        packet[10..12].copy_from_slice(&header_sum.to_be_bytes());
        packet.extend(ports.map(u16::to_be_bytes).concat());
        packet.extend((datagram_bytes as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(payload);
        let datagram_sum = !fold(pseudo_header(&packet[12..20], datagram_bytes) + sum(&packet[20..]));
        packet[26..28].copy_from_slice(&datagram_sum.to_be_bytes());
        packet
    }
}

fn pseudo_header(addresses: &[u8], datagram_bytes: usize) -> u32 {
    sum(addresses) + 17 + datagram_bytes as u32
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// Opens one in the calling thread's namespace. Where nothing has made the file for it, we make one of our own, and
/// the kernel loads the module when it is opened (Documentation/networking/tuntap.rst).
fn open() -> io::Result<File> {
    const FILE: &str = "kchaos-test-tun";
    let folder = TempDir::new()?;
    let path = folder.path().join(FILE);
    mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(10, 200))?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
    // SAFETY: zeros are a request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is whole.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    Errno::result(result)?;
    Ok(file)
}

/// Why there are none here, if so.
pub fn missing_because() -> Option<String> {
    let tried = Netns::create().and_then(|netns| netns.run(open)).and_then(|opened| opened);
    tried.err().map(|error| error.to_string())
}
