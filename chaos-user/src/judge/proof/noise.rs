//! Replayable noise, fast enough for two thousand runs in an unoptimised test.

use std::f64::consts::PI;

/// A generator of random numbers (splitmix64: Steele, Lea, Flood, OOPSLA 2014).
pub struct Noise {
    state: u64,
    spare: Option<f64>,
}

impl Noise {
    pub fn new(scenario: u64, run: u64) -> Self {
        Self {
            state: scenario.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ run.wrapping_mul(0xd134_2543_de82_ef95),
            spare: None,
        }
    }

    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) * (0.5_f64).powi(53)
    }

    /// Box and Muller, Ann. Math. Statist. 29 (1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sin, cos) = (2.0 * PI * self.uniform()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    pub fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 12.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut hits) = ((-mean).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            hits += 1.0;
        }
        hits
    }

    /// A stationary AR(1) series.
    pub fn wander(&mut self, ticks: usize, rho: f64, sd: f64) -> Vec<f64> {
        let (mut state, step) = (self.normal(), (1.0 - rho * rho).sqrt());
        let mut next = || {
            let now = state;
            state = rho * state + step * self.normal();
            sd * now
        };
        (0..ticks).map(|_| next()).collect()
    }
}
