//! What tests run, compiled once: each stage asks cargo for the same packages with the same features. With others, cargo
//! would compile what depends on them anew, and that is most of the time that the whole run takes.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{cargo, line, target_dir};

/// kchaos, and the program that tests it on a kernel.
#[derive(Debug)]
pub(crate) struct Built {
    /// kchaos, which dies at its fault points if it is told to.
    pub(crate) kchaos: PathBuf,
    /// Its tests.
    pub(crate) tests: PathBuf,
}

/// Everything but the kernel half.
pub(crate) const SELECTION: [&str; 5] =
    ["--workspace", "--exclude", "chaos-ebpf", "--features", "chaos-user/fault-points"];

/// `cargo test` of everything but the kernel half. Without `--test` it leaves those out that need more than a compiler.
pub(crate) fn cargo_test() -> Command {
    let mut command = cargo();
    command.arg("test").args(SELECTION);
    command
}

/// Builds kchaos and its tests. For an integration test of a package, as `bad_specs` is, cargo builds its programs too.
pub(crate) fn command() -> Command {
    let mut command = cargo_test();
    command.args(["--test", "kchaos", "--test", "bad_specs", "--no-run"]);
    command
}

/// Builds both, and says where they are.
pub(crate) fn ensure() -> Result<Built> {
    let mut command = command();
    command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("starting {}", line(&command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(&command), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let tests = test_program(&messages).context("cargo built no test program")?;
    Ok(Built { kchaos: target_dir().join("debug/kchaos"), tests })
}

/// The program that cargo's messages name.
fn test_program(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == "kchaos")
        .filter(|message| message["target"]["kind"][0] == "test")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_test_program_among_what_cargo_built() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"kchaos"},"executable":null}
            {"reason":"compiler-artifact","target":{"kind":["bin"],"name":"kchaos"},"executable":"/t/kchaos"}
            {"reason":"compiler-artifact","target":{"kind":["test"],"name":"kchaos"},"executable":"/t/deps/kchaos-1"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(test_program(messages), Some("/t/deps/kchaos-1".into()));
        assert_eq!(test_program("not json\n"), None);
    }
}
