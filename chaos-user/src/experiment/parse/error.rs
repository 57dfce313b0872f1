//! Where a spec is wrong, in what, and what would be right.

use std::fmt;

use serde_saphyr::{Error as YamlError, Location, MessageFormatter, UserMessageFormatter};

use crate::{
    fault::catalogue,
    units::{BadValue, did_you_mean, quoted},
};

/// A spec that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SpecError {
    /// Where.
    pub place: Place,
    /// What is wrong there, and what would be right.
    pub problem: BadValue,
}

/// A place in a spec: a path, a position, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Such as `faults[0].loss.percent`; empty where only the position is known.
    pub path: String,
    /// From 1; 0 where only the path is known.
    pub line: u64,
    /// From 1; 0 where only the path is known.
    pub column: u64,
}

impl Place {
    /// A path, and the position of what stands there.
    pub(super) fn new(path: impl Into<String>, at: Location) -> Self {
        Self { path: path.into(), line: at.line(), column: at.column() }
    }

    /// Refuses what stands there.
    pub(super) fn refuse<T>(self, problem: BadValue) -> Result<T, SpecError> {
        Err(SpecError { place: self, problem })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), self.line) {
            ("", 0) => f.write_str("spec"),
            (path, 0) => f.write_str(path),
            ("", line) => write!(f, "line {line}, column {}", self.column),
            (path, line) => write!(f, "{path} (line {line}, column {})", self.column),
        }
    }
}

impl From<YamlError> for SpecError {
    fn from(error: YamlError) -> Self {
        let at = error.location().unwrap_or(Location::UNKNOWN);
        Self { place: Place::new("", at), problem: problem(&error) }
    }
}

/// In the words of a spec's author, who knows neither serde nor our types.
fn problem(error: &YamlError) -> BadValue {
    match error {
        YamlError::WithSnippet { error, .. } | YamlError::AliasError { error, .. } => problem(error),
        YamlError::SerdeUnknownField { field, expected, .. } => {
            let right = did_you_mean(field, expected.iter().copied());
            BadValue::new(format!("unknown field {}", quoted(field)), right)
        }
        YamlError::SerdeUnknownVariant { variant, .. } => {
            BadValue::new(format!("unknown fault {}", quoted(variant)), catalogue::did_you_mean(variant))
        }
        YamlError::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map_or("a field".to_owned(), quoted);
            BadValue::new(format!("{key} is given twice"), "keep one of them")
        }
        YamlError::Unexpected { expected, .. } => unexpected(expected),
        other => {
            let (what, right) = rest(other);
            BadValue::new(what, right)
        }
    }
}

fn unexpected(expected: &str) -> BadValue {
    match expected {
        "mapping start" => {
            BadValue::new("a mapping is expected here", "write fields as `name: value`, indented below it")
        }
        "sequence start" => {
            BadValue::new("a list is expected here", "begin each entry with `- `, even a single one")
        }
        "string scalar" => BadValue::new(
            "a single value is expected here, not a list or a mapping",
            "write it plainly; a space after a colon makes a mapping (`docker:web`, not `docker: web`)",
        ),
        other => BadValue::new(format!("{other} is expected here"), "mind the indentation"),
    }
}

fn rest(error: &YamlError) -> (String, &'static str) {
    let (what, right) = match error {
        YamlError::NullIntoString { .. } => {
            ("nothing is written here", "write a value, or leave the field out")
        }
        YamlError::Eof { .. } => {
            ("there is nothing in it", "begin with `version: 1`, or with a copy of examples/loss.yaml")
        }
        YamlError::MultipleDocuments { .. } => ("a second document begins here", "keep one spec to a file"),
        YamlError::ExpectedMappingEndAfterEnumVariantValue { .. } => (
            "this entry of `faults` goes on after its fault",
            "begin each fault with its own `- `, and indent its parameters below its name",
        ),
        YamlError::UnknownAnchor { .. } => {
            ("no anchor of that name stands before this", "define it with `&name` first, or quote the text")
        }
        YamlError::Budget { .. }
        | YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. } => (
            "this is larger, deeper, or repeats itself more than any experiment needs",
            "write it out, or split it",
        ),
        other => {
            let message = UserMessageFormatter.format_message(other).into_owned();
            return (
                format!("not YAML: {message}"),
                "mind indentation and brackets, and quote texts with `: `, `#`, `*` or `&`",
            );
        }
    };
    (what.to_owned(), right)
}
