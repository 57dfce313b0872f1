//! Bytes of a payload, by their place.

use std::{fmt, str::FromStr};

use super::{BadValue, quoted};

/// The largest offset taken: more than any packet has.
pub const MAX_OFFSET: u32 = 1_000_000;

/// Bytes of a payload, counted from 0: `4`, `0..3`, `100..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// The first.
    pub first: u32,
    /// The last, [`u32::MAX`] for that of the payload.
    pub last: u32,
}

impl Offsets {
    /// The whole payload.
    pub const ALL: Self = Self { first: 0, last: u32::MAX };
}

impl FromStr for Offsets {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let (first, last) = match text.trim().split_once("..") {
            Some((first, "")) => (offset(text, first)?, u32::MAX),
            Some((first, last)) => (offset(text, first)?, offset(text, last)?),
            None => (offset(text, text)?, offset(text, text)?),
        };
        if last < first {
            return Err(BadValue::new(
                format!("{} ends before it begins", quoted(text)),
                format!("write `{last}..{first}`"),
            ));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Offsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { first, last: u32::MAX } => write!(f, "{first}.."),
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}..{last}"),
        }
    }
}

fn offset(whole: &str, part: &str) -> Result<u32, BadValue> {
    part.trim().parse::<u32>().ok().filter(|offset| *offset <= MAX_OFFSET).ok_or_else(|| {
        let what = match part.trim() {
            "" => format!("{} lacks a number", quoted(whole)),
            other => format!("{} is not a number from 0 to {MAX_OFFSET} in {}", quoted(other), quoted(whole)),
        };
        BadValue::new(what, "write first..last, such as `0..3` for the first four bytes, `4` or `100..`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_as_users_write_them() {
        let offsets = |text: &str| text.parse::<Offsets>().map(|offsets| (offsets.first, offsets.last));
        assert_eq!(offsets("4"), Ok((4, 4)));
        assert_eq!(offsets("0..3"), Ok((0, 3)));
        assert_eq!(offsets(" 0 .. 3 "), Ok((0, 3)));
        assert_eq!(offsets("100.."), Ok((100, u32::MAX)));
    }

    #[test]
    fn offsets_read_back() {
        for text in ["4", "0..3", "100.."] {
            assert_eq!(text.parse::<Offsets>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn offsets_refused() {
        for (text, part) in [
            ("", "lacks a number"),
            ("..3", "lacks a number"),
            ("3..1", "write `1..3`"),
            ("x", "not a number from 0"),
            ("-1", "not a number from 0"),
            ("0..1..2", "not a number from 0"),
            ("0..2000000", "not a number from 0 to 1000000"),
        ] {
            let error = text.parse::<Offsets>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
