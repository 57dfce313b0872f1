//! What the kernel and our filesystem say to one another: the few words of FUSE that one file needs
//! (include/uapi/linux/fuse.h, 6.18).

use std::ffi::CStr;

/// Requests are shorter, but the kernel insists (FUSE_MIN_READ_BUFFER).
pub const REQUEST_BYTES: usize = 8192;
/// The file's name.
pub const FILE: &CStr = c"sleep";

const HEADER_BYTES: usize = 40;
/// FUSE_ROOT_ID, and what we call the file.
const ROOT: u64 = 1;
const FILE_NODE: u64 = 2;
/// The protocol; what the kernel knows beyond it, it does not use.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
/// How long the kernel may believe us: longer than anything lasts.
const VALID_S: u64 = 1 << 32;
const DIRECTORY_MODE: u32 = 0o040_500;
const FILE_MODE: u32 = 0o100_400;

mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const RELEASE: u32 = 18;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Somebody reads the file at `offset`, and waits.
    Read {
        /// The request's number.
        unique: u64,
        /// Where.
        offset: u64,
        /// Who, as our pid namespace knows them; 0 if it does not.
        tid: u32,
    },
    /// Whoever waits for that request has got a signal.
    Interrupt {
        /// The request's number.
        unique: u64,
    },
    /// Something that is answered at once.
    AtOnce(Reply),
    /// Something that nobody answers.
    Notice,
}

impl Request {
    /// Reads it; `None` if the kernel has sent what FUSE does not know.
    pub fn parse(bytes: &[u8], file_bytes: u64) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let (opcode, unique) = (u32_at(header, 4)?, u64_at(header, 8)?);
        let (node, tid) = (u64_at(header, 16)?, u32_at(header, 32)?);
        let reply = Reply::to(unique);
        Some(match opcode {
            opcode::READ => Self::Read { unique, offset: u64_at(bytes, HEADER_BYTES + 8)?, tid },
            opcode::INTERRUPT => Self::Interrupt { unique: u64_at(bytes, HEADER_BYTES)? },
            opcode::FORGET | opcode::BATCH_FORGET => Self::Notice,
            opcode::INIT => Self::AtOnce(reply.init()),
            opcode::LOOKUP => {
                let is_file = node == ROOT && bytes.get(HEADER_BYTES..)? == FILE.to_bytes_with_nul();
                Self::AtOnce(if is_file { reply.entry(file_bytes) } else { reply.error(libc::ENOENT) })
            }
            opcode::GETATTR => Self::AtOnce(reply.attributes(node, file_bytes)),
            opcode::OPEN => Self::AtOnce(reply.u64(0).u64(0)),
            opcode::RELEASE | opcode::FLUSH => Self::AtOnce(reply),
            _ => Self::AtOnce(reply.error(libc::ENOSYS)),
        })
    }
}

/// What we answer: `struct fuse_out_header` and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl Reply {
    /// The longest is an entry.
    const MOST: usize = 16 + 128;

    /// That all is well.
    fn to(unique: u64) -> Self {
        Self { bytes: [0; Self::MOST], length: 0 }.u32(0).u32(0).u64(unique)
    }

    /// What a reader gets: an error. The page does not come to be, so the next one waits as well
    /// (mm/filemap.c, `filemap_fault`, 6.18).
    pub fn to_reader(unique: u64) -> Self {
        Self::to(unique).error(libc::EIO)
    }

    /// As the kernel takes it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn error(mut self, errno: i32) -> Self {
        self.bytes[4..8].copy_from_slice(&(-errno).to_ne_bytes());
        self
    }

    /// `struct fuse_init_out`. Nothing is read ahead.
    fn init(self) -> Self {
        const MAX_WRITE_BYTES: u32 = 4096;
        const GRANULARITY_NS: u32 = 1;
        let head = self.u32(MAJOR).u32(MINOR).u32(0).u32(0).u32(0).u32(MAX_WRITE_BYTES).u32(GRANULARITY_NS);
        (0..9).fold(head, |reply, _| reply.u32(0))
    }

    /// `struct fuse_entry_out` of the file.
    fn entry(self, file_bytes: u64) -> Self {
        let head = self.u64(FILE_NODE).u64(0).u64(VALID_S).u64(VALID_S).u64(0);
        head.node(FILE_NODE, file_bytes)
    }

    /// `struct fuse_attr_out`.
    fn attributes(self, node: u64, file_bytes: u64) -> Self {
        self.u64(VALID_S).u64(0).node(node, file_bytes)
    }

    /// `struct fuse_attr`: number, size, blocks, three times, their nanoseconds, mode, links, owner, group, device,
    /// block size, flags.
    fn node(self, node: u64, file_bytes: u64) -> Self {
        let (mode, bytes) = if node == ROOT { (DIRECTORY_MODE, 0) } else { (FILE_MODE, file_bytes) };
        let head = self.u64(node).u64(bytes).u64(0).u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
        head.u32(mode).u32(1).u32(0).u32(0).u32(0).u32(0).u32(0)
    }

    fn u32(self, value: u32) -> Self {
        self.put(&value.to_ne_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.put(&value.to_ne_bytes())
    }

    /// Its own length stands at its beginning.
    fn put(mut self, bytes: &[u8]) -> Self {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
        self.bytes[..4].copy_from_slice(&(end as u32).to_ne_bytes());
        self
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_BYTES: u64 = 1 << 20;

    fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(77_u64.to_ne_bytes());
        bytes.extend(node.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(4711_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    fn answer(opcode: u32, node: u64, body: &[u8]) -> Reply {
        match Request::parse(&request(opcode, node, body), FILE_BYTES) {
            Some(Request::AtOnce(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reader_waits() {
        let mut body = [0; 40];
        body[8..16].copy_from_slice(&(5_u64 << 12).to_ne_bytes());
        let read = Request::parse(&request(opcode::READ, FILE_NODE, &body), FILE_BYTES);
        assert_eq!(read, Some(Request::Read { unique: 77, offset: 5 << 12, tid: 4711 }));
        let reply = Reply::to_reader(77);
        assert_eq!(reply.bytes().len(), 16);
        assert_eq!(u32_at(reply.bytes(), 4), Some(-libc::EIO as u32));
    }

    #[test]
    fn a_signal_says_whose_it_is() {
        let interrupt = Request::parse(&request(opcode::INTERRUPT, 0, &99_u64.to_ne_bytes()), FILE_BYTES);
        assert_eq!(interrupt, Some(Request::Interrupt { unique: 99 }));
    }

    #[test]
    fn there_is_one_file() {
        let found = answer(opcode::LOOKUP, ROOT, b"sleep\0");
        assert_eq!(found.bytes().len(), 16 + 128);
        assert_eq!(u64_at(found.bytes(), 16), Some(FILE_NODE));
        let other = answer(opcode::LOOKUP, ROOT, b"other\0");
        assert_eq!(u32_at(other.bytes(), 4), Some(-libc::ENOENT as u32));
    }

    /// Lengths are ABI.
    #[test]
    fn answers_are_as_long_as_the_kernel_wants_them() {
        assert_eq!(answer(opcode::INIT, 0, &[0; 16]).bytes().len(), 16 + 64);
        assert_eq!(answer(opcode::GETATTR, ROOT, &[0; 16]).bytes().len(), 16 + 104);
        assert_eq!(answer(opcode::OPEN, FILE_NODE, &[0; 8]).bytes().len(), 16 + 16);
        assert_eq!(u32_at(answer(opcode::FLUSH, FILE_NODE, &[0; 24]).bytes(), 0), Some(16));
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        assert_eq!(Request::parse(&[0; 39], FILE_BYTES), None);
        assert_eq!(Request::parse(&request(opcode::READ, FILE_NODE, &[]), FILE_BYTES), None);
    }
}
