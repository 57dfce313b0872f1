//! One TCP stream between two network namespaces, and what others put in its way.

use std::{
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use kchaos::{
    demo::CLIENTS,
    fault::plan::Plan,
    kernel::{Injection, Kernel, LiveKernel},
    target::Netns,
};

/// How long one measurement takes.
pub const SECONDS: u32 = 2;

/// What a stream came to.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// As received.
    pub bits_per_s: f64,
    /// Segments sent again.
    pub retransmits: f64,
}

/// One stream from this process's cgroup in `netns` to the server.
pub fn stream(netns: &Netns) -> anyhow::Result<Stream> {
    let seconds = SECONDS.to_string();
    let arguments = ["-c", &CLIENTS.to_string(), "-t", &seconds, "-J"];
    let output = netns.run(|| Command::new("iperf3").args(arguments).output())?.context("iperf3")?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("iperf3's report")?;
    let number = |end: &str, field: &str| {
        let value = report["end"][end][field].as_f64();
        value.with_context(|| format!("iperf3: {}", report["error"]))
    };
    Ok(Stream {
        bits_per_s: number("sum_received", "bits_per_second")?,
        retransmits: number("sum_sent", "retransmits")?,
    })
}

/// Measures with a plan in force.
pub fn while_injecting<T>(plan: &Plan, measure: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut injection = LiveKernel::default().inject("bench", plan)?;
    injection.arm(Duration::from_secs(60))?;
    // Nothing is read in the meantime, so the lease ends after two of them: long enough.
    let result = measure();
    let rollback = injection.rollback();
    ensure!(rollback.is_complete(), "rollback incomplete: {rollback:?}");
    result
}

/// A rule of iptables' statistic match, removed with this.
pub struct Drop<'a> {
    netns: &'a Netns,
    chain: &'static str,
    probability: &'static str,
}

impl<'a> Drop<'a> {
    /// Drops with this probability in this chain.
    pub fn new(netns: &'a Netns, chain: &'static str, probability: &'static str) -> anyhow::Result<Self> {
        let rule = Self { netns, chain, probability };
        rule.iptables("-A")?;
        Ok(rule)
    }

    fn iptables(&self, verb: &str) -> anyhow::Result<()> {
        let statistic =
            ["-m", "statistic", "--mode", "random", "--probability", self.probability, "-j", "DROP"];
        let run = || Command::new("iptables").args([verb, self.chain]).args(statistic).status();
        let status = self.netns.run(run)?.context("iptables")?;
        ensure!(status.success(), "iptables {verb} {} failed", self.chain);
        Ok(())
    }
}

impl std::ops::Drop for Drop<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.iptables("-D") {
            eprintln!("{error}");
        }
    }
}

/// An iperf3 server, ended with this.
pub struct Server(Child);

impl Server {
    /// Starts it where the clients of the demo are.
    pub fn start(netns: &Netns) -> anyhow::Result<Self> {
        let address: Ipv4Addr = CLIENTS;
        let spawn =
            || Command::new("iperf3").args(["-s", "-B", &address.to_string()]).stdout(Stdio::null()).spawn();
        let server = Self(netns.run(spawn)?.context("iperf3")?);
        std::thread::sleep(Duration::from_millis(500));
        Ok(server)
    }
}

impl std::ops::Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
