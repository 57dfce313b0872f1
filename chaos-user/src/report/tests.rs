//! Whole reports, as people and programs see them.

use chaos_common::RuleStats;

use super::{text::Style, *};
use crate::judge::{
    JudgeInput, RuleDelivery, judge,
    simulation::{World, delivered},
};

pub(super) fn member(target: &str, id: u64) -> Member {
    Member { target: target.into(), cgroup: format!("/kchaos/{target}"), cgroup_id: id.to_string() }
}

pub(super) fn facts() -> Facts {
    let phase =
        |phase, start_s| PhaseRecord { phase, pair: None, start_s, seconds: 60.02, ticks: 60, lost: 0 };
    let step = |what: &str| RollbackStep { what: what.into(), ok: true };
    Facts {
        tool_version: "0.1.0".into(),
        kernel: "6.18.44".into(),
        name: "redis-survives-loss".into(),
        hypothesis: "5 % loss on one node does not change what clients see".into(),
        groups: Groups {
            control: vec![member("redis-a", 4_711), member("redis-b", 4_712)],
            experiment: vec![member("redis-c", 9_007_199_254_740_993), member("redis-d", 4_714)],
        },
        seed: None,
        phases: vec![phase(Phase::Baseline, 0.0), phase(Phase::Inject, 60.0), phase(Phase::Recover, 120.0)],
        mechanisms: vec!["cgroup_skb".into()],
        calls: None,
        targets: vec![],
        watched: Watched::default(),
        rollback: vec![step("disarm"), step("detach cgroup_skb/egress"), step("unload")],
    }
}

fn report(world: World, change: impl Fn(&mut JudgeInput)) -> Report {
    let mut input = world.input(4);
    change(&mut input);
    Report::new(facts(), judge(&input))
}

fn pass() -> Report {
    report(World::QUIET, |_| ())
}

fn fail() -> Report {
    let world = World { factor: 0.62, factor_after: 0.85, extra_errors: 0.004, ..World::QUIET };
    let mut report = report(world, |_| ());
    report.rollback[1].ok = false;
    report
}

fn inconclusive() -> Report {
    report(World { phases: [30, 20, 20], sd: 0.2, factor: 0.97, ..World::QUIET }, |input| {
        input.rules[0].memoryless = false;
        input.ticks.remove(7);
    })
}

fn invalid() -> Report {
    report(World::QUIET, |input| {
        input.rules[0].experiment = RuleStats { chance: 812, ..RuleStats::ZERO };
        input.rules.push(RuleDelivery {
            name: "loss ingress".into(),
            experiment: RuleStats::ZERO,
            ..delivered()
        });
    })
}

fn pulsed(world: World) -> Report {
    let mut input = world.pulses(12, 10, 4);
    input.blocks[3].ticks.clear();
    Report::new(Facts { phases: vec![], ..facts() }, judge(&input))
}

fn plain(report: &Report, width: Option<u16>) -> String {
    text::render(report, &Style { colour: false, width })
}

#[test]
fn a_hundred_columns() {
    insta::assert_snapshot!("pass-100", plain(&pass(), Some(100)));
    insta::assert_snapshot!("fail-100", plain(&fail(), Some(100)));
    insta::assert_snapshot!("inconclusive-100", plain(&inconclusive(), Some(100)));
    insta::assert_snapshot!("invalid-100", plain(&invalid(), Some(100)));
}

#[test]
fn pulses() {
    insta::assert_snapshot!("pulses-100", plain(&pulsed(World { factor: 0.92, ..World::QUIET }), Some(100)));
    let slow = World { factor: 0.86, tau: 8.0, sd: 0.01, packets: 50_000.0, ..World::QUIET };
    insta::assert_snapshot!("pulses-carried-100", plain(&pulsed(slow), Some(100)));
}

#[test]
fn eighty_columns() {
    insta::assert_snapshot!("pass-80", plain(&pass(), Some(80)));
    insta::assert_snapshot!("fail-80", plain(&fail(), Some(80)));
    insta::assert_snapshot!("inconclusive-80", plain(&inconclusive(), Some(80)));
    insta::assert_snapshot!("invalid-80", plain(&invalid(), Some(80)));
}

#[test]
fn into_a_pipe() {
    insta::assert_snapshot!("fail-pipe", plain(&fail(), None));
}

#[test]
fn lines_fit_and_carry_no_colour_unless_asked() {
    for report in [pass(), fail(), inconclusive(), invalid()] {
        for width in [80_u16, 100, 140] {
            let text = plain(&report, Some(width));
            assert!(!text.contains('\x1b'));
            let too_long = text.lines().find(|line| line.chars().count() > usize::from(width));
            assert_eq!(too_long, None, "at {width}");
        }
        assert!(text::render(&report, &Style { colour: true, width: None }).contains("\x1b[1;"));
    }
}

#[test]
fn one_target_in_a_group_is_said_to_be_one() {
    let mut facts = facts();
    facts.groups.control.pop();
    let report = Report::new(facts, judge(&World::QUIET.input(4)));
    assert!(report.caveats.contains(&Caveat::OnePerGroup));
}

#[test]
fn of_several_it_is_said_whom_the_claim_is_about_and_where_the_interval_is_from() {
    let differing = examples::named("targets-differ").report;
    insta::assert_snapshot!("targets-differ-100", plain(&differing, Some(100)));
    assert!(differing.caveats.contains(&Caveat::LikeThese { control: 4, experiment: 5 }));
    let whence = "from how targets differ (4 and 5 targets)";
    assert!(junit::render(&differing, false).unwrap().contains(whence));
    assert!(html::render(&differing, &examples::named("targets-differ").input).contains(whence));
    assert!(markdown::render(&differing).contains(&markdown::escape(whence)));
    assert!(pass().caveats.contains(&Caveat::OnlyThese), "two are several, and too few");
}

#[test]
fn programs_read_json() {
    insta::assert_snapshot!("json", six_digits(&json::render(&fail()).unwrap()));
}

#[test]
fn large_ids_keep_their_digits() {
    assert!(json::render(&pass()).unwrap().contains("\"9007199254740993\""));
}

/// Mathematical functions differ in the last digit from one C library to the next.
fn six_digits(json: &str) -> String {
    let round = |line: &str| {
        let (head, number) = line.rsplit_once(' ').unwrap_or(("", line));
        let (number, comma) = number.strip_suffix(',').map_or((number, ""), |number| (number, ","));
        match number.parse::<f64>() {
            Ok(value) if number.contains(['.', 'e']) => format!("{head} {value:.5e}{comma}"),
            _ => line.to_owned(),
        }
    };
    json.lines().map(round).collect::<Vec<_>>().join("\n")
}
