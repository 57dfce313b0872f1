//! What each system call fails with in real life, most telling first.
//!
//! Each row cites the page whose section ERRORS lists its errors (man-pages 6.03, section 2 if not said otherwise).
//! What such a section leaves out, Linux gives all the same: `openat` returns the EIO with which a directory could not
//! be read, and `read` the ECONNRESET of its socket. Those come from POSIX.1-2024 and from ip(7) and tcp(7).

use super::Syscall;
use crate::fault::refuse::SocketCall;

/// What the calls of one page fail with.
struct Row {
    calls: &'static [&'static str],
    /// Where that stands.
    page: &'static str,
    own: &'static [&'static str],
    shared: &'static [&'static str],
}

/// Rows: calls, the page, what they share with others, and what is their own.
macro_rules! rows {
    ($($($call:ident)+ => $page:literal [$($shared:ident)*] $($own:ident)*;)+) => {
        &[$(Row {
            calls: &[$(stringify!($call)),+],
            page: $page,
            own: &[$(stringify!($own)),*],
            shared: &[$($shared),*],
        }),+]
    };
}

/// Walking a path (path_resolution(7)). EIO and ENOMEM are a directory's that had to be read (`lookup_slow`,
/// fs/namei.c, hands on what the filesystem's lookup says; 6.12).
const PATH: &str = "ENOENT EACCES EIO ENOMEM ENOTDIR ELOOP ENAMETOOLONG EFAULT";
/// Beginning at a descriptor, with flags (the calls with `at`).
const AT: &str = "EBADF EINVAL";
/// A new entry in a directory.
const ENTRY: &str = "ENOSPC EDQUOT EROFS EPERM EEXIST";
/// A new descriptor.
const NEW_FD: &str = "EMFILE ENFILE ENOMEM";
/// What a file's medium says (read(2), write(2), fsync(2)).
const MEDIUM: &str = "EIO EBADF EINVAL EINTR";
/// What has become of a socket's connection: POSIX.1-2024 `read`, `write`, `recv` and `send`; ip(7), tcp(7).
const CONNECTION: &str = "ECONNRESET ETIMEDOUT EHOSTUNREACH ENETUNREACH ENETDOWN ENOTCONN ENOBUFS ENOMEM";
/// Space that a write may need.
const SPACE: &str = "ENOSPC EDQUOT EFBIG";
/// Another process.
const OTHER: &str = "ESRCH EPERM EINVAL";

const FILES: &[Row] = rows! {
    open openat creat => "open(2)" [PATH AT] ENOSPC EDQUOT EMFILE ENFILE EROFS EBUSY EEXIST EFBIG EINTR EISDIR
        ENODEV ENXIO EOPNOTSUPP EOVERFLOW EPERM ETXTBSY EAGAIN;
    openat2 => "openat2(2)" [PATH AT] ENOSPC EDQUOT EMFILE ENFILE EROFS EBUSY EEXIST EFBIG EINTR EISDIR ENODEV ENXIO
        EOPNOTSUPP EOVERFLOW EPERM ETXTBSY EAGAIN E2BIG EXDEV;
    open_by_handle_at => "open_by_handle_at(2)" [NEW_FD AT] ESTALE EPERM ELOOP EROFS EFAULT EIO EACCES;
    name_to_handle_at => "open_by_handle_at(2)" [PATH AT] EOPNOTSUPP EOVERFLOW;
    close => "close(2)" [] EIO ENOSPC EDQUOT EINTR EBADF;
    close_range => "close_range(2)" [NEW_FD] EINVAL;
    read pread64 readv preadv preadv2 => "read(2), readv(2), lseek(2)" [MEDIUM CONNECTION] EAGAIN EISDIR EFAULT
        EOVERFLOW ENXIO ESPIPE EOPNOTSUPP;
    write pwrite64 writev pwritev pwritev2 => "write(2), readv(2), lseek(2)" [MEDIUM SPACE CONNECTION] EAGAIN EPIPE
        EPERM EDESTADDRREQ EFAULT ENXIO ESPIPE EOPNOTSUPP;
    sendfile => "sendfile(2)" [MEDIUM SPACE CONNECTION] EAGAIN EPIPE EFAULT EOVERFLOW ESPIPE;
    splice tee vmsplice => "splice(2), tee(2), vmsplice(2)" [MEDIUM SPACE CONNECTION] EAGAIN EPIPE ESPIPE EFAULT;
    copy_file_range => "copy_file_range(2)" [MEDIUM SPACE] EISDIR ENOMEM EOPNOTSUPP EOVERFLOW EPERM ETXTBSY EXDEV;
    lseek => "lseek(2)" [] EINVAL EBADF ENXIO EOVERFLOW ESPIPE;
    getdents getdents64 => "getdents(2)" [MEDIUM] ENOENT ENOTDIR EFAULT;
    fsync fdatasync => "fsync(2)" [MEDIUM] ENOSPC EDQUOT EROFS;
    syncfs => "sync(2)" [] EIO ENOSPC EDQUOT EBADF;
    sync_file_range => "sync_file_range(2)" [] EIO ENOMEM ENOSPC ESPIPE EBADF EINVAL;
    fallocate => "fallocate(2)" [MEDIUM SPACE] ENODEV ENOSYS EOPNOTSUPP EPERM ESPIPE ETXTBSY;
    fadvise64 readahead => "posix_fadvise(2), readahead(2)" [] EINVAL EBADF ESPIPE;
    truncate => "truncate(2)" [PATH] EFBIG EINTR EINVAL EISDIR EPERM EROFS ETXTBSY;
    ftruncate => "truncate(2)" [MEDIUM] EFBIG EPERM EROFS ETXTBSY EACCES;
    stat lstat => "stat(2)" [PATH] EOVERFLOW;
    newfstatat statx => "stat(2), statx(2)" [PATH AT] EOVERFLOW;
    fstat => "stat(2)" [] EIO EBADF EOVERFLOW ENOMEM EFAULT;
    access faccessat faccessat2 => "access(2)" [PATH AT] EROFS ETXTBSY EPERM;
    statfs => "statfs(2)" [PATH] EINTR ENOSYS EOVERFLOW;
    fstatfs => "statfs(2)" [] EIO EINTR EBADF ENOMEM ENOSYS EOVERFLOW EFAULT;
    chdir fchdir => "chdir(2)" [PATH] EBADF;
    chroot => "chroot(2)" [PATH] EPERM;
    getcwd => "getcwd(2)" [] ENOENT EACCES ENOMEM ERANGE EFAULT EINVAL ENAMETOOLONG;
    readlink readlinkat => "readlink(2)" [PATH AT];
    unlink unlinkat => "unlink(2)" [PATH AT] EBUSY EISDIR EPERM EROFS ENOTEMPTY;
    rmdir => "rmdir(2)" [PATH] ENOTEMPTY EBUSY EINVAL EPERM EROFS;
    mkdir mkdirat => "mkdir(2)" [ENTRY PATH AT] EMLINK;
    mknod mknodat => "mknod(2)" [ENTRY PATH AT];
    link linkat => "link(2)" [ENTRY PATH AT] EMLINK EXDEV;
    symlink symlinkat => "symlink(2)" [ENTRY PATH AT];
    rename renameat renameat2 => "rename(2)" [ENTRY PATH AT] EXDEV EBUSY EISDIR EMLINK ENOTEMPTY;
    chmod fchmod fchmodat fchmodat2 => "chmod(2)" [PATH AT] EPERM EROFS EOPNOTSUPP;
    chown lchown fchown fchownat => "chown(2)" [PATH AT] EPERM EROFS EDQUOT;
    utime utimes futimesat utimensat => "utime(2), utimensat(2)" [PATH AT] EPERM EROFS ESRCH;
    setxattr lsetxattr fsetxattr setxattrat => "setxattr(2), stat(2)" [PATH AT] ENOSPC EDQUOT EEXIST ENODATA
        EOPNOTSUPP EPERM ERANGE EROFS;
    getxattr lgetxattr fgetxattr getxattrat => "getxattr(2), stat(2)" [PATH AT] ENODATA EOPNOTSUPP ERANGE E2BIG;
    listxattr llistxattr flistxattr listxattrat => "listxattr(2), stat(2)" [PATH AT] EOPNOTSUPP ERANGE E2BIG;
    removexattr lremovexattr fremovexattr removexattrat => "removexattr(2), stat(2)" [PATH AT] ENODATA EOPNOTSUPP
        EPERM EROFS;
    file_getattr file_setattr => "ioctl_iflags(2), stat(2)" [PATH AT] EOPNOTSUPP EPERM EROFS;
    ioctl => "ioctl(2), ioctl_tty(2)" [] ENOTTY EIO ENODEV EPERM EBADF EFAULT EINVAL;
    fcntl => "fcntl(2)" [] EAGAIN EACCES EDEADLK EINTR ENOLCK EBUSY EMFILE EPERM ENOTDIR EBADF EFAULT EINVAL;
    flock => "flock(2)" [] EAGAIN EINTR ENOLCK EBADF EINVAL;
    inotify_add_watch => "inotify_add_watch(2)" [PATH AT] ENOSPC EEXIST;
    inotify_rm_watch => "inotify_rm_watch(2)" [] EINVAL EBADF;
    fanotify_mark => "fanotify_mark(2)" [PATH AT] ENOSPC EEXIST EISDIR ENODEV ENOSYS EOPNOTSUPP EPERM EXDEV;
    acct => "acct(2)" [PATH] EISDIR ENFILE ENOSYS EPERM EROFS EUSERS;
    swapon swapoff => "swapon(2)" [PATH] EBUSY EPERM EINVAL ENFILE;
    quotactl => "quotactl(2)" [PATH] EBUSY EINVAL ENOSYS ENOTBLK EPERM ERANGE ESRCH;
    mount move_mount open_tree fspick fsconfig mount_setattr open_tree_attr => "mount(2), mount_setattr(2)" [PATH
        AT] EBUSY EMFILE ENODEV ENOSPC ENOTBLK ENXIO EPERM EROFS;
    umount2 => "umount(2)" [PATH] EBUSY EAGAIN EINVAL EPERM;
    pivot_root => "pivot_root(2), stat(2)" [PATH] EBUSY EINVAL EPERM;
};

const DESCRIPTORS: &[Row] = rows! {
    dup dup2 dup3 => "dup(2)" [] EMFILE EBADF EBUSY EINTR EINVAL;
    pipe pipe2 => "pipe(2)" [NEW_FD] EFAULT EINVAL;
    eventfd eventfd2 => "eventfd(2)" [NEW_FD] ENODEV EINVAL;
    epoll_create epoll_create1 => "epoll_create(2)" [NEW_FD] EINVAL;
    epoll_ctl => "epoll_ctl(2)" [] ENOSPC ENOMEM ENOENT EEXIST EBADF EINVAL ELOOP EPERM;
    epoll_wait epoll_pwait epoll_pwait2 => "epoll_wait(2)" [] EINTR EBADF EFAULT EINVAL;
    poll ppoll => "poll(2)" [] EINTR ENOMEM EFAULT EINVAL;
    select pselect6 => "select(2)" [] EINTR ENOMEM EBADF EINVAL;
    signalfd signalfd4 => "signalfd(2)" [NEW_FD] ENODEV EBADF EINVAL;
    timerfd_create => "timerfd_create(2)" [NEW_FD] ENODEV EINVAL EPERM;
    timerfd_settime timerfd_gettime => "timerfd_create(2)" [] ECANCELED EBADF EFAULT EINVAL;
    inotify_init inotify_init1 => "inotify_init(2)" [NEW_FD] EINVAL;
    fanotify_init => "fanotify_init(2)" [NEW_FD] EPERM ENOSYS EINVAL;
    memfd_create => "memfd_create(2)" [NEW_FD] EFAULT EINVAL;
    userfaultfd => "userfaultfd(2)" [NEW_FD] EPERM EINVAL;
    pidfd_open => "pidfd_open(2)" [NEW_FD] ESRCH ENODEV EINVAL;
    pidfd_getfd => "pidfd_getfd(2)" [NEW_FD] EBADF ESRCH EPERM EINVAL;
    perf_event_open => "perf_event_open(2)" [NEW_FD] EACCES EPERM EBUSY ENODEV ENOENT ENOSPC ENOSYS EOPNOTSUPP
        EOVERFLOW ESRCH E2BIG EBADF EFAULT EINTR EINVAL;
    bpf => "bpf(2)" [NEW_FD] EPERM EACCES ENOENT E2BIG EBADF EFAULT EINVAL;
    mq_open => "mq_open(3)" [NEW_FD] ENOSPC EACCES EEXIST ENOENT ENAMETOOLONG EINVAL;
    mq_timedsend mq_timedreceive => "mq_send(3), mq_receive(3)" [] EAGAIN ETIMEDOUT EINTR EMSGSIZE EBADF EINVAL;
    mq_unlink => "mq_unlink(3)" [] ENOENT EACCES ENAMETOOLONG;
    io_setup => "io_setup(2)" [] EAGAIN ENOMEM ENOSYS EFAULT EINVAL;
    io_submit => "io_submit(2)" [] EAGAIN ENOSYS EPERM EBADF EFAULT EINVAL;
    io_getevents => "io_getevents(2)" [] EINTR ENOSYS EFAULT EINVAL;
};

const SOCKETS: &[Row] = rows! {
    // Beside what a socket of IP may say: unix(7).
    connect => "connect(2), unix(7)" [] ENOENT ENOTDIR ELOOP ENAMETOOLONG ENOMEM;
    bind => "bind(2)" [] ELOOP ENAMETOOLONG ENOENT ENOTDIR EROFS;
    sendto sendmsg sendmmsg => "send(2), ip(7), tcp(7)" [CONNECTION];
    socket => "socket(2)" [];
    setsockopt => "setsockopt(2)" [];
    getsockopt => "getsockopt(2)" [];
    recvfrom recvmsg recvmmsg => "recv(2), recvmmsg(2)" [CONNECTION] EAGAIN EINTR ECONNREFUSED EIO EBADF EFAULT
        EINVAL ENOTSOCK EOPNOTSUPP;
    accept accept4 => "accept(2)" [NEW_FD] ECONNABORTED EAGAIN ENOBUFS EINTR EPERM EPROTO EHOSTUNREACH ENETDOWN
        ENETUNREACH ENOPROTOOPT EBADF EFAULT EINVAL ENOTSOCK EOPNOTSUPP;
    listen => "listen(2)" [] EADDRINUSE EBADF ENOTSOCK EOPNOTSUPP;
    socketpair => "socketpair(2)" [NEW_FD] EAFNOSUPPORT EFAULT EOPNOTSUPP EPROTONOSUPPORT;
    shutdown => "shutdown(2)" [] ENOTCONN EBADF EINVAL ENOTSOCK;
    getsockname => "getsockname(2)" [] ENOBUFS EBADF EFAULT EINVAL ENOTSOCK;
    getpeername => "getpeername(2)" [] ENOTCONN ENOBUFS EBADF EFAULT EINVAL ENOTSOCK;
};

const REST: &[Row] = rows! {
    mmap => "mmap(2)" [] ENOMEM EAGAIN EACCES ENFILE ENODEV EPERM ETXTBSY EBADF EEXIST EINVAL EOVERFLOW;
    munmap => "mmap(2)" [] ENOMEM EINVAL;
    brk => "brk(2)" [] ENOMEM;
    mremap => "mremap(2)" [] ENOMEM EAGAIN EFAULT EINVAL;
    mprotect pkey_mprotect => "mprotect(2)" [] ENOMEM EACCES EINVAL;
    madvise => "madvise(2)" [] ENOMEM EAGAIN EIO EACCES EBADF EBUSY EFAULT EINVAL EPERM;
    msync => "msync(2)" [] EIO ENOMEM EBUSY EINVAL;
    mlock mlock2 mlockall munlock munlockall => "mlock(2)" [] ENOMEM EAGAIN EPERM EINVAL;
    mincore => "mincore(2)" [] ENOMEM EFAULT EINVAL;
    fork vfork => "fork(2)" [] EAGAIN ENOMEM;
    clone clone3 => "clone(2)" [] EAGAIN ENOMEM ENOSPC EUSERS EPERM EACCES EBUSY EEXIST EINVAL EOPNOTSUPP;
    execve execveat => "execve(2), execveat(2)" [PATH AT] E2BIG EAGAIN EMFILE ENFILE ENOEXEC EISDIR EPERM ETXTBSY;
    wait4 waitid => "wait(2)" [] ECHILD EINTR EAGAIN EINVAL ESRCH;
    kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo => "kill(2), tkill(2), rt_sigqueueinfo(2)" [OTHER] EAGAIN;
    pidfd_send_signal => "pidfd_send_signal(2)" [OTHER] EBADF;
    rt_sigaction rt_sigprocmask => "sigaction(2), sigprocmask(2)" [] EFAULT EINVAL;
    rt_sigtimedwait rt_sigsuspend => "sigwaitinfo(2), sigsuspend(2)" [] EINTR EAGAIN EFAULT EINVAL;
    pause => "pause(2)" [] EINTR;
    ptrace => "ptrace(2)" [OTHER] EBUSY EIO EFAULT;
    setrlimit prlimit64 => "getrlimit(2)" [OTHER] EFAULT;
    setuid setreuid setresuid => "setuid(2), setresuid(2)" [] EPERM EAGAIN EINVAL;
    setgid setregid setresgid => "setgid(2), setresgid(2)" [] EPERM EAGAIN EINVAL;
    setgroups => "getgroups(2)" [] EPERM ENOMEM EFAULT EINVAL;
    capget capset => "capget(2)" [OTHER] EFAULT;
    prctl => "prctl(2)" [] EPERM EACCES EBADF EBUSY EFAULT EINVAL ENODEV ENXIO EOPNOTSUPP ERANGE;
    setpgid getpgid getsid => "setpgid(2), getsid(2)" [OTHER] EACCES;
    setpriority getpriority => "getpriority(2)" [OTHER] EACCES;
    sched_setscheduler sched_setparam sched_setaffinity sched_setattr => "sched_setscheduler(2), sched_setattr(2)"
        [OTHER] EBUSY E2BIG EFAULT;
    sched_getscheduler sched_getparam sched_getaffinity sched_getattr => "sched_setscheduler(2), sched_setattr(2)"
        [OTHER] E2BIG EFAULT;
    unshare => "unshare(2)" [] EPERM ENOMEM ENOSPC EUSERS EINVAL;
    setns => "setns(2)" [] EPERM ENOMEM EBADF EINVAL ESRCH;
    futex => "futex(2)" [] ETIMEDOUT EAGAIN EINTR ENOMEM EACCES EDEADLK EFAULT EINVAL ENFILE ENOSYS EPERM ESRCH;
    nanosleep clock_nanosleep => "nanosleep(2), clock_nanosleep(2)" [] EINTR EFAULT EINVAL EOPNOTSUPP;
    clock_gettime clock_getres clock_settime => "clock_getres(2)" [] EINVAL EPERM EACCES EFAULT ENODEV EOPNOTSUPP;
    gettimeofday settimeofday => "gettimeofday(2)" [] EPERM EFAULT EINVAL;
    timer_create => "timer_create(2)" [] EAGAIN ENOMEM EINVAL EOPNOTSUPP EPERM;
    getrandom => "getrandom(2)" [] EAGAIN EINTR ENOSYS EFAULT EINVAL;
    shmget => "shmget(2)" [] ENOSPC ENOMEM EACCES EEXIST EINVAL ENFILE ENOENT EPERM;
    shmat shmdt => "shmop(2)" [] ENOMEM EACCES EIDRM EINVAL;
    shmctl => "shmctl(2)" [] EACCES EIDRM EINVAL ENOMEM EOVERFLOW EPERM EFAULT;
    msgget => "msgget(2)" [] ENOSPC ENOMEM EACCES EEXIST ENOENT;
    msgsnd => "msgop(2)" [] EAGAIN EINTR ENOMEM EACCES EIDRM EFAULT EINVAL;
    msgrcv => "msgop(2)" [] ENOMSG EINTR E2BIG EACCES EIDRM EFAULT EINVAL ENOSYS;
    msgctl => "msgctl(2)" [] EACCES EIDRM EINVAL EPERM EFAULT;
    semget => "semget(2)" [] ENOSPC ENOMEM EACCES EEXIST EINVAL ENOENT;
    semop semtimedop => "semop(2)" [] EAGAIN EINTR ENOMEM E2BIG EACCES EFBIG EIDRM ERANGE EFAULT EINVAL;
    semctl => "semctl(2)" [] EACCES EIDRM EINVAL ENOMEM EPERM ERANGE EFAULT;
};

fn rows() -> impl Iterator<Item = &'static Row> {
    [FILES, DESCRIPTORS, SOCKETS, REST].into_iter().flatten()
}

fn row(call: Syscall) -> Option<&'static Row> {
    rows().find(|row| row.calls.contains(&call.name()))
}

/// Where it stands what a call fails with.
pub fn page(call: Syscall) -> Option<&'static str> {
    row(call).map(|row| row.page)
}

/// What a call fails with, each once and most telling first; nothing if no page was read for it.
pub fn errors(call: Syscall) -> Option<Vec<&'static str>> {
    let row = row(call)?;
    let ip = of_ip(call).map_or(&[][..], SocketCall::plausible).iter().copied();
    let mut errors = Vec::new();
    let shared = row.shared.iter().flat_map(|list| list.split_whitespace());
    for error in ip.chain(row.own.iter().copied()).chain(shared) {
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    Some(errors)
}

/// The call on a socket of IP that this one makes. What that fails with is said once, for `refuse`.
pub fn of_ip(call: Syscall) -> Option<SocketCall> {
    match call.name() {
        "sendto" | "sendmsg" | "sendmmsg" => Some(SocketCall::Sendmsg),
        name => SocketCall::ALL.into_iter().find(|call| call.name() == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fault::syscall::Class, units::Errno};

    #[test]
    fn every_call_is_there_once_with_a_page_and_errors_that_exist() {
        let mut calls: Vec<&str> = rows().flat_map(|row| row.calls.iter().copied()).collect();
        let all = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), all);
        for name in calls {
            let call = name.parse().unwrap();
            let errors = errors(call).unwrap();
            assert!(!errors.is_empty(), "{name}");
            for error in errors {
                assert_eq!(error.parse::<Errno>().map(|errno| errno.name()), Ok(error), "{name}");
            }
        }
        assert_eq!(page("fsync".parse().unwrap()), Some("fsync(2)"));
    }

    #[test]
    fn no_row_says_twice_what_it_shares() {
        for row in rows() {
            let shared: Vec<&str> = row.shared.iter().flat_map(|list| list.split_whitespace()).collect();
            for (i, error) in row.own.iter().enumerate() {
                assert!(!row.own[..i].contains(error) && !shared.contains(error), "{:?}: {error}", row.calls);
            }
        }
    }

    #[test]
    fn classes_that_are_asked_for_as_a_whole_are_known() {
        for class in [Class::File, Class::Network, Class::Ipc] {
            let unknown: Vec<_> = class.members().filter(|call| errors(*call).is_none()).collect();
            assert!(unknown.is_empty(), "{class}: {unknown:?}");
        }
    }

    #[test]
    fn sockets_fail_as_refuse_has_it_and_as_others_do() {
        let connect = errors("connect".parse().unwrap()).unwrap();
        assert_eq!(connect.first(), SocketCall::Connect.plausible().first());
        assert!(connect.contains(&"ENOENT"), "unix(7)");
    }
}
