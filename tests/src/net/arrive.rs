//! What arrives and is held back: how long, whose, at what rate, in which order, who sees it, and what is left of it.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use chaos_common::net::Direction;
use kchaos::{
    kernel::Injection,
    target::{Netns, netns::has_our_ifb},
};

use super::{
    delay::{GAP, QUIET, WATCHDOG, delays, during, ensure_within, is_near, passes_within},
    numbers::Numbers,
    rate::{FRAME_BITS, FRAME_BITS_V6, holds},
    reorder::each_fifth,
};
use crate::{
    Test,
    controller::{self, Ended, exit},
    foreign::{At, Foreign},
    injection,
    lab::{Cgroup, INSIDE, Lab, OUTSIDE, OUTSIDE_V6, PEER_DEVICE, run_in},
    lag::{Lags, in_a_quiet_moment, in_order, lags, spread},
    qdisc,
    safety::LEASE,
    snapshot::Snapshot,
    stream::Stream,
    tests,
    tun::{FAR, NEAR, Tun},
    victim::{Answer, Ask, Socket, Victim, program},
};

pub fn tests() -> Vec<Test> {
    tests![
        HOLD_INGRESS: delay_of_50_ms_on_ingress;
        HOLD_INGRESS on one kernel: sigkill_ends_delay_on_ingress_and_the_watchdog_removes_the_ifb, delay_jitter_on_ingress_keeps_the_order, delay_on_ingress_of_each_copy,
            rate_on_ingress_holds_for_bulk_tcp_and_spares_a_neighbour,
            reorder_on_ingress_lets_each_fifth_overtake, delay_of_50_ms_on_ingress_in_ipv6,
            delay_on_ingress_spares_a_neighbour, delay_both_ways_adds_up, rate_of_1_mbit_on_ingress,
            sigkill_of_a_delay_on_ingress_by_clsact_loses_nothing,
            what_is_held_back_on_ingress_arrives_after_the_end,
            delay_on_ingress_is_seen_by_clsact_filters_before_it,
            delay_on_ingress_leaves_the_namespace_as_it_was;
        HOLD_INGRESS on one kernel: delay_on_ingress_can_be_limited_to_a_port,
            delay_on_ingress_in_a_dry_run_is_only_counted, delay_jitter_on_ingress_may_change_the_order,
            delay_on_ingress_is_planned_as_a_change, delays_on_ingress_of_two_injections_are_refused,
            rate_of_1_mbit_on_ingress_in_ipv6, rate_both_ways_is_a_wire_each_way;
        HOLD_INGRESS_TCX on one kernel: delay_on_ingress_is_seen_by_tcx_programs_before_it,
            delay_on_ingress_fails_without_link_layer, without_its_ifb_a_delay_on_ingress_loses_nothing;
        HOLD_INGRESS_NETEM on one kernel: delay_on_ingress_keeps_bulk_tcp_as_fast_as_netem;
        HOLD_INGRESS_TUN on one kernel: delay_on_ingress_without_link_layer_by_clsact
    ]
}

/// A target with a flow to it.
fn target(lab: &Lab) -> anyhow::Result<(Cgroup, Victim)> {
    let cgroup = Cgroup::new()?;
    let victim = Victim::start(lab, &cgroup)?;
    Ok((cgroup, victim))
}

fn delay_of_50_ms_on_ingress() -> anyhow::Result<()> {
    delay_of_50_ms(OUTSIDE)
}

fn delay_of_50_ms_on_ingress_in_ipv6() -> anyhow::Result<()> {
    delay_of_50_ms(OUTSIDE_V6)
}

fn delay_of_50_ms(address: IpAddr) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let mut lags = Lags::from(&lab, &victim, address)?;
    delays(&mut lags, &format!("delay --by 50ms --direction ingress --on {}", cgroup.target()), 50.0)
}

fn delay_on_ingress_spares_a_neighbour() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let ((cgroup, victim), (_neighbours, neighbour)) = (target(&lab)?, target(&lab)?);
    let mut hurt = Lags::from(&lab, &victim, OUTSIDE)?;
    let mut spared = Lags::from(&lab, &neighbour, OUTSIDE)?;
    let mut leaving = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos =
        controller::inject(&format!("delay --by 50ms --direction ingress --on {}", cgroup.target()))?;
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| is_near("the neighbour", &mut spared, 0.0));
        is_near("during", &mut hurt, 50.0)?;
        neighbour.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    is_near("what leaves", &mut leaving, 0.0)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    is_near("after", &mut hurt, 0.0)
}

fn delay_on_ingress_can_be_limited_to_a_port() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let (mut hurt, mut spared) = (Lags::from(&lab, &victim, OUTSIDE)?, Lags::from(&lab, &victim, OUTSIDE)?);
    let kchaos = controller::inject(&format!(
        "delay --by 50ms --direction ingress --ports {} --on {}",
        hurt.port()?,
        cgroup.target()
    ))?;
    is_near("the port", &mut hurt, 50.0)?;
    is_near("another port", &mut spared, 0.0)?;
    kchaos.interrupt()?.ensure_code(exit::OK)
}

fn has_ifb(netns: &Netns) -> anyhow::Result<bool> {
    Ok(netns.run(has_our_ifb)?)
}

fn delay_on_ingress_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let mut flow = Lags::from(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!(
        "delay --by 50ms --direction ingress --dry-run --on {}",
        cgroup.target()
    ))?;
    is_near("during", &mut flow, 0.0)?;
    ensure!(!has_ifb(&lab.inside)?, "a dry run has made an ifb");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("dry_run")? == flow.sent() && ended.outcome("injected")? == 0, "{}", ended.output);
    Ok(())
}

fn delay_jitter_on_ingress_keeps_the_order() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let lab = Lab::new()?;
        let (cgroup, victim) = target(&lab)?;
        let flow = Lags::from(&lab, &victim, OUTSIDE)?;
        let arrivals = during(flow, &cgroup, "--by 50ms --jitter 20ms --direction ingress", 200)?;
        ensure!(in_order(&arrivals), "packets have overtaken others");
        let (mean, deviation) = spread(&arrivals);
        println!("kept in order: {mean:.2} ± {deviation:.2} ms");
        ensure_within(&lags(&arrivals), 30.0, 70.0)?;
        ensure!(mean > 50.0 && deviation > 4.0, "{mean:.2} ± {deviation:.2} ms");
        Ok(())
    })
}

fn delay_jitter_on_ingress_may_change_the_order() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let lab = Lab::new()?;
        let (cgroup, victim) = target(&lab)?;
        let flow = Lags::from(&lab, &victim, OUTSIDE)?;
        let options = "--by 50ms --jitter 20ms --order free --direction ingress";
        let arrivals = during(flow, &cgroup, options, 400)?;
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

/// Each way takes so long, and there and back twice that.
fn delay_both_ways_adds_up() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let (mut arriving, mut leaving) =
        (Lags::from(&lab, &victim, OUTSIDE)?, Lags::to(&lab, &victim, OUTSIDE)?);
    let stream = Stream::new(&lab, &victim, OUTSIDE)?;
    // The machine may be late with one of them, a delay is with each.
    let round_trip = || {
        let once = |_| {
            let start = Instant::now();
            stream.deliver(1).map(|()| start.elapsed())
        };
        let times = (0..5).map(once).collect::<Result<Vec<_>, _>>()?;
        times.into_iter().min().context("none was asked for")
    };
    let before = round_trip()?;
    let kchaos = controller::inject(&format!("delay --by 50ms --direction both --on {}", cgroup.target()))?;
    is_near("arriving", &mut arriving, 50.0)?;
    is_near("leaving", &mut leaving, 50.0)?;
    let during = round_trip()?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let after = round_trip()?;
    println!("there and back: {before:?} before, {during:?} during, {after:?} after");
    ensure!(during >= Duration::from_millis(100), "there and back took {during:?}");
    ensure!(before.max(after) < Duration::from_millis(50), "{before:?} before, {after:?} after");
    is_near("arriving, after", &mut arriving, 0.0)?;
    is_near("leaving, after", &mut leaving, 0.0)
}

fn delay_on_ingress_leaves_the_namespace_as_it_was() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::from(&lab, &victim, OUTSIDE)?;
    let kchaos =
        controller::inject(&format!("delay --by 50ms --direction ingress --on {}", cgroup.target()))?;
    ensure!(before != Snapshot::take(&lab, &[&cgroup])?, "a snapshot does not show the ifb");
    ensure!(has_ifb(&lab.inside)? && !has_ifb(&lab.outside)?, "the ifb is not where it belongs");
    is_near("during", &mut flow, 50.0)?;
    let pid = kchaos.pid();
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

/// A packet would be held back by one of them only. What leaves is another matter.
fn delays_on_ingress_of_two_injections_are_refused() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let (mut arriving, mut leaving) =
        (Lags::from(&lab, &victim, OUTSIDE)?, Lags::to(&lab, &victim, OUTSIDE)?);
    let on = format!("--on {}", cgroup.target());
    let first = controller::inject(&format!("delay --by 50ms --direction ingress {on}"))?;
    let refused = controller::run(&format!("inject rate --bandwidth 1mbit --direction ingress {on}"))?;
    refused.ensure_refused(&["another injection", "kchaos-ifb0"])?;
    let second = controller::inject(&format!("delay --by 50ms {on}"))?;
    is_near("arriving", &mut arriving, 50.0)?;
    is_near("leaving", &mut leaving, 50.0)?;
    second.interrupt()?.ensure_code(exit::OK)?;
    is_near("arriving, after the second", &mut arriving, 50.0)?;
    first.interrupt()?.ensure_code(exit::OK)
}

/// A copy is a packet like others.
fn delay_on_ingress_of_each_copy() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let lab = Lab::new()?;
        let (cgroup, victim) = target(&lab)?;
        let mut flow = Lags::from(&lab, &victim, OUTSIDE)?;
        let faults: [(_, &[_]); 2] = [
            ("delay", &[("by", "50ms"), ("direction", "ingress")]),
            ("duplicate", &[("percent", "100"), ("direction", "ingress")]),
        ];
        let mut injection = injection::inject(&cgroup, &faults)?;
        injection.arm(Duration::from_secs(2))?;
        let first = flow.send(20, GAP, QUIET)?;
        // It stops looking when as many have arrived as were sent.
        let second = flow.send(20, GAP, QUIET)?;
        let rollback = injection.rollback();
        ensure!(rollback.is_complete(), "{rollback:?}");
        for arrival in first.iter().chain(&second) {
            ensure!(arrival.lag_ms >= 49.9, "packet {} took {:.1} ms", arrival.number, arrival.lag_ms);
            let copies = first.iter().filter(|other| other.number == arrival.number).count();
            ensure!(copies <= 2, "packet {} came {copies} times", arrival.number);
        }
        ensure!(first.windows(2).any(|two| two[0].number == two[1].number), "no packet came twice");
        is_near("after", &mut flow, 0.0)
    })
}

/// `kchaos plan` shows what will be there, and what would be left; it makes nothing.
fn delay_on_ingress_is_planned_as_a_change() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let ((cgroup, _victim), (control, _other)) = (target(&lab)?, target(&lab)?);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("spec.yaml");
    let spec = format!(
        "version: 1\nname: arriving\nhypothesis: none\ngroups: {{ control: \"{}\", experiment: \"{}\" }}\n\
         steady_state: {{ gates: [{{ metric: net.tx_bytes, decrease: 10% }}] }}\n\
         faults: [{{ delay: {{ by: 50ms, direction: both }} }}]\n\
         run: {{ design: hold, baseline: 20s, inject: 20s, recover: 10s }}\nmax_duration: 5m\n",
        control.target(),
        cgroup.target()
    );
    std::fs::write(&path, spec)?;
    let planned = controller::run(&format!("plan {}", path.display()))?;
    planned.ensure_code(exit::OK)?;
    for part in
        ["ifb device kchaos-ifb0 in network namespace", "ip link del kchaos-ifb0", "fq as root qdisc of kct0"]
    {
        ensure!(planned.output.contains(part), "no `{part}` in {}", planned.output);
    }
    ensure!(!has_ifb(&lab.inside)?, "planning has made an ifb");
    Ok(())
}

fn rate_of_1_mbit_on_ingress() -> anyhow::Result<()> {
    rate_of_1_mbit(OUTSIDE, FRAME_BITS)
}

fn rate_of_1_mbit_on_ingress_in_ipv6() -> anyhow::Result<()> {
    rate_of_1_mbit(OUTSIDE_V6, FRAME_BITS_V6)
}

fn rate_of_1_mbit(address: IpAddr, frame_bits: f64) -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let lab = Lab::new()?;
        let (cgroup, victim) = target(&lab)?;
        holds(&cgroup, Lags::from(&lab, &victim, address)?, "--direction ingress", frame_bits)
    })
}

/// A TCP connection from us to a victim, who reads everything.
struct Towards(TcpStream);

impl Towards {
    fn new(lab: &Lab, victim: &Victim, port: u16) -> anyhow::Result<Self> {
        let to = SocketAddr::new(INSIDE, port);
        let listener: Socket = victim.socket(Ask::Listen { bind: to })?;
        let ours = lab.outside.run(|| TcpStream::connect(to))??;
        victim.socket(Ask::Accept { listener })?;
        Ok(Self(ours))
    }

    /// How long so many bytes take until all of them have been acknowledged.
    fn deliver(&mut self, bytes: u64) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let acked = program::write(&mut self.0, bytes, Duration::from_secs(20))?;
        ensure!(acked == bytes, "of {bytes} bytes only {acked} were acknowledged in time");
        Ok(start.elapsed())
    }

    fn segments_again(&self) -> io::Result<u32> {
        program::tcp_info(&self.0).map(|tcp| tcp.retransmitted)
    }
}

/// Headers are counted for each packet on the wire, though the kernel hands over many at once.
fn rate_on_ingress_holds_for_bulk_tcp_and_spares_a_neighbour() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const BYTES: u64 = 2_500_000;
        let lab = Lab::new()?;
        let ((cgroup, victim), (_neighbours, neighbour)) = (target(&lab)?, target(&lab)?);
        let (mut hurt, mut spared) =
            (Towards::new(&lab, &victim, 7001)?, Towards::new(&lab, &neighbour, 7002)?);
        let before = hurt.deliver(BYTES)?.as_secs_f64();
        let kchaos = controller::inject(&format!(
            "rate --bandwidth 10mbit --direction ingress --on {}",
            cgroup.target()
        ))?;
        let (during, neighbour) = thread::scope(|scope| {
            let neighbour = scope.spawn(|| spared.deliver(BYTES));
            let during = hurt.deliver(BYTES)?;
            anyhow::Ok((during, neighbour.join().map_err(|_| anyhow!("delivering panicked"))??))
        })?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        let after = hurt.deliver(BYTES)?.as_secs_f64();
        let (during, neighbour) = (during.as_secs_f64(), neighbour.as_secs_f64());
        // Full segments: 1448 bytes of 1514 with time stamps; the last is acknowledged at once.
        let expected = BYTES as f64 * 8.0 / 10e6 * 1514.0 / 1448.0;
        println!(
            "{before:.2} s before, {during:.2} s during ({expected:.2} expected), {after:.2} s after; \
             neighbour {neighbour:.2} s; {} segments sent again",
            hurt.segments_again()?
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

/// What leaves takes no room from what arrives at the same time.
fn rate_both_ways_is_a_wire_each_way() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const COUNT: u64 = 500;
        let lab = Lab::new()?;
        let (cgroup, victim) = target(&lab)?;
        let (mut arriving, mut leaving) =
            (Lags::from(&lab, &victim, OUTSIDE)?, Lags::to(&lab, &victim, OUTSIDE)?);
        let kchaos =
            controller::inject(&format!("rate --bandwidth 1mbit --direction both --on {}", cgroup.target()))?;
        // They leave before the victim is asked what has arrived.
        let start = Instant::now();
        let left = leaving.send(COUNT, Duration::ZERO, Duration::ZERO)?;
        let arrived = arriving.all(COUNT, Duration::ZERO, QUIET)?;
        let took = start.elapsed();
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        let (first, last) = (arrived[0].at_ms, arrived[arrived.len() - 1].at_ms);
        let expected = (COUNT - 1) as f64 * FRAME_BITS / 1000.0;
        println!("{} left at once, the others in {took:?}; arriving took {:.1} ms", left.len(), last - first);
        ensure!(
            ((last - first) / expected - 1.0).abs() < 0.05,
            "arriving took {:.1} ms, expected {expected:.1} ms",
            last - first
        );
        ensure!(arrived[0].lag_ms < expected / 2.0, "the first waited {:.1} ms", arrived[0].lag_ms);
        Ok(())
    })
}

fn reorder_on_ingress_lets_each_fifth_overtake() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let lab = Lab::new()?;
        let (cgroup, victim) = target(&lab)?;
        each_fifth(Lags::from(&lab, &victim, OUTSIDE)?, &cgroup, "--direction ingress")
    })
}

fn sigkill_ends_delay_on_ingress_and_the_watchdog_removes_the_ifb() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::from(&lab, &victim, OUTSIDE)?;
    let kchaos =
        controller::inject(&format!("delay --by 50ms --direction ingress --on {}", cgroup.target()))?;
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

/// A filter is still armed when its controller dies, and goes before the ifb does.
fn sigkill_of_a_delay_on_ingress_by_clsact_loses_nothing() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::from(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!(
        "delay --by 50ms --direction ingress --mechanism clsact-ingress --on {}",
        cgroup.target()
    ))?;
    is_near("during", &mut flow, 50.0)?;
    let pid = kchaos.pid();
    kchaos.kill()?;
    flow.all(400, GAP, QUIET)?;
    controller::run("sweep")?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)?;
    is_near("after", &mut flow, 0.0)
}

/// The ifb is not taken away under the packets that it holds.
fn what_is_held_back_on_ingress_arrives_after_the_end() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let mut flow = Lags::from(&lab, &victim, OUTSIDE)?;
    let kchaos =
        controller::inject(&format!("delay --by 400ms --direction ingress --on {}", cgroup.target()))?;
    let arrivals = thread::scope(|scope| {
        let ends = scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            kchaos.interrupt()
        });
        let arrivals = flow.all(50, Duration::ZERO, Duration::from_secs(1))?;
        ends.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?.ensure_code(exit::OK)?;
        anyhow::Ok(arrivals)
    })?;
    let lags = lags(&arrivals);
    ensure!(lags.iter().all(|lag| *lag >= 399.9), "some have not been held back: {lags:?}");
    ensure!(!has_ifb(&lab.inside)?, "the ifb is still there");
    Ok(())
}

/// Somebody deletes it: packets pass, and are counted as what they are.
fn without_its_ifb_a_delay_on_ingress_loses_nothing() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let mut flow = Lags::from(&lab, &victim, OUTSIDE)?;
    let kchaos =
        controller::inject(&format!("delay --by 50ms --direction ingress --on {}", cgroup.target()))?;
    is_near("during", &mut flow, 50.0)?;
    let held = flow.sent();
    run_in(&lab.inside, "ip link del kchaos-ifb0")?;
    is_near("without the ifb", &mut flow, 0.0)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let (injected, failed) = (ended.outcome("injected")?, ended.outcome("failed")?);
    ensure!((injected, failed) == (held, flow.sent() - held), "{injected} injected, {failed} failed");
    Ok(())
}

fn delay_on_ingress_is_seen_by_tcx_programs_before_it() -> anyhow::Result<()> {
    is_seen(At::Tcx, "tcx-ingress")
}

fn delay_on_ingress_is_seen_by_clsact_filters_before_it() -> anyhow::Result<()> {
    is_seen(At::Clsact, "clsact-ingress")
}

/// Ours is the last, so that those that were there see each packet once. A TCX program that comes later is passed by;
/// nothing comes behind the last of all priorities.
fn is_seen(at: At, mechanism: &str) -> anyhow::Result<()> {
    const PACKETS: u64 = 200;
    /// Neighbour discovery and the like come by as well.
    const OTHERS: u64 = 30;
    let lab = Lab::new()?;
    let (cgroup, victim) = target(&lab)?;
    let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
    let (mut there, mut later) = (Foreign::counting()?, Foreign::counting()?);
    let mut seen = |foreign: &Foreign| {
        let before = foreign.seen()?;
        let arrived = numbers.arrived(Direction::Ingress, PACKETS)?.len() as u64;
        ensure!(arrived == PACKETS, "{arrived} of {PACKETS} packets arrived");
        Ok(foreign.seen()? - before)
    };
    there.attach_where_others_do(at, &lab.inside, Direction::Ingress)?;
    let kchaos = controller::inject(&format!(
        "delay --by 20ms --direction ingress --mechanism {mechanism} --on {}",
        cgroup.target()
    ))?;
    let by_the_first = seen(&there)?;
    ensure!(
        (PACKETS..PACKETS + OTHERS).contains(&by_the_first),
        "{by_the_first} packets were seen before ours"
    );
    later.attach_behind(at, &lab.inside, Direction::Ingress)?;
    let by_the_last = seen(&later)?;
    let expected = match at {
        At::Tcx => 0..OTHERS,
        At::Clsact => PACKETS..PACKETS + OTHERS,
    };
    ensure!(expected.contains(&by_the_last), "{by_the_last} packets were seen by what came later");
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let afterwards = seen(&later)?;
    ensure!((PACKETS..PACKETS + OTHERS).contains(&afterwards), "{afterwards} packets were seen afterwards");
    Ok(())
}

/// A packet that waits with its sender's socket would keep the sender from sending more; a copy does not.
fn delay_on_ingress_keeps_bulk_tcp_as_fast_as_netem() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const BYTES: u64 = 16 << 20;
        let mbit_per_s = |took: Duration| BYTES as f64 * 8e-6 / took.as_secs_f64();
        let lab = Lab::new()?;
        let (cgroup, victim) = target(&lab)?;
        let delivery = |port| {
            let mut stream = Towards::new(&lab, &victim, port)?;
            stream.deliver(BYTES / 8)?; // the window opens
            stream.deliver(BYTES)
        };
        let before = mbit_per_s(delivery(7001)?);
        let kchaos =
            controller::inject(&format!("delay --by 50ms --direction ingress --on {}", cgroup.target()))?;
        let ours = mbit_per_s(delivery(7002)?);
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        ensure!(ended.outcome("failed")? == 0, "{}", ended.output);
        qdisc::configure(&lab.outside, PEER_DEVICE, 0x77, "netem", Some(qdisc::netem_delay(50)))?;
        let netem = mbit_per_s(delivery(7003)?);
        println!("Mbit/s: {before:.0} without a fault, {ours:.1} with it, {netem:.1} with netem");
        ensure!(ours > netem / 2.0, "{ours:.1} Mbit/s, with netem {netem:.1}");
        Ok(())
    })
}

/// What the victim hears of packets on a device without link layer, and what kchaos says of them.
fn without_link_layer(mechanism: &str) -> anyhow::Result<(usize, Ended)> {
    const PACKETS: u64 = 50;
    const PORTS: [u16; 2] = [7002, 7001];
    let lab = Lab::new()?;
    let mut tun = Tun::new(&lab.inside)?;
    let (cgroup, victim) = target(&lab)?;
    let socket = victim.udp((NEAR, PORTS[1]).into(), Some((FAR, PORTS[0]).into()))?;
    let mut hear = || {
        for number in 0..PACKETS {
            tun.send(PORTS, &number.to_be_bytes())?;
        }
        match victim.ask(Ask::Numbers { socket })? {
            Answer::Numbers(arrived) => Ok(arrived.len()),
            other => bail!("expected numbers, got {other:?}"),
        }
    };
    let kchaos = controller::inject(&format!(
        "delay --by 900ms --direction ingress --mechanism {mechanism} --on {}",
        cgroup.target()
    ))?;
    // It does not wait for so long.
    let at_once = hear()?;
    thread::sleep(Duration::from_secs(1));
    let Answer::Numbers(later) = victim.ask(Ask::Numbers { socket })? else { bail!("expected numbers") };
    ensure!(at_once + later.len() == PACKETS as usize, "{at_once} arrived at once, {} later", later.len());
    let ended = kchaos.interrupt()?;
    ensure!(hear()? == PACKETS as usize, "packets are lost afterwards");
    Ok((at_once, ended))
}

/// What a program itself sends through an ifb must be a frame; a packet that is none is counted as what it is.
fn delay_on_ingress_fails_without_link_layer() -> anyhow::Result<()> {
    let (at_once, ended) = without_link_layer("tcx-ingress")?;
    ensure!(at_once == 50, "only {at_once} arrived at once");
    ensure!(ended.outcome("failed")? == 50 && ended.outcome("injected")? == 0, "{}", ended.output);
    Ok(())
}

fn delay_on_ingress_without_link_layer_by_clsact() -> anyhow::Result<()> {
    let (at_once, ended) = without_link_layer("clsact-ingress")?;
    ended.ensure_code(exit::OK)?;
    ensure!(at_once == 0, "{at_once} arrived at once");
    ensure!(ended.outcome("injected")? == 50 && ended.outcome("failed")? == 0, "{}", ended.output);
    Ok(())
}
