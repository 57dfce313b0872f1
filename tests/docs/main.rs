//! Holds the documentation to what it says of kchaos: each command it shows is understood, each spec can be
//! planned, and so can each example. Nothing is run, and nobody has to be root.

// The task runner checks its own commands.
#[allow(dead_code)]
#[path = "../../xtask/src/docs/blocks.rs"]
mod blocks;

use std::{fs, path::Path, process::ExitCode};

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

/// The fields that a spec must have. What a part of one lacks is taken from here.
const NEEDED: [(&str, &str); 5] = [
    ("version:", "version: 1"),
    ("name:", "name: part"),
    ("groups:", "groups: { control: 'cgroup:/a', experiment: 'cgroup:/b' }"),
    ("steady_state:", "steady_state:\n  gates: [{ metric: net.tx_bytes, within: 10% }]"),
    ("faults:", "faults: [{ loss: { percent: 5% } }]"),
];
/// What a spec may have beside them.
const MORE: [&str; 4] = ["hypothesis:", "run:", "abort_if:", "max_duration:"];

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let blocks = blocks::all(&root).context("reading the documentation")?;
    let per_block: Vec<_> = blocks.iter().map(trials).collect();
    let others = per_block.iter().filter(|trials| trials.is_empty()).count();
    println!("{} blocks, of which {others} have neither kchaos's commands nor YAML", blocks.len());
    let examples = examples(&root.join("examples")).context("reading the examples")?;
    let trials = per_block.into_iter().flatten().chain(examples).collect();
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

fn examples(folder: &Path) -> anyhow::Result<Vec<Trial>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort();
    let example = |path: &Path| {
        let name = format!("examples/{}", path.file_name().unwrap_or_default().display());
        Ok(plannable(name, fs::read_to_string(path)?))
    };
    paths.iter().map(|path| example(path)).collect()
}

fn yaml(block: &Block) -> Trial {
    let text = block.lines.join("\n");
    let first = block
        .lines
        .iter()
        .map(|line| line.trim_end())
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .unwrap_or_default();
    let is_part = NEEDED.iter().map(|(field, _)| field).chain(&MORE).any(|field| first.starts_with(field));
    match first {
        line if line.starts_with("version:") => plannable(format!("{} spec", block.place), text),
        line if line.starts_with("- ") => {
            plannable(format!("{} faults", block.place), completed(&format!("faults:\n{text}")))
        }
        _ if is_part => plannable(format!("{} part of a spec", block.place), completed(&text)),
        _ => skipped(format!("{} YAML", block.place), "no part of a spec"),
    }
}

/// Part of a spec, with what it lacks; a steady state without gates gets one.
fn completed(part: &str) -> String {
    let has = |start: &str| part.lines().any(|line| line.starts_with(start));
    let mut text = format!("{}\n", part.trim_end());
    if !has("  gates:") && !has("  use:") {
        text = text.replace(
            "steady_state:\n",
            "steady_state:\n  gates: [{ metric: net.rx_bytes, decrease: 10% }]\n",
        );
    }
    let lacks = NEEDED.iter().filter(|(field, _)| !has(field));
    lacks.for_each(|(_, line)| text.extend([*line, "\n"]));
    text
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
    let devices = vec![Device { ifindex: 2, name: "eth0".into(), ethernet: true, root: RootQdisc::none() }];
    Ok(Member {
        group,
        target: format!("cgroup:{}", path.display()).parse()?,
        cgroup: Cgroup { dir: path.clone(), path, id, level: 2 },
        image: None,
        namespaces: vec![Namespace { netns: Netns::current()?, devices, is_held: false }],
        ring: None,
    })
}
