//! Before anything is hurt: can anything be learned, and is everything well? Looked at when the baseline is over, in which
//! the faults were armed without doing anything. Pure, but for [`members`].

use std::{collections::BTreeMap, fmt};

use chaos_common::RuleStats;
use serde::Serialize;

use super::{
    calibrate::Known,
    guards::level,
    hypothesis::{Gate, Kind, Scale},
    watch::{Check, Side},
};
use crate::{
    judge::{
        balance::balance,
        gate::{both_ways, limits},
        names,
        power::{Power, Shape, of_spread, power},
        pulse::MIN_PAIRS,
        score,
        verdict::InvalidReason,
    },
    steady::{
        rates::{Tick, points},
        summary::{Point, Summary},
    },
    target::{Group, Member, Scope, limits::limits as limits_of},
    units::show_level,
};

/// What was looked at.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Looked {
    /// Are the groups alike: image, limits?
    Alike,
    /// Does anything happen that the gates are made of?
    Activity,
    /// Do the spec's checks hold in both groups?
    Checks,
    /// Do both groups do about as much?
    Balance,
    /// Are there pulses enough for the margins?
    Power,
    /// Did the fault meet anything it could hit?
    Eligible,
}

impl Looked {
    /// As reports have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alike => "alike",
            Self::Activity => "activity",
            Self::Checks => "checks",
            Self::Balance => "balance",
            Self::Power => "power",
            Self::Eligible => "eligible",
        }
    }

    /// Whether `--force` goes on all the same: load may come later, and a fault may meet something then. Of a run in which
    /// it did not, the verdict says so. Where something is broken already, there is nothing that force could make of it.
    const fn can_be_forced(self) -> bool {
        matches!(self, Self::Activity | Self::Balance | Self::Power | Self::Eligible)
    }
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What came of looking.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// At what.
    pub check: Looked,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether nothing may be injected because of it.
    pub refuses: bool,
    /// What was found; what would be right, where it is not.
    pub detail: String,
}

/// What is known of a target, for whether the groups are alike: what a file says, or an image's name, by what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberFacts {
    /// Which group it is in.
    pub group: Group,
    /// As asked.
    pub target: String,
    /// Such as `memory.max` and `512M`; what is not known is left out.
    pub facts: Vec<(String, String)>,
}

/// What a rule met while it was armed without doing anything.
#[derive(Clone, Debug, PartialEq)]
pub struct DryRule {
    /// What reports call it.
    pub name: String,
    /// In the experimental group.
    pub stats: RuleStats,
}

/// What each rule met between two readings, both by rule and slot.
pub fn dry_rules(
    names: &[String],
    groups: &[Group],
    [before, after]: [&[Vec<RuleStats>]; 2],
) -> Vec<DryRule> {
    let met = |(before, after): (&Vec<RuleStats>, &Vec<RuleStats>)| {
        let slots = groups.iter().zip(before.iter().zip(after));
        let of_group = slots.filter(|(group, _)| **group == Group::Experiment);
        of_group.fold(RuleStats::ZERO, |sum, (_, (before, after))| sum.plus(after.since(*before)))
    };
    let stats = before.iter().zip(after).map(met);
    names.iter().zip(stats).map(|(name, stats)| DryRule { name: name.clone(), stats }).collect()
}

/// What is known of all targets: what their files say, and what containers are made of.
pub fn members(scope: &Scope) -> Vec<MemberFacts> {
    let facts = |member: &Member| MemberFacts {
        group: member.group,
        target: member.target.to_string(),
        facts: limits_of(&member.cgroup.dir).into_iter().chain(image(member)).collect(),
    };
    scope.members.iter().map(facts).collect()
}

fn image(member: &Member) -> Option<(String, String)> {
    Some(("image".to_owned(), member.image.clone()?))
}

/// Everything that is looked at.
#[derive(Clone, Debug)]
pub struct PreflightInput<'a> {
    /// What should stay true.
    pub gates: &'a [Gate],
    /// What must hold already.
    pub checks: &'a [Check],
    /// The whole of it.
    pub baseline: &'a [Tick],
    /// Of the verdict, as a fraction.
    pub confidence: f64,
    /// What pulses are planned; `None` for a hold.
    pub pulses: Option<Shape>,
    /// What a quiet run said of the metrics, with blocks as long as these.
    pub known: &'a [Known],
    /// What is known of the targets.
    pub members: &'a [MemberFacts],
    /// What each rule met, if that was tried.
    pub dry_rules: Option<&'a [DryRule]>,
    /// Go on although the groups are uneven or little can be learned.
    pub force: bool,
}

/// Looks at all of it. What is fine is said once for each thing looked at; what is not, each by itself.
pub fn preflight(input: &PreflightInput<'_>) -> Vec<Finding> {
    let mut findings = alike(input.members);
    findings.extend(input.gates.iter().filter_map(|gate| activity(gate, input.baseline)));
    findings.extend(input.checks.iter().flat_map(|check| checked(check, input.baseline)));
    findings.extend(input.gates.iter().filter_map(|gate| balanced(gate, input)));
    findings.extend(input.gates.iter().filter_map(|gate| powered(gate, input)));
    findings.extend(input.dry_rules.into_iter().flatten().map(eligible));
    for finding in &mut findings {
        finding.refuses &= !(input.force && finding.check.can_be_forced());
    }
    findings
}

/// Why nothing may be injected; empty if it may.
pub fn refusals(findings: &[Finding]) -> Vec<InvalidReason> {
    let refusal = |finding: &Finding| InvalidReason::NotReady {
        check: finding.check.name().into(),
        detail: finding.detail.clone(),
    };
    findings.iter().filter(|finding| finding.refuses).map(refusal).collect()
}

impl Finding {
    fn fine(check: Looked, detail: impl Into<String>) -> Self {
        Self { check, ok: true, refuses: false, detail: detail.into() }
    }

    fn warning(check: Looked, detail: impl Into<String>) -> Self {
        Self { check, ok: false, refuses: false, detail: detail.into() }
    }

    fn refusal(check: Looked, detail: impl Into<String>) -> Self {
        Self { check, ok: false, refuses: true, detail: detail.into() }
    }
}

/// P1. What both groups have, each fact by itself. A difference is worth a word: the groups are compared by how they
/// change, but a group that is nearer to its limits may change more.
fn alike(members: &[MemberFacts]) -> Vec<Finding> {
    let mut values: BTreeMap<&str, [Vec<&str>; 2]> = BTreeMap::new();
    for member in members {
        for (name, value) in &member.facts {
            let side = &mut values.entry(name).or_default()[usize::from(member.group == Group::Experiment)];
            if !side.contains(&value.as_str()) {
                side.push(value);
            }
        }
    }
    let differ = |(name, [control, experiment]): (&&str, &[Vec<&str>; 2])| {
        let sorted = |side: &[&str]| {
            let mut side = side.to_vec();
            side.sort_unstable();
            side.join(", ")
        };
        let [one, other] = [sorted(control), sorted(experiment)];
        let known = !control.is_empty() && !experiment.is_empty();
        (known && one != other).then(|| {
            let detail = format!("{name} is {one} in the control group and {other} in the experiment group");
            Finding::warning(Looked::Alike, detail)
        })
    };
    let found: Vec<_> = values.iter().filter_map(differ).collect();
    match found.is_empty() && !values.is_empty() {
        true => vec![Finding::fine(Looked::Alike, "what is known of the groups is the same")],
        false => found,
    }
}

/// P2. Chaos without load is the commonest empty PASS.
fn activity(gate: &Gate, baseline: &[Tick]) -> Option<Finding> {
    let kind = gate.metric.kind();
    if matches!(kind, Kind::Event | Kind::Trend) {
        return None;
    }
    let total = Point::sum(&points(gate.metric, baseline));
    let is_idle = |group: &Group| {
        let summary = score::side(*group, &total);
        summary.of <= 0.0 || (kind.scale() == Scale::Relative && summary.count <= 0.0)
    };
    let idle: Vec<_> =
        [Group::Control, Group::Experiment].into_iter().filter(is_idle).map(names::group).collect();
    let name = gate.metric.name();
    Some(match idle.is_empty() {
        true => Finding::fine(Looked::Activity, format!("{name} has something in both groups")),
        false => {
            let which = idle.join(" and the ");
            let detail = format!(
                "nothing happened in the {which} group that {name} is made of: put load on it, or leave the gate out"
            );
            Finding::refusal(Looked::Activity, detail)
        }
    })
}

/// P3. Each group by itself, over the whole baseline.
fn checked(check: &Check, baseline: &[Tick]) -> Vec<Finding> {
    let limit = check.0;
    let (kind, name) = (limit.metric.kind(), limit.metric.name());
    let total = Point::sum(&points(limit.metric, baseline));
    let of_group = |group: Group| {
        let whose = names::group(group);
        let Some(level) = level(kind, score::side(group, &total)) else {
            let detail = format!("{limit}: nothing happened in the {whose} group that {name} is made of");
            return Finding::refusal(Looked::Checks, format!("{detail}: put load on it"));
        };
        let at =
            format!("{name} of the {whose} group is at {}", show_level(super::guards::rounded(level), kind));
        match limit.is_broken_by(level) {
            false => Finding::fine(Looked::Checks, at),
            true => {
                let (side, level) = (limit.side.name(), show_level(limit.level, kind));
                let right = match limit.side {
                    Side::Above => "mend that first",
                    Side::Below => "put load on it",
                };
                Finding::refusal(
                    Looked::Checks,
                    format!("{at}, {side} {level} before anything is done: {right}"),
                )
            }
        }
    };
    [Group::Control, Group::Experiment].map(of_group).to_vec()
}

/// P4. Of what is done in a second, or what shares are taken of.
fn balanced(gate: &Gate, input: &PreflightInput<'_>) -> Option<Finding> {
    let kind = gate.metric.kind();
    let work = |summary: &Summary| match kind {
        Kind::Rate => summary.count,
        _ => summary.of,
    };
    if !matches!(kind, Kind::Rate | Kind::Ratio | Kind::RareRatio | Kind::Tail { .. } | Kind::Quantile { .. })
    {
        return None;
    }
    let as_work = |summary: &Summary| Summary::count(work(summary), 1.0, 0);
    let baseline: Vec<Point> = points(gate.metric, input.baseline)
        .iter()
        .map(|point| Point {
            control: as_work(&point.control),
            experiment: as_work(&point.experiment),
            seconds: point.seconds,
        })
        .collect();
    // An idle group is refused as such.
    let balance = balance(&baseline, input.confidence)?;
    let [low, high] = both_ways(limits(kind, gate.margin));
    // Shares do not move with the work, so how well it is known does not matter to them.
    let margin = if kind == Kind::Rate { high.min(-low) } else { f64::INFINITY };
    let name = gate.metric.name();
    let does = format!(
        "of what {name} is made of, the experiment group has {:.2} times what the control group has",
        balance.ratio
    );
    Some(match (balance.is_even(f64::INFINITY), balance.is_even(margin)) {
        (false, _) => Finding::refusal(
            Looked::Balance,
            format!(
                "{does}, which is not between a half and twice: share the load, or compare other targets"
            ),
        ),
        (true, false) => Finding::warning(
            Looked::Balance,
            format!(
                "{does}, known to ±{:.0} % only, which is more than half of the margin: a longer baseline or steadier load would tell",
                balance.half_width.exp_m1() * 100.0
            ),
        ),
        (true, true) => Finding::fine(Looked::Balance, does),
    })
}

/// P5. Do not hurt a system if nothing can be learned.
fn powered(gate: &Gate, input: &PreflightInput<'_>) -> Option<Finding> {
    let shape = input.pulses?;
    let (kind, name) = (gate.metric.kind(), gate.metric.name());
    if !kind.follows_pulses() || kind == Kind::Event {
        return None;
    }
    let known = input.known.iter().find(|known| known.metric == gate.metric);
    let known = known.and_then(|known| known.power.as_ref());
    let of_known = |known: &Power| of_spread(kind, gate.margin, known.pair_sd, shape.pairs, input.confidence);
    let of_baseline =
        || power(kind, gate.margin, &points(gate.metric, input.baseline), shape, input.confidence);
    let Some(power) = known.map(of_known).or_else(of_baseline) else {
        let detail = format!(
            "the baseline is shorter than a pair of blocks, so whether {} pairs will do for {name} is not known",
            shape.pairs
        );
        return Some(Finding::warning(Looked::Power, detail));
    };
    let percent = power.of_margin * 100.0;
    let expects =
        format!("{name}: the interval of {} pairs will be about {percent:.0} % of the margin", shape.pairs);
    Some(match (power.is_enough(), power.pairs_needed) {
        (true, _) => Finding::fine(Looked::Power, expects),
        (false, Some(pairs)) => {
            let right = format!("{} pairs would do (or steadier load, a wider margin)", pairs.max(MIN_PAIRS));
            Finding::refusal(Looked::Power, format!("{expects}, so that most runs decide nothing: {right}"))
        }
        (false, None) => {
            let right =
                "no number of pairs would do: steady the load, widen the margin, or gate a share instead";
            Finding::refusal(Looked::Power, format!("{expects}: {right}"))
        }
    })
}

/// P6. A fault that meets nothing would never fire.
fn eligible(rule: &DryRule) -> Finding {
    let (name, stats) = (&rule.name, &rule.stats);
    match (stats.eligible(), stats.filtered) {
        (0, 0) => Finding::refusal(
            Looked::Eligible,
            format!("{name} would never fire: it met nothing at all; put load on the experiment group"),
        ),
        (0, filtered) => Finding::refusal(
            Looked::Eligible,
            format!(
                "{name} would never fire: of {filtered} that it met, its filter and the allow-list let none through"
            ),
        ),
        (eligible, _) => Finding::fine(Looked::Eligible, format!("{name} met {eligible} that it could hit")),
    }
}

#[cfg(test)]
mod tests;
