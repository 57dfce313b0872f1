//! The gate of the kernel half, for what the controller does itself: the same questions in the same order, answered by
//! the same functions of chaos-common.

use chaos_common::{
    Rule, RuleState, random,
    rule::{BudgetState, Outcome},
};

/// One rule, with what it remembers.
#[derive(Clone, Debug)]
pub struct Gate {
    rule: Rule,
    number: u32,
    /// What is drawn from.
    seed: u64,
    /// By slot.
    states: Vec<RuleState>,
    budget: BudgetState,
}

impl Gate {
    /// Rule `number` of a plan with so many slots. Without a seed of its own it draws from `fresh`.
    pub fn new(number: u32, rule: Rule, slots: usize, fresh: u64) -> Self {
        let seed = if rule.seed == 0 { fresh } else { rule.seed };
        Self { rule, number, seed, states: vec![RuleState::ZERO; slots], budget: BudgetState::ZERO }
    }

    /// What becomes of one occurrence while the lease is live.
    pub fn ask(&mut self, slot: u32, matches: bool, now_ns: u64) -> Outcome {
        let Some(state) = self.states.get_mut(slot as usize) else { return Outcome::Filtered };
        if !matches {
            return Outcome::Filtered;
        }
        state.occurrences += 1;
        if !self.rule.when.hits(state.occurrences) {
            return Outcome::When;
        }
        let stream = (self.number << 16) | slot;
        let mut draw = || {
            state.draws += 1;
            random::draw(self.seed, stream, state.draws - 1)
        };
        // As in the kernel half: a model without memory draws once.
        let draws = if self.rule.pattern.is_memoryless() { [draw(), 0] } else { [draw(), draw()] };
        let (chain, hit) = self.rule.pattern.step(state.chain, draws);
        state.chain = chain;
        if !hit {
            return Outcome::Chance;
        }
        if !self.within_budget(now_ns) {
            return Outcome::Budget;
        }
        if self.rule.dry_run != 0 { Outcome::DryRun } else { Outcome::Injected }
    }

    /// The rate first: what it refuses must not use up `max`.
    fn within_budget(&mut self, now_ns: u64) -> bool {
        let budget = &self.rule.budget;
        if budget.emission_ns != 0 {
            let Some(due_ns) = budget.conforms(self.budget.due_ns, now_ns) else { return false };
            self.budget.due_ns = due_ns;
        }
        if self.budget.used >= budget.max {
            return false;
        }
        self.budget.used += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use chaos_common::{Budget, Chance, Pattern, RuleStats, When};

    use super::*;

    const ALL: Rule = Rule {
        dry_run: 0,
        dormant: 0,
        match_clauses: 0,
        allow_clauses: 0,
        when: When::ALWAYS,
        seed: 0,
        budget: Budget::UNLIMITED,
        pattern: Pattern::random(Chance::ALWAYS),
    };

    /// What becomes of `count` matching occurrences, one each millisecond.
    fn asked(rule: Rule, count: u64) -> RuleStats {
        let mut gate = Gate::new(0, rule, 1, 42);
        (0..count).fold(RuleStats::ZERO, |stats, n| {
            stats.plus(RuleStats::of(gate.ask(0, true, 1_000_000_000 + n * 1_000_000)))
        })
    }

    #[test]
    fn everything_that_matches_is_hit() {
        assert_eq!(asked(ALL, 10), RuleStats { injected: 10, ..RuleStats::ZERO });
        assert_eq!(Gate::new(0, ALL, 1, 42).ask(0, false, 0), Outcome::Filtered);
        assert_eq!(asked(Rule { dry_run: 1, ..ALL }, 10).dry_run, 10);
    }

    #[test]
    fn limits_hold_as_in_the_kernel() {
        let when = asked(Rule { when: When { first: 2, last: 3, step: 1 }, ..ALL }, 10);
        assert_eq!((when.injected, when.when), (2, 8));
        let budget = asked(Rule { budget: Budget { max: 4, ..Budget::UNLIMITED }, ..ALL }, 10);
        assert_eq!((budget.injected, budget.budget), (4, 6));
        let rate = asked(Rule { budget: Budget::UNLIMITED.with_rate(10), ..ALL }, 1_000);
        assert_eq!(rate.injected, 10);
    }

    #[test]
    fn a_share_is_that_share_and_replays() {
        let rule = Rule { pattern: Pattern::random(Chance::from_bits(1 << 30)), seed: 7, ..ALL };
        let quarter = asked(rule, 10_000);
        assert!((2_300..2_700).contains(&quarter.injected), "{quarter:?}");
        assert_eq!(quarter, asked(rule, 10_000));
    }

    #[test]
    fn targets_are_counted_apart() {
        let mut gate = Gate::new(0, Rule { when: When { first: 1, last: 1, step: 1 }, ..ALL }, 2, 42);
        assert_eq!([gate.ask(0, true, 0), gate.ask(1, true, 0)], [Outcome::Injected; 2]);
        assert_eq!(gate.ask(0, true, 0), Outcome::When);
    }
}
