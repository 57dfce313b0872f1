//! From text to types and back, once, at the edge: the same parsers for specs and for the command line.

mod bits;
mod count;
mod errno;
mod level;
mod margin;
mod name;
mod net;
mod offset;
mod percent;
mod signal;
mod suggest;
mod time;
mod words;

use std::fmt::Write;

pub use bits::{BitRate, Bytes};
pub use count::{CountRate, MAX_COUNT, MAX_RATE_PER_S, Occurrences, parse_count, parse_seed, parse_up_to};
pub use errno::Errno;
pub use level::{example as example_of_level, parse_level, show_level};
pub use margin::{parse_confidence, parse_margin, show_margin};
pub use name::NameSuffix;
pub use net::{Ports, parse_address, parse_network, show_network};
pub use offset::{MAX_OFFSET, Offsets};
pub use percent::Percent;
pub use signal::Signal;
pub use suggest::{did_you_mean, list, nearest};
pub use time::{MAX_DURATION, parse_duration, show_duration};
pub use words::{one_of, parse_flag};

/// Text that was refused: what is wrong with it, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {right}")]
pub struct BadValue {
    /// What is wrong, quoting the text.
    pub what: String,
    /// What would be right, as an imperative.
    pub right: String,
}

impl BadValue {
    /// A refusal.
    pub fn new(what: impl Into<String>, right: impl Into<String>) -> Self {
        Self { what: what.into(), right: right.into() }
    }
}

/// Most characters of the user's own text that a message repeats.
const MAX_QUOTED_CHARS: usize = 60;

/// The user's own text, as messages repeat it: in backticks, cut short, and without control characters,
/// which could rewrite the terminal it is printed on.
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("`");
    for c in text.chars().take(MAX_QUOTED_CHARS) {
        if c.is_control() {
            let _ = write!(shown, "{}", c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(MAX_QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    shown.push('`');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_short_and_harmless() {
        assert_eq!(quoted("5%"), "`5%`");
        assert_eq!(quoted("\u{1b}[2J\n"), "`\\u{1b}[2J\\n`");
        assert_eq!(quoted(&"x".repeat(1000)), format!("`{}…`", "x".repeat(60)));
    }
}
