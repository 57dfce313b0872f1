//! The report for people: aligned lines, no boxes, so that it can be read, piped and pasted.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::{FaultRecord, PhaseRecord, Report, number, targets, wrap::wrap};
use crate::{
    experiment::hypothesis::{Kind, Margin, Metric},
    judge::{
        Estimate, GateResult, GateVerdict, Pulses, Recovered, Steady, Verdict,
        delivery::{Delivery, Fired, ShareCheck},
        gate::{Bound, Direction},
        names,
    },
    kernel::CallReport,
};

/// How to write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// With ANSI colours.
    pub colour: bool,
    /// Columns of the terminal; `None` for as many as needed, as into a pipe.
    pub width: Option<u16>,
}

/// From this width on, the levels of both groups stand in the same table as the changes.
const WIDE: u16 = 130;
/// Where the text of a labelled line begins.
const LABEL: usize = 12;

/// The whole report, with a newline at the end.
pub fn render(report: &Report, style: &Style) -> String {
    let mut page = Page { style: *style, lines: vec![] };
    page.headline(report);
    page.reasons(report);
    page.tables(report);
    page.outcome(report);
    page.advice(report);
    page.lines.join("\n") + "\n"
}

/// Lines so far.
struct Page {
    style: Style,
    lines: Vec<String>,
}

impl Page {
    /// `NAME   VERDICT   what was delivered`.
    fn headline(&mut self, report: &Report) {
        let delivered: Vec<_> = report.faults.iter().map(in_short).collect();
        let word = verdict_word(report.verdict);
        let begins = report.name.chars().count() + word.len() + 6;
        let mut parts = wrap(&delivered.join(", "), self.room(begins)).into_iter();
        let verdict = paint(word, verdict_colour(report.verdict), &self.style);
        let first = format!("{}   {verdict}   {}", report.name, parts.next().unwrap_or_default());
        self.lines.push(first.trim_end().to_owned());
        self.lines.extend(parts.map(|part| format!("{:begins$}{part}", "")));
    }

    /// How many columns there are to the right of `begins`.
    fn room(&self, begins: usize) -> usize {
        self.style.width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(begins).max(20))
    }

    /// A line with a label, wrapped under its text.
    fn line(&mut self, label: &str, text: &str) {
        for (i, part) in wrap(text, self.room(LABEL)).into_iter().enumerate() {
            let label = if i == 0 { label } else { "" };
            self.lines.push(format!("{label:<LABEL$}{part}").trim_end().to_owned());
        }
    }

    fn gap(&mut self) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(String::new());
        }
    }

    fn reasons(&mut self, report: &Report) {
        if let Some(reason) = &report.aborted {
            self.line("aborted", &reason.to_string());
        }
        for reason in &report.invalid {
            self.line("invalid", &reason.to_string());
        }
    }

    fn tables(&mut self, report: &Report) {
        if report.gates.is_empty() {
            return;
        }
        self.gap();
        let wide = self.style.width.is_none_or(|width| width >= WIDE);
        self.table(gates_table(report, wide));
        if !wide {
            self.gap();
            self.table(levels_table(report));
        }
        self.gap();
    }

    fn table(&mut self, mut table: Table) {
        if self.style.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if let Some(width) = self.style.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        self.lines.extend(table.lines().map(|line| line.trim_end().to_owned()));
    }

    fn outcome(&mut self, report: &Report) {
        if !report.phases.is_empty() {
            self.line("phases", &phases(report));
        }
        if let Some(pulses) = &report.pulses {
            self.line("pulses", &pulsed(pulses));
        }
        if let Some(text) = by_hold(report) {
            self.line("hold", &text);
        }
        if let Some(text) = targets::intervals(report) {
            self.line("intervals", &text);
        }
        for text in targets::lines(&report.targets) {
            self.line("by target", &text);
        }
        if let Some(text) = control(report) {
            self.line("control", &text);
        }
        if is_judged(report) {
            self.line("recovery", &recovery(report));
        }
        for fault in &report.faults {
            self.line("delivery", &delivery(fault));
        }
        if let Some(missed) = report.calls.as_ref().and_then(CallReport::missed) {
            self.line("missed", &missed);
        }
        if let Some(delays) = report.calls.as_ref().and_then(|calls| calls.delays.as_ref()) {
            self.line("delays", &delays.to_string());
        }
        for (label, text) in report.watched.lines() {
            self.line(label, &text);
        }
        if let Some(text) = also_moved(report) {
            self.line("also moved", &text);
        }
        if is_judged(report) {
            self.line("claim", &report.claim);
        }
    }

    fn advice(&mut self, report: &Report) {
        // Where there is nothing to judge, what would sharpen the judgement is beside the point.
        if is_judged(report) {
            for caveat in &report.caveats {
                self.line(if caveat.is_note() { "note" } else { "advice" }, &caveat.to_string());
            }
        }
        self.line("rollback", &rollback(report));
    }
}

/// `loss egress injected 512 of 10,240 (5.00 %)`.
pub(super) fn in_short(FaultRecord { delivery, .. }: &FaultRecord) -> String {
    let [injected, eligible] = [delivery.experiment.injected, delivery.eligible].map(number::thousands);
    let share = delivery.fraction.filter(|_| delivery.fired != Fired::DryRun).map(number::percent);
    let share = share.map_or(String::new(), |share| format!(" ({share})"));
    format!("{} injected {injected} of {eligible}{share}", delivery.name)
}

/// `baseline 60 s, inject 60 s (1 tick lost), recover 60 s`.
fn phases(report: &Report) -> String {
    let lost = |lost: usize| match lost {
        0 => String::new(),
        1 => " (1 tick lost)".into(),
        lost => format!(" ({lost} ticks lost)"),
    };
    let together = |records: &[PhaseRecord]| match records {
        [record] if record.pair.is_none() => {
            format!("{} {}{}", names::phase(record.phase), number::seconds(record.seconds), lost(record.lost))
        }
        blocks => {
            let all = blocks.iter().map(|block| block.lost).sum();
            let seconds = blocks.iter().map(|block| block.seconds).sum();
            format!("{} blocks {}{}", blocks.len(), number::seconds(seconds), lost(all))
        }
    };
    let parts = report.phases.chunk_by(|one, other| one.pair.is_some() && other.pair.is_some());
    parts.map(together).collect::<Vec<_>>().join(", ")
}

/// `12 pairs of blocks, 1 more left out; still there after the fault: net.rx_bytes`.
pub(super) fn pulsed(pulses: &Pulses) -> String {
    let dropped = match pulses.dropped {
        0 => String::new(),
        dropped => format!(", {dropped} more left out"),
    };
    let carried: Vec<_> =
        pulses.carry_over.iter().filter(|check| check.seen).map(|check| check.metric.name()).collect();
    let carried = match carried.is_empty() {
        true => String::new(),
        false => format!("; still there after the fault: {}", carried.join(", ")),
    };
    format!("{} pairs of blocks{dropped}{carried}", pulses.pairs)
}

/// `net.rx_bytes -1.2 % PASS`, gate by gate.
fn by_hold(report: &Report) -> Option<String> {
    let of_gate = |gate: &GateResult| {
        let effect = gate.estimate.as_ref()?;
        Some(format!("{} {}", change_of((gate.metric, effect)), gate_word(gate.verdict).0))
    };
    let parts: Vec<_> = report.hold.iter().filter_map(of_gate).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Whether gates mean anything: without a fault, or without all of the run, a "PASS" would be an empty one.
pub(super) fn is_judged(report: &Report) -> bool {
    !matches!(report.verdict, Verdict::Invalid | Verdict::Aborted)
}

pub(super) const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "INCONCLUSIVE",
        Verdict::Invalid => "INVALID",
        Verdict::Aborted => "ABORTED",
    }
}

const fn verdict_colour(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 32,
        Verdict::Fail | Verdict::Aborted => 31,
        Verdict::Inconclusive | Verdict::Invalid => 33,
    }
}

/// Bold, in an ANSI foreground colour.
fn paint(text: &str, colour: u8, style: &Style) -> String {
    if style.colour { format!("\x1b[1;{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A table without lines, two spaces between columns.
fn plain(header: Vec<String>) -> Table {
    let columns = header.len();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if i + 1 < columns { 2 } else { 0 }));
    }
    table
}

fn gates_table(report: &Report, wide: bool) -> Table {
    let ci = format!("{} CI", number::asked(report.ci_level));
    let mut header: Vec<String> = vec!["gate".into()];
    if wide {
        header.extend(["control".into(), "experiment".into()]);
    }
    header.extend(["change".into(), ci, "margin".into(), "verdict".into(), "bound".into()]);
    let change = header.iter().position(|title| title == "change").unwrap_or_default();
    let mut table = plain(header);
    for gate in &report.gates {
        table.add_row(gate_row(gate, wide, is_judged(report)));
    }
    if let Some(column) = table.column_mut(change) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) const fn gate_word(verdict: GateVerdict) -> (&'static str, Color) {
    match verdict {
        GateVerdict::Pass => ("PASS", Color::Green),
        GateVerdict::Fail => ("FAIL", Color::Red),
        GateVerdict::Inconclusive => ("INCONCLUSIVE", Color::Yellow),
    }
}

fn gate_row(gate: &GateResult, wide: bool, judged: bool) -> Vec<Cell> {
    let (word, colour) = gate_word(gate.verdict);
    let mut row = vec![Cell::new(gate.metric.name())];
    if wide {
        row.extend(levels(gate));
    }
    let estimate = gate.estimate.as_ref();
    row.push(Cell::new(estimate.map_or("–".into(), |effect| number::change(effect.kind, effect.change))));
    row.push(Cell::new(estimate.map_or("–".into(), interval)));
    row.push(Cell::new(margin(gate.metric.kind(), gate.margin)));
    if judged {
        row.extend([Cell::new(word).fg(colour), Cell::new(bound(gate))]);
    } else {
        row.extend(["not judged", "–"].map(Cell::new));
    }
    row
}

fn levels_table(report: &Report) -> Table {
    let header = ["levels", "control before → during", "experiment before → during"];
    let mut table = plain(header.map(String::from).into());
    for gate in &report.gates {
        let mut row = vec![Cell::new(gate.metric.name())];
        row.extend(levels(gate));
        table.add_row(row);
    }
    table
}

fn levels(gate: &GateResult) -> [Cell; 2] {
    let Some(cells) = gate.estimate.as_ref().map(|effect| effect.cells) else {
        return ["–", "–"].map(Cell::new);
    };
    [(cells.control_before, cells.control_during), (cells.experiment_before, cells.experiment_during)]
        .map(|(before, during)| Cell::new(number::levels(gate.metric, before, during)))
}

/// `[-2.9, +0.5]`, in the unit of the change.
pub(super) fn interval(effect: &Estimate) -> String {
    let [low, high] = effect.ci.map(|bound| number::signed(effect.kind, bound));
    format!("[{low}, {high}]")
}

/// `-10 %`, `+0.5 pp`, `±10 %`, `-10/+20 %`.
pub(super) fn margin(kind: Kind, margin: Margin) -> String {
    let text =
        |value: f64| number::asked(number::shown(kind, value) / 100.0).trim_end_matches(" %").to_owned();
    let unit = number::unit(kind);
    match (margin.decrease, margin.increase) {
        (Some(down), Some(up)) if down == up => format!("±{} {unit}", text(up)),
        (Some(down), Some(up)) => format!("-{}/+{} {unit}", text(down), text(up)),
        (Some(down), None) => format!("-{} {unit}", text(down)),
        (None, Some(up)) => format!("+{} {unit}", text(up)),
        (None, None) => "none".into(),
    }
}

/// What was shown; if nothing was, what it would take.
pub(super) fn bound(gate: &GateResult) -> String {
    if gate.verdict == GateVerdict::Inconclusive {
        return match (gate.needs_s, gate.needs_pairs) {
            (Some(seconds), _) => format!("needs {}", number::seconds(seconds)),
            (None, Some(pairs)) => format!("needs {pairs} pairs"),
            (None, None) => "–".into(),
        };
    }
    let amount = |by: f64| number::amount(gate.metric.kind(), by);
    match gate.bound {
        None => "–".into(),
        Some(Bound::LessThan { by: 0.0, direction: Direction::Fell }) => "no fall".into(),
        Some(Bound::LessThan { by: 0.0, direction: Direction::Rose }) => "no rise".into(),
        Some(Bound::LessThan { by, .. }) => format!("< {}", amount(by)),
        Some(Bound::MoreThan { by, .. }) => format!("> {}", amount(by)),
    }
}

/// Whether the yardstick itself stood still.
pub(super) fn control(report: &Report) -> Option<String> {
    let of = |state: Steady| -> Vec<String> {
        let named = report.control.iter().filter(|control| control.steady == state);
        named
            .filter_map(|control| Some((control.metric, control.estimate.as_ref()?)))
            .map(change_of)
            .collect()
    };
    let (moved, unclear, steady) = (of(Steady::No), of(Steady::Unclear), of(Steady::Yes));
    let parts: Vec<_> = [("left the margin", moved), ("unclear", unclear), ("steady", steady)]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(state, list)| format!("{state}: {}", list.join(", ")))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

pub(super) fn change_of((metric, effect): (Metric, &Estimate)) -> String {
    format!("{} {}", metric.name(), number::change(effect.kind, effect.change))
}

pub(super) fn recovery(report: &Report) -> String {
    let effects =
        report.recovery.gates.iter().filter_map(|gate| Some((gate.metric, gate.estimate.as_ref()?)));
    let effects: Vec<_> = effects.map(change_of).collect();
    let word = match report.recovery.outcome {
        Recovered::Recovered => "RECOVERED",
        Recovered::NotRecovered => "NOT RECOVERED",
        Recovered::Inconclusive => "not shown either way",
        Recovered::NotMeasured => return "not measured".into(),
    };
    let effects = match effects.is_empty() {
        true => String::new(),
        false => format!(": {} against the baseline", effects.join(", ")),
    };
    let time = report.recovery.time.as_ref().map_or(String::new(), |time| match time.median_s {
        Some(0.0) => "; never away".into(),
        Some(median_s) => format!("; back after {}", number::seconds(median_s)),
        None => format!("; not back within {}", number::seconds(time.seen_s)),
    });
    let index = report.recovery.index.as_ref().map_or(String::new(), |index| {
        format!("; resilience index {:.1} [{:.1}, {:.1}]", index.value, index.ci[0], index.ci[1])
    });
    format!("{word}{effects}{time}{index}")
}

/// `loss egress: injected 512 of 10,240 eligible (5.00 %, asked 5 %), control 0`.
pub(super) fn delivery(FaultRecord { delivery, mechanism }: &FaultRecord) -> String {
    let verb = if delivery.fired == Fired::DryRun { "would have injected" } else { "injected" };
    let asked = match (delivery.expected_fraction, delivery.expected_range) {
        (Some(asked), _) => format!(", asked {}", number::asked(asked)),
        (None, Some([least, most])) => {
            format!(", asked {} to {}", number::asked(least), number::asked(most))
        }
        (None, None) => String::new(),
    };
    let shares =
        delivery.fraction.map_or(String::new(), |share| format!(" ({}{asked})", number::percent(share)));
    let limited = if delivery.check == ShareCheck::Limited { ", limited by when, max or rate" } else { "" };
    let via = if mechanism.is_empty() { String::new() } else { format!(", by {mechanism}") };
    format!(
        "{}: {verb} {} of {} eligible{shares}{}{limited}{}, control {}{via}",
        delivery.name,
        number::thousands(delivery.injected),
        number::thousands(delivery.eligible),
        segments(delivery),
        dormant(delivery),
        number::thousands(delivery.control.injected),
    )
}

/// `, 9,120 of 182,400 segments (5.00 %)`, if any packet had several.
fn segments(Delivery { segments, eligible, .. }: &Delivery) -> String {
    match segments.fraction {
        Some(share) if segments.eligible != *eligible => format!(
            ", {} of {} segments ({})",
            number::thousands(segments.hit),
            number::thousands(segments.eligible),
            number::percent(share)
        ),
        _ => String::new(),
    }
}

/// `, 20,480 more while dormant`, if it had pulses.
fn dormant(Delivery { experiment, .. }: &Delivery) -> String {
    match experiment.dormant {
        0 => String::new(),
        count => format!(", {} more while dormant", number::thousands(count)),
    }
}

/// Metrics that are no gates and moved, corrected for how many were looked at.
fn also_moved(report: &Report) -> Option<String> {
    let moved = report.observations.iter().filter(|seen| seen.moved());
    let parts: Vec<_> = moved
        .map(|seen| format!("{} {}", change_of((seen.metric, &seen.estimate)), interval(&seen.estimate)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

pub(super) fn rollback(report: &Report) -> String {
    let failed: Vec<_> =
        report.rollback.iter().filter(|step| !step.ok).map(|step| step.what.as_str()).collect();
    let all = report.rollback.len();
    match (all, failed.is_empty()) {
        (0, _) => "nothing to undo".into(),
        (_, true) => format!("complete, {all} of {all} steps"),
        (_, false) => {
            format!("INCOMPLETE, {} of {all} steps failed: {}", failed.len(), failed.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins() {
        let text = |decrease, increase| margin(Kind::Rate, Margin { increase, decrease });
        assert_eq!(text(Some(0.1), None), "-10 %");
        assert_eq!(text(None, Some(0.125)), "+12.5 %");
        assert_eq!(text(Some(0.1), Some(0.1)), "±10 %");
        assert_eq!(text(Some(0.1), Some(0.2)), "-10/+20 %");
    }
}
