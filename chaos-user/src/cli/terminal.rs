//! What a human sees: colour and a progress bar on a terminal, plain lines in a pipe.

use std::{
    fmt,
    io::{IsTerminal, Write},
    time::Duration,
};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{experiment::Progress, steady::sample::Part};

/// Prints a line to standard output. Nobody reading it any more is no reason to fail: a rollback goes on.
macro_rules! say {
    ($($argument:tt)*) => {{
        $crate::cli::terminal::line(format_args!($($argument)*));
    }};
}
pub(crate) use say;

/// See [`say!`]. Says whether anybody is still reading.
pub fn line(text: fmt::Arguments<'_>) -> bool {
    writeln!(std::io::stdout(), "{text}").is_ok()
}

/// Whether to colour what goes to standard output: on a terminal, unless NO_COLOR is set (no-color.org).
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How wide standard output is, if it is a terminal.
pub fn width() -> Option<u16> {
    std::io::stdout().is_terminal().then(|| Table::new().width()).flatten()
}

/// The word before an error.
pub fn error_label() -> &'static str {
    let coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if coloured { "\x1b[1;31merror\x1b[0m" } else { "error" }
}

/// A table: ruled on a terminal, aligned columns in a pipe.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(if colour() { presets::UTF8_HORIZONTAL_ONLY } else { presets::NOTHING });
    table.set_header(header.iter().map(Cell::new));
    table
}

/// A table without rules, for those that have many rows.
pub fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(Cell::new));
    table
}

/// A table whose long cells are wrapped, so that it fits a terminal, or 100 columns where there is none.
pub fn wrapped_table(header: &[&str]) -> Table {
    const WIDEST: u16 = 100;
    let mut table = table(header);
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width().map_or(WIDEST, |w| w.min(WIDEST)));
    table
}

/// Prints a table without the blanks that its columns end with.
pub fn print(table: &Table) {
    for line in table.lines() {
        say!("{}", line.trim_end());
    }
}

/// Shows an experiment's progress on standard error: a bar on a terminal, a line per phase in a pipe.
pub struct ProgressView {
    bar: Option<ProgressBar>,
    total: Duration,
    done: Duration,
}

impl ProgressView {
    /// For a run that takes `total`.
    pub fn new(total: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total.as_secs());
            // The template is ours and correct; if it were not, the default one would do.
            if let Ok(style) = ProgressStyle::with_template("{msg:<44} {wide_bar} {pos:>3}/{len} s") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, total, done: Duration::ZERO }
    }

    /// Takes note.
    pub fn show(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Part { part, duration } => match &self.bar {
                Some(bar) => bar.set_message(part_name(part)),
                None => {
                    eprintln!("{}: {} s of {} s", part_name(part), duration.as_secs(), self.total.as_secs());
                }
            },
            Progress::Tick { part, sample, .. } => {
                self.done += crate::experiment::phases::TICK;
                if let Some(bar) = &self.bar {
                    let injected: u64 = sample.rules.iter().flatten().map(|stats| stats.injected).sum();
                    bar.set_message(format!("{}: {injected} injected", part_name(part)));
                    bar.set_position(self.done.as_secs());
                }
            }
            Progress::RollingBack => {
                if let Some(bar) = &self.bar {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

/// `inject`, `pulse 3 on`.
fn part_name(part: Part) -> String {
    match part {
        Part::Phase(phase) => crate::judge::names::phase(phase).to_owned(),
        Part::Block { pair, on } => format!("pulse {} {}", pair + 1, if on { "on" } else { "off" }),
    }
}
