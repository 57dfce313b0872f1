//! A name service that says something else, or nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use chaos_common::dns::{DnsAnswer, MAX_NAMES, rcode};

use super::{
    Fault, Pattern,
    catalogue::{FaultEntry, Parameter, list, value},
    course,
    filter::{self, Defaults},
    limits,
    net::{NetEffect, NetFault},
    pattern,
    text::{FieldError, Given},
};
use crate::units::{BadValue, NameSuffix, parse_address, parse_duration, quoted, show_duration};

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "dns",
    summary: "queries to name servers are answered falsely, or not at all",
    parameters: &[PARAMETERS, pattern::PARAMETERS, limits::PARAMETERS, &[course::PULSE_PARAMETER]],
    build,
    command: "kchaos inject dns --answer nxdomain --names example.com --on docker:web --for 30s",
    yaml: "- dns:\n    names: [db.internal, \"*.example.com\"]\n    answer: servfail\n",
};

const PARAMETERS: &[Parameter] = &[
    value("answer", "nxdomain|servfail|refused|drop", "-", "what becomes of a query; or `address`"),
    list("address", "ADDRESS, …", "-", "forged: one IPv4 address, one IPv6 address, or both; or `answer`"),
    value("ttl", "DURATION", "1s", "with address: how long it may be kept"),
    list("names", "NAME|*.NAME, …", "all", "only questions for these names and what is below them"),
    value("tcp", "drop|pass", "drop", "what becomes of TCP to the same ports, in which names are not seen"),
    list("ports", "PORT|FIRST-LAST, …", "53", "where name servers listen"),
    filter::PEERS,
    filter::ALLOW,
];

/// What becomes of queries, and of which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// What becomes of them.
    pub answer: Answer,
    /// For which names; any if empty.
    pub names: Vec<NameSuffix>,
    /// What becomes of TCP to the same ports.
    pub tcp: Tcp,
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer without records.
    Failure(Failure),
    /// Forged addresses.
    Forged {
        /// For questions of type A.
        v4: Option<Ipv4Addr>,
        /// For questions of type AAAA.
        v6: Option<Ipv6Addr>,
        /// How long they may be kept.
        ttl_s: u32,
    },
}

/// What becomes of a query that gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such name.
    Nxdomain,
    /// The server is in trouble.
    Servfail,
    /// The server does not want to.
    Refused,
    /// Nobody answers.
    Drop,
}

/// What becomes of TCP to name servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tcp {
    /// It disappears.
    #[default]
    Drop,
    /// It is spared.
    Pass,
}

impl Dns {
    /// As the kernel half takes it.
    pub const fn to_kernel(&self) -> DnsAnswer {
        let nothing = DnsAnswer {
            drop: 0,
            rcode: rcode::NOERROR,
            ttl_s: 0,
            has_v4: 0,
            has_v6: 0,
            v4: [0; 16],
            v6: [0; 16],
        };
        match self.answer {
            Answer::Failure(Failure::Drop) => DnsAnswer { drop: 1, ..nothing },
            Answer::Failure(Failure::Nxdomain) => DnsAnswer { rcode: rcode::NXDOMAIN, ..nothing },
            Answer::Failure(Failure::Servfail) => DnsAnswer { rcode: rcode::SERVFAIL, ..nothing },
            Answer::Failure(Failure::Refused) => DnsAnswer { rcode: rcode::REFUSED, ..nothing },
            Answer::Forged { v4, v6, ttl_s } => {
                let (has_v4, v4) = match v4 {
                    Some(address) => (1, padded(address.octets())),
                    None => (0, [0; 16]),
                };
                let (has_v6, v6) = match v6 {
                    Some(address) => (1, address.octets()),
                    None => (0, [0; 16]),
                };
                DnsAnswer { ttl_s, has_v4, has_v6, v4, v6, ..nothing }
            }
        }
    }
}

const fn padded([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let names = given.each("names", str::parse::<NameSuffix>)?;
    if names.len() > MAX_NAMES {
        let why = BadValue::new(
            format!("{} names are too many", names.len()),
            format!("write at most {MAX_NAMES}"),
        );
        return Err(FieldError::new("names", why));
    }
    let tcp = given.optional("tcp", str::parse)?.unwrap_or_default();
    let effect = NetEffect::Dns(Dns { answer: answer(given)?, names, tcp });
    let mut fault = NetFault::build(effect, given, Some(Pattern::ALL))?;
    // A gateway or the node itself may be the name server.
    fault.filter.defaults = Defaults::Hit;
    if fault.filter.ports.is_empty() {
        fault.filter.ports.push(53..=53);
    }
    Ok(Fault::Net(fault))
}

fn answer(given: &Given) -> Result<Answer, FieldError> {
    const ONE: &str = "give exactly one of `answer`, `address`";
    match (given.optional("answer", str::parse::<Failure>)?, given.has("address")) {
        (Some(_), true) => Err(FieldError::new("address", BadValue::new("`answer` is given already", ONE))),
        (None, false) => {
            Err(FieldError::new("answer", BadValue::new("nothing says what the answer is", ONE)))
        }
        (None, true) => forged(given),
        (Some(failure), false) if given.has("ttl") => {
            let why = format!("{failure} has nothing that could be kept");
            Err(FieldError::new("ttl", BadValue::new(why, "leave it out, or use `address`")))
        }
        (Some(failure), false) => Ok(Answer::Failure(failure)),
    }
}

fn forged(given: &Given) -> Result<Answer, FieldError> {
    let (mut v4, mut v6) = (None, None);
    for (i, address) in given.each("address", parse_address)?.into_iter().enumerate() {
        let twice = match address {
            IpAddr::V4(address) => v4.replace(address).is_some(),
            IpAddr::V6(address) => v6.replace(address).is_some(),
        };
        if twice {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let why = BadValue::new(format!("this is the second {family} address"), "write one of each kind");
            return Err(FieldError::new(format!("address[{i}]"), why));
        }
    }
    let ttl_s = given.optional("ttl", parse_ttl)?.unwrap_or(1);
    Ok(Answer::Forged { v4, v6, ttl_s })
}

/// DNS counts whole seconds.
fn parse_ttl(text: &str) -> Result<u32, BadValue> {
    let ttl = parse_duration(text)?;
    match u32::try_from(ttl.as_secs()) {
        Ok(seconds) if ttl.subsec_nanos() == 0 => Ok(seconds),
        _ => Err(BadValue::new(
            format!("{} is not a whole number of seconds", quoted(text)),
            "write one such as `1s`, or `0s` to have it asked for every time",
        )),
    }
}

impl fmt::Display for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.answer {
            Answer::Failure(failure) => write!(f, "{failure}")?,
            Answer::Forged { v4, v6, ttl_s } => {
                let v4 = v4.map(|address| address.to_string());
                let v6 = v6.map(|address| address.to_string());
                let addresses: Vec<String> = v4.into_iter().chain(v6).collect();
                let ttl = show_duration(Duration::from_secs(ttl_s.into()));
                write!(f, "{} for {ttl}", addresses.join(" and "))?;
            }
        }
        let names: Vec<String> = self.names.iter().map(NameSuffix::to_string).collect();
        if names.is_empty() { Ok(()) } else { write!(f, " to {}", names.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::DirectionSpec;

    fn given(values: &[(&'static str, &str)]) -> Given {
        values.iter().fold(Given::new(&ENTRY), |given, (name, value)| given.with(name, value))
    }

    fn fault(values: &[(&'static str, &str)]) -> (NetFault, Dns) {
        let Fault::Net(net) = build(&given(values)).unwrap() else { panic!("a network fault") };
        let NetEffect::Dns(dns) = net.effect.clone() else { panic!("not dns") };
        (net, dns)
    }

    #[test]
    fn all_names_at_port_53_unless_told_otherwise() {
        let (net, dns) = fault(&[("answer", "nxdomain")]);
        assert_eq!((net.pattern, net.direction), (Pattern::ALL, DirectionSpec::Egress));
        assert_eq!(net.filter.ports, [53..=53]);
        assert_eq!((dns.names.len(), dns.tcp), (0, Tcp::Drop));
        assert_eq!(net.to_string(), "dns 100% egress, nxdomain");
        let (net, _) = fault(&[("answer", "drop"), ("ports", "5353"), ("tcp", "pass")]);
        assert_eq!(net.filter.ports, [5353..=5353]);
    }

    #[test]
    fn addresses_can_be_forged() {
        let both =
            [("address", "10.0.0.1"), ("address", "fd00::1"), ("ttl", "1m"), ("names", "*.example.com")];
        let (net, dns) = fault(&both);
        let kernel = dns.to_kernel();
        assert_eq!((kernel.has_v4, kernel.has_v6, kernel.ttl_s), (1, 1, 60));
        assert_eq!((&kernel.v4[..5], kernel.v6[0], kernel.v6[15]), (&[10, 0, 0, 1, 0][..], 0xfd, 1));
        assert_eq!(net.to_string(), "dns 100% egress, 10.0.0.1 and fd00::1 for 1m to *.example.com");
        let (_, dns) = fault(&[("address", "10.0.0.1")]);
        assert_eq!((dns.to_kernel().has_v6, dns.to_kernel().ttl_s), (0, 1));
    }

    #[test]
    fn failures_are_what_servers_say() {
        for (answer, rcode) in [("nxdomain", 3), ("servfail", 2), ("refused", 5)] {
            let (_, dns) = fault(&[("answer", answer)]);
            assert_eq!((dns.to_kernel().drop, dns.to_kernel().rcode), (0, rcode));
        }
        assert_eq!(fault(&[("answer", "drop")]).1.to_kernel().drop, 1);
    }

    #[test]
    fn refusals_name_the_field() {
        for (values, part) in [
            (&[][..], "answer: nothing says"),
            (&[("answer", "nx")], "answer: `nx` is not an answer"),
            (&[("answer", "drop"), ("address", "10.0.0.1")], "address: `answer` is given already"),
            (&[("answer", "drop"), ("ttl", "1s")], "ttl: drop has nothing"),
            (&[("address", "10.0.0.1"), ("address", "10.0.0.2")], "address[1]: this is the second IPv4"),
            (&[("address", "10.0.0.0/8")], "address: `10.0.0.0/8` is not an address"),
            (&[("address", "10.0.0.1"), ("ttl", "1500ms")], "ttl: `1500ms` is not a whole number"),
            (&[("answer", "drop"), ("names", "a..b")], "names: `a..b`"),
            (&[("answer", "drop"), ("tcp", "reset")], "tcp: `reset` is not"),
        ] {
            let message = build(&given(values)).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let many = (0..17).fold(given(&[("answer", "drop")]), |given, _| given.with("names", "a"));
        assert!(build(&many).unwrap_err().to_string().contains("names: 17 names are too many"));
    }
}
