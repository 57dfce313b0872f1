//! Faults of calls on sockets: what a refused call fails with.

use crate::steady::MAX_ERRNO;

crate::pod! {
    /// What the calls fail with that one rule refuses.
    pub struct Refusal {
        /// The error, as errno(3) counts them.
        pub errno: u32,
        /// Unused.
        pub spare: u32,
    }
}

impl Refusal {
    /// What a program of the kernel hands to `bpf_set_retval`. Whatever the map says, it is an error and never
    /// success, which the kernel would take for a call that was let through. The verifier of Linux 7.3 wants to see that
    /// it lies within [-4095, 0]; of a comparison it would see what the compiler makes of it, of a mask it sees the mask.
    #[inline(always)]
    pub const fn retval(&self) -> i32 {
        const { assert!(MAX_ERRNO == 0xfff) };
        let errno = self.errno & MAX_ERRNO as u32;
        if errno == 0 { -EPERM } else { -(errno as i32) }
    }
}

/// What the kernel itself says when a program refuses without giving a reason.
const EPERM: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_never_success() {
        let retval = |errno| Refusal { errno, spare: 0 }.retval();
        assert_eq!((retval(1), retval(111), retval(4095)), (-1, -111, -4095));
        for nonsense in [0, 4096, 8193, u32::MAX] {
            assert!((-4095..0).contains(&retval(nonsense)), "{nonsense}");
        }
    }
}
