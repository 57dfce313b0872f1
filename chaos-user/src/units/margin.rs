//! Margins and confidence: `10%` of a rate, `0.5pp` of a share, `95%`.

use super::{
    BadValue,
    percent::{decimal, number, shifted},
    quoted,
};
use crate::experiment::hypothesis::{Kind, Metric};

/// The widest margin for a rate: eleven times as much.
const MAX_RELATIVE: f64 = 10.0;
/// The range of confidence levels that the tables and the run lengths are made for.
const CONFIDENCE: std::ops::RangeInclusive<f64> = 80.0..=99.9;

/// Parses how far a metric may move: a fraction for a [`Kind::Rate`], a difference of shares for a
/// [`Kind::RareRatio`].
pub fn parse_margin(text: &str, metric: Metric) -> Result<f64, BadValue> {
    let trimmed = text.trim();
    let (number, unit) = match (trimmed.strip_suffix("pp"), trimmed.strip_suffix('%')) {
        (Some(number), _) => (number, "pp"),
        (None, Some(number)) => (number, "%"),
        (None, None) => (trimmed, ""),
    };
    let wanted = unit_of(metric);
    let value = decimal(number).ok_or_else(|| {
        BadValue::new(
            format!("{} is not a margin", quoted(text)),
            format!("write one such as `{}`", example(metric)),
        )
    })?;
    if unit != wanted {
        return Err(wrong_unit(text, unit, value, metric));
    }
    let most = if wanted == "%" { MAX_RELATIVE } else { 1.0 };
    let out_of_range = |right| Err(BadValue::new(format!("{} is out of range", quoted(text)), right));
    if value <= 0.0 {
        return out_of_range(format!("write a margin above 0, such as `{}`", example(metric)));
    }
    if shifted(value, -2) > most {
        return out_of_range(format!("write at most `{}{wanted}`", most * 100.0));
    }
    Ok(shifted(value, -2))
}

/// A margin as [`parse_margin`] reads it.
pub fn show_margin(margin: f64, metric: Metric) -> String {
    format!("{}{}", shifted(margin, 2), unit_of(metric))
}

/// Parses a confidence level, in percent, into a fraction.
pub fn parse_confidence(text: &str) -> Result<f64, BadValue> {
    let percent = number(text)?;
    if CONFIDENCE.contains(&percent) {
        return Ok(shifted(percent, -2));
    }
    let right = if (0.8..1.0).contains(&percent) {
        format!("write it in percent: `{}%`", shifted(percent, 2))
    } else {
        "write `95%`, unless you know better".to_owned()
    };
    Err(BadValue::new(format!("{} is not between 80 and 99.9 %", quoted(text)), right))
}

fn unit_of(metric: Metric) -> &'static str {
    match metric.kind() {
        Kind::Rate => "%",
        Kind::RareRatio => "pp",
    }
}

fn example(metric: Metric) -> &'static str {
    match metric.kind() {
        Kind::Rate => "10%",
        Kind::RareRatio => "0.5pp",
    }
}

fn wrong_unit(text: &str, unit: &str, value: f64, metric: Metric) -> BadValue {
    let name = metric.name();
    let what = match (metric.kind(), unit) {
        (_, "") => format!("{} has no unit", quoted(text)),
        (Kind::Rate, _) => format!(
            "{} is in percentage points, but `{name}` is a rate, and its margin a share of it",
            quoted(text)
        ),
        (Kind::RareRatio, _) => {
            format!(
                "{} is relative, but `{name}` is itself a share near zero, where only differences make sense",
                quoted(text)
            )
        }
    };
    let right = match (metric.kind(), unit) {
        (Kind::Rate, "") => format!("write `{value}%`, a share of the rate"),
        (Kind::Rate, _) => "write one such as `10%`".to_owned(),
        (Kind::RareRatio, _) => "write percentage points, such as `0.5pp`".to_owned(),
    };
    BadValue::new(what, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_for_rates_absolute_for_shares() {
        assert_eq!(parse_margin("10%", Metric::RxBytes), Ok(0.1));
        assert_eq!(parse_margin("0.5pp", Metric::TcpRetransRatio), Ok(0.005));
        assert_eq!(parse_margin("0.5 pp", Metric::TcpRetransRatio), Ok(0.005));
        assert_eq!(parse_margin("1000%", Metric::RxBytes), Ok(10.0));
    }

    #[test]
    fn margins_read_back() {
        for (text, metric) in
            [("7%", Metric::Syscalls), ("0.5pp", Metric::SyscallErrorRatio), ("0.1%", Metric::TxBytes)]
        {
            assert_eq!(show_margin(parse_margin(text, metric).unwrap(), metric), text);
        }
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, metric, part) in [
            ("0.5pp", Metric::RxBytes, "write one such as `10%`"),
            ("10%", Metric::TcpRetransRatio, "such as `0.5pp`"),
            ("10", Metric::RxBytes, "write `10%`"),
            ("0.5", Metric::TcpRetransRatio, "has no unit"),
            ("0%", Metric::RxBytes, "out of range"),
            ("-5%", Metric::RxBytes, "out of range"),
            ("1001%", Metric::RxBytes, "at most `1000%`"),
            ("101pp", Metric::TcpRetransRatio, "at most `100pp`"),
            ("a bit", Metric::RxBytes, "not a margin"),
        ] {
            let error = parse_margin(text, metric).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn confidence() {
        assert_eq!(parse_confidence("95%"), Ok(0.95));
        assert_eq!(parse_confidence("99.9"), Ok(0.999));
        assert!(parse_confidence("0.95").unwrap_err().right.contains("`95%`"));
        assert!(parse_confidence("0.99").unwrap_err().right.contains("`99%`"));
        assert!(parse_confidence("100%").is_err() && parse_confidence("50%").is_err());
    }
}
