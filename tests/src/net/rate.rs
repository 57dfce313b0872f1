//! A slower wire: how fast, whose, and what becomes of what does not fit.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};

use crate::{
    Test,
    controller::{self, exit},
    lab::{Cgroup, Lab, OUTSIDE, OUTSIDE_V6},
    lag::{Arrival, Lags, in_a_quiet_moment, in_order},
    stream::Stream,
    tests,
    victim::Victim,
};

const QUIET: Duration = Duration::from_millis(500);
/// A packet of these tests on the wire: 16 bytes, UDP, IPv4 and Ethernet.
pub(super) const FRAME_BITS: f64 = 8.0 * (16.0 + 8.0 + 20.0 + 14.0);
pub(super) const FRAME_BITS_V6: f64 = 8.0 * (16.0 + 8.0 + 40.0 + 14.0);

pub fn tests() -> Vec<Test> {
    tests![
        HOLD on one kernel: rate_of_1_mbit_on_egress_in_ipv6, rate_lets_a_burst_go_at_once,
            rate_loses_what_would_wait_too_long, rate_of_1_mbit_on_egress,
            rate_holds_for_bulk_tcp_and_spares_a_neighbour
    ]
}

fn rate_of_1_mbit_on_egress() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        holds(&cgroup, Lags::to(&lab, &victim, OUTSIDE)?, "", FRAME_BITS)
    })
}

fn rate_of_1_mbit_on_egress_in_ipv6() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        holds(&cgroup, Lags::to(&lab, &victim, OUTSIDE_V6)?, "", FRAME_BITS_V6)
    })
}

/// From the first to the last.
pub fn took_ms(arrivals: &[Arrival]) -> f64 {
    let (first, last) = (arrivals.first().map_or(0.0, |a| a.at_ms), arrivals.last().map_or(0.0, |a| a.at_ms));
    last - first
}

/// Packets handed over at once arrive one after another.
pub(super) fn holds(
    cgroup: &Cgroup,
    mut flow: Lags<'_>,
    options: &str,
    frame_bits: f64,
) -> anyhow::Result<()> {
    const COUNT: u64 = 1_000;
    let before = took_ms(&flow.all(COUNT, Duration::ZERO, QUIET)?);
    let kchaos = controller::inject(&format!("rate --bandwidth 1mbit {options} --on {}", cgroup.target()))?;
    let arrivals = flow.all(COUNT, Duration::ZERO, QUIET)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let after = took_ms(&flow.all(COUNT, Duration::ZERO, QUIET)?);
    let (during, expected) = (took_ms(&arrivals), (COUNT - 1) as f64 * frame_bits / 1000.0);
    println!("{COUNT} packets: {before:.1} ms before, {during:.1} ms during, {after:.1} ms after");
    ensure!((during / expected - 1.0).abs() < 0.05, "they took {during:.1} ms, expected {expected:.1} ms");
    ensure!(before.max(after) < during / 2.0, "{before:.1} ms before, {after:.1} ms after");
    ensure!(in_order(&arrivals), "packets have overtaken others");
    ensure!(ended.outcome("injected")? == COUNT && ended.outcome("failed")? == 0, "{}", ended.output);
    Ok(())
}

/// How many packets go at once after a silence, and how many are sent.
const BURST: usize = 100;
pub(super) const WITH_BURST: u64 = BURST as u64 + 50;
const BURST_KBIT: f64 = 25.0;

/// Options of a rate so low that sending takes no time to speak of.
pub(super) fn burst_options() -> String {
    format!("--bandwidth {BURST_KBIT}kbit --burst {}B", BURST as f64 * FRAME_BITS / 8.0)
}

/// After a silence so many go at once; what follows pays it back, so that the last comes when it would have come if the
/// burst had taken no time at all.
pub(super) fn ensure_burst(arrivals: &[Arrival]) -> anyhow::Result<()> {
    let each_ms = FRAME_BITS / BURST_KBIT;
    let (burst, all) = (took_ms(&arrivals[..BURST]), took_ms(arrivals));
    let expected = (WITH_BURST as usize - BURST) as f64 * each_ms;
    println!("burst {burst:.1} ms, all {all:.1} ms of {expected:.1} ms");
    ensure!(burst < BURST as f64 * each_ms / 4.0, "the burst took {burst:.1} ms");
    ensure!((all / expected - 1.0).abs() < 0.05, "all took {all:.1} ms, expected {expected:.1} ms");
    Ok(())
}

fn rate_lets_a_burst_go_at_once() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
        let kchaos = controller::inject(&format!("rate {} --on {}", burst_options(), cgroup.target()))?;
        let arrivals = flow.all(WITH_BURST, Duration::ZERO, QUIET)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        ensure_burst(&arrivals)
    })
}

/// A full queue loses what comes, and the sender is not told.
fn rate_loses_what_would_wait_too_long() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const COUNT: u64 = 1_000;
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
        let kchaos =
            controller::inject(&format!("rate --bandwidth 100kbit --limit 200ms --on {}", cgroup.target()))?;
        let arrivals = flow.send(COUNT, Duration::ZERO, QUIET)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        // 43 fit into the queue; a slow sender makes room for some more.
        let fits = 200.0 * 100.0 / FRAME_BITS;
        let most = arrivals.iter().map(|arrival| arrival.lag_ms).fold(0.0, f64::max);
        println!("{} of {COUNT} arrived, the last after {most:.1} ms; {fits:.1} fit", arrivals.len());
        ensure!((fits as usize..fits as usize * 3).contains(&arrivals.len()), "{} arrived", arrivals.len());
        ensure!(most < 230.0, "one waited for {most:.1} ms");
        flow.all(COUNT, Duration::ZERO, QUIET).map(drop)
    })
}

fn rate_holds_for_bulk_tcp_and_spares_a_neighbour() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const BYTES: u64 = 2_500_000;
        let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
        let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
        let (hurt, spared) = (Stream::new(&lab, &victim, OUTSIDE)?, Stream::new(&lab, &neighbour, OUTSIDE)?);
        let timed = |stream: &Stream<'_>| {
            let start = Instant::now();
            stream.deliver(BYTES)?;
            anyhow::Ok(start.elapsed().as_secs_f64())
        };
        let before = timed(&hurt)?;
        let kchaos = controller::inject(&format!("rate --bandwidth 10mbit --on {}", cgroup.target()))?;
        let (during, neighbour) = thread::scope(|scope| {
            let neighbour = scope.spawn(|| timed(&spared));
            let during = timed(&hurt)?;
            anyhow::Ok((during, neighbour.join().map_err(|_| anyhow!("delivering panicked"))??))
        })?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        let after = timed(&hurt)?;
        // Full segments: 1448 bytes of 1514 with time stamps; the last is acknowledged at once.
        let expected = BYTES as f64 * 8.0 / 10e6 * 1514.0 / 1448.0;
        println!(
            "{before:.2} s before, {during:.2} s during ({expected:.2} expected), {after:.2} s after; neighbour {neighbour:.2} s"
        );
        ensure!((during / expected - 1.0).abs() < 0.05, "it took {during:.2} s, expected {expected:.2} s");
        let slowest = before.max(after).max(neighbour);
        ensure!(
            slowest < during / 2.0,
            "{before:.2} s before, {after:.2} s after, {neighbour:.2} s for the neighbour"
        );
        Ok(())
    })
}
