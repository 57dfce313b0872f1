//! dig asks dnsmasq.

use std::{net::IpAddr, process::Command};

use anyhow::{Context, ensure};

use super::{Scene, Server};
use crate::{
    Test,
    controller::exit,
    lab::{Cgroup, OUTSIDE, OUTSIDE_V6},
    tests,
};

pub fn tests() -> Vec<Test> {
    tests![
        RESOLVER on one kernel: dig_hears_of_a_server_in_trouble, dig_hears_forged_addresses, dig_hears_nothing,
            dig_over_tcp_hears_nothing_or_the_truth, dig_hears_of_no_such_name;
        RESOLVER_SOCK on one kernel: dig_over_tcp_is_refused
    ]
}

const SERVERS: [IpAddr; 2] = [OUTSIDE, OUTSIDE_V6];
const NAME: &str = "www.example.com";
const ELSE: &str = "www.example.org";
/// What the server has for all names, by kind.
const TRUTH: [(&str, &str); 2] = [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")];
/// What dig ends with if nobody answers.
const NO_REPLY: i32 = 9;

/// A name server that knows everything.
struct Names {
    scene: Scene,
    _dnsmasq: Server,
}

/// What dig says.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Names {
    fn new() -> anyhow::Result<Self> {
        let scene = Scene::new()?;
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        dnsmasq.args(["--user=root", "--group=root", "--pid-file=", "--log-facility=-", "--bind-interfaces"]);
        dnsmasq.args(TRUTH.map(|(_, address)| format!("--address=/#/{address}")));
        let truth = || Ok(dig(&scene, &scene.neighbours, OUTSIDE, NAME, &["A"])?.code == Some(0));
        let dnsmasq = scene.serve(dnsmasq)?.answers(truth)?;
        Ok(Self { scene, _dnsmasq: dnsmasq })
    }

    fn hears_the_truth(&self, cgroup: &Cgroup, when: &str) -> anyhow::Result<()> {
        for ((kind, address), (server, transport)) in
            TRUTH.into_iter().zip(SERVERS.into_iter().zip(["+tcp", "+notcp"]))
        {
            let said = dig(&self.scene, cgroup, server, NAME, &[kind, transport])?;
            said.ensure(0, &["status: NOERROR", address]).with_context(|| format!("{when}, {server}"))?;
        }
        Ok(())
    }

    /// The truth before and after, and all the while for a neighbour.
    fn during(&self, fault: &str, work: impl Fn(IpAddr) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.hears_the_truth(&self.scene.cgroup, "before")?;
        let kchaos = self.scene.inject(fault)?;
        SERVERS
            .into_iter()
            .try_for_each(|server| work(server).with_context(|| format!("{fault}, {server}")))?;
        self.hears_the_truth(&self.scene.neighbours, "a neighbour, during")?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        ensure!(ended.outcome("injected")? > 0, "{}", ended.output);
        self.hears_the_truth(&self.scene.cgroup, "after")
    }

    /// What the target hears.
    fn dig(&self, server: IpAddr, name: &str, options: &[&str]) -> anyhow::Result<Said> {
        dig(&self.scene, &self.scene.cgroup, server, name, options)
    }
}

fn dig(scene: &Scene, cgroup: &Cgroup, server: IpAddr, name: &str, options: &[&str]) -> anyhow::Result<Said> {
    let server = format!("@{server}");
    // -r: what a user has in ~/.digrc is not asked for.
    let words = [&["dig", "-r", "+tries=1", "+time=1", &server, name][..], options].concat();
    let done = scene.client(cgroup, &words)?.done()?;
    Ok(Said { code: done.code, text: done.output + &done.said })
}

impl Said {
    fn ensure(&self, code: i32, parts: &[&str]) -> anyhow::Result<()> {
        let Self { text, .. } = self;
        ensure!(self.code == Some(code), "dig ended with {:?}, expected {code}: {text}", self.code);
        // dig warns of what it finds odd in an answer.
        ensure!(code != 0 || !text.contains("WARNING"), "{text}");
        parts.iter().try_for_each(|part| {
            ensure!(text.contains(part), "expected `{part}`: {text}");
            Ok(())
        })
    }
}

fn says(answer: &str, status: &str) -> anyhow::Result<()> {
    let names = Names::new()?;
    names.during(&format!("dns --answer {answer} --names example.com"), |server| {
        for (kind, truth) in TRUTH {
            let said = names.dig(server, NAME, &[kind])?;
            said.ensure(0, &[&format!("status: {status}"), "ANSWER: 0"])?;
            ensure!(!said.text.contains(truth), "{}", said.text);
            names.dig(server, ELSE, &[kind])?.ensure(0, &["status: NOERROR", truth])?;
        }
        Ok(())
    })
}

fn dig_hears_of_no_such_name() -> anyhow::Result<()> {
    says("nxdomain", "NXDOMAIN")
}

fn dig_hears_of_a_server_in_trouble() -> anyhow::Result<()> {
    says("servfail", "SERVFAIL")
}

fn dig_hears_forged_addresses() -> anyhow::Result<()> {
    let names = Names::new()?;
    names.during("dns --address 203.0.113.7,2001:db8::7 --ttl 42s", |server| {
        for (kind, forged) in [("A", "203.0.113.7"), ("AAAA", "2001:db8::7")] {
            let said = names.dig(server, NAME, &[kind])?;
            said.ensure(0, &["status: NOERROR", "ANSWER: 1", "\t42\t", forged])?;
        }
        names.dig(server, NAME, &["TXT"])?.ensure(0, &["status: NOERROR", "ANSWER: 0"])
    })
}

fn dig_hears_nothing() -> anyhow::Result<()> {
    let names = Names::new()?;
    names.during("dns --answer drop --names example.com", |server| {
        names.dig(server, NAME, &["A"])?.ensure(NO_REPLY, &["timed out"])?;
        names.dig(server, ELSE, &["A"])?.ensure(0, &[TRUTH[0].1])
    })
}

/// TCP has no names: all of it is dropped, or none.
fn dig_over_tcp_hears_nothing_or_the_truth() -> anyhow::Result<()> {
    let names = Names::new()?;
    names.during("dns --answer nxdomain", |server| {
        names.dig(server, NAME, &["A", "+tcp"])?.ensure(NO_REPLY, &["timed out"])
    })?;
    names.during("dns --answer nxdomain --tcp pass", |server| {
        names.dig(server, NAME, &["A"])?.ensure(0, &["status: NXDOMAIN"])?;
        names.dig(server, NAME, &["A", "+tcp"])?.ensure(0, &[TRUTH[0].1])
    })
}

fn dig_over_tcp_is_refused() -> anyhow::Result<()> {
    let names = Names::new()?;
    names.during("refuse --protocol tcp --ports 53", |server| {
        // It is told, and does not wait in vain.
        let said = names.dig(server, NAME, &["A", "+tcp"])?;
        said.ensure(NO_REPLY, &["connection refused"])?;
        ensure!(!said.text.contains("timed out"), "{}", said.text);
        names.dig(server, NAME, &["A"])?.ensure(0, &[TRUTH[0].1])
    })
}
