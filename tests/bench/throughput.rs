//! Throughput of one TCP stream between two network namespaces, with nothing, with kchaos attached and with
//! iptables' statistic match on the same path.

use anyhow::Context;
use kchaos::{demo::namespaces, fault::plan::Plan, target::Netns};

use super::{
    BenchCgroup,
    iperf::{Drop, SECONDS, Server, Stream, stream, while_injecting},
    spread,
};

const ROUNDS: usize = 15;

/// What lies on the path.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    Nothing,
    NotATarget,
    TargetPassed,
    Iptables,
}

impl Path {
    const ALL: [Self; 4] = [Self::Nothing, Self::NotATarget, Self::TargetPassed, Self::Iptables];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::NotATarget => "kchaos, not a target",
            Self::TargetPassed => "kchaos, target at 0 %",
            Self::Iptables => "iptables -m statistic at 0 %",
        }
    }
}

/// Runs all cases and prints them against nothing.
pub fn bench() -> anyhow::Result<()> {
    let (sender, receiver) = namespaces().context("network namespaces")?;
    let (target, elsewhere) = (BenchCgroup::new("sender")?, BenchCgroup::new("bystander")?);
    let _server = Server::start(&receiver)?;
    let plan = target.plan("loss", &[("percent", "0%")], &sender)?;
    let mut results = vec![Vec::new(); Path::ALL.len()];
    for round in 0..=ROUNDS {
        for (path, results) in Path::ALL.iter().zip(&mut results) {
            let bits_per_s = measure(*path, &sender, &target, &elsewhere, &plan)?;
            // The first round warms up.
            if round > 0 {
                results.push(bits_per_s);
            }
        }
    }
    println!("one TCP stream over veth ({ROUNDS} rounds of {SECONDS} s); median [smallest, largest]");
    for (path, bits) in Path::ALL.iter().zip(&results) {
        let gbit: Vec<f64> = bits.iter().map(|bits| bits / 1e9).collect();
        let ratios: Vec<f64> = bits.iter().zip(&results[0]).map(|(bits, nothing)| bits / nothing).collect();
        let (rate, ratio) = (spread(&gbit, 2), spread(&ratios, 3));
        println!("  {:<30} {rate:>22} Gbit/s   ratio {ratio}", path.name());
    }
    Ok(())
}

/// One stream, in bits per second as received.
fn measure(
    path: Path,
    sender: &Netns,
    target: &BenchCgroup,
    elsewhere: &BenchCgroup,
    plan: &Plan,
) -> anyhow::Result<f64> {
    // The client inherits our cgroup.
    if path == Path::TargetPassed {
        target.enter()?
    } else {
        elsewhere.enter()?
    }
    let stream = match path {
        Path::Nothing => stream(sender),
        Path::NotATarget | Path::TargetPassed => while_injecting(plan, || stream(sender)),
        Path::Iptables => {
            let _rule = Drop::new(sender, "OUTPUT", "0")?;
            stream(sender)
        }
    };
    stream.map(|Stream { bits_per_s, .. }| bits_per_s)
}
