//! Constants of single loads, which aya has for a whole object only.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use chaos_common::Pod;

use super::raw_prog::{NAME_BYTES, bpf, command, kernel_name};

/// A constant of a single load: a map that programs only read and that nobody changes any more, of whose value the verifier
/// therefore makes use.
pub fn constant<T: Pod>(name: &str, value: T) -> io::Result<OwnedFd> {
    let mut create = CreateMap {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_bytes: 4,
        value_bytes: size_of::<T>() as u32,
        max_entries: 1,
        flags: BPF_F_RDONLY_PROG,
        inner_map: 0,
        numa_node: 0,
        name: kernel_name(name),
    };
    let map = bpf(BPF_MAP_CREATE, &mut create)?;
    let key = 0_u32;
    let mut update = UpdateMap {
        map: map.as_raw_fd() as u32,
        spare: 0,
        key: &raw const key as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    command(BPF_MAP_UPDATE_ELEM, &mut update)?;
    command(BPF_MAP_FREEZE, &mut FreezeMap { map: map.as_raw_fd() as u32 })?;
    Ok(map)
}

// include/uapi/linux/bpf.h, 6.18.
const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_MAP_FREEZE: i64 = 22;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_RDONLY_PROG: u32 = 1 << 7;

/// The head of `union bpf_attr` for BPF_MAP_CREATE (include/uapi/linux/bpf.h, 6.18).
#[repr(C)]
struct CreateMap {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; NAME_BYTES],
}

/// The same for BPF_MAP_UPDATE_ELEM.
#[repr(C)]
struct UpdateMap {
    map: u32,
    spare: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The same for BPF_MAP_FREEZE.
#[repr(C)]
struct FreezeMap {
    map: u32,
}
