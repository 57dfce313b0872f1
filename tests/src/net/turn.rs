//! Answers in the peer's name, where something looks closer: checksums that nobody takes for granted, a device
//! without link layer, programs that people resolve names with.

use std::{
    fs::File,
    io::Read,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::{Context, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use super::{
    dns::{NOERROR, NXDOMAIN, Names, ask, reply},
    reject::{PROHIBITED, REFUSED, UNREACHABLE, ensure_told, refusal, told_to_udp},
};
use crate::{
    Test,
    controller::{self, exit},
    lab::{Cgroup, INSIDE, INSIDE_V6, Lab, OUTSIDE, OUTSIDE_V6, run_in},
    surroundings::open_tun,
    tests,
    victim::{
        Ask, Victim,
        resolve::{A, AAAA, Question},
    },
};

pub fn tests() -> Vec<Test> {
    tests![
        BOTH_WAYS on one kernel: partition_by_rst_has_the_right_checksum, partition_by_icmp_has_the_right_checksum;
        EGRESS on one kernel: dns_has_the_right_checksum, dns_is_understood_by_the_c_library;
        TUN on one kernel: dns_at_a_device_without_link_layer, partition_by_rst_at_a_device_without_link_layer;
        DIG on one kernel: dns_is_understood_by_dig;
        STATEFUL on one kernel: dns_passes_a_firewall, partition_by_rst_and_icmp_passes_a_firewall
    ]
}

/// Sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum()
}

/// Connections are refused by resets that add up. The kernel does not check what it believes a device to do, so we
/// do, by a socket that sees all segments.
fn partition_by_rst_has_the_right_checksum() -> anyhow::Result<()> {
    const TCP: u8 = 6;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    for (family, near, far) in
        [(AddressFamily::Inet, INSIDE, OUTSIDE), (AddressFamily::Inet6, INSIDE_V6, OUTSIDE_V6)]
    {
        let open = || socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp);
        let mut segments = File::from(lab.inside.run(open)??);
        setsockopt(&segments, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(2, 0))?;
        let kchaos = controller::inject(&format!("partition --reject rst --on {}", cgroup.target()))?;
        ensure_told(refusal(&lab, &victim, far)?, REFUSED)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        let mut packet = [0; 2048];
        let bytes = segments.read(&mut packet).context("no segment arrived")?;
        let header = if near.is_ipv4() { usize::from(packet[0] & 0x0f) * 4 } else { 0 };
        let segment = packet.get(header..bytes).context("less than an IP header")?;
        ensure!(segment.len() == 20 && segment[13] & 0x04 != 0, "no reset: {segment:?}");
        if near.is_ipv4() {
            ensure!(folded(sum(&packet[..header])) == 0xffff, "the IP header's checksum is wrong");
        }
        let pseudo = octets(near) + octets(far) + u32::from(TCP) + segment.len() as u32;
        ensure!(folded(pseudo + sum(segment)) == 0xffff, "{far}: the checksum is wrong: {segment:?}");
    }
    Ok(())
}

fn folded(sum: u32) -> u32 {
    let once = (sum & 0xffff) + (sum >> 16);
    (once & 0xffff) + (once >> 16)
}

fn octets(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// Where devices leave checksums to the kernel, it checks those of answers to UDP, too.
fn partition_by_icmp_has_the_right_checksum() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    lab.checksums_in_software()?;
    told_to_udp(&lab, OUTSIDE, UNREACHABLE)?;
    told_to_udp(&lab, OUTSIDE_V6, PROHIBITED)
}

/// With questions of an even and of an odd length, with a record and without.
fn dns_has_the_right_checksum() -> anyhow::Result<()> {
    let (v4, v6): (IpAddr, IpAddr) = ("203.0.113.7".parse()?, "2001:db8::7".parse()?);
    let names = Names::new()?;
    names.lab.checksums_in_software()?;
    names.hears_the_truth("example.com", "before")?;
    let kchaos = names.inject("--answer nxdomain")?;
    for name in ["example.com", "odd.example.com", "evens.example.com"] {
        names.hears(name, A, &reply(NXDOMAIN, &[]))?;
    }
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let kchaos = names.inject(&format!("--address {v4},{v6}"))?;
    for name in ["example.com", "odd.example.com", "evens.example.com"] {
        names.hears(name, A, &reply(NOERROR, &[(v4, 1)]))?;
        names.hears(name, AAAA, &reply(NOERROR, &[(v6, 1)]))?;
    }
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    names.hears_the_truth("example.com", "after")
}

/// Only what belongs to a connection may come in, and only by the way that would lead back.
fn guard(lab: &Lab) -> anyhow::Result<()> {
    run_in(
        &lab.inside,
        "iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
         iptables -A INPUT -j DROP",
    )?;
    let strict = || std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1");
    lab.inside.run(strict)?.context("checking source addresses")
}

fn partition_by_rst_and_icmp_passes_a_firewall() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    guard(&lab)?;
    let victim = Victim::start(&lab, &cgroup)?;
    for (reject, why) in [("rst", REFUSED), ("icmp", UNREACHABLE)] {
        ensure!(refusal(&lab, &victim, OUTSIDE)?.is_none(), "no connection can be made before");
        let kchaos = controller::inject(&format!("partition --reject {reject} --on {}", cgroup.target()))?;
        ensure_told(refusal(&lab, &victim, OUTSIDE)?, why)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
    }
    ensure!(refusal(&lab, &victim, OUTSIDE)?.is_none(), "no connection can be made afterwards");
    Ok(())
}

fn dns_passes_a_firewall() -> anyhow::Result<()> {
    let names = Names::new()?;
    guard(&names.lab)?;
    names.hears_the_truth("example.com", "before")?;
    let kchaos = names.inject("--answer nxdomain")?;
    names.hears("example.com", A, &reply(NXDOMAIN, &[]))?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    names.hears_the_truth("example.com", "after")
}

/// A tun device whose other end is a file that nobody reads, and a victim that can send there.
struct Tun {
    victim: Victim,
    cgroup: Cgroup,
    _other_end: File,
    _lab: Lab,
}

const NEAR: &str = "10.107.9.1";
const FAR: &str = "10.107.9.2";
const NEAR_V6: &str = "fd00:0:0:9::1";
const FAR_V6: &str = "fd00:0:0:9::2";

impl Tun {
    fn new() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        run_in(&lab.inside, "ip tuntap add dev kctun mode tun")?;
        let other_end = lab.inside.run(|| open_tun("kctun"))??;
        run_in(
            &lab.inside,
            &format!(
                "ip address add {NEAR} peer {FAR} dev kctun
                 ip address add {NEAR_V6}/64 dev kctun nodad
                 ip link set kctun txqueuelen 5000 up"
            ),
        )?;
        let cgroup = Cgroup::new()?;
        let victim = Victim::start(&lab, &cgroup)?;
        Ok(Self { victim, cgroup, _other_end: other_end, _lab: lab })
    }

    fn ends() -> anyhow::Result<[(IpAddr, IpAddr); 2]> {
        Ok([(NEAR.parse()?, FAR.parse()?), (NEAR_V6.parse()?, FAR_V6.parse()?)])
    }

    fn connect(&self, (near, far): (IpAddr, IpAddr)) -> anyhow::Result<Option<String>> {
        let (bind, to) = (SocketAddr::new(near, 0), SocketAddr::new(far, 80));
        Ok(self.victim.ask(Ask::Connect { bind, to, within_ms: 700 }).err().map(|error| error.to_string()))
    }
}

fn partition_by_rst_at_a_device_without_link_layer() -> anyhow::Result<()> {
    const SILENCE: &str = "timed out";
    let tun = Tun::new()?;
    for ends in Tun::ends()? {
        ensure_told(tun.connect(ends)?, SILENCE)?;
        let kchaos = controller::inject(&format!("partition --reject rst --on {}", tun.cgroup.target()))?;
        ensure_told(tun.connect(ends)?, REFUSED)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        ensure_told(tun.connect(ends)?, SILENCE)?;
    }
    Ok(())
}

fn dns_at_a_device_without_link_layer() -> anyhow::Result<()> {
    let tun = Tun::new()?;
    for (near, far) in Tun::ends()? {
        let question = Question {
            bind: SocketAddr::new(near, 0),
            server: SocketAddr::new(far, 53),
            names: vec!["example.com".into()],
            kind: A,
            edns: true,
        };
        ensure!(ask(&tun.victim, &question)?.is_none(), "something answers before");
        let kchaos = controller::inject(&format!("dns --answer nxdomain --on {}", tun.cgroup.target()))?;
        let heard = ask(&tun.victim, &question)?;
        ensure!(heard == Some(reply(NXDOMAIN, &[])), "heard {heard:?} from {far}");
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        ensure!(ask(&tun.victim, &question)?.is_none(), "something answers afterwards");
    }
    Ok(())
}

/// What a command says that runs in the target, with the tests' name server as its only one.
fn in_target(names: &Names, command: &str) -> anyhow::Result<String> {
    let resolv = tempfile::NamedTempFile::new()?;
    std::fs::write(&resolv, format!("nameserver {OUTSIDE}\noptions timeout:1 attempts:1\n"))?;
    let script = r#"echo $$ > "$0/cgroup.procs" && mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", script]).arg(&names.cgroup.dir).arg(resolv.path());
    shell.args(command.split_whitespace());
    let output = names.lab.inside.run(|| shell.output())??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(complaint.is_empty(), "{command}: {complaint}");
    Ok(said)
}

fn dns_is_understood_by_the_c_library() -> anyhow::Result<()> {
    let names = Names::new()?;
    let look_up = || in_target(&names, "getent ahosts www.example.com");
    let heard = look_up()?;
    ensure!(heard.contains("192.0.2.1") && heard.contains("2001:db8::1"), "before: `{heard}`");
    let kchaos = names.inject("--address 203.0.113.7,2001:db8::7 --names example.com")?;
    let heard = look_up()?;
    ensure!(heard.contains("203.0.113.7") && heard.contains("2001:db8::7"), "forged: `{heard}`");
    ensure!(!heard.contains("192.0.2.1"), "the truth among the forged: `{heard}`");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let kchaos = names.inject("--answer nxdomain --names example.com")?;
    let heard = look_up()?;
    ensure!(heard.is_empty(), "an address though there is no such name: `{heard}`");
    let ended = kchaos.interrupt()?;
    ensure!((1..=2).contains(&ended.outcome("injected")?), "asked again: {}", ended.output);
    let heard = look_up()?;
    ensure!(heard.contains("192.0.2.1"), "after: `{heard}`");
    Ok(())
}

fn dns_is_understood_by_dig() -> anyhow::Result<()> {
    let names = Names::new()?;
    let dig = |kind: &str| in_target(&names, &format!("dig +tries=1 +time=2 www.example.com {kind}"));
    let says = |text: String, part: &str| {
        ensure!(text.contains(part) && !text.contains("WARNING"), "expected `{part}` in: {text}");
        Ok(())
    };
    says(dig("A")?, "192.0.2.1")?;
    for (answer, status) in [("nxdomain", "NXDOMAIN"), ("servfail", "SERVFAIL"), ("refused", "REFUSED")] {
        let kchaos = names.inject(&format!("--answer {answer}"))?;
        says(dig("A")?, &format!("status: {status}"))?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
    }
    let kchaos = names.inject("--address 203.0.113.7,2001:db8::7")?;
    says(dig("A")?, "203.0.113.7")?;
    says(dig("AAAA")?, "2001:db8::7")?;
    says(dig("TXT")?, "status: NOERROR")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    says(dig("A")?, "192.0.2.1")
}
