//! Packet filters as masks: each dimension of a filter says which clauses it lets through.

use std::{collections::BTreeSet, ops::RangeInclusive};

use chaos_common::net::{MAX_CLAUSES, MAX_PREFIXES, NetConfig, uses};
use ipnet::IpNet;

use super::{
    dns::{Dns, Tcp},
    filter::{Allow, Connections, Defaults, NetFilter, PortRange, Protocol},
    names::Names,
    spared::Spared,
};

/// Whose port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The other end's.
    Peer,
    /// The target's own.
    Local,
}

/// Ports that let one clause through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortClauses {
    /// Whose.
    pub side: Side,
    /// Which.
    pub ports: RangeInclusive<u16>,
    /// The clause's bit.
    pub clauses: u64,
}

/// All filters of an injection, as the kernel half takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Clauses {
    /// The dimensions that are small enough to be constants.
    pub config: NetConfig,
    /// Every prefix named, with the clauses of all prefixes that contain it: the kernel's trie returns only
    /// the longest match.
    pub prefixes: Vec<(IpNet, u64)>,
    /// Every range of ports named.
    pub ports: Vec<PortClauses>,
    /// Every name named.
    pub names: Names,
    named: Vec<(IpNet, u64)>,
    /// The clauses of the default allow-list, which all rules share.
    spared: u64,
    used: u32,
}

/// Filters that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClauseError {
    /// Too many terms.
    #[error("the filters of all faults together have more than {MAX_CLAUSES} terms; merge peers or ports")]
    TooManyClauses,
    /// Too many prefixes.
    #[error("the filters of all faults together name more than {MAX_PREFIXES} networks")]
    TooManyPrefixes,
}

/// One term: every dimension must let the packet through.
#[derive(Default)]
struct Clause<'a> {
    protocol: Option<Protocol>,
    connections: Option<Connections>,
    queries: Option<&'a Dns>,
    peers: &'a [IpNet],
    peer_ports: &'a [PortRange],
    local_ports: &'a [PortRange],
}

impl Default for Clauses {
    fn default() -> Self {
        Self {
            config: NetConfig::NONE,
            prefixes: Vec::new(),
            ports: Vec::new(),
            names: Names::default(),
            named: Vec::new(),
            spared: 0,
            used: 0,
        }
    }
}

impl Clauses {
    /// Adds the default allow-list, for the filters added from now on. All peers of which every port is spared make one
    /// clause.
    pub fn spare(&mut self, spared: &[Spared]) -> Result<(), ClauseError> {
        let whole = spared.iter().filter(|entry| entry.what.ports.is_none());
        let peers: Vec<IpNet> = whole.filter_map(|entry| entry.what.peer).collect();
        if !peers.is_empty() {
            self.spared |= self.clause(&Clause { peers: &peers, ..Clause::default() })?;
        }
        for entry in spared.iter().filter(|entry| entry.what.ports.is_some()) {
            self.spared |= self.allow(&entry.what)?;
        }
        Ok(())
    }

    /// Adds a filter. Returns the clauses of which one must match (0: everything matches) and those of
    /// which none may.
    pub fn add(&mut self, filter: &NetFilter) -> Result<(u64, u64), ClauseError> {
        let unfiltered = filter.protocol.is_none()
            && filter.connections.is_none()
            && filter.peers.is_empty()
            && filter.ports.is_empty()
            && filter.local_ports.is_empty();
        let matching = if unfiltered { 0 } else { self.clause(&Clause::of_filter(filter))? };
        Ok((matching, self.allowed(filter)?))
    }

    /// The same for queries to name servers: those of UDP by name, and TCP without looking into it.
    pub fn add_queries(&mut self, filter: &NetFilter, dns: &Dns) -> Result<(u64, u64), ClauseError> {
        let of = |protocol| Clause { protocol: Some(protocol), ..Clause::of_filter(filter) };
        let udp = self.clause(&Clause { queries: Some(dns), ..of(Protocol::Udp) })?;
        let tcp = match dns.tcp {
            Tcp::Drop => self.clause(&of(Protocol::Tcp))?,
            Tcp::Pass => 0,
        };
        Ok((udp | tcp, self.allowed(filter)?))
    }

    /// Computes what depends on all filters together.
    pub fn finish(&mut self) -> Result<(), ClauseError> {
        let distinct: BTreeSet<IpNet> = self.named.iter().map(|(prefix, _)| *prefix).collect();
        if distinct.len() > MAX_PREFIXES as usize {
            return Err(ClauseError::TooManyPrefixes);
        }
        let clauses_of = |prefix: &IpNet| {
            let containing = self.named.iter().filter(|(named, _)| named.contains(prefix));
            containing.fold(0, |clauses, (_, clause)| clauses | clause)
        };
        self.names.finish();
        self.prefixes = distinct.iter().map(|prefix| (*prefix, clauses_of(prefix))).collect();
        Ok(())
    }

    fn allowed(&mut self, filter: &NetFilter) -> Result<u64, ClauseError> {
        let mut allowed = match filter.defaults {
            Defaults::Spared => self.spared,
            Defaults::Hit => 0,
        };
        for allow in &filter.allow {
            allowed |= self.allow(allow)?;
        }
        Ok(allowed)
    }

    /// A port in the allow-list is either end's, so it makes two clauses.
    fn allow(&mut self, allow: &Allow) -> Result<u64, ClauseError> {
        let peers = allow.peer.as_slice();
        let Some(ports) = &allow.ports else {
            return self.clause(&Clause { peers, ..Clause::default() });
        };
        let ports = std::slice::from_ref(ports);
        let peer = self.clause(&Clause { peers, peer_ports: ports, ..Clause::default() })?;
        let local = self.clause(&Clause { peers, local_ports: ports, ..Clause::default() })?;
        Ok(peer | local)
    }

    fn clause(&mut self, clause: &Clause<'_>) -> Result<u64, ClauseError> {
        if self.used == MAX_CLAUSES {
            return Err(ClauseError::TooManyClauses);
        }
        let bit = 1 << self.used;
        self.used += 1;
        self.config.uses |= uses::CLAUSES;
        self.protocol(clause.protocol, bit);
        self.connections(clause.connections, bit);
        match clause.queries {
            Some(dns) => self.names.add(&dns.names, bit),
            None => self.config.any_name |= bit,
        }
        self.peers(clause.peers, bit);
        self.ports(Side::Peer, clause.peer_ports, bit);
        self.ports(Side::Local, clause.local_ports, bit);
        Ok(bit)
    }

    fn protocol(&mut self, protocol: Option<Protocol>, bit: u64) {
        let config = &mut self.config;
        let any = protocol.is_none();
        config.tcp |= if any || protocol == Some(Protocol::Tcp) { bit } else { 0 };
        config.udp |= if any || protocol == Some(Protocol::Udp) { bit } else { 0 };
        config.icmp |= if any || protocol == Some(Protocol::Icmp) { bit } else { 0 };
        config.other |= if any { bit } else { 0 };
    }

    /// Whoever asks for a part of TCP's connections asks for TCP.
    fn connections(&mut self, connections: Option<Connections>, bit: u64) {
        let config = &mut self.config;
        if connections.is_some() {
            config.uses |= uses::CONNECTIONS;
            config.udp &= !bit;
            config.icmp &= !bit;
            config.other &= !bit;
        }
        config.new |= if connections != Some(Connections::Established) { bit } else { 0 };
        config.established |= if connections != Some(Connections::New) { bit } else { 0 };
    }

    fn peers(&mut self, peers: &[IpNet], bit: u64) {
        if peers.is_empty() {
            self.config.any_peer |= bit;
        } else {
            self.config.uses |= uses::PEERS;
            self.named.extend(peers.iter().map(|prefix| (prefix.trunc(), bit)));
        }
    }

    fn ports(&mut self, side: Side, ports: &[PortRange], bit: u64) {
        if ports.is_empty() {
            match side {
                Side::Peer => self.config.any_peer_port |= bit,
                Side::Local => self.config.any_local_port |= bit,
            }
        } else {
            self.config.uses |= uses::PORTS;
            let named = ports.iter().map(|ports| PortClauses { side, ports: ports.clone(), clauses: bit });
            self.ports.extend(named);
        }
    }
}

impl<'a> Clause<'a> {
    fn of_filter(filter: &'a NetFilter) -> Self {
        Self {
            protocol: filter.protocol,
            connections: filter.connections,
            queries: None,
            peers: &filter.peers,
            peer_ports: &filter.ports,
            local_ports: &filter.local_ports,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::spared::Why;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn no_filter_means_no_clause_and_no_parsing() {
        let mut clauses = Clauses::default();
        assert_eq!(clauses.add(&NetFilter::default()), Ok((0, 0)));
        assert_eq!(clauses.config.uses, 0);
    }

    #[test]
    fn a_longer_prefix_carries_the_clauses_of_the_shorter_ones_around_it() {
        let mut clauses = Clauses::default();
        let wide = NetFilter { peers: vec![net("10.0.0.0/8")], ..NetFilter::default() };
        let narrow = NetFilter { peers: vec![net("10.1.0.0/16"), net("fd00::/8")], ..NetFilter::default() };
        let (wide, _) = clauses.add(&wide).unwrap();
        let (narrow, _) = clauses.add(&narrow).unwrap();
        clauses.finish().unwrap();
        let of = |text: &str| clauses.prefixes.iter().find(|(prefix, _)| *prefix == net(text)).unwrap().1;
        assert_eq!(of("10.0.0.0/8"), wide);
        assert_eq!(of("10.1.0.0/16"), wide | narrow);
        assert_eq!(of("fd00::/8"), narrow);
    }

    #[test]
    fn an_allowed_port_is_either_ends() {
        let mut clauses = Clauses::default();
        let ssh = Allow { peer: None, ports: Some(22..=22) };
        let (matching, allowed) =
            clauses.add(&NetFilter { allow: vec![ssh], ..NetFilter::default() }).unwrap();
        assert_eq!((matching, allowed.count_ones()), (0, 2));
        assert_eq!(clauses.ports.len(), 2);
        assert_eq!(clauses.config.other & allowed, allowed, "whatever the protocol");
    }

    #[test]
    fn connections_are_tcps() {
        let mut clauses = Clauses::default();
        let of = |connections| NetFilter { connections: Some(connections), ..NetFilter::default() };
        let (new, _) = clauses.add(&of(Connections::New)).unwrap();
        let (established, _) = clauses.add(&of(Connections::Established)).unwrap();
        let udp = NetFilter { protocol: Some(Protocol::Udp), ..NetFilter::default() };
        let (udp, _) = clauses.add(&udp).unwrap();
        let config = clauses.config;
        assert_eq!((config.tcp, config.udp, config.icmp, config.other), (new | established, udp, 0, 0));
        assert_eq!((config.new, config.established), (new | udp, established | udp));
        assert!(config.uses & uses::CONNECTIONS != 0);
    }

    #[test]
    fn all_rules_share_the_clauses_of_the_default_allow_list() {
        let spare = |what: &str| Spared { why: Why::Gateway, what: what.parse().expect("an entry") };
        let mut clauses = Clauses::default();
        clauses.spare(&["10.0.0.1", ":22", "10.0.0.2", "10.0.0.3:443"].map(spare)).unwrap();
        let (_, one) = clauses.add(&NetFilter::default()).unwrap();
        let (_, other) = clauses.add(&NetFilter::default()).unwrap();
        assert_eq!(
            (one, one.count_ones()),
            (other, 5),
            "peers, port 22 at either end, one service at either end"
        );
        let insisting = NetFilter { defaults: Defaults::Hit, ..NetFilter::default() };
        assert_eq!(clauses.add(&insisting), Ok((0, 0)));
        assert_eq!(clauses.used, 5);
    }

    #[test]
    fn the_sixty_fifth_clause_is_refused() {
        let mut clauses = Clauses::default();
        let filter = NetFilter { protocol: Some(Protocol::Tcp), ..NetFilter::default() };
        for _ in 0..MAX_CLAUSES {
            clauses.add(&filter).unwrap();
        }
        assert_eq!(clauses.add(&filter), Err(ClauseError::TooManyClauses));
    }
}
