//! `kchaos observe`: what targets do, side by side, while nothing is done to them.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{
    exit,
    terminal::{self, say},
};
use crate::{
    experiment::Stop,
    kernel::{
        Rollback,
        observe::{Missing, Observation},
    },
    report::activity,
    steady::{
        activity::{Activity, activities},
        family::Family,
        reading::Reading,
    },
    target::{self, Target},
    units,
};

/// Shorter ones would measure how long reading takes.
const SHORTEST: Duration = Duration::from_millis(100);

/// Options of `kchaos observe`.
#[derive(Debug, Args)]
pub struct ObserveArgs {
    /// Whom: cgroup:/PATH, pid:N, docker:NAME|ID; may be given more than once, each is a column of its own
    #[arg(long = "on", value_name = "TARGET", required = true, value_parser = str::parse::<Target>)]
    targets: Vec<Target>,
    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::parse_duration)]
    every: Duration,
    /// For how long; until it is stopped if not given
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    duration: Option<Duration>,
    /// Time system calls and TCP's round trips too: costs every call on this host something
    #[arg(long)]
    latency: bool,
    /// Time how long threads wait for a processor: costs every switch of threads on this host something
    #[arg(long)]
    runqueue: bool,
    /// Time requests to block devices
    #[arg(long)]
    block: bool,
    /// Print a line of JSON each time, and one at the end
    #[arg(long)]
    json: bool,
}

/// A line of JSON; the schema is stable.
#[derive(Debug, Serialize)]
struct Line<'a> {
    schema: &'static str,
    /// Since the start, in seconds.
    at_s: f64,
    #[serde(flatten)]
    what: What<'a>,
    /// How long it covers.
    seconds: f64,
    groups: Vec<Column<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What<'a> {
    /// What happened since the line before.
    Tick,
    /// What happened since the start, and how it ended.
    End { missing: &'a [Missing], rollback: &'a Rollback },
}

/// What one target did.
#[derive(Debug, Serialize)]
struct Column<'a> {
    target: String,
    #[serde(flatten)]
    activity: &'a Activity,
}

/// Observes until the time is over or somebody stops it.
pub async fn run(args: &ObserveArgs) -> anyhow::Result<u8> {
    anyhow::ensure!(
        args.every >= SHORTEST,
        "--every {}: looking takes its time; write {} or more",
        units::show_duration(args.every),
        units::show_duration(SHORTEST)
    );
    let mut stop = Stop::on_signals()?;
    // Nobody is hurt, so nobody is refused.
    let scope = target::resolve(&args.targets, &[], &[]).await?;
    let mut observation = Observation::start(&scope, &args.families())?;
    for Missing { family, because } in observation.missing() {
        eprintln!("note: {} is not counted: {because}", family.name());
    }
    let watched = watch(args, &mut observation, &mut stop).await;
    let missing = observation.missing().to_vec();
    let rollback = observation.rollback();
    let (first, last) = watched?;
    args.show_end(&first, &last, &missing, &rollback)?;
    Ok(if rollback.is_complete() { exit::OK } else { exit::ROLLBACK_INCOMPLETE })
}

/// Looks again and again; returns the first reading and the last.
async fn watch(
    args: &ObserveArgs,
    observation: &mut Observation,
    stop: &mut Stop,
) -> anyhow::Result<(Reading, Reading)> {
    let first = observation.read()?;
    let (mut before, start) = (first.clone(), Instant::now());
    let mut view = View::new(args);
    let mut elapsed = Duration::ZERO;
    let is_over = |elapsed: Duration| args.duration.is_some_and(|duration| elapsed >= duration);
    let mut stopped = false;
    while !stopped && !is_over(elapsed) {
        elapsed += args.every;
        elapsed = args.duration.map_or(elapsed, |duration| elapsed.min(duration));
        tokio::select! {
            () = sleep_until(start + elapsed) => {}
            _ = stop.requested() => stopped = true,
        }
        let now = observation.read()?;
        if !view.show(&first, &before, &now)? {
            break;
        }
        before = now;
    }
    Ok((first, before))
}

impl ObserveArgs {
    fn families(&self) -> Vec<Family> {
        let asked =
            [(self.latency, Family::Latency), (self.runqueue, Family::RunQueue), (self.block, Family::Block)];
        let asked = asked.into_iter().filter_map(|(is_asked, family)| is_asked.then_some(family));
        Family::ALWAYS.into_iter().chain(asked).collect()
    }

    fn columns<'a>(&self, activities: &'a [Activity]) -> Vec<Column<'a>> {
        let pairs = self.targets.iter().zip(activities);
        pairs.map(|(target, activity)| Column { target: target.to_string(), activity }).collect()
    }

    /// A row for each metric that there is something to say of, a column for each target.
    fn table(&self, seconds: f64, activities: &[Activity]) -> comfy_table::Table {
        let targets: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        let header: Vec<&str> = std::iter::once("").chain(targets.iter().map(String::as_str)).collect();
        let mut table = terminal::plain_table(&header);
        let columns: Vec<_> = activities.iter().map(|of| activity::rows(of, seconds)).collect();
        let names = columns.first().into_iter().flatten().map(|(name, _)| (*name).to_owned());
        for (place, name) in names.enumerate() {
            let cells: Vec<String> = columns.iter().map(|column| column[place].1.clone()).collect();
            if cells.iter().any(|cell| cell != activity::NOTHING) {
                table.add_row(std::iter::once(name).chain(cells));
            }
        }
        table
    }

    fn show_end(
        &self,
        first: &Reading,
        last: &Reading,
        missing: &[Missing],
        rollback: &Rollback,
    ) -> anyhow::Result<()> {
        let (seconds, activities) = activities(first, last);
        if self.json {
            let what = What::End { missing, rollback };
            let groups = self.columns(&activities);
            let line = Line { schema: SCHEMA, at_s: seconds, what, seconds, groups };
            say!("{}", serde_json::to_string(&line)?);
            return Ok(());
        }
        say!("in {seconds:.1} s:");
        terminal::print(&self.table(seconds, &activities));
        Ok(())
    }
}

const SCHEMA: &str = "kchaos-observe/1";

/// What is seen while it goes on: a table that changes on a terminal, lines in a pipe.
struct View<'a> {
    args: &'a ObserveArgs,
    bar: Option<ProgressBar>,
}

impl<'a> View<'a> {
    fn new(args: &'a ObserveArgs) -> Self {
        let targets: Vec<String> = args.targets.iter().map(ToString::to_string).collect();
        let time = args
            .duration
            .map(|duration| format!(" for {}", units::show_duration(duration)))
            .unwrap_or_default();
        eprintln!("observing {}{time}; Ctrl-C ends it", targets.join(", "));
        let is_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = (is_terminal && !args.json).then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is ours and correct; if it were not, the default one would do.
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { args, bar }
    }

    /// Whether anybody is still looking.
    fn show(&mut self, first: &Reading, before: &Reading, now: &Reading) -> anyhow::Result<bool> {
        let (seconds, now_done) = activities(before, now);
        let at_s = activities(first, now).0;
        if self.args.json {
            let groups = self.args.columns(&now_done);
            let line = Line { schema: SCHEMA, at_s, what: What::Tick, seconds, groups };
            return Ok(terminal::line(format_args!("{}", serde_json::to_string(&line)?)));
        }
        if let Some(bar) = &self.bar {
            let table = self.args.table(seconds, &now_done);
            bar.set_message(format!("{at_s:.0} s\n{table}"));
            return Ok(true);
        }
        let pairs = self.args.targets.iter().zip(&now_done);
        let mut lines = pairs.map(|(target, done)| {
            terminal::line(format_args!("{at_s:>7.1} s  {target}  {}", activity::line(done, seconds)))
        });
        Ok(lines.all(|is_read| is_read))
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
