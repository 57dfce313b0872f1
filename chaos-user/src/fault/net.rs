//! Network faults.

use std::{net::IpAddr, ops::RangeInclusive};

use chaos_common::{Chance, net::Loss};
use ipnet::IpNet;

use super::Limits;

/// Packets disappear on the way; neither end is told.
#[derive(Clone, Debug, PartialEq)]
pub struct LossFault {
    /// Which packets of a sequence.
    pub model: LossModel,
    /// Which way.
    pub direction: DirectionSpec,
    /// Which packets at all.
    pub filter: NetFilter,
    /// How often.
    pub limits: Limits,
}

/// Which packets of a sequence are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossModel {
    /// Each with this chance; with a correlation, in bursts.
    Random {
        /// Share lost in the long run.
        chance: Chance,
        /// Autocorrelation from one packet to the next, 0 for independent losses.
        correlation: Chance,
    },
    /// Gilbert–Elliott, parameters as in `tc-netem(8)`.
    GilbertElliott {
        /// good → bad.
        p: Chance,
        /// bad → good.
        r: Chance,
        /// Lost while bad (1-h).
        lost_in_bad: Chance,
        /// Lost while good (1-k).
        lost_in_good: Chance,
    },
    /// The four-state model of `tc-netem(8)`.
    FourState {
        /// received in gap → lost in burst.
        p13: Chance,
        /// lost in burst → received in gap.
        p31: Chance,
        /// lost in burst → received in burst.
        p32: Chance,
        /// received in burst → lost in burst.
        p23: Chance,
        /// received in gap → isolated loss.
        p14: Chance,
    },
    /// Every n-th packet, the n-th first.
    Every(u64),
}

impl LossModel {
    /// As the kernel half takes it.
    pub fn to_kernel(self) -> Loss {
        match self {
            Self::Random { chance, correlation } if correlation == Chance::NEVER => Loss::random(chance),
            Self::Random { chance, correlation } => Loss::correlated(chance, correlation),
            Self::GilbertElliott { p, r, lost_in_bad, lost_in_good } => {
                Loss::gilbert_elliott(p, r, lost_in_bad, lost_in_good)
            }
            Self::FourState { p13, p31, p32, p23, p14 } => Loss::four_state(p13, p31, p32, p23, p14),
            Self::Every(_) => Loss::random(Chance::ALWAYS),
        }
    }

    /// Share of the packets asked about that are lost in the long run.
    pub fn long_run_fraction(self) -> f64 {
        match self {
            Self::Every(n) => 1.0 / n as f64,
            other => other.to_kernel().long_run_fraction(),
        }
    }
}

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

/// A range of ports, both ends included.
pub type PortRange = RangeInclusive<u16>;

/// Which packets. An empty list lets everything through that dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetFilter {
    /// Only this protocol.
    pub protocol: Option<Protocol>,
    /// Only packets to or from these peers.
    pub peers: Vec<IpNet>,
    /// Only these ports of the peer.
    pub ports: Vec<PortRange>,
    /// Only these ports of the target itself.
    pub local_ports: Vec<PortRange>,
    /// Never these, whatever the rest says.
    pub allow: Vec<Allow>,
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

impl From<IpAddr> for Allow {
    fn from(address: IpAddr) -> Self {
        Self { peer: Some(address.into()), ports: None }
    }
}
