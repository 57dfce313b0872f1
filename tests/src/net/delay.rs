//! Packets that are held back: how long, whose, in which order, and what is left of it.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use kchaos::{kernel::Injection, target::root_qdisc::RootQdisc};
use nix::sys::signal::Signal;

use crate::{
    Test,
    controller::{self, exit},
    foreign::Foreign,
    injection,
    lab::{Cgroup, DEVICE, Lab, OUTSIDE, OUTSIDE_V6},
    lag::{Arrival, Lags, in_a_quiet_moment, in_order, lags, median, spread},
    qdisc,
    snapshot::Snapshot,
    stream::Stream,
    tests,
    victim::{Ask, Victim},
};

pub(super) const COUNT: u64 = 100;
pub(super) const GAP: Duration = Duration::from_millis(5);
/// Longer than any packet in here is held back.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// What the wire takes by itself, on a busy machine or in a guest that is emulated.
const WIRE_MS: f64 = 4.0;
/// How near the median must be.
pub(super) const NEAR_MS: f64 = 2.0;
/// A lease lasts 3 s (`chaos_common::lease::LEASE_NS`); a busy machine may look a moment late.
pub(super) const LEASE: Duration = Duration::from_millis(3_500);
/// A watchdog waits for what is held back.
pub(super) const WATCHDOG: Duration = Duration::from_secs(5);

pub fn tests() -> Vec<Test> {
    tests![
        HOLD: delay_of_50_ms_on_egress;
        HOLD on one kernel: sigkill_ends_delay_and_the_watchdog_removes_fq, delay_of_half_of_the_packets, delay_can_be_limited_to_a_port,
            delay_in_a_dry_run_is_only_counted, delay_jitter_may_change_the_order,
            delay_jitter_has_its_distribution, delay_with_a_seed_is_the_same_again,
            delay_does_not_replace_a_root_qdisc_of_somebody, delays_of_two_injections_are_refused,
            delay_and_loss_of_two_injections_add_up, sigstop_ends_delay_within_the_lease, delay_and_rate_add_up,
            delays_add_up, delay_of_50_ms_on_egress_in_ipv6, delay_spares_a_neighbour,
            delay_jitter_keeps_the_order, delay_by_clsact_leaves_marks_alone, delay_uses_an_fq_as_it_is,
            what_is_held_back_arrives_after_the_end, delay_leaves_the_device_as_it_was;
        HOLD_TCX on one kernel: delay_by_tcx_leaves_marks_alone;
        HOLD_NETEM on one kernel: delay_keeps_bulk_tcp_as_fast_as_netem
    ]
}

/// Half of the packets take so long; never less, and not much more than timers are late here.
pub(super) fn is_near(when: &str, lags: &mut Lags<'_>, expected_ms: f64) -> anyhow::Result<()> {
    in_a_quiet_moment(|| is_near_now(when, lags, expected_ms))
}

fn is_near_now(when: &str, lags: &mut Lags<'_>, expected_ms: f64) -> anyhow::Result<()> {
    let arrivals = lags.all(COUNT, GAP, QUIET)?;
    let (median, late) = (median(&arrivals), lags.timers_late_ms);
    let (least, most) =
        if expected_ms > 0.0 { (expected_ms - 0.1, expected_ms + NEAR_MS) } else { (0.0, WIRE_MS) };
    println!("{when}: median {median:.3} ms; timers are {late:.3} ms late");
    ensure!(
        (least..most + late).contains(&median),
        "{when}: half of the packets took {median:.3} ms or more, expected {expected_ms} ms and {late:.3} ms too late"
    );
    Ok(())
}

/// Delayed while it is injected, and neither before nor afterwards.
pub(super) fn delays(lags: &mut Lags<'_>, arguments: &str, expected_ms: f64) -> anyhow::Result<()> {
    is_near("before", lags, 0.0)?;
    let kchaos = controller::inject(arguments)?;
    let before = lags.sent();
    is_near("during", lags, expected_ms)?;
    let sent = lags.sent() - before;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    is_near("after", lags, 0.0)?;
    let (injected, failed) = (ended.outcome("injected")?, ended.outcome("failed")?);
    ensure!((injected, failed) == (sent, 0), "{injected} of {sent} packets delayed, {failed} failed");
    Ok(())
}

fn delay_of_50_ms_on_egress() -> anyhow::Result<()> {
    delay_of_50_ms(OUTSIDE)
}

fn delay_of_50_ms_on_egress_in_ipv6() -> anyhow::Result<()> {
    delay_of_50_ms(OUTSIDE_V6)
}

fn delay_of_50_ms(address: IpAddr) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut lags = Lags::to(&lab, &victim, address)?;
    delays(&mut lags, &format!("delay --by 50ms --on {}", cgroup.target()), 50.0)
}

fn delay_spares_a_neighbour() -> anyhow::Result<()> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    let (mut hurt, mut spared) = (Lags::to(&lab, &victim, OUTSIDE)?, Lags::to(&lab, &neighbour, OUTSIDE)?);
    let kchaos = controller::inject(&format!("delay --by 50ms --on {}", cgroup.target()))?;
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| is_near("the neighbour", &mut spared, 0.0));
        is_near("during", &mut hurt, 50.0)?;
        neighbour.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    is_near("after", &mut hurt, 0.0)
}

/// Each second packet, by the pattern that all faults have.
fn delay_of_half_of_the_packets() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
        let kchaos = controller::inject(&format!("delay --by 50ms --every 2 --on {}", cgroup.target()))?;
        let arrivals = flow.all(COUNT, GAP, QUIET)?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        let late = |arrival: &&Arrival| arrival.lag_ms > 40.0;
        let odd = arrivals.iter().filter(late).filter(|arrival| arrival.number % 2 == 1).count() as u64;
        let all = arrivals.iter().filter(late).count() as u64;
        ensure!(
            (odd, all) == (COUNT / 2, COUNT / 2),
            "{all} packets were late, {odd} of them each second one"
        );
        ensure!(ended.outcome("injected")? == COUNT / 2, "{}", ended.output);
        is_near("after", &mut flow, 0.0)
    })
}

fn delay_can_be_limited_to_a_port() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let (mut hurt, mut spared) = (Lags::to(&lab, &victim, OUTSIDE)?, Lags::to(&lab, &victim, OUTSIDE)?);
    let kchaos =
        controller::inject(&format!("delay --by 50ms --ports {} --on {}", hurt.port()?, cgroup.target()))?;
    is_near("the port", &mut hurt, 50.0)?;
    is_near("another port", &mut spared, 0.0)?;
    kchaos.interrupt()?.ensure_code(exit::OK)
}

/// Nothing is delayed, and nothing of the device is changed.
fn delay_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let before = qdisc::root(&lab.inside, DEVICE)?;
    let kchaos = controller::inject(&format!("delay --by 50ms --dry-run --on {}", cgroup.target()))?;
    is_near("during", &mut flow, 0.0)?;
    ensure!(qdisc::root(&lab.inside, DEVICE)? == before, "a dry run has changed the root qdisc");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("dry_run")? == flow.sent() && ended.outcome("injected")? == 0, "{}", ended.output);
    Ok(())
}

/// What `count` packets make of a delay with these options.
fn with(options: &str, count: u64) -> anyhow::Result<Vec<Arrival>> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    during(Lags::to(&lab, &victim, OUTSIDE)?, &cgroup, options, count)
}

pub(super) fn during(
    mut flow: Lags<'_>,
    cgroup: &Cgroup,
    options: &str,
    count: u64,
) -> anyhow::Result<Vec<Arrival>> {
    is_near("before", &mut flow, 0.0)?;
    let kchaos = controller::inject(&format!("delay {options} --on {}", cgroup.target()))?;
    let mut arrivals = flow.all(count, GAP, QUIET)?;
    // What is left is the fault's.
    arrivals.iter_mut().for_each(|arrival| arrival.lag_ms -= flow.timers_late_ms);
    println!("timers are {:.3} ms late", flow.timers_late_ms);
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    is_near("after", &mut flow, 0.0)?;
    Ok(arrivals)
}

pub(super) fn ensure_within(lags: &[f64], from_ms: f64, to_ms: f64) -> anyhow::Result<()> {
    let late = lags.iter().filter(|lag| **lag > to_ms + NEAR_MS).count();
    let early = lags.iter().filter(|lag| **lag < from_ms - NEAR_MS).count();
    // The machine may be late with a few more than it is late with most.
    ensure!(early == 0 && late * 20 <= lags.len(), "{early} before {from_ms} ms, {late} after {to_ms} ms");
    Ok(())
}

fn delay_jitter_keeps_the_order() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let arrivals = with("--by 50ms --jitter 20ms", 200)?;
        ensure!(in_order(&arrivals), "packets have overtaken others");
        let (mean, deviation) = spread(&arrivals);
        println!("kept in order: {mean:.2} ± {deviation:.2} ms");
        ensure_within(&lags(&arrivals), 30.0, 70.0)?;
        // Those that wait for others are later than by themselves.
        ensure!(mean > 50.0 && deviation > 4.0, "{mean:.2} ± {deviation:.2} ms");
        Ok(())
    })
}

fn delay_jitter_may_change_the_order() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let arrivals = with("--by 50ms --jitter 20ms --order free", 400)?;
        ensure!(!in_order(&arrivals), "no packet has overtaken another");
        let (mean, deviation) = spread(&arrivals);
        println!("in any order: {mean:.2} ± {deviation:.2} ms");
        ensure_within(&lags(&arrivals), 30.0, 70.0)?;
        // 20 ms / √3; the mean of 400 has a standard error of 0.6 ms.
        ensure!(
            (48.0..54.0).contains(&mean) && (9.5..13.6).contains(&deviation),
            "{mean:.2} ± {deviation:.2} ms"
        );
        Ok(())
    })
}

/// A Pareto jitter: most packets somewhat earlier than the delay, few much later.
fn delay_jitter_has_its_distribution() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let arrivals = with("--by 50ms --jitter 20ms --distribution pareto --order free --seed 7", 400)?;
        ensure_within(&lags(&arrivals), 50.0 - 20.0 * 2.0 / 3.0, 130.0)?;
        let share = |above: f64| {
            arrivals.iter().filter(|arrival| arrival.lag_ms > above).count() as f64 / arrivals.len() as f64
        };
        println!("pareto: {:.3} later than the delay, {:.3} much later", share(55.0), share(80.0));
        // A quarter of a jitter above the mean are (1.5 + 0.25 · 3/4)^-3 = 21 %, one and a half (1.5 + 1.5 · 3/4)^-3 = 5.5 %.
        ensure!((0.12..0.32).contains(&share(55.0)), "{} are later", share(55.0));
        ensure!((0.02..0.11).contains(&share(80.0)), "{} are much later", share(80.0));
        Ok(())
    })
}

fn delay_with_a_seed_is_the_same_again() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let by_number = |seed: u32| {
            let mut arrivals = with(&format!("--by 50ms --jitter 40ms --order free --seed {seed}"), COUNT)?;
            arrivals.sort_by_key(|arrival| arrival.number);
            anyhow::Ok(lags(&arrivals))
        };
        let near = |one: &[f64], other: &[f64]| {
            one.iter().zip(other).filter(|(one, other)| (**one - **other).abs() < 2.0 * NEAR_MS).count() * 10
                > one.len() * 9
        };
        let first = by_number(42)?;
        ensure!(near(&first, &by_number(42)?), "the same seed has other delays");
        ensure!(!near(&first, &by_number(43)?), "another seed has the same delays");
        Ok(())
    })
}

/// What others have marked stays marked, though it is a copy that is sent.
fn leaves_marks_alone(
    mechanism: &str,
    attach: fn(&mut Foreign, &Lab) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    const MARK: u32 = 0x0bad_cafe;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    victim.ask(Ask::Mark { socket: flow.socket, mark: MARK })?;
    let mut foreign = Foreign::counting_mark(MARK as i32)?;
    attach(&mut foreign, &lab)?;
    is_near("before", &mut flow, 0.0)?;
    let before = foreign.seen()?;
    ensure!(before == flow.sent(), "{before} of {} packets had the mark before", flow.sent());
    let kchaos =
        controller::inject(&format!("delay --by 50ms --mechanism {mechanism} --on {}", cgroup.target()))?;
    is_near("during", &mut flow, 50.0)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let all = foreign.seen()?;
    ensure!(all == flow.sent(), "{all} of {} packets had the mark", flow.sent());
    Ok(())
}

fn delay_by_tcx_leaves_marks_alone() -> anyhow::Result<()> {
    leaves_marks_alone("tcx-egress", |foreign, lab| foreign.attach_tcx(&lab.inside))
}

fn delay_by_clsact_leaves_marks_alone() -> anyhow::Result<()> {
    leaves_marks_alone("clsact-egress", |foreign, lab| foreign.attach_clsact(&lab.inside))
}

fn delay_leaves_the_device_as_it_was() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 50ms --on {}", cgroup.target()))?;
    ensure!(before != Snapshot::take(&lab, &[&cgroup])?, "a snapshot does not show the qdisc");
    ensure!(qdisc::root(&lab.inside, DEVICE)? == RootQdisc::Ours, "the root qdisc is not ours");
    is_near("during", &mut flow, 50.0)?;
    let pid = kchaos.pid();
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

fn delay_uses_an_fq_as_it_is() -> anyhow::Result<()> {
    const HANDLE: u16 = 0x77;
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    qdisc::configure(&lab.inside, DEVICE, HANDLE, "fq", None)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    is_near("before", &mut flow, 0.0)?;
    let kchaos = controller::inject(&format!("delay --by 50ms --on {}", cgroup.target()))?;
    ensure!(matches!(qdisc::root(&lab.inside, DEVICE)?, RootQdisc::Fq(_)), "it is no longer theirs");
    is_near("during", &mut flow, 50.0)?;
    let pid = kchaos.pid();
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    is_near("after", &mut flow, 0.0)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

fn delay_does_not_replace_a_root_qdisc_of_somebody() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let _victim = Victim::start(&lab, &cgroup)?;
    qdisc::configure(&lab.inside, DEVICE, 0x77, "pfifo", None)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let refused = controller::run(&format!("inject delay --by 50ms --on {}", cgroup.target()))?;
    refused.ensure_refused(&["pfifo 77:", "does not replace it", DEVICE])?;
    ensure!(before == Snapshot::take(&lab, &[&cgroup])?, "a refused fault has changed something");
    Ok(())
}

/// The first to end would take away what the other needs.
fn delays_of_two_injections_are_refused() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let first = controller::inject(&format!("delay --by 50ms --on {}", cgroup.target()))?;
    let second = controller::run(&format!("inject rate --bandwidth 1mbit --on {}", cgroup.target()))?;
    second.ensure_refused(&["another injection", DEVICE])?;
    is_near("during", &mut flow, 50.0)?;
    first.interrupt()?.ensure_code(exit::OK)
}

/// Whichever comes first, the other sees the same packets.
fn delay_and_loss_of_two_injections_add_up() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
        let (loss, delay) = (
            format!("loss --every 4 --on {}", cgroup.target()),
            format!("delay --by 50ms --on {}", cgroup.target()),
        );
        for (first, second) in [(&loss, &delay), (&delay, &loss)] {
            let (one, other) = (controller::inject(first)?, controller::inject(second)?);
            let arrivals = flow.send(COUNT, GAP, QUIET)?;
            other.interrupt()?.ensure_code(exit::OK)?;
            one.interrupt()?.ensure_code(exit::OK)?;
            let (count, median) = (arrivals.len() as u64, median(&arrivals));
            ensure!(count == COUNT * 3 / 4, "{first}, then {second}: {count} of {COUNT} packets arrived");
            let most = 50.0 + NEAR_MS + flow.timers_late_ms;
            ensure!((49.9..most).contains(&median), "{first}, then {second}: they took {median:.3} ms");
        }
        is_near("after", &mut flow, 0.0)
    })
}

fn sigkill_ends_delay_and_the_watchdog_removes_fq() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 50ms --on {}", cgroup.target()))?;
    is_near("during", &mut flow, 50.0)?;
    let pid = kchaos.pid();
    let killed = Instant::now();
    kchaos.kill()?;
    passes_within(LEASE, killed, &mut flow)?;
    while before.ensure_restored(&lab, &[&cgroup], pid).is_err() && killed.elapsed() < WATCHDOG {
        thread::sleep(Duration::from_millis(50));
    }
    before.ensure_restored(&lab, &[&cgroup], pid)?;
    controller::run("sweep")?.ensure_code(exit::OK)?;
    is_near("after", &mut flow, 0.0)
}

/// Packets are no longer held back, counted from `since`. Some may have been under way when their qdisc went.
pub(super) fn passes_within(limit: Duration, since: Instant, flow: &mut Lags<'_>) -> anyhow::Result<()> {
    loop {
        let asked = since.elapsed();
        let arrivals = flow.send(1, Duration::ZERO, Duration::from_millis(100))?;
        if arrivals.iter().any(|arrival| arrival.lag_ms < 25.0) {
            println!("no longer delayed after {asked:?}");
            return Ok(());
        }
        ensure!(asked < limit, "packets are still held back after {asked:?}");
    }
}

fn sigstop_ends_delay_within_the_lease() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 50ms --on {}", cgroup.target()))?;
    is_near("during", &mut flow, 50.0)?;
    let (pid, stopped) = (kchaos.pid(), Instant::now());
    kchaos.signal(Signal::SIGSTOP)?;
    passes_within(LEASE, stopped, &mut flow)?;
    is_near("while the controller is stopped", &mut flow, 0.0)?;
    kchaos.signal(Signal::SIGCONT)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

/// The qdisc is not taken away under the packets that it holds.
fn what_is_held_back_arrives_after_the_end() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 400ms --on {}", cgroup.target()))?;
    let arrivals = thread::scope(|scope| {
        let ends = scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            kchaos.interrupt()
        });
        let arrivals = flow.all(50, Duration::ZERO, Duration::from_secs(1))?;
        ends.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?.ensure_code(exit::OK)?;
        anyhow::Ok(arrivals)
    })?;
    ensure!(
        lags(&arrivals).iter().all(|lag| *lag >= 399.9),
        "some have not been held back: {:?}",
        lags(&arrivals)
    );
    Ok(())
}

/// Several faults in one injection, which the command line has no way to ask for.
fn with_faults(
    faults: &[(&'static str, &[(&'static str, &str)])],
    count: u64,
) -> anyhow::Result<Vec<Arrival>> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    is_near("before", &mut flow, 0.0)?;
    let mut injection = injection::inject(&cgroup, faults)?;
    injection.arm(Duration::from_secs(2))?;
    let arrivals = flow.all(count, Duration::ZERO, QUIET)?;
    let rollback = injection.rollback();
    ensure!(rollback.is_complete(), "{rollback:?}");
    is_near("after", &mut flow, 0.0)?;
    Ok(arrivals)
}

/// As if the slower wire were also longer.
fn delay_and_rate_add_up() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const FRAME_BITS: f64 = 8.0 * (16.0 + 8.0 + 20.0 + 14.0);
        let faults: [(_, &[_]); 2] = [("delay", &[("by", "50ms")]), ("rate", &[("bandwidth", "1mbit")])];
        let arrivals = with_faults(&faults, 400)?;
        let took = |at: usize| arrivals[at].at_ms - arrivals[0].at_ms;
        let expected = 399.0 * FRAME_BITS / 1000.0;
        println!(
            "the first after {:.1} ms, the last {:.1} ms later ({expected:.1} expected)",
            arrivals[0].lag_ms,
            took(399)
        );
        ensure!(
            arrivals[0].lag_ms > 50.0 && in_order(&arrivals),
            "the first took {:.1} ms",
            arrivals[0].lag_ms
        );
        ensure!((took(399) / expected - 1.0).abs() < 0.05, "{:.1} ms, expected {expected:.1} ms", took(399));
        Ok(())
    })
}

fn delays_add_up() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let faults: [(_, &[_]); 2] =
            [("delay", &[("by", "20ms")]), ("delay", &[("by", "100ms"), ("every", "2")])];
        let mut arrivals = with_faults(&faults, COUNT)?;
        arrivals.sort_by_key(|arrival| arrival.number);
        for arrival in &arrivals {
            let least = if arrival.number % 2 == 1 { 120.0 } else { 20.0 };
            let near = (least - 0.1..least + 60.0).contains(&arrival.lag_ms);
            ensure!(near, "packet {} took {:.1} ms, expected {least} ms", arrival.number, arrival.lag_ms);
        }
        Ok(())
    })
}

/// How long so many bytes take, on a connection of its own.
pub fn delivery(lab: &Lab, victim: &Victim, bytes: u64) -> anyhow::Result<Duration> {
    let stream = Stream::new(lab, victim, OUTSIDE)?;
    stream.deliver(bytes / 8)?; // the window opens
    let start = Instant::now();
    stream.deliver(bytes)?;
    Ok(start.elapsed())
}

/// A packet that waits with its socket keeps TCP from sending more; a copy does not.
fn delay_keeps_bulk_tcp_as_fast_as_netem() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const BYTES: u64 = 16 << 20;
        let mbit_per_s = |took: Duration| BYTES as f64 * 8e-6 / took.as_secs_f64();
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let before = mbit_per_s(delivery(&lab, &victim, BYTES)?);
        let kchaos = controller::inject(&format!("delay --by 50ms --on {}", cgroup.target()))?;
        let ours = mbit_per_s(delivery(&lab, &victim, BYTES)?);
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        ensure!(ended.outcome("failed")? == 0, "{}", ended.output);
        qdisc::configure(&lab.inside, DEVICE, 0x77, "netem", Some(qdisc::netem_delay(50)))?;
        let netem = mbit_per_s(delivery(&lab, &victim, BYTES)?);
        println!("Mbit/s: {before:.0} without a fault, {ours:.1} with it, {netem:.1} with netem");
        ensure!(ours > netem / 2.0, "{ours:.1} Mbit/s, with netem {netem:.1}");
        Ok(())
    })
}
