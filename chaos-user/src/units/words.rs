//! Words out of a fixed set: directions, protocols, metrics.

use std::{fmt, str::FromStr};

use super::{BadValue, did_you_mean, list, nearest, quoted};
use crate::{
    experiment::hypothesis::Metric,
    fault::{
        dns::{Failure, Tcp},
        filter::{Connections, DirectionSpec, Protocol},
        jitter::{Distribution, Order},
        loss::{Unit, Visibility},
        partition::Reject,
        refuse::SocketCall,
    },
};

impl DirectionSpec {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Egress, Self::Ingress, Self::Both];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Both => "both",
        }
    }
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl Connections {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::New, Self::Established];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
        }
    }
}

impl Visibility {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Wire, Self::Local];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Local => "local",
        }
    }
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Packets, Self::Segments];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Segments => "segments",
        }
    }
}

impl Reject {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Rst, Self::Icmp];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rst => "rst",
            Self::Icmp => "icmp",
        }
    }
}

impl FromStr for Reject {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "a way to reject", &Self::ALL, |reject| reject.name())
    }
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nxdomain, Self::Servfail, Self::Refused, Self::Drop];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nxdomain => "nxdomain",
            Self::Servfail => "servfail",
            Self::Refused => "refused",
            Self::Drop => "drop",
        }
    }
}

impl FromStr for Failure {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "an answer", &Self::ALL, |failure| failure.name())
    }
}

impl Tcp {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Drop, Self::Pass];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
    }
}

impl FromStr for Tcp {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "what can become of TCP", &Self::ALL, |tcp| tcp.name())
    }
}

impl FromStr for DirectionSpec {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "a direction", &Self::ALL, |direction| direction.name())
    }
}

impl FromStr for Protocol {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "a protocol", &Self::ALL, |protocol| protocol.name())
    }
}

impl FromStr for Connections {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "a part of connections", &Self::ALL, |part| part.name())
    }
}

impl FromStr for Visibility {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "a visibility", &Self::ALL, |visibility| visibility.name())
    }
}

impl FromStr for Unit {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "a unit", &Self::ALL, |unit| unit.name())
    }
}

impl FromStr for Distribution {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "a distribution", &Self::ALL, |distribution| distribution.name())
    }
}

impl FromStr for Order {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "an order", &Self::ALL, |order| order.name())
    }
}

impl FromStr for SocketCall {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        one_of(text, "a call on sockets", &Self::ALL, |call| call.name())
    }
}

/// `true` or `false`.
pub fn parse_flag(text: &str) -> Result<bool, BadValue> {
    one_of(text, "`true` or `false`", &[true, false], |flag| if flag { "true" } else { "false" })
}

macro_rules! shown_by_name {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    )+};
}
shown_by_name!(
    DirectionSpec,
    Protocol,
    Connections,
    Visibility,
    Unit,
    Metric,
    Distribution,
    Order,
    SocketCall,
    Reject,
    Failure,
    Tcp
);

/// The one of `all` that is called `text`.
pub fn one_of<T: Copy>(
    text: &str,
    kind: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, BadValue> {
    let trimmed = text.trim();
    let found = all.iter().copied().find(|one| name(*one) == trimmed);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().copied().map(name).collect();
        let right = match nearest(trimmed, names.iter().copied()) {
            // A short set is worth showing whole, even next to a guess.
            Some(near) if names.len() <= 3 => format!("did you mean `{near}`? It is one of {}", list(names)),
            _ => did_you_mean(trimmed, names),
        };
        BadValue::new(format!("{} is not {kind}", quoted(text)), right)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for metric in Metric::ALL {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
        for direction in DirectionSpec::ALL {
            assert_eq!(direction.to_string().parse(), Ok(direction));
        }
        for protocol in Protocol::ALL {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        for call in SocketCall::ALL {
            assert_eq!(call.to_string().parse(), Ok(call));
        }
        for part in Connections::ALL {
            assert_eq!(part.to_string().parse(), Ok(part));
        }
        for visibility in Visibility::ALL {
            assert_eq!(visibility.to_string().parse(), Ok(visibility));
        }
        for unit in Unit::ALL {
            assert_eq!(unit.to_string().parse(), Ok(unit));
        }
        assert_eq!((parse_flag("true"), parse_flag(" false ")), (Ok(true), Ok(false)));
        assert!(parse_flag("yes").is_err());
    }

    #[test]
    fn near_misses() {
        let refusal = |error: BadValue| error.to_string();
        assert!(
            "egres".parse::<DirectionSpec>().map_err(refusal).unwrap_err().contains("did you mean `egress`?")
        );
        assert!(
            "out"
                .parse::<DirectionSpec>()
                .map_err(refusal)
                .unwrap_err()
                .contains("`egress`, `ingress`, `both`")
        );
        assert!("net.rx_byte".parse::<Metric>().map_err(refusal).unwrap_err().contains("`net.rx_bytes`"));
        assert!("TCP".parse::<Protocol>().map_err(refusal).unwrap_err().contains("did you mean `tcp`?"));
    }
}
