//! The report for a comment on a pull request or the summary of a step: Markdown as GitHub and GitLab read it.
//!
//! Whatever was not written here is escaped: a name must not become a heading, a link, a mention or HTML.

use super::{Report, number, targets, text};
use crate::judge::{Estimate, GateResult, Verdict, names};

/// The whole report, with a newline at the end.
pub fn render(report: &Report) -> String {
    let mut page = Page::default();
    page.head(report);
    page.gates(report);
    page.outcome(report);
    page.moved(report);
    page.doubts(report);
    page.facts(report);
    page.blocks.join("\n\n") + "\n"
}

/// Blocks so far; an empty line comes between two.
#[derive(Default)]
struct Page {
    blocks: Vec<String>,
}

impl Page {
    fn head(&mut self, report: &Report) {
        let (sign, word) = (sign(report.verdict), text::verdict_word(report.verdict));
        self.blocks.push(format!("## {sign} {word}: {}", escape(&report.name)));
        self.blocks.push(format!("> {}", escape(&report.hypothesis)));
        self.blocks.push(format!("**Claim:** {}.", escape(&report.claim)));
        // The first reason is the claim. A run that ended early lacks much by itself.
        let reasons = report.invalid.iter().skip(1).filter(|_| report.verdict == Verdict::Invalid);
        self.push_list(reasons.map(|reason| escape(&reason.to_string())).collect());
    }

    fn gates(&mut self, report: &Report) {
        if report.gates.is_empty() {
            return;
        }
        self.blocks.push(gates_table("gate", report, &report.gates));
        if !report.hold.is_empty() {
            self.blocks.push(gates_table("gate, by the hold", report, &report.hold));
        }
    }

    fn outcome(&mut self, report: &Report) {
        let mut items = vec![];
        let mut item = |label: &str, words: &str| items.push(format!("**{label}:** {}", escape(words)));
        for fault in &report.faults {
            item("fault", &text::delivery(fault));
        }
        if let Some(pulses) = &report.pulses {
            item("pulses", &text::pulsed(pulses));
        }
        if let Some(words) = targets::intervals(report) {
            item("intervals", &words);
        }
        for words in targets::lines(&report.targets) {
            item("by target", &words);
        }
        if let Some(words) = text::control(report) {
            item("control", &words);
        }
        if text::is_judged(report) {
            item("recovery", &text::recovery(report));
        }
        for (label, words) in report.watched.lines() {
            item(label, &words);
        }
        if report.rollback.iter().any(|step| !step.ok) {
            item("rollback", &text::rollback(report));
        }
        self.push_list(items);
    }

    fn push_list(&mut self, items: Vec<String>) {
        if !items.is_empty() {
            self.blocks.push(list(items));
        }
    }

    fn moved(&mut self, report: &Report) {
        let moved: Vec<_> = report.observations.iter().filter(|seen| seen.moved()).collect();
        if moved.is_empty() {
            return;
        }
        let mut table = Table::new(&["what else moved", "change", &ci(report)]);
        for seen in moved {
            table.row([seen.metric.name().into(), change(&seen.estimate), text::interval(&seen.estimate)]);
        }
        self.blocks.push(table.text);
    }

    fn doubts(&mut self, report: &Report) {
        if text::is_judged(report) && !report.caveats.is_empty() {
            self.blocks.push("**Caveats**".into());
            self.blocks.push(list(report.caveats.iter().map(|caveat| escape(&caveat.to_string()))));
        }
    }

    fn facts(&mut self, report: &Report) {
        let phases = report
            .phases
            .iter()
            .map(|record| format!("{} {}", names::phase(record.phase), number::seconds(record.seconds)));
        let mut facts: Vec<_> = phases.collect();
        facts.push(format!("kchaos {}", report.tool_version));
        facts.push(format!("Linux {}", report.kernel));
        self.blocks.push(format!("<sub>{}</sub>", escape(&facts.join(", "))));
    }
}

/// Beside the word, which says it as well.
const fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✅",
        Verdict::Fail => "❌",
        Verdict::Inconclusive => "❔",
        Verdict::Invalid => "⚠️",
        Verdict::Aborted => "🛑",
    }
}

fn gates_table(title: &str, report: &Report, gates: &[GateResult]) -> String {
    let mut table = Table::new(&[title, "change", &ci(report), "margin", "verdict", "bound"]);
    for gate in gates {
        table.row(gate_row(gate, text::is_judged(report)));
    }
    table.text
}

fn gate_row(gate: &GateResult, judged: bool) -> [String; 6] {
    let effect = gate.estimate.as_ref();
    let (verdict, bound) = match judged {
        true => (text::gate_word(gate.verdict).0.into(), text::bound(gate)),
        false => ("not judged".into(), "–".into()),
    };
    [
        gate.metric.name().into(),
        effect.map_or("–".into(), change),
        effect.map_or("–".into(), text::interval),
        text::margin(gate.metric.kind(), gate.margin),
        verdict,
        bound,
    ]
}

fn change(effect: &Estimate) -> String {
    number::change(effect.kind, effect.change)
}

fn ci(report: &Report) -> String {
    format!("{} CI", number::asked(report.ci_level))
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().map(|item| format!("- {item}")).collect::<Vec<_>>().join("\n")
}

/// A table; every cell is escaped.
struct Table {
    text: String,
}

impl Table {
    fn new(header: &[&str]) -> Self {
        let mut table = Self { text: String::new() };
        table.row(header.iter().map(|title| (*title).to_owned()));
        table.text += &format!("\n|{}", "---|".repeat(header.len()));
        table
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push('|');
        for cell in cells {
            self.text += &format!(" {} |", escape(&cell));
        }
    }
}

/// What Markdown gives a meaning to within a line, as GitHub reads it: `$` is mathematics there.
const SPECIAL: &str = "\\`*_[]<>#|~!&$";

/// On one line, as it is written, without any meaning.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            _ if letter.is_control() => escaped.push(' '),
            _ if SPECIAL.contains(letter) => escaped.extend(['\\', letter]),
            // Nobody is told: with a space of no width it is no name.
            '@' => escaped.push_str("@\u{200b}"),
            _ => escaped.push(letter),
        }
    }
    // An address is no link, in either way it may begin.
    escaped.replace("www.", "www\\.").replace("://", "\\://").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_from_elsewhere_means_anything() {
        assert_eq!(escape("<img src=x>"), "\\<img src=x\\>");
        assert_eq!(escape("a|b\n# c `d` *e* _f_"), "a\\|b \\# c \\`d\\` \\*e\\* \\_f\\_");
        assert_eq!(
            escape("[x](https://evil.example) www.evil.example"),
            "\\[x\\](https\\://evil.example) www\\.evil.example"
        );
        assert_eq!(escape("@everyone &amp; $x$ #12"), "@\u{200b}everyone \\&amp; \\$x\\$ \\#12");
        assert_eq!(escape("plain, -1.2 % (or +5)"), "plain, -1.2 % (or +5)");
    }
}
