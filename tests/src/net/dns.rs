//! Name services that lie: what a resolver in the target gets to hear.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
};

use anyhow::{bail, ensure};

use crate::{
    Test,
    controller::{self, Ended, exit},
    lab::{Cgroup, INSIDE, INSIDE_V6, Lab, OUTSIDE, OUTSIDE_V6},
    tests,
    victim::{
        Answer, Ask, Victim,
        resolve::{A, AAAA, Question, Reply, TXT, serve},
    },
};

/// What the server of these tests has for every name.
const TRUE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TRUE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const TRUE_TTL_S: u32 = 3600;

pub const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS: dns_says_nxdomain;
        EGRESS on one kernel: dns_says_servfail, dns_says_refused, dns_has_no_record_of_a_kind_not_forged,
            dns_drops_queries, dns_matches_names_at_their_labels, dns_below_a_name_only,
            dns_spares_other_ports_and_allowed_peers, dns_spares_what_is_no_single_question,
            dns_over_tcp_is_dropped_or_not, dns_in_a_dry_run_is_only_counted, dns_hits_each_second_query,
            dns_forges_addresses, dns_spares_a_neighbour, dns_of_the_longest_name
    ]
}

/// A victim and a name server, on port 53 of both addresses outside.
pub struct Names {
    pub lab: Lab,
    pub cgroup: Cgroup,
    victim: Victim,
}

impl Names {
    pub fn new() -> anyhow::Result<Self> {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        for address in [OUTSIDE, OUTSIDE_V6] {
            serve_at(&lab, SocketAddr::new(address, 53))?;
        }
        let victim = Victim::start(&lab, &cgroup)?;
        Ok(Self { lab, cgroup, victim })
    }

    pub fn inject(&self, options: &str) -> anyhow::Result<controller::Running> {
        controller::inject(&format!("dns {options} --on {}", self.cgroup.target()))
    }

    /// What the victim hears about a name, which must be the same over IPv4 and IPv6, with EDNS and without.
    fn ask(&self, name: &str, kind: u16) -> anyhow::Result<Option<Reply>> {
        let first = ask(&self.victim, &question(OUTSIDE, &[name], kind, false))?;
        for (server, edns) in [(OUTSIDE, true), (OUTSIDE_V6, false), (OUTSIDE_V6, true)] {
            let other = ask(&self.victim, &question(server, &[name], kind, edns))?;
            ensure!(other == first, "{name}: {first:?}, but {other:?} from {server} (EDNS: {edns})");
        }
        Ok(first)
    }

    /// The server is heard.
    pub fn hears_the_truth(&self, name: &str, when: &str) -> anyhow::Result<()> {
        for (kind, address) in [(A, IpAddr::V4(TRUE_V4)), (AAAA, IpAddr::V6(TRUE_V6))] {
            let heard = self.ask(name, kind)?;
            let expected = reply(NOERROR, &[(address, TRUE_TTL_S)]);
            ensure!(heard.as_ref() == Some(&expected), "{when}, {name}: {heard:?}");
        }
        Ok(())
    }

    pub fn hears(&self, name: &str, kind: u16, expected: &Reply) -> anyhow::Result<()> {
        let heard = self.ask(name, kind)?;
        ensure!(heard.as_ref() == Some(expected), "{name}: expected {expected:?}, heard {heard:?}");
        Ok(())
    }
}

/// How often [`Names::ask`] asks.
const TIMES: u64 = 4;

fn serve_at(lab: &Lab, address: SocketAddr) -> anyhow::Result<()> {
    let socket = lab.outside.run(|| UdpSocket::bind(address))??;
    thread::spawn(move || serve(socket, TRUE_V4.octets(), TRUE_V6.octets()));
    Ok(())
}

fn question(server: IpAddr, names: &[&str], kind: u16, edns: bool) -> Question {
    let from = if server.is_ipv4() { INSIDE } else { INSIDE_V6 };
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Question { bind: SocketAddr::new(from, 0), server: SocketAddr::new(server, 53), names, kind, edns }
}

pub fn ask(victim: &Victim, question: &Question) -> anyhow::Result<Option<Reply>> {
    // An answer that comes at all comes at once, but the machine may be busy.
    match victim.ask(Ask::Resolve { question: question.clone(), within_ms: 700 })? {
        Answer::Resolved(reply) => Ok(reply),
        other => bail!("expected a reply, got {other:?}"),
    }
}

pub fn reply(rcode: u8, addresses: &[(IpAddr, u32)]) -> Reply {
    Reply { rcode, well_formed: true, addresses: addresses.to_vec() }
}

/// During it, all kinds of questions get an answer without records.
fn says(answer: &str, rcode: u8) -> anyhow::Result<()> {
    let names = Names::new()?;
    names.hears_the_truth("example.com", "before")?;
    let kchaos = names.inject(&format!("--answer {answer}"))?;
    for kind in [A, AAAA, TXT] {
        names.hears("Example.com", kind, &reply(rcode, &[]))?;
        names.hears("a.b.example.org", kind, &reply(rcode, &[]))?;
    }
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("injected")? == 6 * TIMES, "{}", ended.output);
    names.hears_the_truth("example.com", "after")
}

fn dns_says_nxdomain() -> anyhow::Result<()> {
    says("nxdomain", NXDOMAIN)
}

fn dns_says_servfail() -> anyhow::Result<()> {
    says("servfail", SERVFAIL)
}

fn dns_says_refused() -> anyhow::Result<()> {
    says("refused", REFUSED)
}

fn dns_forges_addresses() -> anyhow::Result<()> {
    let (v4, v6): (IpAddr, IpAddr) = ("203.0.113.7".parse()?, "2001:db8::7".parse()?);
    let names = Names::new()?;
    names.hears_the_truth("www.example.com", "before")?;
    let kchaos = names.inject(&format!("--address {v4},{v6} --ttl 5m --names example.com"))?;
    for name in ["www.example.com", "example.com", "odd.example.com"] {
        names.hears(name, A, &reply(NOERROR, &[(v4, 300)]))?;
        names.hears(name, AAAA, &reply(NOERROR, &[(v6, 300)]))?;
        names.hears(name, TXT, &reply(NOERROR, &[]))?;
    }
    names.hears_the_truth("example.org", "during")?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let counts = (ended.outcome("injected")?, ended.outcome("filtered")?);
    ensure!(counts.0 == 9 * TIMES && counts.1 >= 2 * TIMES, "{}", ended.output);
    names.hears_the_truth("www.example.com", "after")
}

fn dns_has_no_record_of_a_kind_not_forged() -> anyhow::Result<()> {
    let v4: IpAddr = "203.0.113.7".parse()?;
    let names = Names::new()?;
    let kchaos = names.inject(&format!("--address {v4}"))?;
    names.hears("example.com", A, &reply(NOERROR, &[(v4, 1)]))?;
    names.hears("example.com", AAAA, &reply(NOERROR, &[]))?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    names.hears_the_truth("example.com", "after")
}

fn dns_drops_queries() -> anyhow::Result<()> {
    let names = Names::new()?;
    let kchaos = names.inject("--answer drop --names example.com")?;
    let heard = names.ask("example.com", A)?;
    ensure!(heard.is_none(), "something answered: {heard:?}");
    names.hears_the_truth("example.org", "during")?;
    let ended = kchaos.interrupt()?;
    ensure!(ended.outcome("injected")? == TIMES, "{}", ended.output);
    names.hears_the_truth("example.com", "after")
}

/// Which of some names are hit.
fn hit(options: &str, expected: &[(&str, bool)]) -> anyhow::Result<Ended> {
    let names = Names::new()?;
    let kchaos = names.inject(&format!("--answer nxdomain {options}"))?;
    for (name, hit) in expected {
        if *hit {
            names.hears(name, A, &reply(NXDOMAIN, &[]))?;
        } else {
            names.hears_the_truth(name, options)?;
        }
    }
    let ended = kchaos.interrupt()?;
    let hits = expected.iter().filter(|(_, hit)| *hit).count() as u64;
    ensure!(ended.outcome("injected")? == hits * TIMES, "{}", ended.output);
    Ok(ended)
}

fn dns_matches_names_at_their_labels() -> anyhow::Result<()> {
    let expected = [
        ("example.com", true),
        ("www.example.com", true),
        ("WWW.EXAMPLE.COM", true),
        ("badexample.com", false),
        ("example.com.org", false),
        ("com", false),
        ("db.internal", true),
    ];
    hit("--names Example.com,internal", &expected).map(|_| ())
}

fn dns_below_a_name_only() -> anyhow::Result<()> {
    let expected = [("example.com", false), ("www.example.com", true), ("a.b.example.com", true)];
    hit("--names *.example.com", &expected).map(|_| ())
}

fn dns_of_the_longest_name() -> anyhow::Result<()> {
    let label = "x".repeat(63);
    let longest = [&label[..], &label, &label, &label[..61]].join(".");
    let many = format!("{}example.com", "a.".repeat(120));
    hit("", &[(&longest, true), (&many, true), ("a", true)])?;
    hit("--names example.com", &[(&longest, false), (&many, true)]).map(|_| ())
}

fn dns_spares_a_neighbour() -> anyhow::Result<()> {
    let (names, neighbours) = (Names::new()?, Cgroup::new()?);
    let neighbour = Victim::start(&names.lab, &neighbours)?;
    let kchaos = names.inject("--answer nxdomain")?;
    names.hears("example.com", A, &reply(NXDOMAIN, &[]))?;
    let heard = ask(&neighbour, &question(OUTSIDE, &["example.com"], A, false))?;
    ensure!(heard == Some(reply(NOERROR, &[(TRUE_V4.into(), TRUE_TTL_S)])), "the neighbour hears {heard:?}");
    kchaos.interrupt()?.ensure_code(exit::OK)
}

fn dns_spares_other_ports_and_allowed_peers() -> anyhow::Result<()> {
    let names = Names::new()?;
    let other_port = SocketAddr::new(OUTSIDE, 5353);
    serve_at(&names.lab, other_port)?;
    let truth = reply(NOERROR, &[(TRUE_V4.into(), TRUE_TTL_S)]);
    let kchaos = names.inject(&format!("--answer nxdomain --allow {OUTSIDE_V6}"))?;
    let mut question = question(OUTSIDE, &["example.com"], A, true);
    ensure!(ask(&names.victim, &question)? == Some(reply(NXDOMAIN, &[])), "it was spared");
    let allowed = self::question(OUTSIDE_V6, &["example.com"], A, true);
    ensure!(ask(&names.victim, &allowed)?.as_ref() == Some(&truth), "the allowed peer was hit");
    question.server = other_port;
    ensure!(ask(&names.victim, &question)?.as_ref() == Some(&truth), "another port was hit");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let kchaos = names.inject("--answer nxdomain --ports 5353")?;
    ensure!(ask(&names.victim, &question)? == Some(reply(NXDOMAIN, &[])), "it was spared");
    names.hears_the_truth("example.com", "another port's")?;
    kchaos.interrupt()?.ensure_code(exit::OK)
}

/// The server here answers only the first of two questions, which the victim refuses to understand.
fn dns_spares_what_is_no_single_question() -> anyhow::Result<()> {
    let names = Names::new()?;
    let kchaos = names.inject("--answer drop")?;
    let two = question(OUTSIDE, &["example.com", "example.org"], A, false);
    ensure!(ask(&names.victim, &two)?.is_some(), "a message with two questions was dropped");
    let ended = kchaos.interrupt()?;
    let counts = (ended.outcome("injected")?, ended.outcome("filtered")?);
    ensure!(counts == (0, 1), "{}", ended.output);
    Ok(())
}

fn dns_over_tcp_is_dropped_or_not() -> anyhow::Result<()> {
    let names = Names::new()?;
    let server = SocketAddr::new(OUTSIDE, 53);
    let _listener = names.lab.outside.run(|| std::net::TcpListener::bind(server))??;
    let connects = || -> anyhow::Result<bool> {
        let bind = SocketAddr::new(INSIDE, 0);
        match names.victim.ask(Ask::Connect { bind, to: server, within_ms: 1_500 }) {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains("timed out") => Ok(false),
            Err(error) => Err(error),
        }
    };
    ensure!(connects()?, "no connection to the server before");
    for (options, passes) in [("", false), ("--tcp pass", true)] {
        let kchaos = names.inject(&format!("--answer nxdomain --names example.com {options}"))?;
        ensure!(connects()? == passes, "with `{options}`, TCP gets through: {}", !passes);
        names.hears("example.com", A, &reply(NXDOMAIN, &[]))?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
    }
    ensure!(connects()?, "no connection to the server afterwards");
    Ok(())
}

fn dns_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    let names = Names::new()?;
    let kchaos = names.inject("--answer nxdomain --dry-run")?;
    names.hears_the_truth("example.com", "during a dry run")?;
    let ended = kchaos.interrupt()?;
    let (would, injected) = (ended.outcome("dry_run")?, ended.outcome("injected")?);
    ensure!((would, injected) == (2 * TIMES, 0), "{}", ended.output);
    Ok(())
}

fn dns_hits_each_second_query() -> anyhow::Result<()> {
    let names = Names::new()?;
    let kchaos = names.inject("--answer servfail --every 2")?;
    let question = question(OUTSIDE, &["example.com"], A, true);
    let rcodes = (0..6).map(|_| Ok(ask(&names.victim, &question)?.map(|reply| reply.rcode)));
    let rcodes = rcodes.collect::<anyhow::Result<Vec<_>>>()?;
    let expected = [NOERROR, SERVFAIL].map(Some).repeat(3);
    ensure!(rcodes == expected, "{rcodes:?}");
    kchaos.interrupt()?.ensure_code(exit::OK)
}
