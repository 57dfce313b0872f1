//! The report as a page: one file, without scripts and without anything from elsewhere, to be opened, mailed or kept.

mod aligned;
mod course;
mod facts;
mod forest;
mod head;
mod heatmap;
mod sections;
mod shift;
mod strip;
mod svg;
mod table;
mod tag;
mod timeline;

#[cfg(test)]
mod tests;

use super::Report;
use crate::judge::JudgeInput;
use course::Series;
use tag::{Html, leaf, tag, verbatim, words};

/// Nothing is loaded, whatever a name may look like.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The whole page. The ticks of `input` are what its figures are drawn from.
pub fn render(report: &Report, input: &JudgeInput) -> String {
    page(report, &course::series(report, input))
}

fn page(report: &Report, series: &[Series]) -> String {
    let meta = |name, content| leaf("meta", &[("name", name), ("content", content)]);
    let title = format!("{}: {}", super::text::verdict_word(report.verdict), report.name);
    let head = tag(
        "head",
        &[],
        [
            leaf("meta", &[("charset", "utf-8")]),
            leaf("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]),
            meta("viewport", "width=device-width, initial-scale=1"),
            meta("color-scheme", "light dark"),
            words("title", &[], &title),
            verbatim("style", include_str!("style.css")),
        ],
    );
    let main = tag("main", &[], [head::render(report), body(report, series)]);
    let html = tag("html", &[("lang", "en")], [head, tag("body", &[], [main])]);
    format!("<!DOCTYPE html>\n{}\n", html.into_string())
}

/// What follows the verdict, what decides first. A new part is a line here.
fn body(report: &Report, series: &[Series]) -> Html {
    let parts = [
        sections::gates(report),
        sections::caveats(report),
        sections::timelines(series),
        sections::durations(series),
        sections::pulses(report, series),
        sections::hold(report),
        sections::targets(report),
        sections::control(report, series),
        sections::recovery(report),
        sections::watched(report),
        facts::faults(report),
        facts::moved(report),
        facts::phases(report),
        facts::rollback(report),
        facts::environment(report),
    ];
    parts.into_iter().collect()
}

/// A section under its heading; nothing without content.
fn section(heading: &str, lead: &str, content: impl IntoIterator<Item = Html>) -> Html {
    let content: Html = content.into_iter().collect();
    if content.is_empty() {
        return content;
    }
    let lead = if lead.is_empty() { Html::default() } else { words("p", &[("class", "lead")], lead) };
    tag("section", &[], [words("h2", &[], heading), lead, content])
}

/// Items one below the other; nothing without items.
fn list(items: impl IntoIterator<Item = String>) -> Html {
    let items: Html = items.into_iter().map(|item| words("li", &[], &item)).collect();
    if items.is_empty() { items } else { tag("ul", &[], [items]) }
}
