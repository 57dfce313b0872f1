//! Armed without doing anything: what a fault would meet, before it hurts anybody.

use chaos_common::{Budget, Chance, Pattern, Rule, When};

/// The rule with the same filter that hits nothing, and remembers nothing either: what `when`, `max`, `rate`, a seed and a
/// chain have seen would be missing once the rule is meant. Everything that it lets by counts as eligible.
pub const fn only_counting(rule: Rule) -> Rule {
    Rule {
        dry_run: 1,
        dormant: 0,
        when: When::ALWAYS,
        seed: 0,
        budget: Budget::UNLIMITED,
        pattern: Pattern::random(Chance::NEVER),
        ..rule
    }
}

#[cfg(test)]
mod tests {
    use chaos_common::RuleStats;

    use super::*;
    use crate::fault::gate::Gate;

    #[test]
    fn it_counts_what_the_filter_lets_by_and_hits_nothing() {
        let rule = Rule {
            dry_run: 0,
            dormant: 1,
            match_clauses: 6,
            allow_clauses: 1,
            when: When { first: 3, last: 12, step: 1 },
            seed: 7,
            budget: Budget { max: 5, ..Budget::UNLIMITED },
            pattern: Pattern::random(Chance::ALWAYS),
        };
        let dry = only_counting(rule);
        assert_eq!((dry.match_clauses, dry.allow_clauses), (6, 1));
        let mut gate = Gate::new(0, dry, 1, 42);
        let counted = (0..100).fold(RuleStats::ZERO, |stats, n: u64| {
            stats.plus(RuleStats::of(gate.ask(0, n.is_multiple_of(2), (n + 1) * 1_000_000_000)))
        });
        assert_eq!((counted.eligible(), counted.filtered), (50, 50));
        assert_eq!((counted.injected, counted.dry_run), (0, 0));
    }
}
