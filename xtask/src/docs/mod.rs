//! Holds the documentation to what it says: the tasks it shows are understood. What it shows of kchaos is
//! checked by `tests/docs`, which knows kchaos.

// tests/docs includes this file too; each of the two uses its part of it.
#[allow(dead_code)]
mod blocks;

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use clap::{Parser as _, error::ErrorKind};

use crate::{Task, run::root};
use blocks::Command;

const PROGRAM: &str = "cargo xtask";

/// Checks every task that the documentation shows; says what came of each as test programs do.
pub(crate) fn check() -> Result<String> {
    let blocks = blocks::all(&root()).context("reading the documentation")?;
    Ok(report(&blocks.iter().flat_map(|block| block.commands(PROGRAM)).collect::<Vec<_>>()))
}

fn report(commands: &[(String, Command)]) -> String {
    let (mut report, [mut passed, mut failed, mut ignored]) = (String::new(), [0; 3]);
    for (place, Command { text, arguments }) in commands {
        let outcome = match arguments.as_deref().map(understood) {
            None => {
                ignored += 1;
                "ignored, it stands for others".to_owned()
            }
            Some(Ok(())) => {
                passed += 1;
                "ok".to_owned()
            }
            Some(Err(why)) => {
                failed += 1;
                format!("FAILED: {why}")
            }
        };
        let _ = writeln!(report, "test {place} {text} ... {outcome}");
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    report + &format!("test result: {result}. {passed} passed; {failed} failed; {ignored} ignored\n")
}

fn understood(arguments: &[String]) -> Result<(), String> {
    let words = std::iter::once(PROGRAM).chain(arguments.iter().map(String::as_str));
    match Task::try_parse_from(words) {
        Err(error) if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Err(error.to_string().lines().next().unwrap_or_default().to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n```\ncargo xtask setup && cargo build  # everything\n\
        kchaos inject loss --percent 5 --allow '[fd00::1]:443'  loses a little\n```\n\
        cargo xtask outside\n```sh\n$ cargo xtask vm … -- FILTER\ncargo xtask test --stage nonesuch\n\
        kchaosd\nkchaos status | stop\n```\n";

    fn commands(program: &str) -> Vec<(String, Command)> {
        blocks::of("a.md", TEXT).iter().flat_map(|block| block.commands(program)).collect()
    }

    #[test]
    fn finds_blocks_and_their_places() {
        let blocks = blocks::of("a.md", TEXT);
        assert_eq!(blocks.iter().map(|block| block.place.as_str()).collect::<Vec<_>>(), ["a.md:2", "a.md:7"]);
        assert_eq!(blocks[1].language, "sh");
    }

    #[test]
    fn finds_commands_without_what_is_said_about_them() {
        let found = commands("kchaos");
        let texts: Vec<_> =
            found.iter().map(|(place, command)| format!("{place} {}", command.text)).collect();
        let inject = "a.md:4 kchaos inject loss --percent 5 --allow '[fd00::1]:443'";
        assert_eq!(texts, [inject, "a.md:11 kchaos status | stop"]);
        let arguments = found[0].1.arguments.as_ref().unwrap();
        assert_eq!(arguments.last().unwrap(), "[fd00::1]:443");
        assert_eq!(found[1].1.arguments, None);
    }

    #[test]
    fn tells_what_is_not_understood() {
        let report = report(&commands(PROGRAM));
        assert!(report.contains("test a.md:3 cargo xtask setup ... ok\n"), "{report}");
        assert!(report.contains("test a.md:8 cargo xtask vm … -- FILTER ... ignored, it"), "{report}");
        assert!(
            report.contains("test a.md:9 cargo xtask test --stage nonesuch ... FAILED: error: "),
            "{report}"
        );
        assert!(report.ends_with("test result: FAILED. 1 passed; 1 failed; 1 ignored\n"), "{report}");
    }
}
