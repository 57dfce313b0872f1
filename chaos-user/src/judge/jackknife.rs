//! How uncertain an effect is, by how far it moves when a part of what it is taken of is left out (the delete-one jackknife:
//! Quenouille, Biometrika 43, 1956; Tukey, Ann. Math. Statist. 29, 1958): a pair of blocks ([`super::pulse`]), or a target.
//!
//! Time tells how well the effect on *these* targets is known, and a longer run tells it better. Targets do not all respond
//! alike, so that others like them would have had another effect on the whole, however long the run. Each target of the
//! experimental group is left out with the control group whole, then each of the control group; the variances add up. What
//! the targets of a group share, only time shows: that is why the larger of both is taken.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    estimate::{Contrast, StandardError},
    score::{Cell, side},
    trend,
};
use crate::{
    experiment::hypothesis::{Kind, Metric, Scale},
    steady::{
        measure,
        rates::{self, MIN_TARGETS, Tick},
        summary::{Point, Summary},
    },
    target::Group,
};

/// How uncertain an effect is because targets differ.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct TargetSpread {
    /// How many targets of the control group it is from; `None` if too few to tell.
    pub control: Option<usize>,
    /// How many of the experimental group; `None` if too few to tell, or none of its business.
    pub experiment: Option<usize>,
    /// Standard error of `theta`, from leaving out one target at a time.
    pub se: f64,
    /// Degrees of freedom of `se`.
    pub df: f64,
    /// It makes the interval wider than time does, so that the interval is its.
    pub taken: bool,
}

/// (n − 1)/n · Σ(θ₋ᵢ − θ̄)²: the variance of θ, of θ without each of n parts.
pub(super) fn variance(without: &[f64]) -> f64 {
    let n = without.len() as f64;
    let mean = without.iter().sum::<f64>() / n;
    (n - 1.0) / n * without.iter().map(|theta| (theta - mean).powi(2)).sum::<f64>()
}

/// The sums of each target of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums<'a> {
    pub(super) before: &'a [Summary],
    pub(super) during: &'a [Summary],
}

/// How much targets differ in what these ticks say of the effect; `None` where no group has [`MIN_TARGETS`].
pub(super) fn of_targets(
    metric: Metric,
    contrast: Contrast,
    before: &[&Tick],
    during: &[&Tick],
) -> Option<TargetSpread> {
    // Nothing was kept apart: spare the work.
    during.iter().find(|tick| !tick.apart.is_empty())?;
    let [before, during] = [before, during].map(|ticks| known(metric, ticks));
    match metric.kind() {
        Kind::Event => None,
        // Its control group is always part of it.
        Kind::Trend => spread(|group| slopes_without(metric, group, &during)),
        kind => {
            let of_group = |group| [&before, &during].map(|ticks| sums(metric, group, ticks));
            let [control, experiment] = [Group::Control, Group::Experiment].map(of_group);
            let [control, experiment] =
                [&control, &experiment].map(|[before, during]| Sums { before, during });
            of_sums(kind, contrast, control, experiment)
        }
    }
}

/// The same of sums, for every kind that is taken of sums alone.
pub(super) fn of_sums(
    kind: Kind,
    contrast: Contrast,
    control: Sums<'_>,
    experiment: Sums<'_>,
) -> Option<TargetSpread> {
    spread(|group| match (group, contrast) {
        (Group::Control, _) => changes_without(kind, control),
        (Group::Experiment, Contrast::Groups) => changes_without(kind, experiment),
        (Group::Experiment, Contrast::Control) => None,
    })
}

/// From θ without each target of a group. A group of too few adds nothing: its variance is not known, and at least 0. The
/// other's alone is too small rather than too large, and taken only where it is larger than that of time all the same: no
/// standard error is smaller for it.
fn spread(without: impl Fn(Group) -> Option<Vec<f64>>) -> Option<TargetSpread> {
    let known = |group| {
        let thetas = without(group).filter(|thetas| thetas.len() >= MIN_TARGETS)?;
        Some((thetas.len(), variance(&thetas)))
    };
    let [control, experiment] = [Group::Control, Group::Experiment].map(known);
    let shares = [control, experiment].into_iter().flatten();
    let shares: Vec<(f64, f64)> = shares.map(|(n, variance)| (variance, n as f64 - 1.0)).collect();
    let all_df: f64 = shares.iter().map(|(_, df)| df).sum();
    let StandardError { se, df } = StandardError::of_sum(&shares);
    // Targets between which there is no difference at all.
    let df = if se == 0.0 { all_df } else { df };
    let [control, experiment] = [control, experiment].map(|group| group.map(|(n, _)| n));
    (se.is_finite() && all_df > 0.0).then_some(TargetSpread { control, experiment, se, df, taken: false })
}

/// The ticks that θ is made of: those in which the metric is known of both groups.
fn known<'a>(metric: Metric, ticks: &[&'a Tick]) -> Vec<&'a Tick> {
    ticks.iter().copied().filter(|tick| rates::point(metric, tick).is_some()).collect()
}

/// What each target of a group did in a tick.
fn parts(metric: Metric, group: Group, tick: &Tick) -> Option<Vec<Summary>> {
    let of_group = tick.apart.iter().filter(|(of, _)| *of == group);
    of_group.map(|(_, done)| measure::summary(metric, done, tick.seconds)).collect()
}

/// What each did in all of them.
fn sums(metric: Metric, group: Group, ticks: &[&Tick]) -> Vec<Summary> {
    let mut sums = vec![];
    for parts in ticks.iter().filter_map(|tick| parts(metric, group, tick)) {
        sums.resize(parts.len(), Summary::default());
        sums.iter_mut().zip(&parts).for_each(|(sum, part)| sum.merge(part));
    }
    sums
}

/// What of θ is the group's, without each of its targets; the other group's part is the same in all of them, and cancels.
/// Time is added up over targets too: a rate is then that of one target, and differs from the whole group's by a factor
/// that is the same before and during.
fn changes_without(kind: Kind, Sums { before, during }: Sums<'_>) -> Option<Vec<f64>> {
    let total = |parts: &[Summary]| {
        let mut total = Summary::default();
        parts.iter().for_each(|part| total.merge(part));
        total
    };
    let (all_before, all_during) = (total(before), total(during));
    let without = |(before, during): (&Summary, &Summary)| {
        let cell = |all: &Summary, part: &Summary| Cell::merged(kind, all.without(part));
        let (before, during) = (cell(&all_before, before)?, cell(&all_during, during)?);
        // As of whole groups: nothing can be compared with nothing.
        let idle = kind.scale() == Scale::Relative && before.count() == 0.0;
        (!idle).then(|| during.statistic() - before.statistic())
    };
    before.iter().zip(during).map(without).collect()
}

/// The slope without each target of the group. It is that of a sum, so the rest of the group is made as large as the whole.
fn slopes_without(metric: Metric, group: Group, during: &[&Tick]) -> Option<Vec<f64>> {
    let whole = rates::points(metric, during.iter().copied());
    let parts: Vec<Vec<Summary>> =
        during.iter().map(|tick| parts(metric, group, tick)).collect::<Option<_>>()?;
    let targets = parts.iter().map(Vec::len).min()?;
    let larger = targets as f64 / (targets as f64 - 1.0);
    let without = |target: usize| {
        let rest = |(point, parts): (&Point, &Vec<Summary>)| {
            let all = side(group, point);
            let rest = Summary { count: larger * (all.count - parts[target].count), ..all.clone() };
            match group {
                Group::Control => Point { control: rest, ..point.clone() },
                Group::Experiment => Point { experiment: rest, ..point.clone() },
            }
        };
        trend::theta(&whole.iter().zip(&parts).map(rest).collect::<Vec<_>>())
    };
    (0..targets).map(without).collect()
}

#[cfg(test)]
mod tests {
    use chaos_common::Counters;

    use super::*;
    use crate::{
        judge::pulse::{PairPoints, estimate},
        steady::{done::Done, reading::SlotReading, sample::Phase},
    };

    fn close(ours: f64, by_hand: f64) {
        assert!((ours - by_hand).abs() <= 1e-4 * by_hand, "{ours} against {by_hand}");
    }

    /// Targets with a thousand trials each, of which so many hit.
    fn hits(hits: &[f64]) -> Vec<Summary> {
        hits.iter().map(|hits| Summary::count(*hits, 1_000.0, *hits as u64)).collect()
    }

    fn of_hits(contrast: Contrast, control: &[f64], experiment: &[f64]) -> Option<TargetSpread> {
        let [before_c, before_e] = [control, experiment].map(|group| hits(&vec![10.0; group.len()]));
        let [during_c, during_e] = [control, experiment].map(hits);
        let sums = |before, during| Sums { before, during };
        of_sums(Kind::RareRatio, contrast, sums(&before_c, &during_c), sums(&before_e, &during_e))
    }

    #[test]
    fn what_is_left_out_moves_what_is_left() {
        assert_eq!(variance(&[1.0, 2.0, 3.0, 4.0]), 3.75);
        assert_eq!(variance(&[7.0; 5]), 0.0);
    }

    #[test]
    fn of_targets_that_do_as_much_it_is_that_of_their_mean() {
        // Changes of 0, 1, 2 and 3 pp: s²/n = (5e-4/3)/4. Of 0, 0, 1, 1 and 0: (1.2e-4/4)/5.
        let (experiment, control) = ([10.0, 20.0, 30.0, 40.0], [10.0, 10.0, 20.0, 20.0, 10.0]);
        let spread = of_hits(Contrast::Groups, &control, &experiment).unwrap();
        close(spread.se, (4.1667e-5_f64 + 6e-6).sqrt());
        close(spread.df, 4.7667e-5_f64.powi(2) / (4.1667e-5_f64.powi(2) / 3.0 + 6e-6_f64.powi(2) / 4.0));
        assert_eq!((spread.control, spread.experiment), (Some(5), Some(4)));
        let alone = of_hits(Contrast::Control, &control, &experiment).unwrap();
        close(alone.se, 6e-6_f64.sqrt());
        assert_eq!((alone.df, alone.control, alone.experiment), (4.0, Some(5), None));
    }

    #[test]
    fn three_are_too_few_and_four_alike_differ_by_nothing() {
        let four = [10.0, 20.0, 30.0, 40.0];
        let one_sided = of_hits(Contrast::Groups, &four[..3], &four).unwrap();
        assert_eq!((one_sided.control, one_sided.experiment, one_sided.df), (None, Some(4), 3.0));
        assert_eq!(of_hits(Contrast::Groups, &four[..3], &four[..3]), None);
        let alike = of_hits(Contrast::Groups, &[10.0; 4], &[30.0; 5]).unwrap();
        assert_eq!((alike.se, alike.df), (0.0, 7.0));
    }

    #[test]
    fn a_rate_is_compared_with_itself_however_large_the_targets() {
        let counts =
            |counts: [f64; 4]| counts.map(|count| Summary::count(count, 60.0, count as u64)).to_vec();
        let (before, halved) = (counts([100.0, 200.0, 400.0, 900.0]), counts([50.0, 100.0, 200.0, 450.0]));
        let same = Sums { before: &before, during: &before };
        let all_halved = Sums { before: &before, during: &halved };
        let spread = of_sums(Kind::Rate, Contrast::Groups, same, all_halved);
        assert!(spread.is_none_or(|spread| spread.se < 1e-12), "{spread:?}");
        let idle = counts([0.0, 0.0, 0.0, 900.0]);
        let only_one = Sums { before: &idle, during: &idle };
        assert_eq!(
            of_sums(Kind::Rate, Contrast::Groups, only_one, only_one),
            None,
            "three of which are idle"
        );
    }

    #[test]
    fn of_a_slope_the_rest_is_made_as_large_as_the_whole() {
        // Targets that grow by 0, 1, 2 and 3 million a minute: n·s² = 4·(5e12/3).
        let member = |level: f64| {
            let mut reading = SlotReading::of(Counters::ZERO);
            reading.files.memory.current_bytes = Some(level as u64);
            Done::between(&reading, &reading).unwrap()
        };
        let tick = |t: usize| {
            let level = |slope: f64| 1e8 + slope * 1e6 * t as f64 / 60.0;
            let members = [0.0, 1.0, 2.0, 3.0].map(|slope| member(level(slope)));
            Tick {
                phase: Phase::Inject,
                at_s: t as f64,
                seconds: 1.0,
                control: member(1e8),
                experiment: members.iter().cloned().reduce(Done::plus).unwrap(),
                apart: members.into_iter().map(|done| (Group::Experiment, done)).collect(),
            }
        };
        let ticks: Vec<Tick> = (1..=60).map(tick).collect();
        let during: Vec<&Tick> = ticks.iter().collect();
        let spread = of_targets(Metric::Growth, Contrast::Groups, &[], &during).unwrap();
        close(spread.se, (4.0 * 5e12_f64 / 3.0).sqrt());
        assert_eq!((spread.control, spread.experiment, spread.df), (None, Some(4), 3.0));
        assert_eq!(of_targets(Metric::OomKills, Contrast::Groups, &during, &during), None);
    }

    #[test]
    fn the_wider_one_is_taken_and_no_interval_is_narrower_than_without() {
        let pair = |t: u64| {
            let count = |count: u64| Summary::count(count as f64, 8.0, count);
            let point =
                |experiment| Point { control: count(9_000), experiment: count(experiment), seconds: 8.0 };
            PairPoints { on: point(8_000 + 90 * (t % 4)), off: point(9_000) }
        };
        let pairs: Vec<_> = (0..12).map(pair).collect();
        let by_time = estimate(Kind::Rate, Contrast::Groups, &pairs, 0.95).unwrap();
        for (times, df, taken) in [(3.0, 3.0, true), (0.9, 3.0, true), (0.5, 3.0, false), (0.9, 30.0, false)]
        {
            let se = times * by_time.se;
            let spread = TargetSpread { control: Some(4), experiment: Some(4), se, df, taken: false };
            let both = by_time.clone().or_targets(Some(spread), 0.95);
            assert_eq!((both.is_by_targets(), both.se == se), (taken, taken), "{times} times, {df}");
            assert_eq!(both.theta_ci, both.interval(0.95));
            for level in [0.6, 0.9, 0.95, 0.99, 0.9999] {
                let (wide, narrow) = (both.interval(level), by_time.interval(level));
                assert!(wide[0] <= narrow[0] && wide[1] >= narrow[1], "{times} times, {df}, at {level}");
            }
            for limit in [-0.5, -0.1, 0.0, 0.1] {
                assert!(both.p_beyond(limit, true) >= by_time.p_beyond(limit, true));
                assert!(both.p_beyond(limit, false) >= by_time.p_beyond(limit, false));
            }
        }
        assert_eq!(by_time.clone().or_targets(None, 0.95), by_time);
        let alike = TargetSpread { control: Some(4), experiment: Some(4), se: 0.0, df: 6.0, taken: false };
        let known = by_time.clone().or_targets(Some(alike), 0.95);
        assert_eq!((known.ci, known.p_any(), known.targets), (by_time.ci, by_time.p_any(), Some(alike)));
        assert_eq!(known.p_beyond(0.1, true), by_time.p_beyond(0.1, true));
    }
}
