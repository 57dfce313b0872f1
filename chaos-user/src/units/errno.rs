//! Errors of system calls, by the names of errno(3).

use std::{fmt, str::FromStr};

use super::{BadValue, nearest, quoted};

/// An error of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(&'static Entry);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Entry {
    name: &'static str,
    number: i32,
}

macro_rules! errnos {
    ($($name:ident)*) => { &[$(Entry { name: stringify!($name), number: libc::$name }),*] };
}

/// All that errno(3) names and Linux has, each once: EWOULDBLOCK is EAGAIN, ENOTSUP is EOPNOTSUPP.
const ALL: &[Entry] = errnos![
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
    ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG
    EREMOTE ENOLINK ECOMM EPROTO EMULTIHOP EBADMSG EOVERFLOW ENOTUNIQ EREMCHG EILSEQ ERESTART EUSERS ENOTSOCK
    EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT
    EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN
    EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD
    ENOTRECOVERABLE ERFKILL EHWPOISON
];

impl Errno {
    /// Nobody listens there.
    pub const CONNECTION_REFUSED: Self = Self(&Entry { name: "ECONNREFUSED", number: libc::ECONNREFUSED });

    /// The one with this number on this machine.
    pub fn numbered(number: u32) -> Option<Self> {
        ALL.iter().find(|entry| entry.number as u32 == number).map(Self)
    }

    /// As errno(3) writes it.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// As the kernel counts them on this machine.
    pub const fn number(self) -> u32 {
        self.0.number as u32
    }
}

impl FromStr for Errno {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let name = text.trim();
        let found = ALL.iter().find(|entry| entry.name == name).map(Self);
        found
            .ok_or_else(|| BadValue::new(format!("{} is not the name of an error", quoted(text)), near(name)))
    }
}

/// Advice for what is no name. All names begin with E and are upper case, which would be likeness and difference
/// enough to mislead [`nearest`].
fn near(text: &str) -> String {
    let text = text.to_lowercase();
    let wanted = text.strip_prefix('e').unwrap_or(&text);
    let tails: Vec<String> = ALL.iter().map(|entry| entry.name[1..].to_lowercase()).collect();
    match nearest(wanted, tails.iter().map(String::as_str)) {
        Some(tail) => format!("did you mean `E{}`?", tail.to_uppercase()),
        None => "write one of errno(3), such as `ECONNREFUSED`".into(),
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_there_once() {
        for (i, entry) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.name != entry.name && other.number != entry.number));
            assert!((1..4096).contains(&entry.number), "{}", entry.name);
            let errno = entry.name.parse::<Errno>().unwrap();
            assert_eq!(errno.number(), entry.number as u32);
            assert_eq!(Errno::numbered(errno.number()), Some(errno));
        }
        assert_eq!("ECONNREFUSED".parse::<Errno>().unwrap().to_string(), "ECONNREFUSED");
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, part) in [
            ("econnrefused", "did you mean `ECONNREFUSED`?"),
            ("ECONREFUSED", "did you mean `ECONNREFUSED`?"),
            ("TIMEDOUT", "did you mean `ETIMEDOUT`?"),
            ("111", "such as `ECONNREFUSED`"),
            ("", "such as `ECONNREFUSED`"),
        ] {
            let error = text.parse::<Errno>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
