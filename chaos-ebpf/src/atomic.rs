//! Atomic instructions of BPF (Documentation/bpf/standardization/instruction-set.rst, "Atomic operations").

use core::arch::asm;

/// Adds to `*ptr`.
#[inline(always)]
pub fn add(ptr: *mut u64, value: u64) {
    // SAFETY: callers pass pointers into map values, which the verifier checks.
    unsafe { asm!("lock *(u64 *)({ptr} + 0) += {value}", ptr = in(reg) ptr, value = in(reg) value) }
}

/// Adds to `*ptr` and returns what was there before.
#[inline(always)]
pub fn fetch_add(ptr: *mut u64, value: u64) -> u64 {
    let mut old = value;
    // SAFETY: as above.
    unsafe {
        asm!("{old} = atomic_fetch_add((u64 *)({ptr} + 0), {old})", ptr = in(reg) ptr, old = inout(reg) old);
    }
    old
}

/// Writes `new` if `*ptr` is still `expected`; says whether it did.
#[inline(always)]
pub fn compare_exchange(ptr: *mut u64, expected: u64, new: u64) -> bool {
    let mut seen = expected;
    // SAFETY: as above; BPF_CMPXCHG takes the expected value in r0 and leaves the value it saw there.
    unsafe {
        asm!("r0 = cmpxchg_64({ptr} + 0, r0, {new})", ptr = in(reg) ptr, new = in(reg) new, inout("r0") seen);
    }
    seen == expected
}

/// Reads `*ptr`, which others may be writing.
#[inline(always)]
pub fn load(ptr: *const u64) -> u64 {
    // SAFETY: as above; an aligned 64-bit load is one instruction.
    unsafe { core::ptr::read_volatile(ptr) }
}
