//! Which calls a rule is for: by thread, user, descriptor and path.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_uid_gid, bpf_probe_read_user};
use chaos_common::syscall::{CallEntry, CallPoint, HOW, MAX_PATHS, fd, opens_to_write, point};

use super::{
    path,
    task::{self, Task, layout},
};
use crate::{
    cgroup::read,
    maps::{BY_PATH, CALL_FILTERS, global},
};

/// MAY_WRITE and MAY_APPEND (include/linux/fs.h, 5.15 to 7.3).
const MAY_WRITE: u32 = 0x2 | 0x8;
/// AT_FDCWD (include/uapi/linux/fcntl.h).
const AT_FDCWD: u32 = -100_i32 as u32;
/// Of `i_mode` (include/uapi/linux/stat.h).
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
const S_IFIFO: u16 = 0o010_000;

/// Stands for the file of a call that is about none.
const NO_DESCRIPTOR: u64 = 1;

/// What a call is about.
pub struct Call {
    /// The open file; 0 if its descriptor is none's.
    file: u64,
    /// The user's text of its path; 0 for none.
    text: u64,
    /// Where the `struct path` is of what the text begins at, or of the file; 0 for none.
    path: u64,
    /// Whether it opens a file to write to it, or none at all.
    writes: bool,
}

impl Call {
    #[inline(always)]
    pub fn of(at: &CallPoint, entry: &CallEntry, task: &Task, ctx: *mut c_void) -> Self {
        let writes = opens_to(entry, task);
        if at.is(point::FILE) {
            let file = argument(ctx, 0);
            return Self { file, text: 0, path: path_of(file), writes };
        }
        // Its file would be looked up for the path alone.
        if entry.path != 0 && global(&BY_PATH) == 0 {
            return Self { file: NO_DESCRIPTOR, text: 0, path: 0, writes };
        }
        let number = task.argument(entry.fd) as u32;
        let file = if entry.fd == 0 || number == AT_FDCWD { 0 } else { task.file(number) };
        if entry.path == 0 {
            let own = if entry.fd == 0 { NO_DESCRIPTOR } else { file };
            return Self { file: own, text: 0, path: path_of(file), writes };
        }
        let text = task.argument(entry.path);
        let (text, path) = match first(text) {
            b'/' => (text, 0),
            // With AT_EMPTY_PATH it is the descriptor's own.
            0 => (0, path_of(file)),
            _ if file == 0 => (text, task.working_directory()),
            _ => (text, path_of(file)),
        };
        Self { file: NO_DESCRIPTOR, text, path, writes }
    }

    /// Whether a rule's filter lets it through.
    #[inline(always)]
    pub fn passes(&self, rule: u32) -> bool {
        call_lets(rule, self.file, self.text, self.path, self.writes.into()) != 0
    }
}

/// Where the `struct path` of an open file is; 0 for none.
#[inline(always)]
fn path_of(file: u64) -> u64 {
    if file == 0 { 0 } else { file + u64::from(layout().file_path) }
}

/// Whether a call opens a file to write to it; one that opens none is let through.
#[inline(always)]
fn opens_to(entry: &CallEntry, task: &Task) -> bool {
    if entry.flags == 0 {
        return true;
    }
    let argument = task.argument(entry.flags & !HOW);
    if entry.flags & HOW == 0 {
        return opens_to_write(argument as u32);
    }
    // SAFETY: the helper checks the address.
    opens_to_write(unsafe { bpf_probe_read_user(argument as *const u64).unwrap_or(0) } as u32)
}

/// Whether what a file is to be used for is writing to it.
#[inline(always)]
pub fn writes(ctx: *mut c_void) -> bool {
    argument(ctx, 1) as u32 & MAY_WRITE != 0
}

/// An argument of the hook, as a number that the verifier takes for nothing more.
#[inline(always)]
fn argument(ctx: *mut c_void, place: u64) -> u64 {
    read(ctx as u64 + 8 * place).unwrap_or(0)
}

/// The first character of a user's text; 0 for none.
#[inline(always)]
fn first(text: u64) -> u8 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(text as *const u8).unwrap_or(0) }
}

/// A function of its own, as `judge` of the gate is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn call_lets(rule: u32, file: u64, text: u64, path: u64, writes: u32) -> u32 {
    let Some(filter) = CALL_FILTERS.get(rule) else { return 0 };
    if filter.writes != 0 && writes == 0 {
        return 0;
    }
    if filter.tgid | filter.comm_count | filter.user_count != 0 {
        let Ok(comm) = bpf_get_current_comm() else { return 0 };
        if !filter.lets(task::tgid(), &comm, bpf_get_current_uid_gid() as u32) {
            return 0;
        }
    }
    if filter.fds != 0 && filter.fds & kind(file) == 0 {
        return 0;
    }
    if global(&BY_PATH) == 0 || filter.path_count == 0 {
        return 1;
    }
    for place in 0..MAX_PATHS as u32 {
        // Read anew each time: else the compiler counts down from it, and the verifier loses sight of the end.
        if place >= global(&filter.path_count) {
            break;
        }
        if path::call_path_is(rule * MAX_PATHS as u32 + place, text, path) != 0 {
            return 1;
        }
    }
    0
}

/// What an open file is; 0 for none, everything where there is none to ask.
#[inline(always)]
fn kind(file: u64) -> u32 {
    let layout = layout();
    let mode = || -> Option<u16> {
        let inode: u64 = read(file + u64::from(layout.file_inode))?;
        read(inode + u64::from(layout.inode_mode))
    };
    match file {
        0 => return 0,
        NO_DESCRIPTOR => return u32::MAX,
        _ => {}
    }
    match mode().map(|mode| mode & S_IFMT) {
        None => 0,
        Some(S_IFSOCK) => fd::SOCKET,
        Some(S_IFIFO) => fd::PIPE,
        Some(_) => fd::FILE,
    }
}
