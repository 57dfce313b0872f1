//! Which system calls: names, classes and regular expressions, in strace's vocabulary.

use std::{collections::BTreeSet, fmt, str::FromStr};

use regex_lite::RegexBuilder;

use super::{Arch, Class, Syscall};
use crate::{
    fault::text::MAX_LIST,
    units::{BadValue, list, quoted},
};

/// Longest regular expression taken; names have at most 30 characters.
const MAX_REGEX_CHARS: usize = 100;
/// What it may grow to in memory.
const MAX_REGEX_BYTES: usize = 1 << 16;

/// A set of system calls, none of them twice: `openat,%network,/^p?write/`, `!close,%signal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallSet {
    terms: Vec<Term>,
    negated: bool,
    members: Vec<Syscall>,
}

/// A part of a set as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    All,
    Name(Syscall),
    Class(Class),
    /// Matches anywhere in a name, as strace's does.
    Regex(String),
}

impl SyscallSet {
    /// Its calls, by name.
    pub fn members(&self) -> impl Iterator<Item = Syscall> + Clone {
        self.members.iter().copied()
    }

    /// Those that an architecture has, with their numbers there.
    pub fn on(&self, arch: Arch) -> impl Iterator<Item = (Syscall, u32)> {
        self.members().filter_map(move |call| Some((call, call.number(arch)?)))
    }

    /// Whether a call was asked for by its name, and not as one of many.
    pub fn names(&self, call: Syscall) -> bool {
        !self.negated && self.terms.contains(&Term::Name(call))
    }

    /// Whether it has this one.
    pub fn has(&self, call: Syscall) -> bool {
        self.members.binary_search(&call).is_ok()
    }

    /// Refuses a set that an architecture has nothing of: it would be a fault that never fires.
    pub fn needs_some_on(&self, arch: Arch) -> Result<(), BadValue> {
        if self.on(arch).next().is_some() {
            return Ok(());
        }
        let names: Vec<&str> = self.members().map(Syscall::name).take(4).collect();
        let dots = if self.members.len() > names.len() { " …" } else { "" };
        let right =
            "write the calls that its programs make (`strace -c` shows them), such as `openat` for `open`";
        Err(BadValue::new(format!("{arch} has no {}{dots}", list(names)), right))
    }
}

impl FromStr for SyscallSet {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let trimmed = text.trim();
        let (negated, listed) = match trimmed.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        let mut terms = Vec::new();
        let mut chosen = BTreeSet::new();
        for text in split(listed)? {
            let (term, calls) = term(text)?;
            terms.push(term);
            chosen.extend(calls);
        }
        let members: Vec<Syscall> = Syscall::all().filter(|call| chosen.contains(call) != negated).collect();
        if members.is_empty() {
            let what = format!("{} leaves no system call", quoted(text));
            return Err(BadValue::new(what, "leave some of it out"));
        }
        Ok(Self { terms, negated, members })
    }
}

/// At the commas outside of regular expressions, in which `{1,2}` is a count.
fn split(text: &str) -> Result<Vec<&str>, BadValue> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let inside = rest.trim_start().strip_prefix('/').and_then(|regex| regex.find('/'));
        let from = inside.map_or(0, |end| rest.len() - rest.trim_start().len() + end + 2);
        let comma = rest[from..].find(',').map(|comma| from + comma);
        parts.push(&rest[..comma.unwrap_or(rest.len())]);
        if parts.len() > MAX_LIST {
            return Err(BadValue::new("there are too many entries", format!("write at most {MAX_LIST}")));
        }
        match comma {
            Some(comma) => rest = &rest[comma + 1..],
            None => return Ok(parts),
        }
    }
}

/// An entry, and the calls it means.
fn term(text: &str) -> Result<(Term, Vec<Syscall>), BadValue> {
    let text = text.trim();
    match text.chars().next() {
        None => {
            Err(BadValue::new("an entry is empty", "write a name, a class such as `%file`, or a `/regex/`"))
        }
        Some('!') => {
            let what = format!("{} is negated by itself", quoted(text));
            Err(BadValue::new(what, "write one `!` in front of the whole list, which then means all others"))
        }
        Some('%') => text.parse().map(|class: Class| (Term::Class(class), class.members().collect())),
        Some('/') => regex(text),
        Some(_) if text == "all" => Ok((Term::All, Syscall::all().collect())),
        Some(_) => match text.parse() {
            Ok(call) => Ok((Term::Name(call), vec![call])),
            Err(refused) => Err(class_meant(text).unwrap_or(refused)),
        },
    }
}

/// What strace took for a class before there was `%`.
fn class_meant(text: &str) -> Option<BadValue> {
    let class = Class::ALL.iter().find(|class| class.name() == text)?;
    Some(BadValue::new(
        format!("{} is not the name of a system call", quoted(text)),
        format!("write `{class}` for the class"),
    ))
}

fn regex(text: &str) -> Result<(Term, Vec<Syscall>), BadValue> {
    let Some(regex) = text[1..].strip_suffix('/').filter(|regex| !regex.is_empty()) else {
        let what = format!("{} is not a whole regular expression", quoted(text));
        return Err(BadValue::new(what, "write it between two `/`, such as `/^p?write/`"));
    };
    if regex.chars().count() > MAX_REGEX_CHARS {
        let what = format!("{} is too long", quoted(text));
        return Err(BadValue::new(what, format!("write at most {MAX_REGEX_CHARS} characters")));
    }
    if regex.chars().any(char::is_control) {
        return Err(BadValue::new(format!("{} has a control character", quoted(text)), "no name has one"));
    }
    let built = RegexBuilder::new(regex).size_limit(MAX_REGEX_BYTES).build().map_err(|error| {
        let right = "write one in the syntax of the crate `regex`, which is nearly that of regex(7)";
        BadValue::new(format!("{} is not a regular expression: {error}", quoted(text)), right)
    })?;
    let calls: Vec<Syscall> = Syscall::all().filter(|call| built.is_match(call.name())).collect();
    if calls.is_empty() {
        let what = format!("no system call matches {}", quoted(text));
        return Err(BadValue::new(
            what,
            "it is searched for in names such as `openat`, which have lower case",
        ));
    }
    Ok((Term::Regex(regex.to_owned()), calls))
}

impl fmt::Display for SyscallSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<String> = self.terms.iter().map(ToString::to_string).collect();
        write!(f, "{}{}", if self.negated { "!" } else { "" }, terms.join(","))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Name(call) => call.fmt(f),
            Self::Class(class) => class.fmt(f),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> SyscallSet {
        text.parse().unwrap()
    }

    fn names(text: &str) -> Vec<&'static str> {
        set(text).members().map(Syscall::name).collect()
    }

    #[test]
    fn names_classes_and_expressions_add_up() {
        assert_eq!(names("openat, read ,read"), ["openat", "read"]);
        assert_eq!(names("/^(read|write)$/"), ["read", "write"]);
        assert_eq!(names("/^fd?a?t?a?sync$/,close"), ["close", "fdatasync", "fsync"]);
        assert_eq!(names("/^fs{1,2}ync$/,close"), ["close", "fsync"]);
        let both = set("%file,%network");
        assert!(["open", "connect"].iter().all(|name| both.has(Syscall::named(name).unwrap())));
        assert_eq!(both.members().count(), Class::File.members().count() + Class::Network.members().count());
        assert_eq!(set("all").members().count(), Syscall::all().count());
    }

    #[test]
    fn a_negation_means_all_others() {
        let others = set("!openat,%network");
        let all = Syscall::all().count();
        assert_eq!(others.members().count(), all - 1 - Class::Network.members().count());
        assert!(
            !others.has(Syscall::named("openat").unwrap()) && others.has(Syscall::named("read").unwrap())
        );
    }

    #[test]
    fn a_set_knows_its_members_on_each_architecture() {
        let opens = set("open,openat");
        let on = |arch| opens.on(arch).map(|(call, number)| (call.name(), number)).collect::<Vec<_>>();
        assert_eq!(on(Arch::X86_64), [("open", 2), ("openat", 257)]);
        assert_eq!(on(Arch::Arm64), [("openat", 56)]);
        assert_eq!(opens.needs_some_on(Arch::Arm64), Ok(()));
        let error = set("open,unlink").needs_some_on(Arch::Arm64).unwrap_err().to_string();
        assert!(error.starts_with("arm64 has no `open`, `unlink`; "), "{error}");
    }

    #[test]
    fn sets_read_back() {
        for text in ["openat", "openat,%file", "!close,%signal", "/^p?write/,read", "all", "/a{1,2}/,%ipc"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set(" ! openat , %net ").to_string(), "!openat,%network");
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, part) in [
            ("", "an entry is empty"),
            ("openat,", "an entry is empty"),
            ("opneat", "did you mean `openat`?"),
            ("%fil", "did you mean `%file`?"),
            ("file", "write `%file` for the class"),
            ("openat,!close", "in front of the whole list"),
            ("!!close", "in front of the whole list"),
            ("!all", "leaves no system call"),
            ("/read", "between two `/`"),
            ("//", "between two `/`"),
            ("/", "between two `/`"),
            ("/(/", "is not a regular expression"),
            ("/a{1000}{1000}/", "is not a regular expression"),
            ("/a|\n/", "control character"),
            ("/OPEN/", "lower case"),
            (&format!("/{}/", "x".repeat(101)), "at most 100 characters"),
            (&"read,".repeat(65), "at most 64"),
        ] {
            let error = text.parse::<SyscallSet>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
