//! Quantiles and tails of the distributions the judge needs. Nothing here panics, whatever the numbers.

use statrs::{
    distribution::{Beta, Binomial, ContinuousCDF, DiscreteCDF, Gamma, Normal, StudentsT},
    function::beta::ln_beta,
};

/// Above this many degrees of freedom Student's t is the normal distribution for our purposes.
const NORMAL_DF: f64 = 1e6;

/// The `level` quantile of Student's t with `df` degrees of freedom, `0 < level < 1`.
pub fn t(level: f64, df: f64) -> f64 {
    match student(df) {
        Some(student) => student.inverse_cdf(level),
        None => z(level),
    }
}

/// The chance that Student's t with `df` degrees of freedom exceeds `x`.
pub fn t_tail(x: f64, df: f64) -> f64 {
    match student(df) {
        Some(student) => student.sf(x),
        None => Normal::standard().sf(x),
    }
}

/// The `level` quantile of the normal distribution.
pub fn z(level: f64) -> f64 {
    Normal::standard().inverse_cdf(level)
}

fn student(df: f64) -> Option<StudentsT> {
    if df < NORMAL_DF { StudentsT::new(0.0, 1.0, df).ok() } else { None }
}

/// Above this many trials the few hits are taken as Poisson: the quantile of the beta distribution loses digits there,
/// and beyond some 10⁷ it does not come to an end (statrs 0.19, `inv_beta_reg`).
const POISSON_TRIALS: f64 = 1e5;

/// One-sided bounds of a share, each of which holds with chance `level` at least, from *few* hits: Clopper–Pearson
/// (Biometrika 26, 1934), or of very many trials Garwood (Biometrika 28, 1936), which is wider by less than 0.1 %.
pub fn clopper_pearson(hits: f64, trials: f64, level: f64) -> (f64, f64) {
    let missed = trials - hits;
    let low = if hits > 0.0 { share_quantile(hits, missed + 1.0, 1.0 - level).unwrap_or(0.0) } else { 0.0 };
    let high = if missed > 0.0 { share_quantile(hits + 1.0, missed, level).unwrap_or(1.0) } else { 1.0 };
    (low, high)
}

/// A quantile of Beta(a, b) or, with a large b, of Gamma(a)/(a + b − 1).
fn share_quantile(a: f64, b: f64, level: f64) -> Option<f64> {
    if a + b > POISSON_TRIALS {
        let mean = Gamma::new(a, 1.0).ok()?.inverse_cdf(level);
        return Some((mean / (a + b - 1.0)).min(1.0));
    }
    Some(Beta::new(a, b).ok()?.inverse_cdf(level))
}

/// Wilson's score interval of a share, two-sided with chance `level`. Wilson, JASA 22 (1927).
pub fn wilson(hits: u64, trials: u64, level: f64) -> Option<(f64, f64)> {
    if trials == 0 {
        return None;
    }
    let (n, p, z) = (trials as f64, hits as f64 / trials as f64, z((1.0 + level) / 2.0));
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Some(((middle - half).max(0.0), (middle + half).min(1.0)))
}

/// The chance of `hits` or more among `trials` with chance `p` each; 1 if `p` is no chance at all.
pub fn binomial_at_least(hits: u64, trials: u64, p: f64) -> f64 {
    match (hits.checked_sub(1), Binomial::new(p, trials)) {
        (Some(fewer), Ok(binomial)) => binomial.sf(fewer),
        _ => 1.0,
    }
}

/// The chance that a standard normal variable is below `x`.
pub fn z_below(x: f64) -> f64 {
    Normal::standard().cdf(x)
}

/// The logarithm of the beta function, and the chance that Beta(a, b) exceeds `x`.
pub fn beta_above(a: f64, b: f64, x: f64) -> Option<(f64, f64)> {
    Some((ln_beta(a, b), Beta::new(a, b).ok()?.sf(x)))
}
