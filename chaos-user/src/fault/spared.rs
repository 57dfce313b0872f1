//! The default allow-list: what a network fault spares unless told otherwise, because without it nobody could look,
//! reach or stop anything any more.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{
    Fault,
    filter::{Allow, Defaults, NetFilter, PortRange},
    plan::{Note, PlanError},
};
use crate::target::Scope;

/// The port of ssh.
const SSH_PORT: u16 = 22;
/// Where clouds answer their machines: AWS, Azure, Google and others in IPv4, AWS in IPv6.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// What is spared, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spared {
    /// Why.
    pub why: Why,
    /// What.
    pub what: Allow,
}

/// Why something is spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The way in.
    Ssh,
    /// Where a machine of a cloud gets its credentials from.
    Metadata,
    /// The next hop itself; what goes through it is not spared.
    Gateway,
    /// The host, which probes the health of what runs on it.
    Node,
    /// The Kubernetes API server that the controller talks to.
    ApiServer,
    /// The Docker daemon that the controller talks to.
    Docker,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ssh => "ssh",
            Self::Metadata => "metadata service",
            Self::Gateway => "default gateway",
            Self::Node => "this node",
            Self::ApiServer => "Kubernetes API server",
            Self::Docker => "Docker daemon",
        })
    }
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.why)
    }
}

/// The whole list: what holds everywhere, and what is so `here`.
fn all(here: &[Spared]) -> Vec<Spared> {
    let ssh = Spared { why: Why::Ssh, what: Allow { peer: None, ports: Some(SSH_PORT..=SSH_PORT) } };
    let metadata = METADATA.map(|address| Spared { why: Why::Metadata, what: address.into() });
    std::iter::once(ssh).chain(metadata).chain(here.iter().cloned()).collect()
}

/// The whole list, if any fault heeds it, and what faults name of it all the same.
pub fn heeded(faults: &[Fault], scope: &Scope) -> Result<(Vec<Spared>, Vec<Note>), PlanError> {
    let heed = |fault: &&Fault| fault.filter().is_some_and(|filter| filter.defaults == Defaults::Spared);
    let heeding: Vec<&Fault> = faults.iter().filter(heed).collect();
    if heeding.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let spared = all(&scope.spared);
    let mut notes = Vec::new();
    for fault in heeding {
        notes.extend(check(fault, &spared)?);
    }
    Ok((spared, notes))
}

/// A filter that asks for nothing but what is spared would silently do nothing, so it is refused; one that asks for
/// something spared among other things is worth a word.
fn check(fault: &Fault, spared: &[Spared]) -> Result<Option<Note>, PlanError> {
    let Some(filter) = fault.filter().filter(|filter| filter.defaults == Defaults::Spared) else {
        return Ok(None);
    };
    let named = Named::of(filter, spared);
    let fault = fault.name();
    match (named.entries.is_empty(), named.leaves_nothing) {
        (true, _) => Ok(None),
        (false, true) => Err(PlanError::AllSpared { fault, entries: named.entries }),
        (false, false) => Ok(Some(Note::SparedThoughNamed { fault, entries: named.entries })),
    }
}

/// What of a filter's own entries is spared.
struct Named {
    entries: Vec<Spared>,
    leaves_nothing: bool,
}

impl Named {
    fn of(filter: &NetFilter, spared: &[Spared]) -> Self {
        let mut named = Self { entries: Vec::new(), leaves_nothing: false };
        for ports in [&filter.ports, &filter.local_ports] {
            named.add(ports, spared, |ports, entry| entry.peer.is_none() && covers(&entry.ports, ports));
        }
        named.add(&filter.peers, spared, |peer, entry| {
            let port = |ports: &Vec<PortRange>| {
                !ports.is_empty() && ports.iter().all(|ports| covers(&entry.ports, ports))
            };
            let everywhere = entry.ports.is_none() || port(&filter.ports) || port(&filter.local_ports);
            everywhere && entry.peer.is_some_and(|spared: IpNet| spared.contains(peer))
        });
        named
    }

    /// Takes in one list of a filter, of which one entry must match.
    fn add<T>(&mut self, asked: &[T], spared: &[Spared], is: impl Fn(&T, &Allow) -> bool) {
        let found: Vec<&Spared> =
            asked.iter().filter_map(|asked| spared.iter().find(|entry| is(asked, &entry.what))).collect();
        self.leaves_nothing |= !asked.is_empty() && found.len() == asked.len();
        for entry in found {
            if !self.entries.contains(entry) {
                self.entries.push(entry.clone());
            }
        }
    }
}

fn covers(spared: &Option<PortRange>, asked: &PortRange) -> bool {
    spared.as_ref().is_some_and(|spared| spared.contains(asked.start()) && spared.contains(asked.end()))
}

/// `:22 (ssh), 10.0.0.1 (default gateway)`.
pub fn list(entries: &[Spared]) -> String {
    entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{catalogue::find, text::Given};

    fn here() -> Vec<Spared> {
        let entry = |why, what: &str| Spared { why, what: what.parse().unwrap() };
        all(&[entry(Why::Gateway, "10.0.0.1"), entry(Why::ApiServer, "10.96.0.1:443")])
    }

    fn checked(values: &[(&'static str, &str)]) -> Result<Option<Note>, PlanError> {
        let given = Given::new(find("loss").unwrap()).with("percent", "5");
        let given = values.iter().fold(given, |given, (name, value)| given.with(name, value));
        check(&(given.entry.build)(&given).unwrap(), &here())
    }

    #[test]
    fn nothing_but_what_is_spared_is_refused() {
        for (values, what) in [
            (&[("local_ports", "22")][..], ":22 (ssh)"),
            (&[("ports", "22"), ("peers", "10.1.0.0/16")], ":22 (ssh)"),
            (&[("peers", "169.254.169.254")], "169.254.169.254 (metadata service)"),
            (&[("peers", "10.0.0.1"), ("protocol", "udp"), ("ports", "53")], "10.0.0.1 (default gateway)"),
            (&[("peers", "10.96.0.1"), ("ports", "443")], "10.96.0.1:443 (Kubernetes API server)"),
        ] {
            let refused = checked(values).unwrap_err().to_string();
            assert!(refused.contains(what) && refused.contains("allow_defaults: false"), "{refused}");
            assert_eq!(checked(&[values, &[("allow_defaults", "false")]].concat()), Ok(None));
        }
    }

    #[test]
    fn something_spared_among_others_is_worth_a_word() {
        for values in
            [&[("ports", "22"), ("ports", "80")][..], &[("peers", "10.0.0.1"), ("peers", "10.0.0.2")]]
        {
            let note = checked(values).unwrap().unwrap().to_string();
            assert!(note.contains("spared by default"), "{note}");
        }
    }

    #[test]
    fn what_holds_more_is_as_good_as_any() {
        for values in [
            &[][..],
            &[("ports", "1-1024")],
            &[("peers", "10.0.0.0/8")],
            &[("peers", "10.96.0.1")],
            &[("peers", "10.96.0.1"), ("ports", "80")],
        ] {
            assert_eq!(checked(values), Ok(None), "{values:?}");
        }
    }
}
