//! What there is to choose from: every fault and its parameters, once, for `kchaos faults`, for suggestions
//! and for the tests that hold the documentation to it.

use super::{
    Fault, corrupt, course, delay, dns, duplicate, filter, limits, loss, partition, pattern, rate, refuse,
    reorder, reset,
    syscall::{call, entries, slow},
    text::{FieldError, Given},
};
use crate::units;

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct FaultEntry {
    /// As users write it.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What can be said about it, by topic.
    pub parameters: &'static [&'static [Parameter]],
    /// Makes one of what was given, checked.
    pub build: fn(&Given) -> Result<Fault, FieldError>,
    /// On the command line.
    pub command: &'static str,
    /// In a spec: an entry of `faults`.
    pub yaml: &'static str,
}

/// One parameter of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// As specs have it; the option of the command line has `-` for `_`.
    pub name: &'static str,
    /// What kind of value it takes.
    pub shape: Shape,
    /// How its value is written.
    pub syntax: &'static str,
    /// What holds when it is left out.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// What kind of value a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One.
    Value,
    /// One or a list of them; on the command line separated by commas.
    List,
    /// A mapping with these fields; on the command line their values in this order, separated by commas.
    Fields(&'static [&'static str]),
}

/// A parameter that takes one value.
pub const fn value(
    name: &'static str,
    syntax: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Parameter {
    Parameter { name, shape: Shape::Value, syntax, default, meaning }
}

/// A parameter that takes one value or several.
pub const fn list(
    name: &'static str,
    syntax: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Parameter {
    Parameter { name, shape: Shape::List, syntax, default, meaning }
}

/// A parameter with fields of its own.
pub const fn fields(
    name: &'static str,
    fields: &'static [&'static str],
    syntax: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Parameter {
    Parameter { name, shape: Shape::Fields(fields), syntax, default, meaning }
}

/// One line of the table that `kchaos faults` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The fault.
    pub fault: &'static str,
    /// One of its parameters.
    pub parameter: Parameter,
}

/// All faults.
pub static CATALOGUE: &[FaultEntry] = &[
    loss::ENTRY,
    delay::ENTRY,
    rate::ENTRY,
    reorder::ENTRY,
    corrupt::ENTRY,
    duplicate::ENTRY,
    partition::ENTRY,
    dns::ENTRY,
    refuse::ENTRY,
    reset::ENTRY,
    entries::ERRNO,
    entries::RETVAL,
    entries::SIGNAL,
    entries::ALLOC,
    entries::DISK,
    entries::FDS,
    slow::ENTRY,
];

/// The parameters that faults have in common, by topic. They are documented once, in docs/faults/common.md.
pub static COMMON: &[&[Parameter]] = &[
    pattern::PARAMETERS,
    &[filter::DIRECTION, filter::CONNECTIONS],
    filter::PARAMETERS,
    limits::PARAMETERS,
    &[course::PULSE_PARAMETER],
    &[call::SYSCALLS],
    call::FILTER,
];

/// The fault of that name.
pub fn find(name: &str) -> Option<&'static FaultEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// The names of all faults.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    CATALOGUE.iter().map(|entry| entry.name)
}

/// Advice for a name that is no fault's.
pub fn did_you_mean(name: &str) -> String {
    units::did_you_mean(name, names())
}

/// All parameters of all faults, in order.
pub fn rows() -> Vec<Row> {
    CATALOGUE
        .iter()
        .flat_map(|entry| {
            entry.parameters().map(|parameter| Row { fault: entry.name, parameter: *parameter })
        })
        .collect()
}

impl Parameter {
    /// Whether it is one that faults have in common, and not just one of the same name.
    pub fn is_common(&self) -> bool {
        COMMON.iter().copied().flatten().any(|common| common == self)
    }
}

impl FaultEntry {
    /// What can be said about it.
    pub fn parameters(&self) -> impl Iterator<Item = &'static Parameter> + Clone + use<> {
        self.parameters.iter().copied().flatten()
    }

    /// The names of its parameters.
    pub fn parameter_names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.parameters().map(|parameter| parameter.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = rows().iter().map(|row| (row.fault, row.parameter.name)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn found_by_name_or_suggested() {
        assert!(find("loss").is_some() && find("los").is_none());
        assert_eq!(did_you_mean("los"), "did you mean `loss`?");
        assert!(did_you_mean("meteor").contains("`loss`"));
    }
}
