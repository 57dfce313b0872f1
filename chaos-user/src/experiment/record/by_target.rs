//! The targets of the experimental group one by one, each against the whole control group.

use super::Recorded;
use crate::{
    judge::judge,
    report::{TargetGate, TargetResult},
    steady::sample::{Part, Sample},
    target::Group,
};

/// More are not told apart: all readings are gone through for each.
const MOST: usize = 32;

impl Recorded {
    /// What each target did by itself; nothing unless there are several.
    pub(super) fn by_target(&self) -> Vec<TargetResult> {
        let is_treated = |slot: &usize| self.slots[*slot] == Group::Experiment;
        let treated: Vec<usize> = (0..self.slots.len()).filter(is_treated).collect();
        if !(2..=MOST).contains(&treated.len()) {
            return Vec::new();
        }
        let names = self.facts.groups.experiment.iter().map(|member| member.target.clone());
        treated.into_iter().zip(names).map(|(slot, target)| self.alone(slot, target)).collect()
    }

    fn alone(&self, slot: usize, target: String) -> TargetResult {
        let kept: Vec<usize> = (0..self.slots.len())
            .filter(|other| *other == slot || self.slots[*other] == Group::Control)
            .collect();
        let groups: Vec<Group> = kept.iter().map(|slot| self.slots[*slot]).collect();
        let of_kept = |(part, sample): &(Part, Sample)| {
            let slots = kept.iter().filter_map(|slot| sample.slots.get(*slot).cloned()).collect();
            let Sample { begin_ns, end_ns, .. } = *sample;
            (*part, Sample { begin_ns, end_ns, slots, rules: Vec::new() })
        };
        let samples: Vec<(Part, Sample)> = self.recording.samples.iter().map(of_kept).collect();
        let gates = judge(&self.input_of(&samples, &groups).of_these()).gates.into_iter();
        let gates =
            gates.filter_map(|gate| Some(TargetGate { metric: gate.metric, estimate: gate.estimate? }));
        TargetResult { target, gates: gates.collect() }
    }
}

#[cfg(test)]
mod tests {
    use chaos_common::{Counters, random};

    use super::*;
    use crate::{
        experiment::{Recording, parse::parse, record::RunFacts},
        report::{Groups, Member, Watched},
        steady::{reading::SlotReading, sample::Phase},
    };

    const SPEC: &str = "version: 1\nname: two\ngroups: { control: 'cgroup:/a', experiment: ['cgroup:/b', 'cgroup:/c'] }\n\
        steady_state: { gates: [{ metric: net.rx_packets, decrease: 10% }] }\nfaults: [{ loss: { percent: 1% } }]\n\
        run: { design: hold, baseline: 60s, inject: 60s, recover: 10s, settle: 0s }\n";

    /// Readings of two phases of a minute, in which these targets receive so many packets in a second.
    fn readings(rates: &[[u64; 2]]) -> Vec<(Part, Sample)> {
        let mut totals = vec![0; rates.len()];
        let sample = |second: u64, totals: &[u64]| {
            let slot =
                |rx_packets: &u64| SlotReading::of(Counters { rx_packets: *rx_packets, ..Counters::ZERO });
            let at_ns = second * 1_000_000_000;
            Sample { begin_ns: at_ns, end_ns: at_ns, slots: totals.iter().map(slot).collect(), rules: vec![] }
        };
        let mut samples = vec![(Part::Phase(Phase::Baseline), sample(0, &totals))];
        for second in 1..=120 {
            let part = Part::Phase(if second <= 60 { Phase::Baseline } else { Phase::Inject });
            for (slot, rate) in rates.iter().enumerate() {
                totals[slot] +=
                    rate[usize::from(second > 60)] + u64::from(random::draw(slot as u64, 1, second) % 50);
            }
            samples.push((part, sample(second, &totals)));
            if second == 60 {
                samples.push((Part::Phase(Phase::Inject), sample(second, &totals)));
            }
        }
        samples
    }

    fn recorded(groups: &[Group], rates: &[[u64; 2]]) -> Recorded {
        let member = |name: &str| Member {
            target: format!("cgroup:/{name}"),
            cgroup: format!("/{name}"),
            cgroup_id: "1".into(),
        };
        Recorded {
            source: SPEC.into(),
            spec: parse(SPEC).unwrap(),
            slots: groups.to_vec(),
            rules: vec![],
            metrics: vec![],
            kappa: vec![],
            facts: RunFacts {
                tool_version: String::new(),
                kernel: String::new(),
                groups: Groups { control: vec![member("a")], experiment: vec![member("b"), member("c")] },
                mechanisms: vec![],
                has_calls: false,
                rollback: vec![],
            },
            watched: Watched::default(),
            recording: Recording { samples: readings(rates), ..Recording::default() },
        }
    }

    #[test]
    fn what_only_one_of_two_suffers_is_told_of_that_one() {
        let groups = [Group::Control, Group::Experiment, Group::Experiment];
        let run = recorded(&groups, &[[1_000, 1_000], [1_000, 1_000], [1_000, 500]]);
        let targets = run.by_target();
        let changes: Vec<_> =
            targets.iter().map(|one| (one.target.as_str(), one.gates[0].estimate.change)).collect();
        let [("cgroup:/b", well), ("cgroup:/c", hurt)] = changes[..] else { panic!("{changes:?}") };
        assert!(well.abs() < 0.01 && (hurt + 0.49).abs() < 0.01, "{changes:?}");
        let lines = crate::report::targets::lines(&targets);
        assert!(lines[0].starts_with("net.rx_packets -") && lines[0].contains("% cgroup:/c, "), "{lines:?}");
    }

    #[test]
    fn of_one_target_the_gates_say_all() {
        let groups = [Group::Control, Group::Control, Group::Experiment];
        assert_eq!(recorded(&groups, &[[1_000; 2]; 3]).by_target(), []);
    }

    #[test]
    fn a_replay_knows_how_targets_differ() {
        let groups = [[Group::Control; 4], [Group::Experiment; 4]].concat();
        let rates = [[[1_000; 2]; 6].to_vec(), vec![[1_000, 400], [1_000, 700]]].concat();
        let run = recorded(&groups, &rates);
        let mut file = vec![];
        run.write(&mut file).unwrap();
        let again = Recorded::read(file.as_slice()).unwrap();
        let [judgement, replayed] = [&run, &again].map(|run| judge(&run.judge_input()));
        assert!(judgement.gates[0].estimate.as_ref().unwrap().is_by_targets(), "{:?}", judgement.gates);
        let [report, reread] = [run.report(&judgement), again.report(&replayed)]
            .map(|report| crate::report::json::render(&report).unwrap());
        assert_eq!(report, reread);
        assert_eq!(run.by_target()[0].gates[0].estimate.targets, None, "of one target alone");
    }
}
