//! The programs that guests run.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{cargo, line, run, target_dir};

/// Names a kchaos that is built already; the tests know it too.
pub(super) const KCHAOS_VARIABLE: &str = "KCHAOS_BIN";

/// kchaos, and the program that tests it.
#[derive(Debug)]
pub(super) struct Programs {
    /// kchaos.
    pub(super) kchaos: PathBuf,
    /// Its tests, if they are wanted.
    pub(super) tests: Option<PathBuf>,
}

impl Programs {
    /// Builds what is not given. Emulation is slow enough: a debug build takes three times as long to load
    /// programs and to read BTF.
    pub(super) fn ensure(tests: Option<PathBuf>, wanted: bool) -> Result<Self> {
        let kchaos = match env::var_os(KCHAOS_VARIABLE) {
            Some(kchaos) => absolute(Path::new(&kchaos))?,
            None => {
                let package = ["--package", "chaos-user", "--bin", "kchaos", "--features", "fault-points"];
                run(cargo().args(["build", "--release"]).args(package))?;
                absolute(&target_dir().join("release/kchaos"))?
            }
        };
        let tests = match tests {
            Some(tests) => Some(absolute(&tests)?),
            None if wanted => Some(build_tests()?),
            None => None,
        };
        Ok(Self { kchaos, tests })
    }

    /// The folders they are in.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let programs = [Some(&self.kchaos), self.tests.as_ref()];
        programs.into_iter().flatten().filter_map(|program| program.parent().map(PathBuf::from))
    }
}

fn absolute(program: &Path) -> Result<PathBuf> {
    program.canonicalize().with_context(|| program.display().to_string())
}

fn build_tests() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["test", "--release", "--package", "chaos-tests", "--test", "kchaos", "--no-run"]);
    command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = output(&mut command)?;
    test_program(&output).context("cargo built no test program")
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {}", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
