//! Names of programs, maps and globals, once.
//!
//! The kernel half cannot use these constants for its symbols (an attribute takes no constant), so a
//! test of the controller checks that the object holds every name here.

macro_rules! names {
    ($($(#[$meta:meta])* $name:ident = $value:literal),* $(,)?) => {
        $($(#[$meta])* pub const $name: &str = $value;)*
        /// All of them.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

/// Programs.
pub mod program {
    names! {
        /// tc egress: loses what leaves a device.
        LOSS_EGRESS = "loss_egress",
        /// cgroup_skb ingress: loses what reaches a cgroup's sockets.
        LOSS_INGRESS = "loss_ingress",
        /// tc egress: holds back what leaves a device.
        SHAPE_EGRESS = "shape_egress",
        /// tc ingress: holds back what arrives at a device.
        SHAPE_INGRESS = "shape_ingress",
        /// tc ingress: the same by the actions of its filter.
        SHAPE_BY_ACTION = "shape_by_action",
        /// tc egress: sends what leaves a device by the queue that holds it back.
        PRIORITY_EGRESS = "priority_egress",
        /// cgroup connect4: refuses.
        REFUSE_CONNECT4 = "refuse_connect4",
        /// cgroup connect6: refuses.
        REFUSE_CONNECT6 = "refuse_connect6",
        /// cgroup bind4: refuses.
        REFUSE_BIND4 = "refuse_bind4",
        /// cgroup bind6: refuses.
        REFUSE_BIND6 = "refuse_bind6",
        /// cgroup sendmsg4: refuses.
        REFUSE_SENDMSG4 = "refuse_sendmsg4",
        /// cgroup sendmsg6: refuses.
        REFUSE_SENDMSG6 = "refuse_sendmsg6",
        /// cgroup sock_create: refuses.
        REFUSE_SOCKET = "refuse_socket",
        /// cgroup setsockopt: refuses.
        REFUSE_SETSOCKOPT = "refuse_setsockopt",
        /// cgroup getsockopt: refuses.
        REFUSE_GETSOCKOPT = "refuse_getsockopt",
        /// tc egress: answers what leaves a device in the peer's name.
        REJECT_EGRESS = "reject_egress",
        /// cgroup_skb ingress: loses what reaches a cgroup's sockets, but for such answers.
        REJECT_INGRESS = "reject_ingress",
        /// tc egress: answers what asks a name server.
        DNS_EGRESS = "dns_egress",
        /// tc egress: changes the payload of what leaves a device.
        CORRUPT_EGRESS = "corrupt_egress",
        /// tc ingress: changes the payload of what arrives at a device.
        CORRUPT_INGRESS = "corrupt_ingress",
        /// tc egress: sends copies of what leaves a device.
        DUPLICATE_EGRESS = "duplicate_egress",
        /// tc ingress: hands over copies of what arrives at a device.
        DUPLICATE_INGRESS = "duplicate_ingress",
        /// LSM, or fmod_ret: fails calls, and makes them pretend or signal.
        CALL_HOOK = "call_hook",
        /// kprobe: the same.
        CALL_OVERRIDE = "call_override",
        /// fentry: a call begins whose first answer is remembered.
        CALL_BEGIN = "call_begin",
        /// Says before a call's function how long the call shall take.
        CALL_JUDGE = "call_judge",
        /// Puts its caller to sleep then, in place of the function or after it.
        CALL_WAIT = "call_wait",
        /// LSM, fmod_ret or fexit that may sleep: puts callers to sleep.
        CALL_SLOW = "call_slow",
        /// LSM, fmod_ret or fexit: keeps callers busy.
        CALL_SPIN = "call_spin",
        /// cgroup_skb egress: counts only.
        STEADY_EGRESS = "steady_egress",
        /// cgroup_skb ingress: counts only.
        STEADY_INGRESS = "steady_ingress",
        /// raw_tp sys_exit: counts only.
        STEADY_SYSCALLS = "steady_syscalls",
        /// raw_tp sys_enter: notes the time only.
        STEADY_CALL_BEGINS = "steady_call_begins",
        /// raw_tp tcp_retransmit_skb: counts only.
        STEADY_RETRANSMITS = "steady_retransmits",
        /// raw_tp inet_sock_set_state: counts only.
        STEADY_CONNECTIONS = "steady_connections",
        /// raw_tp tcp_send_reset: counts only.
        STEADY_RESETS_SENT = "steady_resets_sent",
        /// raw_tp tcp_receive_reset: counts only.
        STEADY_RESETS_RECEIVED = "steady_resets_received",
        /// raw_tp tcp_probe: counts only.
        STEADY_ROUND_TRIPS = "steady_round_trips",
        /// raw_tp sched_process_exit: counts only.
        STEADY_EXITS = "steady_exits",
        /// raw_tp signal_deliver: counts only.
        STEADY_SIGNALS = "steady_signals",
        /// raw_tp sched_wakeup and sched_wakeup_new: notes the time only.
        STEADY_WAKEUPS = "steady_wakeups",
        /// raw_tp sched_switch: counts only.
        STEADY_SWITCHES = "steady_switches",
        /// raw_tp block_rq_issue: notes the time only.
        STEADY_BLOCK_ISSUES = "steady_block_issues",
        /// raw_tp block_rq_complete: counts only.
        STEADY_BLOCK_ENDS = "steady_block_ends",
        /// lsm file_open: counts a probe's processes.
        PROBE_LSM = "probe_lsm",
        /// For fmod_ret: returns what the probe asks for to its own processes.
        PROBE_RETURN = "probe_return",
        /// For lsm and fmod_ret that may sleep: delays a probe's processes.
        PROBE_SLEEP = "probe_sleep",
        /// fentry: counts a probe's processes.
        PROBE_FENTRY = "probe_fentry",
        /// fexit: counts a probe's processes.
        PROBE_FEXIT = "probe_fexit",
        /// kprobe: counts a probe's processes.
        PROBE_KPROBE = "probe_kprobe",
        /// kprobe: overrides the function's return value for a probe's processes.
        PROBE_OVERRIDE = "probe_override",
        /// cgroup connect4: refuses a probe's processes.
        PROBE_CONNECT = "probe_connect",
        /// sock_ops: counts.
        PROBE_SOCK_OPS = "probe_sock_ops",
        /// tc: does nothing; the peer of benchmarks.
        BENCH_EMPTY = "bench_empty",
    }
}

/// Maps.
pub mod map {
    names! {
        /// [`Target`](crate::Target)s, where [`TargetHash`](crate::targets::TargetHash) has them.
        TARGETS = "TARGETS",
        /// rule → [`Rule`](crate::Rule).
        RULES = "RULES",
        /// rule × slot → [`RuleState`](crate::RuleState).
        RULE_STATE = "RULE_STATE",
        /// rule × slot → [`RuleStats`](crate::RuleStats), per CPU.
        RULE_STATS = "RULE_STATS",
        /// rule → [`BudgetState`](crate::rule::BudgetState).
        BUDGETS = "BUDGETS",
        /// rule → [`Leaps`](crate::Leaps).
        LEAPS = "LEAPS",
        /// 0 → [`Lease`](crate::Lease).
        LEASE = "LEASE",
        /// [`Range`](crate::ranges::Range)s of IPv4 addresses.
        PEERS_V4 = "PEERS_V4",
        /// [`WideRange`](crate::ranges::WideRange)s of IPv6 addresses.
        PEERS_V6 = "PEERS_V6",
        /// [`Range`](crate::ranges::Range)s of ports.
        PORTS = "PORTS",
        /// rule → [`Shape`](crate::shape::Shape).
        SHAPES = "SHAPES",
        /// rule × slot → [`ShapeState`](crate::shape::ShapeState).
        SHAPE_STATE = "SHAPE_STATE",
        /// What a draw and a variate are turned into → [`Table`](crate::shape::Table).
        SHAPE_TABLES = "SHAPE_TABLES",
        /// Flow → `u64`: when its last packet leaves (CLOCK_MONOTONIC).
        SHAPE_FLOWS = "SHAPE_FLOWS",
        /// rule → [`Refusal`](crate::sock::Refusal).
        REFUSALS = "REFUSALS",
        /// rule → `u32`, one of [`reject`](crate::net::reject).
        REJECTS = "REJECTS",
        /// rule → [`DnsAnswer`](crate::dns::DnsAnswer).
        DNS_ANSWERS = "DNS_ANSWERS",
        /// beginning of a [key](crate::dns::write_key) → clause mask.
        DNS_NAMES = "DNS_NAMES",
        /// rule → [`Corruption`](crate::Corruption).
        CORRUPTIONS = "CORRUPTIONS",
        /// rule → [`Duplication`](crate::Duplication).
        DUPLICATIONS = "DUPLICATIONS",
        /// slot → [`Counters`](crate::Counters), per CPU.
        STEADY = "STEADY",
        /// slot → [`CallCounts`](crate::steady::CallCounts), per CPU.
        STEADY_CALLS = "STEADY_CALLS",
        /// slot → [`ErrorCounts`](crate::steady::ErrorCounts), per CPU.
        STEADY_ERRORS = "STEADY_ERRORS",
        /// slot → [`TcpCounts`](crate::steady::TcpCounts), per CPU.
        STEADY_TCP = "STEADY_TCP",
        /// slot → [`TaskCounts`](crate::steady::TaskCounts), per CPU.
        STEADY_TASKS = "STEADY_TASKS",
        /// [slot × series](crate::steady::histogram_index) → [`Histogram`](crate::steady::Histogram).
        STEADY_TIMES = "STEADY_TIMES",
        /// Thread in a call → [`Since`](crate::steady::Since).
        CALLING_SINCE = "CALLING_SINCE",
        /// Thread that could run → [`Since`](crate::steady::Since).
        RUNNABLE_SINCE = "RUNNABLE_SINCE",
        /// `struct request` → [`Since`](crate::steady::Since).
        ISSUED_SINCE = "ISSUED_SINCE",
        /// [`CallKey`](crate::syscall::CallKey) → [`CallEntry`](crate::syscall::CallEntry).
        CALLS = "CALLS",
        /// rule → [`CallEffect`](crate::syscall::CallEffect).
        CALL_EFFECTS = "CALL_EFFECTS",
        /// rule → [`CallFilter`](crate::syscall::CallFilter).
        CALL_FILTERS = "CALL_FILTERS",
        /// rule × pattern → [`PathTable`](crate::syscall::PathTable).
        CALL_PATHS = "CALL_PATHS",
        /// Thread → [`Remembered`](crate::syscall::Remembered).
        CALL_MEMORY = "CALL_MEMORY",
        /// 0 → [`SleepConfig`](crate::sleep::SleepConfig).
        SLEEP_CONFIG = "SLEEP_CONFIG",
        /// 0 → [`SleepState`](crate::sleep::SleepState).
        SLEEP_STATE = "SLEEP_STATE",
        /// slot of a sleeper → [`SleepRequest`](crate::sleep::SleepRequest).
        SLEEP_SLOTS = "SLEEP_SLOTS",
        /// 0 → [`SleepStats`](crate::sleep::SleepStats), per CPU.
        SLEEP_STATS = "SLEEP_STATS",
        /// slot → `u64`: until when its share of a processor is used (CLOCK_MONOTONIC).
        SPIN_DUE = "SPIN_DUE",
        /// 0 → `u64`: how often probe programs met a process of the probe.
        PROBE_HITS = "PROBE_HITS",
    }
}

/// Read-only globals that the loader fills in before the verifier sees the programs.
pub mod global {
    names! {
        /// [`Levels`](crate::rule::Levels).
        LEVELS = "LEVELS",
        /// `u32`: how many slots there are; `RULE_STATE` and `RULE_STATS` have 64 × this many entries.
        SLOTS = "SLOTS",
        /// [`TargetHash`](crate::targets::TargetHash).
        TARGET_HASH = "TARGET_HASH",
        /// [`NetConfig`](crate::net::NetConfig).
        NET = "NET",
        /// `u64`: rules whose pattern moves on by one step for each segment.
        BY_SEGMENT = "BY_SEGMENT",
        /// `u32`: whether any rule names paths.
        BY_PATH = "BY_PATH",
        /// `u32`: what marks the copies that this injection hands over to a device's ingress.
        COPY = "COPY",
        /// [`SockLayout`](crate::steady::SockLayout).
        SOCK_LAYOUT = "SOCK_LAYOUT",
        /// [`SteadyLayout`](crate::steady::SteadyLayout).
        STEADY_LAYOUT = "STEADY_LAYOUT",
        /// [`CallClasses`](crate::steady::CallClasses).
        CALL_CLASSES = "CALL_CLASSES",
        /// `u32`: whether calls are timed.
        CALLS_TIMED = "CALLS_TIMED",
        /// [`CallLayout`](crate::syscall::CallLayout).
        CALL_LAYOUT = "CALL_LAYOUT",
        /// [`CallPoint`](crate::syscall::CallPoint); another for each load.
        POINT = "POINT",
        /// `u64`: id of the cgroup that a probe has made for itself; 0 is none.
        PROBE_CGROUP = "PROBE_CGROUP",
        /// `i32`: what probe programs make their hooks return.
        PROBE_RET = "PROBE_RET",
        /// `u64`: how long probe programs delay whom they meet.
        PROBE_SLEEP_NS = "PROBE_SLEEP_NS",
    }
}
