//! System calls that fail, pretend to have succeeded, or get their process a signal.
//!
//! The same program stands at many points: at hooks of the security modules, at the functions that run these hooks, at
//! the functions of the calls themselves. A constant of each load says which point it is (`POINT`), and a map says
//! which calls are judged there (`CALLS`): all others pass, and with them the kernel's own, which have no number.
//!
//! 32-bit programs are let by: their numbers mean other calls.

mod filter;
mod path;
mod slow;
pub mod task;

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_ancestor_cgroup_id, bpf_override_return, bpf_send_signal},
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use chaos_common::{
    steady::MAX_ERRNO,
    syscall::{CallEntry, CallKey, CallPoint, Remembered, point, uring},
};

use crate::{
    gate::{self, Subject},
    maps::{CALL_EFFECTS, CALL_MEMORY, CALLS, POINT, global},
    note, steady,
};
use filter::Call;
use task::Task;

/// Lets the call go on, or returns what it shall return.
///
/// An LSM program only in its section: it is loaded as fmod_ret too, on functions that return `int` and on system
/// calls, which return `long`. Hence 64 bits and no `#[lsm]`, whose 32 leave the upper half to chance.
#[unsafe(no_mangle)]
#[unsafe(link_section = "lsm/call_hook")]
pub fn call_hook(ctx: *mut c_void) -> i64 {
    let at = point();
    let answer = gate(&at, ctx);
    if at.is(point::FUNCTION) {
        return if answer == GOES_ON { 0 } else { answer };
    }
    // The verifier of Linux 6.12 wants to see that a hook returns an error or 0 (kernel/bpf/verifier.c, `check_return_code`).
    // What goes on is a number that the mask makes 0 of.
    match answer.wrapping_neg() & MAX_ERRNO {
        0 => i64::from(at.goes_on),
        errno => negative(errno),
    }
}

/// `-number`, by the instruction of which the verifier keeps the range: it has done so for negation since Linux 6.17 only.
#[inline(always)]
fn negative(number: i64) -> i64 {
    let negative: i64;
    // SAFETY: nothing but registers.
    unsafe { asm!("{to} = 0", "{to} -= {from}", to = out(reg) negative, from = in(reg) number) }
    negative
}

/// The same at the function of a call by a kprobe, which says nothing and has the kernel say it.
#[kprobe]
pub fn call_override(ctx: ProbeContext) -> u32 {
    let answer = gate(&point(), ctx.as_ptr());
    if answer != GOES_ON {
        // SAFETY: the registers are those the kernel handed to the program.
        unsafe { bpf_override_return(ctx.regs.cast(), answer as u64) };
    }
    0
}

/// A call begins whose first answer shall be remembered. Changes nothing.
#[fentry]
pub fn call_begin(_ctx: FEntryContext) -> i32 {
    if concerned().is_some_and(|subject| subject.rules != 0) {
        // Without room for it the call is judged each time it is met.
        let _ = note::of_thread(&CALL_MEMORY, task::tid(), Remembered::NOTHING);
    }
    0
}

/// The answer that lets a call go on: no error, and nothing that it could pretend to return.
const GOES_ON: i64 = i64::MIN;

/// The gate for system calls: what this one shall return.
#[inline(always)]
fn gate(at: &CallPoint, ctx: *mut c_void) -> i64 {
    let Some(subject) = concerned() else { return GOES_ON };
    let task = Task::current();
    let Some(number) = number(at, &task, ctx) else { return GOES_ON };
    // SAFETY: entries are not changed while programs run.
    let Some(entry) = (unsafe { CALLS.get(CallKey { point: at.id, number }) }) else { return GOES_ON };
    let subject = Subject { rules: subject.rules & entry.rules, slot: subject.slot };
    if subject.rules == 0 {
        return GOES_ON;
    }
    // A request of io_uring has no beginning that could be met.
    let is_call = number < uring::WRITES;
    let memory = if at.is(point::AGAIN) && is_call { CALL_MEMORY.get_ptr_mut(task::tid()) } else { None };
    let Some(memory) = memory else { return judge(subject, at, entry, &task, ctx) };
    // SAFETY: a map value, which this thread alone reads and writes.
    let first = unsafe { *memory };
    if first.answered != 0 {
        return first.answer;
    }
    let answer = judge(subject, at, entry, &task, ctx);
    // SAFETY: as above.
    unsafe { *memory = Remembered { answered: 1, answer, ..first } };
    answer
}

#[inline(always)]
fn judge(subject: Subject, at: &CallPoint, entry: &CallEntry, task: &Task, ctx: *mut c_void) -> i64 {
    let call = Call::of(at, entry, task, ctx);
    let hit = gate::any_by_fine_clock(subject.rules, subject.slot, || 0, |rule| call.passes(rule));
    let Some(rule) = hit else { return GOES_ON };
    let Some(effect) = CALL_EFFECTS.get(rule) else { return GOES_ON };
    if effect.signal != 0 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_send_signal(effect.signal) };
    }
    if effect.forged >= 0 {
        return effect.forged;
    }
    let error = match effect.count {
        0 => return GOES_ON,
        1 => effect.error(0),
        _ => effect.error(gate::draw_for(rule, subject.slot)),
    };
    steady::injected_error(subject.slot, error);
    error
}

#[inline(always)]
fn point() -> CallPoint {
    global(&POINT)
}

#[inline(always)]
fn concerned() -> Option<Subject> {
    // SAFETY: the helper has no preconditions; at all points `current` is who calls.
    gate::subject(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) })
}

/// The number of the call, or what stands for a request of io_uring.
#[inline(always)]
fn number(at: &CallPoint, task: &Task, ctx: *mut c_void) -> Option<u32> {
    if at.is(point::URING) && task.is_in_uring() {
        let writes = at.is(point::MASK) && filter::writes(ctx);
        return Some(if writes { uring::WRITES } else { uring::OTHER });
    }
    if task.is_32_bit() { None } else { Some(task.number()) }
}
