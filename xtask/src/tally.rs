//! Adds up what test programs print.

use std::fmt;

/// How many tests passed, failed, and which were skipped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    skipped_names: Vec<String>,
}

impl Tally {
    /// Takes in one line of a test program's output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.passed += number_before(summary, " passed");
            self.failed += number_before(summary, " failed");
            self.skipped += number_before(summary, " ignored");
        } else if let Some(name) = ignored(line) {
            self.skipped_names.push(name);
        }
    }

    /// A failure that is no test's: of a check, or of a program that could not be built or run.
    pub(crate) fn fail_once(&mut self) {
        self.failed += 1;
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

/// The name in `test NAME ... ignored` and in `test NAME ... ignored, REASON`.
fn ignored(line: &str) -> Option<String> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = outcome.strip_prefix("ignored")?;
    Some(format!("{}{reason}", name.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_several_programs() {
        let mut tally = Tally::default();
        let output = "running 3 tests\ntest a::b ... ok\ntest a::c ... ignored, needs Docker\n\
            test a::d ... FAILED\n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
            test src/lib.rs - f (line 3) ... ignored\n\
            test net::slow     ... ignored\n\
            test result: ok. 41 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out\n";
        output.lines().for_each(|line| tally.read(line));
        assert_eq!(tally.to_string(), "42 passed, 1 failed, 3 skipped");
        assert_eq!(tally.skipped_names(), ["a::c, needs Docker", "src/lib.rs - f (line 3)", "net::slow"]);
    }

    #[test]
    fn a_failed_check_counts_as_one_failure() {
        let mut tally = Tally::default();
        tally.fail_once();
        assert_eq!(tally.to_string(), "0 passed, 1 failed, 0 skipped");
    }
}
