//! Delay against sch_netem's: how exactly it is kept, and what bulk TCP gets through under it. Where there are fq and
//! netem.

use std::process::Command;

use anyhow::{Context, ensure};
use kchaos::{
    demo::{CLIENTS, namespaces},
    fault::plan::Plan,
    target::Netns,
};

use super::{
    BenchCgroup,
    iperf::{Server, stream_to, while_injecting},
    median,
};

const DELAYS_MS: [u32; 4] = [1, 10, 50, 200];
const STREAMS: [u32; 3] = [1, 8, 32];
const ROUNDS: usize = 5;
const PINGS: &str = "50";
/// Long enough for TCP to find its speed under the longest delay.
const SECONDS: u32 = 8;

/// Round-trip times of `ping`, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    mean: f64,
    mdev: f64,
}

/// Runs all cases and prints them against netem.
pub fn bench() -> anyhow::Result<()> {
    let (sender, receiver) = namespaces().context("network namespaces")?;
    let _server = Server::start(&receiver)?;
    let cgroup = BenchCgroup::new("delayed")?;
    cgroup.enter()?;
    let plans = DELAYS_MS
        .map(|delay_ms| cgroup.plan("delay", &[("by", &format!("{delay_ms}ms"))], &sender))
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?;
    let delays: Vec<_> = DELAYS_MS.into_iter().zip(&plans).collect();
    let bare = ping(&sender)?;
    println!("without delay: ping mean {:.3} ms, mdev {:.3} ms", bare.mean, bare.mdev);
    println!("{:>8} {:>8} {:>34} {:>34}", "delay", "", "kchaos", "netem");
    for (delay_ms, plan) in &delays {
        pings(&sender, *delay_ms, plan)?;
    }
    for (delay_ms, plan) in &delays {
        STREAMS.into_iter().try_for_each(|streams| goodput(&sender, *delay_ms, plan, streams))?;
    }
    Ok(())
}

/// Medians, as one late ping in fifty makes an mdev of its own.
fn pings(sender: &Netns, delay_ms: u32, plan: &Plan) -> anyhow::Result<()> {
    let rounds = rounds(sender, delay_ms, plan, || ping(sender))?;
    let of = |pick: fn(&(RoundTrip, RoundTrip)) -> f64| median(&rounds.iter().map(pick).collect::<Vec<_>>());
    println!(
        "{:>8} {:>8} mean {:>9.3} ms, mdev {:>6.3} ms {:>9} {:>9.3} ms, mdev {:>6.3} ms   ratio of mdev {:.2}",
        format!("{delay_ms}ms"),
        "ping",
        of(|round| round.0.mean),
        of(|round| round.0.mdev),
        "mean",
        of(|round| round.1.mean),
        of(|round| round.1.mdev),
        of(|round| round.0.mdev) / of(|round| round.1.mdev)
    );
    Ok(())
}

fn goodput(sender: &Netns, delay_ms: u32, plan: &Plan, streams: u32) -> anyhow::Result<()> {
    let to = (CLIENTS, Server::PORT).into();
    let mbit_per_s = || Ok(stream_to(sender, to, streams, SECONDS)?.bits_per_s / 1e6);
    let rounds = rounds(sender, delay_ms, plan, mbit_per_s)?;
    let of = |pick: fn(&(f64, f64)) -> f64| median(&rounds.iter().map(pick).collect::<Vec<_>>());
    println!(
        "{:>8} {:>8} {:>27.1} Mbit/s {:>27.1} Mbit/s   ratio {:.2}",
        format!("{delay_ms}ms"),
        format!("{streams} TCP"),
        of(|round| round.0),
        of(|round| round.1),
        of(|round| round.0 / round.1)
    );
    Ok(())
}

/// What is measured under kchaos and under netem, in turn.
fn rounds<T>(
    sender: &Netns,
    delay_ms: u32,
    plan: &Plan,
    measure: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<(T, T)>> {
    let theirs = || {
        let _netem = Netem::new(sender, &format!("delay {delay_ms}ms limit 100000"))?;
        measure()
    };
    (0..ROUNDS).map(|_| Ok((while_injecting(plan, &measure)?, theirs()?))).collect()
}

fn ping(netns: &Netns) -> anyhow::Result<RoundTrip> {
    let address = CLIENTS.to_string();
    let ping = || Command::new("ping").args(["-q", "-c", PINGS, "-i", "0.05", &address]).output();
    let output = netns.run(ping)?.context("ping")?;
    let text = String::from_utf8(output.stdout)?;
    // `rtt min/avg/max/mdev = 0.033/0.045/0.086/0.012 ms`, and `, pipe 4` where more than one is on its way
    let numbers = text.lines().find_map(|line| line.strip_prefix("rtt ")?.split(" = ").nth(1));
    let numbers = numbers.and_then(|text| text.split(" ms").next()).with_context(|| text.clone())?;
    let numbers = numbers.split('/').map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
    ensure!(numbers.len() == 4, "{text}");
    Ok(RoundTrip { mean: numbers[1], mdev: numbers[3] })
}

/// A root qdisc of somebody's own, removed with this.
pub struct Netem<'a> {
    netns: &'a Netns,
    device: String,
}

impl<'a> Netem<'a> {
    /// netem with these options.
    pub fn new(netns: &'a Netns, options: &str) -> anyhow::Result<Self> {
        Self::root(netns, &format!("netem {options}"))
    }

    /// Any qdisc as the device's root.
    pub fn root(netns: &'a Netns, qdisc: &str) -> anyhow::Result<Self> {
        let device = netns.devices()?.into_iter().next().context("a device")?.name;
        let root = Self { netns, device };
        root.tc(&format!("add dev {} root {qdisc}", root.device))?;
        Ok(root)
    }

    fn tc(&self, words: &str) -> anyhow::Result<()> {
        let mut tc = Command::new("tc");
        tc.arg("qdisc").args(words.split_whitespace());
        let status = self.netns.run(|| tc.status())?.context("tc")?;
        ensure!(status.success(), "tc qdisc {words} failed");
        Ok(())
    }
}

impl Drop for Netem<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.tc(&format!("del dev {} root", self.device)) {
            eprintln!("{error}");
        }
    }
}
