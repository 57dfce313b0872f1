//! `kchaos plan`: what a spec would do here.

use std::path::PathBuf;

use clap::Args;

use super::{InsistArgs, exit, run::read_spec, terminal::say};
use crate::{
    experiment,
    fault::{
        host_change::HostChange,
        plan::{Attachment, Plan, Via},
        show,
    },
    judge::names,
    kernel::{LiveKernel, fq, ifb, qdisc},
    target::Scope,
};

/// Options of `kchaos plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The experiment
    #[arg(value_name = "SPEC.yaml")]
    spec: PathBuf,
    #[command(flatten)]
    insist: InsistArgs,
}

/// Resolves and plans; changes nothing.
pub async fn run(args: &PlanArgs) -> anyhow::Result<u8> {
    let (spec, _) = read_spec(&args.spec)?;
    let mut kernel = LiveKernel::default();
    let (scope, plan) = experiment::prepare(&spec, &args.insist.to_insist(), &mut kernel).await?;
    say!("plan for {}", spec.name);
    print(&scope, &plan);
    Ok(exit::OK)
}

/// A plan in words.
pub fn print(scope: &Scope, plan: &Plan) {
    say!("targets");
    for member in &scope.members {
        let devices: Vec<String> = member
            .namespaces
            .iter()
            .flat_map(|namespace| &namespace.devices)
            .map(|device| device.name.clone())
            .collect();
        let (group, path) = (names::group(member.group), member.cgroup.path.display());
        say!(
            "  {group:<10} {} = {path} (id {}), devices: {}",
            member.target,
            member.cgroup.id,
            devices.join(" ")
        );
    }
    say!("faults");
    for rule in &plan.rules {
        let mechanisms: Vec<&str> = rule.mechanisms().map(|mechanism| mechanism.name()).collect();
        let dry_run = if rule.rule.dry_run != 0 { ", dry run" } else { "" };
        say!("  {} by {}{dry_run}", rule.fault, mechanisms.join(" and "));
        if let Some(pulse) = rule.fault.limits().pulse {
            say!("    {pulse}");
        }
        for line in show::calls(rule) {
            say!("    {line}");
        }
    }
    print_spared(plan);
    say!("attached while it runs");
    for line in show::attachments(&plan.attachments) {
        say!("  {line}");
    }
    if !plan.host_changes.is_empty() {
        say!("changed on the host while it runs");
    }
    for change in &plan.host_changes {
        say!("  {change}");
    }
    say!("measured");
    let metrics: Vec<&str> = plan.metrics.iter().map(|metric| metric.name()).collect();
    say!("  {}", metrics.join(" "));
    print_residue(plan);
    for note in show::notes(&plan.notes) {
        say!("note: {note}");
    }
}

/// The default allow-list: one line for each reason.
fn print_spared(plan: &Plan) {
    if plan.spared.is_empty() {
        return;
    }
    say!("spared, unless a fault says `allow_defaults: false`");
    for of_one_kind in plan.spared.chunk_by(|one, other| one.why == other.why) {
        let entries: Vec<String> = of_one_kind.iter().map(|entry| entry.what.to_string()).collect();
        say!("  {:<22}{}", of_one_kind[0].why, entries.join(", "));
    }
}

fn print_residue(plan: &Plan) {
    say!("a SIGKILL would leave behind");
    let mut nothing = plan.host_changes.is_empty();
    for change in &plan.host_changes {
        let (what, undone_by) = match change {
            HostChange::RootFq { at, .. } => ("an fq qdisc", fq::undo_command(&at.device.name)),
            HostChange::RootNetem { at, .. } => {
                ("a prio qdisc with netem", fq::undo_command(&at.device.name))
            }
            HostChange::Ifb { .. } => ("an ifb device", ifb::undo_command()),
        };
        say!("  {what}; undone by: {undone_by} (in network namespace {})", change.netns().inode);
    }
    for attachment in &plan.attachments {
        if let Attachment::Tc { via: Via::Clsact, at, .. } = attachment {
            nothing = false;
            say!("  a clsact filter; undone by: {}", qdisc::undo_commands(&at.device.name, None, true));
        }
    }
    if nothing {
        say!("  nothing but a file in /run/kchaos");
    }
}
