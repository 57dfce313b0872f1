//! Adds up what test programs print.

use std::{collections::BTreeMap, fmt};

use crate::vm::Totals;

/// How many tests passed, failed, and which were skipped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    skipped_names: Vec<String>,
    failed_names: Vec<String>,
    /// Passed only when run again, with why they had failed.
    again: Vec<String>,
    /// From lines `skipped NAME: REASON`, which come before the test's own.
    reasons: BTreeMap<String, String>,
}

impl Tally {
    /// Takes in one line of a test program's output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.passed += number_before(summary, " passed");
            self.failed += number_before(summary, " failed");
            self.skipped += number_before(summary, " ignored");
        } else if let Some((name, reason)) = line.strip_prefix("skipped ").and_then(|s| s.split_once(": ")) {
            self.reasons.insert(name.to_owned(), reason.to_owned());
        } else if let Some(failed_once) = line.strip_prefix("failed once ") {
            self.again.push(failed_once.to_owned());
        } else if let Some(name) = line.strip_suffix("... FAILED").and_then(|l| l.strip_prefix("test ")) {
            self.failed_names.push(name.trim_end().to_owned());
        } else if let Some((name, printed)) = ignored(line) {
            let reason = self.reasons.remove(name).map(|reason| format!(": {reason}"));
            self.skipped_names.push(format!("{name}{}", reason.as_deref().unwrap_or(printed)));
        }
    }

    /// Takes in what the lab came to.
    pub(crate) fn add(&mut self, lab: Totals) {
        self.passed += lab.passed as u64;
        self.failed += lab.failed as u64;
        self.skip(lab.skipped);
        self.failed_names.extend(lab.failures);
        self.again.extend(lab.again);
    }

    /// Takes in what was skipped, each with where and why.
    pub(crate) fn skip(&mut self, what: Vec<String>) {
        self.skipped += what.len() as u64;
        self.skipped_names.extend(what);
    }

    /// A failure that is no test's: of a check, or of a program that could not be built or run.
    pub(crate) fn fail_once(&mut self, what: &str) {
        self.failed += 1;
        self.failed_names.push(what.to_owned());
    }

    /// What failed, by name, and tests that passed only when they were run again.
    pub(crate) fn failures(&self) -> (&[String], &[String]) {
        (&self.failed_names, &self.again)
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// Names of skipped tests, with the reason where there is one.
    pub(crate) fn skipped_names(&self) -> &[String] {
        &self.skipped_names
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// `3` of `ok. 12 passed; 3 failed; …`.
fn number_before(summary: &str, word: &str) -> u64 {
    let before = summary.split(';').find_map(|part| part.trim_end().strip_suffix(word));
    before.and_then(|text| text.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// The name in `test NAME ... ignored`, and what comes after it.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.trim_end(), outcome.strip_prefix("ignored")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_several_programs() {
        let mut tally = Tally::default();
        let output = "skipped net::slow: needs tcx: no\nrunning 3 tests\ntest a::b ... ok\ntest a::c ... ignored, needs Docker\n\
            test a::d ... FAILED\n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
            test src/lib.rs - f (line 3) ... ignored\n\
            test net::slow     ... ignored (needs tcx: no)\n\
            test result: ok. 41 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out\n";
        output.lines().for_each(|line| tally.read(line));
        assert_eq!(tally.to_string(), "42 passed, 1 failed, 3 skipped");
        assert_eq!(tally.failures().0, ["a::d"]);
        assert_eq!(
            tally.skipped_names(),
            ["a::c, needs Docker", "src/lib.rs - f (line 3)", "net::slow: needs tcx: no"]
        );
    }

    #[test]
    fn adds_the_lab() {
        let mut tally = Tally::default();
        "skipped a: needs tcx: no\ntest a ... ignored\ntest result: ok. 1 passed; 0 failed; 1 ignored\n"
            .lines()
            .for_each(|line| tally.read(line));
        tally.add(Totals {
            passed: 7,
            failed: 1,
            skipped: vec!["a on deb61: needs tcx: no".into()],
            failures: vec!["b on deb61".into()],
            again: Vec::new(),
        });
        assert_eq!(tally.to_string(), "8 passed, 1 failed, 2 skipped");
        assert_eq!(tally.skipped_names(), ["a: needs tcx: no", "a on deb61: needs tcx: no"]);
    }

    #[test]
    fn a_failed_check_counts_as_one_failure() {
        let mut tally = Tally::default();
        tally.fail_once("tidy");
        assert_eq!(tally.to_string(), "0 passed, 1 failed, 0 skipped");
        assert_eq!(tally.failures().0, ["tidy"]);
    }
}
