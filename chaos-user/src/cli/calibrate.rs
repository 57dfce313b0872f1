//! `kchaos calibrate`: what the targets of a spec do by themselves, and what that says of runs to come.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args;

use super::{
    InsistArgs, exit,
    run::read_spec,
    terminal::{self, say},
};
use crate::{
    experiment::{
        Progress, Stop,
        calibrate::{self, Baseline, KnownGate, Quiet},
    },
    judge::AbortReason,
    kernel::LiveKernel,
    units,
};

/// Options of `kchaos calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// The experiment whose targets and gates are meant; nothing is injected
    #[arg(value_name = "SPEC.yaml")]
    spec: PathBuf,
    /// How long to measure
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = units::parse_duration)]
    duration: Duration,
    /// Where to write what runs to come can use (`kchaos run --baseline FILE`)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print that instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    insist: InsistArgs,
}

/// Measures, and says what came of it.
pub async fn run(args: &CalibrateArgs, kernel_log: bool) -> anyhow::Result<u8> {
    let (spec, _) = read_spec(&args.spec)?;
    let mut stop = Stop::on_signals()?;
    let mut view = terminal::ProgressView::new(args.duration);
    let mut kernel = LiveKernel { kernel_log };
    let mut show = |progress: Progress<'_>| view.show(progress);
    let insist = args.insist.to_insist();
    let quiet = calibrate::measure(&spec, args.duration, &insist, &mut kernel, &mut stop, &mut show).await?;
    let baseline = Baseline::new(&spec, &quiet);
    let text = serde_json::to_string_pretty(&baseline)? + "\n";
    if let Some(path) = &args.out {
        fs::write(path, &text).with_context(|| path.display().to_string())?;
    }
    if args.json {
        say!("{}", text.trim_end())
    } else {
        print(&baseline)
    }
    Ok(exit_code(&quiet))
}

fn exit_code(quiet: &Quiet) -> u8 {
    match &quiet.aborted {
        _ if !quiet.rollback.is_complete() => exit::ROLLBACK_INCOMPLETE,
        // What was measured until then is worth something.
        None | Some(AbortReason::Interrupted) => exit::OK,
        Some(reason) => {
            eprintln!("ended early: {reason}");
            exit::ABORTED
        }
    }
}

fn print(baseline: &Baseline) {
    say!("{} s of {} in which nothing was injected", baseline.seconds, baseline.name);
    let mut table = terminal::table(&[
        "gate",
        "half-width",
        "of margin",
        "pairs needed",
        "kappa",
        "quiet runs",
        "pass",
        "false fail",
        "different",
    ]);
    for gate in &baseline.gates {
        table.add_row(row(gate));
    }
    terminal::print(&table);
    say!(
        "half-width: of the interval that these pulses would have; above 0.7 of the margin most runs are inconclusive"
    );
    say!("quiet runs: pulses that were none, laid over what was measured; they overlap");
}

fn row(gate: &KnownGate) -> Vec<String> {
    let unknown = || "-".to_owned();
    let power = gate.power.as_ref();
    let number =
        |value: Option<f64>, digits: usize| value.map_or_else(unknown, |value| format!("{value:.digits$}"));
    vec![
        gate.metric.clone(),
        number(power.map(|power| power.half_width), 4),
        number(power.map(|power| power.of_margin), 2),
        power.and_then(|power| power.pairs_needed).map_or_else(unknown, |pairs| pairs.to_string()),
        number(gate.kappa, 2),
        gate.runs.to_string(),
        gate.pass.to_string(),
        gate.fail.to_string(),
        gate.different.to_string(),
    ]
}
