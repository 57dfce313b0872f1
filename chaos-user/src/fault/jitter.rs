//! How delays vary: distributions as tables that the kernel half looks up, for it has no floating point.

use std::time::Duration;

use chaos_common::{
    Chance,
    shape::{CUT_OFF, NORMAL_QUANTILES, ONE, Shape, TABLE_ENTRIES, Table, distribution, shaped},
};
use statrs::distribution::{ContinuousCDF, Normal};

/// How a jitter is distributed around the delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// The same chance everywhere from one jitter less to one more.
    #[default]
    Uniform,
    /// The jitter is the standard deviation.
    Normal,
    /// A long tail: few packets, much later.
    Pareto,
    /// A quarter normal, three quarters Pareto.
    ParetoNormal,
}

/// How much more or less than the delay, and how one packet's follows from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter {
    /// How much.
    pub by: Duration,
    /// Its distribution.
    pub distribution: Distribution,
    /// Autocorrelation from one packet to the next.
    pub correlation: Chance,
    /// Whether a packet that is held back longer may be overtaken by later ones.
    pub order: Order,
}

/// What becomes of the order of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// A packet of a flow leaves after the one before it.
    #[default]
    Keep,
    /// Each packet leaves at its own time.
    Free,
}

impl Distribution {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; distribution::COUNT as usize] =
        [Self::Uniform, Self::Normal, Self::Pareto, Self::ParetoNormal];

    /// As users write it, and netem calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Normal => "normal",
            Self::Pareto => "pareto",
            Self::ParetoNormal => "paretonormal",
        }
    }

    /// As the kernel half knows it.
    pub const fn number(self) -> u32 {
        match self {
            Self::Uniform => distribution::UNIFORM,
            Self::Normal => distribution::NORMAL,
            Self::Pareto => distribution::PARETO,
            Self::ParetoNormal => distribution::PARETO_NORMAL,
        }
    }

    /// How many jitters more than the delay it comes to at most.
    pub const fn most(self) -> u32 {
        match self {
            Self::Uniform => 1,
            _ => CUT_OFF as u32,
        }
    }

    /// The jitter at a point of a standard normal variate: what lies below the one has the same chance as what lies
    /// below the other. The formulas are those by which iproute2 makes its tables for netem (netem/normal.c, pareto.c,
    /// paretonormal.c), cut off at four jitters as those are.
    fn at(self, variate: f64) -> f64 {
        let cut = |jitter: f64| jitter.clamp(-(CUT_OFF as f64), CUT_OFF as f64);
        let below = standard_normal().cdf(variate);
        match self {
            Self::Uniform => 2.0 * below - 1.0,
            Self::Normal => cut(variate),
            Self::Pareto => cut(pareto(below)),
            Self::ParetoNormal => (cut(variate) + 3.0 * cut(pareto(below))) / 4.0,
        }
    }
}

/// A Pareto variate of shape 3, moved so that its mean is 0.
fn pareto(below: f64) -> f64 {
    const SHAPE: f64 = 3.0;
    let mean = SHAPE / (SHAPE - 1.0);
    ((1.0 - below).powf(-1.0 / SHAPE) - mean) * 4.0 / 3.0
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Keep, Self::Free];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Free => "free",
        }
    }
}

/// The same shape with an autocorrelation ρ from one packet's variate to the next's.
pub fn correlated(shape: Shape, rho: Chance) -> Shape {
    let rho = rho.fraction();
    let (kept, fresh) = (rho * ONE as f64, (1.0 - rho * rho).sqrt() * ONE as f64);
    Shape { rho: kept as u64, fresh: fresh as u64, ..shape }
}

fn standard_normal() -> Normal {
    Normal::standard()
}

/// The tables by which a jitter of this distribution is drawn, with their numbers.
pub fn tables(distribution: u32) -> Vec<(u32, Table)> {
    let normals = table(|cell| standard_normal().inverse_cdf((cell as f64 + 0.5) / TABLE_ENTRIES as f64));
    let width = 2.0 * CUT_OFF as f64 / TABLE_ENTRIES as f64;
    let of = |distribution: Distribution| {
        table(|cell| distribution.at((cell as f64 + 0.5) * width - CUT_OFF as f64))
    };
    let wanted = Distribution::ALL.into_iter().filter(|known| known.number() == distribution);
    [(NORMAL_QUANTILES, normals)]
        .into_iter()
        .chain(wanted.map(|known| (shaped(distribution), of(known))))
        .collect()
}

/// Jitters of which each is as likely as any other, in units of `one`: what netem draws from.
pub fn quantiles(distribution: Distribution, one: u32) -> Vec<i16> {
    let at = |cell: usize| standard_normal().inverse_cdf((cell as f64 + 0.5) / TABLE_ENTRIES as f64);
    // Beyond what fits, they are cut off; that is at four jitters anyway.
    (0..TABLE_ENTRIES).map(|cell| (distribution.at(at(cell)) * f64::from(one)).round() as i16).collect()
}

/// The middle of each cell.
fn table(at: impl Fn(usize) -> f64) -> Table {
    Table { values: std::array::from_fn(|cell| (at(cell) * ONE as f64).round() as i32) }
}

#[cfg(test)]
mod tests {
    use chaos_common::{
        random,
        shape::{quantile_index, shaped_index},
    };

    use super::*;

    /// Jitters as the kernel half draws them, in jitters.
    fn draws(distribution: Distribution, correlation: f64, count: u64) -> Vec<f64> {
        let tables = tables(distribution.number());
        let shape = correlated(Shape::NONE, Chance::from_fraction(correlation).unwrap());
        let values = |table: u32| tables.iter().find(|(number, _)| *number == table).unwrap().1.values;
        let (normals, jitters) = (values(NORMAL_QUANTILES), values(shaped(distribution.number())));
        let mut variate = 0;
        let mut next = |n| {
            variate = shape.next_variate(variate, normals[quantile_index(random::draw(1, 0, n))]);
            f64::from(jitters[shaped_index(variate)]) / ONE as f64
        };
        (0..count).map(&mut next).collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// Covariance of values `lag` apart.
    fn covariance(values: &[f64], lag: usize) -> f64 {
        let mean = mean(values);
        let products: Vec<f64> =
            values.iter().zip(&values[lag..]).map(|(one, next)| (one - mean) * (next - mean)).collect();
        self::mean(&products)
    }

    const COUNT: u64 = 400_000;

    /// Mean and deviation by the formulas, integrated.
    fn expected(distribution: Distribution) -> (f64, f64) {
        let points = 1_000_000;
        let at = |point: u32| {
            distribution.at(standard_normal().inverse_cdf((f64::from(point) + 0.5) / f64::from(points)))
        };
        let values: Vec<f64> = (0..points).map(at).collect();
        (mean(&values), covariance(&values, 0).sqrt())
    }

    #[test]
    fn each_distribution_has_its_mean_and_deviation_with_and_without_correlation() {
        for distribution in Distribution::ALL {
            let (expected_mean, expected_deviation) = expected(distribution);
            for correlation in [0.0, 0.25, 0.9] {
                let drawn = draws(distribution, correlation, COUNT);
                let (mean, deviation) = (mean(&drawn), covariance(&drawn, 0).sqrt());
                let near = (mean - expected_mean).abs() < 0.03
                    && (deviation / expected_deviation - 1.0).abs() < 0.03;
                assert!(near, "{distribution:?} at {correlation}: {mean} ± {deviation}");
            }
        }
    }

    #[test]
    fn means_and_deviations_are_those_of_the_textbook() {
        let near = |(mean, deviation): (f64, f64), expected: f64| {
            mean.abs() < 1e-3 && (deviation - expected).abs() < 1e-2
        };
        assert!(near(expected(Distribution::Uniform), 1.0 / 3.0_f64.sqrt()));
        assert!(near(expected(Distribution::Normal), 1.0));
        // Uncut, 0 and √(3/4) · 4/3; the cut takes the far tail away.
        let (mean, deviation) = expected(Distribution::Pareto);
        assert!((-0.04..0.0).contains(&mean) && (0.8..1.16).contains(&deviation), "{mean} ± {deviation}");
    }

    #[test]
    fn correlation_is_what_was_asked_for() {
        for correlation in [0.25, 0.5, 0.9] {
            for distribution in [Distribution::Normal, Distribution::Uniform] {
                let drawn = draws(distribution, correlation, COUNT);
                let seen = covariance(&drawn, 1) / covariance(&drawn, 0);
                assert!((seen - correlation).abs() < 0.03, "{distribution:?} at {correlation}: {seen}");
            }
        }
    }

    #[test]
    fn a_uniform_jitter_is_uniform_with_and_without_correlation() {
        for correlation in [0.0, 0.5] {
            let mut bins = [0_u32; 10];
            for jitter in draws(Distribution::Uniform, correlation, COUNT) {
                bins[(((jitter + 1.0) * 5.0) as usize).min(9)] += 1;
            }
            let even = |bin: &u32| (f64::from(*bin) / (COUNT as f64 / 10.0) - 1.0).abs() < 0.05;
            assert!(bins.iter().all(even), "at {correlation}: {bins:?}");
        }
    }

    #[test]
    fn a_pareto_jitter_has_few_packets_far_behind() {
        let drawn = draws(Distribution::Pareto, 0.0, COUNT);
        let share = |above: f64| drawn.iter().filter(|jitter| **jitter > above).count() as f64 / COUNT as f64;
        assert!(drawn.iter().all(|jitter| (-0.67..=4.0).contains(jitter)));
        assert!((share(0.0) - 1.5_f64.powi(-3)).abs() < 0.01, "most are early: {}", share(0.0));
        assert!((share(2.0) - 3.0_f64.powi(-3)).abs() < 0.005, "some are far behind: {}", share(2.0));
    }

    #[test]
    fn none_is_later_than_it_may_be() {
        for distribution in Distribution::ALL {
            let most = f64::from(distribution.most());
            assert!(draws(distribution, 0.9, COUNT).iter().all(|jitter| *jitter <= most), "{distribution:?}");
        }
    }
}
