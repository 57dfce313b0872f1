//! Single runs of pulses whose verdict is known.

use super::{
    simulation::{World, falls},
    *,
};

const QUIET: World = World { packets: 20_000.0, rho: 0.9, ..World::QUIET };

fn verdicts(world: World) -> Vec<Verdict> {
    (0..30).map(|seed| judge(&world.pulses(12, 10, seed)).verdict).collect()
}

fn share(verdicts: &[Verdict], wanted: Verdict) -> f64 {
    verdicts.iter().filter(|verdict| **verdict == wanted).count() as f64 / verdicts.len() as f64
}

#[test]
fn nothing_happens_and_nothing_fails() {
    let words = [Verdict::Pass, Verdict::Inconclusive, Verdict::Invalid, Verdict::Fail];
    let of = |pairs: usize| {
        let runs: Vec<_> = (0..200).map(|seed| judge(&QUIET.pulses(pairs, 10, seed))).collect();
        let gates = |run: &&Judgement| run.gates.iter().all(|gate| gate.verdict == GateVerdict::Pass);
        assert!(runs.iter().filter(gates).count() >= 190, "{pairs} pairs");
        words.map(|wanted| runs.iter().filter(|run| run.verdict == wanted).count())
    };
    // docs/judge.md has these: the load wanders, and half a minute before and after is not much to compare.
    assert_eq!([of(12), of(20)], [[102, 96, 1, 1], [151, 48, 0, 1]]);
}

#[test]
fn an_effect_beyond_the_margin_fails() {
    assert_eq!(share(&verdicts(World { factor: 0.75, ..QUIET }), Verdict::Fail), 1.0);
    assert_eq!(share(&verdicts(World { extra_errors: 0.02, ..QUIET }), Verdict::Fail), 1.0);
}

#[test]
fn a_control_group_that_moves_with_the_pulses_fails_too() {
    let judgement = judge(&World { factor: 0.75, spill: 0.75, ..QUIET }.pulses(20, 10, 1));
    assert_eq!(judgement.gates[0].verdict, GateVerdict::Pass, "the difference hides it");
    assert_eq!((judgement.control[0].steady, judgement.verdict), (Steady::No, Verdict::Fail));
    assert!(judgement.caveats.contains(&Caveat::ControlMoved { metric: Metric::RxBytes }));
}

#[test]
fn what_carries_over_takes_pass_away_and_leaves_fail() {
    let slow = World { factor: 0.88, tau: 8.0, sd: 0.01, ..QUIET };
    let mut input = slow.pulses(20, 10, 1);
    let judgement = judge(&input);
    let check = &judgement.pulses.as_ref().unwrap().carry_over[0];
    assert!(check.seen, "{check:?}");
    assert_eq!((judgement.gates[0].verdict, judgement.verdict), (GateVerdict::Pass, Verdict::Invalid));
    assert_eq!(judgement.invalid, [InvalidReason::CarryOver { metric: Metric::RxBytes }]);
    input.gates = vec![falls(Metric::RxBytes, 0.01)];
    let failed = judge(&input);
    assert_eq!((failed.verdict, failed.invalid), (Verdict::Fail, vec![]));
    assert!(failed.caveats.contains(&Caveat::CarryOver { metric: Metric::RxBytes }));
    let long = judge(&World { tau: 1.0, ..slow }.pulses(20, 10, 1));
    assert!(!long.pulses.unwrap().carry_over[0].seen, "blocks of ten time constants show all of it");
}

#[test]
fn a_pair_of_which_too_much_is_lost_is_left_out() {
    let mut input = QUIET.pulses(12, 10, 3);
    input.blocks[6].ticks.remove(4);
    assert_eq!(judge(&input).pulses.unwrap().dropped, 0, "a tenth may be lost");
    input.blocks[6].ticks.remove(4);
    input.blocks[9].ticks.clear();
    let judgement = judge(&input);
    let pulses = judgement.pulses.as_ref().unwrap();
    assert_eq!((pulses.pairs, pulses.dropped), (10, 2));
    assert_eq!(judgement.gates[0].estimate.as_ref().unwrap().df, 9.0);
    assert!(judgement.caveats.contains(&Caveat::DroppedPairs { dropped: 2, kept: 10 }));
    input.blocks.truncate(16);
    let few = judge(&JudgeInput { blocks: input.blocks[..10].to_vec(), ..input });
    assert_eq!(few.gates[0].missing, Some(Missing::TooFewPairs));
    assert!(few.caveats.contains(&Caveat::TooFewPairs { metric: Metric::RxBytes }));
}

#[test]
fn what_happens_while_a_block_settles_is_left_out() {
    let mut input = QUIET.pulses(12, 10, 5);
    let undisturbed = judge(&input).gates[0].estimate.clone().unwrap();
    let on = input.blocks.iter_mut().filter(|block| block.on);
    on.flat_map(|block| &mut block.ticks[..2]).for_each(|tick| tick.experiment.counters.rx_bytes = 0);
    assert_eq!(judge(&input).gates[0].estimate, Some(undisturbed));
}

#[test]
fn a_handful_of_injections_is_no_experiment() {
    let mut input = QUIET.pulses(12, 10, 5);
    input.rules[0].experiment.injected = 19;
    input.rules[0].limited = true;
    let reason = InvalidReason::TooFewInjections { fault: "loss egress".into(), injected: 19 };
    let judgement = judge(&input);
    assert_eq!((judgement.verdict, judgement.invalid), (Verdict::Invalid, vec![reason]));
}

#[test]
fn pass_of_both_needs_the_pulses_and_no_failure_of_the_hold() {
    let both = |world: World| {
        let mut input = QUIET.pulses(20, 10, 2);
        let hold = World { phases: [60, 60, 60], ..world }.input(2);
        (input.design, input.ticks, input.expected_ticks) = (Design::Both, hold.ticks, 180);
        judge(&input)
    };
    let quiet = both(QUIET);
    assert_eq!((quiet.gates.len(), quiet.hold.len()), (2, 2));
    assert!(quiet.gates[0].estimate.as_ref().unwrap().pairs.is_some());
    let slow_cascade = both(World { factor: 0.7, ..QUIET });
    assert_eq!(slow_cascade.gates[0].verdict, GateVerdict::Pass);
    assert_eq!((slow_cascade.hold[0].verdict, slow_cascade.verdict), (GateVerdict::Fail, Verdict::Fail));
}

#[test]
fn a_pass_needs_recovery_and_a_control_group_that_stood_still() {
    let seeds = || (0..30).map(|seed| judge(&World { rho: 0.5, ..QUIET }.pulses(20, 10, seed)));
    let passed: Vec<_> = seeds().filter(|judged| judged.verdict == Verdict::Pass).collect();
    assert!(!passed.is_empty());
    for judged in passed {
        assert_eq!(judged.recovery.outcome, Recovered::Recovered);
        assert!(judged.control.iter().all(|control| control.steady == Steady::Yes));
    }
    let mut no_recovery = QUIET.pulses(20, 10, 1);
    no_recovery.ticks.retain(|tick| tick.phase == Phase::Baseline);
    no_recovery.expected_ticks = 30;
    assert_eq!(judge(&no_recovery).verdict, Verdict::Inconclusive);
}

#[test]
fn whatever_is_missing_there_is_a_verdict_and_it_is_not_pass() {
    let whole = QUIET.pulses(6, 10, 1);
    let without = |change: &dyn Fn(&mut JudgeInput)| {
        let mut input = whole.clone();
        change(&mut input);
        judge(&input).verdict
    };
    let cases: [&dyn Fn(&mut JudgeInput); 8] = [
        &|input| input.blocks.clear(),
        &|input| input.ticks.clear(),
        &|input| (input.blocks, input.ticks) = (vec![], vec![]),
        &|input| input.gates.clear(),
        &|input| input.blocks.iter_mut().for_each(|block| block.ticks.clear()),
        &|input| input.blocks.iter_mut().for_each(|block| block.ticks.truncate(1)),
        &|input| input.blocks.retain(|block| block.on),
        &|input| input.settle = Duration::from_secs(60),
    ];
    for (case, change) in cases.iter().enumerate() {
        for design in [Design::Pulse, Design::Both] {
            let verdict = without(&|input| {
                input.design = design;
                change(input);
            });
            assert_ne!(verdict, Verdict::Pass, "case {case}, {design:?}");
        }
    }
}
