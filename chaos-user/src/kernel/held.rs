//! Signals that wait until programs are loaded.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use super::KernelError;

/// Holds back what would stop us from this thread, until dropped: a verifier that a signal interrupts gives up with EAGAIN
/// (kernel/bpf/verifier.c, `do_check`, 6.18), which would be taken for what the kernel cannot do. Programs that are started
/// meanwhile are not concerned: the standard library gives them an empty mask.
#[must_use = "signals come again when it is dropped"]
pub struct HeldSignals {
    before: SigSet,
}

impl HeldSignals {
    /// From now on.
    pub fn hold() -> Result<Self, KernelError> {
        let stopping: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        let before = stopping.thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let before = before.map_err(|errno| KernelError::io("holding back signals")(errno.into()))?;
        Ok(Self { before })
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // Cannot fail: the mask is one that we were given (pthread_sigmask(3)).
        let restored = self.before.thread_set_mask();
        debug_assert!(restored.is_ok(), "{restored:?}");
    }
}
