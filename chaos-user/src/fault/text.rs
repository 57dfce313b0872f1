//! A fault as text: what a spec or a command line says, by parameter, before anybody has understood it.

use std::collections::BTreeMap;

use super::catalogue::FaultEntry;
use crate::units::BadValue;

/// Most entries of a list.
pub const MAX_LIST: usize = 64;

/// A parameter that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Which one, as specs have it: `percent`, `gemodel.r`, `peers[1]`.
    pub field: String,
    /// What is wrong with it.
    pub problem: BadValue,
}

impl FieldError {
    /// Refuses a parameter, or an entry or a field of it.
    pub fn new(field: impl Into<String>, problem: BadValue) -> Self {
        Self { field: field.into(), problem }
    }

    /// The parameter alone, as the catalogue has it: `gemodel` for `gemodel.r`, `peers` for `peers[1]`.
    pub fn parameter(&self) -> &str {
        self.field.split(['.', '[']).next().unwrap_or(&self.field)
    }

    /// The option of the command line: `--local-ports` for `local_ports[1]`.
    pub fn option(&self) -> String {
        format!("--{}", self.parameter().replace('_', "-"))
    }
}

/// What was given for a fault, by the names of its catalogue entry. The fields of a model are one text, separated by
/// commas; one left empty has its default.
#[derive(Clone, Debug)]
pub struct Given {
    /// Which fault.
    pub entry: &'static FaultEntry,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Given {
    /// Nothing yet.
    pub fn new(entry: &'static FaultEntry) -> Self {
        Self { entry, values: BTreeMap::new() }
    }

    /// The same with one more value, for code that knows what it wants.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.values.entry(name).or_default().push(value.to_owned());
        self
    }

    /// Takes in what was given for one parameter.
    pub fn give(&mut self, name: &'static str, values: Vec<String>) {
        self.values.insert(name, values);
    }

    /// Whether anything was.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A single value as it was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.first().map(String::as_str)
    }

    /// All values of a list as they were given, separated by commas.
    pub fn joined(&self, name: &str) -> Option<String> {
        Some(self.values.get(name)?.join(","))
    }

    /// A value that may be there, understood.
    pub fn optional<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, BadValue>,
    ) -> Result<Option<T>, FieldError> {
        self.text(name).map(|text| understood(name, text, parse)).transpose()
    }

    /// A value that must be there, understood; `example` is one.
    pub fn required<T>(
        &self,
        name: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, BadValue>,
    ) -> Result<T, FieldError> {
        let missing = || {
            FieldError::new(name, BadValue::new("this is missing", format!("write one such as `{example}`")))
        };
        understood(name, self.text(name).ok_or_else(missing)?, parse)
    }

    /// Every value of a list, understood; empty if nothing was given.
    pub fn each<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, BadValue>,
    ) -> Result<Vec<T>, FieldError> {
        let texts = self.values.get(name).map_or(&[][..], Vec::as_slice);
        if texts.len() > MAX_LIST {
            let why = BadValue::new(
                format!("{} entries are too many", texts.len()),
                format!("write at most {MAX_LIST}"),
            );
            return Err(FieldError::new(name, why));
        }
        let named = |i: usize| if texts.len() == 1 { name.to_owned() } else { format!("{name}[{i}]") };
        texts.iter().enumerate().map(|(i, text)| understood(&named(i), text, &parse)).collect()
    }
}

/// A value, understood.
pub fn understood<T>(
    field: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, BadValue>,
) -> Result<T, FieldError> {
    parse(text).map_err(|problem| FieldError::new(field, problem))
}
