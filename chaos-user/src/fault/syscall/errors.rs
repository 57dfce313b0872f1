//! What calls fail with: one error, or several with their weights.

use std::{fmt, str::FromStr};

use chaos_common::syscall::{MAX_ERRNOS, MAX_WEIGHT};

use super::{Syscall, SyscallSet, plausible};
use crate::units::{BadValue, Errno, list, parse_up_to, quoted};

/// Errors with their weights, each once: `EIO`, `EIO:3,ENOSPC:1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<(Errno, u32)>);

/// How many examples a message gives.
const EXAMPLES: usize = 4;

impl Errors {
    /// Each with its weight.
    pub fn weighted(&self) -> &[(Errno, u32)] {
        &self.0
    }

    /// Refuses errors that one of the calls never gives: how an application takes them shows nothing about how it
    /// takes the call's failure. `any: true` is the way around.
    pub fn are_plausible_for(&self, calls: &SyscallSet) -> Result<(), BadValue> {
        for call in calls.members() {
            let Some(errors) = plausible::errors(call) else {
                let what = format!("nothing is known about what {call} fails with");
                return Err(BadValue::new(what, "leave it out, or add `any: true`"));
            };
            if let Some((error, _)) = self.0.iter().find(|(error, _)| !errors.contains(&error.name())) {
                return Err(implausible(*error, call, &errors, calls));
            }
        }
        Ok(())
    }
}

fn implausible(error: Errno, call: Syscall, errors: &[&str], calls: &SyscallSet) -> BadValue {
    let gives = |call: &Syscall, name| plausible::errors(*call).is_some_and(|errors| errors.contains(&name));
    let who: Vec<&str> =
        calls.members().filter(|call| gives(call, error.name())).map(Syscall::name).collect();
    let others = match who.len() {
        0 => String::new(),
        n => format!(" ({} may{})", list(who.iter().copied().take(EXAMPLES)), more(n)),
    };
    let all_give = errors.iter().copied().filter(|name| calls.members().all(|call| gives(&call, name)));
    let examples: Vec<&str> = all_give.take(EXAMPLES).collect();
    let page = plausible::page(call).unwrap_or_default();
    let write = match (examples.is_empty(), calls.members().count()) {
        (true, 1) => String::new(),
        (true, _) => format!("leave {call} out, "),
        (false, 1) => format!("write another of {page}, such as {}, ", list(examples)),
        (false, _) => {
            format!("leave {call} out, write an error of all of them, such as {}, ", list(examples))
        }
    };
    BadValue::new(format!("{call} never fails with {error}{others}"), format!("{write}or add `any: true`"))
}

fn more(of: usize) -> String {
    if of > EXAMPLES { format!(", and {} more", of - EXAMPLES) } else { String::new() }
}

impl FromStr for Errors {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let mut errors: Vec<(Errno, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
            let error: Errno = name.parse()?;
            let weight = parse_up_to(weight, MAX_WEIGHT).map_err(|refused| {
                BadValue::new(format!("the weight of {error}: {}", refused.what), refused.right)
            })?;
            if errors.iter().any(|(known, _)| *known == error) {
                return Err(BadValue::new(
                    format!("{error} is there twice in {}", quoted(text)),
                    format!("write it once, such as `{error}:2`"),
                ));
            }
            errors.push((error, weight));
        }
        if errors.len() > MAX_ERRNOS {
            let right = format!("write at most {MAX_ERRNOS}, or a fault of its own for the others");
            return Err(BadValue::new(format!("{} errors are too many", errors.len()), right));
        }
        Ok(Self(errors))
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equal = self.0.iter().all(|(_, weight)| *weight == 1);
        let shown = self.0.iter().map(|(error, weight)| match equal {
            true => error.to_string(),
            false => format!("{error}:{weight}"),
        });
        f.write_str(&shown.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Errors {
        text.parse().unwrap()
    }

    #[test]
    fn errors_read_back() {
        for text in ["EIO", "EIO:3,ENOSPC:1", "EIO,ENOSPC"] {
            assert_eq!(errors(text).to_string(), text);
        }
        assert_eq!(errors(" EIO : 2 , ENOSPC").to_string(), "EIO:2,ENOSPC:1");
        let weights: Vec<u32> = errors("EIO:3,ENOSPC").weighted().iter().map(|(_, weight)| *weight).collect();
        assert_eq!(weights, [3, 1]);
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, part) in [
            ("", "is not the name of an error"),
            ("eio", "did you mean `EIO`?"),
            ("EIO,", "is not the name of an error"),
            ("EIO:0", "the weight of EIO: 0 would change nothing"),
            ("EIO:1001", "from 1 to 1000"),
            ("EIO:x", "the weight of EIO: `x` is not a number"),
            ("EIO,EIO:2", "EIO is there twice"),
            ("EIO,EPERM,EINVAL,EBUSY,EAGAIN,ENOMEM,ENOSPC,EROFS,EINTR", "9 errors are too many"),
        ] {
            let error = text.parse::<Errors>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn only_what_calls_really_fail_with_is_plausible() {
        let check = |text: &str, calls: &str| errors(text).are_plausible_for(&calls.parse().unwrap());
        for (text, calls) in [
            ("EIO", "openat,read,write,fsync,close"),
            ("EIO:3,ENOSPC:1", "write,fsync"),
            ("ECONNRESET", "read,recvfrom,sendto"),
            ("ENOMEM", "mmap,brk,clone"),
            ("EINTR", "futex,epoll_wait,poll,nanosleep"),
            ("ETIMEDOUT", "connect"),
            ("EMFILE", "openat,socket,accept4,pipe2"),
        ] {
            assert_eq!(check(text, calls), Ok(()), "{text} {calls}");
        }
        for (text, calls, parts) in [
            (
                "ENOSPC",
                "read",
                &[
                    "read never fails with ENOSPC; write another of read(2), readv(2), lseek(2), such as `EAGAIN`, ",
                ][..],
            ),
            (
                "ENOSPC",
                "read,write",
                &["read never fails with ENOSPC (`write` may); leave read out, write an error of all"],
            ),
            ("EIO:3,ECONNREFUSED:1", "fsync", &["fsync never fails with ECONNREFUSED"]),
            ("EIO", "%file", &["getcwd never fails with EIO (`access`", "more); leave getcwd out"]),
            ("EIO", "vhangup", &["nothing is known about what vhangup fails with"]),
            ("ENOENT", "exit", &["nothing is known"]),
        ] {
            let error = check(text, calls).unwrap_err().to_string();
            assert!(
                parts.iter().all(|part| error.contains(part)) && error.contains("`any: true`"),
                "{error}"
            );
        }
    }
}
