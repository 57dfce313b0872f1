//! Which calls of a kind: by path, descriptor, thread and user.

use std::{fmt, str::FromStr};

use chaos_common::syscall::{
    CallFilter as KernelFilter, MAX_COMM_BYTES, MAX_COMMS, MAX_PATH_PATTERN_BYTES, MAX_PATHS, MAX_STARS,
    MAX_USERS, PathTable, fd,
};

use super::{Arguments, Syscall, SyscallSet};
use crate::{
    fault::text::{FieldError, Given},
    units::{BadValue, did_you_mean, quoted},
};

/// Which calls. An empty list, and nothing, let everything through that dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Only on these paths.
    pub paths: Vec<PathPattern>,
    /// Only on descriptors of these kinds.
    pub fds: Vec<FdKind>,
    /// Only of threads with these names.
    pub comms: Vec<Comm>,
    /// Only of these users.
    pub users: Vec<Users>,
    /// Only of this process, by its number in the host's eyes.
    pub tgid: Option<Tgid>,
    /// Only what opens a file to write to it, if the call opens one.
    pub writes: bool,
}

impl CallFilter {
    /// As given.
    pub fn build(given: &Given) -> Result<Self, FieldError> {
        let filter = Self {
            paths: given.each("paths", str::parse)?,
            fds: given.each("fds", str::parse)?,
            comms: given.each("comms", str::parse)?,
            users: given.each("users", str::parse)?,
            tgid: given.optional("tgid", str::parse)?,
            writes: false,
        };
        let most = |field: &str, count: usize, most: usize| {
            let right = format!("write at most {most}, or a fault of its own for the others");
            let why = || BadValue::new(format!("{count} are too many"), right);
            if count <= most { Ok(()) } else { Err(FieldError::new(field, why())) }
        };
        most("paths", filter.paths.len(), MAX_PATHS)?;
        most("comms", filter.comms.len(), MAX_COMMS)?;
        most("users", filter.users.len(), MAX_USERS)?;
        Ok(filter)
    }

    /// What is asked of a call must be something that the call has, or the fault would never fire.
    pub fn can_match(&self, calls: &SyscallSet) -> Result<(), FieldError> {
        let lacking = |has: fn(Arguments) -> bool| calls.members().find(|call| !has(Arguments::of(*call)));
        if let (false, Some(call)) = (self.paths.is_empty(), lacking(Arguments::has_path)) {
            return Err(FieldError::new("paths", no_such(call, "path")));
        }
        match (self.fds.is_empty(), lacking(Arguments::has_descriptor)) {
            (false, Some(call)) => Err(FieldError::new("fds", no_such(call, "descriptor"))),
            _ => Ok(()),
        }
    }

    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the kernel half takes it, without the paths.
    pub fn to_kernel(&self) -> KernelFilter {
        let mut filter = KernelFilter {
            comm_count: self.comms.len() as u32,
            user_count: self.users.len() as u32,
            tgid: self.tgid.map_or(0, |tgid| tgid.0),
            fds: self.fds.iter().fold(0, |mask, kind| mask | kind.bit()),
            path_count: self.paths.len() as u32,
            writes: self.writes.into(),
            ..KernelFilter::ALL
        };
        for (place, comm) in filter.comms.iter_mut().zip(&self.comms) {
            place.iter_mut().zip(comm.name().bytes()).for_each(|(to, from)| *to = from);
        }
        for (place, users) in filter.users.iter_mut().zip(&self.users) {
            *place = [users.0, users.1];
        }
        filter
    }
}

fn no_such(call: Syscall, what: &str) -> BadValue {
    let right = format!("leave it out, or make a fault of its own for calls without a {what}");
    BadValue::new(format!("{call} has no {what}"), right)
}

/// Paths: `/var/lib/` and what is below it, `/etc/hosts` alone, or a glob such as `*.db`, in which `*` stands for any
/// characters, `/` included, and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// All that begins like this; ends with `/`.
    Below(String),
    /// This one.
    Exactly(String),
    /// All that look like this.
    Glob(String),
}

impl PathPattern {
    /// As it was written.
    pub fn text(&self) -> &str {
        match self {
            Self::Below(text) | Self::Exactly(text) | Self::Glob(text) => text,
        }
    }

    /// As the kernel half takes it.
    pub fn to_kernel(&self) -> PathTable {
        match self {
            Self::Below(directory) => PathTable::of(format!("{directory}*").as_bytes()),
            Self::Exactly(text) | Self::Glob(text) => PathTable::of(text.as_bytes()),
        }
    }
}

impl FromStr for PathPattern {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let pattern = text.trim();
        check(pattern)
            .map_err(|right| BadValue::new(format!("{} is not a path to match", quoted(text)), right))?;
        let pattern = pattern.to_owned();
        Ok(match (pattern.contains(['*', '?']), pattern.ends_with('/')) {
            (true, _) => Self::Glob(pattern),
            (false, true) => Self::Below(pattern),
            (false, false) => Self::Exactly(pattern),
        })
    }
}

/// What would be right if this is no pattern. Paths are compared as they are, so what none of them contains is refused.
fn check(pattern: &str) -> Result<(), String> {
    if !pattern.starts_with(['/', '*']) {
        return Err("begin with `/`, or with `*` for any place: `/var/lib/`, `*.db`".into());
    }
    if pattern.len() > MAX_PATH_PATTERN_BYTES {
        return Err(format!("write at most {MAX_PATH_PATTERN_BYTES} bytes; `*` may stand for the middle"));
    }
    if pattern.chars().any(char::is_control) {
        return Err("write `?` for each control character".into());
    }
    if pattern.contains(['[', ']', '{', '}']) {
        return Err("there are only `*` and `?`; write `?` for a bracket".into());
    }
    if pattern.contains("**") {
        return Err("write one `*`, which stands for `/` too".into());
    }
    if pattern.matches('*').count() > MAX_STARS {
        return Err(format!("write at most {MAX_STARS} `*`"));
    }
    if pattern.contains("//") || pattern.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("write it without `//`, `/./` and `/../`".into());
    }
    Ok(())
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FdKind {
    /// A file, a directory, a device.
    File,
    /// A socket of any family.
    Socket,
    /// A pipe, with a name or without.
    Pipe,
}

impl FdKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::File, Self::Socket, Self::Pipe];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Socket => "socket",
            Self::Pipe => "pipe",
        }
    }

    /// As the kernel half takes it.
    pub const fn bit(self) -> u32 {
        match self {
            Self::File => fd::FILE,
            Self::Socket => fd::SOCKET,
            Self::Pipe => fd::PIPE,
        }
    }
}

impl FromStr for FdKind {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let word = text.trim();
        Self::ALL.into_iter().find(|kind| kind.name() == word).ok_or_else(|| {
            let right = did_you_mean(word, Self::ALL.iter().map(|kind| kind.name()));
            BadValue::new(format!("{} is not a kind of descriptor", quoted(text)), right)
        })
    }
}

impl fmt::Display for FdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name of a thread, as `ps -o comm` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comm(String);

impl Comm {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for Comm {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let name = text.trim();
        let refused = |right: String| {
            Err(BadValue::new(format!("{} is not the name of a thread", quoted(text)), right))
        };
        match name.len() {
            0 => refused("write one as `ps -o comm` shows it, such as `nginx`".into()),
            _ if name.chars().any(char::is_control) => refused("write it without control characters".into()),
            1..=MAX_COMM_BYTES => Ok(Self(name.to_owned())),
            _ => {
                let end = (0..=MAX_COMM_BYTES).rfind(|end| name.is_char_boundary(*end)).unwrap_or(0);
                refused(format!("the kernel keeps {MAX_COMM_BYTES} bytes: write {}", quoted(&name[..end])))
            }
        }
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Users: `1000`, `1000-1999`, both included, as the host's user namespace counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users(pub u32, pub u32);

/// The number that means "no change" to setuid(2) and the like; nobody has it.
const NOBODY_HAS: u32 = u32::MAX;

impl FromStr for Users {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let word = text.trim();
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let id = |part: &str| part.trim().parse::<u32>().ok().filter(|id| *id != NOBODY_HAS);
        match (id(first), id(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first, last)),
            (Some(first), Some(last)) => {
                let what = format!("{} ends before it begins", quoted(text));
                Err(BadValue::new(what, format!("write `{last}-{first}`")))
            }
            _ if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
                let right = "write the user's number, which `id -u NAME` shows in the target";
                Err(BadValue::new(format!("{} is a name", quoted(text)), right))
            }
            _ => {
                let right =
                    format!("write numbers from 0 to {}, such as `1000` or `1000-1999`", NOBODY_HAS - 1);
                Err(BadValue::new(format!("{} is not a range of users", quoted(text)), right))
            }
        }
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(first, last) if first == last => write!(f, "{first}"),
            Self(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// A process, as all its threads know it: what ps(1) calls PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tgid(pub u32);

/// PID_MAX_LIMIT (include/linux/threads.h, 5.15 to 6.12); numbers stay below.
const PID_MAX_LIMIT: u32 = 1 << 22;

impl FromStr for Tgid {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.trim().parse::<u32>() {
            Ok(1) => Err(BadValue::new("process 1 is the host's init, which is never hurt", "name another")),
            Ok(tgid @ 2..PID_MAX_LIMIT) => Ok(Self(tgid)),
            _ => {
                let right = format!("write a number from 2 to {}, as ps(1) shows it", PID_MAX_LIMIT - 1);
                Err(BadValue::new(format!("{} is not the number of a process", quoted(text)), right))
            }
        }
    }
}

impl fmt::Display for Tgid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn refused<T: FromStr<Err = BadValue> + Debug>(cases: &[(&str, &str)]) {
        for (text, part) in cases {
            let error = text.parse::<T>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn paths() {
        let below = |text: &str| PathPattern::Below(text.into());
        assert_eq!("/var/lib/".parse(), Ok(below("/var/lib/")));
        assert_eq!("/".parse(), Ok(below("/")));
        assert_eq!("/etc/hosts".parse(), Ok(PathPattern::Exactly("/etc/hosts".into())));
        for glob in ["*.db", "/var/lib/*/data/", "/tmp/?", "*", "*/a b"] {
            assert_eq!(glob.parse(), Ok(PathPattern::Glob(glob.into())));
        }
        refused::<PathPattern>(&[
            ("", "begin with `/`"),
            ("var/lib", "begin with `/`"),
            ("./x", "begin with `/`"),
            ("/var//lib", "without `//`"),
            ("/var/../lib", "without `//`"),
            ("/a/**/b", "write one `*`"),
            ("*a*b*c*d*", "at most 4 `*`"),
            ("*.[ch]", "only `*` and `?`"),
            ("/a\nb", "control character"),
            (&format!("/{}", "x".repeat(63)), "at most 63 bytes"),
        ]);
        assert!(format!("/{}", "x".repeat(62)).parse::<PathPattern>().is_ok());
    }

    #[test]
    fn kinds_of_descriptors() {
        let mask = FdKind::ALL.iter().fold(0, |mask, kind| {
            assert_eq!(kind.to_string().parse(), Ok(*kind));
            mask | kind.bit()
        });
        assert_eq!(mask.count_ones(), 3);
        refused::<FdKind>(&[
            ("sockets", "did you mean `socket`?"),
            ("tty", "known: `file`, `socket`, `pipe`"),
        ]);
    }

    #[test]
    fn names_of_threads() {
        assert_eq!("nginx: worker".parse::<Comm>().unwrap().name(), "nginx: worker");
        assert!("x".repeat(15).parse::<Comm>().is_ok());
        refused::<Comm>(&[
            ("", "such as `nginx`"),
            ("a-name-that-is-too-long", "write `a-name-that-is-`"),
            ("ééééééééé", "write `ééééééé`"),
            ("a\u{1b}b", "without control characters"),
        ]);
    }

    #[test]
    fn users() {
        for text in ["0", "1000-1999"] {
            assert_eq!(text.parse::<Users>().unwrap().to_string(), text);
        }
        assert_eq!("7 - 7".parse(), Ok(Users(7, 7)));
        refused::<Users>(&[
            ("", "from 0 to 4294967294"),
            ("www-data", "`id -u NAME` shows"),
            ("1000-", "from 0 to 4294967294"),
            ("4294967295", "from 0 to 4294967294"),
            ("9-3", "write `3-9`"),
            ("1x", "is not a range of users"),
        ]);
    }

    #[test]
    fn processes() {
        assert_eq!("4194303".parse(), Ok(Tgid(4_194_303)));
        refused::<Tgid>(&[
            ("1", "never hurt"),
            ("0", "from 2 to 4194303"),
            ("4194304", "from 2 to"),
            ("x", "from 2 to"),
        ]);
    }

    #[test]
    fn a_filter_that_could_not_match_is_refused() {
        let calls = |text: &str| text.parse::<SyscallSet>().unwrap();
        let on_path = CallFilter { paths: vec!["*.db".parse().unwrap()], ..CallFilter::default() };
        let on_pipe = CallFilter { fds: vec![FdKind::Pipe], ..CallFilter::default() };
        assert_eq!(on_path.can_match(&calls("openat,read,unlink")), Ok(()));
        assert_eq!(on_pipe.can_match(&calls("read,sendmsg")), Ok(()));
        assert_eq!(CallFilter::default().can_match(&calls("nanosleep")), Ok(()));
        let refusal = |filter: &CallFilter, text| filter.can_match(&calls(text)).unwrap_err().to_string();
        assert!(refusal(&on_path, "read,nanosleep").starts_with("paths: nanosleep has no path; "));
        assert!(refusal(&on_pipe, "unlink").starts_with("fds: unlink has no descriptor; "));
    }
}
