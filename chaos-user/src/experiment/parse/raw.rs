//! The shape of a spec file: texts and where they stand, nothing understood yet.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::raw_fault::RawFault;

/// A scalar, as spelled in the file.
pub(super) type Text = Spanned<String>;
/// A scalar or a list of scalars.
pub(super) type Many = Spanned<OneOrMore>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpec {
    #[serde(default, deserialize_with = "given")]
    pub version: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub name: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub hypothesis: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub groups: Option<Spanned<RawGroups>>,
    #[serde(default, deserialize_with = "given")]
    pub steady_state: Option<Spanned<RawSteadyState>>,
    #[serde(default, deserialize_with = "given")]
    pub faults: Option<Spanned<Vec<Spanned<RawFault>>>>,
    #[serde(default, deserialize_with = "given")]
    pub run: Option<Spanned<RawRun>>,
    #[serde(default, deserialize_with = "given")]
    pub abort_if: Option<Spanned<Vec<Spanned<RawAbortIf>>>>,
    #[serde(default, deserialize_with = "given")]
    pub max_duration: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGroups {
    #[serde(default, deserialize_with = "given")]
    pub control: Option<Many>,
    #[serde(default, deserialize_with = "given")]
    pub experiment: Option<Many>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSteadyState {
    #[serde(default, rename = "use", deserialize_with = "given")]
    pub preset: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub observe: Option<Many>,
    #[serde(default, deserialize_with = "given")]
    pub gates: Option<Spanned<Vec<Spanned<RawGate>>>>,
    #[serde(default, deserialize_with = "given")]
    pub checks: Option<Spanned<Vec<Spanned<RawCheck>>>>,
    #[serde(default, deserialize_with = "given")]
    pub invariants: Option<Spanned<Vec<Spanned<RawInvariant>>>>,
    #[serde(default, deserialize_with = "given")]
    pub probes: Option<Spanned<Vec<Spanned<RawProbe>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCheck {
    #[serde(default, deserialize_with = "given")]
    pub metric: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub above: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub below: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInvariant {
    #[serde(default, deserialize_with = "given")]
    pub id: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub run: Option<Many>,
    #[serde(default, deserialize_with = "given")]
    pub timeout: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAbortIf {
    #[serde(default, deserialize_with = "given")]
    pub metric: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub above: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub below: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub r#for: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub harm: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub control: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub processes: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProbe {
    #[serde(default, deserialize_with = "given")]
    pub id: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub http: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub tcp: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub exec: Option<Many>,
    #[serde(default, deserialize_with = "given")]
    pub prometheus: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub rate: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub every: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub timeout: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub method: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub status: Option<Many>,
    #[serde(default, deserialize_with = "given")]
    pub body_has: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub headers: Option<Spanned<BTreeMap<String, Text>>>,
    #[serde(default, deserialize_with = "given")]
    pub fresh: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub series: Option<Many>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGate {
    #[serde(default, deserialize_with = "given")]
    pub metric: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub increase: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub decrease: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub within: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub max: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRun {
    #[serde(default, deserialize_with = "given")]
    pub design: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub baseline: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub pulses: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub block: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub seed: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub inject: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub recover: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub settle: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub confidence: Option<Text>,
}

/// What is there. A plain `Option` would take `max:` with nothing behind it for "no limit".
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A scalar or a list of them. What is neither is kept too, to be refused where its path is known.
pub(super) enum OneOrMore {
    One(String),
    More(Vec<Text>),
    Nothing,
    Mapping,
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMoreVisitor)
    }
}

struct OneOrMoreVisitor;

impl<'de> Visitor<'de> for OneOrMoreVisitor {
    type Value = OneOrMore;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
        Ok(OneOrMore::One(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<OneOrMore, E> {
        Ok(OneOrMore::One(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<OneOrMore, E> {
        Ok(OneOrMore::One(number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<OneOrMore, E> {
        Ok(OneOrMore::One(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<OneOrMore, E> {
        Ok(OneOrMore::One(number.to_string()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<OneOrMore, E> {
        Ok(OneOrMore::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(OneOrMore::More(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OneOrMore, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(OneOrMore::Mapping)
    }
}
