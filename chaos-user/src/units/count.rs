//! Counts: how many, how many per second, and which of a sequence.

use std::{fmt, str::FromStr};

use chaos_common::When;

use super::{BadValue, quoted};

/// The largest count taken; beyond it (years of packets) it can only be a slip.
pub const MAX_COUNT: u64 = 1_000_000_000_000;
/// The highest rate taken: one per nanosecond, the resolution of the kernel's budget.
pub const MAX_RATE_PER_S: u64 = 1_000_000_000;

/// Parses a count from 1 to [`MAX_COUNT`]; `zero` says what to do instead of writing 0.
pub fn parse_count(text: &str, zero: &str) -> Result<u64, BadValue> {
    let right = || format!("write a whole number from 1 to {MAX_COUNT}");
    match text.trim().parse::<u64>() {
        Ok(0) => Err(BadValue::new("0 would never let anything happen", zero)),
        Ok(count) if count <= MAX_COUNT => Ok(count),
        Ok(_) => Err(BadValue::new(format!("{} is too large", quoted(text)), right())),
        Err(_) => Err(BadValue::new(format!("{} is not a count", quoted(text)), right())),
    }
}

/// Parses a number from 1 to `most`, of things of which none would change nothing.
pub fn parse_up_to(text: &str, most: u32) -> Result<u32, BadValue> {
    let right = || format!("write a whole number from 1 to {most}");
    match text.trim().parse::<u32>() {
        Ok(0) => Err(BadValue::new("0 would change nothing", right())),
        Ok(number) if number <= most => Ok(number),
        _ => Err(BadValue::new(format!("{} is not a number from 1 to {most}", quoted(text)), right())),
    }
}

/// Parses a seed. 0 is refused: to the kernel half it means "no seed".
pub fn parse_seed(text: &str) -> Result<u64, BadValue> {
    match text.trim().parse::<u64>() {
        Ok(0) => Err(BadValue::new(
            "0 is not a seed",
            "write a number from 1, or leave it out for fresh randomness",
        )),
        Ok(seed) => Ok(seed),
        Err(_) => Err(BadValue::new(
            format!("{} is not a seed", quoted(text)),
            format!("write a whole number from 1 to {}", u64::MAX),
        )),
    }
}

/// A number per second: `100/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRate(pub u64);

impl FromStr for CountRate {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let right = || format!("write a rate from `1/s` to `{MAX_RATE_PER_S}/s`, such as `100/s`");
        let trimmed = text.trim();
        let (count, unit) = trimmed.split_once('/').unwrap_or((trimmed, ""));
        let Ok(per_s) = count.trim_end().parse::<u64>() else {
            return Err(BadValue::new(format!("{} is not a rate", quoted(text)), right()));
        };
        match (unit.trim_start(), per_s) {
            ("s", 0) => {
                Err(BadValue::new("0/s would never let anything happen", "leave it out for no limit"))
            }
            ("s", 1..=MAX_RATE_PER_S) => Ok(Self(per_s)),
            ("s", _) => Err(BadValue::new(format!("{} is too high", quoted(text)), right())),
            ("", _) => {
                Err(BadValue::new(format!("{} has no unit", quoted(text)), format!("write `{per_s}/s`")))
            }
            _ => Err(BadValue::new(format!("{} is not per second", quoted(text)), right())),
        }
    }
}

impl fmt::Display for CountRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// Which of a sequence, as strace's `when=` has it: `first[..last][+step]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrences(pub When);

impl FromStr for Occurrences {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let (range, step) = match text.trim().split_once('+') {
            Some((range, step)) => (range, Some(step)),
            None => (text.trim(), None),
        };
        let (first, last) = match range.split_once("..") {
            Some((first, last)) => (first, Some(last)),
            None => (range, None),
        };
        let first = ordinal(text, first)?;
        let last = match (last, step) {
            (Some(last), _) => ordinal(text, last)?,
            (None, Some(_)) => u64::MAX,
            (None, None) => first,
        };
        let step = match step {
            None | Some("") => 1,
            Some(step) => ordinal(text, step)?,
        };
        if last < first {
            return Err(BadValue::new(
                format!("{} ends before it begins", quoted(text)),
                format!("write `{last}..{first}`"),
            ));
        }
        // One occurrence has no distance to the next.
        let step = if last == first { 1 } else { step };
        Ok(Self(When { first, last, step }))
    }
}

impl fmt::Display for Occurrences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let When { first, last, step } = self.0;
        match (last, step) {
            (u64::MAX, 1) => write!(f, "{first}+"),
            (u64::MAX, step) => write!(f, "{first}+{step}"),
            (last, _) if last == first => write!(f, "{first}"),
            (last, 1) => write!(f, "{first}..{last}"),
            (last, step) => write!(f, "{first}..{last}+{step}"),
        }
    }
}

/// One number of an occurrence expression: counting starts at 1, and a step of 0 would stand still.
fn ordinal(whole: &str, part: &str) -> Result<u64, BadValue> {
    part.trim().parse::<u64>().ok().filter(|n| (1..=MAX_COUNT).contains(n)).ok_or_else(|| {
        let what = match part.trim() {
            "" => format!("{} lacks a number", quoted(whole)),
            "0" => format!("{} has a 0, and counting starts at 1", quoted(whole)),
            other => format!("{} is not a number from 1 to {MAX_COUNT} in {}", quoted(other), quoted(whole)),
        };
        BadValue::new(what, "write first[..last][+step], such as `3`, `3..6`, `3+2` or `3..9+2`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(text: &str) -> Result<When, BadValue> {
        text.parse::<Occurrences>().map(|occurrences| occurrences.0)
    }

    #[test]
    fn occurrences_as_strace_writes_them() {
        assert_eq!(when("3"), Ok(When { first: 3, last: 3, step: 1 }));
        assert_eq!(when("3..6"), Ok(When { first: 3, last: 6, step: 1 }));
        assert_eq!(when("3+2"), Ok(When { first: 3, last: u64::MAX, step: 2 }));
        assert_eq!(when("3..3+2"), when("3"));
        assert_eq!(when("3..9+2"), Ok(When { first: 3, last: 9, step: 2 }));
        assert_eq!(when("3+"), Ok(When { first: 3, last: u64::MAX, step: 1 }));
        assert_eq!(when("1+"), Ok(When::ALWAYS));
        assert_eq!(when("5+5"), Ok(When::every(5)));
    }

    #[test]
    fn occurrences_read_back() {
        for text in ["3", "3..6", "3+2", "3..9+2", "3+"] {
            assert_eq!(Occurrences(when(text).unwrap()).to_string(), text);
        }
    }

    #[test]
    fn occurrences_refused() {
        for (text, part) in [
            ("", "lacks a number"),
            ("3..", "lacks a number"),
            ("..3", "lacks a number"),
            ("0", "starts at 1"),
            ("1+0", "starts at 1"),
            ("6..3", "write `3..6`"),
            ("x", "not a number"),
            ("1..2..3", "not a number"),
            ("-1", "not a number"),
            ("1+2+3", "not a number"),
            ("99999999999999999999", "not a number from 1"),
        ] {
            let error = when(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!("100/s".parse(), Ok(CountRate(100)));
        assert_eq!("100 / s".parse(), Ok(CountRate(100)));
        assert_eq!(CountRate(7).to_string(), "7/s");
        for (text, part) in [
            ("100", "write `100/s`"),
            ("0/s", "never let anything"),
            ("100/m", "not per second"),
            ("fast", "not a rate"),
            ("1.5/s", "not a rate"),
            ("1000000001/s", "too high"),
        ] {
            let error = text.parse::<CountRate>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn counts_and_seeds() {
        assert_eq!(parse_count("500", "leave it out"), Ok(500));
        assert!(parse_count("0", "leave it out").unwrap_err().right.contains("leave it out"));
        assert!(parse_count("1000000000001", "").is_err() && parse_count("ten", "").is_err());
        assert_eq!(parse_seed("18446744073709551615"), Ok(u64::MAX));
        assert!(parse_seed("0").is_err() && parse_seed("-1").is_err());
    }
}
