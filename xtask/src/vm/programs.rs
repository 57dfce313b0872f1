//! The programs that guests run.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::built;

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
    /// Builds what is not given.
    pub(super) fn ensure(tests: Option<PathBuf>, wanted: bool) -> Result<Self> {
        let kchaos = env::var_os(KCHAOS_VARIABLE).map(PathBuf::from);
        let (kchaos, tests) = match (kchaos, tests) {
            (Some(kchaos), Some(tests)) => (kchaos, Some(tests)),
            (Some(kchaos), None) if !wanted => (kchaos, None),
            (kchaos, tests) => {
                let built = built::ensure()?;
                (kchaos.unwrap_or(built.kchaos), tests.or_else(|| wanted.then_some(built.tests)))
            }
        };
        Ok(Self { kchaos: absolute(&kchaos)?, tests: tests.as_deref().map(absolute).transpose()? })
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
