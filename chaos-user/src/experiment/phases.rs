//! The `hold` design: baseline, inject, recover, with a reading of all counters every second.

use std::{os::unix::fs::MetadataExt, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Stop, Timing};
use crate::{
    judge::verdict::AbortReason,
    kernel::{CallReport, Injection, KernelError},
    steady::sample::{Phase, Sample},
    target::Scope,
};

/// How far apart readings are.
pub const TICK: Duration = Duration::from_secs(1);

/// Everything measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Readings in order; the one on the border of two phases stands in both.
    pub samples: Vec<(Phase, Sample)>,
    /// What came of faults of system calls.
    pub calls: CallReport,
    /// Why it ended early.
    pub aborted: Option<AbortReason>,
}

/// What is going on, for whoever is watching.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A phase begins.
    Phase {
        /// Which.
        phase: Phase,
        /// How long it will take.
        duration: Duration,
    },
    /// A second has passed.
    Tick {
        /// Which phase it was in.
        phase: Phase,
        /// How much of the phase is over.
        elapsed: Duration,
        /// The latest reading.
        sample: &'a Sample,
    },
    /// The faults are over.
    RollingBack,
}

/// Drives an injection through the phases. Whatever happens, it comes back disarmed.
pub async fn drive<I: Injection>(
    timing: &Timing,
    scope: &Scope,
    injection: &mut I,
    stop: &mut Stop,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Recording {
    let mut run = Run { recording: Recording::default(), scope, injection, stop, progress };
    if let Err(reason) = run.all(timing).await {
        run.recording.aborted = Some(reason);
        // An error here means that the fault ends with its lease; the rollback reports it.
        let _ = run.injection.disarm();
    }
    match run.injection.calls() {
        Ok(calls) => run.recording.calls = calls,
        Err(error) => {
            run.recording.aborted.get_or_insert(AbortReason::SamplingFailed { error: error.to_string() });
        }
    }
    run.recording
}

struct Run<'a, 'p, I> {
    recording: Recording,
    scope: &'a Scope,
    injection: &'a mut I,
    stop: &'a mut Stop,
    progress: &'a mut (dyn FnMut(Progress<'_>) + 'p),
}

impl<I: Injection> Run<'_, '_, I> {
    async fn all(&mut self, timing: &Timing) -> Result<(), AbortReason> {
        self.phase(Phase::Baseline, timing.baseline).await?;
        self.injection.arm(timing.inject).map_err(lease_lost)?;
        self.phase(Phase::Inject, timing.inject).await?;
        self.phase(Phase::Recover, timing.recover).await
    }

    /// One phase: a reading at its start (the last one of the phase before), then one every second. The last
    /// reading of the inject phase is taken once the faults are off, so that it counts every injection.
    async fn phase(&mut self, phase: Phase, duration: Duration) -> Result<(), AbortReason> {
        (self.progress)(Progress::Phase { phase, duration });
        let start = Instant::now();
        match self.recording.samples.last() {
            Some((_, border)) => {
                let border = border.clone();
                self.recording.samples.push((phase, border));
            }
            None => self.read(phase)?,
        }
        for tick in 1..=duration.as_secs() {
            let elapsed = TICK * tick as u32;
            tokio::select! {
                () = sleep_until(start + elapsed) => {}
                reason = self.stop.requested() => return Err(reason),
            }
            self.check_targets()?;
            if phase == Phase::Inject && tick == duration.as_secs() {
                self.injection.disarm().map_err(lease_lost)?;
            }
            self.read(phase)?;
            if let Some((_, sample)) = self.recording.samples.last() {
                (self.progress)(Progress::Tick { phase, elapsed, sample });
            }
        }
        Ok(())
    }

    fn read(&mut self, phase: Phase) -> Result<(), AbortReason> {
        let sample = self.injection.sample();
        let sample = sample.map_err(|error| AbortReason::SamplingFailed { error: error.to_string() })?;
        self.recording.samples.push((phase, sample));
        Ok(())
    }

    /// A cgroup that went away has stopped counting; one made again under its name is another one.
    fn check_targets(&self) -> Result<(), AbortReason> {
        let gone = self.scope.members.iter().find(|member| {
            std::fs::metadata(&member.cgroup.dir).map_or(true, |dir| dir.ino() != member.cgroup.id)
        });
        match gone {
            Some(member) => Err(AbortReason::TargetGone { target: member.target.to_string() }),
            None => Ok(()),
        }
    }
}

fn lease_lost(_: KernelError) -> AbortReason {
    AbortReason::LeaseLost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake::FakeInjection;

    const TIMING: Timing = Timing {
        baseline: Duration::from_secs(5),
        inject: Duration::from_secs(6),
        recover: Duration::from_secs(7),
        settle: Duration::ZERO,
    };

    async fn run(injection: &mut FakeInjection, stop: &mut Stop) -> Recording {
        let scope = Scope { members: Vec::new(), spared: Vec::new() };
        drive(&TIMING, &scope, injection, stop, &mut |_| ()).await
    }

    #[tokio::test(start_paused = true)]
    async fn every_phase_has_its_readings_and_the_fault_is_on_in_one() {
        let mut injection = FakeInjection::default();
        let (_never, mut stop) = Stop::by_hand();
        let recording = run(&mut injection, &mut stop).await;
        assert_eq!(recording.aborted, None);
        for (phase, seconds) in [(Phase::Baseline, 5), (Phase::Inject, 6), (Phase::Recover, 7)] {
            let readings = recording.samples.iter().filter(|(of, _)| *of == phase).count();
            assert_eq!(readings, seconds + 1, "{phase:?}");
        }
        assert_eq!(
            injection.calls,
            [vec!["sample"; 6], vec!["arm"], vec!["sample"; 5], vec!["disarm"], vec!["sample"; 8],].concat()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_disarms_at_once() {
        let mut injection = FakeInjection::default();
        let (ask, mut stop) = Stop::by_hand();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(7_500)).await;
            ask.send(Some(AbortReason::Interrupted)).expect("somebody listens");
            std::future::pending::<()>().await;
        });
        let start = Instant::now();
        let recording = run(&mut injection, &mut stop).await;
        assert_eq!(recording.aborted, Some(AbortReason::Interrupted));
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        assert_eq!(injection.calls.last(), Some(&"disarm"));
    }

    #[tokio::test(start_paused = true)]
    async fn counters_that_cannot_be_read_end_the_run_disarmed() {
        let mut injection = FakeInjection { fail_sample_after: Some(8), ..FakeInjection::default() };
        let (_never, mut stop) = Stop::by_hand();
        let recording = run(&mut injection, &mut stop).await;
        assert!(
            matches!(recording.aborted, Some(AbortReason::SamplingFailed { .. })),
            "{:?}",
            recording.aborted
        );
        assert_eq!(injection.calls.last(), Some(&"disarm"));
    }
}
