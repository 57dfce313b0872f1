//! A kernel that only remembers what it was asked. What it imitates is shown by tests against the real one:
//! counters are readable armed or not, and disarming twice is harmless (`rollback_is_done_before_exit_on_stop`); armed dry,
//! nothing happens (`dry_loss_counts_and_loses_nothing`).

use std::time::Duration;

use super::{CallReport, Injection, KernelError, Rollback};
use crate::steady::sample::Sample;

/// Remembers the calls.
#[derive(Debug, Default)]
pub struct FakeInjection {
    /// In order.
    pub calls: Vec<&'static str>,
    /// After so many readings, reading fails.
    pub fail_sample_after: Option<usize>,
}

impl Injection for FakeInjection {
    fn arm(&mut self, _: Duration) -> Result<(), KernelError> {
        self.calls.push("arm");
        Ok(())
    }

    fn arm_dry(&mut self, _: Duration) -> Result<(), KernelError> {
        self.calls.push("arm_dry");
        Ok(())
    }

    fn disarm(&mut self) -> Result<(), KernelError> {
        self.calls.push("disarm");
        Ok(())
    }

    fn sample(&mut self) -> Result<Sample, KernelError> {
        self.calls.push("sample");
        let samples = self.calls.iter().filter(|call| **call == "sample").count();
        if self.fail_sample_after.is_some_and(|after| samples > after) {
            return Err(KernelError::io("map STEADY")(std::io::Error::other("gone")));
        }
        Ok(Sample { begin_ns: 0, end_ns: 0, slots: Vec::new(), rules: Vec::new() })
    }

    fn calls(&mut self) -> Result<CallReport, KernelError> {
        Ok(CallReport::default())
    }

    fn rollback(self) -> Rollback {
        Rollback::default()
    }
}
