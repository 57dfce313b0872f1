//! Files that fit into a head.

use super::{Finding, Tree};

/// For a Rust file; integration tests are lists, and may be longer.
const RUST_MAX: usize = 500;

const OTHERS_MAX: [(&str, usize); 3] =
    [("chaos-user/src/main.rs", 60), ("README.md", 150), ("ARCHITECTURE.md", 150)];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let Some(max) = limit(&file.path) else { continue };
        let lines = file.text.lines().count();
        if lines > max {
            let advice = format!("{lines} lines, {max} at most; split it along its subjects");
            findings.push(file.finding(max + 1, "size", advice));
        }
    }
    findings
}

fn limit(path: &str) -> Option<usize> {
    let named = OTHERS_MAX.iter().find(|(name, _)| *name == path).map(|(_, max)| *max);
    let in_tests = path.starts_with("tests/") || path.contains("/tests/");
    named.or((path.ends_with(".rs") && !in_tests).then_some(RUST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{places, tree};

    #[test]
    fn long_files_are_found() {
        let long = "x\n".repeat(501);
        let short = "x\n".repeat(500);
        let tree = tree(&[
            ("chaos-user/src/a.rs", &long),
            ("chaos-user/src/b.rs", &short),
            ("tests/tests/net.rs", &long),
            ("chaos-user/src/main.rs", &"x\n".repeat(61)),
            ("README.md", &"x\n".repeat(151)),
            ("docs/developing.md", &long),
        ]);
        assert_eq!(
            places(&check(&tree)),
            ["chaos-user/src/a.rs:501", "chaos-user/src/main.rs:61", "README.md:151"]
        );
    }
}
