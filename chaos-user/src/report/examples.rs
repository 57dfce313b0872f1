//! Reports of worlds whose truth is known, one for each thing that a report can look like.

use chaos_common::RuleStats;

use super::{
    Facts, Groups, PhaseRecord, Report,
    tests::{facts, member},
};
use crate::{
    experiment::hypothesis::{Gate, Margin, Metric},
    judge::{
        AbortReason, Design, JudgeInput, RuleDelivery, judge, several,
        simulation::{World, delivered},
    },
};

/// A report with what it is made from.
pub(crate) struct Example {
    pub name: &'static str,
    pub report: Report,
    pub input: JudgeInput,
}

fn example(name: &'static str, mut input: JudgeInput, change: impl FnOnce(&mut JudgeInput)) -> Example {
    change(&mut input);
    let phases = match input.design {
        Design::Hold => facts().phases.into_iter().filter_map(|record| measured(record, &input)).collect(),
        Design::Pulse | Design::Both => vec![],
    };
    let report = Report::new(Facts { phases, ..facts() }, judge(&input));
    Example { name, report, input }
}

/// A phase of as many ticks as there are; none if it never began.
fn measured(record: PhaseRecord, input: &JudgeInput) -> Option<PhaseRecord> {
    let ticks = input.ticks.iter().filter(|tick| tick.phase == record.phase).count();
    (ticks > 0).then_some(PhaseRecord { seconds: ticks as f64 + 0.02, ticks, ..record })
}

const SLOWED: World = World { factor: 0.62, factor_after: 0.85, extra_errors: 0.004, ..World::QUIET };
const NOISY: World = World { phases: [30, 20, 20], sd: 0.2, factor: 0.97, ..World::QUIET };

/// All of them.
pub(super) fn all() -> Vec<Example> {
    let quiet = || World::QUIET.input(4);
    let pulses = |world: World| world.pulses(12, 10, 4);
    vec![
        example("pass", quiet(), |_| ()),
        example("fail", SLOWED.input(4), |_| ()),
        example("inconclusive", NOISY.input(4), |input| _ = input.ticks.remove(7)),
        example("invalid", quiet(), never_fired),
        example("aborted", quiet(), |input| {
            input.ticks.truncate(70);
            input.aborted = Some(AbortReason::TargetGone { target: "docker:redis-d".into() });
        }),
        example("aborted-at-once", quiet(), |input| {
            input.ticks.clear();
            input.aborted = Some(AbortReason::Interrupted);
        }),
        example("nothing-measured", World { packets: 0.0, ..World::QUIET }.input(4), |_| ()),
        example("one-gate", quiet(), |input| input.gates.truncate(1)),
        example("ten-gates", SLOWED.input(4), ten_gates),
        example("no-margin-to-speak-of", quiet(), |input| {
            input.gates[0].margin = Margin { increase: Some(0.0), decrease: Some(0.0) };
            input.gates[1].margin = Margin { increase: None, decrease: None };
        }),
        example("pulses", pulses(World { factor: 0.92, ..World::QUIET }), |input| {
            input.blocks[3].ticks.clear()
        }),
        example("pulses-fail", pulses(World { tau: 1.0, sd: 0.03, ..SLOWED }), |_| ()),
        example(
            "pulses-spilled",
            pulses(World { spill: 0.7, factor: 0.6, sd: 0.02, ..World::QUIET }),
            |_| (),
        ),
        example("no-blocks", pulses(World::QUIET), |input| input.blocks.clear()),
        both(),
        differing(),
        hostile(),
    ]
}

/// The example of this name.
pub(crate) fn named(name: &str) -> Example {
    all().into_iter().find(|example| example.name == name).unwrap()
}

fn never_fired(input: &mut JudgeInput) {
    input.rules[0].experiment = RuleStats { chance: 812, ..RuleStats::ZERO };
    let other = RuleDelivery { name: "loss ingress".into(), experiment: RuleStats::ZERO, ..delivered() };
    input.rules.push(other);
}

/// Every metric, and two of them once more.
fn ten_gates(input: &mut JudgeInput) {
    let margin = Margin { increase: Some(0.1), decrease: Some(0.2) };
    let metrics = Metric::ALL.into_iter().chain([Metric::RxBytes, Metric::Syscalls]);
    input.gates = metrics.map(|metric| Gate { metric, margin }).collect();
}

/// Pulses, then a hold.
fn both() -> Example {
    let input = World { factor: 0.97, ..World::QUIET }.pulses(12, 10, 4);
    example("both", input, |input| {
        let held = World { factor: 0.97, phases: [30, 60, 60], ..World::QUIET };
        (input.design, input.ticks) = (Design::Both, held.ticks(4));
        input.expected_ticks = input.ticks.len();
    })
}

/// Of five targets, four as they were and one that the fault hits hard.
fn differing() -> Example {
    let input = several::of_targets(World::QUIET.input(4), 4, &[1.0, 1.0, 1.0, 1.0, 0.4]);
    let of =
        |name: &str, targets: u64| (1..=targets).map(|n| member(&format!("redis-{name}{n}"), n)).collect();
    let groups = Groups { control: of("c", 4), experiment: of("e", 5) };
    let report = Report::new(Facts { groups, ..facts() }, judge(&input));
    Example { name: "targets-differ", report, input }
}

/// Names as somebody might give them who wants the reader to run something.
pub(super) const HOSTILE: &str =
    "</td><script>alert(\"x\")</script> | `**[a](https://evil.example)**`\n# &amp; @everyone 'b'\u{1}";

fn hostile() -> Example {
    let mut example = example("hostile", World::QUIET.input(4), |input| {
        input.rules[0].name = HOSTILE.into();
        input.rules[0].control.injected = 3;
    });
    let report = &mut example.report;
    (report.name, report.hypothesis) = (HOSTILE.into(), HOSTILE.into());
    (report.tool_version, report.kernel) = (HOSTILE.into(), HOSTILE.into());
    report.faults[0].mechanism = HOSTILE.into();
    for member in report.groups.control.iter_mut().chain(&mut report.groups.experiment) {
        (member.target, member.cgroup) = (HOSTILE.into(), HOSTILE.into());
    }
    report.rollback[0].what = HOSTILE.into();
    report.rollback[0].ok = false;
    example
}
