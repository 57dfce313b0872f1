//! Events that end a run at once, whatever metrics say: a process killed for memory, a crash, an injection that does more
//! than was planned. Pure: made of readings that follow each other.

use chaos_common::{RuleStats, steady::TaskCounts};

use super::{
    guards::Fired,
    watch::{GuardRecord, Processes},
};
use crate::{
    judge::{
        delivery::{RuleDelivery, TOLERANCE},
        guard::RareTest,
        names,
    },
    steady::reading::SlotReading,
    target::Group,
    units::Signal,
};

/// How often chance alone may end a run for an injection that does what it should, all rules and looks together.
pub const CHANCE_OF_OVERDOSE: f64 = 1e-6;

/// Signals that a process is ended by in the course of its work: asked to, or by whoever reads its output going away. A
/// process that another kills (SIGKILL) did not end by itself.
const ORDINARY: [u32; 4] = [SIGHUP, SIGINT, SIGPIPE, SIGTERM];

// include/uapi/asm-generic/signal.h, 6.18; x86-64 and arm64 have them too.
const SIGHUP: u32 = 1;
const SIGINT: u32 = 2;
const SIGPIPE: u32 = 13;
const SIGTERM: u32 = 15;

/// What is counted of one target's processes. What is not counted is `None`, and never an event.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ends {
    /// Processes that ended, by signal.
    pub tasks: Option<TaskCounts>,
    /// Those that were killed for memory.
    pub oom_kills: Option<u64>,
}

impl From<&SlotReading> for Ends {
    fn from(reading: &SlotReading) -> Self {
        Self { tasks: reading.tasks, oom_kills: reading.files.memory.oom_kills }
    }
}

/// An event of one target's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Killed for memory.
    OomKill {
        /// How many.
        count: u64,
    },
    /// Ended by a signal that is no ordinary end.
    Crash {
        /// Which.
        signal: u32,
        /// How many.
        count: u64,
    },
}

/// What happened to one target's processes between two readings. A counter that went backwards says nothing.
pub fn between(earlier: &Ends, later: &Ends) -> Vec<Event> {
    let mut events = Vec::new();
    if let (Some(before), Some(after)) = (earlier.oom_kills, later.oom_kills)
        && after > before
    {
        events.push(Event::OomKill { count: after - before });
    }
    if let (Some(before), Some(after)) = (&earlier.tasks, &later.tasks) {
        let crash = |(signal, (before, after)): (u32, (&u64, &u64))| {
            let is_one = signal != 0 && !ORDINARY.contains(&signal) && after > before;
            is_one.then(|| Event::Crash { signal, count: after - before })
        };
        events.extend((0..).zip(before.exits.iter().zip(&after.exits)).filter_map(crash));
    }
    events
}

impl Event {
    /// Of the same kind: what happened before anything was done is no event.
    fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::OomKill { .. }, Self::OomKill { .. }) => true,
            (Self::Crash { signal: one, .. }, Self::Crash { signal: other, .. }) => one == other,
            _ => false,
        }
    }

    fn words(self, whose: &str) -> String {
        let of = |count: u64| if count == 1 { "a process".to_owned() } else { format!("{count} processes") };
        match self {
            Self::OomKill { count } => format!("{} of {whose} killed for want of memory", of(count)),
            Self::Crash { signal, count } => {
                let name = Signal::numbered(signal);
                let name = name.map_or_else(|| format!("signal {signal}"), |signal| signal.to_string());
                format!("{} of {whose} ended by {name}", of(count))
            }
        }
    }
}

/// Watches over the processes of all targets.
#[derive(Clone, Debug)]
pub struct ProcessWatch {
    asked: Processes,
    /// Names and groups, by slot.
    targets: Vec<(Group, String)>,
    /// What happened in the baseline already, by slot.
    usual: Vec<Vec<Event>>,
    last: Option<Vec<Ends>>,
    counted: bool,
    fired: bool,
}

impl ProcessWatch {
    /// Over these targets, by slot; `baseline` is a reading at its begin and one at its end.
    pub fn new(asked: Processes, targets: Vec<(Group, String)>, baseline: [&[Ends]; 2]) -> Self {
        let [begin, end] = baseline;
        let usual = begin.iter().zip(end).map(|(begin, end)| between(begin, end)).collect();
        let counted = end.iter().any(|ends| ends.tasks.is_some() || ends.oom_kills.is_some());
        Self { asked, targets, usual, last: Some(end.to_vec()), counted, fired: false }
    }

    /// The next reading; what was seen, if that is reason to stop. What processes of a target did in the baseline as
    /// well is no reason.
    pub fn read(&mut self, now: &[Ends]) -> Option<Fired> {
        let last = self.last.replace(now.to_vec())?;
        if self.asked == Processes::Ignore || last.len() != now.len() {
            return None;
        }
        let nothing = Vec::new();
        let new = last.iter().zip(now).enumerate().flat_map(|(slot, (before, after))| {
            let usual = self.usual.get(slot).unwrap_or(&nothing);
            let is_new = |event: &Event| !usual.iter().any(|usual| usual.is_like(*event));
            between(before, after)
                .into_iter()
                .filter(is_new)
                .map(move |event| (slot, event))
                .collect::<Vec<_>>()
        });
        let (slot, event) = new.into_iter().next()?;
        self.fired = true;
        Some(Fired { guard: "processes: exit".into(), because: event.words(&self.whose(slot)) })
    }

    fn whose(&self, slot: usize) -> String {
        match self.targets.get(slot) {
            Some((group, name)) => format!("{name}, in the {} group,", names::group(*group)),
            None => format!("target {slot}"),
        }
    }

    /// What became of it, for the report; nothing if it was not asked for.
    pub fn evidence(&self) -> Option<GuardRecord> {
        let reason = (!self.counted).then(|| "neither processes nor memory are counted here".to_owned());
        (self.asked == Processes::Exit).then(|| GuardRecord {
            id: "processes: exit".into(),
            metric: None,
            e_value_max: None,
            threshold: None,
            fired: self.fired,
            reason,
        })
    }
}

/// What one rule did: to the experimental group, and to the control group.
pub type Doses = [RuleStats; 2];

/// The same of a reading, by rule and slot.
pub fn doses(rules: &[Vec<RuleStats>], groups: &[Group]) -> Vec<Doses> {
    let sum = |slots: &Vec<RuleStats>, wanted: Group| {
        let of_group = groups.iter().zip(slots).filter(|(group, _)| **group == wanted);
        of_group.fold(RuleStats::ZERO, |sum, (_, stats)| sum.plus(*stats))
    };
    rules.iter().map(|slots| [Group::Experiment, Group::Control].map(|group| sum(slots, group))).collect()
}

/// Watches that no rule does more than was planned.
#[derive(Clone, Debug)]
pub struct DoseWatch {
    rules: Vec<Dose>,
    last: Vec<Doses>,
    fired: bool,
}

/// What reports call it.
const DOSES: &str = "injected as planned";

#[derive(Clone, Debug)]
struct Dose {
    name: String,
    dry_run: bool,
    most: Option<f64>,
    test: Option<RareTest>,
    eligible: u64,
    injected: u64,
}

impl DoseWatch {
    /// Over these rules, of which `now` says what they have done so far: what comes later is watched.
    pub fn new(rules: &[RuleDelivery], now: Vec<Doses>) -> Self {
        let alpha = CHANCE_OF_OVERDOSE / rules.len().max(1) as f64;
        Self { rules: rules.iter().map(|rule| Dose::new(rule, alpha)).collect(), last: now, fired: false }
    }

    /// What became of it, for the report; nothing if there is no rule.
    pub fn evidence(&self) -> Option<GuardRecord> {
        let fired = self.fired;
        let record = || GuardRecord {
            id: DOSES.into(),
            metric: None,
            e_value_max: None,
            threshold: None,
            fired,
            reason: None,
        };
        (!self.rules.is_empty()).then(record)
    }

    /// What the rules have done by now, each counted from when they were loaded; what was seen, if that is reason to stop.
    pub fn read(&mut self, now: &[Doses]) -> Option<Fired> {
        let last = std::mem::replace(&mut self.last, now.to_vec());
        if last.len() != now.len() {
            return None;
        }
        let since = |[before, after]: [&Doses; 2]| [0, 1].map(|group| after[group].since(before[group]));
        let mut fired = self
            .rules
            .iter_mut()
            .zip(last.iter().zip(now))
            .filter_map(|(rule, (before, after))| rule.feed(since([before, after])));
        let first = fired.next();
        // Every rule sees every reading.
        fired.for_each(drop);
        self.fired |= first.is_some();
        first.map(|because| Fired { guard: DOSES.into(), because })
    }
}

impl Dose {
    /// The draws of a model without memory are independent, and `when`, `max` and `rate` only ever take from what they hit.
    /// What comes in bursts may come in a long one.
    fn new(rule: &RuleDelivery, alpha: f64) -> Self {
        let most = rule.expected_range.map(|[_, most]| most).or(rule.expected_fraction);
        let most = most.filter(|most| rule.memoryless && *most < 1.0);
        Self {
            name: rule.name.clone(),
            dry_run: rule.dry_run,
            most,
            test: most.map(|most| RareTest::of_share(most, 1.0, alpha)),
            eligible: 0,
            injected: 0,
        }
    }

    fn feed(&mut self, [experiment, control]: Doses) -> Option<String> {
        let Self { name, .. } = self;
        if control.injected > 0 {
            return Some(format!("{name} hit the control group, {} times", control.injected));
        }
        if self.dry_run && experiment.injected > 0 {
            return Some(format!("{name} was to count only, and hit {} times", experiment.injected));
        }
        self.eligible += experiment.eligible();
        self.injected += experiment.injected;
        let beyond = self
            .test
            .as_mut()?
            .feed(experiment.injected, experiment.eligible().saturating_sub(experiment.injected));
        let (most, seen) = (self.most?, self.injected as f64 / self.eligible.max(1) as f64);
        // Shown to be more is not yet clearly more.
        (beyond && seen > most * (1.0 + TOLERANCE)).then(|| {
            format!(
                "{name} hits {:.3} % of what is eligible, {:.3} % was asked for",
                seen * 100.0,
                most * 100.0
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use chaos_common::random;

    use super::*;

    fn ends(exits: &[(usize, u64)], oom_kills: Option<u64>) -> Ends {
        let mut tasks = TaskCounts::ZERO;
        exits.iter().for_each(|(signal, count)| tasks.exits[*signal] = *count);
        Ends { tasks: Some(tasks), oom_kills }
    }

    #[test]
    fn kills_and_crashes_are_events_and_ordinary_ends_are_none() {
        let quiet = ends(&[(0, 7), (15, 3)], Some(1));
        let later = ends(&[(0, 90), (15, 4), (13, 2), (11, 1), (9, 2)], Some(2));
        let events = between(&quiet, &later);
        let expected = [
            Event::OomKill { count: 1 },
            Event::Crash { signal: 9, count: 2 },
            Event::Crash { signal: 11, count: 1 },
        ];
        assert_eq!(events, expected);
        assert_eq!(between(&later, &quiet), [], "counters that went backwards say nothing");
        assert_eq!(between(&Ends::default(), &later), []);
        assert_eq!(between(&later, &Ends::default()), []);
    }

    fn watch(asked: Processes, baseline: [&[Ends]; 2]) -> ProcessWatch {
        let targets =
            vec![(Group::Control, "docker:a".to_owned()), (Group::Experiment, "docker:b".to_owned())];
        ProcessWatch::new(asked, targets, baseline)
    }

    #[test]
    fn a_crash_ends_the_run_once_it_is_read_and_not_before() {
        let quiet = [ends(&[], Some(0)); 2];
        let mut watch = watch(Processes::Exit, [&quiet, &quiet]);
        assert_eq!(watch.read(&quiet), None);
        let fired = watch.read(&[quiet[0], ends(&[(11, 1)], Some(0))]).unwrap();
        assert_eq!(fired.guard, "processes: exit");
        assert_eq!(fired.because, "a process of docker:b, in the experiment group, ended by SIGSEGV");
        assert!(watch.evidence().unwrap().fired);
        let fired = watch.read(&[ends(&[], Some(2)), ends(&[(11, 1)], Some(0))]).unwrap();
        assert_eq!(fired.because, "2 processes of docker:a, in the control group, killed for want of memory");
    }

    #[test]
    fn what_a_target_does_anyway_is_no_event() {
        let [begin, end] = [0, 2].map(|crashes| [ends(&[], Some(0)), ends(&[(6, crashes)], Some(0))]);
        let mut watch = watch(Processes::Exit, [&begin, &end]);
        assert_eq!(watch.read(&[end[0], ends(&[(6, 9)], Some(0))]), None);
        assert!(watch.read(&[end[0], ends(&[(6, 9), (11, 1)], Some(0))]).is_some(), "another signal");
        assert!(watch.read(&[ends(&[(6, 1)], Some(0)), ends(&[(6, 9), (11, 1)], Some(0))]).is_some());
    }

    #[test]
    fn ignored_or_not_counted() {
        let (quiet, bad) = ([ends(&[], Some(0)); 2], [ends(&[(11, 9)], Some(9)); 2]);
        let mut ignoring = watch(Processes::Ignore, [&quiet, &quiet]);
        assert_eq!((ignoring.read(&bad), ignoring.evidence()), (None, None));
        let blind = [Ends::default(); 2];
        let mut blind_watch = watch(Processes::Exit, [&blind, &blind]);
        assert_eq!(blind_watch.read(&blind), None);
        assert!(blind_watch.evidence().unwrap().reason.unwrap().contains("counted"));
        let mut other_slots = watch(Processes::Exit, [&quiet, &quiet]);
        assert_eq!(other_slots.read(&bad[..1]), None);
    }

    fn rule(expected: f64) -> RuleDelivery {
        RuleDelivery {
            name: "loss egress".into(),
            expected_fraction: Some(expected),
            expected_range: None,
            memoryless: true,
            limited: false,
            dry_run: false,
            experiment: RuleStats::ZERO,
            control: RuleStats::ZERO,
        }
    }

    /// After how many seconds with a hundred packets each a rule that hits so many of them is ended.
    fn overdosed(rule: &RuleDelivery, hits: impl Fn(u64) -> u64) -> Option<(u64, Fired)> {
        let mut stats = RuleStats { injected: 700, chance: 1, ..RuleStats::ZERO };
        let mut watch = DoseWatch::new(std::slice::from_ref(rule), vec![[stats, RuleStats::ZERO]]);
        (1..=60).find_map(|second| {
            let hit = hits(second);
            (stats.injected, stats.chance) = (stats.injected + hit, stats.chance + 100 - hit);
            Some((second, watch.read(&[[stats, RuleStats::ZERO]])?))
        })
    }

    /// So many of a hundred, by chance.
    fn drawn(seed: u64, second: u64, share: f64) -> u64 {
        let draw = |n: u64| f64::from(random::draw(seed, 0, second * 100 + n)) / 2f64.powi(32);
        (0..100).filter(|n| draw(*n) < share).count() as u64
    }

    #[test]
    fn chance_never_ends_a_run_and_twice_the_dose_does() {
        for share in [0.001, 0.05, 0.5] {
            let fired = (0..500).filter(|seed| overdosed(&rule(share), |s| drawn(*seed, s, share)).is_some());
            assert_eq!(fired.count(), 0, "{share}");
        }
        for seed in 0..100 {
            let (second, fired) = overdosed(&rule(0.05), |s| drawn(seed, s, 0.1)).unwrap();
            assert!(second <= 30, "{second}");
            assert!(fired.because.ends_with("5.000 % was asked for"), "{fired:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_left_alone() {
        let bursts = RuleDelivery { memoryless: false, ..rule(0.05) };
        assert_eq!(overdosed(&bursts, |_| 100), None);
        assert_eq!(overdosed(&rule(1.0), |_| 100), None);
        let ramp = RuleDelivery { expected_fraction: None, expected_range: Some([0.1, 0.5]), ..rule(0.0) };
        assert_eq!(overdosed(&ramp, |_| 50), None);
        assert!(overdosed(&ramp, |_| 90).is_some());
        let limited = RuleDelivery { limited: true, ..rule(0.05) };
        assert!(overdosed(&limited, |_| 90).is_some(), "limits only take away");
    }

    #[test]
    fn doses_are_added_up_by_group() {
        let stats = |injected| RuleStats { injected, ..RuleStats::ZERO };
        let groups = [Group::Control, Group::Experiment, Group::Experiment];
        assert_eq!(doses(&[vec![stats(1), stats(2), stats(3)]], &groups), [[stats(5), stats(1)]]);
    }

    #[test]
    fn hits_of_the_control_group_or_of_a_dry_run_end_it_at_once() {
        let one = RuleStats { injected: 1, ..RuleStats::ZERO };
        let nothing = vec![[RuleStats::ZERO; 2]];
        let mut watch = DoseWatch::new(&[rule(0.05)], nothing.clone());
        assert_eq!(watch.read(&nothing), None);
        assert!(!watch.evidence().unwrap().fired);
        let fired = watch.read(&[[RuleStats::ZERO, one]]).unwrap();
        assert!(watch.evidence().unwrap().fired);
        assert_eq!(fired.because, "loss egress hit the control group, 1 times");
        let mut dry = DoseWatch::new(&[RuleDelivery { dry_run: true, ..rule(0.05) }], nothing);
        assert!(dry.read(&[[one, RuleStats::ZERO]]).unwrap().because.contains("count only"));
    }
}
