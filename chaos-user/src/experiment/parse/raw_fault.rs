//! The shape of an entry of `faults`: one fault and its parameters, as the catalogue has them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::raw::{Many, Text};
use crate::fault::catalogue::{self, FaultEntry, Parameter, Shape};

/// An entry of `faults`, or what is wrong with its shape.
pub(super) enum RawFault {
    /// A fault of the catalogue.
    Known(&'static FaultEntry, Vec<RawParameter>),
    /// No fault of the catalogue.
    Unknown(Text),
    /// A parameter that the fault does not have.
    UnknownParameter(&'static FaultEntry, Text),
    /// Something stands beside the fault.
    GoesOn(Text),
    /// Nothing at all.
    Empty,
}

/// One parameter as given.
pub(super) struct RawParameter {
    pub parameter: &'static Parameter,
    pub value: RawValue,
}

/// Its value, in the parameter's shape.
pub(super) enum RawValue {
    One(Text),
    Many(Many),
    Fields(Spanned<RawFields>),
}

/// Names and values, whatever they are.
pub(super) struct RawFields(pub Vec<(Text, Text)>);

impl<'de> Deserialize<'de> for RawFault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FaultVisitor)
    }
}

struct FaultVisitor;

impl<'de> Visitor<'de> for FaultVisitor {
    type Value = RawFault;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fault with its parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFault, A::Error> {
        let Some(name) = map.next_key::<Text>()? else { return Ok(RawFault::Empty) };
        let Some(entry) = catalogue::find(&name.value) else {
            map.next_value::<IgnoredAny>()?;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(RawFault::Unknown(name));
        };
        let fault = map.next_value_seed(Parameters(entry))?;
        let mut beside = None;
        while let Some(key) = map.next_key::<Text>()? {
            map.next_value::<IgnoredAny>()?;
            beside.get_or_insert(key);
        }
        Ok(beside.map_or(fault, RawFault::GoesOn))
    }
}

/// The parameters of one fault.
struct Parameters(&'static FaultEntry);

impl<'de> DeserializeSeed<'de> for Parameters {
    type Value = RawFault;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawFault, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Parameters {
    type Value = RawFault;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the parameters of a fault")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFault, A::Error> {
        let (mut parameters, mut unknown) = (Vec::new(), None);
        while let Some(name) = map.next_key::<Text>()? {
            match self.0.parameters().find(|parameter| parameter.name == name.value) {
                Some(parameter) => parameters.push(RawParameter {
                    parameter,
                    value: match parameter.shape {
                        Shape::Value => RawValue::One(map.next_value()?),
                        Shape::List => RawValue::Many(map.next_value()?),
                        Shape::Fields(_) => RawValue::Fields(map.next_value()?),
                    },
                }),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    unknown.get_or_insert(name);
                }
            }
        }
        Ok(match unknown {
            Some(name) => RawFault::UnknownParameter(self.0, name),
            None => RawFault::Known(self.0, parameters),
        })
    }
}

impl<'de> Deserialize<'de> for RawFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = RawFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields with their values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(RawFields(fields))
    }
}
