//! Delays whoever makes a call. For programs that may sleep and run in the context of the caller.
//!
//! There is no helper to sleep up to 7.3. `bpf_copy_from_user_task` reads the memory of another process and, like any
//! reader, waits for a page that is not there yet; the page is one of a file that we serve ourselves, and it is
//! there when the delay is over (chaos-user/src/kernel/sleep). It never holds anything: the answer is an error, which
//! is what the helper returns however long it waited. Hence the clock says whether the caller slept.

use core::{ffi::c_void, mem};

use aya_ebpf::{
    bindings::task_struct,
    helpers::{bpf_copy_from_user_task, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_loop},
};
use chaos_common::{
    kfunc,
    sleep::{
        ATTEMPTS, LONGEST_SPIN_NS, SleepConfig, SleepRequest, SleepState, SleepStats, Way, late_class, slot,
        was_delivered,
    },
};

use crate::{
    atomic,
    maps::{SLEEP_CONFIG, SLEEP_SLOTS, SLEEP_STATE, SLEEP_STATS},
};

/// What came of a delay.
enum Outcome {
    /// It slept, this long.
    Slept(u64),
    /// Too many sleep already.
    TooMany,
    /// No slot was found.
    NoSlot,
}

/// Delays the caller, or does not where that is not to be; counts which.
#[inline(always)]
pub fn delay(wanted_ns: u64) {
    let (Some(config), Some(stats)) = (SLEEP_CONFIG.get(0), SLEEP_STATS.get_ptr_mut(0)) else { return };
    // SAFETY: all of it is in bounds of the map's value.
    unsafe {
        atomic::add(&raw mut (*stats).asked, 1);
        if is_spared(config) {
            return atomic::add(&raw mut (*stats).spared, 1);
        }
        match Way::of(wanted_ns, config.longest_ns) {
            Way::Refuse => atomic::add(&raw mut (*stats).refused, 1),
            Way::Spin => {
                spin(wanted_ns);
                atomic::add(&raw mut (*stats).spun, 1);
            }
            Way::Sleep => match sleep(config, wanted_ns) {
                Outcome::Slept(delivered_ns) => count(stats, wanted_ns, delivered_ns),
                Outcome::TooMany => atomic::add(&raw mut (*stats).refused, 1),
                Outcome::NoSlot => atomic::add(&raw mut (*stats).no_slot, 1),
            },
        }
    }
}

/// Whether the caller is one of our own.
#[inline(always)]
fn is_spared(config: &SleepConfig) -> bool {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    tgid == config.inert_tid || config.spared_tgids.contains(&tgid)
}

/// The map's value belongs to the processor that the program began on, which it stays on while it sleeps
/// (kernel/bpf/trampoline.c, `__bpf_prog_enter_sleepable_recur`: `migrate_disable`, 6.18).
#[inline(always)]
unsafe fn count(stats: *mut SleepStats, wanted_ns: u64, delivered_ns: u64) {
    // SAFETY: all of it is in bounds of the map's value.
    unsafe {
        if !was_delivered(wanted_ns, delivered_ns) {
            return atomic::add(&raw mut (*stats).cut_short, 1);
        }
        atomic::add(&raw mut (*stats).slept, 1);
        atomic::add(&raw mut (*stats).wanted_ns, wanted_ns);
        atomic::add(&raw mut (*stats).delivered_ns, delivered_ns);
        if let Some(late) = (*stats).late.get_mut(late_class(wanted_ns, delivered_ns)) {
            atomic::add(late, 1);
        }
    }
}

/// Sleeps, unless too many do.
#[inline(always)]
fn sleep(config: &SleepConfig, wanted_ns: u64) -> Outcome {
    let Some(state) = SLEEP_STATE.get_ptr_mut(0) else { return Outcome::NoSlot };
    // SAFETY: in bounds of the map's value.
    let asleep = unsafe { &raw mut (*state).asleep };
    let outcome = if atomic::fetch_add(asleep, 1) >= config.at_once {
        Outcome::TooMany
    } else {
        sleep_in_a_slot(config, state, wanted_ns)
    };
    atomic::add(asleep, MINUS_ONE);
    outcome
}

const MINUS_ONE: u64 = u64::MAX;

#[inline(always)]
fn sleep_in_a_slot(config: &SleepConfig, state: *mut SleepState, wanted_ns: u64) -> Outcome {
    // SAFETY: in bounds of the map's value.
    let turn = atomic::fetch_add(unsafe { &raw mut (*state).turn }, 1);
    for attempt in 0..ATTEMPTS {
        let number = slot(turn, attempt);
        let Some(request) = SLEEP_SLOTS.get_ptr_mut(number) else { return Outcome::NoSlot };
        // SAFETY: all of it is in bounds of the map's value.
        if atomic::compare_exchange(unsafe { &raw mut (*request).taken }, 0, 1) {
            let address = config.base + u64::from(number) * config.page_bytes;
            let delivered_ns = fault_in(config.inert_tid, address, request, wanted_ns);
            // SAFETY: as above. Nobody else writes a slot that is taken.
            unsafe { (&raw mut (*request).taken).write_volatile(0) };
            return Outcome::Slept(delivered_ns);
        }
    }
    Outcome::NoSlot
}

/// Reads what is not there, which takes as long as the request says; returns how long it took.
#[inline(always)]
fn fault_in(inert_tid: u32, address: u64, request: *mut SleepRequest, wanted_ns: u64) -> u64 {
    let asked_ns = now_ns();
    // SAFETY: in bounds of the map's value. Volatile, as the daemon reads it. The task is released on every path.
    unsafe {
        (&raw mut (*request).asked_ns).write_volatile(asked_ns);
        (&raw mut (*request).wanted_ns).write_volatile(wanted_ns);
        let inert = task_from_pid(inert_tid as i32);
        if !inert.is_null() {
            let mut byte = 0_u8;
            bpf_copy_from_user_task((&raw mut byte).cast(), 1, address as *const c_void, inert, 0);
            task_release(inert);
        }
    }
    now_ns() - asked_ns
}

/// Keeps the processor busy, for [`LONGEST_SPIN_NS`] at most.
#[inline(always)]
pub fn spin(wanted_ns: u64) {
    /// Each takes 10 ns at the very least.
    const MOST_ROUNDS: u32 = (LONGEST_SPIN_NS / 10) as u32;
    let capped_ns = if wanted_ns < LONGEST_SPIN_NS { wanted_ns } else { LONGEST_SPIN_NS };
    let mut until_ns = now_ns() + capped_ns;
    // SAFETY: the callback takes what it is given here.
    unsafe { bpf_loop(MOST_ROUNDS, is_over as *mut c_void, (&raw mut until_ns).cast(), 0) };
}

/// 1 ends the loop.
extern "C" fn is_over(_round: u64, until_ns: *mut c_void) -> i64 {
    // SAFETY: `spin` has handed it over.
    i64::from(now_ns() >= unsafe { *until_ns.cast::<u64>() })
}

/// CLOCK_MONOTONIC.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Finds a task by its number in the first pid namespace. It has to be released.
#[inline(always)]
unsafe fn task_from_pid(tid: i32) -> *mut task_struct {
    // SAFETY: the loader puts the kernel's function there, which has this type.
    unsafe {
        let function: unsafe extern "C" fn(i32) -> *mut task_struct =
            mem::transmute(kfunc::TASK_FROM_PID as usize);
        function(tid)
    }
}

#[inline(always)]
unsafe fn task_release(task: *mut task_struct) {
    // SAFETY: as above.
    unsafe {
        let function: unsafe extern "C" fn(*mut task_struct) = mem::transmute(kfunc::TASK_RELEASE as usize);
        function(task);
    }
}
