//! Packets that are held back without an `fq`: the same effects, by a `netem` to which our program sends them, and
//! nobody else.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use chaos_common::priority::BANDS_OF_OTHERS;
use kchaos::target::root_qdisc::RootQdisc;
use nix::sys::signal::Signal;

use super::{
    delay::{COUNT, GAP, LEASE, QUIET, WATCHDOG, delays, delivery, ensure_within, is_near, passes_within},
    rate::{FRAME_BITS, FRAME_BITS_V6, WITH_BURST, burst_options, ensure_burst, holds, took_ms},
    reorder::each_fifth,
};
use crate::{
    Test,
    controller::{self, exit},
    lab::{Cgroup, DEVICE, Lab, OUTSIDE, OUTSIDE_V6, PEER_DEVICE, run_in},
    lag::{Arrival, Lags, in_a_quiet_moment, in_order, lags, spread},
    qdisc,
    snapshot::Snapshot,
    tests,
    victim::{Ask, Victim},
};

const NETEM: &str = "--mechanism netem";

pub fn tests() -> Vec<Test> {
    tests![
        NETEM: netem_delays_by_50_ms;
        NETEM on one kernel: sigkill_ends_netem_and_the_watchdog_removes_it, netem_delays_by_50_ms_in_ipv6, netem_spares_what_a_pattern_spares,
            netem_jitter_keeps_the_order, netem_jitter_may_change_the_order, netem_jitter_has_its_distribution,
            netem_rate_of_1_mbit_in_ipv6, netem_rate_is_for_each_target, netem_rate_lets_a_burst_go_at_once,
            netem_rate_loses_what_would_wait_too_long, netem_reorder_lets_each_fifth_overtake,
            netem_does_not_replace_a_root_qdisc_of_somebody, what_netem_holds_back_arrives_after_the_end,
            netem_spares_a_neighbour, netem_keeps_bulk_tcp_as_fast_as_it_is_alone, netem_rate_of_1_mbit,
            netem_leaves_priorities_of_others_alone, netem_alone_delays_nothing,
            netem_leaves_the_device_as_it_was;
        NETEM_VLAN on one kernel: netem_delays_once_at_a_vlan
    ]
}

fn delay_of_50_ms(address: IpAddr) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut lags = Lags::to(&lab, &victim, address)?;
    delays(&mut lags, &format!("delay --by 50ms {NETEM} --on {}", cgroup.target()), 50.0)
}

fn netem_delays_by_50_ms() -> anyhow::Result<()> {
    delay_of_50_ms(OUTSIDE)
}

fn netem_delays_by_50_ms_in_ipv6() -> anyhow::Result<()> {
    delay_of_50_ms(OUTSIDE_V6)
}

fn netem_spares_a_neighbour() -> anyhow::Result<()> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    let (mut hurt, mut spared) = (Lags::to(&lab, &victim, OUTSIDE)?, Lags::to(&lab, &neighbour, OUTSIDE)?);
    let kchaos = controller::inject(&format!("delay --by 50ms {NETEM} --on {}", cgroup.target()))?;
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| is_near("the neighbour", &mut spared, 0.0));
        is_near("during", &mut hurt, 50.0)?;
        neighbour.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    is_near("after", &mut hurt, 0.0)
}

/// The gate decides, not netem.
fn netem_spares_what_a_pattern_spares() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
        let kchaos =
            controller::inject(&format!("delay --by 50ms --every 2 {NETEM} --on {}", cgroup.target()))?;
        let arrivals = flow.all(COUNT, GAP, QUIET)?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        let late = |arrival: &&Arrival| arrival.lag_ms > 40.0;
        let odd = arrivals.iter().filter(late).filter(|arrival| arrival.number % 2 == 1).count() as u64;
        let all = arrivals.iter().filter(late).count() as u64;
        ensure!((odd, all) == (COUNT / 2, COUNT / 2), "{all} packets were late, {odd} each second one");
        ensure!(ended.outcome("injected")? == COUNT / 2, "{}", ended.output);
        is_near("after", &mut flow, 0.0)
    })
}

/// What `count` packets make of a delay with these options.
fn with(options: &str, count: u64) -> anyhow::Result<Vec<Arrival>> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    is_near("before", &mut flow, 0.0)?;
    let kchaos = controller::inject(&format!("delay {options} {NETEM} --on {}", cgroup.target()))?;
    let mut arrivals = flow.all(count, GAP, QUIET)?;
    arrivals.iter_mut().for_each(|arrival| arrival.lag_ms -= flow.timers_late_ms);
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    is_near("after", &mut flow, 0.0)?;
    Ok(arrivals)
}

fn netem_jitter_keeps_the_order() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let arrivals = with("--by 50ms --jitter 20ms", 200)?;
        ensure!(in_order(&arrivals), "packets have overtaken others");
        let (mean, deviation) = spread(&arrivals);
        println!("kept in order: {mean:.2} ± {deviation:.2} ms");
        ensure_within(&lags(&arrivals), 30.0, 70.0)?;
        ensure!(mean > 50.0 && deviation > 4.0, "{mean:.2} ± {deviation:.2} ms");
        Ok(())
    })
}

fn netem_jitter_may_change_the_order() -> anyhow::Result<()> {
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

/// A Pareto jitter, by a table of ours: most packets somewhat earlier than the delay, few much later.
fn netem_jitter_has_its_distribution() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let arrivals = with("--by 50ms --jitter 20ms --distribution pareto --order free", 400)?;
        ensure_within(&lags(&arrivals), 50.0 - 20.0 * 2.0 / 3.0, 130.0)?;
        let share = |above: f64| {
            arrivals.iter().filter(|arrival| arrival.lag_ms > above).count() as f64 / arrivals.len() as f64
        };
        println!("pareto: {:.3} later than the delay, {:.3} much later", share(55.0), share(80.0));
        // As for the fault by fq: 21 % and 5.5 % are expected.
        ensure!((0.12..0.32).contains(&share(55.0)), "{} are later", share(55.0));
        ensure!((0.02..0.11).contains(&share(80.0)), "{} are much later", share(80.0));
        Ok(())
    })
}

/// Sent there by us, it is what it is for everybody: TCP takes what waits for sent.
fn netem_keeps_bulk_tcp_as_fast_as_it_is_alone() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const BYTES: u64 = 16 << 20;
        let mbit_per_s = |took: Duration| BYTES as f64 * 8e-6 / took.as_secs_f64();
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let before = mbit_per_s(delivery(&lab, &victim, BYTES)?);
        let kchaos = controller::inject(&format!("delay --by 50ms {NETEM} --on {}", cgroup.target()))?;
        let ours = mbit_per_s(delivery(&lab, &victim, BYTES)?);
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        qdisc::configure(&lab.inside, DEVICE, 0x77, "netem", Some(qdisc::netem_delay(50)))?;
        let alone = mbit_per_s(delivery(&lab, &victim, BYTES)?);
        println!("Mbit/s: {before:.0} without a fault, {ours:.1} with it, {alone:.1} with netem alone");
        ensure!(ended.outcome("injected")? > 0 && ours < before, "{}", ended.output);
        ensure!(ours > alone / 2.0, "{ours:.1} Mbit/s, with netem alone {alone:.1}");
        Ok(())
    })
}

fn rate_of_1_mbit(address: IpAddr, frame_bits: f64) -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        holds(&cgroup, Lags::to(&lab, &victim, address)?, NETEM, frame_bits)
    })
}

fn netem_rate_of_1_mbit() -> anyhow::Result<()> {
    rate_of_1_mbit(OUTSIDE, FRAME_BITS)
}

fn netem_rate_of_1_mbit_in_ipv6() -> anyhow::Result<()> {
    rate_of_1_mbit(OUTSIDE_V6, FRAME_BITS_V6)
}

/// Two targets at once, and neither takes anything from the other.
fn netem_rate_is_for_each_target() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const PACKETS: u64 = 500;
        let (lab, one, other) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
        let (first, second) = (Victim::start(&lab, &one)?, Victim::start(&lab, &other)?);
        let (mut of_one, mut of_other) =
            (Lags::to(&lab, &first, OUTSIDE)?, Lags::to(&lab, &second, OUTSIDE)?);
        let kchaos = controller::inject(&format!(
            "rate --bandwidth 250kbit {NETEM} --on {} --on {}",
            one.target(),
            other.target()
        ))?;
        let (one, other) = thread::scope(|scope| {
            let other = scope.spawn(|| of_other.all(PACKETS, Duration::ZERO, QUIET));
            let one = of_one.all(PACKETS, Duration::ZERO, QUIET)?;
            anyhow::Ok((one, other.join().map_err(|_| anyhow!("sending panicked"))??))
        })?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        let expected = (PACKETS - 1) as f64 * FRAME_BITS / 250.0;
        for took in [took_ms(&one), took_ms(&other)] {
            println!("{took:.1} ms of {expected:.1} ms");
            ensure!((took / expected - 1.0).abs() < 0.05, "{took:.1} ms, expected {expected:.1} ms");
        }
        Ok(())
    })
}

/// netem knows no burst: what our program lets go at once does not go through it.
fn netem_rate_lets_a_burst_go_at_once() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
        let arguments = format!("rate {} {NETEM} --on {}", burst_options(), cgroup.target());
        let kchaos = controller::inject(&arguments)?;
        let arrivals = flow.all(WITH_BURST, Duration::ZERO, QUIET)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        ensure!(in_order(&arrivals), "packets have overtaken others");
        ensure_burst(&arrivals)
    })
}

/// The queue is as long as asked, in time, and the sender of what does not fit is not told.
fn netem_rate_loses_what_would_wait_too_long() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        const PACKETS: u64 = 1_000;
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
        let kchaos = controller::inject(&format!(
            "rate --bandwidth 100kbit --limit 200ms {NETEM} --on {}",
            cgroup.target()
        ))?;
        let arrivals = flow.send(PACKETS, Duration::ZERO, QUIET)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        let fits = 200.0 * 100.0 / FRAME_BITS;
        let most = arrivals.iter().map(|arrival| arrival.lag_ms).fold(0.0, f64::max);
        println!("{} of {PACKETS} arrived, the last after {most:.1} ms; {fits:.1} fit", arrivals.len());
        ensure!((fits as usize..fits as usize * 3).contains(&arrivals.len()), "{} arrived", arrivals.len());
        ensure!(most < 230.0, "one waited for {most:.1} ms");
        flow.all(PACKETS, Duration::ZERO, QUIET).map(drop)
    })
}

fn netem_reorder_lets_each_fifth_overtake() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        each_fifth(Lags::to(&lab, &victim, OUTSIDE)?, &cgroup, NETEM)
    })
}

/// By prio's bands, packets of others leave as by pfifo_fast: priority 6 before 0, and 0 before 2.
fn netem_leaves_priorities_of_others_alone() -> anyhow::Result<()> {
    let (lab, cgroup, neighbours) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (victim, neighbour) = (Victim::start(&lab, &cgroup)?, Victim::start(&lab, &neighbours)?);
    let mut hurt = Lags::to(&lab, &victim, OUTSIDE)?;
    victim.ask(Ask::Priority { socket: hurt.socket, priority: 6 })?;
    let mut spared = Lags::to(&lab, &neighbour, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 50ms {NETEM} --on {}", cgroup.target()))?;
    for (priority, class) in [(6, 1), (0, 2), (2, 3)] {
        neighbour.ask(Ask::Priority { socket: spared.socket, priority })?;
        let before = qdisc::sent_by_class(&lab.inside, DEVICE)?;
        spared.all(COUNT, Duration::ZERO, QUIET)?;
        let after = qdisc::sent_by_class(&lab.inside, DEVICE)?;
        let sent = after[&class] - before[&class];
        // The kernel may have something of its own to say in between.
        ensure!(u64::from(sent) >= COUNT, "{sent} of {COUNT} with priority {priority} left by class {class}");
    }
    is_near("a target with a priority of its own", &mut hurt, 50.0)?;
    let held = qdisc::sent_by_class(&lab.inside, DEVICE)?[&(BANDS_OF_OTHERS as u16 + 1)];
    ensure!(u64::from(held) == hurt.sent(), "{held} of {} packets went through netem", hurt.sent());
    kchaos.interrupt()?.ensure_code(exit::OK)
}

fn netem_leaves_the_device_as_it_was() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 50ms {NETEM} --on {}", cgroup.target()))?;
    ensure!(before != Snapshot::take(&lab, &[&cgroup])?, "a snapshot does not show the qdisc");
    ensure!(qdisc::root(&lab.inside, DEVICE)? == RootQdisc::Ours, "the root qdisc is not ours");
    is_near("during", &mut flow, 50.0)?;
    let second = controller::run(&format!("inject rate --bandwidth 1mbit {NETEM} --on {}", cgroup.target()))?;
    second.ensure_refused(&["another injection", DEVICE])?;
    let pid = kchaos.pid();
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

fn netem_does_not_replace_a_root_qdisc_of_somebody() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let _victim = Victim::start(&lab, &cgroup)?;
    qdisc::configure(&lab.inside, DEVICE, 0x77, "pfifo", None)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let refused = controller::run(&format!("inject delay --by 50ms {NETEM} --on {}", cgroup.target()))?;
    refused.ensure_refused(&["pfifo 77:", "does not replace it", DEVICE])?;
    ensure!(before == Snapshot::take(&lab, &[&cgroup])?, "a refused fault has changed something");
    Ok(())
}

/// A stopped controller's qdisc is there, and nothing goes through its netem once the lease is over.
fn netem_alone_delays_nothing() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 50ms {NETEM} --on {}", cgroup.target()))?;
    is_near("during", &mut flow, 50.0)?;
    let (pid, stopped) = (kchaos.pid(), Instant::now());
    kchaos.signal(Signal::SIGSTOP)?;
    passes_within(LEASE, stopped, &mut flow)?;
    ensure!(qdisc::root(&lab.inside, DEVICE)? == RootQdisc::Ours, "there is no netem to be spared by");
    is_near("while the controller is stopped", &mut flow, 0.0)?;
    kchaos.signal(Signal::SIGCONT)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

fn sigkill_ends_netem_and_the_watchdog_removes_it() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 50ms {NETEM} --on {}", cgroup.target()))?;
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

/// The qdisc is not taken away under the packets that it holds.
fn what_netem_holds_back_arrives_after_the_end() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    let kchaos = controller::inject(&format!("delay --by 400ms {NETEM} --on {}", cgroup.target()))?;
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
    Ok(())
}

/// A packet still has its socket when it comes to the device below, where we are as well.
fn netem_delays_once_at_a_vlan() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    // The victim's address moves to the VLAN, and so does its peer's.
    for (netns, device, host) in [(&lab.inside, DEVICE, 1), (&lab.outside, PEER_DEVICE, 2)] {
        let commands = format!(
            "ip link add link {device} name vlan7 type vlan id 7
             ip address flush dev {device}
             ip address add 10.107.1.{host}/24 dev vlan7
             ip link set vlan7 up"
        );
        run_in(netns, &commands)?;
    }
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Lags::to(&lab, &victim, OUTSIDE)?;
    // Its neighbour has to be found.
    flow.send(10, GAP, QUIET)?;
    delays(&mut flow, &format!("delay --by 50ms {NETEM} --on {}", cgroup.target()), 50.0)
}
