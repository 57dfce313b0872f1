//! The acts that each mechanism is shown by.

use super::{
    act::{
        Act,
        Effect::{self, *},
        Make,
    },
    prepare::*,
    stage::{MAPPED_BYTES, READY, Stage, address, text},
};

/// One call with its arguments.
pub const fn act(
    label: &'static str,
    error: &'static str,
    prepare: fn(&mut Stage) -> std::io::Result<()>,
    arguments: fn(&Stage, usize) -> [i64; 6],
    effect: Effect,
) -> Act {
    Act { label, error, prepare, make: Make::Call(arguments), effect, comes_first: false }
}

const fn making(label: &'static str, arguments: fn(&Stage, usize) -> [i64; 6]) -> Act {
    Act { comes_first: true, ..act(label, "ENOSPC", nothing, arguments, Makes) }
}

/// So many arguments, and zeros.
pub fn a<const N: usize>(given: [i64; N]) -> [i64; 6] {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&given);
    all
}

/// The working directory, where paths begin.
pub const HERE: i64 = libc::AT_FDCWD as i64;
const WRITABLE: i64 = (libc::PROT_READ | libc::PROT_WRITE) as i64;
const NEW: i64 = (libc::O_CREAT | libc::O_WRONLY) as i64;
const ADDRESS_BYTES: i64 = size_of::<libc::sockaddr_un>() as i64;
const SOCKET: i64 = libc::SOL_SOCKET as i64;
const PRIVATE: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;

/// All of them.
pub const ACTS: &[Act] = &[
    act("openat", "EIO", files, |s, n| a([HERE, s.path(n)]), Opens(1)),
    act("open", "EIO", files, |s, n| a([s.path(n)]), Opens(1)),
    act("openat2", "EMFILE", files, |s, n| a([HERE, s.path(n), address(&s.how), 24]), Opens(1)),
    making("creat", |s, n| a([s.other(n), 0o600])),
    making("openat new", |s, n| a([HERE, s.other(n), NEW, 0o600])),
    act("openat overlayfs", "EIO", overlaid, |s, n| a([HERE, s.path(n)]), Opens(1)),
    act("read", "EIO", open_files, |s, n| a([s.fd(n), s.output(n), 8]), Fills),
    act("read overlayfs", "EIO", open_overlaid, |s, n| a([s.fd(n), s.output(n), 8]), Fills),
    act("read socket", "ECONNRESET", sent_pairs, |s, n| a([s.fd(n), s.output(n), 8]), Fills),
    act("pread64", "EIO", open_files, |s, n| a([s.fd(n), s.output(n), 8, 4]), Fills),
    act("readv", "EIO", open_files, |s, n| a([s.fd(n), address(&s.vectors[READY + n % READY]), 1]), Fills),
    act("write", "ENOSPC", open_files, |s, n| a([s.fd(n), text(c"XXXX"), 4]), Changes),
    act("write socket", "EPIPE", pairs, |s, n| a([s.fd(n), text(c"XXXX"), 4]), Sends),
    act("pwrite64", "EIO", open_files, |s, n| a([s.fd(n), text(c"XXXX"), 4, 8]), Changes),
    act("writev", "EDQUOT", open_files, |s, n| a([s.fd(n), address(&s.vectors[n % READY]), 1]), Changes),
    act("sendfile", "EIO", ends_of_files, |s, n| a([s.fd(n), s.end(n), 0, 4]), Changes),
    act("fsync", "EIO", open_files, |s, n| a([s.fd(n)]), Answers),
    act("fdatasync", "ENOSPC", open_files, |s, n| a([s.fd(n)]), Answers),
    act("close", "EIO", open_files, |s, n| a([s.fd(n)]), Closes),
    act("ftruncate", "EIO", open_files, |s, n| a([s.fd(n), 4]), Changes),
    act("truncate", "EROFS", files, |s, n| a([s.path(n), 4]), Changes),
    act("fallocate", "ENOSPC", open_files, |s, n| a([s.fd(n), 0, 0, 64]), Changes),
    act("unlink", "EBUSY", files, |s, n| a([s.path(n)]), Removes),
    act("unlinkat", "EROFS", files, |s, n| a([HERE, s.path(n), 0]), Removes),
    act("unlinkat folder", "EROFS", folders, |s, n| a([HERE, s.path(n), libc::AT_REMOVEDIR.into()]), Removes),
    act("rename", "EXDEV", files, |s, n| a([s.path(n), s.other(n)]), Makes),
    act("renameat2", "EROFS", files, |s, n| a([HERE, s.path(n), HERE, s.other(n), 0]), Removes),
    act("mkdir", "ENOSPC", nothing, |s, n| a([s.other(n), 0o700]), Makes),
    act("mkdirat", "EDQUOT", nothing, |s, n| a([HERE, s.other(n), 0o700]), Makes),
    act("rmdir", "EBUSY", folders, |s, n| a([s.path(n)]), Removes),
    act("link", "EMLINK", files, |s, n| a([s.path(n), s.other(n)]), Makes),
    act("symlink", "ENOSPC", nothing, |s, n| a([text(c"target"), s.other(n)]), Makes),
    act("readlink", "EIO", links, |s, n| a([s.path(n), s.output(n), 64]), Fills),
    act("chmod", "EROFS", files, |s, n| a([s.path(n), 0o640]), Mode),
    act("fchmodat", "EPERM", files, |s, n| a([HERE, s.path(n), 0o640]), Mode),
    act("chown", "EDQUOT", files, |s, n| a([s.path(n), 1, 1]), Owner),
    act("stat", "EIO", files, |s, n| a([s.path(n), s.output(n)]), Fills),
    act("newfstatat", "EIO", files, |s, n| a([HERE, s.path(n), s.output(n), 0]), Fills),
    act("statx", "ENOMEM", files, |s, n| a([HERE, s.path(n), 0, 0xfff, s.output(n)]), Fills),
    act("getdents64", "EIO", open_folders, |s, n| a([s.fd(n), s.output(n), 1024]), Fills),
    act("ioctl", "ENOTTY", open_files, |s, n| a([s.fd(n), libc::FIONREAD as i64, s.output(n)]), Fills),
    act("fcntl", "EMFILE", open_files, |s, n| a([s.fd(n), libc::F_DUPFD.into(), 0]), Opens(1)),
    act("flock", "ENOLCK", open_files, |s, n| a([s.fd(n), libc::LOCK_EX.into()]), Locks),
    act("mmap", "ENOMEM", nothing, |_, _| a([0, MAPPED_BYTES as i64, WRITABLE, PRIVATE, -1, 0]), Maps),
    act("mprotect", "ENOMEM", mapped, |s, n| a([s.memory[n] as i64, MAPPED_BYTES as i64, 1]), Protects),
    act(
        "mremap",
        "ENOMEM",
        mapped,
        |s, n| a([s.memory[n] as i64, MAPPED_BYTES as i64, 2 * MAPPED_BYTES as i64, 1]),
        Maps,
    ),
    act("clone", "EAGAIN", nothing, |_, _| a([libc::SIGCHLD.into()]), Answers),
    act("execve", "EIO", nothing, |s, _| a([text(c"/bin/true"), address(&s.arguments), 0]), Answers),
    // SAFETY: getppid takes nothing.
    act("kill", "EPERM", nothing, |_, _| a([unsafe { libc::getppid() }.into(), 0]), Answers),
    act("socket", "EMFILE", nothing, |_, _| a([libc::AF_UNIX.into(), 1, 0]), Opens(1)),
    act(
        "connect",
        "ECONNREFUSED",
        sockets_and_listeners,
        |s, n| a([s.fd(n), address(&s.addresses[n]), ADDRESS_BYTES]),
        Connects,
    ),
    act("bind", "EADDRINUSE", sockets, |s, n| a([s.fd(n), address(&s.addresses[n]), ADDRESS_BYTES]), Makes),
    act("listen", "EADDRINUSE", bound, |s, n| a([s.fd(n), 1]), Listens),
    act("accept4", "EMFILE", callers, |s, n| a([s.fd(n), 0, 0, 0]), Opens(1)),
    act("sendto", "ECONNRESET", pairs, |s, n| a([s.fd(n), text(c"XXXX"), 4, 0, 0, 0]), Sends),
    act("recvfrom", "ECONNRESET", sent_pairs, |s, n| a([s.fd(n), s.output(n), 8, 0, 0, 0]), Fills),
    act("shutdown", "ENOTCONN", pairs, |s, n| a([s.fd(n), libc::SHUT_WR.into()]), Ends),
    act(
        "setsockopt",
        "ENOPROTOOPT",
        sockets,
        |s, n| a([s.fd(n), SOCKET, libc::SO_PASSCRED.into(), address(&s.numbers), 4]),
        Sets,
    ),
    act("getsockopt", "ENOPROTOOPT", sockets, socket_type, Fills),
    act("pipe2", "EMFILE", nothing, |s, n| a([s.output(n), 0]), Opens(2)),
    act("eventfd2", "ENFILE", nothing, |_, _| a([0, 0]), Opens(1)),
    act("epoll_create1", "EMFILE", nothing, |_, _| a([0]), Opens(1)),
    act("memfd_create", "ENOMEM", nothing, |_, _| a([text(c"kct"), 0]), Opens(1)),
    act("dup", "EMFILE", open_files, |s, n| a([s.fd(n)]), Opens(1)),
    act("epoll_wait", "EINTR", epolls, |s, n| a([s.fd(n), s.output(n), 1, 0]), Answers),
    act("poll", "ENOMEM", nothing, |_, _| a([0, 0, 0]), Answers),
    act("futex", "EAGAIN", nothing, |s, n| a([s.output(n), libc::FUTEX_WAKE.into(), 1]), Answers),
    act("nanosleep", "EINTR", nothing, |s, _| a([address(&s.time), 0]), Answers),
    act("getpriority", "ESRCH", nothing, |_, _| a([0, 0]), Answers),
    act("setpriority", "EACCES", nothing, |_, _| a([0, 0, 1]), Answers),
    act("prlimit64", "EPERM", nothing, |s, _| a([0, libc::RLIMIT_CORE.into(), address(&s.limit), 0]), Limits),
    act("shmget", "ENOSPC", nothing, |_, _| a([0, 4096, 0o600]), Answers),
    act("msgget", "ENOSPC", nothing, |_, _| a([0, 0o600]), Answers),
    act("semget", "ENOSPC", nothing, |_, _| a([0, 1, 0o600]), Answers),
];

/// The length that it takes lies behind what it writes, and is not 0.
fn socket_type(s: &Stage, n: usize) -> [i64; 6] {
    a([s.fd(n), SOCKET, libc::SO_TYPE.into(), s.output(n), address(&s.lengths[n % READY])])
}
