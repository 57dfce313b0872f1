//! The names that types from elsewhere have in reports. Stable: scripts read them.

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

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Rate => "rate",
            Self::Ratio => "ratio",
            Self::RareRatio => "rare_ratio",
            Self::TimeShare => "time_share",
            Self::Quantile { .. } => "quantile",
            Self::Tail { .. } => "tail",
            Self::Gauge => "gauge",
            Self::Trend => "trend",
            Self::Event => "event",
        })
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Performance => "performance",
            Self::Memory => "memory",
            Self::Activity => "activity",
            Self::Persistence => "persistence",
            Self::Errors => "errors",
        })
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
