//! Faults of system calls: at which point a program stands, what it compares, what it answers.

use crate::steady::MAX_ERRNO;

/// Longest pattern of a path. A bit for each byte, and one for having matched nothing yet.
pub const MAX_PATH_PATTERN_BYTES: usize = 63;
/// Most `*` of one pattern.
pub const MAX_STARS: usize = 4;
/// Most patterns of paths that one fault has.
pub const MAX_PATHS: usize = 8;
/// Longest name of a thread: TASK_COMM_LEN without its NUL (include/linux/sched.h, 5.15 to 6.12).
pub const MAX_COMM_BYTES: usize = 15;
/// Most names of threads that one fault has.
pub const MAX_COMMS: usize = 4;
/// Most ranges of users that one fault has.
pub const MAX_USERS: usize = 4;
/// Most errors that one fault deals out.
pub const MAX_ERRNOS: usize = 8;
/// Largest weight of one of them. Their sum stays far below what a draw of 32 bits can tell apart.
pub const MAX_WEIGHT: u32 = 1000;
/// Most pairs of a point and a call that one injection has.
pub const MAX_CALLS: u32 = 2048;
/// How many threads may be inside such calls at once whose first answer is remembered; of more, some are forgotten.
pub const REMEMBERED: u32 = 16_384;

/// Numbers that stand for requests of io_uring, which have none: what writes, and all others.
pub mod uring {
    /// A request that writes to a file.
    pub const WRITES: u32 = 1 << 16;
    /// Any other.
    pub const OTHER: u32 = WRITES + 1;
}

/// What a descriptor stands for, as a mask.
pub mod fd {
    /// A file, a directory or a device: whatever has a path.
    pub const FILE: u32 = 1;
    /// A socket.
    pub const SOCKET: u32 = 1 << 1;
    /// A pipe, with a name or without.
    pub const PIPE: u32 = 1 << 2;
}

crate::pod! {
    /// Where a program stands: a constant of each of its loads.
    pub struct CallPoint {
        /// Which of the injection's points.
        pub id: u32,
        /// What kind: bits of [`point`].
        pub is: u32,
        /// What it returns to let the call go on.
        pub goes_on: i32,
        /// Unused.
        pub spare: u32,
    }
}

/// What can be said of a [`CallPoint`].
pub mod point {
    /// At the function of the call itself, where success can be forged.
    pub const FUNCTION: u32 = 1;
    /// One call may come by again, and must get its first answer.
    pub const AGAIN: u32 = 1 << 1;
    /// The first argument is the file that the call is about.
    pub const FILE: u32 = 1 << 2;
    /// The second argument says whether it is written to.
    pub const MASK: u32 = 1 << 3;
    /// Requests of io_uring come by too.
    pub const URING: u32 = 1 << 4;
}

impl CallPoint {
    /// Nowhere.
    pub const NONE: Self = Self { id: 0, is: 0, goes_on: 0, spare: 0 };

    /// Whether this is said of it.
    #[inline(always)]
    pub const fn is(&self, what: u32) -> bool {
        self.is & what != 0
    }
}

crate::pod! {
    /// A call at a point.
    pub struct CallKey {
        /// [`CallPoint::id`].
        pub point: u32,
        /// The call's number, or one of [`uring`].
        pub number: u32,
    }
}

crate::pod! {
    /// What concerns a call at a point.
    pub struct CallEntry {
        /// The rules that are asked.
        pub rules: u64,
        /// Which argument, from 1, is a path; 0 for none.
        pub path: u32,
        /// Which argument, from 1, is a descriptor: the call's, or the directory that its path begins at; 0 for none.
        pub fd: u32,
        /// Which argument, from 1, has the flags of open(2); 0 for none. With [`HOW`], it is the address of openat2's
        /// `struct open_how`.
        pub flags: u32,
        /// Unused.
        pub spare: u32,
    }
}

/// See [`CallEntry::flags`].
pub const HOW: u32 = 1 << 8;

/// Whether flags of open(2) ask for writing, or for a file to be made: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
/// (include/uapi/asm-generic/fcntl.h, 5.15 to 7.3), which are the same on x86_64 and arm64.
#[inline(always)]
pub const fn opens_to_write(flags: u32) -> bool {
    flags & (0o1 | 0o2 | 0o100 | 0o1000) != 0
}

crate::pod! {
    /// What happens to a call that is hit.
    pub struct CallEffect {
        /// What it fails with: each error, as errno(3) counts them.
        pub errors: [u32; MAX_ERRNOS],
        /// A draw below this, and not below the one before, means that error.
        pub below: [u32; MAX_ERRNOS],
        /// How many errors there are; 0 if the call goes on or pretends to have succeeded.
        pub count: u32,
        /// The signal that its process gets; 0 for none.
        pub signal: u32,
        /// What it pretends to return, at a [`point::FUNCTION`]; -1 for nothing.
        pub forged: i64,
    }
}

impl CallEffect {
    /// Nothing.
    pub const NONE: Self =
        Self { errors: [0; MAX_ERRNOS], below: [0; MAX_ERRNOS], count: 0, signal: 0, forged: -1 };

    /// Deals out errors by their weights: `(errno, weight)`.
    pub fn errors(weighted: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let total: u64 = weighted.clone().map(|(_, weight)| u64::from(weight)).sum();
        let (mut effect, mut sum) = (Self::NONE, 0_u64);
        for (place, (errno, weight)) in weighted.take(MAX_ERRNOS).enumerate() {
            sum += u64::from(weight);
            effect.errors[place] = errno;
            effect.below[place] = ((sum << 32) / total.max(1)).min(u64::from(u32::MAX)) as u32;
            effect.count += 1;
        }
        effect
    }

    /// The error that a uniform draw means, negative as calls return it. Whatever the map says, it lies within
    /// [-4095, -1]; the verifier sees the mask.
    #[inline(always)]
    pub fn error(&self, draw: u32) -> i64 {
        let mut errno = self.errors[0];
        for place in 1..MAX_ERRNOS {
            if place as u32 >= self.count || draw < self.below[place - 1] {
                break;
            }
            errno = self.errors[place];
        }
        const { assert!(MAX_ERRNO == 0xfff) };
        let masked = i64::from(errno & MAX_ERRNO as u32);
        if masked == 0 { -EPERM } else { -masked }
    }
}

/// What the kernel itself says where no reason is given.
const EPERM: i64 = 1;

crate::pod! {
    /// Which calls a rule is for. What is empty lets everything through.
    pub struct CallFilter {
        /// Names of threads, padded with NUL.
        pub comms: [[u8; MAX_COMM_BYTES + 1]; MAX_COMMS],
        /// How many.
        pub comm_count: u32,
        /// Users, from and to.
        pub users: [[u32; 2]; MAX_USERS],
        /// How many ranges.
        pub user_count: u32,
        /// The process; 0 for any.
        pub tgid: u32,
        /// Kinds of descriptors: bits of [`fd`]; 0 for any. Calls without a descriptor are let through.
        pub fds: u32,
        /// How many patterns of paths, which are in a map of their own.
        pub path_count: u32,
        /// 1 if only what opens a file to write to it is let through, where a call opens one.
        pub writes: u32,
        /// Unused.
        pub spare: u32,
    }
}

impl CallFilter {
    /// Everything.
    pub const ALL: Self = Self {
        comms: [[0; MAX_COMM_BYTES + 1]; MAX_COMMS],
        comm_count: 0,
        users: [[0; 2]; MAX_USERS],
        user_count: 0,
        tgid: 0,
        fds: 0,
        path_count: 0,
        writes: 0,
        spare: 0,
    };

    /// Whether a thread's process, name and user are let through.
    #[inline(always)]
    pub fn lets(&self, tgid: u32, comm: &[u8; MAX_COMM_BYTES + 1], uid: u32) -> bool {
        if self.tgid != 0 && self.tgid != tgid {
            return false;
        }
        let (mut named, mut meant) = (self.comm_count == 0, self.user_count == 0);
        for place in 0..MAX_COMMS {
            if place as u32 >= self.comm_count {
                break;
            }
            named |= same_comm(&self.comms[place], comm);
        }
        for place in 0..MAX_USERS {
            if place as u32 >= self.user_count {
                break;
            }
            meant |= self.users[place][0] <= uid && uid <= self.users[place][1];
        }
        named && meant
    }
}

/// Up to the first NUL: what follows it in a task's `comm` may be older.
#[inline(always)]
fn same_comm(one: &[u8; MAX_COMM_BYTES + 1], other: &[u8; MAX_COMM_BYTES + 1]) -> bool {
    for place in 0..=MAX_COMM_BYTES {
        if one[place] != other[place] {
            return false;
        }
        if one[place] == 0 {
            break;
        }
    }
    true
}

crate::pod! {
    /// What a thread was answered in the call that it is in.
    pub struct Remembered {
        /// 1 once it has been answered.
        pub answered: u32,
        /// 1 once it has been asked whether the call shall be delayed.
        pub delayed: u32,
        /// With what.
        pub answer: i64,
        /// How long it shall still wait, in nanoseconds; 0 if it shall not.
        pub wait_ns: u64,
    }
}

impl Remembered {
    /// Of a call that begins.
    pub const NOTHING: Self = Self { answered: 0, delayed: 0, answer: 0, wait_ns: 0 };
}

crate::pod! {
    /// Where a kernel keeps what a call is about: byte offsets read from its BTF.
    pub struct CallLayout {
        /// `struct task_struct` to `flags`.
        pub task_flags: u32,
        /// `struct task_struct` to `thread_info.status`, where x86 says that a call is a 32-bit one; 0 elsewhere.
        pub task_status: u32,
        /// `struct task_struct` to `files`.
        pub task_files: u32,
        /// `struct task_struct` to `fs`.
        pub task_fs: u32,
        /// `struct files_struct` to `fdt`.
        pub files_fdt: u32,
        /// `struct fdtable` to `max_fds`.
        pub fdt_max: u32,
        /// `struct fdtable` to `fd`.
        pub fdt_fd: u32,
        /// `struct fs_struct` to `pwd`.
        pub fs_pwd: u32,
        /// `struct file` to `f_path`.
        pub file_path: u32,
        /// `struct file` to `f_inode`.
        pub file_inode: u32,
        /// `struct inode` to `i_mode`.
        pub inode_mode: u32,
        /// `struct path` to `mnt`.
        pub path_mnt: u32,
        /// `struct path` to `dentry`.
        pub path_dentry: u32,
        /// `struct dentry` to `d_parent`.
        pub dentry_parent: u32,
        /// `struct dentry` to `d_name.len`.
        pub dentry_len: u32,
        /// `struct dentry` to `d_name.name`.
        pub dentry_name: u32,
        /// `struct vfsmount` to `mnt_root`.
        pub mnt_root: u32,
        /// `struct mount` to `mnt`, its `struct vfsmount`.
        pub mount_mnt: u32,
        /// `struct mount` to `mnt_parent`.
        pub mount_parent: u32,
        /// `struct mount` to `mnt_mountpoint`.
        pub mount_mountpoint: u32,
    }
}

impl CallLayout {
    /// Not read, as nothing needs it.
    pub const UNKNOWN: Self = Self {
        task_flags: 0,
        task_status: 0,
        task_files: 0,
        task_fs: 0,
        files_fdt: 0,
        fdt_max: 0,
        fdt_fd: 0,
        fs_pwd: 0,
        file_path: 0,
        file_inode: 0,
        inode_mode: 0,
        path_mnt: 0,
        path_dentry: 0,
        dentry_parent: 0,
        dentry_len: 0,
        dentry_name: 0,
        mnt_root: 0,
        mount_mnt: 0,
        mount_parent: 0,
        mount_mountpoint: 0,
    };
}

/// How much of a path is compared; a longer one matches no pattern.
pub const MAX_PATH_BYTES: u32 = 1024;

crate::pod! {
    /// A pattern of paths, for paths that are read from their end: an automaton whose states are bits. State *n* means
    /// that the last *n* characters of the pattern have been found.
    pub struct PathTable {
        /// By character: the states that one leads on from.
        pub on: [u64; 256],
        /// The states at which a `*` stands, where any character leads nowhere else.
        pub stays: u64,
        /// The state in which the whole pattern has been found.
        pub accepts: u64,
    }
}

impl PathTable {
    /// Before anything is read.
    pub const START: u64 = 1;

    /// From a pattern with `*` and `?`, of at most [`MAX_PATH_PATTERN_BYTES`] other bytes.
    pub fn of(pattern: &[u8]) -> Self {
        let mut table = Self { on: [0; 256], stays: 0, accepts: 0 };
        let mut state = 0;
        for byte in pattern.iter().rev() {
            match byte {
                b'*' => table.stays |= 1 << state,
                b'?' => {
                    table.on.iter_mut().for_each(|on| *on |= 1 << state);
                    state += 1;
                }
                byte => {
                    table.on[usize::from(*byte)] |= 1 << state;
                    state += 1;
                }
            }
        }
        table.accepts = 1 << state;
        table
    }

    /// One more character, going backwards.
    #[inline(always)]
    pub const fn step(&self, state: u64, byte: u8) -> u64 {
        ((state & self.on[byte as usize]) << 1) | (state & self.stays)
    }

    /// Whether the whole path has been found.
    #[inline(always)]
    pub const fn found(&self, state: u64) -> bool {
        state & self.accepts != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn errors_are_dealt_out_by_weight() {
        let effect = CallEffect::errors([(5, 3), (28, 1)].into_iter());
        let share = |errno: i64| (0..=255_u32).filter(|n| effect.error(n << 24) == -errno).count();
        assert_eq!((share(5), share(28)), (192, 64));
        assert_eq!(effect.error(u32::MAX), -28);
        assert_eq!(CallEffect::errors([(5, 1)].into_iter()).error(u32::MAX), -5);
        let eight = CallEffect::errors((1..=8).map(|errno| (errno, 1)));
        let dealt: Vec<i64> = (0..8_u32).map(|n| eight.error((n << 29) + 1)).collect();
        assert_eq!(dealt, [-1, -2, -3, -4, -5, -6, -7, -8]);
    }

    #[test]
    fn an_error_is_never_success() {
        for errno in [0, 4096, u32::MAX] {
            let error = CallEffect::errors([(errno, 1)].into_iter()).error(0);
            assert!((-4095..0).contains(&error), "{errno}: {error}");
        }
    }

    fn comm(name: &str) -> [u8; 16] {
        let mut comm = [0; 16];
        comm[..name.len()].copy_from_slice(name.as_bytes());
        comm
    }

    #[test]
    fn threads_are_told_apart() {
        let mut filter = CallFilter { tgid: 7, comm_count: 1, user_count: 2, ..CallFilter::ALL };
        filter.comms[0] = comm("nginx");
        (filter.users[0], filter.users[1]) = ([0, 0], [1000, 1999]);
        assert!(filter.lets(7, &comm("nginx"), 1500) && filter.lets(7, &comm("nginx"), 0));
        assert!(!filter.lets(8, &comm("nginx"), 0) && !filter.lets(7, &comm("nginx2"), 0));
        assert!(!filter.lets(7, &comm("nginx"), 2000) && !filter.lets(7, &comm("ngin"), 0));
        let mut stale = comm("nginx");
        stale[7] = b'x';
        assert!(filter.lets(7, &stale, 0), "what follows the NUL is older");
        assert!(CallFilter::ALL.lets(1, &comm("x"), 9));
    }

    fn matches(pattern: &str, path: &str) -> bool {
        let table = PathTable::of(pattern.as_bytes());
        table.found(path.bytes().rev().fold(PathTable::START, |state, byte| table.step(state, byte)))
    }

    #[test]
    fn paths_match_patterns() {
        for (pattern, path, expected) in [
            ("/etc/hosts", "/etc/hosts", true),
            ("/etc/hosts", "/etc/hosts2", false),
            ("/etc/hosts", "/x/etc/hosts", false),
            ("/var/lib/*", "/var/lib/a/b", true),
            ("/var/lib/*", "/var/lib/", true),
            ("/var/lib/*", "/var/libx", false),
            ("*.db", "/a/b.db", true),
            ("*.db", "/a/b.db-wal", false),
            ("*.db*", "/a/b.db-wal", true),
            ("/a/*/c/*.x", "/a/1/2/c/3/4.x", true),
            ("/a/*/c/*.x", "/a/c/4.x", false),
            ("/tmp/?", "/tmp/a", true),
            ("/tmp/?", "/tmp/ab", false),
            ("*", "", true),
            ("*aab", "/aaab", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        let longest = "x".repeat(MAX_PATH_PATTERN_BYTES);
        assert!(matches(&longest, &longest) && !matches(&longest, &longest[1..]));
    }
}
