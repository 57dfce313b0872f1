//! `kchaos inject`: one fault, now, with live counters.

use std::{io::IsTerminal, time::Duration};

use chaos_common::RuleStats;
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{
    InsistArgs, exit,
    fault::FaultArgs,
    terminal::{self, say},
};
use crate::{
    experiment::{Stop, phases::TICK},
    fault::{
        Fault,
        plan::{Note, Options, plan},
        wanted::wanted,
    },
    judge::delivery::{Outcomes, Segments},
    kernel::{CallReport, Injection, Kernel, LiveInjection, LiveKernel, Rollback},
    target::{self, Target},
    units,
};

/// Options of `kchaos inject`.
#[derive(Debug, Args)]
pub struct InjectArgs {
    #[command(subcommand)]
    fault: FaultArgs,
}

/// What every injection has.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Whom: cgroup:/PATH, pid:N, docker:NAME|ID; may be given more than once
    #[arg(long = "on", value_name = "TARGET", required = true, value_parser = str::parse::<Target>)]
    targets: Vec<Target>,
    /// For how long
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = units::parse_duration)]
    duration: Duration,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    insist: InsistArgs,
}

/// What is printed at the end; the schema is stable.
#[derive(Debug, Serialize)]
struct Summary {
    schema: &'static str,
    fault: String,
    targets: Vec<String>,
    seconds: f64,
    dry_run: bool,
    eligible: u64,
    outcomes: Outcomes,
    segments: Segments,
    #[serde(flatten)]
    calls: CallReport,
    fired: bool,
    rollback: Rollback,
}

impl InjectArgs {
    /// Whether what is asked for makes sense.
    pub fn check(&self) -> anyhow::Result<()> {
        self.fault.fault().map(drop)
    }
}

/// Injects until the time is over or somebody stops it.
pub async fn run(args: &InjectArgs, kernel_log: bool) -> anyhow::Result<u8> {
    let common = &args.fault.common;
    let fault = args.fault.fault()?;
    let mut stop = Stop::on_signals()?;
    let insist = common.insist.to_insist();
    let scope = target::resolve(&[], &common.targets, &insist.allowed).await?;
    let mut kernel = LiveKernel { kernel_log };
    let options = Options { dry_run: insist.dry_run, forced: insist.mechanism, ..Options::default() };
    let faults = std::slice::from_ref(&fault);
    let plan = plan(faults, &scope, &kernel.capabilities(&wanted(faults, &options))?, &options)?;
    for note in plan.notes.iter().filter(|note| matches!(note, Note::SparedThoughNamed { .. })) {
        eprintln!("note: {note}");
    }
    let mut injection = kernel.inject(&fault.to_string(), &plan)?;
    let start = Instant::now();
    let watched = watch(common, &fault, &mut injection, &mut stop).await;
    let seconds = start.elapsed().as_secs_f64();
    let calls = injection.calls();
    let rollback = injection.rollback();
    report(common, &fault, seconds, (watched?, calls?), rollback)
}

/// Arms, shows what happens every second, disarms. Returns what became of everything the rule saw.
async fn watch(
    common: &CommonArgs,
    fault: &Fault,
    injection: &mut LiveInjection,
    stop: &mut Stop,
) -> anyhow::Result<RuleStats> {
    let start = Instant::now();
    injection.arm(common.duration)?;
    let mut live = Live::new(common, fault);
    let mut elapsed = Duration::ZERO;
    while elapsed < common.duration {
        elapsed = (elapsed + TICK).min(common.duration);
        tokio::select! {
            () = sleep_until(start + elapsed) => {}
            _ = stop.requested() => break,
        }
        if !live.show(elapsed, total(injection)?) {
            break;
        }
    }
    injection.disarm()?;
    total(injection)
}

fn total(injection: &mut LiveInjection) -> anyhow::Result<RuleStats> {
    let sample = injection.sample()?;
    Ok(sample.rules.iter().flatten().fold(RuleStats::ZERO, |sum, stats| sum.plus(*stats)))
}

/// Counters as they run: one line that changes on a terminal, a line a second in a pipe.
struct Live {
    bar: Option<ProgressBar>,
    quiet: bool,
    dry_run: bool,
    before: RuleStats,
}

impl Live {
    fn new(common: &CommonArgs, fault: &Fault) -> Self {
        let targets: Vec<String> = common.targets.iter().map(ToString::to_string).collect();
        let dry = if common.insist.dry_run { " (dry run)" } else { "" };
        eprintln!(
            "{fault} on {} for {}{dry}; Ctrl-C ends it",
            targets.join(", "),
            units::show_duration(common.duration)
        );
        let bar = (std::io::stderr().is_terminal() && !common.json).then(|| {
            let bar = ProgressBar::new(common.duration.as_secs());
            // The template is ours and correct; if it were not, the default one would do.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg} {pos}/{len} s") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, quiet: common.json, dry_run: common.insist.dry_run, before: RuleStats::ZERO }
    }

    /// Whether anybody is still looking.
    fn show(&mut self, elapsed: Duration, now: RuleStats) -> bool {
        let second = now.since(self.before);
        self.before = now;
        let (hit, hit_in_second, verb) = match self.dry_run {
            true => (now.dry_run, second.dry_run, "would be hit"),
            false => (now.injected, second.injected, "injected"),
        };
        let line = format!(
            "{} {verb} of {} eligible (last second: {} of {})",
            HumanCount(hit),
            HumanCount(now.eligible()),
            HumanCount(hit_in_second),
            HumanCount(second.eligible())
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.set_position(elapsed.as_secs());
                true
            }
            None => self.quiet || terminal::line(format_args!("{:>4} s  {line}", elapsed.as_secs())),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn report(
    common: &CommonArgs,
    fault: &Fault,
    seconds: f64,
    (stats, calls): (RuleStats, CallReport),
    rollback: Rollback,
) -> anyhow::Result<u8> {
    let dry_run = common.insist.dry_run;
    let hit = if dry_run { stats.dry_run } else { stats.injected };
    let summary = Summary {
        schema: "kchaos-inject/1",
        fault: fault.to_string(),
        targets: common.targets.iter().map(ToString::to_string).collect(),
        seconds,
        dry_run,
        eligible: stats.eligible(),
        outcomes: stats.into(),
        segments: stats.into(),
        calls,
        fired: hit > 0,
        rollback,
    };
    if common.json {
        say!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print_text(&summary, hit, fault.occurrences());
    }
    Ok(match (summary.rollback.is_complete(), summary.fired) {
        (false, _) => exit::ROLLBACK_INCOMPLETE,
        (true, false) => exit::NEVER_FIRED,
        (true, true) => exit::OK,
    })
}

fn print_text(summary: &Summary, hit: u64, occurrences: &str) {
    let verb = if summary.dry_run { "would have injected" } else { "injected" };
    let segments = match summary.segments {
        Segments { eligible, .. } if eligible == summary.eligible => String::new(),
        Segments { eligible, hit, .. } => {
            format!(" ({} of {} segments)", HumanCount(hit), HumanCount(eligible))
        }
    };
    let Outcomes { filtered, when, budget, dormant, .. } = summary.outcomes;
    let aside = [
        (filtered, "filtered out"),
        (when, "held back by when"),
        (budget, "by the budget"),
        (dormant, "while dormant"),
    ];
    let aside: Vec<String> =
        aside.iter().map(|(count, what)| format!("{} {what}", HumanCount(*count))).collect();
    say!(
        "{}: {verb} {} of {} eligible{segments} in {:.1} s ({})",
        summary.fault,
        HumanCount(hit),
        HumanCount(summary.eligible),
        summary.seconds,
        aside.join(", "),
    );
    if summary.outcomes.failed > 0 {
        say!(
            "{} were to be hit, and the kernel could not: no memory, or a full queue",
            HumanCount(summary.outcomes.failed)
        );
    }
    if let Some(missed) = summary.calls.missed() {
        say!("{missed}");
    }
    if let Some(delays) = &summary.calls.delays {
        say!("delays: {delays}");
    }
    if !summary.fired {
        say!("the fault never fired: {}", why_not(summary, occurrences));
    }
    for step in &summary.rollback.steps {
        if let Some(error) = &step.error {
            say!("rollback incomplete: {}: {error}; run `kchaos sweep`", step.what);
        }
    }
}

fn why_not(summary: &Summary, occurrences: &str) -> String {
    if summary.eligible > 0 {
        "the draw, `when` or the budget held every one back".into()
    } else if summary.outcomes.dormant > 0 {
        "all that its filter asks for came while it was dormant".into()
    } else if summary.outcomes.filtered > 0 {
        format!("there were {occurrences}, but none that the filter asks for and that is not spared")
    } else {
        format!("there were no {occurrences}")
    }
}
