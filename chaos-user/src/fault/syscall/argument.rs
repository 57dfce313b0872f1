//! Which arguments of a call are a path and a descriptor (section 2 of the man-pages), and what io_uring has of it.

use super::{Class, Syscall, name::listed};

/// Arguments, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// A path.
    pub path: Option<u32>,
    /// The descriptor that the call is about, or the directory that its path begins at.
    pub fd: Option<u32>,
}

/// Take no descriptor, though they make or name one.
const WITHOUT_FD: &str = "bpf close_range creat epoll_create epoll_create1 eventfd eventfd2 fanotify_init fsopen getcwd \
    inotify_init inotify_init1 io_uring_setup landlock_create_ruleset memfd_create memfd_secret mq_open open \
    perf_event_open pidfd_open pipe pipe2 poll ppoll pselect6 quotactl select socket socketpair timerfd_create \
    userfaultfd";
/// Name a file by a path alone, as their first argument.
const PATH_FIRST: &str = "access acct chdir chmod chown chroot creat execve getxattr lchown lgetxattr link listxattr \
    llistxattr lremovexattr lsetxattr lstat mkdir mknod open pivot_root readlink removexattr rename rmdir setxattr \
    stat statfs swapoff swapon truncate umount2 unlink utime utimes";
/// As their second.
const PATH_SECOND: &str = "mount quotactl symlink";
/// A directory, and a path that begins there.
const AT: &str = "execveat faccessat faccessat2 fanotify_mark fchmodat fchmodat2 fchownat file_getattr file_setattr fspick \
    futimesat getxattrat linkat listxattrat mkdirat mknodat mount_setattr move_mount name_to_handle_at newfstatat \
    open_tree open_tree_attr openat openat2 readlinkat removexattrat renameat renameat2 setxattrat statx unlinkat \
    utimensat";

impl Arguments {
    /// Of a call.
    pub fn of(call: Syscall) -> Self {
        let name = call.name();
        let at = |path, fd| Self { path, fd };
        match name {
            "symlinkat" => return at(Some(3), Some(2)),
            "inotify_add_watch" => return at(Some(2), None),
            "mmap" => return at(None, Some(5)),
            "open_by_handle_at" => return at(None, Some(1)),
            _ => {}
        }
        if listed(PATH_FIRST, name) {
            at(Some(1), None)
        } else if listed(PATH_SECOND, name) {
            at(Some(2), None)
        } else if listed(AT, name) {
            at(Some(2), Some(1))
        } else if (Class::Desc.has(call) || Class::Network.has(call)) && !listed(WITHOUT_FD, name) {
            at(None, Some(1))
        } else {
            at(None, None)
        }
    }

    /// Whether there is a path to compare: the one it names, or its descriptor's.
    pub const fn has_path(self) -> bool {
        self.path.is_some() || self.fd.is_some()
    }

    /// Whether there is a descriptor that the call is about.
    pub const fn has_descriptor(self) -> bool {
        self.fd.is_some() && self.path.is_none()
    }
}

/// Calls that a request of io_uring stands for as well (io_uring/opdef.c, 6.12 and 7.3).
const URING: &str = "accept accept4 bind close connect epoll_ctl epoll_wait fadvise64 fallocate fgetxattr fsetxattr fsync \
    fdatasync ftruncate futex getxattr link linkat listen madvise mkdir mkdirat openat openat2 pipe2 poll pread64 preadv \
    preadv2 pwrite64 pwritev pwritev2 read readv recvfrom recvmsg rename renameat renameat2 sendmsg sendto setxattr \
    shutdown socket splice statx symlink symlinkat sync_file_range tee unlink unlinkat waitid write writev";
/// Of these, those that write to a file.
const URING_WRITES: &str = "fallocate pwrite64 pwritev pwritev2 write writev";

/// What io_uring has of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uring {
    /// Nothing.
    None,
    /// A request that writes to a file.
    Writes,
    /// Another request.
    Other,
}

impl Uring {
    /// Of a call.
    pub fn of(call: Syscall) -> Self {
        match (listed(URING_WRITES, call.name()), listed(URING, call.name())) {
            (true, _) => Self::Writes,
            (_, true) => Self::Other,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> (Option<u32>, Option<u32>) {
        let Arguments { path, fd } = Arguments::of(name.parse().unwrap());
        (path, fd)
    }

    #[test]
    fn the_lists_name_calls_each_once() {
        let words: Vec<&str> = [WITHOUT_FD, PATH_FIRST, PATH_SECOND, AT]
            .iter()
            .flat_map(|list| list.split_whitespace())
            .collect();
        for name in words.iter().copied().chain(URING.split_whitespace()) {
            assert!(Syscall::named(name).is_some(), "{name}");
        }
        assert!(URING_WRITES.split_whitespace().all(|name| listed(URING, name)));
        let paths =
            [PATH_FIRST, PATH_SECOND, AT].map(|list| list.split_whitespace().collect::<Vec<_>>()).concat();
        assert!(paths.iter().all(|name| paths.iter().filter(|other| *other == name).count() < 3));
    }

    #[test]
    fn arguments_are_where_the_manual_has_them() {
        for (call, expected) in [
            ("open", (Some(1), None)),
            ("openat", (Some(2), Some(1))),
            ("symlinkat", (Some(3), Some(2))),
            ("symlink", (Some(2), None)),
            ("fsync", (None, Some(1))),
            ("mmap", (None, Some(5))),
            ("sendto", (None, Some(1))),
            ("pipe2", (None, None)),
            ("brk", (None, None)),
        ] {
            assert_eq!(of(call), expected, "{call}");
        }
    }

    #[test]
    fn every_call_that_names_a_file_has_its_path() {
        let exceptions = "getcwd fsconfig";
        for call in Class::File.members().filter(|call| !listed(exceptions, call.name())) {
            assert!(Arguments::of(call).path.is_some(), "{call}");
        }
    }

    #[test]
    fn rings_have_some_of_it() {
        let uring = |name: &str| Uring::of(name.parse().unwrap());
        assert_eq!(
            [uring("write"), uring("openat"), uring("brk")],
            [Uring::Writes, Uring::Other, Uring::None]
        );
    }
}
