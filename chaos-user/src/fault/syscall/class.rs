//! Classes of system calls, as strace(1) has them.
//!
//! The lists are those that strace 6.1 traces on x86_64 for `-e trace=%CLASS`, read off the seccomp filter it installs
//! (`--seccomp-bpf`), without calls that nothing implements. Calls that are newer (from 451 on) are where strace has the
//! calls they extend: `setxattrat` with `setxattr`. One is added: `close_range` takes descriptors, and is `%desc` here.

use std::{fmt, str::FromStr};

use super::name::{Syscall, listed};
use crate::units::{BadValue, did_you_mean, quoted};

/// A class of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Calls that take the name of a file, or give one.
    File,
    /// Calls that are about sockets.
    Network,
    /// Calls that take a descriptor or make one. strace counts calls on sockets under `%network` alone.
    Desc,
    /// Calls that are about mappings and where memory lies.
    Memory,
    /// Calls that begin and end processes, wait for them and signal them.
    Process,
    /// Calls that are System V's: message queues, semaphores, shared memory.
    Ipc,
    /// Calls that send, block and await signals.
    Signal,
}

/// Names of strace for the same, from before it had the ones above.
const ALIASES: &[(&str, Class)] = &[("net", Class::Network)];

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::File, Self::Network, Self::Desc, Self::Memory, Self::Process, Self::Ipc, Self::Signal];

    /// As users write it, after `%`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Network => "network",
            Self::Desc => "desc",
            Self::Memory => "memory",
            Self::Process => "process",
            Self::Ipc => "ipc",
            Self::Signal => "signal",
        }
    }

    const fn list(self) -> &'static str {
        match self {
            Self::File => FILE,
            Self::Network => NETWORK,
            Self::Desc => DESC,
            Self::Memory => MEMORY,
            Self::Process => PROCESS,
            Self::Ipc => IPC,
            Self::Signal => SIGNAL,
        }
    }

    /// Its calls, of both architectures.
    pub fn members(self) -> impl Iterator<Item = Syscall> {
        self.list().split_whitespace().filter_map(Syscall::named)
    }

    /// Whether a call is of this class.
    pub fn has(self, call: Syscall) -> bool {
        listed(self.list(), call.name())
    }
}

impl FromStr for Class {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let name = text.trim().trim_start_matches('%');
        let alias = || ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, class)| *class);
        Self::ALL.into_iter().find(|class| class.name() == name).or_else(alias).ok_or_else(|| {
            let known: Vec<String> = Self::ALL.iter().map(ToString::to_string).collect();
            let right = did_you_mean(&format!("%{name}"), known.iter().map(String::as_str));
            BadValue::new(format!("{} is not a class of system calls", quoted(text)), right)
        })
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.name())
    }
}

const FILE: &str = "\
    access acct chdir chmod chown chroot creat execve execveat faccessat faccessat2 fanotify_mark fchmodat \
    fchmodat2 fchownat file_getattr file_setattr fsconfig fspick futimesat getcwd getxattr getxattrat \
    inotify_add_watch lchown lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lsetxattr \
    lstat mkdir mkdirat mknod mknodat mount mount_setattr move_mount name_to_handle_at newfstatat open \
    open_tree open_tree_attr openat openat2 pivot_root quotactl readlink readlinkat removexattr \
    removexattrat rename renameat renameat2 rmdir setxattr setxattrat stat statfs statx swapoff swapon \
    symlink symlinkat truncate umount2 unlink unlinkat utime utimensat utimes";

const NETWORK: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg \
    sendfile sendmmsg sendmsg sendto setsockopt shutdown socket socketpair";

const DESC: &str = "\
    bpf cachestat close close_range copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 faccessat faccessat2 fadvise64 \
    fallocate fanotify_init fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync \
    fgetxattr file_getattr file_setattr finit_module flistxattr flock fremovexattr fsconfig fsetxattr \
    fsmount fsopen fspick fstat fstatfs fsync ftruncate futimesat getdents getdents64 getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_uring_enter io_uring_register \
    io_uring_setup ioctl kexec_file_load landlock_add_rule landlock_create_ruleset landlock_restrict_self \
    linkat listxattrat lseek memfd_create memfd_secret mkdirat mknodat mmap mount_setattr move_mount \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend name_to_handle_at newfstatat open \
    open_by_handle_at open_tree open_tree_attr openat openat2 perf_event_open pidfd_getfd pidfd_open \
    pidfd_send_signal pipe pipe2 poll ppoll pread64 preadv preadv2 process_madvise process_mrelease \
    pselect6 pwrite64 pwritev pwritev2 quotactl_fd read readahead readlinkat readv removexattrat renameat \
    renameat2 select sendfile setns setxattrat signalfd signalfd4 splice statx symlinkat sync_file_range \
    syncfs tee timerfd_create timerfd_gettime timerfd_settime unlinkat userfaultfd utimensat vmsplice \
    write writev";

const MEMORY: &str = "\
    brk get_mempolicy io_destroy io_setup io_uring_register madvise map_shadow_stack mbind migrate_pages \
    mincore mlock mlock2 mlockall mmap move_pages mprotect mremap mseal msync munlock munlockall munmap \
    pkey_mprotect remap_file_pages set_mempolicy set_mempolicy_home_node shmat shmdt";

const PROCESS: &str = "\
    clone clone3 execve execveat exit exit_group fork kill pidfd_send_signal rt_sigqueueinfo \
    rt_tgsigqueueinfo tgkill tkill vfork wait4 waitid";

const IPC: &str = "\
    msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget";

const SIGNAL: &str = "\
    io_uring_enter kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4 tgkill \
    tkill";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::syscall::Arch;

    #[test]
    fn every_member_exists_and_is_there_once() {
        for class in Class::ALL {
            let names: Vec<&str> = class.list().split_whitespace().collect();
            assert!(names.is_sorted_by(|one, next| one < next), "{class}");
            for name in &names {
                assert!(Syscall::named(name).is_some_and(|call| class.has(call)), "{class}: {name}");
            }
            assert_eq!(class.members().count(), names.len());
            for arch in Arch::ALL {
                assert!(
                    class.members().filter(|call| call.number(arch).is_some()).count() > 10,
                    "{class} {arch}"
                );
            }
        }
    }

    #[test]
    fn members_are_where_strace_has_them() {
        let classes = |name| {
            let call = Syscall::named(name).unwrap();
            Class::ALL
                .into_iter()
                .filter(|class| class.has(call))
                .map(Class::name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (name, expected) in [
            ("openat", "file desc"),
            ("stat", "file"),
            ("read", "desc"),
            ("sendfile", "network desc"),
            ("connect", "network"),
            ("mmap", "desc memory"),
            ("kill", "process signal"),
            ("execve", "file process"),
            ("shmat", "memory ipc"),
            ("nanosleep", ""),
        ] {
            assert_eq!(classes(name), expected, "{name}");
        }
    }

    #[test]
    fn classes_read_back() {
        for class in Class::ALL {
            assert_eq!(class.to_string().parse(), Ok(class));
        }
        assert_eq!("%net".parse(), Ok(Class::Network));
        for (text, part) in
            [("%fil", "did you mean `%file`?"), ("%creds", "known: `%file`"), ("%", "known: `%file`")]
        {
            let error = text.parse::<Class>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
