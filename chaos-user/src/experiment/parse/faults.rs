//! The `faults` of a spec: into the texts that the command line gives too, and through the same builder.

use serde_saphyr::{Location, Spanned};

use super::{
    error::{Place, SpecError},
    raw::{Many, Text},
    raw_fault::{RawFault, RawFields, RawParameter, RawValue},
    scalars,
};
use crate::{
    fault::{
        Fault,
        catalogue::{self, FaultEntry, Shape},
        text::{FieldError, Given},
    },
    units::{BadValue, did_you_mean, quoted},
};

/// Most faults of one experiment.
const MAX_FAULTS: usize = 8;

/// Everything that goes wrong.
pub(super) fn faults(raw: &Spanned<Vec<Spanned<RawFault>>>) -> Result<Vec<Fault>, SpecError> {
    let count = raw.value.len();
    if !(1..=MAX_FAULTS).contains(&count) {
        let why = BadValue::new(format!("there are {count} faults"), format!("write 1 to {MAX_FAULTS}"));
        return Place::new("faults", raw.referenced).refuse(why);
    }
    raw.value.iter().enumerate().map(|(i, fault)| one(i, fault)).collect()
}

fn one(i: usize, raw: &Spanned<RawFault>) -> Result<Fault, SpecError> {
    let path = format!("faults[{i}]");
    match &raw.value {
        RawFault::Known(entry, parameters) => known(&path, entry, parameters, raw.referenced),
        RawFault::Unknown(name) => {
            let what = format!("unknown fault {}", quoted(&name.value));
            Place::new(path, name.referenced)
                .refuse(BadValue::new(what, catalogue::did_you_mean(&name.value)))
        }
        RawFault::UnknownParameter(entry, name) => {
            let right = did_you_mean(&name.value, entry.parameter_names());
            unknown_field(format!("{path}.{}", entry.name), name, right)
        }
        RawFault::GoesOn(name) => Place::new(path, name.referenced).refuse(BadValue::new(
            "this entry of `faults` goes on after its fault",
            "begin each fault with its own `- `, and indent its parameters below its name",
        )),
        RawFault::Empty => Place::new(path, raw.referenced)
            .refuse(BadValue::new("there is no fault here", "write one such as `loss: { percent: 5% }`")),
    }
}

fn unknown_field<T>(path: String, name: &Text, right: String) -> Result<T, SpecError> {
    let what = format!("unknown field {}", quoted(&name.value));
    Place::new(path, name.referenced).refuse(BadValue::new(what, right))
}

fn known(
    path: &str,
    entry: &'static FaultEntry,
    parameters: &[RawParameter],
    at: Location,
) -> Result<Fault, SpecError> {
    let mut reader =
        Reader { path: format!("{path}.{}", entry.name), at, places: Vec::new(), given: Given::new(entry) };
    for RawParameter { parameter, value } in parameters {
        match (value, parameter.shape) {
            (RawValue::One(text), _) => reader.one(parameter.name, text),
            (RawValue::Many(many), _) => reader.many(parameter.name, many)?,
            (RawValue::Fields(fields), Shape::Fields(names)) => {
                reader.fields(parameter.name, names, fields)?;
            }
            (RawValue::Fields(_), _) => unreachable!("the shape chose the value"),
        }
    }
    (entry.build)(&reader.given).map_err(|error| reader.locate(error))
}

/// Takes the texts of one fault, and remembers where each stood, for the errors of the builder.
struct Reader {
    path: String,
    at: Location,
    places: Vec<(String, Location)>,
    given: Given,
}

impl Reader {
    fn one(&mut self, name: &'static str, raw: &Text) {
        self.places.push((name.to_owned(), raw.referenced));
        self.given.give(name, vec![raw.value.clone()]);
    }

    fn many(&mut self, name: &'static str, raw: &Many) -> Result<(), SpecError> {
        self.places.push((name.to_owned(), raw.referenced));
        let scalars = scalars(&format!("{}.{name}", self.path), raw)?;
        for (i, (_, at, _)) in scalars.iter().enumerate() {
            self.places.push((format!("{name}[{i}]"), *at));
        }
        self.given.give(name, scalars.into_iter().map(|(_, _, text)| text).collect());
        Ok(())
    }

    /// The values of a model, separated by commas. One that holds a comma of its own would be taken for two.
    fn fields(
        &mut self,
        model: &'static str,
        names: &[&'static str],
        raw: &Spanned<RawFields>,
    ) -> Result<(), SpecError> {
        self.places.push((model.to_owned(), raw.referenced));
        let mut texts = vec![""; names.len()];
        for (name, value) in &raw.value.0 {
            let path = format!("{}.{model}", self.path);
            let Some(index) = names.iter().position(|known| *known == name.value) else {
                return unknown_field(path, name, did_you_mean(&name.value, names.iter().copied()));
            };
            if value.value.contains(',') || value.value.trim().is_empty() {
                let what = format!("{} is not a single value", quoted(&value.value));
                let right = "write one value; decimals are written with a point";
                return Place::new(format!("{path}.{}", name.value), value.referenced)
                    .refuse(BadValue::new(what, right));
            }
            self.places.push((format!("{model}.{}", name.value), value.referenced));
            texts[index] = value.value.as_str();
        }
        self.given.give(model, vec![texts.join(",")]);
        Ok(())
    }

    /// Where the parameter stands that the builder refused; where the fault does, if it was not given.
    fn locate(&self, error: FieldError) -> SpecError {
        let find = |name: &str| self.places.iter().find(|(place, _)| place == name).map(|(_, at)| *at);
        let at = find(&error.field).or_else(|| find(error.parameter())).unwrap_or(self.at);
        SpecError { place: Place::new(format!("{}.{}", self.path, error.field), at), problem: error.problem }
    }
}
