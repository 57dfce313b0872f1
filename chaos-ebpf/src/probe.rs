//! Programs that a probe fires, one for each kind of hook that another file does not use yet.
//!
//! They do not ask the gate, for they are no faults: no target and no lease concerns them. What they change,
//! they change for processes of the one cgroup that the probe has made for itself and for nobody else; without
//! a probe `PROBE_CGROUP` is 0, which is no cgroup's id.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_override_return, bpf_set_retval},
    macros::{cgroup_sock_addr, fentry, fexit, kprobe, lsm, sock_ops},
    programs::{FEntryContext, FExitContext, LsmContext, ProbeContext, SockAddrContext, SockOpsContext},
};

use crate::{
    atomic,
    maps::{PROBE_CGROUP, PROBE_HITS, PROBE_RET, PROBE_SLEEP_NS, global},
    sleep,
};

/// Verdicts of a sock_addr program (kernel/bpf/cgroup.c, `bpf_prog_run_array_cg`, 6.18).
mod verdict {
    pub const REFUSE: i32 = 0;
    pub const ALLOW: i32 = 1;
}

/// Whether a BPF LSM program runs at all.
#[lsm(hook = "file_open")]
pub fn probe_lsm(_ctx: LsmContext) -> i32 {
    if is_ours() {
        hit();
    }
    0
}

/// An LSM program only in its section: it is loaded as fmod_ret, on functions that return `int` and on system
/// calls, which return `long`. Hence 64 bits and no `#[lsm]`, whose 32 leave the upper half to chance.
#[unsafe(no_mangle)]
#[unsafe(link_section = "lsm/probe_return")]
pub fn probe_return(_ctx: *mut c_void) -> i64 {
    if !is_ours() {
        return 0;
    }
    hit();
    i64::from(global(&PROBE_RET))
}

/// Whether a caller can be delayed. In its section as above; it is loaded as one that may sleep.
#[unsafe(no_mangle)]
#[unsafe(link_section = "lsm.s/probe_sleep")]
pub fn probe_sleep(_ctx: *mut c_void) -> i64 {
    if is_ours() {
        hit();
        sleep::delay(global(&PROBE_SLEEP_NS));
    }
    0
}

/// Whether a function's entry can be watched.
#[fentry]
pub fn probe_fentry(_ctx: FEntryContext) -> i32 {
    if is_ours() {
        hit();
    }
    0
}

/// Whether a function's end can be watched.
#[fexit]
pub fn probe_fexit(_ctx: FExitContext) -> i32 {
    if is_ours() {
        hit();
    }
    0
}

/// Whether kprobes run.
#[kprobe]
pub fn probe_kprobe(_ctx: ProbeContext) -> u32 {
    if is_ours() {
        hit();
    }
    0
}

/// Whether a kprobe may answer in a function's place.
#[kprobe]
pub fn probe_override(ctx: ProbeContext) -> u32 {
    if is_ours() {
        hit();
        // SAFETY: the registers are those the kernel handed to the program.
        unsafe { bpf_override_return(ctx.regs.cast(), i64::from(global(&PROBE_RET)) as u64) };
    }
    0
}

/// Whether a connection can be refused with an error of our choice.
#[cgroup_sock_addr(connect4)]
pub fn probe_connect(_ctx: SockAddrContext) -> i32 {
    if !is_ours() {
        return verdict::ALLOW;
    }
    hit();
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_set_retval(global(&PROBE_RET)) };
    verdict::REFUSE
}

/// Whether TCP's events reach us. It only counts, and is attached to the probe's cgroup alone.
#[sock_ops]
pub fn probe_sock_ops(_ctx: SockOpsContext) -> u32 {
    hit();
    1
}

/// Whether the calling process belongs to the probe.
#[inline(always)]
fn is_ours() -> bool {
    let ours = global(&PROBE_CGROUP);
    // SAFETY: the helper has no preconditions; all hooks above run in the context of who called.
    ours != 0 && unsafe { bpf_get_current_cgroup_id() } == ours
}

#[inline(always)]
fn hit() {
    if let Some(hits) = PROBE_HITS.get_ptr_mut(0) {
        atomic::add(hits, 1);
    }
}
