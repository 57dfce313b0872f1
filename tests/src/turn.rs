//! Tests that get in each other's way take turns.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A test's place among the others; it lasts as long as this.
pub enum Turn {
    /// Beside others.
    Beside { _others: RwLockReadGuard<'static, ()> },
    /// While no other test runs.
    Alone { _nobody: RwLockWriteGuard<'static, ()> },
}

/// A test that looks at the time has the machine for itself: where processors are emulated, one program that starts holds all
/// others up for longer than the delays that are looked at.
pub fn take(alone: bool) -> Turn {
    static ALL: RwLock<()> = RwLock::new(());
    match alone {
        true => Turn::Alone { _nobody: ALL.write().unwrap_or_else(PoisonError::into_inner) },
        false => Turn::Beside { _others: ALL.read().unwrap_or_else(PoisonError::into_inner) },
    }
}

/// For tests with programs where system calls pass, at hooks or at functions: some are timed, and at one function those
/// of several do not get along. A kprobe's answer is lost where a program of fmod_ret or fexit is
/// (arch/x86/net/bpf_jit_comp.c, `arch_prepare_bpf_trampoline`, 6.12: it calls the function itself).
pub fn at_calls() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed has left nothing in it that could be wrong.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
