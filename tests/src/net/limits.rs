//! How often: `when`, `every`, `max`, `rate`, a dry run; and several faults at once.

use std::time::Instant;

use anyhow::ensure;

use crate::{
    Test,
    controller::{self, Ended, exit},
    flow::Flow,
    lab::{Cgroup, Lab},
    tests,
    victim::Victim,
};

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: loss_when_takes_these_packets_only, loss_every_takes_each_nth_packet,
            loss_max_ends_it_after_so_many, loss_rate_is_held, loss_in_a_dry_run_is_only_counted
    ]
}

/// Sends `count` packets while losing some with these options; the numbers of those lost, counted from 1.
fn lost(options: &str, count: u64) -> anyhow::Result<(Vec<u64>, Ended)> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("loss {options} --on {}", cgroup.target()))?;
    let arrived = flow.send(count)?;
    let ended = kchaos.interrupt()?;
    flow.is_open("after")?;
    let lost = (0..count).filter(|number| arrived.binary_search(number).is_err()).map(|number| number + 1);
    Ok((lost.collect(), ended))
}

fn loss_when_takes_these_packets_only() -> anyhow::Result<()> {
    for (when, expected) in
        [("3", &[3][..]), ("3..5", &[3, 4, 5]), ("18+1", &[18, 19, 20]), ("3..9+2", &[3, 5, 7, 9])]
    {
        let (lost, ended) = lost(&format!("--percent 100 --when {when}"), 20)?;
        ensure!(lost == expected, "--when {when} lost {lost:?} of 1..=20");
        ensure!(ended.outcome("when")? == 20 - expected.len() as u64, "--when {when}: {}", ended.output);
    }
    Ok(())
}

fn loss_every_takes_each_nth_packet() -> anyhow::Result<()> {
    let (lost, _) = lost("--every 10", 95)?;
    ensure!(lost == [10, 20, 30, 40, 50, 60, 70, 80, 90], "--every 10 lost {lost:?} of 1..=95");
    Ok(())
}

fn loss_max_ends_it_after_so_many() -> anyhow::Result<()> {
    let (lost, ended) = lost("--percent 100 --max 50", 200)?;
    ensure!(lost == (1..=50).collect::<Vec<u64>>(), "--max 50 lost {lost:?} of 1..=200");
    ensure!(ended.outcome("budget")? == 150, "{}", ended.output);
    Ok(())
}

/// In any time, at most a tenth of a second's worth more than the rate.
fn loss_rate_is_held() -> anyhow::Result<()> {
    const RATE: f64 = 200.0;
    let start = Instant::now();
    let (lost, ended) = lost("--percent 100 --rate 200/s", 30_000)?;
    let (lost, elapsed_s) = (lost.len() as f64, start.elapsed().as_secs_f64());
    let most = RATE * elapsed_s + RATE / 10.0;
    // 30,000 packets take about a second, of which packets are sent most of the time.
    ensure!((RATE / 2.0..=most).contains(&lost), "--rate 200/s lost {lost} packets within {elapsed_s:.1} s");
    ensure!(ended.outcome("budget")? as f64 == 30_000.0 - lost, "{}", ended.output);
    Ok(())
}

fn loss_in_a_dry_run_is_only_counted() -> anyhow::Result<()> {
    let (lost, ended) = lost("--percent 100 --dry-run", 500)?;
    ensure!(lost.is_empty(), "a dry run lost {} packets", lost.len());
    ended.ensure_code(exit::OK)?;
    let (would, injected) = (ended.outcome("dry_run")?, ended.outcome("injected")?);
    ensure!((would, injected) == (500, 0), "{}", ended.output);
    ensure!(ended.json()?["dry_run"] == true, "{}", ended.output);
    Ok(())
}
