//! Network faults: what happens to which packets and connections.

use std::fmt;

use chaos_common::{
    names::program,
    net::{Direction, hook},
};

use super::{
    Limits, Pattern,
    filter::{DirectionSpec, NetFilter},
    mechanism::Mechanism,
    plan::Parameters,
    text::{FieldError, Given},
};

/// Something happens to packets or connections.
#[derive(Clone, Debug, PartialEq)]
pub struct NetFault {
    /// What.
    pub effect: NetEffect,
    /// To which of a sequence.
    pub pattern: Pattern,
    /// Which way.
    pub direction: DirectionSpec,
    /// Which packets at all.
    pub filter: NetFilter,
    /// How often.
    pub limits: Limits,
}

/// What happens to a packet or a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum NetEffect {
    /// It disappears on the way; neither end is told.
    Loss,
}

impl NetEffect {
    /// As users write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Loss => "loss",
        }
    }

    /// The ways to do it to packets going one way, best first: a TCX link goes with the controller, a clsact
    /// filter survives it (the lease makes it inert, `sweep` removes it).
    pub const fn ladder(&self, direction: Direction) -> &'static [Mechanism] {
        match (self, direction) {
            (Self::Loss, Direction::Egress) => &[Mechanism::TcxEgress, Mechanism::ClsactEgress],
            (Self::Loss, Direction::Ingress) => &[Mechanism::CgroupSkbIngress],
        }
    }

    /// What its programs need to know besides the rule.
    pub const fn parameters(&self) -> Parameters {
        match self {
            Self::Loss => Parameters::None,
        }
    }

    /// The program that does it to packets going one way.
    pub const fn hook(&self, direction: Direction) -> Hook {
        match (self, direction) {
            (Self::Loss, Direction::Egress) => Hook::new(program::LOSS_EGRESS, hook::LOSS_EGRESS),
            (Self::Loss, Direction::Ingress) => Hook::new(program::LOSS_INGRESS, hook::LOSS_INGRESS),
        }
    }
}

/// A program that asks the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub program: &'static str,
    /// Its index of [`NetConfig::rules`](chaos_common::net::NetConfig::rules).
    pub index: usize,
}

impl Hook {
    const fn new(program: &'static str, index: usize) -> Self {
        Self { program, index }
    }
}

impl NetFault {
    /// An effect on packets of which the given pattern, direction, filter and limits tell. Without a pattern it is
    /// `default`.
    pub fn build(effect: NetEffect, given: &Given, default: Option<Pattern>) -> Result<Self, FieldError> {
        Ok(Self {
            effect,
            pattern: Pattern::build(given, default)?,
            direction: given.optional("direction", str::parse::<DirectionSpec>)?.unwrap_or_default(),
            filter: NetFilter::build(given)?,
            limits: Limits::build(given)?,
        })
    }
}

impl fmt::Display for NetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.effect.name(), self.pattern, self.direction)
    }
}
