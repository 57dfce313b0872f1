//! Numbers as people read them.

use crate::experiment::{
    hypothesis::{Kind, Metric, Scale},
    metric::{FileRate, Level},
};

/// With thousands separators: `10,240`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The power of 1000 that leaves one to three digits before the point, and its SI prefix.
fn prefix(value: f64) -> (f64, &'static str) {
    // 999.5 would be written as 1000.
    let fits = |(scale, _): &(f64, &str)| value.abs() / scale < 999.5;
    let prefixes = [(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")];
    prefixes.into_iter().find(fits).unwrap_or((1e12, "T"))
}

fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// With three digits and an SI prefix, which a unit follows: `1.21 k`.
pub fn short(value: f64) -> String {
    if value == 0.0 {
        return "0 ".into();
    }
    let (scale, prefix) = prefix(value);
    format!("{} {prefix}", three_digits(value / scale))
}

/// What a metric was before and during: `1.21 → 1.05 MB/s`, `1.00 → 1.42 %`, `1.8 → 2.4 ms`.
pub fn levels(metric: Metric, before: f64, during: f64) -> String {
    let kind = metric.kind();
    if kind.scale() == Scale::Points {
        return format!("{} → {} %", three_digits(before * 100.0), three_digits(during * 100.0));
    }
    let (scale, unit) = match kind {
        Kind::Quantile { .. } => time_unit(before.max(during)),
        _ => prefix(before.abs().max(during.abs())),
    };
    let [before, during] = [before, during].map(|value| three_digits(value / scale));
    format!("{before} → {during} {unit}{}", level_unit(metric)).trim_end().to_owned()
}

/// In which unit nanoseconds are read most easily.
fn time_unit(ns: f64) -> (f64, &'static str) {
    let fits = |(scale, _): &(f64, &str)| ns / scale < 999.5;
    [(1.0, "ns"), (1e3, "µs"), (1e6, "ms")].into_iter().find(fits).unwrap_or((1e9, "s"))
}

fn level_unit(metric: Metric) -> &'static str {
    match (metric, metric.kind()) {
        (Metric::RxBytes | Metric::TxBytes, _)
        | (Metric::Rate(FileRate::ReadBytes | FileRate::WrittenBytes), _) => "B/s",
        (Metric::Rate(FileRate::CpuUs), _) => "µs/s",
        (Metric::CpuPerPacket, _) => "µs",
        (Metric::Level(Level::Memory | Level::Anon | Level::File), _) => "B",
        (Metric::Growth, _) => "B/min",
        (_, Kind::Rate) => "/s",
        (_, Kind::Trend) => "/min",
        _ => "",
    }
}

/// The unit of a change: percent of a rate, percentage points of a share.
pub const fn unit(kind: Kind) -> &'static str {
    match kind.scale() {
        Scale::Relative => "%",
        Scale::Points => "pp",
        Scale::PerMinute => "/min",
        Scale::Number => "times",
    }
}

/// A change in its [`unit`].
pub const fn shown(kind: Kind, change: f64) -> f64 {
    match kind.scale() {
        Scale::Relative | Scale::Points => change * 100.0,
        Scale::PerMinute | Scale::Number => change,
    }
}

/// A change without its unit, with as many decimals as mean something: `7.3`, `0.014`, `31`.
pub fn bare(kind: Kind, change: f64) -> String {
    let shown = shown(kind, change);
    let decimals = match (kind.scale(), shown.abs()) {
        (Scale::Number, _) => 0,
        (_, size) if size >= 99.95 => 0,
        (Scale::Relative | Scale::PerMinute, _) => 1,
        (Scale::Points, size) if size >= 0.01 || size == 0.0 => 2,
        (Scale::Points, _) => 4,
    };
    let text = format!("{shown:.decimals$}");
    // Nothing is not negative.
    if text.trim_start_matches(['-', '0', '.']).is_empty() { text.replace('-', "") } else { text }
}

/// A change with its sign and without its unit: `-1.2`.
pub fn signed(kind: Kind, change: f64) -> String {
    let text = bare(kind, change);
    if text.starts_with('-') { text } else { format!("+{text}") }
}

/// A change with its sign and unit: `-1.2 %`, `+0.06 pp`.
pub fn change(kind: Kind, change: f64) -> String {
    format!("{} {}", signed(kind, change), unit(kind))
}

/// An amount with its unit: `7.3 %`.
pub fn amount(kind: Kind, amount: f64) -> String {
    format!("{} {}", bare(kind, amount), unit(kind))
}

/// A fraction as a percentage, three digits: `5.00 %`.
pub fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    if percent > 0.0 && percent < 0.01 {
        return format!("{percent:.2e} %");
    }
    format!("{} %", three_digits(percent))
}

/// A fraction as a percentage as people ask for it: `5 %`, `0.5 %`.
pub fn asked(fraction: f64) -> String {
    let text = format!("{:.6}", fraction * 100.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{} %", if text.is_empty() { "0" } else { text })
}

/// Seconds, whole unless short: `60 s`, `2.5 s`.
pub fn seconds(seconds: f64) -> String {
    if seconds >= 10.0 || (seconds - seconds.round()).abs() < 0.05 {
        format!("{seconds:.0} s")
    } else {
        format!("{seconds:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_levels() {
        assert_eq!(
            [0, 999, 1_000, 10_240, 1_234_567].map(thousands),
            ["0", "999", "1,000", "10,240", "1,234,567"]
        );
        assert_eq!(levels(Metric::RxBytes, 1_213_000.0, 1_049_000.0), "1.21 → 1.05 MB/s");
        assert_eq!(levels(Metric::RxBytes, 981_000.0, 1_049_000.0), "0.98 → 1.05 MB/s");
        assert_eq!(levels(Metric::TxPackets, 999.7, 12.34), "1.00 → 0.01 k/s");
        assert_eq!(levels(Metric::SyscallErrorRatio, 0.01, 0.0142), "1.00 → 1.42 %");
    }

    #[test]
    fn changes() {
        assert_eq!(change(Kind::Rate, -0.0123), "-1.2 %");
        assert_eq!(change(Kind::Rate, -0.0001), "+0.0 %");
        assert_eq!(change(Kind::RareRatio, 0.0006), "+0.06 pp");
        assert_eq!(change(Kind::RareRatio, -0.00001), "-0.0010 pp");
        assert_eq!(change(Kind::Rate, 31.4), "+3140 %");
        assert_eq!(amount(Kind::Rate, 0.073), "7.3 %");
    }

    #[test]
    fn fractions_and_times() {
        assert_eq!([0.05, 0.1234, 1.0, 0.000_002].map(percent), ["5.00 %", "12.3 %", "100 %", "2.00e-4 %"]);
        assert_eq!([0.05, 0.005, 1.0, 0.0].map(asked), ["5 %", "0.5 %", "100 %", "0 %"]);
        assert_eq!([60.04, 2.5, 3.0].map(seconds), ["60 s", "2.5 s", "3 s"]);
    }
}
