//! How long block devices take, by the cgroup that a request is accounted to: what is written back comes from threads of
//! the kernel.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use chaos_common::steady::series;

use super::{count_time, since_now, slot_of};
use crate::{
    cgroup::read,
    maps::{ISSUED_SINCE, STEADY_LAYOUT, global},
};

/// REQ_OP_MASK, and two of the operations (include/linux/blk_types.h, 6.1 to 7.3).
mod operation {
    pub const MASK: u32 = 0xff;
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
}

/// A request goes to its device: `TP_PROTO(struct request *rq)` (include/trace/events/block.h, 6.1 to 7.3).
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn steady_block_issues(ctx: RawTracePointContext) -> i32 {
    let request: u64 = ctx.arg(0);
    if let Some(slot) = cgroup_of(request).and_then(slot_of) {
        let flags: u32 = read(request + u64::from(global(&STEADY_LAYOUT.request_flags))).unwrap_or(0);
        let series = match flags & operation::MASK {
            operation::READ => series::BLOCK_READ,
            operation::WRITE => series::BLOCK_WRITE,
            _ => series::BLOCK_OTHER,
        };
        // Without room for it, it is not timed.
        let _ = ISSUED_SINCE.insert(request, since_now(slot, series), 0);
    }
    0
}

/// It is done, or a part of it: `TP_PROTO(struct request *rq, …)`. The first part counts.
#[raw_tracepoint(tracepoint = "block_rq_complete")]
pub fn steady_block_ends(ctx: RawTracePointContext) -> i32 {
    let request: u64 = ctx.arg(0);
    // SAFETY: entries are removed by the one program that reads them, below.
    if let Some(since) = unsafe { ISSUED_SINCE.get(request) } {
        count_time(*since);
        // It is there, and if the kernel forgot it meanwhile, that is as well.
        let _ = ISSUED_SINCE.remove(request);
    }
    0
}

/// The cgroup of the first of the request's parts. A flush has none.
#[inline(always)]
fn cgroup_of(request: u64) -> Option<u64> {
    let next = |from: u64, offset: &u32| read::<u64>(from + u64::from(global(offset))).filter(|to| *to != 0);
    let bio = next(request, &STEADY_LAYOUT.request_bio)?;
    let group = next(bio, &STEADY_LAYOUT.bio_blkg)?;
    let blkcg = next(group, &STEADY_LAYOUT.blkg_blkcg)?;
    next(blkcg, &STEADY_LAYOUT.blkcg_cgroup)
}
