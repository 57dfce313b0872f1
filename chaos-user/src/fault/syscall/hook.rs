//! Hooks of the kernel's security modules: which one answers for which call.
//!
//! Of the hooks that a call passes, one answers for it, so that it is judged once: read(2) of a socket passes
//! `file_permission` and `socket_recvmsg`, and the latter answers for recv(2) alone. Where a call passes one of several
//! hooks, by its arguments, they answer together.
//!
//! All names, and which prototypes fit, were compared in the BTF of Debian's 6.1, 6.12 and 7.3 and of a 6.18. When and
//! how often a hook is asked follows from where 6.12 calls it; it was not measured.

use chaos_common::syscall::point;

use super::{Syscall, name::listed};

/// A hook.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Hook {
    /// As LSM programs name it.
    pub name: &'static str,
    /// The function that runs it, if programs made for the hook fit: they take the same parameters.
    pub function: Option<&'static str>,
    /// Whether a program at the hook may sleep (`sleepable_lsm_hooks`, kernel/bpf/bpf_lsm.c, 6.12; older kernels know
    /// fewer, and say so when it is loaded). At the function none may.
    pub sleeps: bool,
    /// What a program at the hook returns to let the call go on, if that is not 0.
    pub goes_on: Option<i32>,
    /// What has happened before it is asked.
    pub after: Option<&'static str>,
    /// When one call asks it again, which then must get the first answer.
    pub again: Option<&'static str>,
    /// What its answer cannot change.
    pub only: Only,
}

/// What an error at a hook becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Only {
    /// What the call fails with.
    AnyError,
    /// What the call fails with, and only at the function: as an LSM hook it is disabled (`bpf_lsm_disabled_hooks`,
    /// kernel/bpf/bpf_lsm.c; seen on 7.3 for `file_alloc_security`).
    AtFunction,
    /// ENOMEM, whatever it is, and only at the function: as an LSM hook it does not refuse.
    Enomem,
}

/// Hooks that answer together for calls; a call passes one of them.
pub type Together = &'static [&'static str];

/// Who answers for calls.
struct Answer {
    calls: &'static [&'static str],
    /// Best first: a kernel that lacks a hook of one may have those of the next.
    hooks: &'static [Together],
    /// Which of these calls it never sees.
    misses: Option<&'static str>,
}

/// A hook about which there is nothing to say.
const fn plain(name: &'static str, function: Option<&'static str>) -> Hook {
    Hook { name, function, sleeps: false, goes_on: None, after: None, again: None, only: Only::AnyError }
}

/// A hook whose function has its name.
macro_rules! hook {
    ($name:ident $(, $field:ident: $value:expr)*) => {
        Hook { $($field: $value,)* ..plain(stringify!($name), Some(concat!("security_", stringify!($name)))) }
    };
}

/// Another one.
macro_rules! named {
    ($name:ident, $function:expr $(, $field:ident: $value:expr)*) => {
        Hook { $($field: $value,)* ..plain(stringify!($name), $function) }
    };
}

const BACKING: Option<&str> = Some("on overlayfs: for the file, and for the one of a layer behind it");
const ENDS: Option<&str> =
    Some("sendfile, splice, copy_file_range: for both ends; on overlayfs: for the layer behind");
const MESSAGES: Option<&str> =
    Some("sendmmsg: for each message, unless it names the same peer as the one before");
const CREATED: Option<&str> = Some("with O_CREAT the file exists; with O_TRUNC it is still as it was");
const LAYER: Option<&str> = Some("on overlayfs: for the entry, and for those of the layers behind it");

const HOOKS: &[Hook] = &[
    // Files. do_open (fs/namei.c): created by open_last_lookups, truncated after vfs_open.
    hook!(file_open, sleeps: true, after: CREATED, again: BACKING),
    hook!(file_permission, again: ENDS),
    hook!(file_ioctl, sleeps: true),
    hook!(file_fcntl),
    hook!(file_lock, sleeps: true),
    hook!(file_mprotect, again: Some("for each mapping in the range"), after: Some("mappings in front of it are changed")),
    hook!(file_truncate),
    named!(file_alloc_security, Some("security_file_alloc"), only: Only::AtFunction, again: Some("pipe: for both ends")),
    // security_mmap_file has a parameter less.
    named!(mmap_file, None, sleeps: true),
    named!(vm_enough_memory, Some("security_vm_enough_memory_mm"), only: Only::Enomem),
    // Paths (CONFIG_SECURITY_PATH), and what is asked behind them.
    hook!(path_unlink, sleeps: true),
    hook!(path_rmdir, sleeps: true),
    hook!(path_mkdir, sleeps: true),
    hook!(path_mknod),
    hook!(path_rename, sleeps: true, again: Some("with RENAME_EXCHANGE: either way")),
    hook!(path_link, sleeps: true),
    hook!(path_symlink, sleeps: true),
    hook!(path_truncate, sleeps: true),
    hook!(path_chmod, sleeps: true),
    hook!(path_chown, sleeps: true),
    hook!(path_chroot),
    hook!(inode_unlink, sleeps: true, again: LAYER),
    hook!(inode_rmdir, sleeps: true, again: LAYER),
    hook!(inode_mkdir, again: LAYER),
    hook!(inode_mknod, sleeps: true, again: LAYER),
    // security_inode_rename has flags too.
    named!(inode_rename, None, sleeps: true, again: LAYER),
    hook!(inode_link, again: LAYER),
    hook!(inode_symlink, sleeps: true, again: LAYER),
    // In 6.1 the hook lacks the function's first parameter; in 6.12 it has it.
    named!(inode_setattr, None, sleeps: true, again: LAYER),
    hook!(inode_getattr, sleeps: true, again: LAYER),
    hook!(inode_readlink, sleeps: true, again: LAYER),
    hook!(inode_setxattr, sleeps: true, again: LAYER),
    hook!(inode_getxattr, sleeps: true, again: LAYER),
    hook!(inode_listxattr, again: LAYER),
    hook!(inode_removexattr, again: LAYER),
    hook!(sb_statfs, sleeps: true, again: LAYER),
    hook!(sb_mount, sleeps: true),
    hook!(sb_umount, sleeps: true),
    hook!(sb_pivotroot),
    hook!(move_mount),
    // Sockets (net/socket.c).
    hook!(socket_create, sleeps: true),
    hook!(socket_socketpair, sleeps: true, after: Some("both sockets are made, and released again")),
    hook!(socket_bind, sleeps: true),
    hook!(socket_connect, sleeps: true),
    hook!(socket_listen, sleeps: true),
    hook!(socket_accept, sleeps: true),
    hook!(socket_sendmsg, sleeps: true, again: MESSAGES),
    hook!(socket_recvmsg, sleeps: true),
    hook!(socket_getsockname, sleeps: true),
    hook!(socket_getpeername, sleeps: true),
    hook!(socket_getsockopt, sleeps: true),
    hook!(socket_setsockopt),
    hook!(socket_shutdown, sleeps: true),
    // Processes.
    hook!(task_alloc, sleeps: true),
    hook!(bprm_creds_for_exec, sleeps: true),
    hook!(task_kill, again: Some("with a group or all as the target: for each process")),
    hook!(task_setrlimit),
    hook!(task_fix_setuid),
    hook!(task_fix_setgid),
    hook!(task_fix_setgroups),
    // sys_prctl (kernel/sys.c): 0 would be "done, with success", so the hook cannot be left alone with it. At the
    // function, 0 means that it runs.
    hook!(task_prctl, sleeps: true, goes_on: Some(-38)),
    hook!(ptrace_access_check),
    hook!(ptrace_traceme),
    hook!(task_setpgid),
    hook!(task_getpgid),
    hook!(task_getsid),
    hook!(task_setnice, again: Some("PRIO_PGRP and PRIO_USER: for each process")),
    hook!(task_setscheduler, sleeps: true),
    hook!(task_getscheduler),
    hook!(capget, sleeps: true),
    hook!(capset, sleeps: true),
    // System V (ipc/).
    named!(shm_alloc_security, Some("security_shm_alloc"), only: Only::AtFunction),
    hook!(shm_associate),
    hook!(shm_shmctl),
    hook!(shm_shmat),
    named!(msg_queue_alloc_security, Some("security_msg_queue_alloc"), only: Only::AtFunction),
    hook!(msg_queue_associate),
    hook!(msg_queue_msgctl),
    hook!(msg_queue_msgsnd, again: Some("after each wait for room")),
    named!(sem_alloc_security, Some("security_sem_alloc"), only: Only::AtFunction),
    hook!(sem_associate),
    hook!(sem_semctl),
    hook!(sem_semop),
];

/// Answers: the hooks, best first and those together joined by `&`, for calls; and what is missed.
macro_rules! answers {
    ($([$($($hook:ident)&+),+] $($call:ident)+ $(, misses $misses:literal)?;)+) => {
        &[$(Answer {
            calls: &[$(stringify!($call)),+],
            hooks: &[$(&[$(stringify!($hook)),+]),+],
            misses: first(&[$($misses)?]),
        }),+]
    };
}

const fn first(texts: &'static [&'static str]) -> Option<&'static str> {
    match texts {
        [] => None,
        [text, ..] => Some(text),
    }
}

const ANSWERS: &[Answer] = answers! {
    [file_open] open openat openat2 creat open_by_handle_at, misses "opening with O_PATH";
    [file_permission] read pread64 readv preadv preadv2 write pwrite64 writev pwritev pwritev2 sendfile copy_file_range
        getdents getdents64 fallocate;
    [file_permission] splice, misses "splicing from one pipe to another";
    [file_ioctl] ioctl;
    [file_fcntl] fcntl;
    [file_lock] flock;
    // do_sys_ftruncate (fs/open.c) asks file_truncate since 6.2, and asked path_truncate before.
    [file_truncate, path_truncate] ftruncate;
    [path_truncate] truncate;
    [file_mprotect] mprotect pkey_mprotect;
    [mmap_file] mmap;
    [vm_enough_memory] brk mremap, misses "calls that need no more memory";
    [file_alloc_security] pipe pipe2 eventfd eventfd2 epoll_create epoll_create1 timerfd_create inotify_init
        inotify_init1 fanotify_init memfd_create userfaultfd;
    [file_alloc_security] signalfd signalfd4, misses "changing the mask of a descriptor that exists";
    [path_unlink, inode_unlink] unlink;
    [path_unlink & path_rmdir, inode_unlink & inode_rmdir] unlinkat;
    [path_rmdir, inode_rmdir] rmdir;
    [path_mkdir, inode_mkdir] mkdir mkdirat;
    [path_mknod, inode_mknod] mknod mknodat;
    [path_rename, inode_rename] rename renameat renameat2;
    [path_link, inode_link] link linkat;
    [path_symlink, inode_symlink] symlink symlinkat;
    [path_chmod, inode_setattr] chmod fchmod fchmodat fchmodat2;
    [path_chown, inode_setattr] chown lchown fchown fchownat;
    [inode_setattr] utime utimes futimesat utimensat;
    [path_chroot] chroot;
    [inode_getattr] stat lstat fstat newfstatat statx;
    [inode_readlink] readlink readlinkat;
    [inode_setxattr] setxattr lsetxattr fsetxattr setxattrat, misses "ACLs, since Linux 6.2";
    [inode_getxattr] getxattr lgetxattr fgetxattr getxattrat, misses "ACLs, since Linux 6.2";
    [inode_listxattr] listxattr llistxattr flistxattr listxattrat;
    [inode_removexattr] removexattr lremovexattr fremovexattr removexattrat, misses "ACLs, since Linux 6.2";
    [sb_statfs] statfs fstatfs;
    [sb_mount] mount;
    [sb_umount] umount2;
    [sb_pivotroot] pivot_root;
    [move_mount] move_mount;
    [socket_create] socket;
    [socket_socketpair] socketpair;
    [socket_bind] bind;
    [socket_connect] connect;
    [socket_listen] listen;
    [socket_accept] accept accept4;
    [socket_sendmsg] sendto sendmsg sendmmsg;
    [socket_recvmsg] recvfrom recvmsg recvmmsg;
    [socket_getsockname] getsockname;
    [socket_getpeername] getpeername;
    [socket_getsockopt] getsockopt;
    [socket_setsockopt] setsockopt;
    [socket_shutdown] shutdown;
    [task_alloc] fork vfork clone clone3;
    [bprm_creds_for_exec] execve execveat;
    [task_kill] kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal;
    [task_setrlimit] setrlimit;
    [task_setrlimit] prlimit64, misses "reading a limit";
    [task_fix_setuid] setuid setreuid setresuid;
    [task_fix_setgid] setgid setregid setresgid;
    [task_fix_setgroups] setgroups;
    [task_prctl] prctl;
    [ptrace_access_check & ptrace_traceme] ptrace, misses "all but attaching, seizing and being traced";
    [task_setpgid] setpgid;
    [task_getpgid] getpgid, misses "asking for oneself";
    [task_getsid] getsid, misses "asking for oneself";
    [task_setnice] setpriority;
    [task_setscheduler] sched_setscheduler sched_setparam sched_setaffinity sched_setattr;
    [task_getscheduler] sched_getscheduler sched_getparam sched_getaffinity sched_getattr;
    [capget] capget;
    [capset] capset;
    [shm_alloc_security & shm_associate] shmget;
    [shm_shmat] shmat;
    [shm_shmctl] shmctl;
    [msg_queue_alloc_security & msg_queue_associate] msgget;
    // Not msgrcv: a message that msg_queue_msgrcv refuses is left out of the search (find_msg, ipc/msg.c).
    [msg_queue_msgsnd] msgsnd;
    [msg_queue_msgctl] msgctl;
    [sem_alloc_security & sem_associate] semget;
    [sem_semop] semop semtimedop;
    [sem_semctl] semctl;
};

/// Hooks whose first argument is the open file that the call is about.
const OF_FILES: &str = "file_open file_permission file_ioctl file_fcntl file_lock file_truncate";

impl Hook {
    /// What the kernel half must know of it.
    pub fn is(&self) -> u32 {
        let of_file = if listed(OF_FILES, self.name) { point::FILE } else { 0 };
        let mask = if self.name == "file_permission" { point::MASK } else { 0 };
        let again = if self.again.is_some() { point::AGAIN } else { 0 };
        of_file | mask | again | point::URING
    }

    /// The one that LSM programs know by this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        HOOKS.iter().find(|hook| hook.name == name)
    }
}

/// Who may answer for a call, best first, and which calls they never see.
pub fn answering(call: Syscall) -> (Vec<Vec<&'static Hook>>, Option<&'static str>) {
    let Some(answer) = ANSWERS.iter().find(|answer| answer.calls.contains(&call.name())) else {
        return (Vec::new(), None);
    };
    let together = |names: &Together| names.iter().filter_map(|name| Hook::named(name)).collect();
    (answer.hooks.iter().map(together).collect(), answer.misses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::syscall::plausible;

    fn names(call: &str) -> Vec<Vec<&'static str>> {
        let (answers, _) = answering(call.parse().unwrap());
        answers.iter().map(|together| together.iter().map(|hook| hook.name).collect()).collect()
    }

    #[test]
    fn every_call_exists_has_one_answer_and_plausible_errors() {
        let mut calls: Vec<&str> = ANSWERS.iter().flat_map(|answer| answer.calls).copied().collect();
        let all = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), all);
        for name in calls {
            let call: Syscall = name.parse().unwrap();
            assert!(plausible::errors(call).is_some(), "{name}");
        }
    }

    #[test]
    fn every_hook_exists_once_and_answers_for_something() {
        let used: Vec<&str> =
            ANSWERS.iter().flat_map(|answer| answer.hooks).flat_map(|together| *together).copied().collect();
        for name in &used {
            assert_eq!(HOOKS.iter().filter(|hook| hook.name == *name).count(), 1, "{name}");
        }
        for hook in HOOKS {
            assert!(used.contains(&hook.name), "{}", hook.name);
        }
        for answer in ANSWERS {
            let all: Vec<&str> = answer.hooks.iter().flat_map(|together| *together).copied().collect();
            assert!((1..all.len()).all(|i| !all[..i].contains(&all[i])), "{:?}", answer.calls);
        }
    }

    #[test]
    fn a_call_that_passes_two_hooks_is_answered_for_by_one() {
        assert_eq!(names("read"), [["file_permission"]]);
        assert_eq!(names("recvfrom"), [["socket_recvmsg"]]);
        assert_eq!(names("write"), [["file_permission"]]);
        assert_eq!(names("socketpair"), [["socket_socketpair"]], "socket_create is asked too");
        assert_eq!(names("execve"), [["bprm_creds_for_exec"]], "file_open and mmap_file are asked too");
        assert_eq!(names("shmat"), [["shm_shmat"]], "mmap_file is asked too");
        assert_eq!(names("open"), [["file_open"]], "with O_TRUNC, file_truncate is asked too");
    }

    #[test]
    fn names_differ_between_kernels_and_from_their_functions() {
        assert_eq!(names("ftruncate"), [["file_truncate"], ["path_truncate"]]);
        assert_eq!(names("unlinkat"), [["path_unlink", "path_rmdir"], ["inode_unlink", "inode_rmdir"]]);
        let function = |name| Hook::named(name).unwrap().function;
        assert_eq!(function("file_open"), Some("security_file_open"));
        assert_eq!(function("file_alloc_security"), Some("security_file_alloc"));
        assert_eq!(function("mmap_file"), None);
    }

    #[test]
    fn no_hook_sees_what_has_none() {
        for call in ["fsync", "close", "futex", "epoll_wait", "poll", "nanosleep", "setfsuid", "msgrcv"] {
            assert!(names(call).is_empty(), "{call}");
        }
    }

    /// A row of docs/syscalls.md for each way that calls are answered for.
    fn table() -> String {
        let head = "| calls | hook | its function | when it is asked, this has happened | not seen |\n|---|---|---|---|---|\n";
        let code =
            |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let row = |answer: &Answer| {
            let hooks: Vec<&Hook> = answer
                .hooks
                .iter()
                .flat_map(|together| *together)
                .filter_map(|name| Hook::named(name))
                .collect();
            let after = hooks.iter().find_map(|hook| hook.after).unwrap_or_default();
            let functions = code(hooks.iter().filter_map(|hook| hook.function).collect());
            // Where several answer together, one that cannot keeps the others from it.
            let at_hooks = |together: &&Together| {
                together.iter().all(|name| Hook::named(name).is_some_and(|hook| hook.only == Only::AnyError))
            };
            let hooks =
                code(answer.hooks.iter().filter(at_hooks).flat_map(|together| *together).copied().collect());
            let misses = answer.misses.unwrap_or_default();
            format!("| {} | {hooks} | {functions} | {after} | {misses} |\n", code(answer.calls.to_vec()))
        };
        ANSWERS
            .iter()
            .map(row)
            .fold(head.to_owned(), |table, row| table + &row.replace("|  |", "| |").replace("|  |", "| |"))
    }

    #[test]
    fn the_page_has_the_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/syscalls.md");
        let text = std::fs::read_to_string(page).unwrap();
        assert!(text.contains(&table()), "docs/syscalls.md must have this table:\n{}", table());
    }
}
