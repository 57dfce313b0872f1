//! Margins and confidence: `10%` of a rate, `0.5pp` of a share, `95%`.

use super::{
    BadValue,
    percent::{decimal, number, shifted},
    quoted,
};
use crate::experiment::hypothesis::{Kind, Metric, Scale};

/// The widest margin for a rate: eleven times as much.
const MAX_RELATIVE: f64 = 10.0;
/// The range of confidence levels that the tables and the run lengths are made for.
const CONFIDENCE: std::ops::RangeInclusive<f64> = 80.0..=99.9;

/// Parses how far a metric may move: a fraction for a rate, a difference of shares for a share, else a plain number.
pub fn parse_margin(text: &str, metric: Metric) -> Result<f64, BadValue> {
    let trimmed = text.trim();
    let of_unit = |unit| Some((trimmed.strip_suffix(unit)?, unit));
    let (number, unit) = ["pp", "%", "/min"].into_iter().find_map(of_unit).unwrap_or((trimmed, ""));
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
    let (digits, most) = match metric.kind().scale() {
        Scale::Relative => (-2, MAX_RELATIVE),
        Scale::Points => (-2, 1.0),
        Scale::PerMinute | Scale::Number => (0, f64::INFINITY),
    };
    let out_of_range = |right| Err(BadValue::new(format!("{} is out of range", quoted(text)), right));
    let is_event = metric.kind() == Kind::Event;
    if is_event && value >= 0.0 {
        return match value.fract() == 0.0 {
            true => Ok(value),
            false => {
                Err(BadValue::new(format!("{} is no number of times", quoted(text)), "write one such as `0`"))
            }
        };
    }
    if value <= 0.0 {
        return out_of_range(format!("write a margin above 0, such as `{}`", example(metric)));
    }
    if shifted(value, digits) > most {
        return out_of_range(format!("write at most `{}{wanted}`", most * 100.0));
    }
    Ok(shifted(value, digits))
}

/// A margin as [`parse_margin`] reads it.
pub fn show_margin(margin: f64, metric: Metric) -> String {
    let digits = if matches!(metric.kind().scale(), Scale::Relative | Scale::Points) { 2 } else { 0 };
    format!("{}{}", shifted(margin, digits), unit_of(metric))
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
    match metric.kind().scale() {
        Scale::Relative => "%",
        Scale::Points => "pp",
        Scale::PerMinute => "/min",
        Scale::Number => "",
    }
}

fn example(metric: Metric) -> &'static str {
    match metric.kind().scale() {
        Scale::Relative => "10%",
        Scale::Points => "0.5pp",
        Scale::PerMinute => "1000000/min",
        Scale::Number => "0",
    }
}

fn wrong_unit(text: &str, unit: &str, value: f64, metric: Metric) -> BadValue {
    let name = metric.name();
    let what = match (metric.kind().scale(), unit) {
        (_, "") => format!("{} has no unit", quoted(text)),
        (Scale::Relative, "pp") => format!(
            "{} is in percentage points, but `{name}` is a rate, and its margin a share of it",
            quoted(text)
        ),
        (Scale::Points, "%") => {
            format!(
                "{} is relative, but `{name}` is itself a share near zero, where only differences make sense",
                quoted(text)
            )
        }
        _ => format!("{} has a unit that `{name}` has not", quoted(text)),
    };
    let right = match (metric.kind().scale(), unit) {
        (Scale::Relative, "") => format!("write `{value}%`, a share of the rate"),
        (Scale::Points, _) => "write percentage points, such as `0.5pp`".to_owned(),
        _ => format!("write one such as `{}`", example(metric)),
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
