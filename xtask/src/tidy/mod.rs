//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that the compiler cannot check.
//!
//! Each rule is a function from the tree to findings, so that it can be tested on a tree made up for it.

mod gate;
mod layers;
mod promises;
mod sizes;
mod source;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::run::root;

/// Folders that are not ours.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// Endings of the files that rules read.
const ENDINGS: [&str; 4] = ["rs", "md", "yaml", "toml"];

/// The files of the repository.
#[derive(Default)]
struct Tree {
    files: Vec<File>,
}

struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 for the whole file.
    line: usize,
    rule: &'static str,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line.max(1), self.rule, self.advice)
    }
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) => {
                        folders.push(path);
                    }
                    Ok(kind) if kind.is_file() => tree.add(root, path),
                    _ => {}
                }
            }
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    fn add(&mut self, root: &Path, path: PathBuf) {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if !ENDINGS.contains(&ending) {
            return;
        }
        if let (Ok(text), Ok(relative)) = (fs::read_to_string(&path), path.strip_prefix(root)) {
            self.files.push(File { path: relative.to_string_lossy().into_owned(), text });
        }
    }

    fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    fn under<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.starts_with(folder))
    }

    /// Paths of modules that are for tests only.
    fn test_files(&self) -> Vec<String> {
        let modules = self.rust().flat_map(|file| {
            let folder = file.path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/lib");
            source::test_files(&file.text).into_iter().map(move |name| format!("{folder}/{name}.rs"))
        });
        modules.collect()
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

impl File {
    fn finding(&self, line: usize, rule: &'static str, advice: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, rule, advice: advice.into() }
    }
}

/// Every finding of every rule.
fn check(tree: &Tree) -> Vec<Finding> {
    let rules = [layers::check, sizes::check, gate::check, promises::check_catalogue, promises::check_safety];
    rules.into_iter().flat_map(|rule| rule(tree)).collect()
}

/// Prints what is not tidy.
pub(crate) fn report() -> ExitCode {
    let tree = Tree::read(&root());
    let findings = check(&tree);
    findings.iter().for_each(|finding| println!("{finding}"));
    if findings.is_empty() {
        println!("tidy: {} files", tree.files.len());
        ExitCode::SUCCESS
    } else {
        println!("tidy: {} findings", findings.len());
        ExitCode::FAILURE
    }
}

/// A made-up tree, for tests.
#[cfg(test)]
fn tree(files: &[(&str, &str)]) -> Tree {
    let files = files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() });
    Tree { files: files.collect() }
}

/// `path:line` of findings, for tests.
#[cfg(test)]
fn places(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
}
