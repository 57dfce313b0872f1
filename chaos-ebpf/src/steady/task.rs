//! How processes end, and what signals threads are given. Both in the context of whom it happens to.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};

use super::{add_at, slot_of_current};
use crate::{
    cgroup::read,
    maps::{STEADY_LAYOUT, STEADY_TASKS, global},
};

/// The part of an exit code that is a signal (kernel/exit.c and wait(2)).
const SIGNAL: u32 = 0x7f;

/// A thread ends: `TP_PROTO(struct task_struct *p, …)` (include/trace/events/sched.h, 6.1 to 7.3), once its exit code
/// stands. The first thread of a process ends once, with the code of all.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn steady_exits(ctx: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    if ids as u32 != (ids >> 32) as u32 {
        return 0;
    }
    let task: u64 = ctx.arg(0);
    let code: u32 = read(task + u64::from(global(&STEADY_LAYOUT.task_exit_code))).unwrap_or(0);
    if let Some(counts) = slot_of_current().and_then(|slot| STEADY_TASKS.get_ptr_mut(slot)) {
        // SAFETY: in bounds of the map value.
        add_at(unsafe { &raw mut (*counts).exits }, (code & SIGNAL) as usize, 1);
    }
    0
}

/// A thread takes a signal that it is given: `TP_PROTO(int sig, …)` (include/trace/events/signal.h, 6.1 to 7.3). One that
/// ends a process comes as SIGKILL, to each of its threads (kernel/signal.c, `complete_signal`, 6.18).
#[raw_tracepoint(tracepoint = "signal_deliver")]
pub fn steady_signals(ctx: RawTracePointContext) -> i32 {
    let signal: u64 = ctx.arg(0);
    if let Some(counts) = slot_of_current().and_then(|slot| STEADY_TASKS.get_ptr_mut(slot)) {
        // SAFETY: in bounds of the map value.
        add_at(unsafe { &raw mut (*counts).signals }, signal as u32 as usize, 1);
    }
    0
}
