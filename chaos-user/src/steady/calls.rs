//! What kind of work each system call does, by name. A call that is in no list is `other`.

use chaos_common::steady::{CALL_NUMBERS, CLASSES, CallClasses, class};

use crate::fault::syscall::{Arch, Syscall};

/// Names of the classes, by number, as users read them.
pub const NAMES: [&str; CLASSES] = [
    "file_read",
    "file_write",
    "fsync",
    "open_stat",
    "net_send",
    "net_recv",
    "mem",
    "proc",
    "other",
    "waiting",
];

/// The calls of each class but `other`. `read`, `write` and their like are counted as sending, receiving or waiting where
/// their descriptor is no file: the kernel half sees to that.
const LISTS: &[(u32, &str)] = &[
    (class::FILE_READ, "read pread64 readv preadv preadv2 getdents getdents64"),
    (
        class::FILE_WRITE,
        "write pwrite64 writev pwritev pwritev2 copy_file_range fallocate truncate ftruncate",
    ),
    (class::FSYNC, "fsync fdatasync sync syncfs sync_file_range msync"),
    (
        class::OPEN_STAT,
        "open openat openat2 creat stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 \
         readlink readlinkat rename renameat renameat2 unlink unlinkat link linkat symlink symlinkat mkdir mkdirat rmdir \
         mknod mknodat chmod fchmodat chown lchown fchownat",
    ),
    (class::NET_SEND, "sendto sendmsg sendmmsg sendfile"),
    (class::NET_RECV, "recvfrom recvmsg recvmmsg"),
    (
        class::MEM,
        "brk mmap munmap mremap mprotect pkey_mprotect madvise process_madvise mincore mlock mlock2 munlock mlockall \
         munlockall mbind",
    ),
    (
        class::PROC,
        "clone clone3 fork vfork execve execveat exit exit_group kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo \
         pidfd_send_signal",
    ),
    (
        class::WAITING,
        "epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 futex futex_wait futex_waitv nanosleep \
         clock_nanosleep accept accept4 connect wait4 waitid pause rt_sigsuspend rt_sigtimedwait io_getevents \
         io_pgetevents io_uring_enter msgrcv semop semtimedop mq_timedreceive flock restart_syscall",
    ),
];

/// The class of each call by its number here.
pub fn classes() -> CallClasses {
    let mut classes = CallClasses::NONE;
    for (class, call) in listed() {
        if let Some(number) = call.number(Arch::HERE).filter(|number| (*number as usize) < CALL_NUMBERS) {
            classes.of[number as usize] = class as u8;
        }
    }
    classes
}

fn listed() -> impl Iterator<Item = (u32, Syscall)> {
    LISTS.iter().flat_map(|(class, names)| {
        names.split_whitespace().filter_map(|name| Some((*class, Syscall::named(name)?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_call_exists_and_is_listed_once() {
        let names: Vec<&str> = LISTS.iter().flat_map(|(_, names)| names.split_whitespace()).collect();
        for (number, name) in names.iter().enumerate() {
            assert!(Syscall::named(name).is_some(), "{name}");
            assert!(!names[..number].contains(name), "{name} is listed twice");
        }
    }

    #[test]
    fn calls_are_found_by_number() {
        let classes = classes();
        let of = |name| {
            let number = Syscall::named(name).and_then(|call| call.number(Arch::HERE)).unwrap();
            NAMES[usize::from(classes.of[number as usize])]
        };
        let names = ["fdatasync", "openat", "read", "ppoll", "recvmsg", "execve", "getpid", "brk", "sendmsg"];
        assert_eq!(
            names.map(of),
            ["fsync", "open_stat", "file_read", "waiting", "net_recv", "proc", "other", "mem", "net_send"]
        );
    }
}
