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
    /// lsm file_open: counts a probe's processes.
    pub const PROBE_LSM: &str = "probe_lsm";
    /// For fmod_ret: returns what the probe asks for to its own processes.
    pub const PROBE_RETURN: &str = "probe_return";
    /// fentry: counts a probe's processes.
    pub const PROBE_FENTRY: &str = "probe_fentry";
    /// fexit: counts a probe's processes.
    pub const PROBE_FEXIT: &str = "probe_fexit";
    /// kprobe: counts a probe's processes.
    pub const PROBE_KPROBE: &str = "probe_kprobe";
    /// kprobe: overrides the function's return value for a probe's processes.
    pub const PROBE_OVERRIDE: &str = "probe_override";
    /// cgroup connect4: refuses a probe's processes.
    pub const PROBE_CONNECT: &str = "probe_connect";
    /// sock_ops: counts.
    pub const PROBE_SOCK_OPS: &str = "probe_sock_ops";
    /// tc: does nothing; the peer of benchmarks.
    pub const BENCH_EMPTY: &str = "bench_empty";
    /// All of them.
    pub const ALL: [&str; 15] = [
        NET_EGRESS,
        NET_INGRESS,
        STEADY_EGRESS,
        STEADY_INGRESS,
        STEADY_SYSCALLS,
        STEADY_RETRANSMITS,
        PROBE_LSM,
        PROBE_RETURN,
        PROBE_FENTRY,
        PROBE_FEXIT,
        PROBE_KPROBE,
        PROBE_OVERRIDE,
        PROBE_CONNECT,
        PROBE_SOCK_OPS,
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
    /// 0 → `u64`: how often probe programs met a process of the probe.
    pub const PROBE_HITS: &str = "PROBE_HITS";
    /// All of them.
    pub const ALL: [&str; 11] = [
        TARGETS, RULES, RULE_STATE, RULE_STATS, BUDGETS, LEASE, PEERS_V4, PEERS_V6, PORTS, STEADY, PROBE_HITS,
    ];
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
    /// `u64`: id of the cgroup that a probe has made for itself; 0 is none.
    pub const PROBE_CGROUP: &str = "PROBE_CGROUP";
    /// `i32`: what probe programs make their hooks return.
    pub const PROBE_RET: &str = "PROBE_RET";
    /// All of them.
    pub const ALL: [&str; 6] = [LEVELS, SLOTS, NET, SOCK_LAYOUT, PROBE_CGROUP, PROBE_RET];
}
