//! Making the verifier forget.

use core::ptr;

use crate::cgroup;

/// The same value, of which the verifier knows nothing any more. It follows every path there is to a place, once for
/// each set of values that it knows there: a few constants more or less multiply what comes after them until it gives
/// up. What a helper has written could be anything, so that all paths are one.
#[inline(always)]
pub fn forget<T: Copy>(value: T) -> Option<T> {
    cgroup::read(ptr::from_ref(&value) as u64)
}
