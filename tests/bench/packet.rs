//! Nanoseconds per packet, by BPF_PROG_TEST_RUN: nothing but the program, no network.

use anyhow::Context;
use chaos_common::names::program;
use kchaos::{
    demo::namespaces,
    fault::capability::Capabilities,
    kernel::test_run::{Cost, Trial},
    target::{Device, Netns, root_qdisc::RootQdisc},
};

use super::{BenchCgroup, median, spread};

const ROUNDS: usize = 15;
const REPEAT: u32 = 500_000;

/// One case: a program, and what it makes of the packet.
struct Case {
    name: String,
    /// Whether the packet's socket is in the target cgroup.
    inside: bool,
    trial: Trial,
    costs: Vec<Cost>,
}

/// Runs all cases and prints them against the empty program.
pub fn bench() -> anyhow::Result<()> {
    // The kernel runs the program on a device; on lo, network faults leave packets alone.
    let (netns, _peer) = namespaces()?;
    let device = netns.devices()?.into_iter().next().context("a device")?;
    let target = BenchCgroup::new("target")?;
    let elsewhere = BenchCgroup::new("elsewhere")?;
    let mut cases = cases(&target)?;
    let packet = packet();
    for _ in 0..ROUNDS {
        for case in &mut cases {
            let cgroup = if case.inside { &target } else { &elsewhere };
            cgroup.enter()?;
            let cost = netns.run(|| case.trial.run(&packet, device.ifindex, REPEAT))??;
            case.costs.push(cost);
        }
    }
    print(&cases);
    Ok(())
}

fn cases(target: &BenchCgroup) -> anyhow::Result<Vec<Case>> {
    let plan = |percent| {
        let device = Device { ifindex: 1, name: "lo".into(), ethernet: true, root: RootQdisc::none() };
        let all = Capabilities::all_but(&[]);
        target.plan_for("loss", &[("percent", percent)], &Netns::current()?, vec![device], &all)
    };
    let (passes, loses) = (plan("0%")?, plan("100%")?);
    let case = |name: String, inside, trial| Case { name, inside, trial, costs: Vec::new() };
    let mut cases = vec![case("empty program".into(), true, Trial::new(program::BENCH_EMPTY, &passes, 0)?)];
    for targets in [1_u64, 100, 10_000] {
        let others = targets - 1;
        let trial = |plan| Trial::new(program::LOSS_EGRESS, plan, others);
        cases.push(case(format!("not a target, {targets} in the map"), false, trial(&passes)?));
        cases.push(case(format!("target, passed, {targets} in the map"), true, trial(&passes)?));
        cases.push(case(format!("target, lost, {targets} in the map"), true, trial(&loses)?));
    }
    Ok(cases)
}

fn print(cases: &[Case]) {
    println!("ns per packet (BPF_PROG_TEST_RUN, {ROUNDS} rounds of {REPEAT}); median [smallest, largest]");
    let ns = |case: &Case| case.costs.iter().map(|cost| cost.ns).collect::<Vec<_>>();
    let empty = ns(&cases[0]);
    for case in cases {
        let above: Vec<f64> = ns(case).iter().zip(&empty).map(|(ns, empty)| ns - empty).collect();
        let verdict = case.costs.last().map_or(0, |cost| cost.verdict as i32);
        println!(
            "  {:<34} {:>22}   above empty {:>5.0}   verdict {verdict}",
            case.name,
            spread(&ns(case), 0),
            median(&above)
        );
    }
}

/// A small UDP packet with its Ethernet header.
fn packet() -> Vec<u8> {
    let mut packet = vec![0_u8; 14 + 20 + 8 + 22];
    packet[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
    packet[14] = 0x45;
    packet[16..18].copy_from_slice(&50_u16.to_be_bytes());
    packet[22] = 64;
    packet[23] = 17;
    packet[26..30].copy_from_slice(&[10, 0, 0, 1]);
    packet[30..34].copy_from_slice(&[10, 0, 0, 2]);
    packet[34..38].copy_from_slice(&[0x30, 0x39, 0x00, 0x35]);
    packet
}
