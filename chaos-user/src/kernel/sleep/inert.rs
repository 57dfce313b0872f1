//! The process whose memory sleepers read. It maps the file, and then does nothing until it is killed: whoever reads
//! holds the lock of its memory map (mm/memory.c, `__access_remote_vm`, 6.18), so that all would wait for one another
//! if it ever changed that map.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    ptr,
};

use nix::sys::prctl;

use super::{fuse, mount};

/// What it has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where it has mapped the file.
    pub base: u64,
    /// The filesystem's device number.
    pub device: u64,
}

impl Mapped {
    /// How long it is as it tells it.
    pub const BYTES: usize = 16;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        (u128::from(self.device) << 64 | u128::from(self.base)).to_le_bytes()
    }

    /// As it has told it.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self { base: both as u64, device: (both >> 64) as u64 }
    }
}

/// Maps the file below `root`, tells where, and stays. That `report` is closed says that it has ended.
pub fn stay(root: OwnedFd, length: usize, mut report: File) -> io::Result<()> {
    let file = mount::open_at(root.as_fd(), fuse::FILE, libc::O_RDONLY)?;
    drop(root);
    // Nobody shall tidy up this memory, which takes its lock.
    prctl::set_thp_disable(true)?;
    let mapped = Mapped { base: map(&file, length)?, device: file.metadata()?.dev() };
    drop(file);
    report.write_all(&mapped.to_bytes())?;
    loop {
        // SAFETY: the call takes no memory.
        unsafe { libc::pause() };
    }
}

/// Shared and read-only, so that no page of it is ever ours or dirty. A page is read alone, not with its neighbours.
fn map(file: &File, length: usize) -> io::Result<u64> {
    let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
    // SAFETY: a new mapping, which nobody reads here.
    let (address, advised) = unsafe {
        let address = libc::mmap(ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0);
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        (address, libc::madvise(address, length, libc::MADV_RANDOM))
    };
    if advised < 0 { Err(io::Error::last_os_error()) } else { Ok(address as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let mapped = Mapped { base: 0x7fff_1234_5000, device: 0x2b };
        assert_eq!(Mapped::from_bytes(mapped.to_bytes()), mapped);
    }
}
