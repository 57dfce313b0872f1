//! The faults of system calls: what they have in common.

use std::fmt;

use chaos_common::syscall::CallEffect;

use super::{Arch, CallFilter, Effect, Slow, Sockets, SyscallSet};
use crate::{
    fault::{
        Fault, Limits, Pattern,
        catalogue::{Parameter, list, value},
        text::{FieldError, Given},
    },
    units::{BadValue, Signal, one_of},
};

/// Which calls, for the catalogue.
pub const SYSCALLS: Parameter = list(
    "syscalls",
    "NAME|%CLASS|/REGEX/, …",
    "-",
    "which calls, in strace's vocabulary; `!` in front means all others",
);

/// Which of them, for the catalogue.
pub const FILTER: &[Parameter] = &[
    list("paths", "PATH|DIR/|GLOB, …", "any", "only on these files; `*` stands for `/` too"),
    list("fds", "file|socket|pipe, …", "any", "only on descriptors of these kinds"),
    list("comms", "NAME, …", "any", "only of threads with these names"),
    list("users", "UID|UID-UID, …", "any", "only of these users"),
    value("tgid", "PID", "any", "only of this process"),
    value(
        "io_uring",
        "refuse|ignore",
        "refuse",
        "where only the calls themselves are met: targets that use io_uring, which passes them by",
    ),
];

/// Something happens to system calls.
#[derive(Clone, Debug, PartialEq)]
pub struct CallFault {
    /// As users write the fault.
    pub name: &'static str,
    /// Which calls.
    pub calls: SyscallSet,
    /// Whether the user chose them.
    pub by_name: bool,
    /// What happens to them.
    pub effect: Effect,
    /// What their process gets besides.
    pub signal: Option<Signal>,
    /// How much longer they take.
    pub slow: Option<Slow>,
    /// Which sockets they are about.
    pub sockets: Sockets,
    /// Which of them at all.
    pub filter: CallFilter,
    /// What becomes of rings that pass by.
    pub io_uring: IoUring,
    /// Which of a sequence.
    pub pattern: Pattern,
    /// How often.
    pub limits: Limits,
}

/// What to do where a target has rings of io_uring, and only the calls themselves can be met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoUring {
    /// Say so and do nothing.
    #[default]
    Refuse,
    /// Let its requests pass.
    Ignore,
}

impl CallFault {
    /// With what all of them are given; the rest is up to the fault.
    pub fn build(
        given: &Given,
        calls: SyscallSet,
        effect: Effect,
        signal: Option<Signal>,
    ) -> Result<Self, FieldError> {
        calls.needs_some_on(Arch::HERE).map_err(|why| FieldError::new(SYSCALLS.name, why))?;
        let fault = Self { signal, by_name: true, ..Self::preset(given, calls, effect)? };
        fault.filter.can_match(&fault.calls)?;
        Ok(fault)
    }

    /// The same for calls that the fault chose itself: those will do that can be met and have what is asked of them.
    pub fn preset(given: &Given, calls: SyscallSet, effect: Effect) -> Result<Self, FieldError> {
        Ok(Self {
            name: given.entry.name,
            calls,
            by_name: false,
            effect,
            signal: None,
            slow: None,
            sockets: given.optional("sockets", sockets)?.unwrap_or_default(),
            filter: CallFilter::build(given)?,
            io_uring: given.optional("io_uring", io_uring)?.unwrap_or_default(),
            pattern: Pattern::build(given, Some(Pattern::ALL))?,
            limits: Limits::build(given)?,
        })
    }

    /// As the kernel half takes what happens.
    pub fn kernel_effect(&self) -> CallEffect {
        let signal = self.signal.map_or(0, Signal::number);
        let effect = match &self.effect {
            Effect::Errno(errors) => {
                CallEffect::errors(errors.weighted().iter().map(|(error, weight)| (error.number(), *weight)))
            }
            Effect::Return(forged) => CallEffect { forged: forged.value(), ..CallEffect::NONE },
            Effect::Signal | Effect::Delay => CallEffect::NONE,
        };
        CallEffect { signal, ..effect }
    }

    /// What reports call it: `errno openat`, `disk`.
    pub fn label(&self) -> String {
        if self.by_name { format!("{} {}", self.name, self.calls) } else { self.name.to_owned() }
    }
}

/// The calls that a fault cannot do without.
pub fn syscalls(given: &Given) -> Result<SyscallSet, FieldError> {
    let text = given.joined(SYSCALLS.name);
    let missing = || {
        let right = "write the calls, such as `openat` or `%file`";
        FieldError::new(SYSCALLS.name, BadValue::new("this is missing", right))
    };
    text.ok_or_else(missing)?.parse().map_err(|why| FieldError::new(SYSCALLS.name, why))
}

fn sockets(text: &str) -> Result<Sockets, BadValue> {
    one_of(text, "a kind of socket", &Sockets::ALL, |sockets| sockets.name())
}

fn io_uring(text: &str) -> Result<IoUring, BadValue> {
    let name = |what: IoUring| match what {
        IoUring::Refuse => "refuse",
        IoUring::Ignore => "ignore",
    };
    one_of(text, "what can be done about io_uring", &[IoUring::Refuse, IoUring::Ignore], name)
}

impl From<CallFault> for Fault {
    fn from(fault: CallFault) -> Self {
        Self::Call(fault)
    }
}

impl fmt::Display for CallFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())?;
        match &self.effect {
            Effect::Errno(errors) => write!(f, " with {errors}")?,
            Effect::Return(forged) => write!(f, " returning {forged}")?,
            Effect::Signal | Effect::Delay => {}
        }
        if let Some(slow) = self.slow {
            write!(f, " {slow}")?;
        }
        if let Some(signal) = self.signal {
            write!(f, " and {signal}")?;
        }
        write!(f, " {}", self.pattern)
    }
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod tests {
    use super::*;
    use crate::fault::catalogue::find;

    /// A fault of calls as it would be given.
    pub fn made(name: &str, values: &[(&'static str, &str)]) -> Result<CallFault, FieldError> {
        let entry = find(name).unwrap();
        let given = values.iter().fold(Given::new(entry), |given, (name, value)| given.with(name, value));
        match (entry.build)(&given)? {
            Fault::Call(fault) => Ok(fault),
            other => panic!("{other:?}"),
        }
    }

    fn effect(name: &str, values: &[(&'static str, &str)]) -> CallEffect {
        made(name, values).unwrap().kernel_effect()
    }

    #[test]
    fn what_happens_is_what_was_asked() {
        let errno = effect("errno", &[("syscalls", "write"), ("error", "EIO:3,ENOSPC:1")]);
        assert_eq!((errno.count, errno.signal, errno.forged), (2, 0, -1));
        assert_eq!((errno.error(0), errno.error(u32::MAX)), (-5, -28));
        let retval = effect("retval", &[("syscalls", "fsync"), ("returns", "0")]);
        assert_eq!((retval.count, retval.signal, retval.forged), (0, 0, 0));
        let killed = effect("signal", &[("syscalls", "fsync"), ("signal", "KILL")]);
        assert_eq!((killed.count, killed.signal, killed.error(0)), (1, 9, -4));
        let goes_on = effect("signal", &[("syscalls", "fsync"), ("signal", "KILL"), ("error", "none")]);
        assert_eq!((goes_on.count, goes_on.signal, goes_on.forged), (0, 9, -1));
    }

    #[test]
    fn it_says_what_it_does() {
        let text = |name: &str, values: &[(&'static str, &str)]| made(name, values).unwrap().to_string();
        assert_eq!(
            text("errno", &[("syscalls", "openat,%network"), ("error", "ENOMEM"), ("any", "true")]),
            "errno openat,%network with ENOMEM 100%"
        );
        assert_eq!(
            text("retval", &[("syscalls", "write"), ("returns", "7")]),
            "retval write returning 7 100%"
        );
        assert_eq!(
            text("signal", &[("syscalls", "fsync"), ("signal", "SIGKILL")]),
            "signal fsync with EINTR and SIGKILL 100%"
        );
        assert_eq!(text("disk", &[("is", "full"), ("percent", "5")]), "disk with ENOSPC 5%");
    }
}
