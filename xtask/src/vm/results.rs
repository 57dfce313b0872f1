//! What came of each test, read from what the test program prints.

use std::collections::BTreeMap;

/// How many tests of a run may fail and pass when they are run again. They are timed, on machines that others use too.
const MOST_AGAIN: usize = 4;

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It showed what it was to show.
    Passed,
    /// It did not.
    Failed,
    /// It was not run, and why.
    Skipped(String),
    /// It need not run here: on every kernel it shows the same.
    LeftOut,
}

/// What came of the tests on one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    tests: BTreeMap<String, Outcome>,
    /// From lines `skipped NAME: REASON`.
    reasons: BTreeMap<String, String>,
    /// A test that was announced, and whose outcome is on a later line.
    pending: Option<String>,
    /// From lines `failed once NAME: WHY`.
    once: BTreeMap<String, String>,
    /// What `test result:` lines said: how many there were.
    announced: Option<u64>,
}

impl Results {
    /// Reads the whole of an output.
    pub(crate) fn of(output: &str) -> Self {
        let mut results = Self::default();
        output.lines().for_each(|line| results.read(line));
        results
    }

    /// Takes in one line.
    pub(super) fn read(&mut self, line: &str) {
        if let Some(skipped) = line.strip_prefix("skipped ") {
            // Names of tests contain `::`, so the first colon with a blank ends the name.
            if let Some((name, reason)) = skipped.split_once(": ") {
                self.reasons.insert(name.to_owned(), reason.to_owned());
            }
        } else if let Some((name, why)) = line.strip_prefix("failed once ").and_then(|l| l.split_once(": ")) {
            self.once.insert(name.to_owned(), why.to_owned());
        } else if let Some((name, _)) = line.strip_prefix("left out ").and_then(|left| left.split_once(": "))
        {
            self.tests.insert(name.to_owned(), Outcome::LeftOut);
        } else if let Some(summary) = line.strip_prefix("test result: ") {
            let counts = summary.split([';', '.']).filter_map(counted).sum::<u64>();
            *self.announced.get_or_insert(0) += counts;
        } else if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|t| t.split_once(" ... ")) {
            let name = name.trim_end().to_owned();
            match self.outcome(&name, outcome) {
                Some(outcome) => {
                    self.tests.insert(name, outcome);
                }
                // One at a time, a test is announced before it runs, and what it prints comes between.
                None => self.pending = Some(name),
            }
        } else if let Some(name) = self.pending.take() {
            match self.outcome(&name, line) {
                Some(outcome) => {
                    self.tests.insert(name, outcome);
                }
                None => self.pending = Some(name),
            }
        }
    }

    fn outcome(&self, name: &str, text: &str) -> Option<Outcome> {
        if let Some(reason) = text.strip_prefix("ignored") {
            let reason = reason.trim_start_matches([',', ' ']);
            let known = self.reasons.get(name).map_or(reason, String::as_str);
            return Some(Outcome::Skipped(known.to_owned()));
        }
        match text.trim() {
            "ok" => Some(Outcome::Passed),
            "FAILED" => Some(Outcome::Failed),
            _ => None,
        }
    }

    /// What came of this test; `None` if it was not there.
    pub(super) fn get(&self, name: &str) -> Option<&Outcome> {
        self.tests.get(name)
    }

    /// Every test, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        self.tests.iter().map(|(name, outcome)| (name.as_str(), outcome))
    }

    /// Tests that failed, were run again and passed then, each with why it failed.
    pub(crate) fn passed_again(&self) -> impl Iterator<Item = (&str, &str)> {
        let once = self.once.iter().map(|(name, why)| (name.as_str(), why.as_str()));
        once.filter(|(name, _)| self.get(name) == Some(&Outcome::Passed))
    }

    /// Names of those that passed.
    pub(super) fn passed(&self) -> impl Iterator<Item = &str> {
        self.iter().filter(|(_, outcome)| **outcome == Outcome::Passed).map(|(name, _)| name)
    }

    /// Names of those that failed.
    pub(super) fn failed(&self) -> impl Iterator<Item = &str> {
        self.iter().filter(|(_, outcome)| **outcome == Outcome::Failed).map(|(name, _)| name)
    }

    /// A problem if so many had to be run again that chance is no reason for it.
    pub(crate) fn too_many_again(&self) -> Option<String> {
        let names: Vec<_> = self.passed_again().map(|(name, _)| name).collect();
        (names.len() > MOST_AGAIN).then(|| {
            format!(
                "{} tests passed only when run again, {MOST_AGAIN} may: {}",
                names.len(),
                names.join(", ")
            )
        })
    }

    /// How many tests there were for this kernel.
    pub(super) fn len(&self) -> usize {
        self.tests.values().filter(|outcome| **outcome != Outcome::LeftOut).count()
    }

    /// How many passed, failed, and were skipped.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |matches: fn(&Outcome) -> bool| self.tests.values().filter(|o| matches(o)).count();
        (
            count(|outcome| *outcome == Outcome::Passed),
            count(|outcome| *outcome == Outcome::Failed),
            count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        )
    }

    /// Tests whose outcome could not be read, according to the program's own count.
    pub(super) fn unread(&self) -> u64 {
        self.announced.unwrap_or(0).saturating_sub(self.len() as u64)
    }

    /// Whether the program told its own count, as it does at its end.
    pub(super) fn complete(&self) -> bool {
        self.announced.is_some()
    }
}

/// `12` of ` 12 passed`, for those counts that are tests of this run.
fn counted(part: &str) -> Option<u64> {
    let (number, what) = part.trim().split_once(' ')?;
    ["passed", "failed", "ignored"].contains(&what).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "skipped net::tcx::goes: needs tcx: Operation not supported\n\nrunning 4 tests\n\
        test net::loss::hurts     ... ok\ntest net::tcx::goes       ... ignored\n\
        test safety::lease        ... FAILED\ntest docker::one          ... ignored, needs Docker: none\n\n\
        failures:\n\n---- safety::lease ----\nit was still on\n\n\
        test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 9.00s\n";

    #[test]
    fn reads_outcomes_and_reasons() {
        let results = Results::of(OUTPUT);
        assert_eq!(results.counts(), (1, 1, 2));
        assert_eq!(results.get("net::loss::hurts"), Some(&Outcome::Passed));
        assert_eq!(results.get("safety::lease"), Some(&Outcome::Failed));
        let reason = "needs tcx: Operation not supported";
        assert_eq!(results.get("net::tcx::goes"), Some(&Outcome::Skipped(reason.into())));
        assert_eq!(results.get("docker::one"), Some(&Outcome::Skipped("needs Docker: none".into())));
        assert_eq!((results.unread(), results.complete()), (0, true));
    }

    #[test]
    fn a_test_that_is_left_out_does_not_count() {
        let results = Results::of(
            "left out report::says: one kernel is enough\ntest net::hurts ... ok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s\n",
        );
        assert_eq!(results.get("report::says"), Some(&Outcome::LeftOut));
        assert_eq!((results.len(), results.counts(), results.unread()), (1, (1, 0, 0), 0));
    }

    #[test]
    fn a_test_that_passed_when_run_again_is_told() {
        let said =
            |name: &str, outcome: &str| format!("failed once {name}: late\ntest {name} ... {outcome}\n");
        let results = Results::of(&(said("a", "ok") + &said("b", "FAILED")));
        assert_eq!(results.passed_again().collect::<Vec<_>>(), [("a", "late")]);
        assert_eq!(results.failed().collect::<Vec<_>>(), ["b"]);
        assert_eq!(results.too_many_again(), None);
        let many: String = ["a", "b", "c", "d", "e"].map(|name| said(name, "ok")).concat();
        assert!(Results::of(&many).too_many_again().unwrap().starts_with("5 tests passed only"));
    }

    #[test]
    fn reads_tests_that_run_one_at_a_time() {
        let results = Results::of("test a ... now it says something\nmore\nok\ntest b ... \nFAILED\n");
        assert_eq!(results.counts(), (1, 1, 0));
        assert!(!results.complete());
    }

    #[test]
    fn notices_outcomes_that_it_could_not_read() {
        let results =
            Results::of("test a ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n");
        assert_eq!(results.unread(), 1);
    }
}
