//! Single runs of several targets in a group whose verdict is known.

use chaos_common::Counters;

use super::{
    simulation::{World, falls},
    *,
};
use crate::{steady::done::Done, target::Group};

const QUIET: World = World { packets: 20_000.0, rho: 0.3, sd: 0.01, ..World::QUIET };

fn scaled(done: &Done, factor: f64) -> Done {
    let of = |count: u64| (count as f64 * factor).round() as u64;
    let c = &done.counters;
    let (rx_packets, rx_bytes) = (of(c.rx_packets), of(c.rx_bytes));
    let (syscalls, syscall_errors) = (of(c.syscalls), of(c.syscall_errors));
    Counters { rx_packets, rx_bytes, syscalls, syscall_errors, ..Counters::ZERO }.into()
}

/// The same run, of which the groups are as many targets that do as much each, but for what the fault makes of the traffic
/// of each: a factor.
pub(crate) fn of_targets(mut input: JudgeInput, control: usize, factors: &[f64]) -> JudgeInput {
    let split = |tick: &mut Tick| {
        let factor = |factor: &f64| if tick.phase == Phase::Inject { *factor } else { 1.0 };
        let each = 1.0 / factors.len() as f64;
        let treated = factors.iter().map(|of| scaled(&tick.experiment, each * factor(of)));
        let treated: Vec<Done> = treated.collect();
        let untreated = vec![scaled(&tick.control, 1.0 / control as f64); control];
        tick.experiment = treated.iter().cloned().reduce(Done::plus).unwrap();
        tick.control = untreated.iter().cloned().reduce(Done::plus).unwrap();
        let of = |group, members: Vec<Done>| members.into_iter().map(move |done| (group, done));
        tick.apart = of(Group::Control, untreated).chain(of(Group::Experiment, treated)).collect();
    };
    let blocks = input.blocks.iter_mut().flat_map(|block| &mut block.ticks);
    input.ticks.iter_mut().chain(blocks).for_each(split);
    input.gates = vec![falls(Metric::RxBytes, 0.1)];
    input
}

fn both_designs(control: usize, factors: &[f64]) -> [JudgeInput; 2] {
    [QUIET.pulses(20, 10, 1), QUIET.input(1)].map(|input| of_targets(input, control, factors))
}

#[test]
fn what_one_of_four_suffers_says_little_of_others() {
    for input in both_designs(5, &[1.0, 1.0, 1.0, 0.3]) {
        let judgement = judge(&input);
        let gate = &judgement.gates[0];
        let effect = gate.estimate.as_ref().unwrap();
        let spread = effect.targets.unwrap();
        assert!(effect.is_by_targets() && (effect.se, effect.df) == (spread.se, spread.df), "{spread:?}");
        assert_eq!((spread.control, spread.experiment), (Some(5), Some(4)));
        assert_eq!((gate.verdict, gate.needs_s, gate.needs_pairs), (GateVerdict::Inconclusive, None, None));
        assert!(judgement.caveats.contains(&Caveat::TargetsDiffer { metric: Metric::RxBytes }));
        let these = judge(&input.of_these());
        assert_eq!(these.verdict, Verdict::Fail, "of these four it was shown");
        assert_eq!(these.gates[0].estimate.as_ref().unwrap().targets, None);
        assert_eq!(these.gates[0].estimate.as_ref().unwrap().theta, effect.theta);
    }
}

#[test]
fn targets_that_respond_alike_change_nothing() {
    for input in both_designs(4, &[0.8; 6]) {
        let (judgement, these) = (judge(&input), judge(&input.of_these()));
        let of = |judgement: &Judgement| judgement.gates[0].estimate.clone().unwrap();
        assert!(!of(&judgement).is_by_targets());
        assert_eq!((of(&judgement).ci, judgement.verdict), (of(&these).ci, these.verdict));
    }
}

#[test]
fn recovery_and_the_control_group_know_it_too() {
    let mut input = of_targets(QUIET.input(1), 4, &[1.0; 4]);
    let late = input.ticks.iter_mut().filter(|tick| tick.phase == Phase::Recover);
    late.for_each(|tick| tick.apart[5].1 = scaled(&tick.apart[5].1, 0.7));
    let judgement = judge(&input);
    let recovered = judgement.recovery.gates[0].estimate.clone().unwrap();
    assert!(recovered.is_by_targets(), "{recovered:?}");
    let mut input = of_targets(QUIET.pulses(20, 10, 1), 4, &[1.0; 4]);
    let on = input.blocks.iter_mut().filter(|block| block.on).flat_map(|block| &mut block.ticks);
    on.for_each(|tick| tick.apart[2].1 = scaled(&tick.apart[2].1, 0.2));
    let control = judge(&input).control[0].estimate.clone().unwrap();
    let spread = control.targets.unwrap();
    assert_eq!((spread.taken, spread.control, spread.experiment), (true, Some(4), None));
}

#[test]
fn three_are_not_told_apart() {
    for input in both_designs(3, &[1.0, 1.0, 0.3]) {
        assert_eq!(judge(&input).gates[0].estimate.as_ref().unwrap().targets, None);
    }
}
