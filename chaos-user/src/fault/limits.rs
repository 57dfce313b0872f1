//! What every fault can be limited by.

use std::str::FromStr;

use chaos_common::{Budget, When};

use super::{
    catalogue::{Parameter, value},
    course::Pulse,
    text::{FieldError, Given},
};
use crate::units::{CountRate, Occurrences, parse_count, parse_seed};

/// Its parameters, for the catalogue.
pub const PARAMETERS: &[Parameter] = &[
    value(
        "when",
        "FIRST[..LAST][+STEP]",
        "1+",
        "only these matching occurrences, counted from 1 for each target",
    ),
    value("max", "N", "no limit", "most hits, altogether"),
    value("rate", "N/s", "no limit", "most hits in a second, altogether"),
    value("seed", "N", "fresh randomness", "same occurrences in the same order, same hits"),
];

/// What every fault can be limited by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Which matching occurrences count, per target.
    pub when: When,
    /// Most injections altogether.
    pub max: Option<u64>,
    /// Most injections in a second.
    pub rate_per_s: Option<u64>,
    /// Replays the same decisions for the same sequence of occurrences.
    pub seed: Option<u64>,
    /// When it is on; always if `None`.
    pub pulse: Option<Pulse>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { when: When::ALWAYS, max: None, rate_per_s: None, seed: None, pulse: None }
    }
}

impl Limits {
    /// As given.
    pub fn build(given: &Given) -> Result<Self, FieldError> {
        Ok(Self {
            when: given.optional("when", Occurrences::from_str)?.map_or(When::ALWAYS, |when| when.0),
            max: given.optional("max", |text| parse_count(text, "leave it out for no limit"))?,
            rate_per_s: given.optional("rate", CountRate::from_str)?.map(|rate| rate.0),
            seed: given.optional("seed", parse_seed)?,
            pulse: Pulse::build(given)?,
        })
    }

    /// As the kernel half takes it.
    pub const fn budget(&self) -> Budget {
        let max = match self.max {
            Some(max) => max,
            None => u64::MAX,
        };
        let rate_per_s = match self.rate_per_s {
            Some(rate) => rate,
            None => 0,
        };
        Budget { max, ..Budget::UNLIMITED }.with_rate(rate_per_s)
    }

    /// Whether they change the share of occurrences that is hit. A pulse does not: what comes while it is dormant is
    /// no part of what the share is taken of.
    pub fn change_the_share(&self) -> bool {
        *self != Self { seed: self.seed, pulse: self.pulse, ..Self::default() }
    }
}
