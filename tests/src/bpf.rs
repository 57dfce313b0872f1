//! The few calls of bpf(2) that aya has no function for: somebody else's program, made by hand, and what is
//! attached to a cgroup.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// Commands (include/uapi/linux/bpf.h, `enum bpf_cmd`, 6.18).
mod command {
    pub const MAP_CREATE: i64 = 0;
    pub const MAP_LOOKUP_ELEM: i64 = 1;
    pub const PROG_LOAD: i64 = 5;
    pub const PROG_QUERY: i64 = 16;
    pub const LINK_CREATE: i64 = 28;
}

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;

/// Where programs sit at a cgroup (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug)]
pub enum CgroupHook {
    /// Packets that arrive.
    Ingress = 0,
    /// Packets that leave.
    Egress = 1,
}

/// Each is the head of `union bpf_attr` for one command; the kernel takes what is missing as zeros.
fn bpf<T>(command: i64, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is that long, and every pointer in it is valid during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: bpf(2) has just returned it, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Ids of the programs attached to a cgroup itself.
pub fn programs_at(cgroup: &Path, hook: CgroupHook) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Query {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        spare: u32,
    }
    const MOST: usize = 64;
    let cgroup = File::open(cgroup)?;
    let mut ids = vec![0_u32; MOST];
    let mut query = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: hook as u32,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        spare: 0,
    };
    bpf(command::PROG_QUERY, &mut query)?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

/// A map of one number, which starts at 0.
pub struct Number(OwnedFd);

impl Number {
    /// A new one.
    pub fn new() -> io::Result<Self> {
        #[repr(C)]
        struct Create {
            map_type: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
        }
        let mut create = Create { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: 1 };
        Ok(Self(owned(bpf(command::MAP_CREATE, &mut create)?)))
    }

    /// What it is now.
    pub fn get(&self) -> io::Result<u64> {
        #[repr(C)]
        struct Lookup {
            map_fd: u32,
            spare: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let (key, mut value) = (0_u32, 0_u64);
        let mut lookup = Lookup {
            map_fd: self.0.as_raw_fd() as u32,
            spare: 0,
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_mut(&mut value) as u64,
            flags: 0,
        };
        bpf(command::MAP_LOOKUP_ELEM, &mut lookup)?;
        Ok(value)
    }
}

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low, source in the high four bits.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

const PSEUDO_MAP_FD: u8 = 1;
/// The helper that finds an entry of a map.
const LOOKUP: i32 = 1;
/// Loads a classifier that counts packets, and returns a verdict for each `nth` and "next" for the others.
pub fn load_counting_classifier(name: &str, number: &Number, nth: i32, verdict: i32) -> io::Result<OwnedFd> {
    const ADD_AND_FETCH: i32 = 1;
    let map = number.0.as_raw_fd();
    let instructions = [
        instruction(0x62, 10, 0, -4, 0),             // *(u32 *)(r10 - 4) = 0
        instruction(0xbf, 2, 10, 0, 0),              // r2 = r10
        instruction(0x07, 2, 0, 0, -4),              // r2 += -4
        instruction(0x18, 1, PSEUDO_MAP_FD, 0, map), // r1 = map
        instruction(0x00, 0, 0, 0, 0),               // (its upper half)
        instruction(0x85, 0, 0, 0, LOOKUP),          // call lookup
        instruction(0x15, 0, 0, 5, 0),               // if r0 == 0 goto next
        instruction(0xb7, 1, 0, 0, 1),               // r1 = 1
        instruction(0xdb, 0, 1, 0, ADD_AND_FETCH),   // r1 = atomic_fetch_add((u64 *)r0, r1)
        instruction(0x97, 1, 0, 0, nth),             // r1 %= nth
        instruction(0xb7, 0, 0, 0, verdict),         // r0 = verdict
        instruction(0x15, 1, 0, 1, nth - 1),         // if r1 == nth - 1 goto exit
        instruction(0xb7, 0, 0, 0, NEXT),            // next: r0 = -1
        instruction(0x95, 0, 0, 0, 0),               // exit: return r0
    ];
    load_classifier(name, &instructions)
}

/// Loads a program for connect(2) that counts, and refuses if it is given an errno.
pub fn load_counting_connect4(number: &Number, errno: Option<i32>) -> io::Result<OwnedFd> {
    const SET_RETVAL: i32 = 187;
    const ADD: i32 = 0;
    let map = number.0.as_raw_fd();
    let mut instructions = vec![
        instruction(0x62, 10, 0, -4, 0),             // *(u32 *)(r10 - 4) = 0
        instruction(0xbf, 2, 10, 0, 0),              // r2 = r10
        instruction(0x07, 2, 0, 0, -4),              // r2 += -4
        instruction(0x18, 1, PSEUDO_MAP_FD, 0, map), // r1 = map
        instruction(0x00, 0, 0, 0, 0),               // (its upper half)
        instruction(0x85, 0, 0, 0, LOOKUP),          // call lookup
        instruction(0x15, 0, 0, 2, 0),               // if r0 == 0 goto on
        instruction(0xb7, 1, 0, 0, 1),               // r1 = 1
        instruction(0xdb, 0, 1, 0, ADD),             // lock *(u64 *)r0 += r1
    ];
    if let Some(errno) = errno {
        instructions.push(instruction(0xb7, 1, 0, 0, -errno)); // on: r1 = -errno
        instructions.push(instruction(0x85, 0, 0, 0, SET_RETVAL)); // call set_retval
    }
    instructions.push(instruction(0xb7, 0, 0, 0, i32::from(errno.is_none()))); // r0 = verdict
    instructions.push(instruction(0x95, 0, 0, 0, 0)); // return r0
    load("connect4", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT, &instructions)
}

/// Attaches such a program beside others.
pub fn link_connect4(program: &OwnedFd, cgroup: &File) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        program_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut create = Create {
        program_fd: program.as_raw_fd() as u32,
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_INET4_CONNECT,
        flags: 0,
    };
    bpf(command::LINK_CREATE, &mut create).map(owned)
}

/// Loads a classifier that counts packets with a mark, and lets all go on.
pub fn load_mark_counter(name: &str, number: &Number, mark: i32) -> io::Result<OwnedFd> {
    const ADD: i32 = 0;
    /// Where `mark` is in `struct __sk_buff`.
    const MARK: i16 = 8;
    let map = number.0.as_raw_fd();
    let instructions = [
        instruction(0x61, 1, 1, MARK, 0),            // r1 = (u32) skb->mark
        instruction(0x55, 1, 0, 9, mark),            // if r1 != mark goto next
        instruction(0x62, 10, 0, -4, 0),             // *(u32 *)(r10 - 4) = 0
        instruction(0xbf, 2, 10, 0, 0),              // r2 = r10
        instruction(0x07, 2, 0, 0, -4),              // r2 += -4
        instruction(0x18, 1, PSEUDO_MAP_FD, 0, map), // r1 = map
        instruction(0x00, 0, 0, 0, 0),               // (its upper half)
        instruction(0x85, 0, 0, 0, LOOKUP),          // call lookup
        instruction(0x15, 0, 0, 2, 0),               // if r0 == 0 goto next
        instruction(0xb7, 1, 0, 0, 1),               // r1 = 1
        instruction(0xdb, 0, 1, 0, ADD),             // lock *(u64 *)r0 += r1
        instruction(0xb7, 0, 0, 0, NEXT),            // next: r0 = -1
        instruction(0x95, 0, 0, 0, 0),               // return r0
    ];
    load_classifier(name, &instructions)
}

/// TC_ACT_UNSPEC.
const NEXT: i32 = -1;

/// What the two programs below agree on.
const MARK: i32 = 0x6d61;
/// Places in `struct __sk_buff` (include/uapi/linux/bpf.h, 6.18).
const SKB_MARK: i16 = 8;
const SKB_TC_INDEX: i16 = 44;

/// Loads a classifier that marks packets without a mark, and counts those that have its mark already.
pub fn load_marking_classifier(name: &str, number: &Number) -> io::Result<OwnedFd> {
    let mut instructions = vec![
        instruction(0x61, 7, 1, SKB_MARK, 0), // r7 = mark
        instruction(0x15, 7, 0, 5, MARK),     // if r7 == MARK goto count
        instruction(0x55, 7, 0, 2, 0),        // if r7 != 0 goto next
        instruction(0xb7, 7, 0, 0, MARK),     // r7 = MARK
        instruction(0x63, 1, 7, SKB_MARK, 0), // mark = r7
        instruction(0xb7, 0, 0, 0, NEXT),     // next: r0 = -1
        instruction(0x95, 0, 0, 0, 0),        // return r0
    ];
    instructions.extend(count(number));
    load_classifier(name, &instructions)
}

/// Loads a classifier that counts packets with that mark and without an index.
pub fn load_marked_classifier(name: &str, number: &Number) -> io::Result<OwnedFd> {
    let mut instructions = vec![
        instruction(0x61, 7, 1, SKB_MARK, 0),     // r7 = mark
        instruction(0x55, 7, 0, 2, MARK),         // if r7 != MARK goto next
        instruction(0x61, 7, 1, SKB_TC_INDEX, 0), // r7 = tc_index
        instruction(0x15, 7, 0, 2, 0),            // if r7 == 0 goto count
        instruction(0xb7, 0, 0, 0, NEXT),         // next: r0 = -1
        instruction(0x95, 0, 0, 0, 0),            // return r0
    ];
    instructions.extend(count(number));
    load_classifier(name, &instructions)
}

/// Adds 1 to a number and goes on to the next program.
fn count(number: &Number) -> [Instruction; 11] {
    let map = number.0.as_raw_fd();
    [
        instruction(0x62, 10, 0, -4, 0),             // *(u32 *)(r10 - 4) = 0
        instruction(0xbf, 2, 10, 0, 0),              // r2 = r10
        instruction(0x07, 2, 0, 0, -4),              // r2 += -4
        instruction(0x18, 1, PSEUDO_MAP_FD, 0, map), // r1 = map
        instruction(0x00, 0, 0, 0, 0),               // (its upper half)
        instruction(0x85, 0, 0, 0, LOOKUP),          // call lookup
        instruction(0x15, 0, 0, 2, 0),               // if r0 == 0 goto next
        instruction(0xb7, 1, 0, 0, 1),               // r1 = 1
        instruction(0xdb, 0, 1, 0, 0),               // atomic *(u64 *)r0 += r1
        instruction(0xb7, 0, 0, 0, NEXT),            // next: r0 = -1
        instruction(0x95, 0, 0, 0, 0),               // return r0
    ]
}

fn load_classifier(name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    load(name, BPF_PROG_TYPE_SCHED_CLS, 0, instructions)
}

fn load(
    name: &str,
    program_type: u32,
    attach_type: u32,
    instructions: &[Instruction],
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        licence: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        ifindex: u32,
        attach_type: u32,
    }
    let mut padded = [0; 16];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    let mut load = Load {
        program_type,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: padded,
        ifindex: 0,
        attach_type,
    };
    Ok(owned(bpf(command::PROG_LOAD, &mut load)?))
}
