//! The report for programs. Numbers that are not finite are `null`.

use super::Report;

/// Pretty-printed, with a newline at the end.
pub fn render(report: &Report) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}
