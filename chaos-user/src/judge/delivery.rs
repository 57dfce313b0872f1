//! Did the faults fire as specified? A fault that did not makes every verdict about it empty.

use chaos_common::RuleStats;
use schemars::JsonSchema;
use serde::Serialize;

use super::quantile;

/// What one rule was to do, and what became of what it saw while injecting.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleDelivery {
    /// What reports call it: `loss egress`.
    pub name: String,
    /// The share of eligible occurrences that the model hits in the long run, if it has one.
    pub expected_fraction: Option<f64>,
    /// Where that share moves while the fault is on, between what and what, the smaller one first.
    pub expected_range: Option<[f64; 2]>,
    /// Each occurrence is decided by itself, so that the number hit is binomial.
    pub memoryless: bool,
    /// `when`, `max` or `rate` is in force: the share delivered is not the model's.
    pub limited: bool,
    /// It only counted.
    pub dry_run: bool,
    /// While it was on, on the slots of the experimental group.
    #[serde(skip, default = "nothing")]
    pub experiment: RuleStats,
    /// While it was on, on the slots of the control group.
    #[serde(skip, default = "nothing")]
    pub control: RuleStats,
}

const fn nothing() -> RuleStats {
    RuleStats::ZERO
}

/// [`RuleStats`], as reports list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Outcomes {
    /// Not what the filter asks for, or on the allow-list.
    pub filtered: u64,
    /// The lease was not live.
    pub lease: u64,
    /// Not an occurrence that `when` counts.
    pub when: u64,
    /// The draw did not hit.
    pub chance: u64,
    /// The budget was used up.
    pub budget: u64,
    /// Would have been injected.
    pub dry_run: u64,
    /// Injected.
    pub injected: u64,
    /// Was to be injected, and the kernel could not.
    pub failed: u64,
    /// Came between two pulses.
    pub dormant: u64,
}

impl From<RuleStats> for Outcomes {
    fn from(stats: RuleStats) -> Self {
        let RuleStats { filtered, lease, when, chance, budget, dry_run, injected, failed, dormant, .. } =
            stats;
        Self { filtered, lease, when, chance, budget, dry_run, injected, failed, dormant }
    }
}

/// The same in segments, which a GSO packet has many of.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Segments {
    /// Of all packets that could have been hit.
    pub eligible: u64,
    /// Of those that were hit; in a dry run, that would have been.
    pub hit: u64,
    /// The one over the other.
    pub fraction: Option<f64>,
}

impl From<RuleStats> for Segments {
    fn from(stats: RuleStats) -> Self {
        let RuleStats { segments_eligible: eligible, segments_hit: hit, .. } = stats;
        Self { eligible, hit, fraction: (eligible > 0).then(|| hit as f64 / eligible as f64) }
    }
}

/// Whether a rule did what it was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fired {
    /// It fired, and as often as asked where that can be told.
    AsAsked,
    /// It saw nothing it could have hit.
    NothingEligible,
    /// It could have hit and never did.
    Never,
    /// More or less often than asked by more than [`TOLERANCE`].
    OtherShare,
    /// It hit the control group.
    OnControl,
    /// It only counted, as asked.
    DryRun,
}

/// How the share delivered was compared with the one asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareCheck {
    /// By its interval.
    Binomial,
    /// Not: losses come in bursts, of which there may have been few.
    Bursts,
    /// Not: `when`, `max` or `rate` change the share.
    Limited,
    /// Not: there is no share to compare with.
    NoShare,
}

/// How one rule was delivered.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct Delivery {
    /// What reports call it.
    pub name: String,
    /// Whether it did what it was to do.
    pub fired: Fired,
    /// What it could have hit in the experimental group.
    pub eligible: u64,
    /// What it hit there; in a dry run, what it would have.
    pub injected: u64,
    /// The one over the other.
    pub fraction: Option<f64>,
    /// 99 % interval of `fraction` (Wilson), as if each occurrence were decided by itself.
    pub fraction_ci: Option<[f64; 2]>,
    /// The share asked for.
    pub expected_fraction: Option<f64>,
    /// The shares asked for, of a ramp.
    pub expected_range: Option<[f64; 2]>,
    /// Segments instead of packets, in the experimental group.
    pub segments: Segments,
    /// Whether both were compared.
    pub check: ShareCheck,
    /// What became of all it saw in the experimental group.
    pub experiment: Outcomes,
    /// What became of all it saw in the control group.
    pub control: Outcomes,
}

/// How far the share delivered may be from the one asked for, as a fraction of that one: the fault is still the same
/// experiment. Beyond it the interval must lie wholly.
pub const TOLERANCE: f64 = 0.2;

/// Fewer injections than this are worth a word.
pub const FEW_INJECTIONS: u64 = 20;

/// Confidence of the interval of the share delivered: a false alarm throws a run away.
const CONFIDENCE: f64 = 0.99;

/// How a rule was delivered.
pub fn check(rule: &RuleDelivery) -> Delivery {
    let eligible = rule.experiment.eligible();
    let injected = if rule.dry_run { rule.experiment.dry_run } else { rule.experiment.injected };
    let interval = quantile::wilson(injected, eligible, CONFIDENCE);
    Delivery {
        name: rule.name.clone(),
        fired: fired(rule, eligible, interval),
        eligible,
        injected,
        fraction: (eligible > 0).then(|| injected as f64 / eligible as f64),
        fraction_ci: interval.map(|(low, high)| [low, high]),
        expected_fraction: rule.expected_fraction,
        expected_range: rule.expected_range,
        segments: rule.experiment.into(),
        check: share_check(rule),
        experiment: rule.experiment.into(),
        control: rule.control.into(),
    }
}

fn fired(rule: &RuleDelivery, eligible: u64, interval: Option<(f64, f64)>) -> Fired {
    if rule.control.injected > 0 {
        Fired::OnControl
    } else if rule.dry_run {
        Fired::DryRun
    } else if eligible == 0 {
        Fired::NothingEligible
    } else if rule.experiment.injected == 0 {
        Fired::Never
    } else if share_check(rule) == ShareCheck::Binomial && is_other(rule.expected(), interval) {
        Fired::OtherShare
    } else {
        Fired::AsAsked
    }
}

/// The number of hits of a chain with memory is not binomial: at correlation ρ its variance is (1+ρ)/(1−ρ) times
/// that, and how many bursts fell into the run is unknown here. Of those only "fired at all" is judged.
fn share_check(rule: &RuleDelivery) -> ShareCheck {
    match rule {
        RuleDelivery { expected_fraction: None, expected_range: None, .. } => ShareCheck::NoShare,
        RuleDelivery { limited: true, .. } => ShareCheck::Limited,
        RuleDelivery { memoryless: false, .. } => ShareCheck::Bursts,
        _ => ShareCheck::Binomial,
    }
}

fn is_other(expected: Option<[f64; 2]>, interval: Option<(f64, f64)>) -> bool {
    let (Some([least, most]), Some((low, high))) = (expected, interval) else { return false };
    low > most * (1.0 + TOLERANCE) || high < least * (1.0 - TOLERANCE)
}

impl RuleDelivery {
    /// The least and the most that was asked for.
    fn expected(&self) -> Option<[f64; 2]> {
        self.expected_range.or(self.expected_fraction.map(|asked| [asked; 2]))
    }
}

impl Delivery {
    /// What was asked for that is nearest to what was delivered.
    pub fn nearest_expected(&self) -> Option<f64> {
        let within = |[least, most]: [f64; 2]| Some(self.fraction?.clamp(least, most));
        self.expected_fraction.or_else(|| self.expected_range.and_then(within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(injected: u64, missed: u64) -> RuleDelivery {
        RuleDelivery {
            name: "loss egress".into(),
            expected_fraction: Some(0.05),
            expected_range: None,
            memoryless: true,
            limited: false,
            dry_run: false,
            experiment: RuleStats { injected, chance: missed, filtered: 7, lease: 3, ..RuleStats::ZERO },
            control: RuleStats::ZERO,
        }
    }

    #[test]
    fn five_percent_of_ten_thousand() {
        let delivery = check(&rule(512, 9_728));
        assert_eq!(
            (delivery.fired, delivery.eligible, delivery.fraction),
            (Fired::AsAsked, 10_240, Some(0.05))
        );
        let [low, high] = delivery.fraction_ci.unwrap();
        assert!(low < 0.05 && 0.05 < high && high - low < 0.012, "[{low}, {high}]");
        assert_eq!(delivery.experiment.filtered, 7);
    }

    #[test]
    fn never_nothing_control_and_dry() {
        assert_eq!(check(&rule(0, 0)).fired, Fired::NothingEligible);
        assert_eq!(check(&rule(0, 1_000)).fired, Fired::Never);
        let mut leaked = rule(50, 950);
        leaked.control.injected = 1;
        assert_eq!(check(&leaked).fired, Fired::OnControl);
        let mut dry = rule(0, 950);
        (dry.dry_run, dry.experiment.dry_run) = (true, 50);
        let delivery = check(&dry);
        assert_eq!((delivery.fired, delivery.injected, delivery.fraction), (Fired::DryRun, 50, Some(0.05)));
    }

    #[test]
    fn another_share_is_told_only_where_it_can_be() {
        assert_eq!(check(&rule(80, 920)).fired, Fired::OtherShare);
        assert_eq!(check(&rule(20, 980)).fired, Fired::OtherShare);
        assert_eq!(check(&rule(1, 4)).fired, Fired::AsAsked, "20 %, but of five");
        assert_eq!(check(&rule(5_500, 94_500)).fired, Fired::AsAsked, "5.5 % is within the tolerance");
        let bursts = RuleDelivery { memoryless: false, ..rule(80, 920) };
        assert_eq!((check(&bursts).fired, check(&bursts).check), (Fired::AsAsked, ShareCheck::Bursts));
        let limited = RuleDelivery { limited: true, ..rule(80, 920) };
        assert_eq!((check(&limited).fired, check(&limited).check), (Fired::AsAsked, ShareCheck::Limited));
        let no_share = RuleDelivery { expected_fraction: None, ..rule(80, 920) };
        assert_eq!(check(&no_share).check, ShareCheck::NoShare);
    }

    #[test]
    fn a_ramp_is_held_against_both_its_ends() {
        let ramp = |injected| {
            check(&RuleDelivery {
                expected_fraction: None,
                expected_range: Some([0.1, 0.3]),
                ..rule(injected, 1_000 - injected)
            })
        };
        for within in [90, 200, 350] {
            assert_eq!(ramp(within).fired, Fired::AsAsked, "{within} of 1,000");
        }
        let (less, more) = (ramp(20), ramp(600));
        assert_eq!((less.fired, less.nearest_expected()), (Fired::OtherShare, Some(0.1)));
        assert_eq!((more.fired, more.nearest_expected()), (Fired::OtherShare, Some(0.3)));
    }

    #[test]
    fn what_came_between_pulses_is_no_part_of_the_share() {
        let mut pulsed = rule(512, 9_728);
        (pulsed.experiment.dormant, pulsed.experiment.segments_eligible) = (50_000, 204_800);
        pulsed.experiment.segments_hit = 10_240;
        let delivery = check(&pulsed);
        assert_eq!((delivery.fired, delivery.eligible), (Fired::AsAsked, 10_240));
        assert_eq!((delivery.experiment.dormant, delivery.segments.fraction), (50_000, Some(0.05)));
    }

    #[test]
    fn everything_and_one_in_a_million() {
        let all = RuleDelivery { expected_fraction: Some(1.0), ..rule(1_000, 0) };
        assert_eq!(check(&all).fired, Fired::AsAsked);
        let rare = RuleDelivery { expected_fraction: Some(1e-6), ..rule(2, 1_999_998) };
        assert_eq!(check(&rare).fired, Fired::AsAsked);
    }
}
