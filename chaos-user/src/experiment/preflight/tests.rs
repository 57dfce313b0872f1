//! Baselines whose truth is known.

use super::*;
use crate::{
    experiment::{
        hypothesis::{Margin, Metric},
        watch::Limit,
    },
    judge::simulation::{World, falls, rises},
};

const SHAPE: Shape = Shape { block: 10, settle: 2, pairs: 12 };
const QUIET: World = World { phases: [60, 0, 0], ..World::QUIET };

fn input<'a>(gates: &'a [Gate], baseline: &'a [Tick]) -> PreflightInput<'a> {
    PreflightInput {
        gates,
        checks: &[],
        baseline,
        confidence: 0.95,
        pulses: None,
        known: &[],
        members: &[],
        dry_rules: None,
        force: false,
    }
}

fn of(findings: &[Finding], check: Looked) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.check == check).collect()
}

fn gates() -> Vec<Gate> {
    vec![falls(Metric::RxBytes, 0.1), rises(Metric::SyscallErrorRatio, 0.005)]
}

#[test]
fn a_quiet_baseline_with_load_is_ready() {
    let (gates, ticks) = (gates(), QUIET.ticks(1));
    let rule = DryRule { name: "loss egress".into(), stats: RuleStats { chance: 9, ..RuleStats::ZERO } };
    let findings =
        preflight(&PreflightInput { pulses: Some(SHAPE), dry_rules: Some(&[rule]), ..input(&gates, &ticks) });
    assert_eq!(refusals(&findings), [], "{findings:#?}");
    let looked: Vec<_> = findings.iter().map(|finding| finding.check).collect();
    let both = [Looked::Activity, Looked::Balance, Looked::Power].map(|one| [one; 2]).concat();
    assert_eq!(looked, [both, vec![Looked::Eligible]].concat());
}

#[test]
fn without_load_nothing_is_done_unless_forced() {
    let (gates, ticks) = (gates(), World { packets: 0.0, ..QUIET }.ticks(1));
    let forced = preflight(&PreflightInput { force: true, ..input(&gates, &ticks) });
    assert_eq!(refusals(&forced), []);
    let findings = preflight(&input(&gates, &ticks));
    let refused = refusals(&findings);
    assert_eq!(refused.len(), 2, "{findings:#?}");
    let words = refused[0].to_string();
    assert!(
        words.starts_with("activity: nothing happened in the control and the experiment group"),
        "{words}"
    );
    assert!(words.ends_with("nothing was injected"), "{words}");
    let none: Vec<Tick> = vec![];
    assert_eq!(refusals(&preflight(&input(&gates, &none))).len(), 2, "no baseline is no load");
}

#[test]
fn checks_hold_in_both_groups_or_nothing_is_done() {
    let ticks = World { errors: 0.03, ..QUIET }.ticks(1);
    let check = |metric, side, level| [Check(Limit { metric, side, level })];
    let refused =
        |checks: &[Check]| refusals(&preflight(&PreflightInput { checks, ..input(&[], &ticks) })).len();
    assert_eq!(refused(&check(Metric::SyscallErrorRatio, Side::Above, 0.05)), 0);
    assert_eq!(refused(&check(Metric::SyscallErrorRatio, Side::Above, 0.02)), 2);
    assert_eq!(refused(&check(Metric::RxPackets, Side::Below, 10.0)), 0);
    assert_eq!(refused(&check(Metric::RxPackets, Side::Below, 1e6)), 2);
    // A share of nothing is not good.
    let idle = World { packets: 0.0, ..QUIET }.ticks(1);
    let checks = check(Metric::SyscallErrorRatio, Side::Above, 0.05);
    let findings = preflight(&PreflightInput { checks: &checks, ..input(&[], &idle) });
    assert_eq!(refusals(&findings).len(), 2);
}

#[test]
fn a_crowd_is_not_compared_with_a_few_unless_somebody_insists() {
    let gates = gates();
    let uneven = World { offset: 0.3, ..QUIET }.ticks(1);
    let findings = preflight(&input(&gates, &uneven));
    assert_eq!(refusals(&findings).len(), 2, "{findings:#?}");
    assert!(findings.iter().any(|finding| finding.detail.contains("not between a half and twice")));
    let forced = preflight(&PreflightInput { force: true, ..input(&gates, &uneven) });
    assert_eq!(refusals(&forced), []);
    assert!(of(&forced, Looked::Balance).iter().all(|finding| !finding.ok), "it is said all the same");
    let noisy = World { sd: 0.4, ..QUIET }.ticks(1);
    let findings = preflight(&input(&gates, &noisy));
    let rate = of(&findings, Looked::Balance)[0];
    assert!(!rate.ok && !rate.refuses && rate.detail.contains("more than half of the margin"), "{rate:?}");
}

#[test]
fn too_few_pulses_are_refused_with_how_many_would_do() {
    let gates = [falls(Metric::RxBytes, 0.05)];
    let ticks = World { phases: [120, 0, 0], sd: 0.2, rho: 0.9, packets: 20_000.0, ..World::QUIET }.ticks(1);
    let pulses = PreflightInput { pulses: Some(SHAPE), ..input(&gates, &ticks) };
    let findings = preflight(&pulses);
    let power = of(&findings, Looked::Power)[0];
    assert!(power.refuses && power.detail.contains(" pairs would do"), "{power:?}");
    assert!(!of(&preflight(&PreflightInput { force: true, ..pulses.clone() }), Looked::Power)[0].refuses);
    assert!(of(&preflight(&input(&gates, &ticks)), Looked::Power).is_empty(), "a hold has no pulses");
    let short = preflight(&PreflightInput { baseline: &ticks[..15], ..pulses });
    let power = of(&short, Looked::Power)[0];
    assert!(!power.ok && !power.refuses && power.detail.contains("not known"), "{power:?}");
}

#[test]
fn a_fault_that_meets_nothing_is_not_injected_unless_forced() {
    let rule = |stats| DryRule { name: "loss egress".into(), stats };
    let rules = [
        rule(RuleStats { dry_run: 3, ..RuleStats::ZERO }),
        rule(RuleStats { filtered: 900, lease: 5, dormant: 5, ..RuleStats::ZERO }),
        rule(RuleStats::ZERO),
    ];
    let forced = preflight(&PreflightInput { dry_rules: Some(&rules), force: true, ..input(&[], &[]) });
    assert_eq!(refusals(&forced), []);
    let findings = preflight(&PreflightInput { dry_rules: Some(&rules), ..input(&[], &[]) });
    let refuses: Vec<_> = findings.iter().map(|finding| finding.refuses).collect();
    assert_eq!(refuses, [false, true, true]);
    assert!(findings[1].detail.contains("of 900 that it met"), "{:?}", findings[1]);
}

#[test]
fn other_limits_are_worth_a_word_and_no_more() {
    let member = |group, memory: &str| MemberFacts {
        group,
        target: "docker:a".into(),
        facts: vec![("memory.max".into(), memory.into()), ("cpu.max".into(), "max 100000".into())],
    };
    let twins = [member(Group::Control, "max"), member(Group::Experiment, "max")];
    let findings = preflight(&PreflightInput { members: &twins, ..input(&[], &[]) });
    assert!(findings.len() == 1 && findings[0].ok, "{findings:?}");
    let others = [member(Group::Control, "max"), member(Group::Experiment, "512")];
    let findings = preflight(&PreflightInput { members: &others, ..input(&[], &[]) });
    assert_eq!(findings.len(), 1);
    assert!(!findings[0].ok && !findings[0].refuses);
    assert_eq!(findings[0].detail, "memory.max is max in the control group and 512 in the experiment group");
    let unknown = [member(Group::Control, "max"), MemberFacts { facts: vec![], ..twins[1].clone() }];
    let findings = preflight(&PreflightInput { members: &unknown, ..input(&[], &[]) });
    assert!(findings.iter().all(|finding| finding.ok), "what is not known is not different");
}

#[test]
fn a_margin_both_ways_is_as_wide_as_its_narrower_side() {
    let within = Margin { increase: Some(0.5), decrease: Some(0.1) };
    let gates = [Gate { metric: Metric::RxBytes, margin: within }];
    let ticks = World { sd: 0.25, ..QUIET }.ticks(1);
    let findings = preflight(&input(&gates, &ticks));
    assert!(!of(&findings, Looked::Balance)[0].ok);
}

#[test]
fn what_a_rule_met_is_the_difference_in_the_experimental_group() {
    let stats = |chance| RuleStats { chance, ..RuleStats::ZERO };
    let groups = [Group::Control, Group::Experiment, Group::Experiment];
    let before = [vec![stats(1), stats(10), stats(20)], vec![stats(0), stats(5), stats(5)]];
    let after = [vec![stats(9), stats(11), stats(25)], vec![stats(9), stats(5), stats(5)]];
    let names = ["loss".to_owned(), "delay".to_owned()];
    let met = dry_rules(&names, &groups, [&before, &after]);
    let counted: Vec<_> = met.iter().map(|rule| (rule.name.as_str(), rule.stats.eligible())).collect();
    assert_eq!(counted, [("loss", 6), ("delay", 0)]);
}

#[test]
fn what_a_quiet_run_said_goes_before_a_short_baseline() {
    let (gates, ticks) = (gates(), QUIET.ticks(1));
    let noisy = |metric| Known {
        metric,
        kappa: None,
        power: Some(Power { pair_sd: 5.0, half_width: 0.0, of_margin: 0.0, pairs_needed: None }),
    };
    let known: Vec<Known> = gates.iter().map(|gate| noisy(gate.metric)).collect();
    let findings = preflight(&PreflightInput { pulses: Some(SHAPE), known: &known, ..input(&gates, &ticks) });
    assert!(of(&findings, Looked::Power).iter().all(|finding| finding.refuses), "{findings:#?}");
}
