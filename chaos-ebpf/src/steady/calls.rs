//! Finished system calls by the kind of their work, their errors, and how long they took.

use aya_ebpf::{helpers::bpf_get_current_task, macros::raw_tracepoint, programs::RawTracePointContext};
use chaos_common::{
    steady::{CALL_NUMBERS, class, errno_index, is_error},
    syscall::CallLayout,
};

use super::{add_at, count_time, end, since_now, slot_of_current};
use crate::{
    atomic,
    cgroup::read,
    maps::{
        CALL_CLASSES, CALL_LAYOUT, CALLING_SINCE, CALLS_TIMED, STEADY, STEADY_CALLS, STEADY_ERRORS,
        STEADY_LAYOUT, global,
    },
    note,
    syscall::task::{Task, tid},
};

/// Of `i_mode` (include/uapi/linux/stat.h).
mod mode {
    pub const TYPE: u16 = 0o170_000;
    pub const SOCKET: u16 = 0o140_000;
    pub const FILE: u16 = 0o100_000;
    pub const BLOCK: u16 = 0o060_000;
    pub const FOLDER: u16 = 0o040_000;
}

/// S_ANON_INODE (include/linux/fs.h, 6.16 to 7.3): an eventfd, a timerfd and the like, which say that they are files.
const ANONYMOUS: u32 = 1 << 19;

/// Finished system calls: `TP_PROTO(struct pt_regs *regs, long ret)` (include/trace/events/syscalls.h, 6.18).
/// The exit alone says both that a call happened and whether it failed.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn steady_syscalls(ctx: RawTracePointContext) -> i32 {
    if let Some(slot) = slot_of_current() {
        let (regs, ret): (u64, u64) = (ctx.arg(0), ctx.arg(1));
        // SAFETY: the helper has no preconditions.
        let task = Task::of(unsafe { bpf_get_current_task() }, regs);
        let (by_number, class) = class_of(&task);
        count(slot, class, ret as i64);
        if global(&CALLS_TIMED) != 0 && class::is_timed(by_number) {
            let since = end(&CALLING_SINCE, tid());
            if let Some(mut since) = since.filter(|since| class::is_timed(class) && since.slot == slot) {
                since.series = class;
                count_time(since);
            }
        }
    }
    0
}

/// A system call begins: `TP_PROTO(struct pt_regs *regs, long id)`. What is not timed goes by before it is asked whose
/// it is.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn steady_call_begins(ctx: RawTracePointContext) -> i32 {
    let number: u64 = ctx.arg(1);
    let class = class_by_number(number as u32);
    if !class::is_timed(class) {
        return 0;
    }
    if let Some(slot) = slot_of_current() {
        // Without room for it, it is not timed.
        let _ = note::of_thread(&CALLING_SINCE, tid(), since_now(slot, class));
    }
    0
}

#[inline(always)]
fn count(slot: u32, class: u32, ret: i64) {
    let failed = u64::from(is_error(ret));
    if let Some(counters) = STEADY.get_ptr_mut(slot) {
        // SAFETY: in bounds of the map value.
        unsafe {
            atomic::add(&raw mut (*counters).syscalls, 1);
            atomic::add(&raw mut (*counters).syscall_errors, failed);
        }
    }
    if let Some(counts) = STEADY_CALLS.get_ptr_mut(slot) {
        // SAFETY: in bounds of the map value.
        let (calls, failures) = unsafe { (&raw mut (*counts).calls, &raw mut (*counts).failed) };
        add_at(calls, class as usize, 1);
        add_at(failures, class as usize, failed);
    }
    if failed == 0 {
        return;
    }
    if let Some(errors) = STEADY_ERRORS.get_ptr_mut(slot) {
        // SAFETY: in bounds of the map value.
        add_at(unsafe { &raw mut (*errors).returned }, errno_index(ret), 1);
    }
}

/// The class of a call by its number alone, and by what it was made on. The numbers of 32-bit programs mean other calls.
#[inline(always)]
fn class_of(task: &Task) -> (u32, u32) {
    let by_number = class_by_number(task.number());
    // Without BTF nobody can tell; the calls of 32-bit programs are then counted as those whose numbers they have.
    if global(&CALL_LAYOUT.task_files) == 0 {
        return (by_number, by_number);
    }
    if task.is_32_bit() {
        return (by_number, class::OTHER);
    }
    match by_number {
        class::FILE_READ | class::FILE_WRITE => (by_number, by_descriptor(by_number, task)),
        other => (other, other),
    }
}

#[inline(always)]
fn class_by_number(number: u32) -> u32 {
    if number as usize >= CALL_NUMBERS {
        return class::OTHER;
    }
    // SAFETY: within the array. Read as a global is: the loader fills it in.
    let class = unsafe { (&raw const CALL_CLASSES.of).cast::<u8>().add(number as usize).read_volatile() };
    u32::from(class)
}

/// What is read or written may be no file. On a socket it is sending or receiving; on all else that is neither, a pipe, a
/// terminal, a timer, it may be waiting.
#[inline(always)]
fn by_descriptor(by_number: u32, task: &Task) -> u32 {
    let layout: CallLayout = global(&CALL_LAYOUT);
    let inode = || read::<u64>(task.file(task.argument(1) as u32) + u64::from(layout.file_inode));
    // A descriptor that is none fails, or was closed meanwhile.
    let Some(inode) = inode() else { return by_number };
    let mode: u16 = read(inode + u64::from(layout.inode_mode)).unwrap_or(0);
    let flags: u32 = read(inode + u64::from(global(&STEADY_LAYOUT.inode_flags))).unwrap_or(0);
    match mode & mode::TYPE {
        mode::SOCKET if by_number == class::FILE_READ => class::NET_RECV,
        mode::SOCKET => class::NET_SEND,
        mode::FILE | mode::BLOCK | mode::FOLDER if flags & ANONYMOUS == 0 => by_number,
        _ => class::WAITING,
    }
}
