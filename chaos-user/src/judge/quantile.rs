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

/// Above this sum of its parameters the beta distribution's continued fraction does not converge in the steps it is given
/// (statrs 0.19, `beta_reg`): they are about as many as the root of the larger one.
const BETA_CONVERGES: f64 = 1e4;
/// Below this, the smaller of large parameters makes the distribution too lopsided for a normal one.
const LOPSIDED: f64 = 1e3;

/// The logarithm of the beta function, and the chance that Beta(a, b) exceeds `x`.
pub fn beta_above(a: f64, b: f64, x: f64) -> Option<(f64, f64)> {
    let above = if a + b <= BETA_CONVERGES {
        Beta::new(a, b).ok()?.sf(x)
    } else if a.min(b) >= LOPSIDED {
        let mean = a / (a + b);
        z_below((mean - x) / (mean * (1.0 - mean) / (a + b + 1.0)).sqrt())
    } else if a < b {
        // −ln(1−X)·(b + (a−1)/2) is nearly Gamma(a) with a large b (DiDonato, Morris, ACM TOMS 18, 1992, §9).
        Gamma::new(a, 1.0).ok()?.sf(-(-x).ln_1p() * (b + (a - 1.0) / 2.0))
    } else {
        Gamma::new(b, 1.0).ok()?.cdf(-x.ln() * (a + (b - 1.0) / 2.0))
    };
    Some((ln_beta(a, b), above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_parameters_go_on_where_small_ones_end() {
        for (a, b) in [(3.0_f64, 9_990.0), (9_990.0, 3.0), (300.0, 9_600.0), (4_000.0, 5_900.0)] {
            let mean = a / (a + b);
            for times in [0.7_f64, 0.95, 1.0, 1.05, 1.3] {
                let x = (mean * times).min(0.9999);
                let (_, exact) = beta_above(a, b, x).unwrap();
                // A little more of both, beyond the border.
                let by = 1.02;
                let (_, near) = beta_above(a * by, b * by, x).unwrap();
                assert!((exact - near).abs() < 0.05, "Beta({a}, {b}) above {x}: {exact}, then {near}");
            }
        }
        assert_eq!(beta_above(5e7, 5e8, 0.2).map(|(_, above)| above), Some(0.0));
        assert_eq!(beta_above(5e7, 5e8, 0.05).map(|(_, above)| above), Some(1.0));
    }
}
