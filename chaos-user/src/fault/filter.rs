//! Which packets and connections a network fault is for.

use std::{net::IpAddr, ops::RangeInclusive};

use chaos_common::net::Direction;
use ipnet::IpNet;

use super::{
    catalogue::{Parameter, list, value},
    text::{FieldError, Given},
};
use crate::units::{BadValue, Ports, parse_flag, parse_network};

/// Which way, for the catalogue.
pub const DIRECTION: Parameter =
    value("direction", "egress|ingress|both", "egress", "which way, seen from the target");

/// Which part of TCP's connections, for the catalogue: for faults on packets.
pub const CONNECTIONS: Parameter = value(
    "connections",
    "new|established",
    "any",
    "only TCP: new is the handshake (SYN, SYN-ACK), established every other segment",
);

/// The parameters of a filter, for the catalogue.
pub const PARAMETERS: &[Parameter] = &[
    value("protocol", "tcp|udp|icmp", "any", "only this protocol (icmp is ICMPv6 too)"),
    PEERS,
    list("ports", "PORT|FIRST-LAST, …", "any", "only these ports of the peer"),
    list("local_ports", "PORT|FIRST-LAST, …", "any", "only these ports of the target itself"),
    ALLOW,
    ALLOW_DEFAULTS,
];

/// What else is spared, for the catalogue.
pub const ALLOW_DEFAULTS: Parameter = value(
    "allow_defaults",
    "true|false",
    "true",
    "never ssh, gateways, the node, the metadata service, the API server either; `kchaos plan` lists them",
);

/// Whom it is about, for the catalogue.
pub const PEERS: Parameter =
    list("peers", "ADDRESS|CIDR, …", "any", "only what goes to or comes from these peers");

/// The allow-list, for the catalogue.
pub const ALLOW: Parameter = list(
    "allow",
    "ADDRESS|CIDR|:PORTS|ADDRESS:PORTS, …",
    "-",
    "never these, whatever the rest says; a port is either end's",
);

/// Which way packets go, seen from the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectionSpec {
    /// What the target sends.
    #[default]
    Egress,
    /// What the target receives.
    Ingress,
    /// Both.
    Both,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// A part of TCP's connections. Each segment is looked at by itself: the last one of a handshake, which carries no
/// SYN, is established already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Connections {
    /// Segments with SYN: the first one either way.
    New,
    /// All others.
    Established,
}

/// Whether the default allow-list holds: see [`spared`](super::spared).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defaults {
    /// What is on it is spared.
    #[default]
    Spared,
    /// What is on it is hit like anything else.
    Hit,
}

/// A range of ports, both ends included.
pub type PortRange = RangeInclusive<u16>;

/// Which packets. An empty list lets everything through that dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetFilter {
    /// Only this protocol.
    pub protocol: Option<Protocol>,
    /// Only this part of TCP's connections.
    pub connections: Option<Connections>,
    /// Only packets to or from these peers.
    pub peers: Vec<IpNet>,
    /// Only these ports of the peer.
    pub ports: Vec<PortRange>,
    /// Only these ports of the target itself.
    pub local_ports: Vec<PortRange>,
    /// Never these, whatever the rest says.
    pub allow: Vec<Allow>,
    /// Nor those of the default allow-list.
    pub defaults: Defaults,
}

/// An entry of the allow-list: `ADDRESS`, `CIDR`, `:PORT`, `ADDRESS:PORT`, `[V6]:PORT`, `CIDR:PORTS`. A port
/// here is either end's: `:22` spares ssh to the target and from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// These peers; any if `None`.
    pub peer: Option<IpNet>,
    /// These ports, the peer's or the target's own; any if `None`.
    pub ports: Option<PortRange>,
}

impl NetFilter {
    /// As given.
    pub fn build(given: &Given) -> Result<Self, FieldError> {
        let filter = Self {
            protocol: given.optional("protocol", str::parse)?,
            connections: given.optional("connections", str::parse)?,
            peers: given.each("peers", parse_network)?,
            ports: given.each("ports", ports)?,
            local_ports: given.each("local_ports", ports)?,
            allow: given.each("allow", str::parse::<Allow>)?,
            defaults: match given.optional("allow_defaults", parse_flag)? {
                Some(false) => Defaults::Hit,
                Some(true) | None => Defaults::Spared,
            },
        };
        filter.ports_exist()?;
        filter.connections_exist().map(|()| filter)
    }

    /// Only TCP has connections.
    fn connections_exist(&self) -> Result<(), FieldError> {
        let Some(protocol) = self.protocol.filter(|protocol| *protocol != Protocol::Tcp) else {
            return Ok(());
        };
        if self.connections.is_none() {
            return Ok(());
        }
        let what = format!("{protocol} has no connections, so nothing would match");
        Err(FieldError::new("connections", BadValue::new(what, "leave it out, or use `protocol: tcp`")))
    }

    /// Ports are asked only of protocols that have some.
    fn ports_exist(&self) -> Result<(), FieldError> {
        let field = match (self.ports.is_empty(), self.local_ports.is_empty()) {
            (false, _) => "ports",
            (true, false) => "local_ports",
            (true, true) => return Ok(()),
        };
        if self.protocol != Some(Protocol::Icmp) {
            return Ok(());
        }
        let why =
            BadValue::new("ICMP has no ports, so nothing would match", "leave them out, or use tcp or udp");
        Err(FieldError::new(field, why))
    }
}

fn ports(text: &str) -> Result<PortRange, BadValue> {
    text.parse::<Ports>().map(|ports| ports.0)
}

impl From<IpAddr> for Allow {
    fn from(address: IpAddr) -> Self {
        Self { peer: Some(address.into()), ports: None }
    }
}

/// The directions a specification stands for.
pub const fn directions(spec: DirectionSpec) -> &'static [Direction] {
    match spec {
        DirectionSpec::Egress => &[Direction::Egress],
        DirectionSpec::Ingress => &[Direction::Ingress],
        DirectionSpec::Both => &[Direction::Egress, Direction::Ingress],
    }
}
