//! The end of a run: a line per kernel, the matrix, and whether it failed.

use anyhow::{Result, bail};

use super::{
    matrix::{self, Column},
    results::{Outcome, Results},
    run::Report,
};

/// Prints everything; an error if anything failed.
pub(super) fn report(reports: &[Report], native: Option<&Results>, whole: bool) -> Result<()> {
    kernels(reports);
    let columns: Vec<Column<'_>> = reports
        .iter()
        .map(|report| (report.kernel.name(), &report.results))
        .chain(native.map(|results| ("native", results)))
        .collect();
    if columns.iter().any(|(_, results)| results.len() > 0) {
        println!("\n{}", matrix::render(&columns));
        skipped(&columns);
    }
    problems(reports);
    let nowhere = matrix::ran_nowhere(&columns);
    if !nowhere.is_empty() {
        println!("\nran on none of these: {}", nowhere.join(", "));
    }
    let (passed, failed, skipped) = totals(reports);
    let problems = reports.iter().map(|report| report.problems.len()).sum::<usize>();
    let failed = failed + problems + if whole { nowhere.len() } else { 0 };
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("not everything works on every kernel");
    }
    Ok(())
}

fn kernels(reports: &[Report]) {
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
}

fn skipped(columns: &[Column<'_>]) {
    for (kernel, results) in columns {
        for (name, outcome) in results.iter() {
            if let Outcome::Skipped(reason) = outcome {
                println!("skipped on {kernel}: {name}: {reason}");
            }
        }
    }
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

fn totals(reports: &[Report]) -> (usize, usize, usize) {
    reports
        .iter()
        .map(|report| report.results.counts())
        .fold((0, 0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1, sum.2 + counts.2))
}
