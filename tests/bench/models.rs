//! Whether what is lost is what was asked for: shares against the binomial distribution, bursts against the theory of
//! their chain.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, ensure};
use kchaos::{
    demo::{CLIENTS, namespaces},
    target::Netns,
};
use nix::sys::socket::{setsockopt, sockopt};
use statrs::distribution::{Binomial, DiscreteCDF};

use super::{BenchCgroup, iperf::while_injecting};

const PERCENTAGES: [&str; 7] = ["0.1%", "0.5%", "1%", "5%", "10%", "25%", "50%"];
/// Chances to begin and to end a bad spell.
const CHAINS: [(f64, f64); 3] = [(0.01, 0.5), (0.01, 0.2), (0.05, 0.1)];
const PACKETS: u64 = 400_000;
/// As many as the receiver's buffer holds.
const AT_ONCE: u64 = 500;
const BUFFER_BYTES: usize = 4 << 20;
/// Means of so many bursts are within four standard errors all but once in 16,000 times.
const STANDARD_ERRORS: f64 = 4.0;

/// Runs all cases and prints them against theory.
pub fn bench() -> anyhow::Result<()> {
    let (sender, receiver) = namespaces().context("network namespaces")?;
    let cgroup = BenchCgroup::new("models")?;
    cgroup.enter()?;
    let wire = Wire::new(&sender, &receiver)?;
    println!("{PACKETS} packets of UDP each; outside of the 99.9 % interval is marked");
    for percent in PERCENTAGES {
        let plan = cgroup.plan("loss", &[("percent", percent)], &sender)?;
        let lost = while_injecting(&plan, || wire.lost(PACKETS))?;
        let count = lost.iter().filter(|lost| **lost).count() as u64;
        let chance = percent.trim_end_matches('%').parse::<f64>()? / 100.0;
        let theory = Binomial::new(chance, PACKETS)?;
        let (least, most) = (theory.inverse_cdf(0.0005), theory.inverse_cdf(0.9995));
        println!(
            "  loss {percent:>5}   lost {count:>7} ({:.4} %), interval {least}..={most} {}",
            count as f64 / PACKETS as f64 * 100.0,
            mark((least..=most).contains(&count))
        );
    }
    for (begin, end) in CHAINS {
        let (p, r) = (format!("{}%", begin * 100.0), format!("{}%", end * 100.0));
        let plan = cgroup.plan("loss", &[("gemodel", &format!("{p},{r}"))], &sender)?;
        let lost = while_injecting(&plan, || wire.lost(PACKETS))?;
        print_bursts(&lost, begin, end);
    }
    Ok(())
}

/// Bursts last 1/r packets on average, and are geometrically distributed (E. N. Gilbert, 1960).
fn print_bursts(lost: &[bool], begin: f64, end: f64) {
    let bursts: Vec<f64> =
        lost.chunk_by(|one, next| one == next).filter(|run| run[0]).map(|run| run.len() as f64).collect();
    let count = bursts.len() as f64;
    let mean = bursts.iter().sum::<f64>() / count;
    let variance = bursts.iter().map(|burst| (burst - mean).powi(2)).sum::<f64>() / count;
    let (expected, deviation) = (1.0 / end, (1.0 - end).sqrt() / end);
    let fits = (mean - expected).abs() < STANDARD_ERRORS * deviation / count.sqrt();
    let share = bursts.iter().sum::<f64>() / lost.len() as f64;
    println!(
        "  gemodel p={begin} r={end}   bursts {count}: mean {mean:.3} (theory {expected:.3}), deviation {:.3} ({deviation:.3}); \
         lost {:.3} % ({:.3} %) {}",
        variance.sqrt(),
        share * 100.0,
        begin / (begin + end) * 100.0,
        mark(fits)
    );
}

fn mark(fits: bool) -> &'static str {
    if fits { "" } else { "  <-- outside" }
}

/// A way from this process's cgroup to the other namespace.
struct Wire {
    ours: UdpSocket,
    theirs: UdpSocket,
}

impl Wire {
    fn new(sender: &Netns, receiver: &Netns) -> anyhow::Result<Self> {
        let theirs = receiver.run(|| UdpSocket::bind(SocketAddr::new(IpAddr::V4(CLIENTS), 0)))??;
        let ours = sender.run(|| UdpSocket::bind("0.0.0.0:0"))??;
        ours.connect(theirs.local_addr()?)?;
        theirs.set_read_timeout(Some(Duration::from_millis(20)))?;
        setsockopt(&theirs, sockopt::RcvBufForce, &BUFFER_BYTES)?;
        Ok(Self { ours, theirs })
    }

    /// Which of so many packets do not arrive, in order. The last of each batch is waited for in vain if it is lost.
    fn lost(&self, count: u64) -> anyhow::Result<Vec<bool>> {
        let mut lost = vec![true; count as usize];
        for first in (0..count).step_by(AT_ONCE as usize) {
            let last = (first + AT_ONCE).min(count) - 1;
            for number in first..=last {
                self.ours.send(&number.to_be_bytes())?;
            }
            let mut packet = [0; 8];
            // On a veth a packet has arrived when the call that sent it returns, or soon.
            while let Ok(8) = self.theirs.recv(&mut packet) {
                let number = u64::from_be_bytes(packet);
                ensure!((first..=last).contains(&number), "packet {number} came late");
                lost[number as usize] = false;
                if number == last {
                    break;
                }
            }
        }
        Ok(lost)
    }
}
