//! Where programs for system calls are attached.

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
    /// A function, before it, to say how long it shall take.
    Judge(String),
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

/// Where a call is judged that shall take longer, and where it then waits, if that is elsewhere. Programs of LSM are never
/// skipped (kernel/bpf/trampoline.c, `__bpf_prog_enter_sleepable`, 6.1).
pub fn delays(at: &CallPlace, how: How, when: At) -> Option<(CallPlace, Vec<DelayPlace>)> {
    let (at, name) = match at {
        CallPlace::Lsm(hook) => (DelayAt::Lsm, hook),
        CallPlace::ModifyReturn(function) if when == At::Exit => (DelayAt::After, function),
        CallPlace::ModifyReturn(function) => (DelayAt::ModifyReturn, function),
        CallPlace::Begin(_) | CallPlace::Judge(_) | CallPlace::Kprobe(_) | CallPlace::Delay(_) => {
            return None;
        }
    };
    let place = |copy| DelayPlace { at, name: name.clone(), how, copy };
    Some(if at != DelayAt::Lsm && how == How::Sleep {
        (CallPlace::Judge(name.clone()), (0..COPIES).map(place).collect())
    } else {
        (CallPlace::Delay(place(0)), Vec::new())
    })
}
