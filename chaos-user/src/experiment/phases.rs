//! A run: its parts one after the other, with a reading of all counters every second.

use std::{os::unix::fs::MetadataExt, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Stop, metric::Word, oversee::Oversight, probe::Probe, watch::BadAnswer};
use crate::{
    judge::{
        names,
        verdict::{AbortReason, InvalidReason},
    },
    kernel::{CallReport, Injection, KernelError},
    probe::Prober,
    steady::sample::{Part, Phase, Sample},
    target::{Member, Scope},
};

/// How far apart readings are.
pub const TICK: Duration = Duration::from_secs(1);

/// Everything measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Readings in order; the one on the border of two parts stands in both.
    pub samples: Vec<(Part, Sample)>,
    /// What came of faults of system calls.
    pub calls: CallReport,
    /// Why it ended early.
    pub aborted: Option<AbortReason>,
    /// Why nothing was injected.
    pub not_ready: Vec<InvalidReason>,
    /// What probes heard last that was no good answer.
    pub heard: Vec<BadAnswer>,
}

/// What goes on beside the injection.
#[derive(Default)]
pub struct Beside<'a, 'o> {
    /// Who asks the targets from outside.
    pub asked: Option<Asked<'a>>,
    /// Who may end the run, or have it not begin.
    pub oversight: Option<&'a mut Oversight<'o>>,
    /// How long it may take altogether.
    pub longest: Option<Duration>,
}

/// Probes under way.
pub struct Asked<'a> {
    /// As asked.
    pub probes: &'a [Probe],
    /// Who asks.
    pub prober: Prober,
}

impl Asked<'_> {
    /// Adds what they have seen to a reading.
    fn add_to(&self, sample: &mut Sample) {
        for (slot, seen) in sample.slots.iter_mut().zip(self.prober.readings()) {
            let ids = self.probes.iter().map(|probe| Word::new(&probe.id));
            slot.probes = ids.zip(seen).collect();
        }
    }

    /// Why the last bad answers were bad, of these targets.
    fn heard(&self, scope: &Scope) -> Vec<BadAnswer> {
        let of_target = |(member, whys): (&Member, Vec<Option<String>>)| {
            let bad = |(probe, why): (&Probe, Option<String>)| {
                Some(BadAnswer {
                    id: probe.id.to_string(),
                    target: member.target.to_string(),
                    group: names::group(member.group).to_owned(),
                    why: why?,
                })
            };
            self.probes.iter().zip(whys).filter_map(bad).collect::<Vec<_>>()
        };
        scope.members.iter().zip(self.prober.diagnoses()).flat_map(of_target).collect()
    }
}

/// What is going on, for whoever is watching.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A part begins.
    Part {
        /// Which.
        part: Part,
        /// How long it will take.
        duration: Duration,
    },
    /// A second has passed.
    Tick {
        /// Which part it was in.
        part: Part,
        /// How much of the part is over.
        elapsed: Duration,
        /// The latest reading.
        sample: &'a Sample,
    },
    /// The faults are over.
    RollingBack,
}

/// Drives an injection through the parts of a run. Whatever happens, it comes back disarmed.
pub async fn drive<I: Injection>(
    parts: &[(Part, Duration)],
    scope: &Scope,
    injection: &mut I,
    beside: Beside<'_, '_>,
    stop: &mut Stop,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Recording {
    // Parts begin a little later than planned, each by what reading takes.
    let ends = beside.longest.map(|longest| Instant::now() + longest + TICK);
    let mut run = Run { recording: Recording::default(), scope, injection, beside, ends, stop, progress };
    if let Err(reason) = run.all(parts).await {
        run.recording.aborted = Some(reason);
        // An error here means that the fault ends with its lease; the rollback reports it.
        let _ = run.injection.disarm();
    }
    run.recording.heard = run.beside.asked.as_ref().map_or_else(Vec::new, |asked| asked.heard(scope));
    match run.injection.calls() {
        Ok(calls) => run.recording.calls = calls,
        Err(error) => {
            run.recording.aborted.get_or_insert(AbortReason::SamplingFailed { error: error.to_string() });
        }
    }
    run.recording
}

struct Run<'a, 'o, 'p, I> {
    recording: Recording,
    scope: &'a Scope,
    injection: &'a mut I,
    beside: Beside<'a, 'o>,
    ends: Option<Instant>,
    stop: &'a mut Stop,
    progress: &'a mut (dyn FnMut(Progress<'_>) + 'p),
}

impl<I: Injection> Run<'_, '_, '_, I> {
    async fn all(&mut self, parts: &[(Part, Duration)]) -> Result<(), AbortReason> {
        for (part, duration) in parts {
            self.part(*part, *duration).await?;
            if *part == BASELINE && !self.is_ready() {
                break;
            }
        }
        Ok(())
    }

    /// Whether faults may be injected, as far as the baseline tells.
    fn is_ready(&mut self) -> bool {
        if let Some(oversight) = &mut self.beside.oversight {
            self.recording.not_ready = oversight.ready(&self.recording.samples);
        }
        self.recording.not_ready.is_empty()
    }

    /// One part: a reading at its start (the last one of the part before), then one every second. In the baseline, faults
    /// only count what they could hit. The last reading of a part in which faults are on is taken once they are off, so that
    /// it counts every injection.
    async fn part(&mut self, part: Part, duration: Duration) -> Result<(), AbortReason> {
        match part {
            BASELINE => self.injection.arm_dry(duration).map_err(lease_lost)?,
            part if part.is_on() => self.injection.arm(duration).map_err(lease_lost)?,
            _ => {}
        }
        (self.progress)(Progress::Part { part, duration });
        let start = Instant::now();
        match self.recording.samples.last() {
            Some((_, border)) => {
                let border = border.clone();
                self.recording.samples.push((part, border));
            }
            None => self.read(part)?,
        }
        for tick in 1..=duration.as_secs() {
            let elapsed = TICK * tick as u32;
            tokio::select! {
                biased;
                reason = self.stop.requested() => return Err(reason),
                () = sleep_until(start + elapsed) => {}
                () = passed(self.ends) => return Err(AbortReason::MaxDuration),
            }
            self.check_targets()?;
            if (part.is_on() || part == BASELINE) && tick == duration.as_secs() {
                self.injection.disarm().map_err(lease_lost)?;
            }
            self.read(part)?;
            if let [.., (_, earlier), (_, sample)] = &self.recording.samples[..] {
                (self.progress)(Progress::Tick { part, elapsed, sample });
                if let Some(oversight) = &mut self.beside.oversight {
                    oversight.tick(part, earlier, sample)?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, part: Part) -> Result<(), AbortReason> {
        let sample = self.injection.sample();
        let mut sample = sample.map_err(|error| AbortReason::SamplingFailed { error: error.to_string() })?;
        if let Some(asked) = &self.beside.asked {
            asked.add_to(&mut sample);
        }
        self.recording.samples.push((part, sample));
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

/// Waits for a moment; for ever, if there is none.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

const BASELINE: Part = Part::Phase(Phase::Baseline);

fn lease_lost(_: KernelError) -> AbortReason {
    AbortReason::LeaseLost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Timing;
    use crate::{
        judge::Design,
        kernel::fake::FakeInjection,
        steady::{rates, sample::Phase},
    };

    const TIMING: Timing = Timing {
        baseline: Duration::from_secs(5),
        inject: Duration::from_secs(6),
        recover: Duration::from_secs(7),
        settle: Duration::ZERO,
        ..Timing::HOLD
    };

    async fn run(injection: &mut FakeInjection, stop: &mut Stop) -> Recording {
        run_for(&TIMING, injection, stop).await
    }

    async fn run_for(timing: &Timing, injection: &mut FakeInjection, stop: &mut Stop) -> Recording {
        let scope = Scope { members: Vec::new(), spared: Vec::new() };
        drive(&timing.parts(), &scope, injection, Beside::default(), stop, &mut |_| ()).await
    }

    #[tokio::test(start_paused = true)]
    async fn every_phase_has_its_readings_and_the_fault_is_on_in_one() {
        let mut injection = FakeInjection::default();
        let (_never, mut stop) = Stop::by_hand();
        let recording = run(&mut injection, &mut stop).await;
        assert_eq!(recording.aborted, None);
        for (phase, seconds) in [(Phase::Baseline, 5), (Phase::Inject, 6), (Phase::Recover, 7)] {
            let readings = recording.samples.iter().filter(|(of, _)| *of == Part::Phase(phase)).count();
            assert_eq!(readings, seconds + 1, "{phase:?}");
        }
        assert_eq!(
            injection.calls,
            [
                vec!["arm_dry"],
                vec!["sample"; 5],
                vec!["disarm", "sample", "arm"],
                vec!["sample"; 5],
                vec!["disarm"],
                vec!["sample"; 8],
            ]
            .concat()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pulses_go_on_and_off_in_an_order_that_is_drawn() {
        let (pulses, block, second) = (40, Duration::from_secs(4), Duration::from_secs(5));
        let timing = Timing { design: Design::Both, pulses, block, baseline: second, ..TIMING };
        let mut injection = FakeInjection::default();
        let (_never, mut stop) = Stop::by_hand();
        let recording = run_for(&timing, &mut injection, &mut stop).await;
        assert_eq!(recording.aborted, None);
        let parts: Vec<_> = rates::parts(&recording.samples).collect();
        assert_eq!(parts.len(), 2 * pulses + 3);
        let blocks = &parts[1..=2 * pulses];
        assert!(blocks.iter().all(|(_, samples)| samples.len() == 5), "four ticks have five readings");
        let mut on_first = 0;
        for (number, pair) in blocks.chunks(2).enumerate() {
            let of = |(part, _): &(Part, _)| match *part {
                Part::Block { pair, on } => (pair, on),
                Part::Phase(_) => panic!("{part:?}"),
            };
            let [(first, on), (second, off)] = [of(&pair[0]), of(&pair[1])];
            assert_eq!((first, second, on), (number, number, !off));
            on_first += usize::from(on);
        }
        assert!((8..=32).contains(&on_first), "{on_first} of {pulses}");
        let count = |wanted| injection.calls.iter().filter(|call| **call == wanted).count();
        assert_eq!((count("arm"), count("disarm")), (pulses + 1, pulses + 2));
        assert_eq!(count("sample"), 1 + 5 + 2 * pulses * 4 + 6 + 7);
        let again = Timing { seed: timing.seed + 1, ..timing };
        assert_ne!(timing.parts(), again.parts());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_on_for_longer_than_it_may() {
        let scope = Scope { members: Vec::new(), spared: Vec::new() };
        for (longest, ends) in [(18, None), (9, Some(AbortReason::MaxDuration))] {
            let mut injection = FakeInjection::default();
            let (_never, mut stop) = Stop::by_hand();
            let beside = Beside { longest: Some(Duration::from_secs(longest)), ..Beside::default() };
            let recording =
                drive(&TIMING.parts(), &scope, &mut injection, beside, &mut stop, &mut |_| ()).await;
            assert_eq!(recording.aborted, ends);
            assert_eq!(injection.calls.last(), Some(if ends.is_some() { &"disarm" } else { &"sample" }));
        }
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
