//! Network faults: what happens to which packets and connections.

use std::{fmt, time::Duration};

use chaos_common::{
    Corruption, Duplication,
    names::program,
    net::{Direction, hook, reject},
};

use super::{
    Limits, Pattern,
    delay::Delay,
    dns::Dns,
    filter::{DirectionSpec, NetFilter},
    loss::{Loss, Unit, Visibility},
    mechanism::Mechanism,
    partition::Reject,
    plan::Parameters,
    rate::Rate,
    reorder::Reorder,
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
    /// It disappears on the way; neither end is told, unless asked for.
    Loss(Loss),
    /// It arrives later.
    Delay(Delay),
    /// It waits for its turn on a slower wire.
    Rate(Rate),
    /// It overtakes others, which are held back.
    Reorder(Reorder),
    /// It does not get through.
    Partition {
        /// How what the target sends is answered; not at all if `None`.
        reject: Option<Reject>,
    },
    /// It asks a name server, and gets a made-up answer or none.
    Dns(Dns),
    /// It arrives with another payload.
    Corrupt(Corruption),
    /// It arrives more than once.
    Duplicate(Duplication),
}

impl NetEffect {
    /// As users write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Loss(_) => "loss",
            Self::Delay(_) => "delay",
            Self::Rate(_) => "rate",
            Self::Reorder(_) => "reorder",
            Self::Partition { .. } => "partition",
            Self::Dns(_) => "dns",
            Self::Corrupt(_) => "corrupt",
            Self::Duplicate(_) => "duplicate",
        }
    }

    /// The ways to do it to packets going one way, best first: a TCX link goes with the controller, a clsact
    /// filter survives it (the lease makes it inert, `sweep` removes it).
    pub const fn ladder(&self, direction: Direction) -> &'static [Mechanism] {
        match (self, direction) {
            (_, Direction::Egress) => &[Mechanism::TcxEgress, Mechanism::ClsactEgress],
            // Queries are what the target sends.
            (Self::Dns(_), Direction::Ingress) => &[Mechanism::TcxEgress, Mechanism::ClsactEgress],
            (Self::Loss(_) | Self::Partition { .. }, Direction::Ingress) => &[Mechanism::CgroupSkbIngress],
            (
                Self::Corrupt(_) | Self::Duplicate(_) | Self::Delay(_) | Self::Rate(_) | Self::Reorder(_),
                Direction::Ingress,
            ) => &[Mechanism::TcxIngress, Mechanism::ClsactIngress],
        }
    }

    /// What it takes to hold back packets going one way until their time: for each thing the ways to have it, best first.
    /// Empty if none is held back.
    pub const fn queues(&self, direction: Direction) -> &'static [&'static [Mechanism]] {
        match (self, direction) {
            (Self::Delay(_) | Self::Rate(_) | Self::Reorder(_), Direction::Egress) => {
                &[&[Mechanism::Fq, Mechanism::Netem]]
            }
            (Self::Delay(_) | Self::Rate(_) | Self::Reorder(_), Direction::Ingress) => {
                &[&[Mechanism::Ifb], &[Mechanism::Fq]]
            }
            _ => &[],
        }
    }

    /// The longest that a packet is held back.
    pub fn most_held(&self) -> Duration {
        match self {
            Self::Delay(delay) => delay.most(),
            Self::Rate(rate) => rate.limit,
            Self::Reorder(reorder) => reorder.by,
            _ => Duration::ZERO,
        }
    }

    /// What its programs need to know besides the rule.
    pub fn parameters(&self) -> Parameters {
        match self {
            Self::Delay(delay) => Parameters::Shape(delay.shape()),
            Self::Rate(rate) => Parameters::Shape(rate.shape()),
            Self::Reorder(reorder) => Parameters::Shape(reorder.shape()),
            Self::Loss(_) | Self::Partition { reject: None } => Parameters::None,
            Self::Partition { reject: Some(Reject::Rst) } => Parameters::Reject(reject::RST),
            Self::Partition { reject: Some(Reject::Icmp) } => Parameters::Reject(reject::ICMP),
            Self::Dns(dns) => Parameters::Dns(dns.to_kernel()),
            Self::Corrupt(corruption) => Parameters::Corrupt(*corruption),
            Self::Duplicate(duplication) => Parameters::Duplicate(*duplication),
        }
    }

    /// Whether the sender is told of it.
    pub const fn is_told(&self) -> bool {
        matches!(self, Self::Loss(Loss { visibility: Visibility::Local, .. }))
    }

    /// Whether a pattern with a memory moves on by one step for each segment of a packet.
    pub const fn is_by_segment(&self) -> bool {
        matches!(self, Self::Loss(Loss { unit: Unit::Segments, .. }))
    }

    /// The program that does it to packets going one way.
    pub const fn hook(&self, direction: Direction) -> Hook {
        match (self, direction) {
            (Self::Delay(_) | Self::Rate(_) | Self::Reorder(_), Direction::Egress) => {
                Hook::new(program::SHAPE_EGRESS, hook::SHAPE_EGRESS)
            }
            (Self::Delay(_) | Self::Rate(_) | Self::Reorder(_), Direction::Ingress) => {
                Hook::new(program::SHAPE_INGRESS, hook::SHAPE_INGRESS)
            }
            (Self::Loss(_) | Self::Partition { reject: None }, Direction::Egress) => {
                Hook::new(program::LOSS_EGRESS, hook::LOSS_EGRESS)
            }
            (Self::Loss(_) | Self::Partition { reject: None }, Direction::Ingress) => {
                Hook::new(program::LOSS_INGRESS, hook::LOSS_INGRESS)
            }
            (Self::Partition { reject: Some(_) }, Direction::Egress) => {
                Hook::new(program::REJECT_EGRESS, hook::REJECT_EGRESS)
            }
            (Self::Partition { reject: Some(_) }, Direction::Ingress) => {
                Hook::new(program::REJECT_INGRESS, hook::REJECT_INGRESS)
            }
            (Self::Dns(_), _) => Hook::new(program::DNS_EGRESS, hook::DNS_EGRESS),
            (Self::Corrupt(_), Direction::Egress) => Hook::new(program::CORRUPT_EGRESS, hook::CORRUPT_EGRESS),
            (Self::Corrupt(_), Direction::Ingress) => {
                Hook::new(program::CORRUPT_INGRESS, hook::CORRUPT_INGRESS)
            }
            (Self::Duplicate(_), Direction::Egress) => {
                Hook::new(program::DUPLICATE_EGRESS, hook::DUPLICATE_EGRESS)
            }
            (Self::Duplicate(_), Direction::Ingress) => {
                Hook::new(program::DUPLICATE_INGRESS, hook::DUPLICATE_INGRESS)
            }
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
    /// Sends packets by a netem, whatever is to become of them.
    pub const PRIORITY: Self = Self::new(program::PRIORITY_EGRESS, hook::PRIORITY_EGRESS);

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
        write!(f, "{} {} {}", self.effect, self.pattern, self.direction)?;
        match &self.effect {
            effect if effect.is_told() => f.write_str(", the sender is told"),
            NetEffect::Partition { reject: Some(reject) } => write!(f, ", answered by {reject}"),
            NetEffect::Dns(dns) => write!(f, ", {dns}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for NetEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Delay(delay) => write!(f, "{name} {delay}"),
            Self::Rate(rate) => write!(f, "{name} {rate}"),
            Self::Reorder(reorder) => write!(f, "{name} {reorder}"),
            _ => f.write_str(name),
        }
    }
}
