//! A rate against sch_tbf's: what one TCP stream gets through. Where there is fq.

use anyhow::Context;
use kchaos::demo::{CLIENTS, namespaces};

use super::{
    BenchCgroup,
    delay::Netem,
    iperf::{Server, stream_to, while_injecting},
    median,
};

const RATES: [(&str, f64); 2] = [("10mbit", 10.0), ("100mbit", 100.0)];
const ROUNDS: usize = 3;
const SECONDS: u32 = 8;
/// Of a full Ethernet frame, what TCP with timestamps carries (RFC 7323).
const PAYLOAD_SHARE: f64 = 1448.0 / 1514.0;

/// Runs all cases and prints them against tbf.
pub fn bench() -> anyhow::Result<()> {
    let (sender, receiver) = namespaces().context("network namespaces")?;
    let _server = Server::start(&receiver)?;
    let cgroup = BenchCgroup::new("slow")?;
    cgroup.enter()?;
    let goodput = || Ok(stream_to(&sender, (CLIENTS, Server::PORT).into(), 1, SECONDS)?.bits_per_s / 1e6);
    println!("goodput of one TCP stream, as Mbit/s on the wire ({ROUNDS} rounds of {SECONDS} s, medians)");
    for (rate, mbit_per_s) in RATES {
        let plan = cgroup.plan("rate", &[("bandwidth", rate)], &sender)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(while_injecting(&plan, goodput)? / PAYLOAD_SHARE);
            let _tbf = Netem::root(&sender, &format!("tbf rate {rate} burst 64kb latency 200ms"))?;
            theirs.push(goodput()? / PAYLOAD_SHARE);
        }
        let (ours, theirs) = (median(&ours), median(&theirs));
        let off = |measured: f64| (measured / mbit_per_s - 1.0) * 100.0;
        println!(
            "  {rate:>8}   kchaos {ours:>7.2} ({:+.1} %)   tbf {theirs:>7.2} ({:+.1} %)",
            off(ours),
            off(theirs)
        );
    }
    Ok(())
}
