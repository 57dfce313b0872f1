//! The table of tests and kernels.

use std::collections::BTreeSet;

use super::results::{Outcome, Results};

/// What came of the tests on one kernel, under its name.
pub(super) type Column<'a> = (&'a str, &'a Results);

/// What the marks mean.
pub(super) const LEGEND: &str = "✓ passed, ✗ failed, ○ skipped, - need not run there";

/// Every test and what came of it on every kernel.
pub(super) fn render(columns: &[Column<'_>]) -> String {
    let names = names(columns);
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let heading = columns.iter().map(|(kernel, _)| format!("  {kernel}")).collect::<String>();
    let rows = names.iter().map(|name| {
        let cells = columns.iter().map(|(kernel, results)| {
            let mark = mark(results.get(name));
            format!("  {mark:^width$}", width = kernel.len())
        });
        format!("{name:<width$}{}\n", cells.collect::<String>().trim_end_matches(' '))
    });
    format!("{:<width$}{heading}\n{}", "", rows.collect::<String>())
}

/// Tests that no kernel ran.
pub(super) fn ran_nowhere<'a>(columns: &[Column<'a>]) -> Vec<&'a str> {
    let ran = |name: &&str| {
        let outcomes = columns.iter().filter_map(|(_, results)| results.get(name));
        outcomes.into_iter().any(|outcome| matches!(outcome, Outcome::Passed | Outcome::Failed))
    };
    names(columns).into_iter().filter(|name| !ran(name)).collect()
}

fn names<'a>(columns: &[Column<'a>]) -> BTreeSet<&'a str> {
    columns.iter().flat_map(|(_, results)| results.iter().map(|(name, _)| name)).collect()
}

fn mark(outcome: Option<&Outcome>) -> char {
    match outcome {
        Some(Outcome::Passed) => '✓',
        Some(Outcome::Failed) => '✗',
        Some(Outcome::Skipped(_)) => '○',
        Some(Outcome::LeftOut) => '-',
        None => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_every_test_on_every_kernel() {
        let old = Results::of("test net::a ... ok\nleft out b: one is enough\ntest c ... ignored\n");
        let new = Results::of("test net::a ... FAILED\ntest c ... ignored\n");
        let columns = [("deb61", &old), ("native", &new)];
        assert_eq!(
            render(&columns),
            "        deb61  native\nb         -\nc         ○      ○\nnet::a    ✓      ✗\n"
        );
        assert_eq!(ran_nowhere(&columns), ["b", "c"]);
    }

    #[test]
    fn a_test_that_failed_somewhere_has_run() {
        let results = Results::of("test a ... FAILED\n");
        assert!(ran_nowhere(&[("deb61", &results)]).is_empty());
    }
}
