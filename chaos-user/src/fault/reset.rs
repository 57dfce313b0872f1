//! Established TCP connections are destroyed: both ends get an error.

use std::{fmt, net::SocketAddr, time::Duration};

use super::{
    Fault, Limits, Pattern,
    capability::Capabilities,
    catalogue::{FaultEntry, Parameter, value},
    filter::{self, Defaults, NetFilter, PortRange, Protocol},
    limits,
    mechanism::{Mechanism, choose},
    plan::{Attachment, Options, Parameters, PlanError, PlannedRule, rule},
    spared::Spared,
    text::{FieldError, Given},
};
use crate::{
    target::{Group, Netns, Scope},
    units::{BadValue, Percent, parse_duration, show_duration},
};

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "reset",
    summary: "established TCP connections are destroyed; both ends get an error",
    parameters: &[PARAMETERS, filter::PARAMETERS, limits::PARAMETERS],
    build,
    command: "kchaos inject reset --every 5s --percent 20 --on docker:web --for 30s",
    yaml: "- reset:\n    every: 5s\n    percent: 20%\n    ports: 5432\n",
};

const PARAMETERS: &[Parameter] = &[
    value(
        "every",
        "DURATION",
        "once, at the beginning",
        "how long until those are looked at that are there then",
    ),
    value("percent", "PERCENT", "100%", "share of the connections that match, each time"),
];

/// Connections are listed one and all each time, so not more often than this.
const SHORTEST: Duration = Duration::from_millis(100);

/// Established connections are destroyed.
#[derive(Clone, Debug, PartialEq)]
pub struct ResetFault {
    /// How often; at the beginning and never again if `None`.
    pub every: Option<Duration>,
    /// Which of those that are there.
    pub pattern: Pattern,
    /// Which at all.
    pub filter: NetFilter,
    /// How many.
    pub limits: Limits,
}

/// The two ends of a connection, IPv4 as IPv4 even on a socket of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The target's.
    pub local: SocketAddr,
    /// The other.
    pub peer: SocketAddr,
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let percent = given.optional("percent", str::parse::<Percent>)?;
    let fault = ResetFault {
        every: given.optional("every", interval)?,
        pattern: match percent {
            Some(Percent(chance)) => Pattern::Random { chance, correlation: chaos_common::Chance::NEVER },
            None => Pattern::ALL,
        },
        filter: NetFilter::build(given)?,
        limits: Limits::build(given)?,
    };
    if !matches!(fault.filter.protocol, None | Some(Protocol::Tcp)) {
        let why = BadValue::new("only TCP has connections", "leave it out");
        return Err(FieldError::new("protocol", why));
    }
    Ok(Fault::Reset(fault))
}

fn interval(text: &str) -> Result<Duration, BadValue> {
    let every = parse_duration(text)?;
    if every < SHORTEST {
        let right = format!("write at least `{}`, or leave it out for once", show_duration(SHORTEST));
        return Err(BadValue::new(format!("`{}` is too often", show_duration(every)), right));
    }
    Ok(every)
}

impl ResetFault {
    /// Whether it is for a connection, whatever the limits say.
    pub fn is_for(&self, ends: Ends) -> bool {
        let NetFilter { peers, ports, local_ports, allow, .. } = &self.filter;
        let within = |ranges: &[PortRange], port: u16| {
            ranges.is_empty() || ranges.iter().any(|range| range.contains(&port))
        };
        let (peer, peer_port, local_port) = (ends.peer.ip(), ends.peer.port(), ends.local.port());
        let allowed = allow.iter().any(|allow| {
            allow.peer.is_none_or(|network| network.contains(&peer))
                && allow
                    .ports
                    .as_ref()
                    .is_none_or(|ports| ports.contains(&peer_port) || ports.contains(&local_port))
        });
        !allowed
            && (peers.is_empty() || peers.iter().any(|network| network.contains(&peer)))
            && within(ports, peer_port)
            && within(local_ports, local_port)
    }

    /// The same, with the default allow-list among what it spares, unless that is to be hit.
    #[must_use]
    pub fn sparing(&self, spared: &[Spared]) -> Self {
        let mut fault = self.clone();
        if self.filter.defaults == Defaults::Spared {
            fault.filter.allow.extend(spared.iter().map(|spared| spared.what.clone()));
        }
        fault
    }

    /// By the controller: what it does needs no program. Its filter is not among the kernel's clauses.
    pub fn plan(&self, capabilities: &Capabilities, options: &Options) -> Result<PlannedRule, PlanError> {
        let mechanism = choose(&[Mechanism::SockDiag], ENTRY.name, capabilities, options.forced)?;
        Ok(PlannedRule {
            fault: Fault::Reset(self.clone()),
            rule: rule(&self.pattern, &self.limits, (0, 0), options),
            parameters: Parameters::None,
            ways: Vec::new(),
            queues: Vec::new(),
            ourselves: Some(mechanism),
            calls: Vec::new(),
            unmet: Vec::new(),
        })
    }

    /// One for every network namespace of the experimental group.
    pub fn attachments(&self, rule: u32, scope: &Scope) -> Vec<Attachment> {
        let mut found: Vec<Netns> = Vec::new();
        for namespace in scope.group(Group::Experiment).flat_map(|(_, member)| &member.namespaces) {
            if !found.contains(&namespace.netns) {
                found.push(namespace.netns.clone());
            }
        }
        let at = |netns| Attachment::SockDiag { rule, every: self.every, netns };
        found.into_iter().map(at).collect()
    }
}

impl fmt::Display for ResetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", ENTRY.name, self.pattern)?;
        match self.every {
            Some(every) => write!(f, "every {}", show_duration(every)),
            None => f.write_str("once"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(values: &[(&'static str, &str)]) -> Given {
        values.iter().fold(Given::new(&ENTRY), |given, (name, value)| given.with(name, value))
    }

    fn fault(values: &[(&'static str, &str)]) -> ResetFault {
        let Ok(Fault::Reset(fault)) = build(&given(values)) else { panic!("{values:?}") };
        fault
    }

    fn ends(local: &str, peer: &str) -> Ends {
        Ends { local: local.parse().unwrap(), peer: peer.parse().unwrap() }
    }

    #[test]
    fn once_and_all_of_them_unless_told() {
        assert_eq!(fault(&[]).to_string(), "reset 100% once");
        assert_eq!(fault(&[("every", "5s"), ("percent", "20")]).to_string(), "reset 20% every 5s");
    }

    #[test]
    fn refusals_name_the_field() {
        for (value, part) in [
            (("every", "10"), "every: `10` has no unit"),
            (("every", "10ms"), "every: `10ms` is too often; write at least `100ms`"),
            (("every", "0s"), "every: `0s` is too often"),
            (("protocol", "udp"), "protocol: only TCP has connections"),
            (("percent", "101"), "percent: `101`"),
        ] {
            let message = build(&given(&[value])).unwrap_err().to_string();
            assert!(message.starts_with(part), "{message}");
        }
    }

    #[test]
    fn filters_pick_connections() {
        let web = ends("10.0.0.1:40000", "10.0.0.2:443");
        for (values, wanted) in [
            (&[][..], true),
            (&[("peers", "10.0.0.0/8")], true),
            (&[("peers", "fd00::/8")], false),
            (&[("ports", "443")], true),
            (&[("ports", "80")], false),
            (&[("local_ports", "40000-50000")], true),
            (&[("local_ports", "443")], false),
            (&[("ports", "443"), ("peers", "10.0.0.3")], false),
            (&[("allow", "10.0.0.2")], false),
            (&[("allow", ":40000")], false),
            (&[("allow", ":443")], false),
            (&[("allow", "10.0.0.2:80")], true),
            (&[("peers", "10.0.0.2"), ("allow", "10.0.0.0/24:443")], false),
        ] {
            assert_eq!(fault(values).is_for(web), wanted, "{values:?}");
        }
        assert!(fault(&[("peers", "fd00::/8")]).is_for(ends("[fd00::1]:1", "[fd00::2]:2")));
    }
}
