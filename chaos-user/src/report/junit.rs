//! The report for continuous integration: JUnit XML, one suite per experiment, one case for each thing that decides.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, SerializeError, TestCase, TestCaseStatus, TestSuite};

use super::{FaultRecord, Report, number, targets, text};
use crate::{
    experiment::{
        preflight::Finding,
        watch::{GuardRecord, InvariantRecord},
    },
    judge::{GateResult, GateVerdict, Recovered, Steady, Verdict, delivery::Fired},
};

/// What each case is about; a new kind of case is a line here.
const PARTS: [fn(&Report) -> Vec<Case>; 9] =
    [preflight, gates, hold, guards, faults, control, recovery, invariants, rollback];

/// One thing that decides.
struct Case {
    name: String,
    state: State,
    words: String,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it should be.
    Good,
    /// It was judged, and it is not as it should be.
    Deviated,
    /// Neither is shown.
    Open,
    /// It could not be judged, and this is the kind of reason.
    Broken(&'static str),
}

/// The whole report, with a newline at the end. `strict` makes errors of what is not decided.
pub fn render(report: &Report, strict: bool) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new(report.name.as_str());
    suite.set_time(Duration::try_from_secs_f64(lasted_s(report)).unwrap_or_default());
    for (name, value) in properties(report) {
        suite.add_property(Property::new(name, value));
    }
    for case in PARTS.iter().flat_map(|part| part(report)) {
        suite.add_test_case(test_case(&report.name, case, strict));
    }
    suite.set_system_out(report.claim.as_str());
    let mut all = quick_junit::Report::new("kchaos");
    all.add_test_suite(suite);
    Ok(all.to_string()?.trim_end().to_owned() + "\n")
}

fn lasted_s(report: &Report) -> f64 {
    report.phases.iter().map(|phase| phase.seconds).sum()
}

fn properties(report: &Report) -> [(&'static str, String); 4] {
    [
        ("hypothesis", report.hypothesis.clone()),
        ("verdict", text::verdict_word(report.verdict).into()),
        ("kchaos", report.tool_version.clone()),
        ("kernel", report.kernel.clone()),
    ]
}

fn test_case(suite: &str, case: Case, strict: bool) -> TestCase {
    let mut status = match case.state {
        State::Good => TestCaseStatus::success(),
        State::Open if !strict => TestCaseStatus::skipped(),
        State::Deviated => TestCaseStatus::non_success(NonSuccessKind::Failure),
        State::Open | State::Broken(_) => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    match case.state {
        State::Good => {}
        State::Deviated => _ = status.set_type("deviated"),
        State::Open => _ = status.set_type("inconclusive"),
        State::Broken(kind) => _ = status.set_type(kind),
    }
    if case.state != State::Good {
        status.set_message(case.words.as_str());
    }
    let mut test_case = TestCase::new(case.name, status);
    test_case.set_classname(suite);
    if case.state == State::Good && !case.words.is_empty() {
        test_case.set_system_out(case.words);
    }
    test_case
}

/// Why nothing of the run is judged, if nothing is.
fn broken(report: &Report) -> Option<(State, String)> {
    let kind = match report.verdict {
        Verdict::Aborted => "aborted",
        Verdict::Invalid => "invalid",
        Verdict::Pass | Verdict::Fail | Verdict::Inconclusive => return None,
    };
    Some((State::Broken(kind), report.claim.clone()))
}

fn preflight(report: &Report) -> Vec<Case> {
    let case = |finding: &Finding| Case {
        name: format!("preflight/{}", finding.check),
        state: if finding.refuses { State::Broken("invalid") } else { State::Good },
        words: finding.detail.clone(),
    };
    report.watched.preflight.iter().map(case).collect()
}

fn guards(report: &Report) -> Vec<Case> {
    let case = |guard: &GuardRecord| Case {
        name: format!("guard/{}", guard.id),
        state: match (guard.fired, &guard.reason) {
            (true, _) => State::Broken("aborted"),
            (false, Some(_)) => State::Open,
            (false, None) => State::Good,
        },
        words: guard.reason.clone().unwrap_or_default(),
    };
    report.watched.guards.iter().map(case).collect()
}

fn invariants(report: &Report) -> Vec<Case> {
    let case = |invariant: &InvariantRecord| Case {
        name: format!("invariant/{}", invariant.id),
        state: if invariant.ok { State::Good } else { State::Deviated },
        words: invariant.detail.clone(),
    };
    report.watched.invariants.iter().map(case).collect()
}

fn gates(report: &Report) -> Vec<Case> {
    report.gates.iter().map(|gate| gate_case("gate", report, gate)).collect()
}

fn hold(report: &Report) -> Vec<Case> {
    report.hold.iter().map(|gate| gate_case("hold", report, gate)).collect()
}

fn gate_case(family: &str, report: &Report, gate: &GateResult) -> Case {
    let judged = || (gate_state(gate.verdict), gate_words(gate));
    let (state, words) = broken(report).unwrap_or_else(judged);
    Case { name: format!("{family}/{}", gate.metric.name()), state, words }
}

const fn gate_state(verdict: GateVerdict) -> State {
    match verdict {
        GateVerdict::Pass => State::Good,
        GateVerdict::Fail => State::Deviated,
        GateVerdict::Inconclusive => State::Open,
    }
}

/// `-1.2 % [-2.9, +0.5], margin -10 %: < 2.9 %`, and where the interval comes from if not from time.
fn gate_words(gate: &GateResult) -> String {
    let margin = text::margin(gate.metric.kind(), gate.margin);
    match &gate.estimate {
        Some(effect) => {
            let (change, interval) = (number::change(effect.kind, effect.change), text::interval(effect));
            let bound = text::bound(gate);
            let bound = if bound == "–" { String::new() } else { format!(": {bound}") };
            let whence = targets::whence(effect).map_or(String::new(), |words| format!("; interval {words}"));
            format!("{change} {interval}, margin {margin}{bound}{whence}")
        }
        None => format!("not measured, margin {margin}"),
    }
}

fn faults(report: &Report) -> Vec<Case> {
    let case = |fault: &FaultRecord| Case {
        name: format!("fault-delivered/{}", fault.delivery.name),
        state: if fault.delivery.fired == Fired::AsAsked { State::Good } else { State::Broken("invalid") },
        words: text::delivery(fault),
    };
    report.faults.iter().map(case).collect()
}

/// Of pulses, a control group that moves is moved by the fault; of a hold it may be the load, so that it only takes PASS away.
fn control(report: &Report) -> Vec<Case> {
    if report.control.is_empty() {
        return vec![];
    }
    let any = |state| report.control.iter().any(|control| control.steady == state);
    let judged = || {
        let state = match (any(Steady::No), any(Steady::Unclear)) {
            (true, _) if report.pulses.is_some() => State::Deviated,
            (true, _) => State::Open,
            (false, true) => State::Open,
            (false, false) => State::Good,
        };
        (state, text::control(report).unwrap_or_else(|| "not measured".into()))
    };
    let (state, words) = broken(report).unwrap_or_else(judged);
    vec![Case { name: "control-steady".into(), state, words }]
}

fn recovery(report: &Report) -> Vec<Case> {
    let judged = || {
        let state = match report.recovery.outcome {
            Recovered::Recovered => State::Good,
            Recovered::NotRecovered => State::Deviated,
            Recovered::Inconclusive | Recovered::NotMeasured => State::Open,
        };
        (state, text::recovery(report))
    };
    let (state, words) = broken(report).unwrap_or_else(judged);
    vec![Case { name: "recovery".into(), state, words }]
}

fn rollback(report: &Report) -> Vec<Case> {
    let complete = report.rollback.iter().all(|step| step.ok);
    let state = if complete { State::Good } else { State::Broken("rollback") };
    vec![Case { name: "rollback".into(), state, words: text::rollback(report) }]
}
