//! Packet filters as masks: each dimension of a filter says which clauses it lets through.

use std::collections::BTreeSet;

use chaos_common::{
    net::{MAX_CLAUSES, MAX_PREFIXES, NetConfig, local_port_key, peer_port_key, uses},
    ranges::{Range, WideRange, steps},
};
use ipnet::IpNet;

use super::{
    dns::{Dns, Tcp},
    filter::{Allow, Connections, Defaults, NetFilter, PortRange, Protocol},
    names::Names,
    ranges::Ranges,
    spared::Spared,
};

/// Whose port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The other end's.
    Peer,
    /// The target's own.
    Local,
}

/// All filters of an injection, as the kernel half takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Clauses {
    /// The dimensions that are small enough to be constants.
    pub config: NetConfig,
    /// The addresses of IPv4 by who names them.
    pub peers_v4: Vec<Range>,
    /// The addresses of IPv6.
    pub peers_v6: Vec<WideRange>,
    /// The ports, both ends'.
    pub ports: Vec<Range>,
    /// Every name named.
    pub names: Names,
    named_peers: Vec<(IpNet, u64)>,
    named_ports: Ranges,
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
            peers_v4: Vec::new(),
            peers_v6: Vec::new(),
            ports: Vec::new(),
            names: Names::default(),
            named_peers: Vec::new(),
            named_ports: Ranges::default(),
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
        let distinct: BTreeSet<IpNet> = self.named_peers.iter().map(|(prefix, _)| *prefix).collect();
        if distinct.len() > MAX_PREFIXES as usize {
            return Err(ClauseError::TooManyPrefixes);
        }
        let (mut v4, mut v6) = (Ranges::default(), Ranges::default());
        for (prefix, clauses) in &self.named_peers {
            match prefix {
                IpNet::V4(_) => v4.add_network(*prefix, *clauses),
                IpNet::V6(_) => v6.add_network(*prefix, *clauses),
            }
        }
        self.names.finish();
        (self.peers_v4, self.peers_v6, self.ports) = (v4.narrow(), v6.wide(), self.named_ports.narrow());
        self.config.peer_v4_steps = steps(self.peers_v4.len());
        self.config.peer_v6_steps = steps(self.peers_v6.len());
        self.config.port_steps = steps(self.ports.len());
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
            self.named_peers.extend(peers.iter().map(|prefix| (prefix.trunc(), bit)));
        }
    }

    fn ports(&mut self, side: Side, ports: &[PortRange], bit: u64) {
        if ports.is_empty() {
            match side {
                Side::Peer => self.config.any_peer_port |= bit,
                Side::Local => self.config.any_local_port |= bit,
            }
            return;
        }
        self.config.uses |= uses::PORTS;
        let key = match side {
            Side::Peer => peer_port_key,
            Side::Local => local_port_key,
        };
        for ports in ports {
            self.named_ports.add(key(*ports.start()), key(*ports.end()), bit);
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
    fn addresses_are_told_apart_by_who_names_them() {
        let mut clauses = Clauses::default();
        let wide = NetFilter { peers: vec![net("10.0.0.0/8")], ..NetFilter::default() };
        let narrow = NetFilter { peers: vec![net("10.1.0.0/16"), net("fd00::/8")], ..NetFilter::default() };
        let (wide, _) = clauses.add(&wide).unwrap();
        let (narrow, _) = clauses.add(&narrow).unwrap();
        clauses.finish().unwrap();
        let v4: Vec<u64> = clauses.peers_v4.iter().map(|range| range.clauses).collect();
        assert_eq!(v4, [0, wide, wide | narrow, wide, 0, 0, 0, 0]);
        let v6: Vec<u64> = clauses.peers_v6.iter().map(|range| range.clauses).collect();
        assert_eq!(v6, [0, narrow, 0, 0]);
        let config = clauses.config;
        assert_eq!((config.peer_v4_steps, config.peer_v6_steps, config.port_steps), (3, 2, 0));
    }

    #[test]
    fn an_allowed_port_is_either_ends() {
        let mut clauses = Clauses::default();
        let ssh = Allow { peer: None, ports: Some(22..=22) };
        let (matching, allowed) =
            clauses.add(&NetFilter { allow: vec![ssh], ..NetFilter::default() }).unwrap();
        assert_eq!((matching, allowed.count_ones()), (0, 2));
        clauses.finish().unwrap();
        let named: Vec<u64> = clauses.ports.iter().map(|range| range.clauses).filter(|of| *of != 0).collect();
        assert_eq!(named.len(), 2, "{:?}", clauses.ports);
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
