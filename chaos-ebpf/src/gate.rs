//! The gate: every program that can inject asks it first.
//!
//! target → lease → filter → pulse → when → chance → budget, in this order because non-targets must pay next to
//! nothing (one lookup) and because reading the clock costs more than that lookup. Whatever comes of
//! it is counted, by rule and slot.

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use chaos_common::{
    Rule, RuleState, random,
    rule::{MAX_LEVELS, MAX_RULES_PER_HOOK, Outcome, state_index},
    shape::MAX_SHAPES,
};

use crate::{
    atomic,
    maps::{
        BUDGETS, BY_SEGMENT, LEAPS, LEASE, LEVELS, RULE_STATE, RULE_STATS, RULES, SLOTS, TARGET_HASH,
        TARGETS, global,
    },
};

/// Whom something happens to: the rules for it, and its slot.
#[derive(Clone, Copy)]
pub struct Subject {
    /// Rules of all targets above it, itself included.
    pub rules: u64,
    /// Slot of the deepest of these targets.
    pub slot: u32,
}

/// Finds the targets among the ancestors of a cgroup, which `ancestor_id` gives by depth (0 for none).
/// Descendants are covered without anybody having to register them, so there is no race with fork.
#[inline(always)]
pub fn subject(ancestor_id: impl Fn(u32) -> u64) -> Option<Subject> {
    // Not an `Option<Subject>`: the compiler reads the rules of a `None`, which nobody has written, and the
    // verifier refuses that.
    let (mut found, mut subject) = (false, Subject { rules: 0, slot: 0 });
    let hash = global(&TARGET_HASH);
    for i in 0..MAX_LEVELS {
        if i as u32 >= global(&LEVELS.count) {
            break;
        }
        let id = ancestor_id(global(&LEVELS.level[i]));
        if let Some(target) = hash.find(id, |index| TARGETS.get(index)) {
            subject = Subject { rules: subject.rules | target.rules, slot: target.slot };
            found = true;
        }
    }
    found.then_some(subject)
}

/// Asks each of `rules` in turn, until one says yes; returns its number. `clauses` gives the filter
/// clauses that the occurrence matches, and is called at most once. A packet that will be cut into
/// `segments` later is one occurrence, decided and counted as one, of which the segments are counted too. What a rule
/// does not apply to, since its effect would have nothing to do there, counts as filtered.
///
/// The coarse clock costs a fraction of the fine one under virtualisation; it lags by at most one tick
/// (kernel/time/timekeeping.c), which a lease of seconds does not notice.
#[inline(always)]
pub fn any(
    rules: u64,
    slot: u32,
    segments: u32,
    clauses: impl Fn() -> u64,
    applies: impl Fn(u32) -> bool,
) -> Option<u32> {
    // SAFETY: the helper has no preconditions.
    any_by(|| unsafe { bpf_ktime_get_coarse_ns() }, rules, slot, segments, clauses, applies)
}

/// The same by the fine clock, for kinds of programs that have no other.
#[inline(always)]
pub fn any_by_fine_clock(
    rules: u64,
    slot: u32,
    clauses: impl Fn() -> u64,
    applies: impl Fn(u32) -> bool,
) -> Option<u32> {
    // SAFETY: the helper has no preconditions.
    any_by(|| unsafe { bpf_ktime_get_ns() }, rules, slot, 1, clauses, applies)
}

#[inline(always)]
fn any_by(
    now_ns: impl Fn() -> u64,
    rules: u64,
    slot: u32,
    segments: u32,
    clauses: impl Fn() -> u64,
    applies: impl Fn(u32) -> bool,
) -> Option<u32> {
    let live = is_live(now_ns());
    let clauses = if live != 0 { clauses() } else { 0 };
    let mut pending = rules;
    for _ in 0..MAX_RULES_PER_HOOK {
        if pending == 0 {
            return None;
        }
        let rule = pending.trailing_zeros();
        pending &= pending - 1;
        let applies = if applies(rule) { question::APPLIES } else { 0 };
        if judge(rule, slot, live | applies, clauses, segments) == Outcome::Injected as u32 {
            return Some(rule);
        }
    }
    None
}

/// Whether what was judged a while ago may still happen: the lease may have ended since.
#[inline(always)]
pub fn still_holds() -> bool {
    // SAFETY: the helper has no preconditions.
    is_live(unsafe { bpf_ktime_get_ns() }) != 0
}

/// [`question::LIVE`] if the lease is live.
#[inline(always)]
fn is_live(now_ns: u64) -> u32 {
    if LEASE.get(0).is_some_and(|lease| lease.is_live(now_ns)) { question::LIVE } else { 0 }
}

/// Asks every one of `rules`, of which there are few, and tells `then` what came of each, in their order.
#[inline(always)]
pub fn each(
    rules: u64,
    slot: u32,
    segments: u32,
    clauses: impl Fn() -> u64,
    mut then: impl FnMut(u32, Outcome),
) {
    // SAFETY: the helper has no preconditions.
    let live = is_live(unsafe { bpf_ktime_get_coarse_ns() });
    let clauses = if live != 0 { clauses() } else { 0 };
    let mut pending = rules;
    for _ in 0..MAX_SHAPES {
        if pending == 0 {
            return;
        }
        let rule = pending.trailing_zeros();
        pending &= pending - 1;
        if let Some(outcome) = Outcome::of(judge(rule, slot, live | question::APPLIES, clauses, segments)) {
            then(rule, outcome);
        }
    }
}

/// Counts again what was counted as injected by each of `rules`: the kernel could not do it after all.
#[inline(always)]
pub fn could_not(rules: u64, slot: u32, segments: u32) {
    let mut pending = rules;
    for _ in 0..MAX_SHAPES {
        if pending == 0 {
            return;
        }
        let rule = pending.trailing_zeros();
        pending &= pending - 1;
        if let Some(stats) = RULE_STATS.get_ptr_mut(state_index(rule, slot, global(&SLOTS))) {
            // SAFETY: in bounds of the map value, which is this CPU's as in `count`.
            unsafe {
                (*stats).injected -= 1;
                (*stats).failed += 1;
                (*stats).segments_hit -= u64::from(segments);
            }
        }
    }
}

/// A uniform draw for one rule, as [`draw`] makes it.
#[inline(always)]
pub fn draw_for(number: u32, slot: u32) -> u32 {
    let state = RULE_STATE.get_ptr_mut(state_index(number, slot, global(&SLOTS)));
    match (RULES.get_ptr(number), state) {
        (Some(rule), Some(state)) => {
            // SAFETY: a map value, as in `judge`.
            let rule = unsafe { &*rule };
            draw(&Asked { rule, number, slot, state, segments: 1 })
        }
        _ => 0,
    }
}

/// Whether a rule only counts.
#[inline(always)]
pub fn is_dry_run(number: u32) -> bool {
    // SAFETY: a map value, as in `judge`.
    RULES.get_ptr(number).is_none_or(|rule| unsafe { (*rule).dry_run } != 0)
}

/// What a rule is told of an occurrence, as bits.
mod question {
    /// The lease is live.
    pub const LIVE: u32 = 1;
    /// The rule's effect would have something to do there.
    pub const APPLIES: u32 = 2;
}

/// Asks one rule, and counts what comes of it; the number of an [`Outcome`].
///
/// A function of its own, visible outside and with nothing but numbers for arguments: such a one is verified once, by
/// itself (kernel/bpf/verifier.c, `do_check_subprogs`, 5.15). As a part of its callers it was walked through again for
/// each rule and for each way there: a third of a million instructions for a loss, where now there are twenty thousand.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(number: u32, slot: u32, question: u32, clauses: u64, segments: u32) -> u32 {
    let index = state_index(number, slot, global(&SLOTS));
    let (Some(rule), Some(state)) = (RULES.get_ptr(number), RULE_STATE.get_ptr_mut(index)) else {
        return Outcome::Filtered as u32;
    };
    // SAFETY: map values; user space replaces a rule field by field, and every mix of two versions of a
    // rule is a rule.
    let asked = Asked { rule: unsafe { &*rule }, number, slot, state, segments };
    let outcome = outcome(&asked, question, clauses);
    count(index, outcome, segments);
    outcome as u32
}

/// One rule, asked about one occurrence.
struct Asked<'a> {
    rule: &'a Rule,
    number: u32,
    slot: u32,
    state: *mut RuleState,
    segments: u32,
}

#[inline(always)]
fn outcome(asked: &Asked<'_>, question: u32, clauses: u64) -> Outcome {
    let rule = asked.rule;
    if question & question::LIVE == 0 {
        return Outcome::Lease;
    }
    if (rule.match_clauses != 0 && rule.match_clauses & clauses == 0) || rule.allow_clauses & clauses != 0 {
        return Outcome::Filtered;
    }
    if question & question::APPLIES == 0 {
        return Outcome::Filtered;
    }
    if rule.dormant != 0 {
        return Outcome::Dormant;
    }
    if !rule.when.is_always() && !rule.when.hits(next_occurrence(asked.state)) {
        return Outcome::When;
    }
    if !hit(asked) {
        return Outcome::Chance;
    }
    if !rule.budget.is_unlimited() && !within_budget(rule, asked.number) {
        return Outcome::Budget;
    }
    if rule.dry_run != 0 { Outcome::DryRun } else { Outcome::Injected }
}

#[inline(always)]
fn next_occurrence(state: *mut RuleState) -> u64 {
    // SAFETY: in bounds of the map value.
    atomic::fetch_add(unsafe { &raw mut (*state).occurrences }, 1) + 1
}

/// Lets the pattern decide. Its chain moves on by one compare-and-exchange; when two packets of one
/// slot race, both are judged by the state they saw and one move is dropped.
#[inline(always)]
fn hit(asked: &Asked<'_>) -> bool {
    let pattern = &asked.rule.pattern;
    if let Some(always) = pattern.is_certain() {
        return always;
    }
    if pattern.is_memoryless() {
        return pattern.step(0, [draw(asked), 0]).1;
    }
    let draws = [draw(asked), draw(asked)];
    // SAFETY: in bounds of the map value.
    let chain = unsafe { &raw mut (*asked.state).chain };
    let before = atomic::load(chain);
    let (after, hit) = pattern.step(before, draws);
    let after = behind_the_first(asked, after);
    if after != before {
        atomic::compare_exchange(chain, before, after);
    }
    hit
}

/// A packet shares the fate of its first segment. Where the chain counts segments, it moves on by the others.
#[inline(always)]
fn behind_the_first(asked: &Asked<'_>, state: u64) -> u64 {
    if global(&BY_SEGMENT) & (1 << asked.number) == 0 || asked.segments <= 1 {
        return state;
    }
    match LEAPS.get(asked.number) {
        Some(leaps) => leaps.after(state, asked.segments - 1, || draw(asked)),
        None => state,
    }
}

/// A uniform draw: from the kernel, or from the rule's own sequence if it has a seed.
#[inline(always)]
fn draw(asked: &Asked<'_>) -> u32 {
    if asked.rule.seed == 0 {
        // SAFETY: the helper has no preconditions.
        return unsafe { bpf_get_prandom_u32() };
    }
    // SAFETY: in bounds of the map value.
    let n = atomic::fetch_add(unsafe { &raw mut (*asked.state).draws }, 1);
    random::draw(asked.rule.seed, (asked.number << 16) | asked.slot, n)
}

/// Takes one injection out of the budget, the rate first: what the rate refuses must not use up `max`.
/// Losing the race for a slot of the rate means that it is taken.
#[inline(always)]
fn within_budget(rule: &Rule, number: u32) -> bool {
    let Some(budget) = BUDGETS.get_ptr_mut(number) else { return false };
    if rule.budget.emission_ns != 0 {
        // SAFETY: in bounds of the map value.
        let due = unsafe { &raw mut (*budget).due_ns };
        let due_ns = atomic::load(due);
        // SAFETY: the helper has no preconditions. Rates need the fine clock.
        let Some(next_ns) = rule.budget.conforms(due_ns, unsafe { bpf_ktime_get_ns() }) else {
            return false;
        };
        if !atomic::compare_exchange(due, due_ns, next_ns) {
            return false;
        }
    }
    // SAFETY: in bounds of the map value.
    rule.budget.max == u64::MAX || atomic::fetch_add(unsafe { &raw mut (*budget).used }, 1) < rule.budget.max
}

/// Per-CPU, but calls on sockets are judged in process context: a softirq or, with preemption, another task
/// may count on the same CPU in between.
#[inline(always)]
fn count(index: u32, outcome: Outcome, segments: u32) {
    let Some(stats) = RULE_STATS.get_ptr_mut(index) else { return };
    // SAFETY: in bounds of the map value.
    unsafe {
        let counter = match outcome {
            Outcome::Filtered => &raw mut (*stats).filtered,
            Outcome::Lease => &raw mut (*stats).lease,
            Outcome::Dormant => &raw mut (*stats).dormant,
            Outcome::When => &raw mut (*stats).when,
            Outcome::Chance => &raw mut (*stats).chance,
            Outcome::Budget => &raw mut (*stats).budget,
            Outcome::DryRun => &raw mut (*stats).dry_run,
            Outcome::Injected => &raw mut (*stats).injected,
        };
        atomic::add(counter, 1);
        if !matches!(outcome, Outcome::Filtered | Outcome::Lease | Outcome::Dormant) {
            atomic::add(&raw mut (*stats).segments_eligible, u64::from(segments));
        }
        if matches!(outcome, Outcome::DryRun | Outcome::Injected) {
            atomic::add(&raw mut (*stats).segments_hit, u64::from(segments));
        }
    }
}
