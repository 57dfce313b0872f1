//! One TCP stream between two network namespaces, and what others put in its way.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, ensure};
use kchaos::{
    demo::CLIENTS,
    fault::plan::Plan,
    kernel::{Injection, Kernel, LiveKernel},
    target::Netns,
};

/// How long one measurement takes.
pub const SECONDS: u32 = 2;
/// How often a server that is busy is asked again.
const PATIENCE: u32 = 10;

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
    stream_to(netns, SocketAddr::new(IpAddr::V4(CLIENTS), Server::PORT), 1, SECONDS)
}

/// So many streams at once for so long, to the server or to who hands on to it; together.
pub fn stream_to(netns: &Netns, to: SocketAddr, streams: u32, seconds: u32) -> anyhow::Result<Stream> {
    let [address, port] = [to.ip().to_string(), to.port().to_string()];
    let [streams, seconds] = [streams, seconds].map(|number| number.to_string());
    // The first second, in which TCP finds its speed, is left out.
    let arguments = ["-c", &address, "-p", &port, "-t", &seconds, "-P", &streams, "-O", "1", "-J"];
    let mut report = report(netns, &arguments)?;
    // What the measurement before has in its queues may keep the server from hearing of its end.
    for _ in 0..PATIENCE {
        if !report["error"].as_str().is_some_and(|error| error.contains("busy")) {
            break;
        }
        thread::sleep(Duration::from_secs(1));
        report = self::report(netns, &arguments)?;
    }
    let number = |end: &str, field: &str| {
        let value = report["end"][end][field].as_f64();
        value.with_context(|| format!("iperf3: {}", report["error"]))
    };
    Ok(Stream {
        bits_per_s: number("sum_received", "bits_per_second")?,
        retransmits: number("sum_sent", "retransmits")?,
    })
}

fn report(netns: &Netns, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
    let output = netns.run(|| Command::new("iperf3").args(arguments).output())?.context("iperf3")?;
    serde_json::from_slice(&output.stdout).context("iperf3's report")
}

/// Measures with a plan in force, whose counters are read all the while: the lease asks for signs of life.
pub fn while_injecting<T>(plan: &Plan, measure: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut injection = LiveKernel::default().inject("bench", plan)?;
    injection.arm(Duration::from_secs(60))?;
    let (stop, stopped) = mpsc::channel::<()>();
    let (result, rollback) = thread::scope(|scope| {
        let reading = scope.spawn(move || {
            while stopped.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                // An error shows in what is measured, and in the rollback.
                let _ = injection.sample();
            }
            injection.rollback()
        });
        let result = measure();
        drop(stop);
        (result, reading.join())
    });
    let rollback = rollback.map_err(|_| anyhow!("reading counters panicked"))?;
    ensure!(rollback.is_complete(), "rollback incomplete: {rollback:?}");
    result
}

/// A rule of iptables' statistic match, removed with this.
pub struct Drop<'a> {
    netns: &'a Netns,
    chain: &'static str,
    probability: &'static str,
    port: Option<&'static str>,
}

impl<'a> Drop<'a> {
    /// Drops with this probability in this chain.
    pub fn new(netns: &'a Netns, chain: &'static str, probability: &'static str) -> anyhow::Result<Self> {
        Self::add(Self { netns, chain, probability, port: None })
    }

    /// The same for this TCP port only.
    pub fn at_port(
        netns: &'a Netns,
        chain: &'static str,
        probability: &'static str,
        port: &'static str,
    ) -> anyhow::Result<Self> {
        Self::add(Self { netns, chain, probability, port: Some(port) })
    }

    fn add(rule: Self) -> anyhow::Result<Self> {
        rule.iptables("-A")?;
        Ok(rule)
    }

    fn iptables(&self, verb: &str) -> anyhow::Result<()> {
        let statistic =
            ["-m", "statistic", "--mode", "random", "--probability", self.probability, "-j", "DROP"];
        let port = self.port.map(|port| ["-p", "tcp", "--dport", port]);
        let run = || {
            let mut command = Command::new("iptables");
            command.args([verb, self.chain]).args(port.iter().flatten()).args(statistic).status()
        };
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
    /// Where iperf3 listens.
    pub const PORT: u16 = 5201;

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
