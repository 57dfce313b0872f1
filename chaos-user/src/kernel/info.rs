//! What the kernel says of a program that it has loaded.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya_obj::generated::bpf_prog_info;

use super::raw_prog::command;

/// All that it says, but for what needs room of its own.
pub fn of(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: plain numbers and addresses, none of which is needed.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    let mut question = InfoByFd {
        program: program.as_raw_fd() as u32,
        info_bytes: mem::size_of::<bpf_prog_info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    command(BPF_OBJ_GET_INFO_BY_FD, &mut question)?;
    Ok(info)
}

const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;

/// The head of `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD (include/uapi/linux/bpf.h, 6.18).
#[repr(C)]
struct InfoByFd {
    program: u32,
    info_bytes: u32,
    info: u64,
}
