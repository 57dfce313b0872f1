//! Rates in bits per second and sizes in bytes: `10mbit`, `32kB`.

use std::{fmt, str::FromStr};

use super::{BadValue, percent::decimal, quoted};

/// The highest rate taken.
pub const MAX_BITS_PER_S: u64 = 1_000_000_000_000;
/// The largest size taken.
pub const MAX_BYTES: u64 = 1_000_000_000;

const BIT_UNITS: [(&str, u64); 5] =
    [("tbit", 1_000_000_000_000), ("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];
const BYTE_UNITS: [(&str, u64); 6] =
    [("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// Bits per second: `10mbit`, `1.5gbit`, `64kbit/s`. A kbit is 1000 bits, as in tc(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRate(pub u64);

/// Bytes: `1500B`, `32kB`, `64KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for BitRate {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let right = || "write a rate from `1bit` to `1tbit`, such as `10mbit` or `64kbit`";
        let trimmed = text.trim().to_ascii_lowercase();
        let without_second = trimmed.strip_suffix("/s").unwrap_or(&trimmed);
        if trimmed.ends_with("bps") {
            let what = format!("{} could be bits or, as in tc(8), bytes per second", quoted(text));
            return Err(BadValue::new(what, right()));
        }
        match scaled(without_second, &BIT_UNITS) {
            None => Err(no_number(text, "a rate in bits per second", right())),
            Some(bits) if (1.0..=MAX_BITS_PER_S as f64).contains(&bits) => Ok(Self(bits as u64)),
            Some(_) => Err(BadValue::new(format!("{} is out of range", quoted(text)), right())),
        }
    }
}

impl FromStr for Bytes {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let right = || "write a size from `0B` to `1GB`, such as `1500B`, `32kB` or `64KiB`";
        match scaled(text.trim(), &BYTE_UNITS) {
            None => Err(no_number(text, "a size in bytes", right())),
            Some(bytes) if (0.0..=MAX_BYTES as f64).contains(&bytes) => Ok(Self(bytes as u64)),
            Some(_) => Err(BadValue::new(format!("{} is out of range", quoted(text)), right())),
        }
    }
}

/// The number in front of one of the units, in ones.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<f64> {
    let found = units.iter().find_map(|(unit, ones)| Some((text.strip_suffix(unit)?, *ones)));
    let (number, ones) = found?;
    decimal(number).map(|number| (number * ones as f64).round())
}

fn no_number(text: &str, what: &str, right: &str) -> BadValue {
    let lacks_unit = decimal(text.trim()).is_some();
    let problem = if lacks_unit { "has no unit".to_owned() } else { format!("is not {what}") };
    BadValue::new(format!("{} {problem}", quoted(text)), right)
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &BIT_UNITS)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &BYTE_UNITS)
    }
}

/// In the largest unit that leaves a whole number.
fn show(f: &mut fmt::Formatter<'_>, ones: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |unit: &&(&str, u64)| ones >= unit.1 && ones.is_multiple_of(unit.1);
    let (unit, of) =
        units.iter().filter(fits).max_by_key(|unit| unit.1).copied().unwrap_or(units[units.len() - 1]);
    write!(f, "{}{unit}", ones / of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_back() {
        for (text, bits) in [("10mbit", 10_000_000), ("64kbit", 64_000), ("1500kbit", 1_500_000), ("1bit", 1)]
        {
            assert_eq!(text.parse(), Ok(BitRate(bits)));
            assert_eq!(BitRate(bits).to_string(), text);
        }
        for same in ["1.5gbit", "1.5 Gbit/s", "1500Mbit"] {
            assert_eq!(same.parse(), Ok(BitRate(1_500_000_000)), "{same}");
        }
    }

    #[test]
    fn sizes_read_back() {
        for (text, bytes) in
            [("1500B", 1500), ("32kB", 32_000), ("64KiB", 65_536), ("0B", 0), ("1MB", 1_000_000)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, part) in [
            ("10", "has no unit"),
            ("10mbps", "bytes per second"),
            ("fast", "is not a rate"),
            ("mbit", "is not a rate"),
            ("0bit", "out of range"),
            ("-1mbit", "out of range"),
            ("2tbit", "out of range"),
            ("1,5mbit", "is not a rate"),
        ] {
            let error = text.parse::<BitRate>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in
            [("1500", "has no unit"), ("2GB", "out of range"), ("1kb", "is not a size"), ("-1B", "range")]
        {
            let error = text.parse::<Bytes>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
