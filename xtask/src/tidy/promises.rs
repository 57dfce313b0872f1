//! What is promised is shown, described and tested.

use super::{
    File, Finding, Tree,
    source::{functions, has_word},
};

/// Where the faults are, each a `FaultEntry` with `name: "…"` in a file of its own.
const CATALOGUE: &str = "chaos-user/src/fault/";

/// Every fault of the catalogue has an example, a page and a test.
pub(super) fn check_catalogue(tree: &Tree) -> Vec<Finding> {
    let entries = tree
        .under(CATALOGUE)
        .flat_map(|file| catalogued(file).map(move |(line, fault)| (file, line, fault)))
        .collect::<Vec<_>>();
    if entries.is_empty() {
        return vec![missing(CATALOGUE, "catalogue", "the faults, each with `name: \"…\"`")];
    }
    entries.into_iter().flat_map(|(file, line, fault)| check_fault(tree, file, line, fault)).collect()
}

fn catalogued(catalogue: &File) -> impl Iterator<Item = (usize, &str)> {
    super::source::code(&catalogue.text).filter_map(|(number, line)| {
        let (_, rest) = line.split_once("name: \"")?;
        Some((number, rest.split_once('"')?.0))
    })
}

fn check_fault(tree: &Tree, catalogue: &File, line: usize, fault: &str) -> Vec<Finding> {
    let mut lacks = Vec::new();
    for path in [format!("examples/{fault}.yaml"), format!("docs/faults/{fault}.md")] {
        if tree.get(&path).is_none() {
            lacks.push(path);
        }
    }
    let name = fault.replace('-', "_");
    if !tree.under("tests/").any(|file| has_test_about(file, &name)) {
        lacks.push(format!("a test in tests/ with `{name}` in its name"));
    }
    let finding = |lack| catalogue.finding(line, "catalogue", format!("fault `{fault}` lacks {lack}"));
    lacks.into_iter().map(finding).collect()
}

fn has_test_about(file: &File, name: &str) -> bool {
    file.path.ends_with(".rs") && functions(&file.text).iter().any(|function| function.name.contains(name))
}

const SAFETY: &str = "SAFETY.md";

/// Every promise of SAFETY.md (`1. **…** … `) names at least one test that exists, in backticks.
pub(super) fn check_safety(tree: &Tree) -> Vec<Finding> {
    let Some(safety) = tree.get(SAFETY) else {
        return vec![missing(SAFETY, "safety", "the promises, numbered, each with the test that proves it")];
    };
    let unproven = promises(&safety.text)
        .into_iter()
        .filter(|(_, promise)| !backticked(promise).any(|name| test_exists(tree, name)));
    unproven
        .map(|(line, promise)| {
            let names: Vec<_> = backticked(&promise).collect();
            let advice = match names.is_empty() {
                true => "name the test that proves this, in backticks".to_owned(),
                false => format!("no test is called {}", names.join(" or ")),
            };
            safety.finding(line, "safety", advice)
        })
        .collect()
}

/// Numbered items with their lines; an item goes on until the next one, a heading or an empty line.
fn promises(text: &str) -> Vec<(usize, String)> {
    let mut promises: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (i, line) in text.lines().enumerate() {
        let begins = line.split_once(". **").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        if begins {
            promises.push((i + 1, String::new()));
        }
        open = begins || (open && !line.trim().is_empty() && !line.starts_with('#'));
        if let Some((_, promise)) = promises.last_mut().filter(|_| open) {
            promise.push_str(line);
            promise.push('\n');
        }
    }
    promises
}

fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A function of tests/, a `#[test]` of the crates, or a name that tests/ has as a string.
fn test_exists(tree: &Tree, name: &str) -> bool {
    let function = name.rsplit("::").next().unwrap_or(name);
    tree.rust().any(|file| {
        let in_tests = file.path.starts_with("tests/");
        let in_crates = file.path.starts_with("chaos-") || file.path.starts_with("xtask/");
        (in_tests && (declares(&file.text, function) || file.text.contains(&format!("\"{name}\""))))
            || (in_crates && declares_test(&file.text, function))
    })
}

fn declares(text: &str, function: &str) -> bool {
    text.lines().any(|line| declares_in(line, function))
}

fn declares_in(line: &str, function: &str) -> bool {
    !function.is_empty() && line.contains("fn ") && has_word(line, function, "(")
}

fn declares_test(text: &str, function: &str) -> bool {
    let lines: Vec<_> = text.lines().collect();
    let declared = lines.iter().enumerate().filter(|(_, line)| declares_in(line, function));
    declared
        .into_iter()
        .any(|(i, _)| lines[i.saturating_sub(3)..i].iter().any(|line| is_test_attribute(line)))
}

fn is_test_attribute(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("#[test") || line.starts_with("#[tokio::test")
}

fn missing(path: &str, rule: &'static str, what: &str) -> Finding {
    Finding { path: path.to_owned(), line: 0, rule, advice: format!("missing: {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{places, tree};

    const ENTRIES: &str = "chaos-user/src/fault/loss.rs";
    const LOSS: &str = "pub const ALL: &[Entry] = &[\n    Entry { name: \"loss\", about: \"x\" },\n    Entry { name: \"dns-error\" },\n];\n";

    #[test]
    fn faults_have_example_page_and_test() {
        let tree = tree(&[
            (ENTRIES, LOSS),
            ("examples/loss.yaml", ""),
            ("docs/faults/loss.md", ""),
            ("tests/tests/net.rs", "fn loss_hurts_and_ends() {\n}\n"),
            ("examples/dns-error.yaml", ""),
        ]);
        let findings = check_catalogue(&tree);
        assert_eq!(places(&findings), [format!("{ENTRIES}:3"), format!("{ENTRIES}:3")]);
        assert!(findings[0].advice.contains("docs/faults/dns-error.md"), "{findings:?}");
        assert!(findings[1].advice.contains("dns_error"), "{findings:?}");
    }

    #[test]
    fn promises_name_tests_that_exist() {
        let safety = "# Safety\n1. **It ends.** See `net::sigkill_ends_it`\n   and `kchaos sweep`.\n2. **It is small.**\n\
            3. **It fits.** `gone`\n4. **Pure.** `adds_up`\n5. **By name.** `net::loss/one`\n\nText `gone`.\n";
        let tree = tree(&[
            (SAFETY, safety),
            ("tests/tests/net.rs", "fn sigkill_ends_it() {\n}\nTrial::test(\"net::loss/one\", x)\n"),
            ("chaos-user/src/judge/mod.rs", "fn gone() {}\n#[test]\nfn adds_up() {}\n"),
        ]);
        assert_eq!(places(&check_safety(&tree)), ["SAFETY.md:4", "SAFETY.md:5"]);
    }

    #[test]
    fn what_must_be_there_is_missed() {
        let empty = tree(&[]);
        assert_eq!(places(&check_catalogue(&empty)), [format!("{CATALOGUE}:0")]);
        assert_eq!(places(&check_safety(&empty)), ["SAFETY.md:0"]);
    }
}
