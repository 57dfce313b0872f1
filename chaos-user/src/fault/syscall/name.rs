//! System calls by name and number.

use std::{fmt, str::FromStr, sync::LazyLock};

use syscall_numbers::{aarch64, x86_64};

use crate::units::{BadValue, nearest, quoted};

/// An architecture that kchaos runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// AMD64.
    X86_64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// The one that this program was built for.
    pub const HERE: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 };

    /// As the kernel writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    fn name_of(self, number: u32) -> Option<&'static str> {
        let number = number.into();
        match self {
            Self::X86_64 => x86_64::sys_call_name(number),
            Self::Arm64 => aarch64::sys_call_name(number),
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A system call of some architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Syscall(&'static Entry);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Entry {
    name: &'static str,
    numbers: [Option<u32>; Arch::ALL.len()],
}

/// No call of these architectures has a number beyond this one; x32's, from 512 on, are not met.
const MAX_NUMBER: u32 = 511;

/// All of both architectures, by name.
static ALL: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let mut all: Vec<Entry> = Vec::new();
    for arch in Arch::ALL {
        let named = (0..=MAX_NUMBER).filter_map(|number| Some((number, arch.name_of(number)?)));
        for (number, name) in named.filter(|(_, name)| !listed(UNIMPLEMENTED, name)) {
            let known = all.iter().position(|entry| entry.name == name);
            let place = known.unwrap_or_else(|| {
                all.push(Entry { name, numbers: [None; Arch::ALL.len()] });
                all.len() - 1
            });
            all[place].numbers[arch.index()] = Some(number);
        }
    }
    all.sort();
    all
});

/// Names of the C library, and the calls behind them.
const LIBRARY: &[(&str, &str)] = &[
    ("send", "sendto"),
    ("recv", "recvfrom"),
    ("waitpid", "wait4"),
    ("wait", "wait4"),
    ("umount", "umount2"),
    ("pread", "pread64"),
    ("pwrite", "pwrite64"),
    ("fstatat", "newfstatat"),
    ("readdir", "getdents64"),
    ("fopen", "openat"),
    ("fflush", "write"),
    ("remove", "unlink"),
    ("sleep", "clock_nanosleep"),
    ("usleep", "clock_nanosleep"),
    ("malloc", "mmap"),
    ("sigaction", "rt_sigaction"),
    ("posix_fallocate", "fallocate"),
    ("posix_fadvise", "fadvise64"),
];

/// Calls that the kernel implements under another name, by architecture (arch/x86/entry/syscalls/syscall_64.tbl,
/// include/uapi/asm-generic/unistd.h, and arch/arm64/kernel/sys.c for `personality`; 6.12). What x86_64 has under the
/// plain name of the first three is the call of 32-bit programs.
const RENAMED: &[(Arch, &[(&str, &str)])] = &[
    (
        Arch::X86_64,
        &[
            ("stat", "newstat"),
            ("lstat", "newlstat"),
            ("sendfile", "sendfile64"),
            ("fstat", "newfstat"),
            ("uname", "newuname"),
            ("umount2", "umount"),
        ],
    ),
    (
        Arch::Arm64,
        &[
            ("fstat", "newfstat"),
            ("uname", "newuname"),
            ("umount2", "umount"),
            ("sendfile", "sendfile64"),
            ("fadvise64", "fadvise64_64"),
            ("personality", "arm64_personality"),
        ],
    ),
];

/// Numbers with nothing behind them (the same tables): no program can tell these calls from ones that do not exist.
const UNIMPLEMENTED: &str = "_sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms \
    get_thread_area getpmsg lookup_dcookie nfsservctl putpmsg query_module security set_thread_area tuxcall uselib vserver";

/// Calls without parameters. On x86_64 their `__x64_sys_` is only another name for `__do_sys_`, and BTF has one name
/// for each function (`__SYS_STUB0`, arch/x86/include/asm/syscall_wrapper.h, 5.15 to 7.3).
const WITHOUT_PARAMETERS: &str = "fork getegid geteuid getgid getpgrp getpid getppid gettid getuid pause \
    restart_syscall rt_sigreturn sched_yield setsid sync vfork vhangup";

impl Syscall {
    /// All of them, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().map(Self)
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.binary_search_by_key(&name, |entry| entry.name).ok().map(|place| Self(&ALL[place]))
    }

    /// As syscalls(2) writes it.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// Its number, if the architecture has it.
    pub const fn number(self, arch: Arch) -> Option<u32> {
        self.0.numbers[arch.index()]
    }

    /// The function of the kernel that does it, as BTF and kallsyms name it.
    pub fn function(self, arch: Arch) -> Option<String> {
        self.number(arch)?;
        let renamed = RENAMED.iter().filter(|(of, _)| *of == arch).flat_map(|(_, names)| *names);
        let name =
            renamed.clone().find(|(name, _)| *name == self.name()).map_or(self.name(), |(_, name)| name);
        let prefix = match arch {
            Arch::X86_64 if listed(WITHOUT_PARAMETERS, name) => "__do_sys_",
            Arch::X86_64 => "__x64_sys_",
            Arch::Arm64 => "__arm64_sys_",
        };
        Some(format!("{prefix}{name}"))
    }
}

/// Whether a list in one text, separated by blanks, has this word.
pub(super) fn listed(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
}

impl FromStr for Syscall {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let name = text.trim();
        Self::named(name).ok_or_else(|| {
            BadValue::new(format!("{} is not the name of a system call", quoted(text)), near(name))
        })
    }
}

fn near(name: &str) -> String {
    if let Some((_, call)) = LIBRARY.iter().find(|(library, _)| *library == name) {
        return format!("it is a function of the C library, which calls `{call}`");
    }
    if listed(UNIMPLEMENTED, name) {
        return "Linux keeps its number and does nothing; leave it out".into();
    }
    match nearest(name, Syscall::all().map(Syscall::name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write one of syscalls(2), a class such as `%file`, or a `/regex/`".into(),
    }
}

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str) -> Syscall {
        name.parse().unwrap()
    }

    #[test]
    fn numbers_are_those_of_the_architecture() {
        for (name, x86_64, arm64) in [
            ("openat", Some(257), Some(56)),
            ("open", Some(2), None),
            ("newfstatat", Some(262), Some(79)),
            ("io_uring_setup", Some(425), Some(425)),
        ] {
            let call = call(name);
            assert_eq!((call.number(Arch::X86_64), call.number(Arch::Arm64)), (x86_64, arm64), "{name}");
        }
    }

    #[test]
    fn each_name_and_number_is_there_once() {
        assert!(ALL.is_sorted_by(|one, next| one.name < next.name));
        for arch in Arch::ALL {
            let mut numbers: Vec<_> = Syscall::all().filter_map(|call| call.number(arch)).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert!(numbers.len() == all && all > 300, "{arch}: {all}");
        }
    }

    #[test]
    fn the_lists_here_name_calls() {
        let renamed = RENAMED.iter().flat_map(|(_, names)| names.iter().map(|(name, _)| *name));
        let library = LIBRARY.iter().map(|(_, call)| *call);
        let words = renamed.chain(WITHOUT_PARAMETERS.split_whitespace()).chain(library);
        for name in words {
            assert!(Syscall::named(name).is_some(), "{name}");
        }
        assert!(UNIMPLEMENTED.split_whitespace().all(|name| Syscall::named(name).is_none()));
        assert!(LIBRARY.iter().all(|(library, _)| Syscall::named(library).is_none()));
    }

    #[test]
    fn functions_have_the_kernels_names() {
        for (name, x86_64, arm64) in [
            ("openat", Some("__x64_sys_openat"), Some("__arm64_sys_openat")),
            ("stat", Some("__x64_sys_newstat"), None),
            ("sendfile", Some("__x64_sys_sendfile64"), Some("__arm64_sys_sendfile64")),
            ("fork", Some("__do_sys_fork"), None),
            ("getpid", Some("__do_sys_getpid"), Some("__arm64_sys_getpid")),
        ] {
            let functions = Arch::ALL.map(|arch| call(name).function(arch));
            assert_eq!(functions, [x86_64, arm64].map(|name| name.map(str::to_owned)), "{name}");
        }
    }

    #[test]
    fn near_misses_are_suggested() {
        for (text, part) in [
            ("opnat", "did you mean `openat`?"),
            ("OPENAT", "did you mean `openat`?"),
            ("fdatasnyc", "did you mean `fdatasync`?"),
            ("waitpid", "calls `wait4`"),
            ("vserver", "keeps its number"),
            ("xyzzy", "such as `%file`"),
            ("", "such as `%file`"),
        ] {
            let error = text.parse::<Syscall>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
