//! The names that types from elsewhere have in reports. Stable: scripts read them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    experiment::hypothesis::{Family, Kind, Margin, Metric},
    steady::sample::Phase,
    target::Group,
};

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A kind as reports call it.
pub const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Rate => "rate",
        Kind::Ratio => "ratio",
        Kind::RareRatio => "rare_ratio",
        Kind::TimeShare => "time_share",
        Kind::Quantile { .. } => "quantile",
        Kind::Tail { .. } => "tail",
        Kind::Gauge => "gauge",
        Kind::Trend => "trend",
        Kind::Event => "event",
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind(*self))
    }
}

/// A family as reports call it.
pub const fn family(family: Family) -> &'static str {
    match family {
        Family::Performance => "performance",
        Family::Memory => "memory",
        Family::Activity => "activity",
        Family::Persistence => "persistence",
        Family::Errors => "errors",
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(family(*self))
    }
}

/// A phase as reports call it.
pub const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Baseline => "baseline",
        Phase::Inject => "inject",
        Phase::Recover => "recover",
    }
}

/// A group as reports call it.
pub const fn group(group: Group) -> &'static str {
    match group {
        Group::Control => "control",
        Group::Experiment => "experiment",
    }
}

impl Serialize for Phase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(phase(*self))
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(group(*self))
    }
}

impl Serialize for Margin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut margin = serializer.serialize_struct("Margin", 2)?;
        margin.serialize_field("increase", &self.increase)?;
        margin.serialize_field("decrease", &self.decrease)?;
        margin.end()
    }
}

/// The schema of a type that is written as one of these words, or as any word if there are none.
macro_rules! written_as {
    ($($type:ident: $meaning:literal $($words:expr)?;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $meaning $(, "enum": $words)? })
            }
        }
    )*};
}

written_as! {
    Metric: "What was measured, as specs name it.";
    Kind: "How a metric is made of what is measured, and so how it is compared." KINDS.map(kind);
    Family: "What a metric belongs to." [Family::Activity, Family::Errors].map(family);
    Phase: "A part of the run." [Phase::Baseline, Phase::Inject, Phase::Recover].map(phase);
    Group: "One of both sets of targets." [Group::Control, Group::Experiment].map(group);
}

const KINDS: [Kind; 9] = [
    Kind::Rate,
    Kind::Ratio,
    Kind::RareRatio,
    Kind::TimeShare,
    Kind::Quantile { per_mille: 0 },
    Kind::Tail { above_ns: 0 },
    Kind::Gauge,
    Kind::Trend,
    Kind::Event,
];

impl JsonSchema for Margin {
    fn schema_name() -> Cow<'static, str> {
        "Margin".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let number = generator.subschema_for::<Option<f64>>();
        json_schema!({
            "type": "object",
            "description": "How far a metric may move: a fraction of a rate (0.1 is 10 %), a difference of a share \
                            (0.005 is 0.5 pp). Where it is null, that side never hurts.",
            "properties": { "increase": number, "decrease": number },
            "required": ["increase", "decrease"],
        })
    }
}
