//! The default rule of Kayenta's NetflixACAJudge, to be compared with. It looks at the fault phase alone: Mann–Whitney's test
//! with the Hodges–Lehmann estimate of the shift and its 98 % interval by the normal approximation. A metric is high if the
//! interval lies above a quarter of the estimate itself, low if it lies below minus that, and good otherwise.

use crate::judge::quantile;

const TOLERANCE: f64 = 0.25;
const CONFIDENCE: f64 = 0.98;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Pass,
    High,
    Low,
}

pub fn classify(experiment: &[f64], control: &[f64]) -> Class {
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values
    };
    let (experiment, control) = (sorted(experiment), sorted(control));
    let pairs = (experiment.len() * control.len()) as f64;
    let shift = |rank: f64| difference_at(&experiment, &control, rank);
    let reach = quantile::z((1.0 + CONFIDENCE) / 2.0) * deviation(&experiment, &control) + 0.5;
    let (low, high) = (shift(pairs / 2.0 - reach), shift(pairs / 2.0 + reach));
    let bound = TOLERANCE * shift(pairs / 2.0).abs();
    if low > bound && bound > 0.0 {
        Class::High
    } else if high < -bound && bound > 0.0 {
        Class::Low
    } else {
        Class::Pass
    }
}

/// The standard deviation of the number of pairs in which the experiment is larger, corrected for ties.
fn deviation(experiment: &[f64], control: &[f64]) -> f64 {
    let mut all: Vec<f64> = experiment.iter().chain(control).copied().collect();
    all.sort_by(f64::total_cmp);
    let n = all.len() as f64;
    let tied = all.chunk_by(|a, b| a == b).map(|run| run.len() as f64).map(|t| t * t * t - t).sum::<f64>();
    let pairs = (experiment.len() * control.len()) as f64;
    (pairs / 12.0 * (n + 1.0 - tied / (n * (n - 1.0)))).sqrt()
}

/// The difference below which `rank` of all pairwise differences lie, by bisection; both are sorted.
fn difference_at(experiment: &[f64], control: &[f64], rank: f64) -> f64 {
    let at_most = |shift: f64| {
        let (mut pairs, mut above) = (0, 0);
        for e in experiment {
            while above < control.len() && e - control[above] > shift {
                above += 1;
            }
            pairs += control.len() - above;
        }
        pairs
    };
    let least = experiment[0] - control[control.len() - 1];
    let most = experiment[experiment.len() - 1] - control[0];
    let (mut low, mut high) = (least - 1e-9, most);
    for _ in 0..24 {
        let middle = (low + high) / 2.0;
        if f64::from(at_most(middle) as u32) < rank { low = middle } else { high = middle }
    }
    // What bisection leaves of nothing.
    if high.abs() < 1e-6 * (most - least) { 0.0 } else { high }
}

#[test]
fn it_does_as_its_users_report() {
    let of = |bad: usize| -> Vec<f64> { (0..10).map(|i| if i < bad { 100.0 } else { 1.0 }).collect() };
    assert_eq!(classify(&of(7), &[1.0; 10]), Class::Pass, "a hundred times as much in seven of ten");
    assert_eq!(classify(&of(8), &[1.0; 10]), Class::High);
    assert_eq!(classify(&[0.0, 1.0, 2.0, 1.0, 0.0, 0.0], &[0.0; 6]), Class::Pass);
}
