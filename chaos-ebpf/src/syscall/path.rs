//! Whether a path looks like a pattern: read from its end, as the kernel keeps paths.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str_bytes};
use chaos_common::syscall::{MAX_PATH_BYTES, PathTable};

use super::task::layout;
use crate::{
    cgroup::read,
    maps::{BY_PATH, CALL_PATHS, global},
};

/// How much of a user's text is looked at at a time to find its end.
const CHUNK: usize = 64;
/// So many names and mounts a path may go through; a longer one matches no pattern.
const MAX_DEPTH: u32 = 64;

/// Whose a text is.
mod whose {
    pub const KERNEL: u32 = 0;
    pub const USER: u32 = 1;
}

/// Whether the text, below what `path` is the `struct path` of, looks like pattern `index`. Either may be 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn call_path_is(index: u32, text: u64, path: u64) -> u32 {
    // Before 6.8 functions are verified though nobody calls them (kernel/bpf/verifier.c, `do_check_subprogs`).
    if global(&BY_PATH) == 0 {
        return 0;
    }
    let Some(table) = CALL_PATHS.get(index) else { return 0 };
    let mut state = PathTable::START;
    if text != 0 {
        state = call_path_text(index, state, text, length(text), whose::USER);
    }
    if path == 0 {
        return table.found(state).into();
    }
    if text != 0 {
        state = table.step(state, b'/');
    }
    match above(table, index, state, path, text == 0) {
        Some(state) => table.found(state).into(),
        None => 0,
    }
}

/// Goes on through a text, from its end to its beginning: a function of its own, as `judge` of the gate is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn call_path_text(index: u32, state: u64, text: u64, length: u32, whose: u32) -> u64 {
    if global(&BY_PATH) == 0 {
        return 0;
    }
    let Some(table) = CALL_PATHS.get(index) else { return 0 };
    let mut state = state;
    for place in 1..=MAX_PATH_BYTES {
        if place > length || state == 0 {
            break;
        }
        let at = (text + u64::from(length - place)) as *const u8;
        // SAFETY: the helpers check the address.
        let byte =
            unsafe { if whose == whose::USER { bpf_probe_read_user(at) } else { bpf_probe_read_kernel(at) } };
        state = table.step(state, byte.unwrap_or(0));
    }
    state
}

/// Goes on through the names of what `path` is and of all that it lies in, as `prepend_path` does (fs/d_path.c, 6.12);
/// `None` where that leads nowhere. The root's own path is `/`.
#[inline(always)]
fn above(table: &PathTable, index: u32, state: u64, path: u64, is_whole: bool) -> Option<u64> {
    let layout = layout();
    let mut state = state;
    let mut dentry: u64 = read(path + u64::from(layout.path_dentry))?;
    let inner: u64 = read(path + u64::from(layout.path_mnt))?;
    let mut mount = inner.wrapping_sub(u64::from(layout.mount_mnt));
    let mut is_first = is_whole;
    for _ in 0..MAX_DEPTH {
        let root: u64 = read(mount + u64::from(layout.mount_mnt + layout.mnt_root))?;
        if dentry == root {
            let parent: u64 = read(mount + u64::from(layout.mount_parent))?;
            if parent == mount {
                return Some(if is_first { table.step(state, b'/') } else { state });
            }
            dentry = read(mount + u64::from(layout.mount_mountpoint))?;
            mount = parent;
            continue;
        }
        let parent: u64 = read(dentry + u64::from(layout.dentry_parent))?;
        // Nothing that has a path is its own parent: sockets, pipes.
        if parent == dentry {
            return None;
        }
        let text: u64 = read(dentry + u64::from(layout.dentry_name))?;
        let length: u32 = read(dentry + u64::from(layout.dentry_len))?;
        state = call_path_text(index, state, text, length, whose::KERNEL);
        state = table.step(state, b'/');
        dentry = parent;
        is_first = false;
    }
    None
}

/// How many characters a user's text has; 0 if it cannot be read or is too long.
#[inline(always)]
fn length(text: u64) -> u32 {
    let mut length = 0;
    let mut chunk = [0_u8; CHUNK];
    for _ in 0..=MAX_PATH_BYTES as usize / (CHUNK - 1) {
        let from = (text + u64::from(length)) as *const u8;
        // SAFETY: the helper checks the address.
        let Ok(read) = (unsafe { bpf_probe_read_user_str_bytes(from, &mut chunk) }) else { return 0 };
        length += read.len() as u32;
        // Without its NUL, for which a full chunk has no room left in the text.
        if read.len() < CHUNK - 1 {
            return length;
        }
    }
    0
}
