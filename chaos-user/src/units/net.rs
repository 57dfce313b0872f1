//! Addresses, networks, ports, and entries of the allow-list.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{BadValue, quoted};
use crate::fault::filter::{Allow, PortRange};

/// A port or a range of ports: `80`, `8000-8100`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub PortRange);

impl FromStr for Ports {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(text, first)?, port(text, last)?);
        if last < first {
            return Err(BadValue::new(
                format!("{} ends before it begins", quoted(text)),
                format!("write `{last}-{first}`"),
            ));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

fn port(whole: &str, part: &str) -> Result<u16, BadValue> {
    part.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
        let what = match part.trim().parse::<u64>() {
            Ok(number) => format!("{number} is not a port"),
            Err(_) => format!("{} is not a port or a range of ports", quoted(whole)),
        };
        BadValue::new(what, "write numbers from 1 to 65535, such as `80` or `8000-8100`")
    })
}

/// Parses an address or a network, IPv4 or IPv6. An address is the network of its own.
pub fn parse_network(text: &str) -> Result<IpNet, BadValue> {
    let trimmed = text.trim();
    if let Ok(address) = trimmed.parse::<IpAddr>() {
        return not_mapped(text, address).map(IpNet::from);
    }
    let network = trimmed.parse::<IpNet>().map_err(|_| not_a_network(text))?;
    not_mapped(text, network.addr())?;
    if network.addr() != network.network() {
        return Err(BadValue::new(
            format!("{} has bits set behind its prefix", quoted(text)),
            format!(
                "write `{}` for the network or `{}` for the one address",
                network.trunc(),
                network.addr()
            ),
        ));
    }
    Ok(network)
}

/// Parses the address of one host, IPv4 or IPv6.
pub fn parse_address(text: &str) -> Result<IpAddr, BadValue> {
    let address = text.trim().parse().map_err(|_| {
        let right = "write one such as `10.0.0.1` or `fd00::1`";
        BadValue::new(format!("{} is not an address", quoted(text)), right)
    })?;
    not_mapped(text, address)
}

/// A network as [`parse_network`] reads it: an address alone if it is one.
pub fn show_network(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Packets of IPv4-mapped sockets are IPv4 packets, so a filter on the mapped address would never match.
fn not_mapped(text: &str, address: IpAddr) -> Result<IpAddr, BadValue> {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(BadValue::new(
                format!("{} is an IPv4 address mapped into IPv6, which no packet carries", quoted(text)),
                format!("write `{v4}`"),
            )),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}

fn not_a_network(text: &str) -> BadValue {
    let trimmed = text.trim();
    let right = if trimmed.contains('%') {
        "leave the zone (`%…`) out: packets do not carry it"
    } else if trimmed.starts_with(|c: char| c.is_ascii_alphabetic()) && !trimmed.contains(':') {
        "write its address: the kernel sees no names"
    } else {
        "write one such as `10.0.0.1`, `10.0.0.0/8`, `fd00::1` or `fd00::/8`"
    };
    BadValue::new(format!("{} is not an address or a network", quoted(text)), right)
}

impl FromStr for Allow {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let trimmed = text.trim();
        if trimmed.parse::<u16>().is_ok() {
            return Err(BadValue::new(
                format!("{} could be a port or an address", quoted(text)),
                format!("write `:{trimmed}` for a port"),
            ));
        }
        let (peer, ports) = split_ports(trimmed).ok_or_else(|| unclosed(text))?;
        let allow = Self {
            peer: peer.map(parse_network).transpose()?,
            ports: ports.map(|ports| ports.parse::<Ports>().map(|ports| ports.0)).transpose()?,
        };
        if allow.peer.is_none() && allow.ports.is_none() {
            return Err(BadValue::new(
                "an empty entry allows nothing",
                "write one such as `10.0.0.1` or `:22`",
            ));
        }
        Ok(allow)
    }
}

/// Splits the ports off: they follow the only colon, the colon after a bracket, or a colon alone in front.
/// Any other text with colons is an IPv6 address.
fn split_ports(text: &str) -> Option<(Option<&str>, Option<&str>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (peer, rest) = bracketed.split_once(']')?;
        return match rest {
            "" => Some((Some(peer), None)),
            rest => Some((Some(peer), Some(rest.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        Some(("", ports)) if !ports.contains(':') => Some((None, Some(ports))),
        Some((peer, ports)) if !ports.contains(':') => Some((Some(peer), Some(ports))),
        _ => Some(((!text.is_empty()).then_some(text), None)),
    }
}

fn unclosed(text: &str) -> BadValue {
    BadValue::new(format!("{} has brackets but no port after them", quoted(text)), "write `[fd00::1]:443`")
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.peer, &self.ports) {
            (Some(peer @ IpNet::V6(_)), Some(_)) => write!(f, "[{}]", show_network(peer))?,
            (Some(peer), _) => f.write_str(&show_network(peer))?,
            (None, _) => {}
        }
        match &self.ports {
            Some(ports) => write!(f, ":{}", Ports(ports.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!("80".parse(), Ok(Ports(80..=80)));
        assert_eq!("8000-8100".parse(), Ok(Ports(8000..=8100)));
        assert_eq!("8000 - 8100".parse(), Ok(Ports(8000..=8100)));
        for (text, part) in [
            ("0", "0 is not a port"),
            ("65536", "65536 is not a port"),
            ("90-80", "write `80-90`"),
            ("http", "not a port"),
            ("80-", "not a port"),
            ("-80", "not a port"),
            ("", "not a port"),
        ] {
            let error = text.parse::<Ports>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn networks_read_back() {
        for text in ["10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "fd00::/8", "fd00::1", "::/0"] {
            assert_eq!(show_network(parse_network(text).unwrap()), text);
        }
        assert_eq!(parse_network("10.0.0.1"), parse_network("10.0.0.1/32"));
    }

    #[test]
    fn addresses_are_of_one_host() {
        assert_eq!(parse_address(" fd00::1 ").unwrap().to_string(), "fd00::1");
        for text in ["10.0.0.0/8", "example.com", "", "::ffff:10.0.0.1"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_refused() {
        for (text, part) in [
            ("10.0.0.1/8", "write `10.0.0.0/8` for the network or `10.0.0.1`"),
            ("fd00::1/8", "write `fd00::/8`"),
            ("10.0.0.0/33", "not an address"),
            ("10.0.0", "not an address"),
            ("fe80::1%eth0", "zone"),
            ("example.com", "no names"),
            ("::ffff:10.0.0.1", "write `10.0.0.1`"),
            ("10.0.0.0/255.0.0.0", "`10.0.0.0/8`"),
            ("", "not an address"),
        ] {
            let error = parse_network(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn allow_entries_read_back() {
        for text in [
            "10.0.0.1",
            "10.0.0.0/8",
            ":22",
            ":8000-8100",
            "10.0.0.1:22",
            "10.0.0.0/8:8000-8100",
            "fd00::1",
            "::1",
            "fd00::/8",
            "[fd00::1]:22",
            "[fd00::/8]:22-23",
        ] {
            assert_eq!(text.parse::<Allow>().unwrap().to_string(), text);
        }
        assert_eq!("[fd00::1]".parse(), Ok(Allow::from("fd00::1".parse::<IpAddr>().unwrap())));
        assert_eq!(":22".parse(), Ok(Allow { peer: None, ports: Some(22..=22) }));
    }

    #[test]
    fn allow_entries_refused() {
        for (text, part) in [
            ("22", "write `:22`"),
            ("", "allows nothing"),
            (":", "not a port"),
            ("10.0.0.1:", "not a port"),
            ("[fd00::1", "brackets"),
            ("[fd00::1]22", "brackets"),
            ("10.0.0.1/8:22", "`10.0.0.0/8`"),
            ("ssh", "no names"),
        ] {
            let error = text.parse::<Allow>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
