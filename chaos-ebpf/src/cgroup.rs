//! Which cgroup a socket or a thread belongs to, read out of the kernel's memory where no helper tells.

use aya_ebpf::helpers::bpf_probe_read_kernel;

use crate::maps::{SOCK_LAYOUT, STEADY_LAYOUT, global};

/// States of a socket that is none yet, or no longer (include/net/tcp_states.h).
mod state {
    pub const TIME_WAIT: u8 = 6;
    pub const NEW_SYN_RECV: u8 = 12;
}

/// The `struct cgroup` that a full `struct sock` belongs to.
#[inline(always)]
pub fn of_socket(sock: u64) -> Option<u64> {
    let offset = global(&SOCK_LAYOUT.sk_cgroup);
    // Offset 0 is a kernel whose layout is not known.
    if offset == 0 { None } else { read(sock + u64::from(offset)) }
}

/// The same for any socket that TCP has. A connection that is being opened is its listener's, one that is closed already
/// is nobody's.
#[inline(always)]
pub fn of_any_socket(sock: u64) -> Option<u64> {
    match read(sock + u64::from(global(&SOCK_LAYOUT.state)))? {
        state::TIME_WAIT => None,
        state::NEW_SYN_RECV => of_socket(read(sock + u64::from(global(&SOCK_LAYOUT.listener)))?),
        _ => of_socket(sock),
    }
}

/// The `struct cgroup` of the v2 hierarchy that a thread is in (kernel/cgroup/cgroup.c, `task_dfl_cgroup`, 6.18).
#[inline(always)]
pub fn of_task(task: u64) -> Option<u64> {
    let css_set: u64 = read(task + u64::from(global(&STEADY_LAYOUT.task_cgroups)))?;
    read(css_set + u64::from(global(&STEADY_LAYOUT.css_set_cgroup)))
}

/// Id of the ancestor of `cgroup` at `level`, as `cgroup_ancestor()` finds it (include/linux/cgroup.h, 6.18).
#[inline(always)]
pub fn ancestor_id(cgroup: u64, level: u32) -> Option<u64> {
    let own_level: u32 = read(cgroup + u64::from(global(&SOCK_LAYOUT.cgroup_level)))?;
    if level > own_level {
        return None;
    }
    let ancestor: u64 =
        read(cgroup + u64::from(global(&SOCK_LAYOUT.cgroup_ancestors)) + u64::from(level) * 8)?;
    if global(&SOCK_LAYOUT.ancestors_are_ids) != 0 {
        return Some(ancestor);
    }
    let kn: u64 = read(ancestor + u64::from(global(&SOCK_LAYOUT.cgroup_kn)))?;
    read(kn + u64::from(global(&SOCK_LAYOUT.kn_id)))
}

/// Reads kernel memory; a bad address is an error, not a fault.
#[inline(always)]
pub fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const T).ok() }
}
