//! How soon the system is back after the fault, and how much of it was left meanwhile.

use schemars::JsonSchema;
use serde::Serialize;

use super::{JudgeInput, ewc, gate::limits, hold, quantile, score::Cell};
use crate::{
    experiment::hypothesis::{Gate, Kind},
    steady::{
        rates::{Block, Tick, points},
        sample::Phase,
        summary::Point,
    },
    target::Group,
};

/// How many ticks a rolling effect is made of, in a hold.
const WINDOW: usize = 10;

/// For how many ticks the system must have been back to count as back.
const CALM: usize = 30;

/// Within so many standard deviations of what it did before, a rolling effect is none.
const USUAL: f64 = 3.0;

/// How long it took from the end of the fault until every gate was back, and stayed.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct RecoveryTime {
    /// Of a hold the time, of pulses the median; `None` if it was longer than could be seen.
    pub median_s: Option<f64>,
    /// Bounds of the median of pulses; the upper one `None` if it was longer than could be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci_s: Option<[Option<f64>; 2]>,
    /// As long as could be seen.
    pub seen_s: f64,
    /// How many times it was timed.
    pub times: usize,
}

/// How much of the steady state was left, in percent, over inject and recover. A number to follow from run to run, which
/// never decides: a 97 with a gate that failed is a failure.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct ResilienceIndex {
    /// 100 if nothing left its margin.
    pub value: f64,
    /// Its confidence interval.
    pub ci: [f64; 2],
    /// The most that was lost at any time, in percent.
    pub depth: f64,
    /// For how long anything was lost, in seconds.
    pub duration_s: f64,
}

/// What is rolled over: one gate's metric, compared with the baseline.
struct Roll<'a> {
    gate: &'a Gate,
    kind: Kind,
    before: Point,
    sigma: f64,
}

impl<'a> Roll<'a> {
    fn new(gate: &'a Gate, baseline: &[&Tick], window: usize) -> Option<Self> {
        let points = points(gate.metric, baseline.iter().copied());
        let kind = gate.metric.kind();
        let roll = Self { gate, kind, before: Point::sum(&points), sigma: 0.0 };
        let usual: Vec<f64> = points.windows(window).filter_map(|window| roll.theta(window)).collect();
        let mean_square = usual.iter().map(|theta| theta * theta).sum::<f64>() / usual.len() as f64;
        (!usual.is_empty()).then(|| Self { sigma: mean_square.sqrt(), ..roll })
    }

    /// How far the groups are from how far apart they were before.
    fn theta(&self, window: &[Point]) -> Option<f64> {
        Some(self.apart(&Point::sum(window))? - self.apart(&self.before)?)
    }

    fn apart(&self, point: &Point) -> Option<f64> {
        let cell = |group| Cell::merged(self.kind, super::score::side(group, point).clone());
        Some(cell(Group::Experiment)?.statistic() - cell(Group::Control)?.statistic())
    }

    /// Within the margin, or within what it did before. What cannot be measured is not back.
    fn is_calm(&self, window: &[Point]) -> bool {
        let [low, high] = limits(self.kind, self.gate.margin);
        let usual = USUAL * self.sigma;
        let is_within = |theta: f64| theta >= low.min(-usual) && theta <= high.max(usual);
        self.theta(window).is_some_and(is_within)
    }

    /// How far beyond the margin, on the scale of the test.
    fn loss(&self, window: &[Point]) -> f64 {
        let Some(theta) = self.theta(window) else { return 0.0 };
        let [low, high] = limits(self.kind, self.gate.margin);
        (theta - high).max(low - theta).max(0.0)
    }
}

fn rolls<'a>(gates: &'a [Gate], baseline: &[&Tick], window: usize) -> Option<Vec<Roll<'a>>> {
    let rolled = gates.iter().filter(|gate| gate.metric.kind().follows_pulses());
    let rolls: Vec<_> = rolled.map(|gate| Roll::new(gate, baseline, window)).collect::<Option<_>>()?;
    (!rolls.is_empty()).then_some(rolls)
}

/// Which ticks are calm, from the first whose window of ticks up to it is whole.
fn calm(rolls: &[Roll], ticks: &[&Tick], window: usize) -> Vec<bool> {
    let of = |roll: &Roll| points(roll.gate.metric, ticks.iter().copied());
    let series: Vec<_> = rolls.iter().map(|roll| (roll, of(roll))).collect();
    let at = |end: usize| series.iter().all(|(roll, points)| roll.is_calm(&points[end - window..end]));
    (window..=ticks.len()).map(at).collect()
}

/// The first of `calm` from which it stays so for `least`.
fn first_calm(calm: &[bool], least: usize) -> Option<usize> {
    let starts = 0..(calm.len() + 1).saturating_sub(least);
    starts.into_iter().find(|start| calm[*start..start + least].iter().all(|calm| *calm))
}

/// How soon after a hold. The window looks back, so that it may be said up to [`WINDOW`] ticks late and not early.
pub(super) fn time_of_hold(input: &JudgeInput, baseline: &[&Tick]) -> Option<RecoveryTime> {
    let rolls = rolls(&input.gates, baseline, WINDOW)?;
    let inject = hold::phase_ticks(input, Phase::Inject);
    let recover: Vec<&Tick> = input.ticks.iter().filter(|tick| tick.phase == Phase::Recover).collect();
    if inject.len() < WINDOW || recover.len() < CALM {
        return None;
    }
    let mut ticks = inject[inject.len() - WINDOW..].to_vec();
    ticks.extend(&recover);
    let calm = calm(&rolls, &ticks, WINDOW);
    let at = first_calm(&calm, CALM);
    let time_s = |index: usize| index.checked_sub(1).map_or(0.0, |last| recover[last].at_s);
    let seen_s = time_s(recover.len() - CALM + 1);
    Some(RecoveryTime { median_s: at.map(time_s), ci_s: None, seen_s, times: 1 })
}

/// How soon in the OFF blocks that follow an ON block: the median of all of them, with bounds by their ranks.
pub(super) fn time_of_pulses(input: &JudgeInput, baseline: &[&Tick]) -> Option<RecoveryTime> {
    let after: Vec<&Block> =
        input.blocks.windows(2).filter(|two| two[0].on && !two[1].on).map(|two| &two[1]).collect();
    let length = after.iter().map(|block| block.expected_ticks).min()?;
    let window = (length / 5).max(1);
    let rolls = rolls(&input.gates, baseline, window)?;
    let mut times: Vec<f64> = after
        .iter()
        .map(|block| {
            let ticks: Vec<&Tick> = block.ticks.iter().collect();
            let calm = calm(&rolls, &ticks, window);
            let from = calm.iter().rposition(|calm| !calm).map_or(0, |last| last + 1);
            // Windows that end with the first ticks hold nothing from before the fault was off.
            let at = |index: usize| if index == 0 { 0.0 } else { ticks[index + window - 2].at_s };
            if from < calm.len() { at(from) } else { f64::INFINITY }
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let seen_s =
        after.iter().filter_map(|block| block.ticks.last()).map(|tick| tick.at_s).fold(0.0, f64::max);
    let finite = |time: f64| time.is_finite().then_some(time);
    let [low, high] = median_ranks(times.len(), input.usable_confidence());
    Some(RecoveryTime {
        median_s: finite(times[(times.len() - 1) / 2]),
        ci_s: Some([finite(times[low]), finite(times[high])]),
        seen_s,
        times: times.len(),
    })
}

/// Between which of `n` sorted values the median lies, each bound with at least this confidence where `n` allows it.
fn median_ranks(n: usize, confidence: f64) -> [usize; 2] {
    let below = |rank: &usize| 1.0 - quantile::binomial_at_least(*rank as u64 + 1, n as u64, 0.5);
    let low = (0..n / 2).rev().find(|rank| below(rank) <= 1.0 - confidence).unwrap_or(0);
    [low, n - 1 - low]
}

/// Q(t) = min over gates of exp(−loss), its mean over inject and recover, with an interval that knows that seconds resemble
/// each other. The area above Q is the triangle of Bruneau et al. (Earthquake Spectra 19, 2003).
pub(super) fn index(input: &JudgeInput, baseline: &[&Tick]) -> Option<ResilienceIndex> {
    let rolls = rolls(&input.gates, baseline, WINDOW)?;
    let ticks: Vec<&Tick> = input.ticks.iter().filter(|tick| tick.phase != Phase::Baseline).collect();
    let series: Vec<_> = rolls.iter().map(|roll| points(roll.gate.metric, ticks.iter().copied())).collect();
    let worst = |end: usize| {
        let window = end.saturating_sub(WINDOW)..end;
        let loss = |(roll, points): (&Roll, &Vec<Point>)| roll.loss(&points[window.clone()]);
        rolls.iter().zip(&series).map(loss).fold(0.0, f64::max)
    };
    let left: Vec<f64> = (1..=ticks.len()).map(|end| (-worst(end)).exp()).collect();
    let run = ewc::long_run(&left)?;
    let n = left.len() as f64;
    let mean = left.iter().sum::<f64>() / n;
    let half = quantile::t(input.usable_confidence(), run.nu) * (run.omega / n).sqrt();
    let bound = |value: f64| 100.0 * value.clamp(0.0, 1.0);
    Some(ResilienceIndex {
        value: 100.0 * mean,
        ci: [bound(mean - half), bound(mean + half)],
        depth: 100.0 * (1.0 - left.iter().copied().fold(1.0, f64::min)),
        duration_s: ticks
            .iter()
            .zip(&left)
            .filter(|(_, left)| **left < 1.0)
            .map(|(tick, _)| tick.seconds)
            .sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::simulation::World;

    const STEADY: World = World { packets: 50_000.0, sd: 0.02, factor: 0.7, ..World::QUIET };

    fn timed(world: World) -> RecoveryTime {
        let input = world.input(3);
        time_of_hold(&input, &hold::phase_ticks(&input, Phase::Baseline)).unwrap()
    }

    #[test]
    fn the_time_of_a_hold_follows_how_slowly_it_comes_back() {
        let quick = timed(STEADY).median_s.unwrap();
        let slow = timed(World { tau: 12.0, ..STEADY }).median_s.unwrap();
        assert!((1.0..=WINDOW as f64).contains(&quick), "{quick}");
        // The effect is within the margin after 12·ln(0.357/0.105) = 14.6 s.
        assert!((14.0..=14.6 + WINDOW as f64).contains(&slow), "{slow}");
        let stuck = timed(World { factor_after: 0.7, ..STEADY });
        assert_eq!((stuck.median_s, stuck.seen_s), (None, 31.0), "longer than could be seen, and no number");
        let unhurt = timed(World { factor: 1.0, ..STEADY });
        assert_eq!(unhurt.median_s, Some(0.0));
    }

    #[test]
    fn pulses_time_it_many_times() {
        let of = |tau| {
            let input = World { tau, factor: 0.6, ..STEADY }.pulses(20, 20, 1);
            time_of_pulses(&input, &hold::phase_ticks(&input, Phase::Baseline)).unwrap()
        };
        let (quick, slow) = (of(0.0), of(4.0));
        assert!(quick.times >= 10, "{quick:?}");
        assert!(quick.median_s.unwrap() <= 2.0, "{quick:?}");
        // 4·ln(0.51/0.105) = 6.3 s, and a window of 4 s behind it.
        assert!((5.0..=11.0).contains(&slow.median_s.unwrap()), "{slow:?}");
        let [low, high] = slow.ci_s.unwrap().map(Option::unwrap);
        assert!(low <= slow.median_s.unwrap() && high >= slow.median_s.unwrap());
    }

    #[test]
    fn ranks_that_hold_the_median() {
        // P(Bin(12, ½) ≤ 2) = 0.019, ≤ 3: 0.073.
        assert_eq!(median_ranks(12, 0.95), [2, 9]);
        assert_eq!(median_ranks(1, 0.95), [0, 0]);
        assert_eq!(median_ranks(5, 0.95), [0, 4]);
    }

    #[test]
    fn the_index_is_what_is_left() {
        let of = |world: World| {
            let input = world.input(3);
            index(&input, &hold::phase_ticks(&input, Phase::Baseline)).unwrap()
        };
        let unhurt = of(World { factor: 1.0, ..STEADY });
        assert_eq!((unhurt.value, unhurt.depth, unhurt.duration_s), (100.0, 0.0, 0.0));
        let hurt = of(STEADY);
        // ln 0.7 is 0.25 beyond ln 0.9: 22 % are lost for half of the time.
        assert!((hurt.depth - 22.0).abs() < 4.0, "{hurt:?}");
        assert!((hurt.value - 89.0).abs() < 3.0 && hurt.ci[0] < hurt.value, "{hurt:?}");
        assert!((60.0..=70.0).contains(&hurt.duration_s), "{hurt:?}");
    }
}
