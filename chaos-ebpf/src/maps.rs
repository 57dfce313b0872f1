//! The maps and the read-only globals, each with what it holds.
//!
//! Sizes given here are the largest, or any; the controller makes them what a plan needs.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
};
use chaos_common::{
    Corruption, Counters, Duplication, Leaps, Lease, Rule, RuleState, RuleStats, Target,
    dns::{DnsAnswer, KEY_BYTES, MAX_NAME_ENTRIES},
    net::NetConfig,
    ranges::{MAX_STEPS, Range, WideRange},
    rule::{BudgetState, Levels, MAX_LEVELS, MAX_RULES, MAX_SLOTS},
    shape::{FLOWS, Shape, ShapeState, TABLES, Table},
    sleep::{SLOTS as SLEEPERS, SleepConfig, SleepRequest, SleepState, SleepStats},
    sock::Refusal,
    steady::{
        CallClasses, CallCounts, ErrorCounts, GOING_ON, Histogram, Since, SockLayout, SteadyLayout,
        TaskCounts, TcpCounts, series,
    },
    syscall::{
        CallEffect, CallEntry, CallFilter, CallKey, CallLayout, CallPoint, MAX_CALLS, MAX_PATHS, PathTable,
        REMEMBERED, Remembered,
    },
    targets::TargetHash,
};

use crate::net::{dns::Query, turn::Answer};

/// Whom anything concerns: not to be here is all that other cgroups pay for.
#[map]
pub static TARGETS: Array<Target> = Array::with_max_entries(1, 0);

/// What to do.
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(MAX_RULES, 0);

/// What each rule remembers about each slot.
#[map]
pub static RULE_STATE: Array<RuleState> = Array::with_max_entries(MAX_RULES * MAX_SLOTS, 0);

/// What became of everything each rule saw in each slot: the proof that a fault fired, and on whom.
#[map]
pub static RULE_STATS: PerCpuArray<RuleStats> = PerCpuArray::with_max_entries(MAX_RULES * MAX_SLOTS, 0);

/// What each rule has used of its budget.
#[map]
pub static BUDGETS: Array<BudgetState> = Array::with_max_entries(MAX_RULES, 0);

/// How each rule's pattern moves on by many segments at once; filled for those of `BY_SEGMENT`.
#[map]
pub static LEAPS: Array<Leaps> = Array::with_max_entries(MAX_RULES, 0);

/// Until when anything may be injected.
#[map]
pub static LEASE: Array<Lease> = Array::with_max_entries(1, 0);

/// IPv4 addresses, in ranges of which each has the clauses whose prefixes contain it.
#[map]
pub static PEERS_V4: Array<Range> = Array::with_max_entries(1 << MAX_STEPS, 0);

/// The same in IPv6.
#[map]
pub static PEERS_V6: Array<WideRange> = Array::with_max_entries(1 << MAX_STEPS, 0);

/// The peer's ports, and then the cgroup's own, in ranges of which each has the clauses that name it.
#[map]
pub static PORTS: Array<Range> = Array::with_max_entries(1 << MAX_STEPS, 0);

/// How rules that hold packets back do it.
#[map]
pub static SHAPES: Array<Shape> = Array::with_max_entries(MAX_RULES, 0);

/// What each of them remembers about each slot.
#[map]
pub static SHAPE_STATE: Array<ShapeState> = Array::with_max_entries(MAX_RULES * MAX_SLOTS, 0);

/// What draws and variates are turned into.
#[map]
pub static SHAPE_TABLES: Array<Table> = Array::with_max_entries(TABLES, 0);

/// When the last packet of each flow leaves that is held back.
#[map]
pub static SHAPE_FLOWS: Array<u64> = Array::with_max_entries(FLOWS, 0);
/// What the calls fail with that each rule refuses.
#[map]
pub static REFUSALS: Array<Refusal> = Array::with_max_entries(MAX_RULES, 0);

/// How the rules answer that do.
#[map]
pub static REJECTS: Array<u32> = Array::with_max_entries(MAX_RULES, 0);

/// The answer that is being made.
#[map]
pub static REJECT_ANSWER: PerCpuArray<Answer> = PerCpuArray::with_max_entries(1, 0);

/// What the rules for name services say.
#[map]
pub static DNS_ANSWERS: Array<DnsAnswer> = Array::with_max_entries(MAX_RULES, 0);

/// What a name ends with, backwards → the clauses whose names that lets through.
#[map]
pub static DNS_NAMES: LpmTrie<[u8; KEY_BYTES], u64> = LpmTrie::with_max_entries(MAX_NAME_ENTRIES, 0);

/// The query that is being looked at.
#[map]
pub static DNS_QUERY: PerCpuArray<Query> = PerCpuArray::with_max_entries(1, 0);

/// How each rule that corrupts does it.
#[map]
pub static CORRUPTIONS: Array<Corruption> = Array::with_max_entries(MAX_RULES, 0);

/// How each rule that duplicates does it.
#[map]
pub static DUPLICATIONS: Array<Duplication> = Array::with_max_entries(MAX_RULES, 0);

/// How much of a packet's beginning can be put aside.
pub const HEADER_BYTES: usize = 128;

/// Where it is put, as there is no room on the stack.
#[map]
pub static HEADERS: PerCpuArray<[u8; HEADER_BYTES]> = PerCpuArray::with_max_entries(1, 0);

/// What each slot's cgroups did.
#[map]
pub static STEADY: PerCpuArray<Counters> = PerCpuArray::with_max_entries(MAX_SLOTS, 0);

/// Their system calls.
#[map]
pub static STEADY_CALLS: PerCpuArray<CallCounts> = PerCpuArray::with_max_entries(MAX_SLOTS, 0);

/// The errors of these, and those that faults gave.
#[map]
pub static STEADY_ERRORS: PerCpuArray<ErrorCounts> = PerCpuArray::with_max_entries(MAX_SLOTS, 0);

/// Their TCP connections.
#[map]
pub static STEADY_TCP: PerCpuArray<TcpCounts> = PerCpuArray::with_max_entries(MAX_SLOTS, 0);

/// Their processes.
#[map]
pub static STEADY_TASKS: PerCpuArray<TaskCounts> = PerCpuArray::with_max_entries(MAX_SLOTS, 0);

/// How long what they did took.
#[map]
pub static STEADY_TIMES: Array<Histogram> = Array::with_max_entries(MAX_SLOTS * series::COUNT, 0);

/// Since when threads are in the call that they are in.
#[map]
pub static CALLING_SINCE: LruHashMap<u32, Since> = LruHashMap::with_max_entries(GOING_ON, 0);

/// Since when threads could run that do not.
#[map]
pub static RUNNABLE_SINCE: LruHashMap<u32, Since> = LruHashMap::with_max_entries(GOING_ON, 0);

/// Since when requests are with their device.
#[map]
pub static ISSUED_SINCE: LruHashMap<u64, Since> = LruHashMap::with_max_entries(GOING_ON, 0);

/// Who wakes sleepers, and which of them there may be.
#[map]
pub static SLEEP_CONFIG: Array<SleepConfig> = Array::with_max_entries(1, 0);

/// What sleepers have in common.
#[map]
pub static SLEEP_STATE: Array<SleepState> = Array::with_max_entries(1, 0);

/// What each sleeper asks for; the daemon that wakes them reads it in its own memory.
#[map]
pub static SLEEP_SLOTS: Array<SleepRequest> = Array::with_max_entries(SLEEPERS, BPF_F_MMAPABLE);

/// What came of all delays.
#[map]
pub static SLEEP_STATS: PerCpuArray<SleepStats> = PerCpuArray::with_max_entries(1, 0);

/// Until when each slot's callers have used what they may of a processor (CLOCK_MONOTONIC).
#[map]
pub static SPIN_DUE: Array<u64> = Array::with_max_entries(MAX_SLOTS, 0);

/// How often a probe program met a process of the probe.
#[map]
pub static PROBE_HITS: Array<u64> = Array::with_max_entries(1, 0);

/// Which calls are judged where, and by which rules.
#[map]
pub static CALLS: HashMap<CallKey, CallEntry> = HashMap::with_max_entries(MAX_CALLS, 0);

/// What each rule does to calls.
#[map]
pub static CALL_EFFECTS: Array<CallEffect> = Array::with_max_entries(MAX_RULES, 0);

/// Which calls each rule is for.
#[map]
pub static CALL_FILTERS: Array<CallFilter> = Array::with_max_entries(MAX_RULES, 0);

/// Patterns of paths, for each rule as many as there may be.
#[map]
pub static CALL_PATHS: Array<PathTable> = Array::with_max_entries(MAX_RULES * MAX_PATHS as u32, 0);

/// What each thread was answered in the call that it is in.
#[map]
pub static CALL_MEMORY: LruHashMap<u32, Remembered> = LruHashMap::with_max_entries(REMEMBERED, 0);

/// At which depths of the cgroup hierarchy targets sit.
#[unsafe(no_mangle)]
pub static LEVELS: Levels = Levels { count: 0, level: [0; MAX_LEVELS] };

/// Where a target is.
#[unsafe(no_mangle)]
pub static TARGET_HASH: TargetHash = TargetHash::SMALLEST;

/// How many slots there are.
#[unsafe(no_mangle)]
pub static SLOTS: u32 = 0;

/// What network rules have in common.
#[unsafe(no_mangle)]
pub static NET: NetConfig = NetConfig::NONE;

/// Rules whose pattern moves on by one step for each segment of a packet.
#[unsafe(no_mangle)]
pub static BY_SEGMENT: u64 = 0;

/// Whether any rule names paths. Where none does, the verifier removes what reads them: for `call_hook` at `file_open` it
/// walks through 7,158 instructions then, and else through 317,104 (Linux 6.12).
#[unsafe(no_mangle)]
pub static BY_PATH: u32 = 0;

/// What marks the copies that are handed over to a device's ingress.
#[unsafe(no_mangle)]
pub static COPY: u32 = 0;

/// Where this kernel keeps a socket's cgroup.
#[unsafe(no_mangle)]
pub static SOCK_LAYOUT: SockLayout = SockLayout::UNKNOWN;

/// Where this kernel keeps what steady-state programs read.
#[unsafe(no_mangle)]
pub static STEADY_LAYOUT: SteadyLayout = SteadyLayout::UNKNOWN;

/// What kind of work each system call is.
#[unsafe(no_mangle)]
pub static CALL_CLASSES: CallClasses = CallClasses::NONE;

/// Whether calls are timed.
#[unsafe(no_mangle)]
pub static CALLS_TIMED: u32 = 0;

/// Where this kernel keeps what a call is about.
#[unsafe(no_mangle)]
pub static CALL_LAYOUT: CallLayout = CallLayout::UNKNOWN;

/// Where a program stands. In a section of its own, as it is another for each load.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.point")]
pub static POINT: CallPoint = CallPoint::NONE;

/// The cgroup that a probe has made for itself; 0 is none.
#[unsafe(no_mangle)]
pub static PROBE_CGROUP: u64 = 0;

/// What probe programs make their hooks return.
#[unsafe(no_mangle)]
pub static PROBE_RET: i32 = 0;

/// How long probe programs delay whom they meet.
#[unsafe(no_mangle)]
pub static PROBE_SLEEP_NS: u64 = 0;

/// Reads a global above. The loader fills them in before the verifier runs, which then knows each value
/// and removes the code that it makes unreachable; the compiler must not believe the values written here.
#[inline(always)]
pub fn global<T: Copy>(field: &T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(field) }
}
