//! Percentages: `5`, `5%`, `0.1%`, `1e-7%`.

use std::{fmt, str::FromStr};

use chaos_common::Chance;

use super::{BadValue, quoted};

/// A chance as users write it. The unit may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub Chance);

impl FromStr for Percent {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let percent = number(text)?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(BadValue::new(
                format!("{} is not between 0 and 100 %", quoted(text)),
                "write a percentage such as `5%` or `0.1%`",
            ));
        }
        Chance::from_fraction(percent / 100.0).map(Self).ok_or_else(|| {
            BadValue::new(
                format!("{} is so small that it would mean never", quoted(text)),
                "write 0, or at least `1.2e-8%` (one in 2^33)",
            )
        })
    }
}

impl fmt::Display for Percent {
    /// The shortest decimal that reads back as the same chance.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0.fraction() * 100.0;
        let shortest = (0..17)
            .filter_map(|digits| format!("{percent:.digits$e}").parse::<f64>().ok())
            .find(|rounded| Chance::from_fraction(rounded / 100.0) == Some(self.0));
        write!(f, "{}%", shortest.unwrap_or(percent))
    }
}

/// The number in front of an optional `%`.
pub(super) fn number(text: &str) -> Result<f64, BadValue> {
    let trimmed = text.trim();
    decimal(trimmed.strip_suffix('%').unwrap_or(trimmed))
        .ok_or_else(|| not_a_percentage(text, "write a percentage such as `5%` or `0.1%`"))
}

/// A finite decimal number. Rust's own parser would also take `inf` and `nan`.
pub(super) fn decimal(text: &str) -> Option<f64> {
    text.trim_end().parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Moves the decimal point. Dividing by 100 would make 99.9 % the fraction 0.9990000000000001.
pub(super) fn shifted(number: f64, digits: i32) -> f64 {
    format!("{number}e{digits}").parse().unwrap_or(number * 10_f64.powi(digits))
}

fn not_a_percentage(text: &str, right: &str) -> BadValue {
    let comma = if text.contains(',') { " (decimals are written with a point)" } else { "" };
    BadValue::new(format!("{} is not a percentage{comma}", quoted(text)), right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Percent, BadValue> {
        text.parse()
    }

    #[test]
    fn with_and_without_the_unit() {
        let five = Percent(Chance::from_fraction(0.05).unwrap());
        for same in ["5", "5%", "5 %", " 5% ", "5.0", "5e0%"] {
            assert_eq!(parse(same), Ok(five), "{same}");
        }
        assert_eq!(parse("0"), Ok(Percent(Chance::NEVER)));
        assert_eq!(parse("100%"), Ok(Percent(Chance::ALWAYS)));
        assert_eq!(parse("1e-7%").unwrap().0.bits(), 4);
    }

    #[test]
    fn shows_what_was_written() {
        for text in ["0%", "5%", "0.1%", "33.3%", "99.99%", "100%", "0.00001%"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_chance_survives_a_round_trip() {
        for bits in [1, 2, 429, 0x5555_5555, 0xffff_ffff] {
            let percent = Percent(Chance::from_bits(bits));
            assert_eq!(parse(&percent.to_string()), Ok(percent), "{bits}");
        }
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, part) in [
            ("", "not a percentage"),
            ("many", "not a percentage"),
            ("0,5", "with a point"),
            ("nan", "not a percentage"),
            ("inf%", "not a percentage"),
            ("-1", "between 0 and 100"),
            ("100.1%", "between 0 and 100"),
            ("1e-9%", "would mean never"),
            ("5%%", "not a percentage"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.what.contains(part), "{text}: {error}");
        }
    }
}
