//! Where programs for system calls are attached.

use chaos_common::syscall::point;

use super::slow::{At, How};

/// Where a program for calls is attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallPlace {
    /// A hook of the security modules.
    Lsm(String),
    /// A function, in its place.
    ModifyReturn(String),
    /// A function, before it, to take note of it.
    Begin(String),
    /// A function, in its place, by a kprobe.
    Kprobe(String),
    /// One of these, to delay.
    Delay(DelayPlace),
}

/// Where a program is attached that delays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DelayPlace {
    /// What kind of place.
    pub at: DelayAt,
    /// The hook, or the function.
    pub name: String,
    /// How it delays.
    pub how: How,
    /// Which of several of its kind there: a program is skipped where it sleeps already.
    pub copy: u32,
}

/// What kind of place delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DelayAt {
    /// A hook of the security modules.
    Lsm,
    /// A function, in its place.
    ModifyReturn,
    /// A function, after it.
    After,
}

/// So many programs stand where one is skipped while it sleeps.
const COPIES: u32 = 8;

/// The places where a call is delayed that would be answered at this one. Programs of LSM are never skipped
/// (kernel/bpf/trampoline.c, `__bpf_prog_enter_sleepable`, 6.1).
pub fn delays(at: &CallPlace, how: How, when: At, is: u32) -> (Vec<CallPlace>, u32) {
    let (at, name) = match at {
        CallPlace::Lsm(hook) => (DelayAt::Lsm, hook),
        CallPlace::ModifyReturn(function) if when == At::Exit => (DelayAt::After, function),
        CallPlace::ModifyReturn(function) => (DelayAt::ModifyReturn, function),
        CallPlace::Begin(_) | CallPlace::Kprobe(_) | CallPlace::Delay(_) => return (Vec::new(), is),
    };
    let copies = if at != DelayAt::Lsm && how == How::Sleep { COPIES } else { 1 };
    let place = |copy| CallPlace::Delay(DelayPlace { at, name: name.clone(), how, copy });
    let is = if copies > 1 { is | point::AGAIN } else { is };
    ((0..copies).map(place).collect(), is)
}
