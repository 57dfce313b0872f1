//! Guards: what ends a run early, whatever its verdict would be. State machines, fed with one tick at a time.
//!
//! Limits are plain. The test of harm may be looked at after every tick without ever being wrong more often than it says:
//! its e-value is a wager on "more harm than allowed", whose stake nobody can expect to grow while that is not so (Ville's
//! inequality). An ordinary test at 1 %, looked at every second for two minutes, ends one run in seven
//! whose harm is just what is allowed (docs/judge.md).

use std::f64::consts::PI;

use serde::Serialize;

use super::{ewc, quantile};

/// How often at most a run may be ended by tests of harm, all of them together, although nothing was beyond its limit.
pub const ALPHA: f64 = 0.01;

/// Fewer ticks of baseline, and how much the metric varies by itself is a guess.
pub const MIN_BASELINE: usize = 30;

/// Something that may happen so often and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimit {
    most: u64,
    seen: u64,
}

impl EventLimit {
    /// Fires when it happened more than `most` times.
    pub const fn new(most: u64) -> Self {
        Self { most, seen: 0 }
    }

    /// How often it happened in a tick. Whether there is reason to stop.
    pub const fn feed(&mut self, happened: u64) -> bool {
        self.seen = self.seen.saturating_add(happened);
        self.seen > self.most
    }
}

/// A level that may not be exceeded for long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelLimit {
    above: f64,
    for_s: f64,
    exceeded_s: f64,
}

impl LevelLimit {
    /// Fires once it has been above `above` for `for_s` seconds on end.
    pub const fn new(above: f64, for_s: f64) -> Self {
        Self { above, for_s, exceeded_s: 0.0 }
    }

    /// The level in a tick and how long the tick was. A level that could not be read neither ends nor lengthens the time
    /// above: missing is not good. Whether there is reason to stop.
    pub fn feed(&mut self, level: Option<f64>, seconds: f64) -> bool {
        match level {
            Some(level) if level > self.above => self.exceeded_s += seconds,
            Some(_) => {
                self.exceeded_s = 0.0;
                return false;
            }
            None => return false,
        }
        // Ticks are a little shorter or longer than they should be.
        self.exceeded_s >= self.for_s - seconds / 2.0
    }
}

/// How large an e-value has become.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// The largest so far.
    pub e_max: f64,
    /// From where on the run is ended.
    pub threshold: f64,
}

impl Evidence {
    /// Whether there is reason to stop.
    pub fn fired(&self) -> bool {
        self.e_max >= self.threshold
    }
}

/// An anytime-valid test of "more harm than `m_abort`", on scores such as `ln((y_E + ½)/(y_C + ½))` of each tick.
///
/// A half-normal mixture of exponential martingales (Robbins 1970; one-sided as in Waudby-Smith et al., arXiv 2103.06476):
/// `E = 2/√(tρ²+1) · exp(ρ²S²/(2(tρ²+1))) · Φ(ρS/√(tρ²+1))`. It must also be honest about what a short baseline knows: its
/// mean is moved by its own uncertainty, with half of α, and its variance is inflated.
#[derive(Clone, Debug, PartialEq)]
pub struct HarmTest {
    zero: f64,
    sigma: f64,
    rho_squared: f64,
    ticks: f64,
    sum: f64,
    evidence: Evidence,
}

/// ρ² is best for a decision after about this many ticks.
const TUNED_TO_TICKS: f64 = 20.0;

/// The mixture takes the noise for normal; this much more variance covers what is a little heavier.
const INFLATION: f64 = 1.25;

/// From here on down the limit of exp(z²/2)·Φ(z) is used.
const FAR_BELOW: f64 = -8.0;

impl HarmTest {
    /// From the scores of a baseline, the harm that is allowed on their scale, and this guard's share of [`ALPHA`].
    /// `None` if the baseline is too short.
    pub fn new(baseline: &[f64], m_abort: f64, alpha: f64) -> Option<Self> {
        let run = ewc::long_run(baseline).filter(|_| baseline.len() >= MIN_BASELINE)?;
        let n = baseline.len() as f64;
        let mean = baseline.iter().sum::<f64>() / n;
        let shift = quantile::t(1.0 - alpha / 2.0, run.nu) * (run.omega / n).sqrt();
        let unsure = quantile::t(0.9, run.nu) / quantile::z(0.9);
        let sigma = (INFLATION * run.omega).sqrt() * unsure;
        let log_alpha = alpha.ln();
        Some(Self {
            zero: mean + m_abort + shift,
            // A baseline like clockwork: any step beyond the limit is then infinitely many deviations.
            sigma: sigma.max(1e-9),
            rho_squared: (-2.0 * log_alpha + (1.0 - 2.0 * log_alpha).ln()) / TUNED_TO_TICKS,
            ticks: 0.0,
            sum: 0.0,
            evidence: Evidence { e_max: 0.0, threshold: 2.0 / alpha },
        })
    }

    /// With no less noise than this in a score: at the limit, counting alone may give more than a quiet baseline had.
    #[must_use]
    pub fn with_noise(mut self, least: f64) -> Self {
        self.sigma = self.sigma.max(INFLATION.sqrt() * least);
        self
    }

    /// The score of a tick with the fault on. Whether there is reason to stop.
    pub fn feed(&mut self, score: f64) -> bool {
        self.ticks += 1.0;
        self.sum += (score - self.zero) / self.sigma;
        self.evidence.e_max = self.evidence.e_max.max(self.e_value());
        self.evidence.fired()
    }

    fn e_value(&self) -> f64 {
        let spread = self.ticks * self.rho_squared + 1.0;
        let z = self.rho_squared.sqrt() * self.sum / spread.sqrt();
        // Far below the limit: exp(z²/2)·Φ(z) → 1/(√2π·|z|), of which neither factor can be computed.
        let wager = match z {
            z if z < FAR_BELOW => -1.0 / ((2.0 * PI).sqrt() * z),
            z => (z * z / 2.0).exp() * quantile::z_below(z),
        };
        2.0 / spread.sqrt() * wager
    }

    /// How near it is.
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }
}

/// The same for what is too rare to have a score each tick: counts of both groups, against the share that would fall to the
/// experimental group at the limit. A beta mixture over larger shares (Lindon, Malek, arXiv 2011.03567).
#[derive(Clone, Debug, PartialEq)]
pub struct RareTest {
    share: f64,
    dispersion: f64,
    experiment: f64,
    control: f64,
    evidence: Evidence,
}

impl RareTest {
    /// `odds` is how much the experimental group is exposed to for what the control group is, `most` how many times as often
    /// it may happen there, `dispersion` how many times the variance of counts is their mean (at least 1: calls come in
    /// bursts), `alpha` this guard's share of [`ALPHA`].
    pub fn new(odds: f64, most: f64, dispersion: f64, alpha: f64) -> Self {
        let at_limit = odds * most;
        Self {
            share: (at_limit / (1.0 + at_limit)).clamp(1e-9, 1.0 - 1e-9),
            dispersion: dispersion.max(1.0),
            experiment: 0.0,
            control: 0.0,
            evidence: Evidence { e_max: 0.0, threshold: 1.0 / alpha },
        }
    }

    /// The same of a share that may be no larger: fed with what was hit and what was missed, it asks whether more is hit.
    pub fn of_share(most: f64, dispersion: f64, alpha: f64) -> Self {
        Self::new(most / (1.0 - most).max(1e-9), 1.0, dispersion, alpha)
    }

    /// How often it happened in a tick. Whether there is reason to stop.
    pub fn feed(&mut self, experiment: u64, control: u64) -> bool {
        self.experiment += experiment as f64 / self.dispersion;
        self.control += control as f64 / self.dispersion;
        self.evidence.e_max = self.evidence.e_max.max(self.bayes_factor());
        self.evidence.fired()
    }

    /// `∫ₛ¹ θ^nE (1−θ)^nC dθ / (1−s) · s^−nE (1−s)^−nC`: a uniform prior on the shares above that at the limit, as a share
    /// below it is no harm.
    fn bayes_factor(&self) -> f64 {
        let (a, b) = (self.experiment + 1.0, self.control + 1.0);
        let Some((log_beta, above)) = quantile::beta_above(a, b, self.share) else { return 0.0 };
        let null = self.experiment * self.share.ln() + self.control * (1.0 - self.share).ln();
        (log_beta + above.ln() - (1.0 - self.share).ln() - null).exp()
    }

    /// How near it is.
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }
}

/// One guard.
#[derive(Clone, Debug, PartialEq)]
pub enum Guard {
    /// Something that may happen so often.
    Event(EventLimit),
    /// A level that may not be exceeded for long.
    Level(LevelLimit),
    /// A test of harm, on scores.
    Harm(HarmTest),
    /// A test of harm, on rare counts.
    Rare(RareTest),
}

/// What a guard is fed with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// How often it happened in the experimental and in the control group.
    Counts(u64, u64),
    /// A level, or a score; `None` if it could not be read.
    Value(Option<f64>),
}

impl Guard {
    /// A tick of so many seconds with the fault on. Whether there is reason to stop; never because of a reading that is not
    /// of the guard's kind or is missing.
    pub fn feed(&mut self, reading: Reading, seconds: f64) -> bool {
        match (self, reading) {
            (Self::Event(limit), Reading::Counts(experiment, _)) => limit.feed(experiment),
            (Self::Level(limit), Reading::Value(level)) => limit.feed(level, seconds),
            (Self::Harm(test), Reading::Value(Some(score))) => test.feed(score),
            (Self::Rare(test), Reading::Counts(experiment, control)) => test.feed(experiment, control),
            _ => false,
        }
    }
}

/// Each test's share of [`ALPHA`], of so many.
pub fn alpha_of_each(tests: usize) -> f64 {
    ALPHA / tests.max(1) as f64
}

/// The score of a tick for [`HarmTest`], of counts: what both groups share cancels.
pub fn score(experiment: f64, control: f64) -> f64 {
    ((experiment + 0.5) / (control + 0.5)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_fire_at_one_more_than_allowed() {
        let mut limit = EventLimit::new(2);
        assert_eq!([1, 0, 1, 0, 1].map(|happened| limit.feed(happened)), [false, false, false, false, true]);
        assert!(EventLimit::new(0).feed(1));
    }

    #[test]
    fn a_level_that_may_not_be_exceeded_at_all_fires_only_when_it_is() {
        let mut limit = LevelLimit::new(0.05, 0.0);
        assert!([Some(0.01), Some(0.05), None].iter().all(|level| !limit.feed(*level, 1.0)));
        assert!(limit.feed(Some(0.06), 1.0));
    }

    #[test]
    fn a_level_must_stay_above_for_its_time() {
        let mut limit = LevelLimit::new(0.05, 3.0);
        let mut feed = |level| limit.feed(level, 1.0);
        assert!([Some(0.06), Some(0.06), Some(0.05)].iter().all(|level| !feed(*level)));
        assert!(
            [Some(0.06), None, Some(0.06), None].iter().all(|level| !feed(*level)),
            "missing is not time"
        );
        assert!(feed(Some(0.5)));
    }

    #[test]
    fn the_first_tick_may_be_enough_and_a_quiet_one_never_is() {
        let baseline: Vec<f64> = (0..120).map(|t| 0.05 * f64::sin(f64::from(t * t))).collect();
        let mut test = HarmTest::new(&baseline, 0.18, 0.01).unwrap();
        assert!((0..500).all(|t| !test.feed(baseline[t % 120])));
        assert!(test.evidence().e_max < 1.0);
        let mut hurt = HarmTest::new(&baseline, 0.18, 0.01).unwrap();
        let ticks = (1..=10).find(|_| hurt.feed(0.69)).unwrap();
        assert!(ticks <= 4, "twice as slow, seen after {ticks}");
        assert_eq!(HarmTest::new(&baseline[..29], 0.18, 0.01), None);
    }

    #[test]
    fn clockwork_that_stays_within_the_limit_is_left_alone() {
        let test = HarmTest::new(&[0.0; 60], 0.1, 0.01).unwrap();
        let (mut within, mut beyond) = (test.clone(), test);
        assert!((0..100).all(|_| !within.feed(0.09)));
        assert!(beyond.feed(0.11));
    }

    #[test]
    fn rare_counts_fire_on_a_share_and_not_on_a_number() {
        let mut harmless = RareTest::new(1.0, 1.5, 1.0, 0.01);
        assert!((0..1_000).all(|_| !harmless.feed(3, 3)));
        let mut hurt = RareTest::new(1.0, 1.5, 1.0, 0.01);
        let ticks = (1..60).find(|_| hurt.feed(1, 0)).unwrap();
        // ∫ₛ¹ θⁿ dθ/(1−s) · s^−n with s = 0.6 passes 100 at n = 13.
        assert_eq!(ticks, 13);
        let mut bursts = RareTest::new(1.0, 1.5, 10.0, 0.01);
        assert!((0..60).all(|_| !bursts.feed(1, 0)), "bursts of ten are six events, not sixty");
    }

    #[test]
    fn guards_do_not_fire_on_what_is_missing() {
        let baseline = [0.0; 60];
        let mut guards = [
            Guard::Event(EventLimit::new(0)),
            Guard::Level(LevelLimit::new(0.0, 0.0)),
            Guard::Harm(HarmTest::new(&baseline, 0.0, 0.01).unwrap()),
            Guard::Rare(RareTest::new(1.0, 1.0, 1.0, 0.01)),
        ];
        assert!(guards.iter_mut().all(|guard| !guard.feed(Reading::Value(None), 1.0)));
        assert!(guards[0].feed(Reading::Counts(1, 0), 1.0));
        assert!(guards[1].feed(Reading::Value(Some(1.0)), 1.0));
        assert!(guards[2].feed(Reading::Value(Some(1.0)), 1.0));
        assert!((0..20).any(|_| guards[3].feed(Reading::Counts(1, 0), 1.0)));
        assert_eq!(alpha_of_each(4), 0.0025);
    }
}
