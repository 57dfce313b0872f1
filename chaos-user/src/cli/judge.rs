//! `kchaos judge`: a recorded run, judged again.

use std::{fs::File, io::BufReader, path::PathBuf};

use anyhow::Context;
use clap::Args;

use super::{exit, reports::ReportArgs};
use crate::{experiment::record::Recorded, judge::judge};

/// Options of `kchaos judge`.
#[derive(Debug, Args)]
pub struct JudgeArgs {
    /// What `kchaos run --record` wrote
    #[arg(long, value_name = "RUN.ndjson")]
    replay: PathBuf,
    #[command(flatten)]
    reports: ReportArgs,
}

/// Judges it.
pub fn run(args: &JudgeArgs) -> anyhow::Result<u8> {
    args.reports.check()?;
    let name = || args.replay.display().to_string();
    let file = File::open(&args.replay).with_context(name)?;
    let run = Recorded::read(BufReader::new(file)).with_context(name)?;
    let input = run.judge_input();
    let judgement = judge(&input);
    let report = run.report(&judgement);
    args.reports.write(&report, &input)?;
    let is_complete = report.rollback.iter().all(|step| step.ok);
    Ok(if is_complete { judgement.verdict.exit_code() } else { exit::ROLLBACK_INCOMPLETE })
}
