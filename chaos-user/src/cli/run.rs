//! `kchaos run`: an experiment, and its verdict.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;

use super::{InsistArgs, exit, plan, reports::ReportArgs, terminal, terminal::say};
use crate::{
    experiment::{
        self, Insist, Outcome, Spec, Stop,
        calibrate::{self, Baseline, Known},
    },
    kernel::{LiveKernel, monotonic_ns},
    report::{Report, text},
};

/// Options of `kchaos run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The experiment
    #[arg(value_name = "SPEC.yaml")]
    spec: PathBuf,
    #[command(flatten)]
    reports: ReportArgs,
    /// Keep every reading, for `kchaos judge --replay`
    #[arg(long, value_name = "RUN.ndjson")]
    record: Option<PathBuf>,
    /// Use what `kchaos calibrate --out` wrote: how noisy these targets are when nothing happens
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Show the plan first
    #[arg(long)]
    show_plan: bool,
    #[command(flatten)]
    insist: InsistArgs,
}

/// Runs a spec.
pub async fn run(args: &RunArgs, kernel_log: bool) -> anyhow::Result<u8> {
    let (spec, source) = read_spec(&args.spec)?;
    args.reports.check()?;
    let insist = Insist { known: args.known()?, ..args.insist.to_insist() };
    let mut outcome = experiment(&spec, &insist, kernel_log).await?;
    outcome.run.source = source;
    if args.show_plan {
        plan::print(&outcome.scope, &outcome.plan);
    }
    let report = outcome.run.report(&outcome.judgement);
    let written = args.reports.write(&report, &outcome.input);
    if let Some(path) = &args.record {
        record(&outcome, path).with_context(|| path.display().to_string())?;
    }
    written?;
    Ok(exit_code(&outcome))
}

fn record(outcome: &Outcome, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    outcome.run.write(&mut file)?;
    file.flush()
}

impl RunArgs {
    /// What a quiet run said of the metrics, if one is named.
    fn known(&self) -> anyhow::Result<Vec<Known>> {
        let Some(path) = &self.baseline else { return Ok(vec![]) };
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(name)?;
        let baseline: Baseline = serde_json::from_str(&text).with_context(name)?;
        anyhow::ensure!(
            baseline.schema == calibrate::SCHEMA,
            "{}: it is `{}`, and this kchaos reads `{}`; write it anew with `kchaos calibrate --out`",
            name(),
            baseline.schema,
            calibrate::SCHEMA
        );
        Ok(baseline.known())
    }
}

/// Reads and checks a spec; returns its text, too. Where it leaves the order of blocks to chance, chance is had from the clock.
pub fn read_spec(path: &Path) -> anyhow::Result<(Spec, String)> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut spec = experiment::parse(&text).with_context(|| path.display().to_string())?;
    if spec.timing.seed == 0 {
        spec.timing.seed = 1 + monotonic_ns() % 1_000_000;
    }
    Ok((spec, text))
}

/// Runs an experiment under the signals and with the progress that a human expects.
pub async fn experiment(spec: &Spec, insist: &Insist, kernel_log: bool) -> anyhow::Result<Outcome> {
    let mut stop = Stop::on_signals()?;
    let mut view = terminal::ProgressView::new(spec.timing.total());
    let mut kernel = LiveKernel { kernel_log };
    let mut show = |progress: experiment::Progress<'_>| view.show(progress);
    Ok(experiment::run(spec, insist, &mut kernel, &mut stop, &mut show).await?)
}

/// The report as text.
pub fn print(report: &Report) {
    let style = text::Style { colour: terminal::colour(), width: terminal::width() };
    say!("{}", text::render(report, &style).trim_end());
}

/// What a rollback left behind outweighs every verdict.
pub fn exit_code(outcome: &Outcome) -> u8 {
    match outcome.rollback.is_complete() {
        true => outcome.judgement.verdict.exit_code(),
        false => exit::ROLLBACK_INCOMPLETE,
    }
}
