//! How long threads wait for a processor: from when they could run until they do.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use chaos_common::steady::series;

use super::{count_time, end, since_now, slot_of, slot_of_current};
use crate::{
    cgroup::{self, read},
    maps::{RUNNABLE_SINCE, STEADY_LAYOUT, global},
    note,
};

/// A thread is woken, for the first time or again, by whoever: `TP_PROTO(struct task_struct *p)`
/// (include/trace/events/sched.h, 6.1 to 7.3).
#[raw_tracepoint(tracepoint = "sched_wakeup")]
pub fn steady_wakeups(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    if let Some(slot) = cgroup::of_task(task).and_then(slot_of) {
        // Without room for it, it is not timed.
        let _ = note::of_thread(&RUNNABLE_SINCE, tid_of(task), since_now(slot, series::RUN_QUEUE));
    }
    0
}

/// One thread makes place for the next: `TP_PROTO(bool preempt, struct task_struct *prev, struct task_struct *next, …)`.
/// The one that goes is `current` still. If it was preempted, or does not mean to sleep, it could run on.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn steady_switches(ctx: RawTracePointContext) -> i32 {
    let (preempted, previous, next): (u64, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let state: u32 = read(previous + u64::from(global(&STEADY_LAYOUT.task_state))).unwrap_or(1);
    let could_run = preempted as u8 != 0 || state == 0;
    if could_run && let Some(slot) = slot_of_current() {
        let tid = bpf_get_current_pid_tgid() as u32;
        let _ = note::of_thread(&RUNNABLE_SINCE, tid, since_now(slot, series::RUN_QUEUE));
    }
    if let Some(since) = end(&RUNNABLE_SINCE, tid_of(next)) {
        count_time(since);
    }
    0
}

#[inline(always)]
fn tid_of(task: u64) -> u32 {
    read(task + u64::from(global(&STEADY_LAYOUT.task_tid))).unwrap_or(0)
}
