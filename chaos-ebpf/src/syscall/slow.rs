//! System calls that take longer: their callers sleep, or are kept busy where they cannot.
//!
//! At the function of a call the kernel skips a program that sleeps already on that processor
//! (kernel/bpf/trampoline.c, `__bpf_prog_enter_sleepable_recur`, 6.18). So one that does not sleep judges the call and has
//! the thread remember how long it shall wait, and several that are small and alike stand behind it: the first that is run
//! has it wait, and the others find nothing to do. Programs of LSM are never skipped, and judge and delay in one.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use chaos_common::{
    shape::{NORMAL_QUANTILES, quantile_index, shaped, shaped_index},
    sleep::{SPIN_BELOW_NS, SPIN_SHARE, SleepStats},
    syscall::{CallKey, CallPoint, Remembered, point as points},
};

use super::{concerned, filter::Call, number, point, task, task::Task};
use crate::{
    atomic,
    gate::{self, Subject},
    maps::{CALL_MEMORY, CALLS, SHAPE_TABLES, SHAPES, SLEEP_STATS, SPIN_DUE},
    note, sleep,
};

/// How much time on the processor may be made up for where none was used.
const BURST_NS: u64 = 10_000_000;

/// Puts the caller to sleep. For programs that may sleep.
///
/// It stands as one for LSM, as `call_hook` does, and is loaded as fmod_ret and fexit too.
#[unsafe(no_mangle)]
#[unsafe(link_section = "lsm.s/call_slow")]
pub fn call_slow(ctx: *mut c_void) -> i64 {
    let at = point();
    if let Some((wanted_ns, slot)) = gate(&at, ctx) {
        if wanted_ns < SPIN_BELOW_NS { spin(wanted_ns, slot) } else { sleep::delay(wanted_ns) }
    }
    i64::from(at.goes_on)
}

/// Says how long a call shall take, before its function.
#[unsafe(no_mangle)]
#[unsafe(link_section = "lsm/call_judge")]
pub fn call_judge(ctx: *mut c_void) -> i64 {
    if let Some(subject) = concerned()
        && subject.rules != 0
    {
        let tid = task::tid();
        // SAFETY: a map value, which this thread alone reads and writes.
        if unsafe { CALL_MEMORY.get(tid) }.is_some_and(|last| last.wait_ns != 0) {
            count_lost(|stats| &raw mut stats.skipped);
        }
        let wait_ns = judged(subject, &point(), ctx).map_or(0, |(wanted_ns, _)| wanted_ns);
        let remembered = Remembered { wait_ns, ..Remembered::NOTHING };
        if !note::of_thread(&CALL_MEMORY, tid, remembered) && wait_ns != 0 {
            count_lost(|stats| &raw mut stats.no_slot);
        }
    }
    0
}

/// Has the caller wait as long as it remembers that it shall. For programs that may sleep.
#[unsafe(no_mangle)]
#[unsafe(link_section = "lsm.s/call_wait")]
pub fn call_wait(_ctx: *mut c_void) -> i64 {
    if let Some(subject) = concerned()
        && let Some(memory) = CALL_MEMORY.get_ptr_mut(task::tid())
    {
        // SAFETY: a map value, which this thread alone reads and writes.
        let wait_ns = unsafe { core::mem::replace(&mut (*memory).wait_ns, 0) };
        match wait_ns {
            0 => {}
            // At exit, the call itself has taken its time.
            _ if !gate::still_holds() => {}
            short if short < SPIN_BELOW_NS => spin(short, subject.slot),
            long => sleep::delay(long),
        }
    }
    0
}

/// A delay that nobody will make.
#[inline(always)]
fn count_lost(how: impl Fn(&mut SleepStats) -> *mut u64) {
    let Some(stats) = SLEEP_STATS.get_ptr_mut(0) else { return };
    // SAFETY: all of it is in bounds of the map's value.
    unsafe {
        atomic::add(&raw mut (*stats).asked, 1);
        atomic::add(how(&mut *stats), 1);
    }
}

/// Keeps the caller busy. For programs that may not sleep.
#[unsafe(no_mangle)]
#[unsafe(link_section = "lsm/call_spin")]
pub fn call_spin(ctx: *mut c_void) -> i64 {
    let at = point();
    if let Some((wanted_ns, slot)) = gate(&at, ctx) {
        spin(wanted_ns, slot);
    }
    i64::from(at.goes_on)
}

/// The gate for delays: for how long, and in which slot.
#[inline(always)]
fn gate(at: &CallPoint, ctx: *mut c_void) -> Option<(u64, u32)> {
    judged(concerned()?, at, ctx)
}

#[inline(always)]
fn judged(subject: Subject, at: &CallPoint, ctx: *mut c_void) -> Option<(u64, u32)> {
    let task = Task::current();
    let number = number(at, &task, ctx)?;
    // SAFETY: entries are not changed while programs run.
    let entry = unsafe { CALLS.get(CallKey { point: at.id, number }) }?;
    let subject = Subject { rules: subject.rules & entry.rules, slot: subject.slot };
    if subject.rules == 0 {
        return None;
    }
    if at.is(points::AGAIN)
        && let Some(memory) = CALL_MEMORY.get_ptr_mut(task::tid())
    {
        // SAFETY: a map value, which this thread alone reads and writes.
        unsafe {
            if (*memory).delayed != 0 {
                return None;
            }
            (*memory).delayed = 1;
        }
    }
    let call = Call::of(at, entry, &task, ctx);
    let rule = gate::any_by_fine_clock(subject.rules, subject.slot, || 0, |rule| call.passes(rule))?;
    Some((wanted_ns(rule, subject.slot)?, subject.slot))
}

/// How long this one takes.
#[inline(always)]
fn wanted_ns(rule: u32, slot: u32) -> Option<u64> {
    let shape = SHAPES.get(rule)?;
    if shape.jitter_ns == 0 {
        return Some(shape.by_ns);
    }
    let normals = SHAPE_TABLES.get(NORMAL_QUANTILES)?;
    let jitters = SHAPE_TABLES.get(shaped(shape.distribution))?;
    let normal = normals.values[quantile_index(gate::draw_for(rule, slot))];
    Some(shape.delay_ns(jitters.values[shaped_index(shape.next_variate(0, normal))]))
}

/// Keeps the caller busy, unless that would take more of a processor than a target may.
#[inline(always)]
fn spin(wanted_ns: u64, slot: u32) {
    let (Some(due), Some(stats)) = (SPIN_DUE.get_ptr_mut(slot), SLEEP_STATS.get_ptr_mut(0)) else { return };
    // SAFETY: the helper has no preconditions; all of it is in bounds of the maps' values.
    unsafe {
        atomic::add(&raw mut (*stats).asked, 1);
        let now_ns = bpf_ktime_get_ns();
        let due_ns = atomic::load(due);
        let earliest_ns = now_ns.saturating_sub(BURST_NS);
        let from_ns = if due_ns > earliest_ns { due_ns } else { earliest_ns };
        let next_ns = from_ns + wanted_ns * SPIN_SHARE;
        // Who loses the race for the budget has none left.
        if next_ns > now_ns + BURST_NS || !atomic::compare_exchange(due, due_ns, next_ns) {
            return atomic::add(&raw mut (*stats).over_budget, 1);
        }
        sleep::spin(wanted_ns);
        atomic::add(&raw mut (*stats).spun, 1);
    }
}
