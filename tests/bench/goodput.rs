//! Whether loss looks like the wire's: goodput and retransmissions of one TCP stream while 1 % is lost by kchaos as
//! it leaves, while 1 % is dropped where it arrives (the truth), and while 1 % is dropped by the sender's own host,
//! which tells TCP.

use anyhow::Context;
use kchaos::demo::namespaces;

use super::{
    BenchCgroup,
    iperf::{Drop, SECONDS, Server, Stream, stream, while_injecting},
    spread,
};

const ROUNDS: usize = 11;
const ONE_PERCENT: &str = "0.01";

/// Runs all cases and prints them against the truth.
pub fn bench() -> anyhow::Result<()> {
    let (sender, receiver) = namespaces().context("network namespaces")?;
    let cgroup = BenchCgroup::new("lossy")?;
    let _server = Server::start(&receiver)?;
    let plan = cgroup.plan("loss", &[("percent", "1%")], &sender)?;
    cgroup.enter()?;
    let mut results: [Vec<Stream>; 4] = Default::default();
    for _ in 0..ROUNDS {
        results[0].push(stream(&sender)?);
        results[1].push({
            let _rule = Drop::new(&receiver, "INPUT", ONE_PERCENT)?;
            stream(&sender)?
        });
        results[2].push(while_injecting(&plan, || stream(&sender))?);
        results[3].push({
            let _rule = Drop::new(&sender, "OUTPUT", ONE_PERCENT)?;
            stream(&sender)?
        });
    }
    println!("one TCP stream over veth ({ROUNDS} rounds of {SECONDS} s); median [smallest, largest]");
    let names = [
        "nothing lost",
        "1 % dropped on arrival (iptables INPUT)",
        "1 % lost by kchaos, egress",
        "1 % dropped locally (iptables OUTPUT)",
    ];
    for (name, streams) in names.iter().zip(&results) {
        let gbit: Vec<f64> = streams.iter().map(|stream| stream.bits_per_s / 1e9).collect();
        let retransmits: Vec<f64> = streams.iter().map(|stream| stream.retransmits).collect();
        let truth = results[1].iter();
        let ratios: Vec<f64> =
            streams.iter().zip(truth).map(|(s, truth)| s.bits_per_s / truth.bits_per_s).collect();
        println!(
            "  {name:<40} {:>20} Gbit/s   ratio to the truth {}   retransmitted {}",
            spread(&gbit, 2),
            spread(&ratios, 2),
            spread(&retransmits, 0)
        );
    }
    Ok(())
}
