//! Signals, by the names of signal(7).

use std::{fmt, str::FromStr};

use super::{BadValue, nearest, quoted};

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(nix::sys::signal::Signal);

impl Signal {
    /// The one with this number on this machine, if signal(7) has a name for it.
    pub fn numbered(number: u32) -> Option<Self> {
        nix::sys::signal::Signal::try_from(i32::try_from(number).ok()?).ok().map(Self)
    }

    /// As the kernel counts them on this machine.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// As signal(7) writes it.
    pub fn name(self) -> &'static str {
        self.0.as_str()
    }
}

impl FromStr for Signal {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let word = text.trim();
        let name = if word.starts_with("SIG") { word.to_owned() } else { format!("SIG{word}") };
        name.parse()
            .map(Self)
            .map_err(|_| BadValue::new(format!("{} is not the name of a signal", quoted(text)), near(&name)))
    }
}

/// All names begin alike and are upper case, which would mislead [`nearest`].
fn near(name: &str) -> String {
    let tail = |name: &str| name.trim_start_matches("SIG").to_lowercase();
    let tails: Vec<String> =
        nix::sys::signal::Signal::iterator().map(|signal| tail(signal.as_str())).collect();
    match nearest(&tail(name), tails.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `SIG{}`?", near.to_uppercase()),
        None => "write one of signal(7), such as `SIGKILL`".into(),
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_their_beginning() {
        for text in ["SIGKILL", "KILL", " SIGKILL "] {
            let signal: Signal = text.parse().unwrap();
            assert_eq!((signal.name(), signal.number()), ("SIGKILL", 9));
        }
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, part) in [
            ("SIGTEM", "did you mean `SIGTERM`?"),
            ("kill", "did you mean `SIGKILL`?"),
            ("9", "such as `SIGKILL`"),
            ("", "such as"),
        ] {
            let error = text.parse::<Signal>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
