//! Names of programs, maps and globals, once.
//!
//! The kernel half cannot use these constants for its symbols (an attribute takes no constant), so a
//! test of the controller checks that the object holds every name here.

/// Programs.
pub mod program {
    /// tc egress: network faults on what leaves a device.
    pub const NET_EGRESS: &str = "net_egress";
    /// cgroup_skb ingress: network faults on what reaches a cgroup's sockets.
    pub const NET_INGRESS: &str = "net_ingress";
    /// cgroup_skb egress: counts only.
    pub const STEADY_EGRESS: &str = "steady_egress";
    /// cgroup_skb ingress: counts only.
    pub const STEADY_INGRESS: &str = "steady_ingress";
    /// raw_tp sys_exit: counts only.
    pub const STEADY_SYSCALLS: &str = "steady_syscalls";
    /// raw_tp tcp_retransmit_skb: counts only.
    pub const STEADY_RETRANSMITS: &str = "steady_retransmits";
    /// tc: does nothing; the peer of benchmarks.
    pub const BENCH_EMPTY: &str = "bench_empty";
    /// All of them.
    pub const ALL: [&str; 7] = [
        NET_EGRESS,
        NET_INGRESS,
        STEADY_EGRESS,
        STEADY_INGRESS,
        STEADY_SYSCALLS,
        STEADY_RETRANSMITS,
        BENCH_EMPTY,
    ];
}

/// Maps.
pub mod map {
    /// cgroup id → [`Target`](crate::Target).
    pub const TARGETS: &str = "TARGETS";
    /// rule → [`Rule`](crate::Rule).
    pub const RULES: &str = "RULES";
    /// rule × slot → [`RuleState`](crate::RuleState).
    pub const RULE_STATE: &str = "RULE_STATE";
    /// rule × slot → [`RuleStats`](crate::RuleStats), per CPU.
    pub const RULE_STATS: &str = "RULE_STATS";
    /// rule → [`BudgetState`](crate::rule::BudgetState).
    pub const BUDGETS: &str = "BUDGETS";
    /// 0 → [`Lease`](crate::Lease).
    pub const LEASE: &str = "LEASE";
    /// IPv4 prefix → clause mask.
    pub const PEERS_V4: &str = "PEERS_V4";
    /// IPv6 prefix → clause mask.
    pub const PEERS_V6: &str = "PEERS_V6";
    /// side × port → clause mask.
    pub const PORTS: &str = "PORTS";
    /// slot → [`Counters`](crate::Counters), per CPU.
    pub const STEADY: &str = "STEADY";
    /// All of them.
    pub const ALL: [&str; 10] =
        [TARGETS, RULES, RULE_STATE, RULE_STATS, BUDGETS, LEASE, PEERS_V4, PEERS_V6, PORTS, STEADY];
}

/// Read-only globals that the loader fills in before the verifier sees the programs.
pub mod global {
    /// [`Levels`](crate::rule::Levels).
    pub const LEVELS: &str = "LEVELS";
    /// `u32`: how many slots there are; `RULE_STATE` and `RULE_STATS` have 64 × this many entries.
    pub const SLOTS: &str = "SLOTS";
    /// [`NetConfig`](crate::net::NetConfig).
    pub const NET: &str = "NET";
    /// [`SockLayout`](crate::steady::SockLayout).
    pub const SOCK_LAYOUT: &str = "SOCK_LAYOUT";
    /// All of them.
    pub const ALL: [&str; 4] = [LEVELS, SLOTS, NET, SOCK_LAYOUT];
}
