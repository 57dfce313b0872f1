//! Types of the boundary, as aya takes them.

/// Makes what chaos-common promises known to aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Wire<T>(pub T);

// SAFETY: chaos_common::Pod promises the same: no padding, every bit pattern valid.
unsafe impl<T: chaos_common::Pod> aya::Pod for Wire<T> {}
