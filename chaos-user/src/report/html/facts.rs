//! The parts of the page that do not judge: what was done, what else was seen, where.

use super::{
    list, section, table,
    tag::{Html, tag, words},
};
use crate::{
    judge::{Observation, delivery::Fired, names},
    kernel::CallReport,
    report::{FaultRecord, Member, PhaseRecord, Report, number, text},
    steady::sample::Phase,
};

/// What went wrong, and how often.
pub fn faults(report: &Report) -> Html {
    let header = ["fault", "delivered", "injected", "eligible", "share", "asked", "on control", "by"];
    let table = table::of_texts("Faults delivered", &header, report.faults.iter().map(fault));
    let calls = report.calls.as_ref();
    let missed = calls.and_then(CallReport::missed);
    let delays = calls.and_then(|calls| calls.delays.as_ref()).map(ToString::to_string);
    section("Faults delivered", "", [table, list(missed.into_iter().chain(delays))])
}

fn fault(FaultRecord { mechanism, delivery }: &FaultRecord) -> Vec<String> {
    let asked = match (delivery.expected_fraction, delivery.expected_range) {
        (Some(asked), _) => number::asked(asked),
        (None, Some([least, most])) => format!("{} to {}", number::asked(least), number::asked(most)),
        (None, None) => "–".into(),
    };
    let fired = match delivery.fired {
        Fired::AsAsked => "as asked",
        Fired::NothingEligible => "NO: nothing it could have hit",
        Fired::Never => "NO: never",
        Fired::OtherShare => "NO: another share",
        Fired::OnControl => "NO: on the control group",
        Fired::DryRun => "dry run",
    };
    vec![
        delivery.name.clone(),
        fired.into(),
        number::thousands(delivery.injected),
        number::thousands(delivery.eligible),
        delivery.fraction.map_or("–".into(), number::percent),
        asked,
        number::thousands(delivery.control.injected),
        if mechanism.is_empty() { "–".into() } else { mechanism.clone() },
    ]
}

/// What was measured and is no gate: what moved, and in a fold all of it.
pub fn moved(report: &Report) -> Html {
    let ci = format!("{} interval", number::asked(report.ci_level));
    let header = ["metric", "change", ci.as_str(), "q"];
    let row = |seen: &Observation| {
        let (change, interval) =
            (number::change(seen.estimate.kind, seen.estimate.change), text::interval(&seen.estimate));
        vec![seen.metric.name().to_owned(), change, interval, format!("{:.3}", seen.q)]
    };
    let (moved, still): (Vec<_>, Vec<_>) = report.observations.iter().partition(|seen| seen.moved());
    let none = match (moved.is_empty(), still.is_empty()) {
        (true, false) => words("p", &[], "Nothing else moved."),
        _ => Html::default(),
    };
    let table = table::of_texts("What else moved", &header, moved.into_iter().map(row));
    let rest = table::folded("What was measured and did not move", &header, still.into_iter().map(row));
    let lead = "Everything measured that is no gate, corrected for how much was looked at (q: the share of such lines that may be wrong). It decides nothing.";
    section("What else moved", lead, [none, table, rest])
}

/// What was done when.
pub fn phases(report: &Report) -> Html {
    let row = |record: &PhaseRecord| {
        let lost = number::thousands(record.lost as u64);
        let (start, seconds) = (number::seconds(record.start_s), number::seconds(record.seconds));
        let name = match (record.pair, record.phase) {
            (None, phase) => names::phase(phase).to_owned(),
            (Some(pair), Phase::Inject) => format!("pulse {} on", pair + 1),
            (Some(pair), _) => format!("pulse {} off", pair + 1),
        };
        vec![name, start, seconds, record.ticks.to_string(), lost]
    };
    let header = ["phase", "began after", "took", "ticks", "ticks lost"];
    section("Phases", "", [table::of_texts("Phases", &header, report.phases.iter().map(row))])
}

/// What was undone.
pub fn rollback(report: &Report) -> Html {
    let said = words("p", &[], &format!("{}.", text::rollback(report)));
    let rows = report
        .rollback
        .iter()
        .map(|step| vec![step.what.clone(), if step.ok { "done".into() } else { "FAILED".into() }]);
    section("Rollback", "", [said, table::folded("Each step", &["step", "result"], rows)])
}

/// Where it was, and who.
pub fn environment(report: &Report) -> Html {
    let rows = |group: &'static str, members: &[Member]| -> Vec<Vec<String>> {
        let row = |member: &Member| {
            vec![member.target.clone(), group.into(), member.cgroup.clone(), member.cgroup_id.clone()]
        };
        members.iter().map(row).collect()
    };
    let groups = [rows("experiment", &report.groups.experiment), rows("control", &report.groups.control)];
    let header = ["target", "group", "cgroup", "cgroup id"];
    let table = table::of_texts("Groups", &header, groups.into_iter().flatten());
    let facts = format!("kchaos {} on Linux {}, {}", report.tool_version, report.kernel, report.schema);
    section("Environment", "", [tag("div", &[], [table]), words("p", &[("class", "lead")], &facts)])
}
