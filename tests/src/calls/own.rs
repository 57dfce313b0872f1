//! Acts that are more, or less, than one call with its arguments.

use super::{
    act::{Act, Effect, Make},
    prepare::{files, in_folder, nothing, open_files, pipes, written_pipes},
    ring,
    stage::{Stage, raw_named, text},
    table::{HERE, a, act},
};

const fn own(label: &'static str, make: fn(&Stage, usize) -> i64, effect: Effect) -> Act {
    Act { label, error: "ENOMEM", prepare: nothing, make: Make::Own(make), effect, comes_first: false }
}

/// All of them.
pub const ACTS: &[Act] = &[
    own("brk", |_, _| brk(), Effect::Answers),
    act("openat relative", "EIO", in_folder, |s, n| a([HERE, s.name(n)]), Effect::Opens(1)),
    act("openat folder", "EIO", in_folder, |s, n| a([s.fd(n), s.name(n)]), Effect::Opens(1)),
    act("read pipe", "EIO", pipes, |s, n| a([s.fd(n), s.output(n), 8]), Effect::Fills),
    act("write pipe", "EIO", written_pipes, |s, n| a([s.fd(n), text(c"XXXX"), 4]), Effect::Answers),
    Act { prepare: files, ..own("openat ring", |s, n| ring::openat(s.path(n)), Effect::Answers) },
    Act { prepare: open_files, ..own("write ring", write_by_ring, Effect::Changes) },
    own("stack", |_, _| i64::from(grow(256)), Effect::Answers),
    #[cfg(target_arch = "x86_64")]
    own("mkdir 32-bit", compat::mkdir, Effect::Makes),
];

fn write_by_ring(stage: &Stage, call: usize) -> i64 {
    ring::write(stage.fd(call), text(c"XXXX"))
}

/// Asks for a page more. It fails by returning the break as it was.
fn brk() -> i64 {
    let before = raw_named("brk", [0; 6]);
    let after = raw_named("brk", [before + 4096, 0, 0, 0, 0, 0]);
    if after == before + 4096 { 0 } else { -i64::from(libc::ENOMEM) }
}

/// Takes so many pages of the stack, one call each.
#[inline(never)]
fn grow(pages: u32) -> u8 {
    let mut page = [0_u8; 4096];
    std::hint::black_box(&mut page);
    if pages == 0 { page[0] } else { grow(pages - 1) | page[4095] }
}

#[cfg(target_arch = "x86_64")]
mod compat {
    use super::Stage;

    /// Of arch/x86/entry/syscalls/syscall_32.tbl. In 64 bits it is `getpid`.
    const MKDIR: i64 = 39;

    /// By a path that 32 bits can name.
    pub fn mkdir(stage: &Stage, call: usize) -> i64 {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: new memory that has room for the path, whose end is a zero.
        unsafe {
            let at = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if at == libc::MAP_FAILED {
                return -i64::from(libc::ENOMEM);
            }
            libc::strcpy(at.cast(), stage.other(call) as *const libc::c_char);
            interrupt(MKDIR, at as i64, 0o700)
        }
    }

    fn interrupt(number: i64, first: i64, second: i64) -> i64 {
        let result: i64;
        // SAFETY: a call by the entry of 32-bit programs, which keeps all registers but r8 to r11. rbx is the compiler's.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}",
                first = inout(reg) first => _, inlateout("rax") number => result, in("rcx") second, in("rdx") 0,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _
            );
        }
        i64::from(result as i32)
    }
}
