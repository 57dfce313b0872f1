//! Levels: where a metric stands, in its own terms. `5%` of a share, `20ms` of a duration, `100/s` of a rate, `512MiB`.

use std::time::Duration;

use super::{
    BadValue, parse_duration,
    percent::{decimal, shifted},
    quoted, show_duration,
};
use crate::experiment::hypothesis::Kind;

/// Units of bytes, the largest first; a number without one counts what the metric counts.
const BYTE_UNITS: [(&str, f64); 9] = [
    ("TiB", 1_099_511_627_776.0),
    ("GiB", 1_073_741_824.0),
    ("MiB", 1_048_576.0),
    ("KiB", 1_024.0),
    ("TB", 1e12),
    ("GB", 1e9),
    ("MB", 1e6),
    ("kB", 1e3),
    ("B", 1.0),
];

/// Parses a level of a metric of this kind: a fraction for a share, nanoseconds for a duration, a number per second for a
/// rate or per minute for a trend, else a plain number, where bytes may be given in a larger unit.
pub fn parse_level(text: &str, kind: Kind) -> Result<f64, BadValue> {
    let trimmed = text.trim();
    let read = match kind {
        Kind::RareRatio | Kind::Tail { .. } | Kind::TimeShare => share(trimmed, text)?,
        Kind::Quantile { .. } => parse_duration(trimmed)?.as_nanos() as f64,
        Kind::Rate => per(trimmed, "/s", text, kind)?,
        Kind::Trend => per(trimmed, "/min", text, kind)?,
        Kind::Event => whole(trimmed, text)?,
        Kind::Ratio | Kind::Gauge => amount(trimmed).ok_or_else(|| not_one(text, kind))?,
    };
    match read {
        below if below < 0.0 && kind != Kind::Trend => {
            Err(BadValue::new(format!("{} is below 0", quoted(text)), write_one(kind)))
        }
        level => Ok(level),
    }
}

/// A level as [`parse_level`] reads it.
pub fn show_level(level: f64, kind: Kind) -> String {
    match kind {
        Kind::RareRatio | Kind::Tail { .. } | Kind::TimeShare => format!("{}%", shifted(level, 2)),
        Kind::Quantile { .. } => show_duration(Duration::from_nanos(level as u64)),
        Kind::Rate => format!("{level}/s"),
        Kind::Trend => format!("{level}/min"),
        Kind::Ratio | Kind::Gauge | Kind::Event => level.to_string(),
    }
}

fn share(trimmed: &str, text: &str) -> Result<f64, BadValue> {
    const RIGHT: &str = "write a share of all, such as `5%`";
    if let Some(points) = trimmed.strip_suffix("pp") {
        let what = format!("{} is in percentage points, which are for differences", quoted(text));
        return Err(BadValue::new(what, format!("write `{}%`, the share itself", points.trim_end())));
    }
    let Some(percent) = trimmed.strip_suffix('%') else {
        return Err(match decimal(trimmed) {
            Some(_) => BadValue::new(format!("{} has no unit", quoted(text)), RIGHT),
            None => BadValue::new(format!("{} is not a share", quoted(text)), RIGHT),
        });
    };
    let percent =
        decimal(percent).ok_or_else(|| BadValue::new(format!("{} is not a share", quoted(text)), RIGHT))?;
    match percent {
        0.0..=100.0 => Ok(shifted(percent, -2)),
        _ => Err(BadValue::new(format!("{} is not between 0 and 100 %", quoted(text)), RIGHT)),
    }
}

fn per(trimmed: &str, unit: &str, text: &str, kind: Kind) -> Result<f64, BadValue> {
    match trimmed.strip_suffix(unit) {
        Some(number) => amount(number.trim_end()).ok_or_else(|| not_one(text, kind)),
        None if amount(trimmed).is_some() => {
            Err(BadValue::new(format!("{} has no unit", quoted(text)), format!("write `{trimmed}{unit}`")))
        }
        None => Err(not_one(text, kind)),
    }
}

fn whole(trimmed: &str, text: &str) -> Result<f64, BadValue> {
    let number = trimmed.parse::<u32>().map(f64::from);
    number.map_err(|_| not_one(text, Kind::Event))
}

/// A number, or one with a unit of bytes.
fn amount(text: &str) -> Option<f64> {
    let with_unit = |(unit, ones): &(&str, f64)| Some(decimal(text.strip_suffix(unit)?)? * ones);
    decimal(text).or_else(|| BYTE_UNITS.iter().find_map(with_unit))
}

fn not_one(text: &str, kind: Kind) -> BadValue {
    let what = match kind {
        Kind::Rate => "a rate",
        Kind::Trend => "a slope",
        Kind::Event => "a whole number",
        _ => "a level",
    };
    BadValue::new(format!("{} is not {what}", quoted(text)), write_one(kind))
}

fn write_one(kind: Kind) -> String {
    format!("write one such as `{}`", example(kind))
}

/// How a level of this kind is written, for advice.
pub const fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::RareRatio | Kind::Tail { .. } | Kind::TimeShare => "5%",
        Kind::Quantile { .. } => "20ms",
        Kind::Rate => "100/s",
        Kind::Trend => "5MiB/min",
        Kind::Gauge => "512MiB",
        Kind::Ratio => "1.5",
        Kind::Event => "0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P99: Kind = Kind::Quantile { per_mille: 990 };
    const TAIL: Kind = Kind::Tail { above_ns: 1 };

    #[test]
    fn each_kind_in_its_own_terms() {
        for (text, kind, level) in [
            ("5%", Kind::RareRatio, 0.05),
            ("0.1 %", TAIL, 0.001),
            ("0%", Kind::TimeShare, 0.0),
            ("20ms", P99, 2e7),
            ("100/s", Kind::Rate, 100.0),
            ("0.5 /s", Kind::Rate, 0.5),
            ("1.5MB/s", Kind::Rate, 1.5e6),
            ("512MiB", Kind::Gauge, 536_870_912.0),
            ("2GiB", Kind::Gauge, 2_147_483_648.0),
            ("300", Kind::Gauge, 300.0),
            ("-1MiB/min", Kind::Trend, -1_048_576.0),
            ("1.5", Kind::Ratio, 1.5),
            ("3", Kind::Event, 3.0),
        ] {
            assert_eq!(parse_level(text, kind), Ok(level), "{text}");
        }
    }

    #[test]
    fn levels_read_back() {
        for (text, kind) in [
            ("5%", Kind::RareRatio),
            ("0.1%", TAIL),
            ("20ms", P99),
            ("100/s", Kind::Rate),
            ("5/min", Kind::Trend),
            ("300", Kind::Gauge),
            ("0", Kind::Event),
        ] {
            assert_eq!(show_level(parse_level(text, kind).unwrap(), kind), text);
        }
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, kind, part) in [
            ("5", Kind::RareRatio, "has no unit; write a share of all, such as `5%`"),
            ("5pp", Kind::RareRatio, "write `5%`, the share itself"),
            ("101%", TAIL, "not between 0 and 100 %"),
            ("many", Kind::TimeShare, "not a share"),
            ("20", P99, "`20ms` for milliseconds"),
            ("100", Kind::Rate, "has no unit; write `100/s`"),
            ("100/m", Kind::Rate, "not a rate; write one such as `100/s`"),
            ("-1/s", Kind::Rate, "is below 0"),
            ("5%", Kind::Gauge, "not a level; write one such as `512MiB`"),
            ("1GB", Kind::Trend, "write `1GB/min`"),
            ("1.5", Kind::Event, "not a whole number"),
            ("nan", Kind::Ratio, "not a level"),
        ] {
            let error = parse_level(text, kind).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for kind in [Kind::RareRatio, TAIL, Kind::TimeShare, P99, Kind::Rate, Kind::Trend, Kind::Gauge] {
            assert!(parse_level(example(kind), kind).is_ok(), "{kind:?}");
        }
    }
}
