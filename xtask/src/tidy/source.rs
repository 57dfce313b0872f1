//! Rust text, as far as the rules need to understand it.

/// The lines of a file with their numbers, without comments, up to its unit tests.
pub(super) fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<_> = text.lines().collect();
    let tests = test_modules(&lines).find(|(_, module)| module.contains('{'));
    let end = tests.map_or(lines.len(), |(at, _)| at);
    lines.into_iter().take(end).enumerate().map(|(i, line)| (i + 1, without_comment(line)))
}

/// Modules of this file that are for tests only and have files of their own.
pub(super) fn test_files(text: &str) -> Vec<&str> {
    let lines: Vec<_> = text.lines().collect();
    let names = test_modules(&lines).filter_map(|(_, module)| module.strip_suffix(';')?.rsplit(' ').next());
    names.collect()
}

/// Where `#[cfg(test)]` stands, and the declaration of the module that it is for.
fn test_modules<'a>(lines: &[&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    lines.iter().enumerate().filter(|(_, line)| line.starts_with("#[cfg(test)]")).filter_map(|(at, _)| {
        let declaration = lines[at + 1..].iter().find(|line| !line.starts_with("#["))?;
        has_word(declaration, "mod", "").then_some((at, declaration.trim_end()))
    })
}

fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Whether `word` stands in `line` on its own and what comes after it begins with `next`.
pub(super) fn has_word(line: &str, word: &str, next: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let after = &line[at + word.len()..];
        let whole = !line[..at].ends_with(is_name) && !after.starts_with(is_name);
        whole && after.trim_start().starts_with(next)
    })
}

/// The `use` declarations of a file: line and text, which may span lines.
pub(super) fn imports(text: &str) -> Vec<(usize, String)> {
    let mut imports: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in code(text) {
        let begins =
            !open && (line.trim_start().starts_with("use ") || line.trim_start().starts_with("pub use "));
        if begins {
            imports.push((number, String::new()));
            open = true;
        }
        if let Some((_, import)) = imports.last_mut().filter(|_| open) {
            import.push_str(line);
            open = !line.contains(';');
        }
    }
    imports
}

/// A function: its name, the line of its name, the attributes before it, and its body.
#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) line: usize,
    pub(super) attributes: Vec<&'a str>,
    pub(super) body: String,
}

/// The functions of a file, as rustfmt lays them out: a body ends at a brace as far in as its `fn`.
pub(super) fn functions(text: &str) -> Vec<Function<'_>> {
    let lines: Vec<_> = code(text).collect();
    let mut attributes = Vec::new();
    let mut functions = Vec::new();
    for (i, (number, line)) in lines.iter().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with("#[") {
            attributes.push(trimmed);
        } else if let Some(name) = function_name(trimmed) {
            let attributes = std::mem::take(&mut attributes);
            functions.push(Function { name, line: *number, attributes, body: body(&lines[i..]) });
        } else if !trimmed.is_empty() {
            attributes.clear();
        }
    }
    functions
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_declaration = before.split_whitespace().all(|word| {
        word.starts_with("pub") || ["unsafe", "const", "async", "extern", "\"C\""].contains(&word)
    });
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (is_declaration && !name.is_empty()).then_some(name)
}

fn body(lines: &[(usize, &str)]) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let Some((_, first)) = lines.first() else { return String::new() };
    let mut body = String::new();
    for (i, (_, line)) in lines.iter().enumerate() {
        body.push_str(line);
        body.push('\n');
        let closes = line.trim_end().ends_with('}') && indent(line) == indent(first);
        if closes || (i == 0 && line.trim_end().ends_with(';')) {
            break;
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_unit_tests_are_not_code() {
        let text = "a(); // aya::x\nlet url = \"http://x\";\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(code(text).collect::<Vec<_>>(), [(1, "a(); "), (2, "let url = \"http://x\";")]);
    }

    #[test]
    fn a_module_of_tests_may_have_a_file() {
        let text = "#[cfg(test)]\nmod fixtures;\n#[cfg(test)]\n#[rustfmt::skip]\npub(crate) mod fake;\nfn f() {}\n\
            #[cfg(test)]\nfn only_for_tests() {}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(test_files(text), ["fixtures", "fake"]);
        assert_eq!(code(text).last(), Some((8, "fn only_for_tests() {}")));
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("use aya::Ebpf;", "aya", "::"));
        assert!(!has_word("use maya::x; aya_log::y", "aya", "::"));
        assert!(has_word("println!(\"\")", "println", "!"));
        assert!(!has_word("eprintln!(\"\")", "println", "!"));
    }

    #[test]
    fn imports_span_lines() {
        let text = "use std::{\n    fs,\n    net::IpAddr,\n};\nfn f() {}\nuse a::b;\n";
        let imports = imports(text);
        assert_eq!(imports.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 6]);
        assert!(imports[0].1.contains("fs,"));
    }

    #[test]
    fn functions_have_attributes_and_bodies() {
        let text = "/// Doc.\n#[classifier]\npub fn a(ctx: X) -> i32 {\n    if x {\n    }\n    gate()\n}\n\
            struct S;\nfn b() {}\n    pub(super) const fn c(\n        x: u8,\n    ) -> u8 {\n        x\n    }\n";
        let functions = functions(text);
        let names: Vec<_> = functions.iter().map(|f| (f.name, f.line, f.attributes.len())).collect();
        assert_eq!(names, [("a", 3, 1), ("b", 9, 0), ("c", 10, 0)]);
        assert!(functions[0].body.contains("gate()"));
        assert!(!functions[0].body.contains("struct"));
        assert!(functions[2].body.contains("        x\n"));
    }
}
