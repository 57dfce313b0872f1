//! The parts of the page that judge.

use super::{
    aligned,
    course::Series,
    forest::{self, Row, State},
    heatmap, list, section, shift, strip, table,
    tag::{Html, tag, text as plain, words},
    timeline,
};
use crate::{
    judge::{ControlResult, Estimate, GateResult, Recovered, Steady},
    report::{Report, number, targets, text},
};

/// The picture of the verdict and its numbers.
pub fn gates(report: &Report) -> Html {
    let lead = "An interval inside the shaded margin passes, one wholly outside fails, and one across its border is not decided.";
    let figure = forest::render("gates", "Change of each gate over its margin", &rows(report, &report.gates));
    let intervals = targets::intervals(report).map(|words| format!("Intervals {words}."));
    section("Gates", lead, [figure, gates_table("Gates", report, &report.gates), list(intervals)])
}

/// The same by the hold, where there were pulses as well.
pub fn hold(report: &Report) -> Html {
    let figure =
        forest::render("hold", "Change of each gate while the fault was held", &rows(report, &report.hold));
    section(
        "While it was held",
        "The same gates, while the fault stayed on.",
        [figure, gates_table("Gates while the fault was held", report, &report.hold)],
    )
}

/// What each target did by itself, where there are several.
pub fn targets(report: &Report) -> Html {
    let lead = "Each target of the experimental group by itself, what moved furthest first. The gates are about all of them together.";
    section("By target", lead, [list(targets::lines(&report.targets))])
}

/// What watched over the run.
pub fn watched(report: &Report) -> Html {
    let lines = report.watched.lines().into_iter().map(|(label, words)| format!("{label} {words}"));
    section("Watched", "What was looked at before, meanwhile and afterwards.", [list(lines)])
}

fn rows<'a>(report: &Report, gates: &'a [GateResult]) -> Vec<Row<'a>> {
    let row = |gate: &'a GateResult| Row {
        name: gate.metric.name(),
        state: if text::is_judged(report) { gate.verdict.into() } else { State::NotJudged },
        kind: gate.metric.kind(),
        margin: gate.margin,
        both_ways: false,
        estimate: gate.estimate.as_ref(),
        words: in_words(gate.estimate.as_ref()),
    };
    gates.iter().map(row).collect()
}

fn gates_table(caption: &str, report: &Report, gates: &[GateResult]) -> Html {
    let ci = format!("{} interval", number::asked(report.ci_level));
    let header = ["gate", "change", &ci, "margin", "verdict", "bound", "control", "experiment"];
    table::of(caption, &header, gates.iter().map(|gate| cells(gate, text::is_judged(report))))
}

fn cells(gate: &GateResult, judged: bool) -> Vec<Html> {
    let effect = gate.estimate.as_ref();
    let (change, interval) = effect.map_or(("–".into(), "–".into()), |effect| {
        (number::change(effect.kind, effect.change), text::interval(effect))
    });
    let (state, word, bound) = match judged {
        true => (gate.verdict.into(), text::gate_word(gate.verdict).0, text::bound(gate)),
        false => (State::NotJudged, "not judged", "–".into()),
    };
    let levels = effect.map_or(["–", "–"].map(String::from), |effect| {
        let of = effect.cells;
        let pairs = [(of.control_before, of.control_during), (of.experiment_before, of.experiment_during)];
        pairs.map(|(before, during)| number::levels(gate.metric, before, during))
    });
    let margin = text::margin(gate.metric.kind(), gate.margin);
    let mut cells: Vec<_> = [gate.metric.name(), &change, &interval, &margin].map(plain).into();
    cells.push(pill(state, word));
    cells.push(plain(&bound));
    cells.extend(levels.iter().map(|level| plain(level)));
    cells
}

/// A word with a shape and a colour.
fn pill(state: State, word: &str) -> Html {
    words("span", &[("class", &format!("pill {}", state.class()))], word)
}

/// Doubts; where nothing was judged, what would sharpen the judgement is beside the point.
pub fn caveats(report: &Report) -> Html {
    let caveats = report.caveats.iter().filter(|_| text::is_judged(report));
    section("Caveats", "", [list(caveats.map(ToString::to_string))])
}

/// Each gate in the course of the run.
pub fn timelines(series: &[Series]) -> Html {
    let lead = "How much further the groups are apart than without the fault: a dot for each second, a line for ten of them together. \
                Hatched: the fault was on. Shaded across: the margin.";
    let figures = series
        .iter()
        .enumerate()
        .map(|(i, series)| figure(&series.name, timeline::render(&format!("course{i}"), series)));
    section("In the course of the run", lead, figures)
}

/// Under its name; nothing without a figure.
fn figure(name: &str, figure: Html) -> Html {
    if figure.is_empty() {
        return figure;
    }
    [words("h3", &[], name), figure].into_iter().collect()
}

/// Where gates are made of durations, their distributions.
pub fn durations(series: &[Series]) -> Html {
    let lead = "Where in the distribution the groups differ, from the fastest tenth to the slowest thousandth; and \
                how long everything took, with the same colours for both groups.";
    let timed = series.iter().enumerate().filter(|(_, series)| series.has_durations());
    let figures = timed.map(|(i, series)| {
        let both =
            [shift::render(&format!("shift{i}"), series), heatmap::render(&format!("heat{i}"), series)];
        figure(&series.name, both.into_iter().collect())
    });
    section("Durations", lead, figures)
}

/// All pulses on top of each other.
pub fn pulses(report: &Report, series: &[Series]) -> Html {
    let Some(pulses) = &report.pulses else { return Html::default() };
    let figures = series
        .iter()
        .enumerate()
        .map(|(i, series)| figure(&series.name, aligned::render(&format!("pulse{i}"), series)));
    let lead = "All pulses on top of each other: what the fault does as it goes on, and how soon it is over.";
    let said = words("p", &[], &format!("{}.", text::pulsed(pulses)));
    section("Pulses", lead, std::iter::once(said).chain(figures))
}

/// Whether the yardstick stood still.
pub fn control(report: &Report, series: &[Series]) -> Html {
    let rows: Vec<_> = report.control.iter().filter_map(|control| control_row(report, control)).collect();
    let figure =
        forest::render("control", "Change of the control group by itself, fault on against off", &rows);
    let lead = "The control group by itself, fault on against off, held against the margin both ways: a yardstick that moves \
                measures nothing. Below, in the course of the run: discs with the fault, rings without.";
    let said = match rows.iter().any(|row| row.estimate.is_some()) {
        false if !rows.is_empty() => words("p", &[], "It was not measured."),
        _ => Html::default(),
    };
    let strips = series.iter().enumerate();
    let strips =
        strips.map(|(i, series)| self::figure(&series.name, strip::render(&format!("strip{i}"), series)));
    section("Control", lead, [figure, said].into_iter().chain(strips))
}

fn control_row<'a>(report: &Report, control: &'a ControlResult) -> Option<Row<'a>> {
    let gate = report.gates.iter().find(|gate| gate.metric == control.metric)?;
    let state = match control.steady {
        _ if !text::is_judged(report) => State::NotJudged,
        Steady::Yes => State::Inside,
        Steady::No => State::Outside,
        Steady::Unclear => State::Open,
    };
    Some(Row {
        name: control.metric.name(),
        state,
        kind: control.metric.kind(),
        margin: gate.margin,
        both_ways: true,
        estimate: control.estimate.as_ref(),
        words: in_words(control.estimate.as_ref()),
    })
}

/// `-1.2 % [-2.9, +0.5]`.
fn in_words(estimate: Option<&Estimate>) -> String {
    estimate.map_or("not measured".into(), |effect| {
        format!("{} {}", number::change(effect.kind, effect.change), text::interval(effect))
    })
}

/// After the fault.
pub fn recovery(report: &Report) -> Html {
    if !text::is_judged(report) {
        return Html::default();
    }
    let recovery = &report.recovery;
    let state = match recovery.outcome {
        Recovered::Recovered => State::Inside,
        Recovered::NotRecovered => State::Outside,
        Recovered::Inconclusive => State::Open,
        Recovered::NotMeasured => State::NotJudged,
    };
    let said = text::recovery(report);
    let (word, rest) = said.split_at(said.find([':', ';']).unwrap_or(said.len()));
    let rest = rest.trim_start_matches([':', ';', ' ']);
    let said = tag("p", &[], [pill(state, word), plain(&format!(" {rest}"))]);
    let figure = forest::render("recovery", "What was left after the fault", &rows(report, &recovery.gates));
    section(
        "Recovery",
        "The end of the time after the fault, compared with the time before it.",
        [said, figure],
    )
}
