//! Loss among what else is on a host: firewalls, address translation, stacked devices, devices without link layer,
//! small frames, offloads on and off. In each it hits the target and its neighbour not, and is over afterwards.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use kchaos::target::Netns;

use crate::{
    Test,
    controller::{self, exit},
    flow::Flow,
    foreign::Foreign,
    lab::{Cgroup, DEVICE, INSIDE, Lab, OUTSIDE, PEER_DEVICE, receiver, run_in},
    stream::Stream,
    tests,
    victim::{Ask, Victim},
};

const BYTES: u64 = 4 << 20;
const PACKETS: u64 = 500;
/// The most that a segment carries on this wire.
const SEGMENT_BYTES: u64 = 1460;

pub fn tests() -> Vec<Test> {
    tests![
        TUN on one kernel: loss_at_a_device_without_link_layer;
        EGRESS on one kernel: loss_spares_the_loopback_device, loss_of_small_frames_and_fragments,
            loss_of_single_segments;
        BRIDGE on one kernel: loss_at_a_bridge;
        NAT on one kernel: loss_in_front_of_address_translation;
        FIREWALL on one kernel: loss_leaves_marks_alone,
            loss_comes_after_the_senders_firewall_and_before_the_receivers;
        VLAN on one kernel: loss_at_a_vlan
    ]
}

const fn address(net: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 107, net, host))
}

/// A target and a neighbour in the same namespace, each with a flow to the same place.
struct Pair {
    cgroup: Cgroup,
    _neighbours: Cgroup,
    victim: Victim,
    neighbour: Victim,
}

impl Pair {
    fn new(lab: &Lab) -> anyhow::Result<Self> {
        let (cgroup, neighbours) = (Cgroup::new()?, Cgroup::new()?);
        let (victim, neighbour) = (Victim::start(lab, &cgroup)?, Victim::start(lab, &neighbours)?);
        Ok(Self { cgroup, _neighbours: neighbours, victim, neighbour })
    }

    /// Between two addresses everything of the target is lost, each packet counted once, and nothing of its
    /// neighbour.
    fn lose_everything(&self, from: IpAddr, netns: &Netns, to: IpAddr, options: &str) -> anyhow::Result<()> {
        let flow = |victim| Flow::between(victim, SocketAddr::new(from, 0), receiver(netns, to)?);
        let (mut hit, mut spared) = (flow(&self.victim)?, flow(&self.neighbour)?);
        hit.is_open("before")?;
        let kchaos =
            controller::inject(&format!("loss --percent 100 {options} --on {}", self.cgroup.target()))?;
        ensure!(hit.lost(PACKETS)? == PACKETS, "not everything of the target is lost");
        spared.is_open("the neighbour, during")?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        ensure!(ended.outcome("injected")? == PACKETS, "{}", ended.output);
        hit.is_open("after")
    }
}

/// The packets leave by the device below, where they are judged: once.
fn loss_at_a_vlan() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    for (netns, device, host) in [(&lab.inside, DEVICE, 1), (&lab.outside, PEER_DEVICE, 2)] {
        run_in(
            netns,
            &format!(
                "ip link add link {device} name vlan7 type vlan id 7
                 ip address add {}/24 dev vlan7
                 ip link set vlan7 up",
                address(7, host)
            ),
        )?;
    }
    let (from, to) = (address(7, 1), address(7, 2));
    wait_until_open(&lab.inside, from, &lab.outside, to)?;
    Pair::new(&lab)?.lose_everything(from, &lab.outside, to, "--protocol udp --peers 10.107.7.0/24")
}

fn loss_at_a_bridge() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    run_in(
        &lab.inside,
        &format!(
            "ip link add br7 type bridge forward_delay 0
             ip link set {DEVICE} master br7
             ip address flush dev {DEVICE}
             ip address add {INSIDE}/24 dev br7
             ip link set br7 up"
        ),
    )?;
    wait_until_open(&lab.inside, INSIDE, &lab.outside, OUTSIDE)?;
    Pair::new(&lab)?.lose_everything(INSIDE, &lab.outside, OUTSIDE, "--protocol udp")
}

/// What gets through is given another source address on the way, and connections outlive the loss.
fn loss_in_front_of_address_translation() -> anyhow::Result<()> {
    let (lab, beyond) = (Lab::new()?, Netns::create()?);
    run_in(&lab.inside, &format!("ip route add default via {OUTSIDE}"))?;
    // By the namespace's file: it has no name.
    let file = format!("/proc/{}/fd/{}", std::process::id(), beyond.file().as_raw_fd());
    run_in(
        &lab.outside,
        &format!(
            "ip link add kcn0 type veth peer name kcn1 netns {file}
             ip address add {}/24 dev kcn0
             ip link set kcn0 up
             sysctl -qw net.ipv4.ip_forward=1
             iptables -t nat -A POSTROUTING -o kcn0 -j MASQUERADE",
            address(8, 1)
        ),
    )?;
    run_in(&beyond, &format!("ip address add {}/24 dev kcn1\nip link set kcn1 up", address(8, 2)))?;
    wait_until_open(&lab.inside, INSIDE, &beyond, address(8, 2))?;
    let pair = Pair::new(&lab)?;
    pair.lose_everything(INSIDE, &beyond, address(8, 2), "--peers 10.107.8.0/24")?;
    let listener = beyond.run(|| std::net::TcpListener::bind(SocketAddr::new(address(8, 2), 0)))??;
    let socket = pair.victim.connect(SocketAddr::new(INSIDE, 0), listener.local_addr()?)?;
    let (ours, from) = listener.accept()?;
    ensure!(from.ip() == address(8, 1), "the connection comes from {from}: nothing translates it");
    crate::victim::program::swallow(ours);
    let kchaos = controller::inject(&format!("loss --percent 5 --on {}", pair.cgroup.target()))?;
    ensure!(pair.victim.write(socket, BYTES)? == BYTES, "not everything got through");
    let ended = kchaos.interrupt()?;
    ensure!(ended.outcome("injected")? > 0, "nothing was lost: {}", ended.output);
    ensure!(pair.victim.write(socket, BYTES)? == BYTES, "the connection did not outlive the loss");
    Ok(())
}

/// A packet that is lost has left the sender's firewall and never reaches the receiver's.
fn loss_comes_after_the_senders_firewall_and_before_the_receivers() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    run_in(&lab.inside, &format!("iptables -A OUTPUT -p udp -d {OUTSIDE}"))?;
    run_in(&lab.outside, &format!("iptables -A INPUT -p udp -d {OUTSIDE}"))?;
    let cgroup = Cgroup::new()?;
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let counted = || Ok::<_, anyhow::Error>((seen(&lab.inside, "OUTPUT")?, seen(&lab.outside, "INPUT")?));
    let before = counted()?;
    let kchaos = controller::inject(&format!("loss --percent 30 --on {}", cgroup.target()))?;
    let lost = flow.lost(PACKETS)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let after = counted()?;
    let (left, arrived) = (after.0 - before.0, after.1 - before.1);
    ensure!(lost > 0, "nothing was lost");
    ensure!(
        (left, arrived) == (PACKETS, PACKETS - lost),
        "{left} left the sender's firewall, {arrived} reached the receiver's; {lost} of {PACKETS} were lost"
    );
    flow.is_open("after")
}

/// How many packets the only rule of a chain has seen.
fn seen(netns: &Netns, chain: &str) -> anyhow::Result<u64> {
    let mut list = std::process::Command::new("iptables");
    list.args(["-nvx", "-L", chain]);
    let output = netns.run(|| list.output())??;
    let text = String::from_utf8(output.stdout)?;
    let rule = text.lines().nth(2).with_context(|| format!("no rule in {chain}: {text}"))?;
    let count = rule.split_whitespace().next().context("an empty line")?;
    count.parse().with_context(|| rule.to_owned())
}

/// A program behind ours sees the marks that the host's firewall has set, on all that is not lost.
fn loss_leaves_marks_alone() -> anyhow::Result<()> {
    const MARK: i32 = 0x0bad_cafe;
    let lab = Lab::new()?;
    run_in(&lab.inside, &format!("iptables -t mangle -A OUTPUT -p udp -j MARK --set-mark {MARK:#x}"))?;
    let mut foreign = Foreign::counting_mark(MARK)?;
    foreign.attach_clsact(&lab.inside)?;
    let cgroup = Cgroup::new()?;
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let before = foreign.seen()?;
    ensure!(before >= 200, "the mark is seen on {before} packets only, with nothing injected");
    let kchaos = controller::inject(&format!("loss --percent 30 --on {}", cgroup.target()))?;
    let lost = flow.lost(PACKETS)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let marked = foreign.seen()? - before;
    ensure!(lost > 0 && marked == PACKETS - lost, "{marked} marked packets seen; {lost} of {PACKETS} lost");
    flow.is_open("after")
}

/// What a process sends to another one on its own host never leaves it.
fn loss_spares_the_loopback_device() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut local = Flow::between(&victim, SocketAddr::new(localhost, 0), receiver(&lab.inside, localhost)?)?;
    let mut away = Flow::new(&lab, &victim)?;
    local.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 --on {}", cgroup.target()))?;
    local.is_open("during")?;
    away.is_shut("during")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    away.is_open("after")
}

/// A datagram of several fragments is lost with its first, which alone has ports.
fn loss_of_small_frames_and_fragments() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    run_in(&lab.inside, &format!("ip link set {DEVICE} mtu 576"))?;
    run_in(&lab.outside, &format!("ip link set {PEER_DEVICE} mtu 576"))?;
    let cgroup = Cgroup::new()?;
    let victim = Victim::start(&lab, &cgroup)?;
    let ours = lab.receiver(OUTSIDE)?;
    ours.set_read_timeout(Some(Duration::from_millis(300)))?;
    let port = ours.local_addr()?.port();
    let socket = victim.udp(SocketAddr::new(INSIDE, 0), Some(ours.local_addr()?))?;
    let arrives = || -> anyhow::Result<bool> {
        victim.ask(Ask::SendDatagram { socket, bytes: 2_000 })?;
        match ours.recv(&mut [0; 4096]) {
            Ok(bytes) => {
                ensure!(bytes == 2_000, "{bytes} bytes of 2,000 arrived");
                Ok(true)
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => Ok(false),
            Err(error) => bail!(error),
        }
    };
    ensure!(arrives()?, "nothing arrives before");
    let kchaos = controller::inject(&format!("loss --percent 100 --ports {port} --on {}", cgroup.target()))?;
    ensure!(!arrives()?, "a datagram arrives whose first fragment is lost");
    let ended = kchaos.interrupt()?;
    let (lost, filtered) = (ended.outcome("injected")?, ended.outcome("filtered")?);
    ensure!(lost == 1 && filtered >= 3, "{lost} fragments lost, {filtered} without ports");
    ensure!(arrives()?, "nothing arrives afterwards");
    under_loss(&lab).map(drop)
}

/// TCP hands over several segments at once whatever the device can do (net/core/sock.c, `sk_setup_caps`, 6.18), and
/// they are cut behind us; unless it is told to take one at a time. Then each is judged by itself.
fn loss_of_single_segments() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    run_in(&lab.inside, &format!("ip link set {DEVICE} gso_max_segs 1"))?;
    lab.offloads(false)?;
    let judged = under_loss(&lab)?;
    ensure!(
        judged >= BYTES / SEGMENT_BYTES,
        "{judged} packets judged for {BYTES} bytes: not single segments"
    );
    Ok(())
}

/// A connection gets everything through, and the segments lost are sent again. Returns how many packets were judged.
fn under_loss(lab: &Lab) -> anyhow::Result<u64> {
    let cgroup = Cgroup::new()?;
    let victim = Victim::start(lab, &cgroup)?;
    let stream = Stream::new(lab, &victim, OUTSIDE)?;
    stream.deliver(BYTES)?;
    let kchaos = controller::inject(&format!("loss --every 30 --on {}", cgroup.target()))?;
    stream.deliver(BYTES)?;
    let ended = kchaos.interrupt()?;
    let lost = ended.outcome("injected")?;
    let again = u64::from(stream.sender()?.retransmitted);
    ensure!(lost > 0 && again >= lost, "{lost} packets lost, {again} segments sent again");
    stream.deliver(BYTES)?;
    ended.json()?["eligible"].as_u64().context("no count of those eligible")
}

/// Waits until packets get through a network that has just been set up.
fn wait_until_open(from: &Netns, source: IpAddr, to: &Netns, destination: IpAddr) -> anyhow::Result<()> {
    let ours = receiver(to, destination)?;
    ours.set_read_timeout(Some(Duration::from_millis(50)))?;
    let sender = receiver(from, source)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        // Until there is a way there is none, which is no reason to give up.
        let _ = sender.send_to(b"?", ours.local_addr()?);
        if ours.recv(&mut [0]).is_ok() {
            return Ok(());
        }
    }
    bail!("nothing gets from {source} to {destination}")
}

/// A tun device whose other end is a file: packets begin with their network header.
fn loss_at_a_device_without_link_layer() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (near, far) = (address(9, 1), address(9, 2));
    run_in(
        &lab.inside,
        &format!(
            "ip tuntap add dev kctun mode tun
             ip address add {near} peer {far} dev kctun
             ip link set kctun txqueuelen 5000 up"
        ),
    )?;
    let mut other_end = lab.inside.run(|| open_tun("kctun"))??;
    let pair = Pair::new(&lab)?;
    let from = |victim: &Victim| victim.udp(SocketAddr::new(near, 0), Some(SocketAddr::new(far, 7001)));
    let (hit, spared) = (from(&pair.victim)?, from(&pair.neighbour)?);
    let mut arrive = |victim: &Victim, socket| -> anyhow::Result<u64> {
        victim.ask(Ask::SendNumbers { socket, to: None, first: 0, count: PACKETS })?;
        udp_packets(&mut other_end)
    };
    let before = arrive(&pair.victim, hit)?;
    ensure!(before == PACKETS, "{before} of {PACKETS} packets arrive before");
    let options = format!("loss --percent 100 --protocol udp --peers {far} --on {}", pair.cgroup.target());
    let kchaos = controller::inject(&options)?;
    let (of_target, of_neighbour) = (arrive(&pair.victim, hit)?, arrive(&pair.neighbour, spared)?);
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(
        (of_target, of_neighbour) == (0, PACKETS),
        "{of_target} of the target's packets arrive, {of_neighbour} of its neighbour's"
    );
    ensure!(ended.outcome("injected")? == PACKETS, "{}", ended.output);
    let after = arrive(&pair.victim, hit)?;
    ensure!(after == PACKETS, "{after} of {PACKETS} packets arrive afterwards");
    Ok(())
}

/// The other end of a tun device of the calling thread's namespace, without waiting when it has nothing.
pub fn open_tun(name: &str) -> anyhow::Result<File> {
    /// `_IOW('T', 202, int)` (include/uapi/linux/if_tun.h, 6.18).
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca_u32 as libc::Ioctl;
    const TUN_WITHOUT_HEADER: i16 = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("/dev/net/tun")?;
    // SAFETY: all zeros is a valid request, which the call reads.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_ifru.ifru_flags = TUN_WITHOUT_HEADER;
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        if libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw const request) != 0 {
            return Err(std::io::Error::last_os_error()).context("TUNSETIFF");
        }
    }
    Ok(tun)
}

/// How many UDP packets over IPv4 are there to be read.
fn udp_packets(tun: &mut File) -> anyhow::Result<u64> {
    const UDP: u8 = 17;
    let mut count = 0;
    let mut packet = [0; 2048];
    loop {
        match tun.read(&mut packet) {
            Ok(bytes) if bytes > 20 && packet[0] >> 4 == 4 && packet[9] == UDP => count += 1,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) => bail!(error),
        }
    }
}
