//! Faults of system calls: how much the kernel half can compare.

/// Longest pattern of a path.
pub const MAX_PATH_PATTERN_BYTES: usize = 64;
/// Most `*` of one pattern: each may make the kernel half begin again further on.
pub const MAX_STARS: usize = 4;
/// Most patterns of paths that one fault has.
pub const MAX_PATHS: usize = 8;
/// Longest name of a thread: TASK_COMM_LEN without its NUL (include/linux/sched.h, 5.15 to 6.12).
pub const MAX_COMM_BYTES: usize = 15;
/// Most errors that one fault deals out.
pub const MAX_ERRNOS: usize = 8;
/// Largest weight of one of them. Their sum stays far below what a draw of 32 bits can tell apart.
pub const MAX_WEIGHT: u32 = 1000;

/// What a descriptor stands for, as a mask.
pub mod fd {
    /// A file, a directory or a device: whatever has a path.
    pub const FILE: u32 = 1;
    /// A socket.
    pub const SOCKET: u32 = 1 << 1;
    /// A pipe, with a name or without.
    pub const PIPE: u32 = 1 << 2;
}
