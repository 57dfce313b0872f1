//! What the documentation shows between fences: commands and specs. Standard library only, as the test program
//! of the documentation includes this file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Files beside the folder `docs` that are documentation too.
const FILES: [&str; 3] = ["README.md", "ARCHITECTURE.md", "SAFETY.md"];
const FENCE: &str = "```";

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its file, and the line of its first fence.
    pub place: String,
    /// What it says it is written in.
    pub language: String,
    /// Where it stands in its file.
    pub first_line: usize,
    /// What is in it.
    pub lines: Vec<String>,
}

/// One command of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The command, without what is said about it.
    pub text: String,
    /// Its words after the program's name; `None` if some of them stand for others.
    pub arguments: Option<Vec<String>>,
}

/// Every block of every file of the documentation.
pub fn all(root: &Path) -> io::Result<Vec<Block>> {
    let mut files: Vec<PathBuf> = FILES.iter().map(|file| root.join(file)).collect();
    markdown_below(&root.join("docs"), &mut files)?;
    let mut blocks = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        blocks.extend(of(&name, &fs::read_to_string(&file)?));
    }
    Ok(blocks)
}

fn markdown_below(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for path in entries.into_iter().map(|entry| entry.path()) {
        if path.is_dir() {
            markdown_below(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// The blocks of one file.
pub fn of(file: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        match line.trim().strip_prefix(FENCE) {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                let (place, language) = (format!("{file}:{number}"), language.trim().to_owned());
                blocks.push(Block { place, language, first_line: number + 1, lines: Vec::new() });
            }
            None if open => blocks.last_mut().into_iter().for_each(|block| block.lines.push(line.to_owned())),
            None => {}
        }
    }
    blocks
}

impl Block {
    /// Commands of this program, each with where it stands.
    pub fn commands(&self, program: &str) -> Vec<(String, Command)> {
        let file = self.place.rsplit_once(':').map_or(self.place.as_str(), |(file, _)| file);
        let numbered = (self.first_line..).zip(&self.lines);
        numbered
            .flat_map(|(number, line)| {
                let found = commands(line, program).into_iter();
                found.map(move |command| (format!("{file}:{number}"), command))
            })
            .collect()
    }
}

/// Commands of this program in a line such as `cargo xtask setup && kchaos doctor  # what it does`.
fn commands(line: &str, program: &str) -> Vec<Command> {
    let parts = without_remark(line).split(" && ").map(|part| part.trim().trim_start_matches("$ "));
    let ours = parts.filter_map(|part| Some((part, part.strip_prefix(program)?)));
    ours.filter(|(_, rest)| rest.is_empty() || rest.starts_with(' '))
        .map(|(text, rest)| Command { text: text.to_owned(), arguments: arguments(rest) })
        .collect()
}

/// What is said about a command comes after `#`, or in a column of its own.
fn without_remark(line: &str) -> &str {
    let line = line.trim();
    let ends = [" #", "  "].into_iter().filter_map(|mark| line.find(mark)).min();
    line[..ends.unwrap_or(line.len())].trim_end()
}

/// `None` if a word stands for others: `…`, `[OPTIONS]`, or a choice of several with `|`.
fn arguments(text: &str) -> Option<Vec<String>> {
    let words: Vec<_> = text.split_whitespace().collect();
    let stands_for_others = |word: &&str| {
        // An address in brackets is itself: `[fd00::1]:443`.
        let optional = word.starts_with('[') && !word.contains("]:");
        optional || word.contains('…') || word.contains("...") || **word == *"|"
    };
    let plain = |word: &str| word.trim_matches(['\'', '"']).to_owned();
    (!words.iter().any(stands_for_others)).then(|| words.into_iter().map(plain).collect())
}
