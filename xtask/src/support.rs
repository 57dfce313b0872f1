//! `cargo xtask kernel-support`: docs/kernel-support.md, made of what `kchaos doctor` found on the lab's kernels.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    run::root,
    table::{Column, Table},
    vm,
};

const PAGE: &str = "docs/kernel-support.md";
const CAPABILITIES: &str = "capability";
const HOST: &str = "the host says";
const NATIVE: &str = "native";
const MISSING: &str = "missing";

const INTRODUCTION: &str = "\
# What kernels can do

`kchaos doctor` tries each of these by making it happen: a program is attached at a place made for it, and a process made
for it has to meet it. This page is what it found on the lab's kernels (docs/developing.md). It is written by
`cargo xtask kernel-support`; a run of the lab fails where it finds anything else.
";

/// Written by hand; not measured.
const DISTRIBUTIONS: &str = include_str!("support/distributions.md");

/// Options of `cargo xtask kernel-support`.
#[derive(Debug, clap::Args)]
pub(crate) struct SupportArgs {
    /// Only says whether the page is what the lab found.
    #[arg(long)]
    check: bool,
    /// What `kchaos doctor --json` printed on another kernel, for a column of its own.
    #[arg(long, value_name = "FILE")]
    native: Option<std::path::PathBuf>,
}

/// Writes the page, or says whether it is what the lab found.
pub(crate) fn page(args: &SupportArgs) -> Result<()> {
    let mut found = vm::diagnoses()?;
    if let Some(file) = &args.native {
        found.push((NATIVE, read_report(file)?));
    }
    if found.is_empty() {
        bail!("the lab has not run; `cargo xtask vm` runs it");
    }
    let (kept, new) = (kept(), render(&kept(), &found));
    if args.check {
        return if kept == new { Ok(()) } else { bail!("{}", told(&kept, &new)) };
    }
    fs::write(root().join(PAGE), new).context(PAGE)?;
    println!("{PAGE}: {}", found.iter().map(|(kernel, _)| *kernel).collect::<Vec<_>>().join(", "));
    Ok(())
}

/// What a kernel's diagnosis says that differs from the page.
pub(crate) fn problem(kernel: &str, report: &Value) -> Option<String> {
    let kept = kept();
    let new = render(&kept, &[(kernel, report.clone())]);
    (kept != new).then(|| told(&kept, &new))
}

fn read_report(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

fn kept() -> String {
    fs::read_to_string(root().join(PAGE)).unwrap_or_default()
}

fn told(kept: &str, new: &str) -> String {
    let lines = |text: &str, other: &str, mark: char| -> String {
        let only = text.lines().filter(|line| !other.lines().any(|other| other == *line));
        only.map(|line| format!("\n  {mark} {line}")).collect()
    };
    let differences = lines(kept, new, '-') + &lines(new, kept, '+');
    format!("{PAGE} says something else; `cargo xtask kernel-support` accepts it:{differences}")
}

/// The page with what was found in place of what it said of these kernels.
fn render(kept: &str, found: &[(&str, Value)]) -> String {
    let mut names = vm::kernel_names();
    names.push(NATIVE);
    let columns = |of: fn(&Value) -> Column| -> Vec<(&str, Column)> {
        found.iter().map(|(kernel, report)| (*kernel, of(report))).collect()
    };
    let capabilities = Table::read(kept, CAPABILITIES).with(&names, &columns(capabilities));
    let host = Table::read(kept, HOST).with(&names, &columns(host));
    let words = words(found);
    let missing = missing(&capabilities, &words, &Table::read(kept, MISSING));
    format!(
        "{INTRODUCTION}\n{}\n## Where it is missing\n\n{}\n## The machines\n\n\
        The lab starts its kernels with `lsm=bpf`.\n\n{}\n{DISTRIBUTIONS}",
        capabilities.render(),
        missing.render(),
        host.render()
    )
}

/// Names of capabilities, and what came of trying each.
fn capabilities(report: &Value) -> Column {
    let cell = |probed: &Value| match (&probed["missing_because"], &probed["note"]) {
        (Value::Null, Value::Null) => "yes",
        // A module that is on disk, for instance.
        (Value::Null, _) => "not tried",
        _ => "no",
    };
    let named = probed(report).filter_map(|probed| Some((probed["name"].as_str()?.to_owned(), cell(probed))));
    named.map(|(name, cell)| (name, cell.to_owned())).collect()
}

/// What else a report says of its host, so far as it does not change with every update.
fn host(report: &Value) -> Column {
    let list = |value: &Value| -> String {
        let names: Vec<_> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    };
    let modules = &report["security_modules"];
    let cells = [
        ("kernel", series(report["kernel"].as_str().unwrap_or_default())),
        ("architecture", report["machine"].as_str().unwrap_or_default().to_owned()),
        ("security modules", if modules.is_null() { "not shown".to_owned() } else { list(modules) }),
        ("lockdown", report["lockdown"].as_str().unwrap_or("not there").to_owned()),
        ("cgroup v2 controllers", list(&report["cgroup_controllers"])),
    ];
    cells.map(|(name, cell)| (name.to_owned(), cell)).into()
}

/// `6.12` of `6.12.117-fei`.
fn series(release: &str) -> String {
    release.split(['.', '-']).take(2).collect::<Vec<_>>().join(".")
}

/// What it is needed for and what provides it, by name.
type Words = BTreeMap<String, [String; 2]>;

fn words(found: &[(&str, Value)]) -> Words {
    let word = |probed: &Value| {
        let text = |key: &str| Some(probed[key].as_str()?.replace('|', "/"));
        Some((text("name")?, [text("needed_for")?, text("provided_by")?]))
    };
    found.iter().flat_map(|(_, report)| probed(report)).filter_map(word).collect()
}

fn probed(report: &Value) -> impl Iterator<Item = &Value> {
    report["probed"].as_array().into_iter().flatten()
}

/// Those that some kernel lacks.
fn missing(capabilities: &Table, words: &Words, kept: &Table) -> Table {
    let mut table = Table::new(MISSING);
    table.columns = ["on", "needed for", "provided by"].map(str::to_owned).into();
    for (name, cells) in &capabilities.rows {
        let lacks = capabilities.columns.iter().zip(cells).filter(|(_, cell)| *cell == "no");
        let on: Vec<&str> = lacks.map(|(kernel, _)| kernel.as_str()).collect();
        if on.is_empty() {
            continue;
        }
        let said = |at: usize| {
            let before =
                kept.rows.iter().find(|(row, _)| row == name).and_then(|(_, cells)| cells.get(at + 1));
            words.get(name).map(|words| words[at].clone()).or(before.cloned()).unwrap_or_default()
        };
        table.rows.push((name.clone(), vec![on.join(", "), said(0), said(1)]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kernel: &str, tcx: &str) -> Value {
        let text = format!(
            r#"{{"kernel": "{kernel}", "machine": "x86_64", "security_modules": ["bpf"], "lockdown": null,
            "cgroup_controllers": ["cpu", "io"], "probed": [
            {{"capability": "btf", "name": "btf", "missing_because": null, "needed_for": "all", "provided_by": "B"}},
            {{"capability": "tcx", "name": "tcx", "missing_because": {tcx}, "needed_for": "loss",
              "provided_by": "Linux 6.6"}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn shows_what_each_kernel_can_do_and_what_would_provide_the_rest() {
        let page = render(
            "",
            &[
                ("deb61", report("6.1.0-56-amd64", "\"Invalid argument\"")),
                ("deb612", report("6.12.9", "null")),
            ],
        );
        for part in [
            "| capability | deb61 | deb612 |\n|---|---|---|\n| btf | yes | yes |\n| tcx | no | yes |\n",
            "| tcx | deb61 | loss | Linux 6.6 |\n",
            "| kernel | 6.1 | 6.12 |\n",
            "| lockdown | not there | not there |\n",
            "| Flatcar |",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }

    #[test]
    fn one_kernel_more_or_newer_leaves_the_others_as_they_are() {
        let old = ("deb61", report("6.1.0-56-amd64", "\"Invalid argument\""));
        let page = render("", &[old.clone(), ("deb612", report("6.12.9", "null"))]);
        assert_eq!(render(&page, &[("deb612", report("6.12.10+deb12-amd64", "null"))]), page);
        assert_eq!(render(&page, &[old]), page);
        let worse = render(&page, &[("deb612", report("6.12.10", "\"no\""))]);
        assert!(worse.contains("| tcx | deb61, deb612 | loss |"), "{worse}");
        let differences = told(&page, &worse);
        assert!(differences.contains("- | tcx | no | yes |"), "{differences}");
    }
}
