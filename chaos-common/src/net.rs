//! Network faults: where they are decided, and packet filters.

/// Which way a packet goes, seen from the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Leaving.
    Egress,
    /// Arriving.
    Ingress,
}

/// How many programs can ask the gate about packets or about calls on sockets.
pub const MAX_HOOKS: usize = 32;

/// The programs that ask the gate about packets or about calls on sockets, as indices of [`NetConfig::rules`].
pub mod hook {
    /// Loses what leaves.
    pub const LOSS_EGRESS: usize = 0;
    /// Loses what arrives.
    pub const LOSS_INGRESS: usize = 1;
    /// Changes what leaves.
    pub const CORRUPT_EGRESS: usize = 6;
    /// Changes what arrives.
    pub const CORRUPT_INGRESS: usize = 7;
    /// Sends copies of what leaves.
    pub const DUPLICATE_EGRESS: usize = 8;
    /// Hands over copies of what arrives.
    pub const DUPLICATE_INGRESS: usize = 9;
    /// Holds back what leaves.
    pub const SHAPE_EGRESS: usize = 2;
    /// Holds back what arrives.
    pub const SHAPE_INGRESS: usize = 10;
    /// Sends what leaves by the queue that holds it back.
    pub const PRIORITY_EGRESS: usize = 12;
    /// Refuses connect(2).
    pub const REFUSE_CONNECT: usize = 24;
    /// Refuses bind(2).
    pub const REFUSE_BIND: usize = 25;
    /// Refuses sendto(2) and its like, where they name a peer.
    pub const REFUSE_SENDMSG: usize = 26;
    /// Refuses socket(2).
    pub const REFUSE_SOCKET: usize = 27;
    /// Refuses setsockopt(2).
    pub const REFUSE_SETSOCKOPT: usize = 28;
    /// Refuses getsockopt(2).
    pub const REFUSE_GETSOCKOPT: usize = 29;
    /// Answers what leaves in the peer's name.
    pub const REJECT_EGRESS: usize = 3;
    /// Loses what arrives, but for the answers of [`REJECT_EGRESS`].
    pub const REJECT_INGRESS: usize = 4;
    /// Answers or loses what asks a name server.
    pub const DNS_EGRESS: usize = 5;
}

/// How a packet is answered that cannot leave.
pub mod reject {
    /// A TCP segment by a reset; anything else disappears.
    pub const RST: u32 = 0;
    /// By ICMP's word that it is prohibited.
    pub const ICMP: u32 = 1;
}

/// How many filter clauses one injection can hold: the width of a clause bitmask.
pub const MAX_CLAUSES: u32 = 64;
/// How many prefixes the clauses may name.
pub const MAX_PREFIXES: u32 = 4096;

/// Where in `PORTS` the peer's port is.
#[inline(always)]
pub const fn peer_port_key(port: u16) -> u32 {
    port as u32
}

/// Where in `PORTS` the cgroup's own port is.
#[inline(always)]
pub const fn local_port_key(port: u16) -> u32 {
    65_536 + port as u32
}

/// Bits of [`NetConfig::uses`].
pub mod uses {
    /// Some rule has clauses, so packets have to be parsed.
    pub const CLAUSES: u32 = 1 << 0;
    /// Some clause names a prefix.
    pub const PEERS: u32 = 1 << 1;
    /// Some clause names a port.
    pub const PORTS: u32 = 1 << 2;
    /// Packets on the loopback device are meant too.
    pub const LOOPBACK: u32 = 1 << 3;
    /// Some clause tells the handshakes of TCP from the rest.
    pub const CONNECTIONS: u32 = 1 << 4;
    /// All devices that packets leave by have Ethernet headers.
    pub const ETHERNET: u32 = 1 << 5;
}

crate::pod! {
    /// What network rules have in common; fixed when the programs are loaded.
    ///
    /// A clause is one term of a filter: *this protocol and these prefixes and these ports*. A packet
    /// matches a clause when every dimension does; each dimension is one mask of the clauses it allows.
    pub struct NetConfig {
        /// For each [`hook`], the rules that it asks.
        pub rules: [u64; MAX_HOOKS],
        /// Clauses that match whatever the peer's address is.
        pub any_peer: u64,
        /// Clauses that match whatever the peer's port is.
        pub any_peer_port: u64,
        /// Clauses that match whatever the cgroup's own port is.
        pub any_local_port: u64,
        /// Clauses that match whatever name a packet asks for.
        pub any_name: u64,
        /// Clauses that match TCP.
        pub tcp: u64,
        /// Clauses that match UDP.
        pub udp: u64,
        /// Clauses that match ICMP and ICMPv6.
        pub icmp: u64,
        /// Clauses that match every other protocol.
        pub other: u64,
        /// Clauses that match TCP segments of a handshake.
        pub new: u64,
        /// Clauses that match all other TCP segments.
        pub established: u64,
        /// Rules whose losses the sender is told of.
        pub told: u64,
        /// [Steps](crate::ranges::steps) of a search for an IPv4 peer.
        pub peer_v4_steps: u32,
        /// The same in IPv6.
        pub peer_v6_steps: u32,
        /// The same for a port.
        pub port_steps: u32,
        /// Bits of [`uses`].
        pub uses: u32,
    }
}

impl NetConfig {
    /// No rules, no clauses.
    pub const NONE: Self = Self {
        rules: [0; MAX_HOOKS],
        any_peer: 0,
        any_peer_port: 0,
        any_local_port: 0,
        any_name: 0,
        tcp: 0,
        udp: 0,
        icmp: 0,
        other: 0,
        new: 0,
        established: 0,
        told: 0,
        peer_v4_steps: 0,
        peer_v6_steps: 0,
        port_steps: 0,
        uses: 0,
    };
}
