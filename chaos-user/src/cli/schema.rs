//! `kchaos schema`: the shape of the report for programs.

use super::{exit, terminal::say};
use crate::report::schema;

/// Prints it.
pub fn run() -> anyhow::Result<u8> {
    say!("{}", schema::render()?.trim_end());
    Ok(exit::OK)
}
