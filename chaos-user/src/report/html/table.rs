//! Tables, each in a box of its own in which a narrow screen can scroll it.

use super::tag::{Html, tag, words};

/// A table of texts, the first column of which says what a row is about.
pub fn of_texts(caption: &str, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Html {
    let cells = rows.into_iter().map(|row| row.iter().map(|cell| super::tag::text(cell)).collect());
    of(caption, header, cells)
}

/// A table; nothing without rows.
pub fn of(caption: &str, header: &[&str], rows: impl IntoIterator<Item = Vec<Html>>) -> Html {
    let row = |cells: Vec<Html>| {
        let cell = |(i, cell)| match i {
            0 => tag("th", &[("scope", "row")], [cell]),
            _ => tag("td", &[], [cell]),
        };
        tag("tr", &[], cells.into_iter().enumerate().map(cell))
    };
    let body: Html = rows.into_iter().map(row).collect();
    if body.is_empty() {
        return Html::default();
    }
    let titles = header.iter().map(|title| words("th", &[("scope", "col")], title));
    let table = tag(
        "table",
        &[],
        [
            words("caption", &[("class", "unseen")], caption),
            tag("thead", &[], [tag("tr", &[], titles)]),
            tag("tbody", &[], [body]),
        ],
    );
    tag("div", &[("class", "scroll"), ("tabindex", "0"), ("role", "group"), ("aria-label", caption)], [table])
}

/// A table of texts that is opened by whoever wants the numbers; in print it is open.
pub fn folded(summary: &str, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Html {
    let table = of_texts(summary, header, rows);
    if table.is_empty() {
        return table;
    }
    tag("details", &[], [words("summary", &[], summary), table])
}
