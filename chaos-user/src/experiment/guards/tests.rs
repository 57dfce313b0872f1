//! Guards on worlds whose truth is known. Seeds are fixed: every number is the same on every run.

use std::time::Duration;

use super::*;
use crate::{
    experiment::{
        hypothesis::Metric,
        watch::{Harm, Limit, Side},
    },
    judge::simulation::World,
    steady::rates::Tick,
};

const RUNS: u64 = 500;
const LESS: Harm = Harm { metric: Metric::RxBytes, increase: false, most: 0.3 };
const MORE_ERRORS: Harm = Harm { metric: Metric::SyscallErrorRatio, increase: true, most: 0.01 };
const ERRORS: Limit = Limit { metric: Metric::SyscallErrorRatio, side: Side::Above, level: 0.05 };

/// Two minutes of baseline, then one with the fault on.
const QUIET: World = World { phases: [120, 60, 0], ..World::QUIET };

/// After how many seconds with the fault on the run is ended, and by what.
fn ended(world: &World, guards: &[AbortIf], seed: u64) -> Option<(usize, Fired)> {
    let ticks = world.ticks(seed);
    let (baseline, during): (Vec<_>, Vec<_>) =
        ticks.into_iter().partition(|tick| tick.phase == Phase::Baseline);
    let mut guards = Guards::new(guards, &[], &baseline);
    (1..).zip(&during).find_map(|(second, tick)| Some((second, guards.tick(tick, true)?)))
}

/// How many of the runs are ended, and the median of the seconds that it took, where most are.
fn ends(world: World, guards: &[AbortIf]) -> (usize, usize) {
    let mut delays: Vec<usize> =
        (0..RUNS).map(|seed| ended(&world, guards, seed).map_or(usize::MAX, |(second, _)| second)).collect();
    delays.sort_unstable();
    (delays.iter().filter(|delay| **delay < usize::MAX).count(), delays[delays.len() / 2])
}

const BOTH: [AbortIf; 2] = [AbortIf::Harm(LESS), AbortIf::Harm(MORE_ERRORS)];

#[test]
fn runs_without_harm_go_on() {
    for rho in [0.0, 0.8] {
        let (ended, _) = ends(World { rho, ..QUIET }, &BOTH);
        println!("rho {rho}: {ended} of {RUNS} ended");
        assert!(ended <= 5, "rho {rho}: {ended}");
    }
}

#[test]
fn harm_just_at_the_limit_ends_one_run_in_a_hundred_at_most() {
    for rho in [0.0, 0.5] {
        let (ended, _) = ends(World { rho, factor: 0.7, ..QUIET }, &BOTH);
        println!("rate at the limit, rho {rho}: {ended} of {RUNS}");
        assert!(ended <= 5, "rate, rho {rho}: {ended}");
        let (ended, _) = ends(World { rho, extra_errors: 0.01, ..QUIET }, &BOTH);
        println!("share at the limit, rho {rho}: {ended} of {RUNS}");
        assert!(ended <= 5, "share, rho {rho}: {ended}");
    }
}

#[test]
fn twice_the_harm_is_noticed_within_seconds() {
    let (all, median) = ends(World { factor: 0.35, ..QUIET }, &BOTH);
    println!("half of what is allowed: median {median} s");
    assert!(all == RUNS as usize && median <= 10, "{all} ended, after {median} s");
    let (all, median) = ends(World { extra_errors: 0.02, ..QUIET }, &BOTH);
    println!("twice the errors allowed: median {median} s");
    assert!(all == RUNS as usize && median <= 10, "{all} ended, after {median} s");
}

/// Three calls in two seconds, hardly any of which fails: too rare for scores.
#[test]
fn errors_of_little_traffic_are_counted() {
    let rare = World { packets: 30.0, errors: 0.0005, ..QUIET };
    let guard = [AbortIf::Harm(MORE_ERRORS)];
    let (quiet, _) = ends(rare, &guard);
    let (at_limit, _) = ends(World { extra_errors: 0.01, ..rare }, &guard);
    let (hurt, median) = ends(World { extra_errors: 0.1, ..rare }, &guard);
    println!("rare errors: {quiet} quiet, {at_limit} at the limit, {hurt} hurt, after {median} s");
    assert!(quiet <= 5 && at_limit <= 5, "{quiet} quiet, {at_limit} at the limit");
    assert!(hurt == RUNS as usize && median <= 10, "{hurt} ended, after {median} s");
    // Without any in the baseline, too.
    let (quiet, _) = ends(World { errors: 0.0, extra_errors: 0.01, ..rare }, &guard);
    assert!(quiet <= 5, "{quiet}");
}

#[test]
fn rates_of_little_traffic_are_counted() {
    let rare = World { packets: 3.0, sd: 0.0, ..QUIET };
    let guard = [AbortIf::Harm(Harm { metric: Metric::RxPackets, ..LESS })];
    let (quiet, _) = ends(rare, &guard);
    let (at_limit, _) = ends(World { factor: 0.7, ..rare }, &guard);
    let (hurt, _) = ends(World { factor: 0.1, ..rare }, &guard);
    println!("rare packets: {quiet} quiet, {at_limit} at the limit, {hurt} hurt");
    assert!(quiet <= 5 && at_limit <= 5, "{quiet} quiet, {at_limit} at the limit");
    assert!(hurt >= 450, "{hurt}");
}

fn of(ticks: &[Tick], phase: Phase) -> Vec<Tick> {
    ticks.iter().filter(|tick| tick.phase == phase).cloned().collect()
}

#[test]
fn only_ticks_with_the_fault_on_are_harm_and_recovering_is_none() {
    let ticks = World { factor: 0.1, ..QUIET }.ticks(1);
    let mut guards = Guards::new(&BOTH, &[], &of(&ticks, Phase::Baseline));
    let hurt = of(&ticks, Phase::Inject);
    assert!(hurt.iter().all(|tick| guards.tick(tick, false).is_none()));
    assert!(
        hurt.iter().all(|tick| guards.tick(&Tick { phase: Phase::Recover, ..tick.clone() }, true).is_none())
    );
    assert_eq!(guards.evidence()[0].e_value_max, Some(0.0), "nothing was looked at");
    let fired = hurt.iter().find_map(|tick| guards.tick(tick, true)).unwrap();
    assert_eq!(fired.guard, "net.rx_bytes harm -30%");
    assert!(fired.because.starts_with("it fell by more than 30% against the control group"), "{fired:?}");
    let record = &guards.evidence()[0];
    assert!(record.fired && record.e_value_max >= record.threshold && record.threshold == Some(400.0));
    assert_eq!((record.metric.as_deref(), &record.reason), (Some("net.rx_bytes"), &None));
}

#[test]
fn what_cannot_be_tested_says_why_and_never_fires() {
    let reason = |world: World, harm: Harm| {
        let ticks = world.ticks(1);
        let mut guards = Guards::new(&[AbortIf::Harm(harm)], &[], &of(&ticks, Phase::Baseline));
        assert!(ticks.iter().all(|tick| guards.tick(tick, true).is_none()));
        let record = guards.evidence().remove(0);
        assert!(!record.fired && record.e_value_max.is_none());
        record.reason.unwrap()
    };
    let short = reason(World { phases: [29, 60, 0], factor: 0.1, ..QUIET }, LESS);
    assert!(short.contains("29 readings") && short.contains("make it longer"), "{short}");
    let idle = reason(World { packets: 0.0, ..QUIET }, LESS);
    assert!(idle.contains("too few"), "{idle}");
    let idle = reason(World { packets: 0.0, ..QUIET }, MORE_ERRORS);
    assert!(idle.contains("nothing happened"), "{idle}");
}

fn limited(lasting: u64) -> AbortIf {
    AbortIf::Level { limit: ERRORS, lasting: Duration::from_secs(lasting) }
}

#[test]
fn a_level_must_stay_beyond_its_limit_and_gaps_are_not_time() {
    let ticks = World { extra_errors: 0.1, ..QUIET }.ticks(1);
    let (baseline, bad) = (of(&ticks, Phase::Baseline), of(&ticks, Phase::Inject));
    let mut guards = Guards::new(&[limited(5)], &[], &baseline);
    assert!(baseline.iter().all(|tick| guards.tick(tick, false).is_none()));
    assert!(bad[..4].iter().all(|tick| guards.tick(tick, true).is_none()));
    assert!(guards.tick(&baseline[0], true).is_none(), "one good second, and it begins again");
    assert!(bad[..4].iter().all(|tick| guards.tick(tick, true).is_none()));
    // A second in which no call was made has no share of failed ones.
    let idle = Tick { experiment: chaos_common::Counters::ZERO.into(), ..bad[0].clone() };
    assert!(guards.tick(&idle, true).is_none());
    let fired = guards.tick(&bad[5], false).unwrap();
    assert_eq!(fired.guard, "syscall.error_ratio above 5% for 5s");
    assert!(fired.because.starts_with("syscall.error_ratio of the experiment group at 1"), "{fired:?}");
    assert!(fired.because.ends_with("above 5% for 5s") && guards.evidence()[0].fired, "{fired:?}");
}

#[test]
fn falling_silent_is_below_a_floor() {
    let ticks = QUIET.ticks(1);
    let floor = Limit { metric: Metric::RxPackets, side: Side::Below, level: 10.0 };
    let guard = AbortIf::Level { limit: floor, lasting: Duration::ZERO };
    let mut guards = Guards::new(&[guard], &[], &of(&ticks, Phase::Baseline));
    assert!(ticks.iter().all(|tick| guards.tick(tick, true).is_none()));
    let silent = Tick { experiment: chaos_common::Counters::ZERO.into(), ..ticks[0].clone() };
    let fired = guards.tick(&silent, true).unwrap();
    assert_eq!(fired.because, "net.rx_packets of the experiment group at 0/s, below 10/s");
}

#[test]
fn the_control_group_is_held_to_the_same() {
    let ticks = World { extra_errors: 0.1, ..QUIET }.ticks(1);
    let (baseline, bad) = (of(&ticks, Phase::Baseline), of(&ticks, Phase::Inject));
    let swapped = |tick: &Tick| Tick {
        control: tick.experiment.clone(),
        experiment: tick.control.clone(),
        ..tick.clone()
    };
    for (guards, checks) in [
        (vec![AbortIf::ControlUnhealthy], vec![Check(ERRORS)]),
        (vec![AbortIf::ControlUnhealthy, limited(5)], vec![]),
    ] {
        let mut guards = Guards::new(&guards, &checks, &baseline);
        assert!(bad[..4].iter().all(|tick| guards.tick(&swapped(tick), true).is_none()));
        let fired = guards.tick(&swapped(&bad[4]), true).unwrap();
        assert_eq!(fired.guard, "control: unhealthy");
        assert!(fired.because.contains("of the control group at 1"), "{fired:?}");
        assert_eq!(
            AbortReason::from(fired.clone()).to_string(),
            format!("{}: {}", fired.guard, fired.because)
        );
    }
}

#[test]
fn missing_ticks_fire_nothing() {
    let ticks = QUIET.ticks(1);
    let all = [AbortIf::Harm(LESS), AbortIf::Harm(MORE_ERRORS), limited(0), AbortIf::ControlUnhealthy];
    let mut guards = Guards::new(&all, &[Check(ERRORS)], &of(&ticks, Phase::Baseline));
    let inject = of(&ticks, Phase::Inject);
    let every_tenth = inject.iter().step_by(10);
    assert!(every_tenth.into_iter().all(|tick| guards.tick(tick, true).is_none()));
    let mut blind = Guards::new(&all, &[Check(ERRORS)], &[]);
    assert!(ticks.iter().all(|tick| blind.tick(tick, true).is_none()));
}
