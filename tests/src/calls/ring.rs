//! A ring of io_uring for one request at a time.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use super::stage::raw;

/// Numbers of include/uapi/linux/io_uring.h (6.12).
const OP_OPENAT: u8 = 18;
const OP_WRITE: u8 = 23;
const ENTER_GETEVENTS: i64 = 1;
const OFF_SQES: i64 = 0x1000_0000;
const SQE_BYTES: usize = 64;
const RING_BYTES: usize = 4096;
const ENTRIES: i64 = 1;

const SETUP: u32 = libc::SYS_io_uring_setup as u32;
const ENTER: u32 = libc::SYS_io_uring_enter as u32;

/// Of `struct io_uring_params`: 10 words, then the offsets of the two rings, 10 words each.
const PARAMS_WORDS: usize = 30;
/// Where in it the offsets are of the first ring's tail and array, and of the second's tail and entries.
const SQ_TAIL: usize = 11;
const SQ_ARRAY: usize = 16;
const CQ_TAIL: usize = 21;
const CQ_ENTRIES: usize = 25;

/// Opens a file to read it.
pub fn openat(path: i64) -> i64 {
    request(OP_OPENAT, libc::AT_FDCWD, path, 0, libc::O_RDONLY as u32)
}

/// Writes four bytes.
pub fn write(fd: i64, from: i64) -> i64 {
    request(OP_WRITE, fd as i32, from, 4, 0)
}

/// One that children get too.
pub fn inherited() -> io::Result<OwnedFd> {
    let mut params = [0_u32; PARAMS_WORDS];
    let fd = raw(SETUP, [ENTRIES, params.as_mut_ptr() as i64, 0, 0, 0, 0]);
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd as i32));
    }
    // SAFETY: a new descriptor, ours alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    nix::fcntl::fcntl(&fd, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    Ok(fd)
}

/// What one request came to.
fn request(code: u8, fd: i32, address: i64, length: u32, flags: u32) -> i64 {
    let mut params = [0_u32; PARAMS_WORDS];
    let ring = raw(SETUP, [ENTRIES, params.as_mut_ptr() as i64, 0, 0, 0, 0]);
    if ring < 0 {
        return ring;
    }
    // SAFETY: a new descriptor, ours alone.
    let ring = unsafe { OwnedFd::from_raw_fd(ring as i32) };
    // SAFETY: both mappings are as long as what the kernel keeps there for one entry, and the offsets are its own.
    unsafe {
        // IORING_FEAT_SINGLE_MMAP (5.4): one mapping for both.
        let (rings, entry) = (map(&ring, 0), map(&ring, OFF_SQES));
        if rings == libc::MAP_FAILED || entry == libc::MAP_FAILED {
            return -i64::from(libc::ENOMEM);
        }
        let (rings, entry) = (rings.cast::<u8>(), entry.cast::<u8>());
        ptr::write_bytes(entry, 0, SQE_BYTES);
        entry.write(code);
        entry.add(4).cast::<i32>().write(fd);
        entry.add(16).cast::<i64>().write(address);
        entry.add(24).cast::<u32>().write(length);
        entry.add(28).cast::<u32>().write(flags);
        let word = |place: usize| &*rings.add(params[place] as usize).cast::<AtomicU32>();
        word(SQ_ARRAY).store(0, Ordering::SeqCst);
        word(SQ_TAIL).store(1, Ordering::SeqCst);
        let entered = raw(ENTER, [ring.as_raw_fd().into(), 1, 1, ENTER_GETEVENTS, 0, 0]);
        if entered != 1 || word(CQ_TAIL).load(Ordering::SeqCst) != 1 {
            return entered.min(-1);
        }
        let result = rings.add(params[CQ_ENTRIES] as usize + 8).cast::<i32>().read();
        libc::munmap(rings.cast(), RING_BYTES);
        libc::munmap(entry.cast(), RING_BYTES);
        result.into()
    }
}

fn map(ring: &OwnedFd, offset: i64) -> *mut libc::c_void {
    let (how, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    // SAFETY: new memory.
    unsafe { libc::mmap(ptr::null_mut(), RING_BYTES, how, flags, ring.as_raw_fd(), offset) }
}
