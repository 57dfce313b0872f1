//! Who calls, and with what.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_task_pt_regs};
use chaos_common::syscall::CallLayout;

use crate::{
    cgroup::read,
    maps::{CALL_LAYOUT, global},
};

/// Where an architecture keeps what a call was made with, in the `struct pt_regs` of its entry into the kernel.
#[cfg(bpf_target_arch = "x86_64")]
mod regs {
    /// `orig_ax` (arch/x86/include/asm/ptrace.h, 5.15 to 7.3). -1 in an exception.
    pub const NUMBER: u64 = 120;
    /// di, si, dx, r10, r8, r9.
    pub const ARGUMENTS: [u64; 6] = [112, 104, 96, 56, 72, 64];
    /// TS_COMPAT (arch/x86/include/asm/thread_info.h): the call came by a 32-bit entry.
    pub const COMPAT: u32 = 2;
}

/// The same for arm64.
#[cfg(bpf_target_arch = "aarch64")]
mod regs {
    /// `syscallno` (arch/arm64/include/asm/ptrace.h, 5.15 to 7.3), behind `user_regs` and `orig_x0`.
    pub const NUMBER: u64 = 280;
    /// The first where it was before an answer took its place, `orig_x0`; x1 to x5.
    pub const ARGUMENTS: [u64; 6] = [272, 8, 16, 24, 32, 40];
    /// `pstate`.
    pub const PSTATE: u64 = 264;
    /// PSR_MODE32_BIT (arch/arm64/include/uapi/asm/ptrace.h).
    pub const MODE32: u64 = 0x10;
}

/// PF_IO_WORKER (include/linux/sched.h, 5.15 to 7.3): a thread of the kernel that does what a ring was asked for.
const PF_IO_WORKER: u32 = 0x10;
/// `io_uring_enter`, on both architectures.
const IO_URING_ENTER: u32 = 426;

/// The thread that calls.
pub struct Task {
    task: u64,
    regs: u64,
}

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helpers have no preconditions.
        unsafe {
            let task = bpf_get_current_task_btf();
            Self { task: task as u64, regs: bpf_task_pt_regs(task) as u64 }
        }
    }

    /// The same by what a tracepoint was handed.
    #[inline(always)]
    pub fn of(task: u64, regs: u64) -> Self {
        Self { task, regs }
    }

    /// The number of the call that it is in.
    #[inline(always)]
    pub fn number(&self) -> u32 {
        read(self.regs + regs::NUMBER).unwrap_or(u32::MAX)
    }

    /// An argument of the call, from 1; 0 for argument 0.
    #[inline(always)]
    pub fn argument(&self, place: u32) -> u64 {
        let offset = match place {
            1 => regs::ARGUMENTS[0],
            2 => regs::ARGUMENTS[1],
            3 => regs::ARGUMENTS[2],
            4 => regs::ARGUMENTS[3],
            5 => regs::ARGUMENTS[4],
            6 => regs::ARGUMENTS[5],
            _ => return 0,
        };
        read(self.regs + offset).unwrap_or(0)
    }

    /// Whether the call is one of a 32-bit program.
    #[inline(always)]
    pub fn is_32_bit(&self) -> bool {
        #[cfg(bpf_target_arch = "x86_64")]
        {
            let status: u32 = self.member(global(&CALL_LAYOUT.task_status)).unwrap_or(0);
            status & regs::COMPAT != 0
        }
        #[cfg(bpf_target_arch = "aarch64")]
        {
            let pstate: u64 = read(self.regs + regs::PSTATE).unwrap_or(0);
            pstate & regs::MODE32 != 0
        }
    }

    /// Whether it does what a ring of io_uring was asked for.
    #[inline(always)]
    pub fn is_in_uring(&self) -> bool {
        let flags: u32 = self.member(global(&CALL_LAYOUT.task_flags)).unwrap_or(0);
        flags & PF_IO_WORKER != 0 || self.number() == IO_URING_ENTER
    }

    /// The open file that a descriptor stands for (include/linux/fdtable.h, `files_lookup_fd_raw`, 6.12); 0 for none.
    #[inline(always)]
    pub fn file(&self, fd: u32) -> u64 {
        let layout = layout();
        let table = || -> Option<u64> {
            let files: u64 = self.member(layout.task_files)?;
            let table: u64 = read(files + u64::from(layout.files_fdt))?;
            let most: u32 = read(table + u64::from(layout.fdt_max))?;
            let files: u64 = if fd < most { read(table + u64::from(layout.fdt_fd))? } else { return None };
            read(files + 8 * u64::from(fd))
        };
        table().unwrap_or(0)
    }

    /// Where the `struct path` of its working directory is; 0 for none.
    #[inline(always)]
    pub fn working_directory(&self) -> u64 {
        let layout = layout();
        let fs: u64 = self.member(layout.task_fs).unwrap_or(0);
        if fs == 0 { 0 } else { fs + u64::from(layout.fs_pwd) }
    }

    #[inline(always)]
    fn member<T>(&self, offset: u32) -> Option<T> {
        read(self.task + u64::from(offset))
    }
}

#[inline(always)]
pub fn layout() -> CallLayout {
    global(&CALL_LAYOUT)
}

/// The thread's number; the upper half is its process's.
#[inline(always)]
pub fn tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// Its process's.
#[inline(always)]
pub fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
