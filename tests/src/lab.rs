//! Two network namespaces joined by a veth pair, and cgroups. Nothing of it is visible to anybody else, and
//! all of it ends with the test.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures_util::TryStreamExt;
use kchaos::target::{Hierarchy, Netns, netns::with_netlink};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth,
    packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
};

/// Where victims are.
pub const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 107, 1, 1));
/// Their peer.
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 107, 1, 2));
/// The same peer by another name.
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 107, 1, 130));
/// Where victims are, in IPv6.
pub const INSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0x6b63, 0, 0, 0, 1));
/// Their peer, in IPv6.
pub const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0x6b63, 0, 0, 0, 2));
/// The same peer by another name, in IPv6.
pub const ELSEWHERE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0x6b63, 1, 0, 0, 2));

/// The victims' device.
pub const DEVICE: &str = "kct0";
/// The other end of it.
pub const PEER_DEVICE: &str = "kct1";
const PREFIX_LENGTH_V4: u8 = 24;
const PREFIX_LENGTH_V6: u8 = 64;

const CGROUP_PREFIX: &str = "kchaos-test-";
/// Holds every packet that a test sends before anybody reads them.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

/// Both ends of a wire.
pub struct Lab {
    /// Where victims are.
    pub inside: Netns,
    /// Where their peers are.
    pub outside: Netns,
}

impl Lab {
    /// Lays the wire.
    pub fn new() -> anyhow::Result<Self> {
        let (inside, outside) = (Netns::create()?, Netns::create()?);
        let peer = outside.file().as_raw_fd();
        inside
            .run(|| {
                with_netlink(async |handle| {
                    let pair = LinkVeth::new(DEVICE, PEER_DEVICE).build();
                    handle.link().add(pair).execute().await.map_err(io::Error::other)?;
                    let index = ifindex(&handle, PEER_DEVICE).await?;
                    let moved = LinkUnspec::new_with_index(index).setns_by_fd(peer).build();
                    handle.link().set(moved).execute().await.map_err(io::Error::other)?;
                    bring_up(&handle, DEVICE, &[INSIDE, INSIDE_V6]).await
                })
            })?
            .context("the victims' end of the wire")?;
        let addresses = [OUTSIDE, ELSEWHERE, OUTSIDE_V6, ELSEWHERE_V6];
        outside
            .run(|| with_netlink(async |handle| bring_up(&handle, PEER_DEVICE, &addresses).await))?
            .context("the other end of the wire")?;
        let lab = Self { inside, outside };
        lab.wait_until_open(INSIDE, OUTSIDE)?;
        lab.wait_until_open(INSIDE_V6, OUTSIDE_V6)?;
        Ok(lab)
    }

    /// The kernel lets a new device drop packets until it has noticed the carrier, which may take it a second
    /// (net/core/link_watch.c, `linkwatch_schedule_work`, 6.18).
    fn wait_until_open(&self, from: IpAddr, to: IpAddr) -> anyhow::Result<()> {
        let receiver = self.receiver(to)?;
        receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
        let sender = self.inside.run(|| UdpSocket::bind(SocketAddr::new(from, 0)))??;
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            sender.send_to(b"?", receiver.local_addr()?)?;
            if receiver.recv(&mut [0]).is_ok() {
                return Ok(());
            }
        }
        bail!("nothing gets from {from} to {to}")
    }

    /// A socket of ours at the other end, on a port of its own.
    pub fn receiver(&self, address: IpAddr) -> anyhow::Result<UdpSocket> {
        receiver(&self.outside, address)
    }

    /// Whether devices hand over several segments at once: segmentation and receive offload, at both ends.
    pub fn offloads(&self, on: bool) -> anyhow::Result<()> {
        self.set_features(&[SET_TSO, SET_GSO, SET_GRO], on)
    }

    /// Has checksums made and checked where devices could be believed to do that.
    pub fn checksums_in_software(&self) -> anyhow::Result<()> {
        self.set_features(&[SET_TX_CHECKSUMS, SET_RX_CHECKSUMS], false)
    }

    fn set_features(&self, commands: &[u32], on: bool) -> anyhow::Result<()> {
        for (netns, device) in [(&self.inside, DEVICE), (&self.outside, PEER_DEVICE)] {
            netns
                .run(|| set_features(device, commands, on))?
                .with_context(|| format!("offloads of {device}"))?;
        }
        Ok(())
    }

    /// A listener of ours at the other end, on a port of its own.
    pub fn listener(&self, address: IpAddr) -> anyhow::Result<TcpListener> {
        Ok(self.outside.run(|| TcpListener::bind(SocketAddr::new(address, 0)))??)
    }
}

/// Commands of ethtool (include/uapi/linux/ethtool.h, 6.18).
const SET_RX_CHECKSUMS: u32 = 0x15;
const SET_TX_CHECKSUMS: u32 = 0x17;
const SET_TSO: u32 = 0x1f;
const SET_GSO: u32 = 0x24;
const SET_GRO: u32 = 0x2c;

/// Sets what a device does by itself, in the calling thread's namespace.
fn set_features(device: &str, commands: &[u32], on: bool) -> io::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let socket = UdpSocket::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))?;
    for command in commands {
        let mut value = [*command, on.into()];
        // SAFETY: all zeros is a valid request; the call reads it and the value it points to.
        let result = unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
            libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw const request)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A socket of ours in a network namespace, on a port of its own.
pub fn receiver(netns: &Netns, address: IpAddr) -> anyhow::Result<UdpSocket> {
    let socket = netns.run(|| UdpSocket::bind(SocketAddr::new(address, 0)))??;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
    Ok(socket)
}

/// Runs commands in a network namespace, one a line, as somebody who sets up a network would.
pub fn run_in(netns: &Netns, commands: &str) -> anyhow::Result<()> {
    for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        let output = netns.run(|| command.args(words).output())?.with_context(|| line.to_owned())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line}: {}", said.trim());
    }
    Ok(())
}

/// Brings up a device of the calling thread's namespace, and its `lo`.
pub async fn bring_up(handle: &Handle, device: &str, addresses: &[IpAddr]) -> io::Result<()> {
    let up = |index| LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up(1)).execute().await.map_err(io::Error::other)?; // lo
    let index = ifindex(handle, device).await?;
    for address in addresses {
        let length = if address.is_ipv4() { PREFIX_LENGTH_V4 } else { PREFIX_LENGTH_V6 };
        let mut request = handle.address().add(index, *address, length);
        // Nobody else is on this wire, so the address can be used at once.
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        request.execute().await.map_err(io::Error::other)?;
    }
    handle.link().set(up(index)).execute().await.map_err(io::Error::other)
}

/// The index of a device.
pub async fn ifindex(handle: &Handle, device: &str) -> io::Result<u32> {
    let mut links = handle.link().get().match_name(device).execute();
    let link = links.try_next().await.map_err(io::Error::other)?;
    link.map(|link| link.header.index).ok_or_else(|| io::Error::other(format!("no device {device}")))
}

/// A cgroup of ours, removed in the end with everything below it.
pub struct Cgroup {
    /// Where its files are.
    pub dir: PathBuf,
    name: String,
}

impl Cgroup {
    /// A new one below the root.
    pub fn new() -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{CGROUP_PREFIX}{}-{number}", std::process::id());
        let dir = Hierarchy::find()?.mount().join(&name);
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, name })
    }

    /// A new one below this one, which goes with it.
    pub fn below(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }

    /// As kchaos takes it.
    pub fn target(&self) -> String {
        format!("cgroup:/{}", self.name)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.dir) {
            eprintln!("{} was left behind: {error}", self.dir.display());
        }
    }
}

/// The same program within a cgroup, from its very beginning: a socket belongs to the cgroup that it was made in.
pub fn within(cgroup: &Path, program: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#]).arg(cgroup);
    shell.arg(program.get_program()).args(program.get_args());
    // What a user's environment says of proxies is not about a network that only the test has.
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        shell.env_remove(variable);
    }
    shell
}

/// Ends what is in it, and removes it and all below.
fn remove(dir: &Path) -> io::Result<()> {
    const ATTEMPTS: u32 = 200;
    // Kernels before 5.14 have no such file; then what is in it ends with its parent, a moment later.
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    for below in fs::read_dir(dir)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove(&below.path())?;
    }
    let mut attempt = 0;
    loop {
        attempt += 1;
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < ATTEMPTS => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// Removes the cgroups of earlier runs that were killed.
pub fn sweep() {
    let Ok(hierarchy) = Hierarchy::find() else { return };
    for entry in fs::read_dir(hierarchy.mount()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(CGROUP_PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Somebody else may be removing it at this moment.
            let _ = remove(&entry.path());
        }
    }
}
