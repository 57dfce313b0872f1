//! `kchaos demo`: a real experiment on two services made for it.

use clap::Args;

use super::{exit, run, terminal::say};
use crate::{
    demo::{self, Answer, Lab},
    experiment::{Insist, Recording},
    judge::names,
    report::json,
    steady::sample::Phase,
    target::Group,
    units::Percent,
};

/// Options of `kchaos demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Share of the experimental service's packets to lose
    #[arg(long, default_value = "5%", value_parser = str::parse::<Percent>)]
    percent: Percent,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it. Exits with 0 if the verdict is the one that such a loss deserves.
pub async fn run(args: &DemoArgs, kernel_log: bool) -> anyhow::Result<u8> {
    eprintln!(
        "two cgroups on one network device, a service in each; {} of what one sends is lost",
        args.percent
    );
    let lab = tokio::task::block_in_place(Lab::new)?;
    let spec = demo::spec(&lab, args.percent.0);
    let outcome = run::experiment(&spec, &Insist::default(), kernel_log).await;
    let seen = tokio::task::block_in_place(|| lab.finish());
    let (outcome, seen) = (outcome?, seen?);
    let report = outcome.run.report(&outcome.judgement);
    if args.json {
        say!("{}", json::render(&report)?);
    } else {
        run::print(&report);
        print_latencies(&seen, &outcome.run.recording);
    }
    if !outcome.rollback.is_complete() {
        return Ok(exit::ROLLBACK_INCOMPLETE);
    }
    let found = demo::found_what_was_planted(&outcome.judgement);
    if !args.json {
        match found {
            true => say!("the loss was planted and the judge found it: the demo exits with 0"),
            false => say!("the judge did not find the loss that was planted"),
        }
    }
    Ok(if found { exit::OK } else { outcome.judgement.verdict.exit_code().max(1) })
}

fn print_latencies(seen: &[(Group, Vec<Answer>)], recording: &Recording) {
    say!("what the clients saw (latency from when a request was due)");
    for (group, answers) in seen {
        let of_phase = |phase| match demo::latency_ms(answers, recording, phase) {
            Some((p50, p99)) => format!("p50 {p50:.1} ms, p99 {p99:.1} ms"),
            None => "nothing".into(),
        };
        let (before, during) = (of_phase(Phase::Baseline), of_phase(Phase::Inject));
        say!("  {:<10}  before: {before}   during: {during}", names::group(*group));
    }
}
