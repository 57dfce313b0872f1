//! Single runs whose verdict is known.

use chaos_common::{Counters, RuleStats};

use super::{
    simulation::{World, delivered, falls, rises},
    *,
};
use crate::{experiment::hypothesis::Margin, target::Group};

/// A run in which both groups do the same in every tick.
fn constant(counters: Counters) -> JudgeInput {
    let mut input = World::QUIET.input(1);
    for tick in &mut input.ticks {
        (tick.control, tick.experiment) = (counters.into(), counters.into());
    }
    input
}

fn clockwork() -> JudgeInput {
    constant(Counters { rx_packets: 100, rx_bytes: 50_000, syscalls: 300, ..Counters::ZERO })
}

/// Adds errors to the first ticks of a group while injecting.
fn with_errors(mut input: JudgeInput, group: Group, errors: u64, per_tick_syscalls: u64) -> JudgeInput {
    for tick in &mut input.ticks {
        (tick.control.counters.syscalls, tick.experiment.counters.syscalls) =
            (per_tick_syscalls, per_tick_syscalls);
    }
    let inject = input.ticks.iter_mut().filter(|tick| tick.phase == Phase::Inject);
    for tick in inject.step_by(3).take(errors as usize) {
        match group {
            Group::Control => tick.control.counters.syscall_errors = 1,
            Group::Experiment => tick.experiment.counters.syscall_errors = 1,
        }
    }
    input.gates = vec![rises(Metric::SyscallErrorRatio, 0.005)];
    input
}

#[test]
fn clockwork_passes_with_an_interval_that_has_width() {
    let judgement = judge(&clockwork());
    assert_eq!(judgement.verdict, Verdict::Pass);
    for gate in &judgement.gates {
        let effect = gate.estimate.as_ref().unwrap();
        assert_eq!(effect.theta, 0.0);
        assert!(effect.ci[0] < 0.0 && effect.ci[1] > 0.0, "{:?}", effect.ci);
    }
    assert_eq!((judgement.ci_level * 100.0).round(), 90.0);
}

#[test]
fn nothing_at_all_is_invalid() {
    let judgement = judge(&constant(Counters::ZERO));
    assert_eq!(judgement.verdict, Verdict::Invalid);
    let idle = InvalidReason::NoActivity { group: Group::Control, phase: Phase::Baseline };
    assert!(judgement.invalid.contains(&idle), "{:?}", judgement.invalid);
}

#[test]
fn a_control_group_that_does_nothing_is_missing() {
    let mut input = clockwork();
    for tick in &mut input.ticks {
        tick.control = Counters::ZERO.into();
    }
    assert_eq!(judge(&input).invalid, [InvalidReason::ControlMissing]);
}

#[test]
fn an_experimental_group_that_falls_silent_has_failed() {
    let mut input = clockwork();
    input.gates = vec![falls(Metric::RxBytes, 0.1)];
    for tick in input.ticks.iter_mut().filter(|tick| tick.phase == Phase::Inject) {
        tick.experiment = Counters::ZERO.into();
    }
    let judgement = judge(&input);
    assert_eq!((judgement.verdict, &judgement.invalid[..]), (Verdict::Fail, &[][..]));
    assert_eq!(judgement.recovery.outcome, Recovered::Recovered);
}

#[test]
fn faults_that_did_not_fire_make_it_invalid() {
    let with = |rules| judge(&JudgeInput { rules, ..clockwork() });
    let stats = |injected, chance| RuleStats { injected, chance, ..RuleStats::ZERO };
    let never = RuleDelivery { experiment: stats(0, 500), ..delivered() };
    let nothing = RuleDelivery { experiment: stats(0, 0), ..delivered() };
    let often = RuleDelivery { experiment: stats(900, 100), ..delivered() };
    let leaked = RuleDelivery { control: stats(3, 0), ..delivered() };
    let dry = RuleDelivery { dry_run: true, experiment: RuleStats::ZERO, ..delivered() };
    let fault = "loss egress".to_owned();
    let cases = [
        (vec![], InvalidReason::NoFault),
        (vec![delivered(), never], InvalidReason::NothingInjected { fault: fault.clone(), eligible: 500 }),
        (vec![nothing], InvalidReason::NothingEligible { fault: fault.clone() }),
        (vec![often], InvalidReason::OtherShare { fault: fault.clone(), fraction: 0.9, expected: 0.05 }),
        (vec![leaked], InvalidReason::ControlHit { fault, injected: 3 }),
        (vec![dry], InvalidReason::DryRun),
    ];
    for (rules, reason) in cases {
        let judgement = with(rules);
        assert_eq!((judgement.verdict, judgement.invalid), (Verdict::Invalid, vec![reason]));
    }
}

fn invariant(id: &str, ok: bool) -> InvariantRecord {
    InvariantRecord { id: id.into(), ok, detail: "exit code 1".into(), seconds: 0.1 }
}

#[test]
fn a_broken_invariant_fails_whatever_passes() {
    let invariants = vec![invariant("alive", true), invariant("no-lost-write", false)];
    let broken = |input: JudgeInput| judge(&JudgeInput { invariants: invariants.clone(), ..input });
    let judgement = broken(clockwork());
    assert_eq!(
        (judgement.verdict, &judgement.broken[..]),
        (Verdict::Fail, &["no-lost-write".to_owned()][..])
    );
    assert!(judgement.gates.iter().all(|gate| gate.verdict == GateVerdict::Pass));
    let said = crate::report::claim::sentence(&judgement);
    assert_eq!(said, "after the run `no-lost-write` does not hold");
    // What was ended early, or injected nothing, is not known to have broken it.
    let aborted = Some(AbortReason::Interrupted);
    assert_eq!(broken(JudgeInput { aborted, ..clockwork() }).verdict, Verdict::Aborted);
    assert_eq!(broken(JudgeInput { rules: vec![], ..clockwork() }).verdict, Verdict::Invalid);
    let holds = vec![invariant("alive", true)];
    assert_eq!(judge(&JudgeInput { invariants: holds, ..clockwork() }).verdict, Verdict::Pass);
}

#[test]
fn what_was_not_ready_is_invalid_for_that_alone() {
    let reason = InvalidReason::NotReady { check: "power".into(), detail: "40 pairs would do".into() };
    let input = JudgeInput { not_ready: vec![reason.clone()], rules: vec![], ..clockwork() };
    let judgement = judge(&input);
    assert_eq!((judgement.verdict, &judgement.invalid[..]), (Verdict::Invalid, &[reason][..]));
    let said = crate::report::claim::sentence(&judgement);
    assert_eq!(said, "nothing can be said: power: 40 pairs would do; nothing was injected");
}

#[test]
fn a_guard_that_fires_ends_the_run() {
    let fired = AbortReason::Guard { guard: "net.rx_bytes harm -30%".into(), because: "it fell".into() };
    assert_eq!(json(&fired), r#"{"guard":{"guard":"net.rx_bytes harm -30%","because":"it fell"}}"#);
    let judgement = judge(&JudgeInput { aborted: Some(fired), ..clockwork() });
    assert_eq!((judgement.verdict, judgement.verdict.exit_code()), (Verdict::Aborted, 5));
    let said = crate::report::claim::sentence(&judgement);
    assert_eq!(said, "nothing is claimed, the run ended early: net.rx_bytes harm -30%: it fell");
}

#[test]
fn a_tenth_of_the_ticks_may_be_lost() {
    let mut input = clockwork();
    let all = input.ticks.len();
    input.ticks.retain(|tick| tick.at_s % 10.0 != 0.0);
    let judgement = judge(&input);
    assert_eq!(judgement.verdict, Verdict::Pass);
    assert!(judgement.caveats.contains(&Caveat::LostTicks { lost: all / 10, expected: all }));
    input.ticks.pop();
    assert_eq!(judge(&input).verdict, Verdict::Invalid);
}

#[test]
fn an_abort_is_an_abort_whatever_is_missing() {
    let mut input = clockwork();
    input.ticks.truncate(3);
    input.aborted = Some(AbortReason::Interrupted);
    let judgement = judge(&input);
    assert_eq!((judgement.verdict, judgement.aborted), (Verdict::Aborted, Some(AbortReason::Interrupted)));
}

#[test]
fn too_little_of_everything_is_inconclusive() {
    let mut input = World { phases: [4, 4, 0], ..World::QUIET }.input(1);
    let judgement = judge(&input);
    assert_eq!(judgement.verdict, Verdict::Inconclusive);
    assert!(judgement.caveats.contains(&Caveat::TooFewTicks { metric: Metric::RxBytes }));
    assert!(judgement.caveats.contains(&Caveat::RecoveryNotMeasured));
    input.gates.clear();
    input.ticks.clear();
    assert_ne!(judge(&input).verdict, Verdict::Pass, "nothing asked, nothing shown");
}

#[test]
fn four_errors_against_none_decide_nothing_and_eleven_fail() {
    // The counts of Kayenta #426 and #799; one-sided exact p 0.06 and 0.0005.
    let p = |errors| {
        let judgement = judge(&with_errors(clockwork(), Group::Experiment, errors, 2));
        let gate = judgement.gates[0].clone();
        let effect = gate.estimate.unwrap();
        assert!(effect.few_events && effect.ci[1] - effect.ci[0] > 0.01);
        (judgement.verdict, gate.p_fail.unwrap())
    };
    let (verdict, p_four) = p(4);
    assert_eq!(verdict, Verdict::Inconclusive);
    assert!(p_four >= 0.0625, "{p_four}");
    let (verdict, p_eleven) = p(11);
    assert_eq!(verdict, Verdict::Fail);
    assert!((1.0 / 2048.0..0.05).contains(&p_eleven), "{p_eleven}");
}

/// Errors of the experimental group before and during, and of the control group, out of 600 calls in each cell.
fn four_cells(experiment: [usize; 2], control: [usize; 2]) -> JudgeInput {
    let mut input = with_errors(clockwork(), Group::Experiment, 0, 10);
    for (phase, index) in [(Phase::Baseline, 0), (Phase::Inject, 1)] {
        let ticks = input.ticks.iter_mut().filter(|tick| tick.phase == phase);
        for (i, tick) in ticks.enumerate() {
            // Scattered, so that the ticks themselves are not autocorrelated.
            let has_error = |errors: usize, step: usize| u64::from((i * step) % 60 < errors);
            tick.experiment.counters.syscall_errors = has_error(experiment[index], 37);
            tick.control.counters.syscall_errors = has_error(control[index], 23);
        }
    }
    input
}

#[test]
fn few_errors_fail_only_if_the_experimental_group_itself_has_more() {
    let judged = |input: JudgeInput| judge(&input).gates[0].clone();
    let rose = judged(four_cells([0, 20], [20, 20]));
    assert_eq!(rose.verdict, GateVerdict::Fail, "20 against none before: {:?}", rose.p_fail);
    let control_fell = judged(JudgeInput {
        gates: vec![rises(Metric::SyscallErrorRatio, 0.0001)],
        ..four_cells([14, 20], [24, 14])
    });
    assert!(control_fell.estimate.as_ref().unwrap().theta > 0.02);
    assert_eq!(control_fell.verdict, GateVerdict::Inconclusive);
    assert!(control_fell.p_fail.unwrap() > 0.15, "{:?}", control_fell.p_fail);
    let structural = judged(four_cells([10, 11], [0, 0]));
    assert_eq!(structural.verdict, GateVerdict::Inconclusive, "as before, and 600 calls show no more");
}

#[test]
fn no_errors_bound_the_ratio_by_how_much_was_seen() {
    let upper = |syscalls| {
        let judgement = judge(&with_errors(clockwork(), Group::Experiment, 0, syscalls));
        (judgement.verdict, judgement.gates[0].estimate.as_ref().unwrap().ci[1])
    };
    let (little, little_bound) = upper(1);
    let (much, much_bound) = upper(1_000);
    assert_eq!((little, much), (Verdict::Inconclusive, Verdict::Pass));
    assert!(little_bound > 0.03 && much_bound < 0.0001 && much_bound > 0.0, "{little_bound} {much_bound}");
}

#[test]
fn a_rare_packet_is_not_certainty() {
    let mut input = constant(Counters::ZERO);
    for tick in input.ticks.iter_mut().filter(|tick| tick.at_s % 10.0 == 0.0) {
        let one = Counters { rx_packets: 1, rx_bytes: 1_500, ..Counters::ZERO };
        (tick.control, tick.experiment) = (one.into(), one.into());
    }
    input.gates = vec![falls(Metric::RxBytes, 0.1)];
    let judgement = judge(&input);
    assert_eq!(judgement.verdict, Verdict::Inconclusive);
    let effect = judgement.gates[0].estimate.as_ref().unwrap();
    assert!(effect.se >= (4.0f64 / 6.5).sqrt() - 1e-9, "Poisson, six packets in each cell: {}", effect.se);
}

#[test]
fn pass_is_withheld_when_the_control_group_moved_too() {
    let mut input = World { factor: 0.7, ..World::QUIET }.input(3);
    input.gates = vec![falls(Metric::RxBytes, 0.1)];
    for tick in input.ticks.iter_mut().filter(|tick| tick.phase == Phase::Inject) {
        tick.control = tick.experiment.clone();
    }
    let judgement = judge(&input);
    assert_eq!(judgement.gates[0].verdict, GateVerdict::Pass);
    assert_eq!((judgement.control[0].steady, judgement.verdict), (Steady::No, Verdict::Inconclusive));
    assert!(judgement.caveats.contains(&Caveat::ControlMoved { metric: Metric::RxBytes }));
}

#[test]
fn only_the_side_that_hurts_is_judged() {
    let faster = World { factor: 1.4, ..World::QUIET };
    let with = |gate: Gate| {
        let mut input = faster.input(5);
        input.gates = vec![gate];
        judge(&input).gates[0].verdict
    };
    assert_eq!(with(falls(Metric::RxBytes, 0.1)), GateVerdict::Pass);
    assert_eq!(with(rises(Metric::RxBytes, 0.1)), GateVerdict::Fail);
    let both = Margin { increase: Some(0.1), decrease: Some(0.1) };
    assert_eq!(with(Gate { metric: Metric::RxBytes, margin: both }), GateVerdict::Fail);
}

#[test]
fn the_verdict_does_not_depend_on_units_or_on_the_order_of_gates() {
    let input = World { factor: 0.93, ..World::QUIET }.input(11);
    let expected = judge(&input);
    let mut swapped = input.clone();
    swapped.gates.reverse();
    let swapped = judge(&swapped);
    assert_eq!((swapped.verdict, &swapped.gates[1]), (expected.verdict, &expected.gates[0]));
    let mut half = input.clone();
    for tick in &mut half.ticks {
        (tick.seconds, tick.at_s) = (tick.seconds / 2.0, tick.at_s / 2.0);
    }
    let [ours, theirs] =
        [&judge(&half), &expected].map(|judgement| judgement.gates[0].estimate.clone().unwrap());
    assert!((ours.theta - theirs.theta).abs() < 1e-9 && (ours.se - theirs.se).abs() < 1e-9);
    assert!((ours.cells.control_before / theirs.cells.control_before - 2.0).abs() < 1e-9);
}

#[test]
fn swapping_the_groups_turns_the_effect_round() {
    let input = World { factor: 0.85, extra_errors: 0.004, ..World::QUIET }.input(7);
    let mut swapped = input.clone();
    for tick in &mut swapped.ticks {
        std::mem::swap(&mut tick.control, &mut tick.experiment);
    }
    for (one, other) in judge(&input).gates.iter().zip(&judge(&swapped).gates) {
        let (one, other) = (one.estimate.as_ref().unwrap(), other.estimate.as_ref().unwrap());
        assert!((one.theta + other.theta).abs() < 1e-12 && (one.se - other.se).abs() < 1e-12);
    }
}

#[test]
fn a_narrower_margin_never_helps_and_more_confidence_never_decides_more() {
    for seed in 0..40 {
        let world = World { factor: 0.97, ..World::QUIET };
        let ranks: Vec<_> = [0.2, 0.1, 0.05, 0.02, 0.01]
            .map(|margin| {
                let input = JudgeInput { gates: vec![falls(Metric::RxBytes, margin)], ..world.input(seed) };
                match judge(&input).gates[0].verdict {
                    GateVerdict::Pass => 0,
                    GateVerdict::Inconclusive => 1,
                    GateVerdict::Fail => 2,
                }
            })
            .into();
        assert!(ranks.is_sorted(), "seed {seed}: {ranks:?}");
        let strict = JudgeInput { confidence: 0.999, ..world.input(seed) };
        for (strict, plain) in judge(&strict).gates.iter().zip(&judge(&world.input(seed)).gates) {
            assert!(strict.verdict == plain.verdict || strict.verdict == GateVerdict::Inconclusive);
        }
    }
}

#[test]
fn settling_is_left_out_while_injecting_and_kept_before() {
    let mut input = clockwork();
    input.gates = vec![falls(Metric::RxBytes, 0.1)];
    input.settle = Duration::from_secs(5);
    for tick in input.ticks.iter_mut().filter(|tick| tick.phase == Phase::Inject && tick.at_s <= 5.0) {
        tick.experiment.counters.rx_bytes = 1;
    }
    let judgement = judge(&input);
    assert_eq!(judgement.verdict, Verdict::Pass);
    assert_eq!(judgement.gates[0].estimate.as_ref().unwrap().seconds, 55.0);
}

#[test]
fn what_is_not_a_gate_is_observed() {
    let judgement = judge(&World { factor: 0.5, ..World::QUIET }.input(2));
    let strengths: Vec<_> =
        judgement.observations.iter().map(|seen| seen.estimate.theta.abs() / seen.estimate.se).collect();
    assert!(
        strengths.is_sorted_by(|one, other| *one >= other - 1e-6),
        "what moved most first: {strengths:?}"
    );
    let moved = |seen: &Observation| (seen.metric == Metric::RxPackets, seen.moved(), seen.q >= seen.p);
    assert!(judgement.observations.iter().any(|seen| moved(seen) == (true, true, true)));
    let mut observed: Vec<_> = judgement.observations.iter().map(|observation| observation.metric).collect();
    observed.sort_by_key(|metric| Metric::ALL.iter().position(|other| other == metric));
    let expected = [
        Metric::TxBytes,
        Metric::RxPackets,
        Metric::TxPackets,
        Metric::Syscalls,
        Metric::OrganicErrorRatio,
        Metric::TcpRetransRatio,
    ];
    assert_eq!(observed, expected);
}

#[test]
fn kappa_widens_the_intervals_of_a_hold_and_ends_the_doubt() {
    let input = World { rho: 0.97, sd: 0.1, ..World::QUIET }.input(2);
    let mended = JudgeInput { kappa: vec![(Metric::RxBytes, 3.0)], ..input.clone() };
    let [plain, mended] = [input, mended].map(|input| judge(&input));
    let se = |judged: &Judgement| judged.gates[0].estimate.as_ref().unwrap().se;
    assert!((se(&mended) / se(&plain) - 3.0).abs() < 1e-9);
    let doubted = |judged: &Judgement| {
        judged
            .caveats
            .iter()
            .any(|caveat| matches!(caveat, Caveat::Autocorrelated { metric: Metric::RxBytes, .. }))
    };
    assert!(doubted(&plain) && !doubted(&mended));
}

#[test]
fn exit_codes_and_names_are_stable() {
    use Verdict::*;
    assert_eq!([Pass, Fail, Inconclusive, Invalid, Aborted].map(Verdict::exit_code), [0, 1, 3, 4, 5]);
    assert_eq!(json(&Inconclusive), "\"inconclusive\"");
    assert_eq!(json(&AbortReason::LeaseLost), "\"lease_lost\"");
    assert_eq!(
        json(&InvalidReason::NoActivity { group: Group::Control, phase: Phase::Inject }),
        r#"{"no_activity":{"group":"control","phase":"inject"}}"#
    );
    assert_eq!(json(&Recovered::NotRecovered), "\"not_recovered\"");
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}
