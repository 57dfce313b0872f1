//! Rules as the kernel sees them, who they are for, and what became of them.

use crate::{Budget, Pattern, When};

/// How many rules one injection can hold: the width of a rule bitmask.
pub const MAX_RULES: u32 = 64;
/// How many rules may concern one packet; bounds the loop of the gate.
pub const MAX_RULES_PER_HOOK: u32 = 8;
/// How many slots (targets with counters of their own) one injection can hold.
pub const MAX_SLOTS: u32 = 256;
/// How many different cgroup depths targets may sit at.
pub const MAX_LEVELS: usize = 4;

crate::pod! {
    /// The cgroup depths at which targets sit; the root of the hierarchy is depth 0.
    pub struct Levels {
        /// How many of `level` are used.
        pub count: u32,
        /// The depths, each once, ascending.
        pub level: [u32; MAX_LEVELS],
    }
}

crate::pod! {
    /// One armed fault.
    pub struct Rule {
        /// When set to 1, everything is decided and counted and nothing is done.
        pub dry_run: u32,
        /// When set to 1, nothing happens and what would have been asked about is only counted. A pulse writes
        /// this word while the rule is in force.
        pub dormant: u32,
        /// Filter clauses of which one must match; 0 lets everything match.
        pub match_clauses: u64,
        /// Filter clauses of which none may match: the allow-list, which always wins.
        pub allow_clauses: u64,
        /// Which matching occurrences count, per slot.
        pub when: When,
        /// 0 draws from the kernel's generator; anything else replays (see [`crate::random`]).
        pub seed: u64,
        /// Which of the occurrences that count are hit.
        pub pattern: Pattern,
        /// How much the rule may do altogether. Last, as only what is hit asks for it.
        pub budget: Budget,
    }
}

crate::pod! {
    /// What a rule remembers about one slot. Written with atomic instructions only.
    pub struct RuleState {
        /// Matching occurrences so far, for `when`.
        pub occurrences: u64,
        /// Draws so far, for seeded rules.
        pub draws: u64,
        /// State of the pattern's Markov chain.
        pub chain: u64,
    }
}

impl RuleState {
    /// As it starts.
    pub const ZERO: Self = Self { occurrences: 0, draws: 0, chain: 0 };
}

crate::pod! {
    /// What a rule has used of its budget. Written with atomic instructions only.
    pub struct BudgetState {
        /// Injections charged against `max`.
        pub used: u64,
        /// When the next injection is due, for the rate (CLOCK_MONOTONIC).
        pub due_ns: u64,
    }
}

impl BudgetState {
    /// As it starts.
    pub const ZERO: Self = Self { used: 0, due_ns: 0 };
}

crate::pod! {
    /// What became of the occurrences that one rule saw in one slot: every one adds to exactly one field, those of
    /// segments aside.
    pub struct RuleStats {
        /// Not what the filter asks for, or on the allow-list.
        pub filtered: u64,
        /// The lease was not live.
        pub lease: u64,
        /// Not an occurrence that `when` counts.
        pub when: u64,
        /// The draw did not hit.
        pub chance: u64,
        /// The budget was used up.
        pub budget: u64,
        /// Would have been injected, were it not a dry run.
        pub dry_run: u64,
        /// Injected.
        pub injected: u64,
        /// Was to be injected, and the kernel could not: no memory, a full queue.
        pub failed: u64,
        /// Passed the filter between two pulses.
        pub dormant: u64,
        /// Segments of all that was eligible: a GSO packet is one occurrence of many segments.
        pub segments_eligible: u64,
        /// Segments of what was hit, or would have been were it not a dry run.
        pub segments_hit: u64,
    }
}

impl RuleStats {
    /// Nothing yet.
    pub const ZERO: Self = Self {
        filtered: 0,
        lease: 0,
        when: 0,
        chance: 0,
        budget: 0,
        dry_run: 0,
        injected: 0,
        failed: 0,
        dormant: 0,
        segments_eligible: 0,
        segments_hit: 0,
    };

    /// One occurrence, and what became of it.
    pub const fn of(outcome: Outcome) -> Self {
        let mut one = Self::ZERO;
        *match outcome {
            Outcome::Filtered => &mut one.filtered,
            Outcome::Lease => &mut one.lease,
            Outcome::Dormant => &mut one.dormant,
            Outcome::When => &mut one.when,
            Outcome::Chance => &mut one.chance,
            Outcome::Budget => &mut one.budget,
            Outcome::DryRun => &mut one.dry_run,
            Outcome::Injected => &mut one.injected,
        } = 1;
        one
    }

    /// The sum of two, field by field.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            filtered: self.filtered + other.filtered,
            lease: self.lease + other.lease,
            when: self.when + other.when,
            chance: self.chance + other.chance,
            budget: self.budget + other.budget,
            dry_run: self.dry_run + other.dry_run,
            injected: self.injected + other.injected,
            failed: self.failed + other.failed,
            dormant: self.dormant + other.dormant,
            segments_eligible: self.segments_eligible + other.segments_eligible,
            segments_hit: self.segments_hit + other.segments_hit,
        }
    }

    /// What happened since an `earlier` reading of the same counters.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            filtered: self.filtered.saturating_sub(earlier.filtered),
            lease: self.lease.saturating_sub(earlier.lease),
            when: self.when.saturating_sub(earlier.when),
            chance: self.chance.saturating_sub(earlier.chance),
            budget: self.budget.saturating_sub(earlier.budget),
            dry_run: self.dry_run.saturating_sub(earlier.dry_run),
            injected: self.injected.saturating_sub(earlier.injected),
            failed: self.failed.saturating_sub(earlier.failed),
            dormant: self.dormant.saturating_sub(earlier.dormant),
            segments_eligible: self.segments_eligible.saturating_sub(earlier.segments_eligible),
            segments_hit: self.segments_hit.saturating_sub(earlier.segments_hit),
        }
    }

    /// Everything the rule was asked about.
    pub const fn seen(&self) -> u64 {
        self.filtered + self.lease + self.dormant + self.eligible()
    }

    /// What passed the filter while the lease was live and the rule not dormant: the population that a percentage is taken of.
    pub const fn eligible(&self) -> u64 {
        self.when + self.chance + self.budget + self.dry_run + self.injected + self.failed
    }
}

/// What became of one occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// See [`RuleStats::filtered`].
    Filtered,
    /// See [`RuleStats::lease`].
    Lease,
    /// See [`RuleStats::dormant`].
    Dormant,
    /// See [`RuleStats::when`].
    When,
    /// See [`RuleStats::chance`].
    Chance,
    /// See [`RuleStats::budget`].
    Budget,
    /// See [`RuleStats::dry_run`].
    DryRun,
    /// See [`RuleStats::injected`].
    Injected,
}

impl Outcome {
    /// What a number stands for; `None` if it stands for none.
    #[inline(always)]
    pub const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Filtered,
            1 => Self::Lease,
            2 => Self::Dormant,
            3 => Self::When,
            4 => Self::Chance,
            5 => Self::Budget,
            6 => Self::DryRun,
            7 => Self::Injected,
            _ => return None,
        })
    }
}

/// Index of the entry of `RULE_STATE` and `RULE_STATS` for a rule and a slot.
#[inline(always)]
pub const fn state_index(rule: u32, slot: u32, slots: u32) -> u32 {
    rule * slots + slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_known_by_its_number() {
        let mut count = 0;
        while let Some(outcome) = Outcome::of(count) {
            assert_eq!(outcome as u32, count);
            count += 1;
        }
        assert_eq!(count, Outcome::Injected as u32 + 1);
    }
}
