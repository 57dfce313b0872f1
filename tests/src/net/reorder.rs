//! Packets that overtake others, as the receiver sees them.

use std::time::Duration;

use anyhow::ensure;

use crate::{
    Test,
    controller::{self, exit},
    lab::{Cgroup, Lab, OUTSIDE, OUTSIDE_V6},
    lag::{Arrival, Lags, in_a_quiet_moment, in_order},
    tests,
    victim::Victim,
};

const COUNT: u64 = 200;
const GAP: Duration = Duration::from_millis(5);
const QUIET: Duration = Duration::from_millis(500);

pub fn tests() -> Vec<Test> {
    tests![
        HOLD on one kernel: reorder_lets_each_fifth_overtake_in_ipv6, reorder_lets_a_quarter_overtake,
            reorder_in_a_dry_run_is_only_counted, reorder_lets_each_fifth_overtake
    ]
}

/// What `COUNT` packets make of it, and how often it was reported to have happened.
fn with(address: std::net::IpAddr, options: &str, outcome: &str) -> anyhow::Result<(Vec<Arrival>, u64)> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    during(Lags::to(&lab, &victim, address)?, &cgroup, options, outcome)
}

fn during(
    mut flow: Lags<'_>,
    cgroup: &Cgroup,
    options: &str,
    outcome: &str,
) -> anyhow::Result<(Vec<Arrival>, u64)> {
    ensure!(in_order(&flow.all(COUNT, GAP, QUIET)?), "out of order before anything is injected");
    let kchaos = controller::inject(&format!("reorder --by 40ms {options} --on {}", cgroup.target()))?;
    let arrivals = flow.all(COUNT, GAP, QUIET)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(in_order(&flow.all(COUNT, GAP, QUIET)?), "out of order afterwards");
    Ok((arrivals, ended.outcome(outcome)?))
}

/// Those that were hit left at once and the others 40 ms later.
fn overtake(arrivals: &[Arrival], is_hit: impl Fn(&Arrival) -> bool) -> anyhow::Result<()> {
    for arrival in arrivals {
        let (hit, lag_ms) = (is_hit(arrival), arrival.lag_ms);
        ensure!(
            if hit { lag_ms < 30.0 } else { lag_ms > 39.9 },
            "packet {} took {lag_ms:.1} ms",
            arrival.number
        );
    }
    ensure!(!in_order(arrivals), "no packet has overtaken another");
    Ok(())
}

pub(super) fn each_fifth(flow: Lags<'_>, cgroup: &Cgroup, options: &str) -> anyhow::Result<()> {
    let (arrivals, injected) = during(flow, cgroup, &format!("--gap 5 {options}"), "injected")?;
    ensure!(injected == COUNT / 5, "{injected} of {COUNT} overtook others");
    overtake(&arrivals, |arrival| arrival.number % 5 == 4)
}

fn reorder_lets_each_fifth_overtake() -> anyhow::Result<()> {
    each_fifth_on_egress(OUTSIDE)
}

fn reorder_lets_each_fifth_overtake_in_ipv6() -> anyhow::Result<()> {
    each_fifth_on_egress(OUTSIDE_V6)
}

fn each_fifth_on_egress(address: std::net::IpAddr) -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let victim = Victim::start(&lab, &cgroup)?;
        each_fifth(Lags::to(&lab, &victim, address)?, &cgroup, "")
    })
}

fn reorder_lets_a_quarter_overtake() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (arrivals, injected) = with(OUTSIDE, "--percent 25", "injected")?;
        let early = arrivals.iter().filter(|arrival| arrival.lag_ms < 30.0).count() as u64;
        println!("{early} of {COUNT} overtook others");
        ensure!(injected == early, "{injected} are reported, {early} were early");
        // 50 are expected; outside of this lies one of ten million.
        ensure!((20..=85).contains(&early), "{early} of {COUNT}");
        overtake(&arrivals, |arrival| arrival.lag_ms < 30.0)
    })
}

fn reorder_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    in_a_quiet_moment(|| {
        let (arrivals, counted) = with(OUTSIDE, "--gap 5 --dry-run", "dry_run")?;
        ensure!(counted == COUNT / 5 && in_order(&arrivals), "{counted} were counted");
        ensure!(arrivals.iter().all(|arrival| arrival.lag_ms < 30.0), "packets were held back");
        Ok(())
    })
}
