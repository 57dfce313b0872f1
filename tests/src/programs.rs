//! The kernel programs themselves: that this kernel's verifier takes each of them.

use std::fmt::Write;

use anyhow::ensure;
use kchaos::kernel::verify::{Outcome, verify_all};

use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![ROOT: every_program_verifies]
}

/// Prints a line for each, which the lab compares with docs/programs.md.
fn every_program_verifies() -> anyhow::Result<()> {
    let (mut lines, mut refused) = (String::new(), String::new());
    for verification in verify_all()? {
        let lines = match verification.outcome {
            Outcome::Refused(_) => &mut refused,
            Outcome::Verified(_) | Outcome::Lacking(..) => &mut lines,
        };
        writeln!(lines, "{verification}")?;
    }
    // At once, so that nobody's output comes in between, and not on the line of another test's name.
    print!("\n{lines}");
    ensure!(refused.is_empty(), "this kernel refuses programs:\n{refused}");
    Ok(())
}
