//! The entries of the catalogue that are about system calls: what each is given, and what it makes of that.

use super::{
    CallFault, CallFilter, Effect, Errors, SyscallSet,
    call::{FILTER, SYSCALLS, syscalls},
    filter::FdKind,
    ladder::Forged,
    slow::{SPREAD, Slow},
};
use crate::{
    fault::{
        Fault,
        catalogue::{FaultEntry, Parameter, value},
        course, limits, pattern,
        text::{FieldError, Given},
    },
    units::{BadValue, Signal, one_of, parse_flag},
};

const SOCKETS: Parameter = value(
    "sockets",
    "any|ip|udp-to-peer",
    "any",
    "what the target's sockets are known to be: where all are of IP, calls on them are met at no cost for others",
);

/// Calls that fail, for the catalogue.
pub const ERRNO: FaultEntry = FaultEntry {
    name: "errno",
    summary: "system calls fail with an error, without having done anything",
    parameters: &[
        &[
            SYSCALLS,
            value("error", "ERRNO|ERRNO:WEIGHT,…", "-", "what they fail with, by its name in errno(3)"),
            value("any", "true|false", "false", "errors too that these calls never give"),
            SOCKETS,
        ],
        FILTER,
        pattern::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build: errno,
    command: "kchaos inject errno --syscalls fsync --error EIO --on docker:db --for 30s",
    yaml: "- errno:\n    syscalls: write,pwrite64\n    error: EIO:3,ENOSPC:1\n    paths: /var/lib/\n    percent: 5%\n",
};

fn errno(given: &Given) -> Result<Fault, FieldError> {
    let calls = syscalls(given)?;
    let missing = || {
        FieldError::new(
            "error",
            BadValue::new("this is missing", "write one such as `EIO`, or `EIO:3,ENOSPC:1`"),
        )
    };
    let text = given.text("error").ok_or_else(missing)?;
    let errors: Errors = text.parse().map_err(|why| FieldError::new("error", why))?;
    if given.optional("any", parse_flag)? != Some(true) {
        errors.are_plausible_for(&calls).map_err(|why| FieldError::new("error", why))?;
    }
    Ok(CallFault::build(given, calls, Effect::Errno(errors), None)?.into())
}

/// Calls that pretend, for the catalogue.
pub const RETVAL: FaultEntry = FaultEntry {
    name: "retval",
    summary: "system calls say that they succeeded, without having done anything",
    parameters: &[
        &[SYSCALLS, value("returns", "N", "-", "what they return: a number of bytes, a descriptor, or 0")],
        FILTER,
        pattern::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build: retval,
    command: "kchaos inject retval --syscalls fsync,fdatasync --returns 0 --on docker:db --for 30s",
    yaml: "- retval:\n    syscalls: write\n    returns: 512\n    fds: file\n    when: 3+10\n",
};

fn retval(given: &Given) -> Result<Fault, FieldError> {
    let forged = given.required("returns", "0", str::parse::<Forged>)?;
    Ok(CallFault::build(given, syscalls(given)?, Effect::Return(forged), None)?.into())
}

/// Calls that signal, for the catalogue.
pub const SIGNAL: FaultEntry = FaultEntry {
    name: "signal",
    summary: "a process gets a signal when it makes a system call: a crash at the third fsync",
    parameters: &[
        &[
            SYSCALLS,
            value("signal", "SIGNAL", "-", "what its process gets, by its name in signal(7)"),
            value(
                "error",
                "ERRNO|none",
                "EINTR",
                "what the call fails with, so that it has no effect; with none it goes on",
            ),
        ],
        FILTER,
        pattern::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build: signal,
    command: "kchaos inject signal --syscalls fsync --signal SIGKILL --when 3..3 --on docker:db --for 5m",
    yaml: "- signal:\n    syscalls: fsync\n    signal: SIGKILL\n    when: 3..3\n",
};

fn signal(given: &Given) -> Result<Fault, FieldError> {
    let signal = given.required("signal", "SIGKILL", str::parse::<Signal>)?;
    let effect = match given.text("error").unwrap_or("EINTR").trim() {
        "none" => Effect::Signal,
        text => Effect::Errno(text.parse().map_err(|why| FieldError::new("error", why))?),
    };
    Ok(CallFault::build(given, syscalls(given)?, effect, Some(signal))?.into())
}

/// No memory, for the catalogue.
pub const ALLOC: FaultEntry = FaultEntry {
    name: "alloc",
    summary: "asking for memory, and starting processes and threads, fails with ENOMEM; stacks grow all the same",
    parameters: &[
        &[value("what", "all|memory|tasks", "all", "mappings and heaps, or processes and threads")],
        FILTER,
        pattern::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build: alloc,
    command: "kchaos inject alloc --percent 1 --on docker:web --for 30s",
    yaml: "- alloc:\n    what: memory\n    percent: 1%\n",
};

const MEMORY: &str = "mmap,mremap,brk";
const TASKS: &str = "clone,clone3,fork,vfork";

fn alloc(given: &Given) -> Result<Fault, FieldError> {
    let whats =
        [("all", [MEMORY, TASKS].join(",")), ("memory", MEMORY.to_owned()), ("tasks", TASKS.to_owned())];
    let calls = preset(given, "what", &whats)?;
    Ok(CallFault::preset(given, calls, errors("ENOMEM")?)?.into())
}

/// A disk that is in trouble, for the catalogue.
pub const DISK: FaultEntry = FaultEntry {
    name: "disk",
    summary: "files behave as on a disk that is full, broken, read-only or slow",
    parameters: &[
        &[
            value(
                "is",
                "full|broken|read-only|slow",
                "-",
                "ENOSPC where something needs room, EIO from all, EROFS for what would change something, or all take longer",
            ),
            value(
                "by",
                "DURATION",
                "-",
                "how much longer, on a slow disk and only there; so are the next four",
            ),
        ],
        SPREAD,
        FILTER,
        pattern::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build: disk,
    command: "kchaos inject disk --is full --paths /var/lib/ --on docker:db --for 30s",
    yaml: "- disk:\n    is: broken\n    paths: /var/lib/\n    percent: 1%\n",
};

const WRITES: &str = "write,pwrite64,writev,pwritev,pwritev2,fallocate,copy_file_range";
const MAKES: &str = "mkdir,mkdirat,mknod,mknodat,link,linkat,symlink,symlinkat";
const CHANGES: &str = "open,openat,openat2,creat,unlink,unlinkat,rmdir,rename,renameat,renameat2,truncate,ftruncate,chmod,\
    fchmod,fchmodat,chown,lchown,fchown,fchownat,utimensat";
const READS: &str =
    "read,pread64,readv,preadv,preadv2,getdents64,fsync,fdatasync,ftruncate,open,openat,openat2,creat";

fn disk(given: &Given) -> Result<Fault, FieldError> {
    if !given.has("is") {
        let why = BadValue::new("this is missing", "write `full`, `broken`, `read-only` or `slow`");
        return Err(FieldError::new("is", why));
    }
    let is = given.text("is").map(str::trim);
    let delays = ["by", "jitter", "distribution", "longest", "sleepers"];
    if let Some(field) = delays.into_iter().find(|field| is != Some("slow") && given.has(field)) {
        let why = BadValue::new("only a slow disk takes longer", "leave it out, or write `is: slow`");
        return Err(FieldError::new(field, why));
    }
    let full = [WRITES, MAKES].join(",");
    let changes = [WRITES, MAKES, CHANGES].join(",");
    let reads = [WRITES, READS].join(",");
    let presets = [("full", full), ("broken", reads.clone()), ("read-only", changes), ("slow", reads)];
    let calls = preset(given, "is", &presets)?;
    let (effect, slow) = match is {
        Some("full") => (errors("ENOSPC")?, None),
        Some("broken") => (errors("EIO")?, None),
        Some("slow") => (Effect::Delay, Some(Slow::read(given)?)),
        _ => (errors("EROFS")?, None),
    };
    let mut fault = CallFault { slow, ..CallFault::preset(given, calls, effect)? };
    // Sockets and pipes are on no disk, and a broken or slow one cannot be read as usual either.
    let writes = matches!(is, Some("full" | "read-only"));
    fault.filter = CallFilter { fds: vec![FdKind::File], writes, ..fault.filter };
    Ok(fault.into())
}

/// No descriptors, for the catalogue.
pub const FDS: FaultEntry = FaultEntry {
    name: "fds",
    summary: "opening files and making sockets, pipes and the like fails as if there were no descriptors left",
    parameters: &[
        &[value("error", "EMFILE|ENFILE", "EMFILE", "the process's limit, or the system's")],
        FILTER,
        pattern::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build: fds,
    command: "kchaos inject fds --percent 10 --on docker:web --for 30s",
    yaml: "- fds:\n    error: EMFILE\n    percent: 10%\n",
};

const OPENS: &str = "open,openat,openat2,creat,socket,socketpair,accept,accept4,pipe,pipe2,eventfd,eventfd2,epoll_create,\
    epoll_create1,timerfd_create,inotify_init,inotify_init1,memfd_create";

fn fds(given: &Given) -> Result<Fault, FieldError> {
    let known = ["EMFILE", "ENFILE"];
    let error = given.optional("error", |text| one_of(text, "such an error", &known, |name| name))?;
    let calls = OPENS.parse().map_err(|why| FieldError::new("error", why))?;
    Ok(CallFault::preset(given, calls, errors(error.unwrap_or("EMFILE"))?)?.into())
}

/// The calls of one of several presets; the first if none was chosen.
fn preset(
    given: &Given,
    field: &'static str,
    presets: &[(&'static str, String)],
) -> Result<SyscallSet, FieldError> {
    let names: Vec<&'static str> = presets.iter().map(|(name, _)| *name).collect();
    let chosen = given.optional(field, |text| one_of(text, "one of them", &names, |name| name))?;
    let (_, calls) =
        presets.iter().find(|(name, _)| chosen.is_none_or(|chosen| chosen == *name)).unwrap_or(&presets[0]);
    calls.parse().map_err(|why| FieldError::new(field, why))
}

/// One error, whose name is ours.
fn errors(name: &str) -> Result<Effect, FieldError> {
    Ok(Effect::Errno(name.parse().map_err(|why| FieldError::new("error", why))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{
        capability::{Capabilities, Capability},
        plan::Options,
        syscall::call::tests::made,
    };

    /// What a kernel without these leaves out of a preset.
    fn left_out(name: &str, values: &[(&'static str, &str)], lacks: &[Capability]) -> String {
        let plan = made(name, values).unwrap().plan(&Capabilities::all_but(lacks), &Options::default());
        plan.unwrap().unmet.iter().map(|call| call.name()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn presets_keep_what_can_be_met() {
        use Capability::{FmodRetSecurity, FmodRetSyscall, Lsm, Override};
        let stock = [FmodRetSyscall, Override];
        for (name, values) in [
            ("alloc", &[][..]),
            ("disk", &[("is", "full")]),
            ("disk", &[("is", "broken")]),
            ("disk", &[("is", "read-only")]),
            ("fds", &[]),
        ] {
            assert_eq!(left_out(name, values, &[]), "", "{name} {values:?}");
            let expected = if values == [("is", "broken")] { "fdatasync fsync" } else { "" };
            assert_eq!(left_out(name, values, &stock), expected, "{name} {values:?}");
        }
        assert_eq!(left_out("alloc", &[], &[Lsm, FmodRetSyscall, Override]), "mmap");
        assert_eq!(left_out("alloc", &[], &[FmodRetSecurity]), "brk");
        let nothing = [Lsm, FmodRetSecurity, FmodRetSyscall, Override];
        let plan = made("fds", &[]).unwrap().plan(&Capabilities::all_but(&nothing), &Options::default());
        assert!(plan.unwrap_err().to_string().starts_with("this kernel cannot do fds for"));
    }

    #[test]
    fn a_disk_has_files_alone_and_is_read_by_those_that_do_not_write() {
        let disk = |is| made("disk", &[("is", is), ("paths", "/var/")]).unwrap().filter;
        for (is, writes) in [("full", true), ("broken", false), ("read-only", true)] {
            assert_eq!((disk(is).fds, disk(is).writes), (vec![FdKind::File], writes), "{is}");
            assert_eq!(disk(is).paths.len(), 1);
        }
    }

    #[test]
    fn a_slow_disk_delays_what_is_read_and_written() {
        let values = [("is", "slow"), ("by", "20ms")];
        let slow = made("disk", &values).unwrap();
        assert_eq!((slow.effect.clone(), slow.filter.fds.clone()), (Effect::Delay, vec![FdKind::File]));
        assert!(slow.slow.is_some() && !slow.filter.writes);
        let stock = left_out("disk", &values, &[Capability::FmodRetSyscall, Capability::Override]);
        assert!(stock.contains("fsync") && !stock.contains("openat"), "{stock}");
    }

    #[test]
    fn presets_take_what_they_are_given() {
        let error = |name: &str, values: &[(&'static str, &str)]| match made(name, values).unwrap().effect {
            Effect::Errno(errors) => errors.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (error("fds", &[]), error("fds", &[("error", "ENFILE")])),
            ("EMFILE".into(), "ENFILE".into())
        );
        assert_eq!(error("alloc", &[]), "ENOMEM");
        let has =
            |what, call: &str| made("alloc", &[("what", what)]).unwrap().calls.has(call.parse().unwrap());
        assert!(has("all", "brk") && has("all", "clone3"));
        assert!(has("memory", "brk") && !has("memory", "clone3"));
        assert!(!has("tasks", "brk") && has("tasks", "clone3"));
    }

    #[test]
    fn refusals_name_the_field_and_say_what_would_be_right() {
        for (name, values, part) in [
            ("errno", &[("error", "EIO")][..], "syscalls: this is missing"),
            ("errno", &[("syscalls", "fsync")], "error: this is missing"),
            ("errno", &[("syscalls", "fsync"), ("error", "ENOENT")], "or add `any: true`"),
            ("errno", &[("syscalls", "fsycn"), ("error", "EIO")], "did you mean `fsync`?"),
            ("errno", &[("syscalls", "file"), ("error", "EIO")], "write `%file`"),
            ("errno", &[("syscalls", "brk"), ("error", "ENOMEM"), ("paths", "/x")], "brk has no path"),
            ("retval", &[("syscalls", "write"), ("returns", "-5")], "use the fault `errno`"),
            ("signal", &[("syscalls", "write"), ("signal", "KIL")], "did you mean `SIGKILL`?"),
            ("alloc", &[("what", "heap")], "`memory`"),
            ("disk", &[], "write `full`, `broken`, `read-only` or `slow`"),
            ("disk", &[("is", "full"), ("by", "1ms")], "by: only a slow disk"),
            ("disk", &[("is", "slow")], "by: this is missing"),
            ("disk", &[("is", "slow"), ("by", "1s")], "`longest` more"),
            ("fds", &[("error", "EIO")], "`ENFILE`"),
        ] {
            let error = made(name, values).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }
}
