//! Holds the documentation to what it says of kchaos: each command it shows is understood, each spec can be
//! planned. Nothing is run, and nobody has to be root.

// The task runner checks its own commands.
#[allow(dead_code)]
#[path = "../../xtask/src/docs/blocks.rs"]
mod blocks;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, ensure};
use blocks::{Block, Command};
use kchaos::{
    cli, experiment,
    fault::{
        capability::Capabilities,
        plan::{Options, plan},
        wanted::wanted,
    },
    target::{Cgroup, Device, Group, Member, Namespace, Netns, Scope, root_qdisc::RootQdisc},
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What a list of faults lacks to be a spec.
const AROUND_FAULTS: &str = "version: 1\nname: faults\ngroups: { control: 'cgroup:/a', experiment: 'cgroup:/b' }\n\
    steady_state: { gates: [{ metric: net.tx_bytes, within: 10% }] }\n";

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let blocks = blocks::all(&root).context("reading the documentation")?;
    let per_block: Vec<_> = blocks.iter().map(trials).collect();
    let others = per_block.iter().filter(|trials| trials.is_empty()).count();
    println!("{} blocks, of which {others} have neither kchaos's commands nor YAML", blocks.len());
    let trials = per_block.into_iter().flatten().collect();
    Ok(libtest_mimic::run(&Arguments::from_args(), trials).exit_code())
}

/// What there is to check in a block.
fn trials(block: &Block) -> Vec<Trial> {
    match block.language.as_str() {
        "yaml" => vec![yaml(block)],
        _ => {
            block.commands("kchaos").into_iter().map(|(place, command)| understood(&place, command)).collect()
        }
    }
}

fn understood(place: &str, Command { text, arguments }: Command) -> Trial {
    let name = format!("{place} {text}");
    match arguments {
        Some(arguments) => Trial::test(name, move || Ok(cli::check(&arguments)?)),
        None => skipped(name, "it stands for others"),
    }
}

fn yaml(block: &Block) -> Trial {
    let text = block.lines.join("\n");
    let first = block
        .lines
        .iter()
        .map(|line| line.trim_end())
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    match first.unwrap_or_default() {
        line if line.starts_with("version:") => plannable(format!("{} spec", block.place), text),
        "faults:" => plannable(format!("{} faults", block.place), format!("{AROUND_FAULTS}{text}\n")),
        line if line.starts_with("- ") => {
            plannable(format!("{} faults", block.place), format!("{AROUND_FAULTS}faults:\n{text}\n"))
        }
        _ => skipped(format!("{} YAML", block.place), "neither a spec nor a list of faults"),
    }
}

fn skipped(name: String, why: &'static str) -> Trial {
    println!("skipped {name}: {why}");
    Trial::ignorable_test(name, move || Ok(Completion::ignored_with(why)))
}

fn plannable(name: String, text: String) -> Trial {
    Trial::test(name, move || can_be_planned(&text).map_err(|error| Failed::from(format!("{error:#}"))))
}

/// On a kernel that can do everything, for one target in each group.
fn can_be_planned(text: &str) -> anyhow::Result<()> {
    let spec = experiment::parse(text)?;
    let scope = Scope {
        members: vec![member(Group::Control, 1)?, member(Group::Experiment, 2)?],
        spared: Vec::new(),
    };
    let gates = spec.gates.iter().map(|gate| gate.metric).collect();
    let options = Options { gates: Some(gates), ..Options::default() };
    let mut capabilities = Capabilities::all_but(&[]);
    let with_all = plan(&spec.faults, &scope, &capabilities, &options)?;
    // What is tried for a plan is enough for it.
    let wanted = wanted(&spec.faults, &options);
    capabilities.probed.retain(|probed| wanted.capabilities.contains(&probed.capability));
    let with_wanted = plan(&spec.faults, &scope, &capabilities, &options)?;
    ensure!(with_wanted == with_all, "with {wanted:?} alone it is planned otherwise");
    Ok(())
}

fn member(group: Group, id: u64) -> anyhow::Result<Member> {
    let path = Path::new("/docs").join(id.to_string());
    let devices = vec![Device { ifindex: 2, name: "eth0".into(), root: RootQdisc::none() }];
    Ok(Member {
        group,
        target: format!("cgroup:{}", path.display()).parse()?,
        cgroup: Cgroup { dir: path.clone(), path, id, level: 2 },
        namespaces: vec![Namespace { netns: Netns::current()?, devices, is_held: false }],
        ring: None,
    })
}
