//! Whether a jitter has the distribution that was asked for: the test of Kolmogorov and Smirnov, beside netem's. Where
//! there are fq and netem.

use std::{
    io::IoSliceMut,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail, ensure};
use kchaos::{
    demo::{CLIENTS, namespaces},
    target::Netns,
};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use statrs::distribution::{ContinuousCDF, Normal};

use super::{BenchCgroup, delay::Netem, iperf::while_injecting, median, spread};

const BY_MS: f64 = 100.0;
const JITTER_MS: f64 = 30.0;
const PACKETS: usize = 1_000;
/// A busy machine is late in some of them.
const ROUNDS: usize = 5;
const GAP: Duration = Duration::from_millis(2);
/// More than any is held back.
const QUIET: Duration = Duration::from_millis(600);
/// A distance greater than this divided by the root of the number of packets has a chance of 0.1 %.
const CRITICAL: f64 = 1.949;

/// The chance that a jitter is less than so many times what was asked for.
type Cdf = fn(f64) -> f64;
const DISTRIBUTIONS: [(&str, Cdf); 4] =
    [("uniform", uniform), ("normal", normal), ("pareto", pareto), ("paretonormal", pareto_normal)];

fn uniform(x: f64) -> f64 {
    ((x + 1.0) / 2.0).clamp(0.0, 1.0)
}

fn normal(x: f64) -> f64 {
    Normal::standard().cdf(x)
}

/// Of shape 3, moved and scaled to mean 0 as iproute2's is (netem/pareto.c).
fn pareto(x: f64) -> f64 {
    let y = 1.5 + 0.75 * x;
    if y <= 1.0 { 0.0 } else { 1.0 - y.powi(-3) }
}

/// A quarter of the one and three quarters of the other at the same rank, as iproute2's is (netem/paretonormal.c): found by
/// halving, as it has an inverse alone.
fn pareto_normal(x: f64) -> f64 {
    const HALVINGS: u32 = 40;
    let at = |rank: f64| {
        let pareto = ((1.0 - rank).powf(-1.0 / 3.0) - 1.5) / 0.75;
        (Normal::standard().inverse_cdf(rank) + 3.0 * pareto) / 4.0
    };
    let (mut below, mut above) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let rank = (below + above) / 2.0;
        if at(rank) < x {
            below = rank;
        } else {
            above = rank;
        }
    }
    below
}

/// Runs all cases and prints them against what was asked for.
pub fn bench() -> anyhow::Result<()> {
    let (sender, receiver) = namespaces().context("network namespaces")?;
    let cgroup = BenchCgroup::new("jittered")?;
    cgroup.enter()?;
    let by = format!("{BY_MS}ms");
    let fixed = cgroup.plan("delay", &[("by", &by)], &sender)?;
    let lags = || lags(&sender, &receiver);
    println!(
        "{by} ± {JITTER_MS} ms, {PACKETS} packets, {ROUNDS} rounds, median [smallest, largest]: greatest distance to the distribution asked for, at most {:.4} with 99.9 %; \
         what the machine is late with a delay without jitter is subtracted",
        CRITICAL / (PACKETS as f64).sqrt()
    );
    for (name, cdf) in DISTRIBUTIONS {
        let jitter = format!("{JITTER_MS}ms");
        let given = [("by", &by[..]), ("jitter", &jitter), ("distribution", name), ("order", "free")];
        let jittered = cgroup.plan("delay", &given, &sender)?;
        let distribution = if name == "uniform" { String::new() } else { format!(" distribution {name}") };
        let netem = |options: String| {
            let _netem = Netem::new(&sender, &format!("delay {options} limit 100000"))?;
            lags()
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let late = median(&while_injecting(&fixed, lags)?) - BY_MS;
            ours.push(distance(&while_injecting(&jittered, lags)?, late, cdf));
            let late = median(&netem(by.clone())?) - BY_MS;
            theirs.push(distance(&netem(format!("{by} {jitter}{distribution}"))?, late, cdf));
        }
        println!("  {name:<12} kchaos {:<24} netem {}", spread(&ours, 4), spread(&theirs, 4));
    }
    Ok(())
}

/// The greatest distance between the distribution of these and that which they should have.
fn distance(lags_ms: &[f64], late_ms: f64, cdf: Cdf) -> f64 {
    let mut jitters: Vec<f64> = lags_ms.iter().map(|lag| (lag - late_ms - BY_MS) / JITTER_MS).collect();
    jitters.sort_by(f64::total_cmp);
    let count = jitters.len() as f64;
    let both_sides = |(n, jitter): (usize, &f64)| {
        let expected = cdf(*jitter);
        (expected - n as f64 / count).abs().max((expected - (n + 1) as f64 / count).abs())
    };
    jitters.iter().enumerate().map(both_sides).fold(0.0, f64::max)
}

/// How long packets take from this process's cgroup to the other namespace, in milliseconds: from the call that sends
/// one to when the kernel has received it.
fn lags(sender: &Netns, receiver: &Netns) -> anyhow::Result<Vec<f64>> {
    let theirs = receiver.run(|| UdpSocket::bind(SocketAddr::new(IpAddr::V4(CLIENTS), 0)))??;
    setsockopt(&theirs, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&theirs, sockopt::RcvBufForce, &(4 << 20))?;
    theirs.set_read_timeout(Some(QUIET))?;
    let ours = sender.run(|| UdpSocket::bind("0.0.0.0:0"))??;
    ours.connect(theirs.local_addr()?)?;
    let start = Instant::now();
    for number in 0..PACKETS {
        thread::sleep((start + GAP * number as u32).saturating_duration_since(Instant::now()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
        ours.send(&now.to_be_bytes())?;
    }
    let lags = (0..PACKETS).map(|_| lag(&theirs)).collect::<anyhow::Result<Vec<_>>>();
    let lags = lags.context("not all packets have arrived")?;
    ensure!(lags.iter().all(|lag| *lag > -1.0), "the clock was set meanwhile");
    Ok(lags)
}

fn lag(socket: &UdpSocket) -> anyhow::Result<f64> {
    let mut sent = [0; 8];
    let mut space = nix::cmsg_space!(libc::timespec);
    let mut packet = [IoSliceMut::new(&mut sent)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut packet, Some(&mut space), MsgFlags::empty())?;
    let arrived = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64),
        _ => None,
    });
    let Some(arrived) = arrived else { bail!("a packet without a time") };
    // A double has 256 ns left of a time of today.
    Ok((arrived - u64::from_be_bytes(sent) as f64) / 1e6)
}
