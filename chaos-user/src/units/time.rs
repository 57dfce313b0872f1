//! Durations: `30s`, `500ms`, `2m`, `1h30m`.

use std::time::Duration;

use super::{BadValue, quoted};

/// The longest duration that anything here may take.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses a duration of at most [`MAX_DURATION`]. A number without a unit is refused: tools disagree on
/// whether it means seconds or milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, BadValue> {
    let trimmed = text.trim();
    if trimmed.parse::<f64>().is_ok() {
        return Err(BadValue::new(
            format!("{} has no unit", quoted(text)),
            format!(
                "write {} for seconds, {} for milliseconds",
                quoted(&format!("{trimmed}s")),
                quoted(&format!("{trimmed}ms"))
            ),
        ));
    }
    let duration = humantime::parse_duration(trimmed).map_err(|_| {
        BadValue::new(
            format!("{} is not a duration", quoted(text)),
            "write one such as `30s`, `500ms`, `2m` or `1h30m`",
        )
    })?;
    if duration > MAX_DURATION {
        let months = if trimmed.contains('M') { " (`M` means months, `m` minutes)" } else { "" };
        return Err(BadValue::new(
            format!("{} is longer than a day{months}", quoted(text)),
            "write at most `24h`",
        ));
    }
    Ok(duration)
}

/// A duration as [`parse_duration`] reads it.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up_and_read_back() {
        for (text, ms) in [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1h30m", 5_400_000), ("0s", 0)]
        {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(ms));
            assert_eq!(show_duration(duration), text);
        }
        assert_eq!(parse_duration("1m 30s"), parse_duration("90s"));
        assert_eq!(parse_duration("24h"), Ok(MAX_DURATION));
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, part) in [
            ("30", "`30s` for seconds"),
            ("0", "`0s`"),
            ("2.5", "`2.5s`"),
            ("", "not a duration"),
            ("soon", "not a duration"),
            ("-5s", "not a duration"),
            ("25h", "at most `24h`"),
            ("2M", "`m` minutes"),
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
