//! `cargo xtask programs`: what the verifiers of the lab's kernels say of each kernel program, kept in
//! docs/programs.md. The lab compares it with what it finds, so that a program that grows towards a limit, or that a
//! kernel refuses, does not go unnoticed.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::{
    run::root,
    table::{Column, Table},
    vm,
};

const PAGE: &str = "docs/programs.md";
const CORNER: &str = "program";
/// A kernel lacks what the program is for.
const LACKING: &str = "–";

/// A program may change by so much before somebody has to look at it, and small ones by a few instructions or bytes.
const TOLERANCE: f64 = 0.10;
const SMALL: u32 = 16;

const INTRODUCTION: &str = "\
# Kernel programs

What the verifiers of the lab's kernels (docs/developing.md) say of each program: *instructions walked through / bytes
of stack*. Of the constants that the lab tries (nothing, everything, everything with the kernel's log) the largest
figures count. The limits are 1,000,000 instructions, and 512 bytes along one path of calls; the stack here is the sum
over a program and the functions it calls. – says that the kernel lacks what the program is for (docs/kernel-support.md).

Written by `cargo xtask programs` from what the lab's last run found. A run fails where it finds anything else: a
program more or less, one that a kernel takes no longer, or figures more than 10 % (and 16) away from these.
";

/// Writes the page, or says whether it is what the lab found.
pub(crate) fn page(check: bool) -> Result<()> {
    let outputs = vm::outputs()?;
    let measured = outputs.iter().map(|(kernel, output)| (*kernel, measure(output)));
    let measured: Vec<(&str, Column)> = measured.filter(|(_, column)| !column.is_empty()).collect();
    if measured.is_empty() {
        bail!(
            "the lab's last run did not load the programs; `cargo xtask vm -- every_program_verifies` does"
        );
    }
    let kept = read();
    if check {
        let differences = measured.iter().flat_map(|(kernel, column)| differences(kernel, column, &kept));
        let differences: Vec<_> = differences.collect();
        return if differences.is_empty() { Ok(()) } else { bail!("{}", told(&differences)) };
    }
    let table = kept.with(&vm::kernel_names(), &measured);
    fs::write(root().join(PAGE), format!("{INTRODUCTION}\n{}", table.render())).context(PAGE)?;
    println!("{PAGE}: {}", measured.iter().map(|(kernel, _)| *kernel).collect::<Vec<_>>().join(", "));
    Ok(())
}

/// What the output of a kernel's tests says that differs from the page, if it says anything of programs.
pub(crate) fn problem(kernel: &str, output: &str) -> Option<String> {
    let column = measure(output);
    if column.is_empty() {
        return None;
    }
    let differences = differences(kernel, &column, &read());
    (!differences.is_empty()).then(|| told(&differences))
}

fn read() -> Table {
    Table::read(&fs::read_to_string(root().join(PAGE)).unwrap_or_default(), CORNER)
}

fn told(differences: &[String]) -> String {
    format!("{PAGE} says something else; `cargo xtask programs` accepts it:\n  {}", differences.join("\n  "))
}

/// Figures of one program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    verified: u32,
    stack_bytes: u32,
}

impl Figures {
    fn largest(self, other: Self) -> Self {
        Self {
            verified: self.verified.max(other.verified),
            stack_bytes: self.stack_bytes.max(other.stack_bytes),
        }
    }

    fn cell(self) -> String {
        format!("{} / {}", self.verified, self.stack_bytes)
    }

    fn read(cell: &str) -> Option<Self> {
        let (verified, stack_bytes) = cell.split_once(" / ")?;
        Some(Self { verified: verified.parse().ok()?, stack_bytes: stack_bytes.parse().ok()? })
    }

    fn is_near(self, other: Self) -> bool {
        near(self.verified, other.verified) && near(self.stack_bytes, other.stack_bytes)
    }
}

fn near(a: u32, b: u32) -> bool {
    let away = a.abs_diff(b);
    away <= SMALL || f64::from(away) <= f64::from(b) * TOLERANCE
}

/// Reads lines such as `program probe_lsm:lsm/file_open with=everything verified=18 translated=24 stack=8`
/// (chaos-user/src/kernel/verify.rs), and takes the largest figures of each. What was refused is the test's failure.
fn measure(output: &str) -> Column {
    let mut measured: Vec<(String, Option<Figures>)> = Vec::new();
    for line in output.lines() {
        let Some((name, rest)) = line.strip_prefix("program ").and_then(|line| line.split_once(' ')) else {
            continue;
        };
        let figures = figures(rest);
        if figures.is_none() && !rest.contains(" lacking ") {
            continue;
        }
        let at = measured.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            measured.push((name.to_owned(), figures));
            measured.len() - 1
        });
        let known = &mut measured[at].1;
        // A program that a kernel takes only as long as it does nothing is one that the kernel lacks.
        *known = known.zip(figures).map(|(known, figures)| known.largest(figures));
    }
    let cell = |figures: Option<Figures>| figures.map_or(LACKING.to_owned(), Figures::cell);
    measured.into_iter().map(|(name, figures)| (name, cell(figures))).collect()
}

fn figures(rest: &str) -> Option<Figures> {
    let value = |key: &str| {
        let mut words = rest.split(' ').filter_map(|word| word.split_once('='));
        words.find(|(name, _)| *name == key)?.1.parse().ok()
    };
    Some(Figures { verified: value("verified")?, stack_bytes: value("stack")? })
}

fn differences(kernel: &str, measured: &Column, kept: &Table) -> Vec<String> {
    let Some(kept) = kept.column(kernel) else { return vec![format!("{kernel} is not there")] };
    let cell = |column: &Column, name: &str| -> Option<String> {
        column.iter().find(|(row, _)| row == name).map(|(_, cell)| cell.clone())
    };
    let changed = measured.iter().filter_map(|(name, now)| match cell(&kept, name) {
        None => Some(format!("{kernel}: {name} is new: {now}")),
        Some(before) if same(&before, now) => None,
        Some(before) => Some(format!("{kernel}: {name} was {before} and is {now}")),
    });
    let gone = kept.iter().filter(|(name, _)| cell(measured, name).is_none());
    changed.chain(gone.map(|(name, _)| format!("{kernel}: {name} was not loaded"))).collect()
}

fn same(before: &str, now: &str) -> bool {
    match (Figures::read(before), Figures::read(now)) {
        (Some(before), Some(now)) => now.is_near(before),
        _ => before == now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 1 test\n\nprogram net_egress with=nothing verified=11 translated=13 stack=32\n\
        program probe_override with=nothing verified=6 translated=6 stack=0\n\
        program net_egress with=everything verified=28397 translated=1188 stack=200\n\
        program probe_override with=everything lacking kprobe override: Invalid argument\n\
        program bench_empty with=nothing refused: no\ntest programs::every_program_verifies ... ok\n";

    fn column(cells: &[(&str, &str)]) -> Column {
        cells.iter().map(|(row, cell)| ((*row).to_owned(), (*cell).to_owned())).collect()
    }

    #[test]
    fn the_largest_figures_count() {
        assert_eq!(measure(OUTPUT), column(&[("net_egress", "28397 / 200"), ("probe_override", "–")]));
        assert!(measure("test safety::x ... ok\n").is_empty());
    }

    #[test]
    fn small_changes_are_no_differences() {
        assert!(same("28397 / 200", "29000 / 208"));
        assert!(same("5 / 0", "18 / 16"));
        assert!(!same("28397 / 200", "32000 / 200"));
        assert!(!same("28397 / 200", "28397 / 300"));
        assert!(!same("28397 / 200", "–"));
        assert!(same("–", "–"));
    }

    #[test]
    fn says_what_is_new_gone_and_changed() {
        let kept = Table::new(CORNER)
            .with(&["deb61"], &[("deb61", column(&[("a", "1000 / 8"), ("b", "–"), ("c", "9 / 0")]))]);
        let measured = column(&[("a", "2000 / 8"), ("c", "9 / 0"), ("d", "7 / 0")]);
        assert_eq!(
            differences("deb61", &measured, &kept),
            ["deb61: a was 1000 / 8 and is 2000 / 8", "deb61: d is new: 7 / 0", "deb61: b was not loaded"]
        );
        assert_eq!(differences("deb73", &measured, &kept), ["deb73 is not there"]);
    }
}
