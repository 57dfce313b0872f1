//! The end of a run: a line per kernel, the matrix, and whether it failed.

use std::{fmt, fs};

use anyhow::{Result, bail};

use super::{
    matrix::{self, Column},
    results::{Outcome, Results},
    run::Report,
};

/// The column of the running kernel.
const NATIVE: &str = "native";
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// What all kernels of the lab came to; a test counts once for each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// How many passed.
    pub(crate) passed: usize,
    /// How many failed; a kernel in trouble and a test that ran nowhere are failures too.
    pub(crate) failed: usize,
    /// Each that was skipped, where and why.
    pub(crate) skipped: Vec<String>,
    /// What failed, and where.
    pub(crate) failures: Vec<String>,
    /// Each that passed only when it was run again, where, and why it had failed.
    pub(crate) again: Vec<String>,
}

impl Totals {
    /// An error if anything failed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("not everything works on every kernel");
        }
        Ok(())
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

/// Prints everything. `whole` says that it was the whole lab.
pub(super) fn report(reports: &[Report], native: Option<&Results>, whole: bool) -> Totals {
    let mut columns: Vec<Column<'_>> =
        reports.iter().map(|report| (report.kernel.name(), &report.results)).collect();
    let skipped = skipped(&columns);
    let again = told(&columns, |results| {
        results.passed_again().map(|(name, why)| (name.to_owned(), format!(": {why}"))).collect()
    });
    let mut failures =
        told(&columns, |results| results.failed().map(|name| (name.to_owned(), String::new())).collect());
    columns.extend(native.map(|results| (NATIVE, results)));
    kernels(reports, native);
    if columns.iter().any(|(_, results)| results.len() > 0) {
        println!("\n{}{}", matrix::render(&columns), matrix::LEGEND);
        skipped.iter().for_each(|line| println!("skipped {line}"));
    }
    problems(reports);
    let nowhere = if whole && native.is_some() { matrix::ran_nowhere(&columns) } else { Vec::new() };
    if !nowhere.is_empty() {
        println!("\n✗ ran nowhere: {}", nowhere.join(", "));
    }
    for report in reports {
        let first = |problem: &String| problem.lines().next().unwrap_or_default().to_owned();
        failures.extend(
            report.problems.iter().map(|problem| format!("{}: {}", report.kernel.name(), first(problem))),
        );
    }
    failures.extend(nowhere.iter().map(|name| format!("{name} ran nowhere")));
    let (passed, failed) = totals(reports);
    Totals { passed, failed: failed + nowhere.len(), skipped, failures, again }
}

fn kernels(reports: &[Report], native: Option<&Results>) {
    println!(
        "\n{:<8} {:<24} {:>6} {:>6} {:>7} {:>7} {:>8}  not there",
        "kernel", "release", "boot s", "all s", "passed", "failed", "skipped"
    );
    for report in reports {
        let (passed, failed, skipped) = report.results.counts();
        let boot = report.boot.map_or("-".to_owned(), |boot| format!("{:.1}", boot.as_secs_f64()));
        println!(
            "{:<8} {:<24} {boot:>6} {:>6.1} {passed:>7} {failed:>7} {skipped:>8}  {}",
            report.kernel.name(),
            report.release.as_deref().unwrap_or("-"),
            report.took.as_secs_f64(),
            report.missing.join(", ")
        );
    }
    if let Some(results) = native {
        let (passed, failed, skipped) = results.counts();
        let release = fs::read_to_string(RELEASE).unwrap_or_default();
        let (release, none) = (release.trim(), "-");
        println!("{NATIVE:<8} {release:<24} {none:>6} {none:>6} {passed:>7} {failed:>7} {skipped:>8}");
    }
}

/// Each test that was skipped: its name, where and why.
fn skipped(columns: &[Column<'_>]) -> Vec<String> {
    told(columns, |results| {
        let skipped = results.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Skipped(reason) => Some((name.to_owned(), format!(": {reason}"))),
            _ => None,
        });
        skipped.collect()
    })
}

/// `NAME on KERNEL…` of what `which` finds in each column.
fn told(columns: &[Column<'_>], which: impl Fn(&Results) -> Vec<(String, String)>) -> Vec<String> {
    let of = |(kernel, results): &Column<'_>| {
        which(results).into_iter().map(|(name, more)| format!("{name} on {kernel}{more}")).collect::<Vec<_>>()
    };
    columns.iter().flat_map(of).collect()
}

fn problems(reports: &[Report]) {
    for report in reports {
        let (_, failed, _) = report.results.counts();
        for problem in &report.problems {
            println!("\n✗ {}: {problem}", report.kernel.name());
        }
        if failed > 0 || !report.problems.is_empty() {
            let [console, output] = &report.logs;
            println!("{}: console {}", report.kernel.name(), console.display());
            println!("{}: output {}", report.kernel.name(), output.display());
        }
    }
}

fn totals(reports: &[Report]) -> (usize, usize) {
    reports.iter().fold((0, 0), |(all_passed, all_failed), report| {
        let (passed, failed, _) = report.results.counts();
        (all_passed + passed, all_failed + failed + report.problems.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_is_told_with_where_and_why() {
        let results = Results::of("skipped a::b: needs tcx\ntest a::b ... ignored\ntest a::c ... ok\n");
        assert_eq!(skipped(&[("deb61", &results)]), ["a::b on deb61: needs tcx"]);
    }

    #[test]
    fn a_failure_anywhere_is_one() {
        let totals =
            Totals { passed: 3, failed: 1, skipped: vec!["a on deb61: b".into()], ..Totals::default() };
        assert_eq!(totals.to_string(), "3 passed, 1 failed, 1 skipped");
        assert!(totals.check().is_err());
        assert!(Totals::default().check().is_ok());
    }
}
