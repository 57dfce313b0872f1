//! Which cgroup a socket belongs to, read out of the kernel's memory where no helper tells.

use aya_ebpf::helpers::bpf_probe_read_kernel;

use crate::maps::{SOCK_LAYOUT, global};

/// The `struct cgroup` that a full `struct sock` belongs to.
#[inline(always)]
pub fn of_socket(sock: u64) -> Option<u64> {
    let offset = global(&SOCK_LAYOUT.sk_cgroup);
    // Offset 0 is a kernel whose layout is not known.
    if offset == 0 { None } else { read(sock + u64::from(offset)) }
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
