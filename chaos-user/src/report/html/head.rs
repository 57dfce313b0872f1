//! The verdict, and what it allows to be said.

use super::{
    list,
    tag::{Html, tag, words},
};
use crate::{
    judge::Verdict,
    report::{Report, number, text},
};

/// Name, verdict, claim, reasons, and the run in a line.
pub fn render(report: &Report) -> Html {
    let class = class(report.verdict);
    let badge = [
        words("span", &[("aria-hidden", "true"), ("class", "sign")], sign(report.verdict)),
        words("span", &[], text::verdict_word(report.verdict)),
    ];
    // The first reason is the claim. A run that ended early lacks much by itself.
    let reasons = report.invalid.iter().skip(1).filter(|_| report.verdict == Verdict::Invalid);
    let reasons = list(reasons.map(ToString::to_string));
    tag(
        "header",
        &[("class", class)],
        [
            tag("p", &[("class", "badge")], badge),
            words("h1", &[], &report.name),
            words("p", &[("class", "hypothesis")], &report.hypothesis),
            words("p", &[("class", "claim")], &sentence(&report.claim)),
            reasons,
            summary(report),
        ],
    )
}

/// The class of the style sheet that a verdict has.
const fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail | Verdict::Aborted => "fail",
        Verdict::Inconclusive => "open",
        Verdict::Invalid => "none",
    }
}

/// Beside the word, so that it is seen from afar.
const fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✓",
        Verdict::Fail => "✕",
        Verdict::Inconclusive => "?",
        Verdict::Invalid => "!",
        Verdict::Aborted => "■",
    }
}

fn sentence(claim: &str) -> String {
    let mut letters = claim.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn summary(report: &Report) -> Html {
    let faults: Vec<_> = report.faults.iter().map(text::in_short).collect();
    let seconds: f64 = report.phases.iter().map(|phase| phase.seconds).sum();
    let pulses =
        report.pulses.as_ref().map_or(String::new(), |pulses| format!("{} pairs of blocks", pulses.pairs));
    let lasted = if seconds > 0.0 { number::seconds(seconds) } else { String::new() };
    let group = |members: &[super::super::Member]| {
        members.iter().map(|member| member.target.as_str()).collect::<Vec<_>>().join(", ")
    };
    let facts = [
        ("fault", faults.join(", ")),
        ("experiment", group(&report.groups.experiment)),
        ("control", group(&report.groups.control)),
        ("pulses", pulses),
        ("lasted", lasted),
        ("confidence", number::asked(report.confidence)),
    ];
    let facts = facts.iter().filter(|(_, value)| !value.is_empty());
    let fact =
        |(name, value): &(&str, String)| tag("div", &[], [words("dt", &[], name), words("dd", &[], value)]);
    tag("dl", &[], facts.map(fact))
}
