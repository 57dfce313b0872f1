//! From the text of a spec file to a checked [`Spec`]: shape first, then meaning, one error with its place.

mod error;
mod faults;
mod probed;
mod probes;
mod raw;
mod raw_fault;
mod run;
mod steady;
mod watch;

use serde_saphyr::{Location, Options, Spanned};

use self::raw::{Many, OneOrMore, RawGroups, RawSpec, Text};
pub use self::{
    error::{Place, SpecError},
    probes::{MAX_ID_BYTES, MAX_PROBES, TAKEN_IDS},
};
use super::{metric::Word, spec::Spec};
use crate::{
    target::Target,
    units::{BadValue, quoted},
};

/// The largest spec taken.
pub const MAX_SPEC_BYTES: usize = 1 << 20;
/// Most targets, both groups together.
pub const MAX_TARGETS: usize = 64;
/// Longest name: that of a DNS label, so that it fits everywhere reports go.
const MAX_NAME_BYTES: usize = 63;
/// Longest hypothesis.
const MAX_HYPOTHESIS_CHARS: usize = 1000;

/// Reads a spec.
pub fn parse(text: &str) -> Result<Spec, SpecError> {
    if text.len() > MAX_SPEC_BYTES {
        let what = format!("{} bytes are more than a spec can have", text.len());
        return Place::default().refuse(BadValue::new(what, format!("keep it below {MAX_SPEC_BYTES}")));
    }
    check(&serde_saphyr::from_str_with_options::<RawSpec>(text, options())?)
}

/// Far more than any spec needs, far less than would hurt. Anchors and aliases are fine, bombs are not.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 50_000,
            max_nodes: 20_000,
            max_depth: 16,
            max_aliases: 256,
            max_anchors: 256,
            max_recorded_anchor_events: 50_000,
            max_total_scalar_bytes: MAX_SPEC_BYTES,
        },
        with_snippet: false,
    }
}

fn check(raw: &RawSpec) -> Result<Spec, SpecError> {
    let top = Location::UNKNOWN;
    needed("version", &raw.version, top, "`version: 1`", version)?;
    let name = needed("name", &raw.name, top, "`name: redis-survives-loss`", name)?;
    let hypothesis = match &raw.hypothesis {
        Some(text) => understood("hypothesis", text, hypothesis)?,
        None => String::new(),
    };
    let groups = raw
        .groups
        .as_ref()
        .ok_or_else(|| missing("groups", top, "`groups:` with `control:` and `experiment:`"))?;
    let (control, experiment) = both_groups(groups)?;
    let steady_state = raw
        .steady_state
        .as_ref()
        .ok_or_else(|| missing("steady_state", top, "`steady_state:` with `gates:`"))?;
    let faults = raw
        .faults
        .as_ref()
        .ok_or_else(|| missing("faults", top, "`faults:` with at least `- loss: { percent: 5% }`"))?;
    let faults = faults::faults(faults)?;
    let (timing, confidence) = run::run(&raw.run)?;
    let mut probes = probes::probes(steady_state)?;
    probed::of_probes(raw, steady_state, &mut probes)?;
    let ids: Vec<Word> = probes.iter().map(|probe| Word::new(&probe.id)).collect();
    let (gates, observe) =
        (steady::gates(steady_state, &ids, timing.design)?, steady::observe(steady_state)?);
    let (checks, invariants) = (watch::checks(steady_state)?, watch::invariants(steady_state)?);
    let abort_if = watch::abort_if(&raw.abort_if, &gates, &checks)?;

    let max_duration = run::max_duration(&raw.max_duration, &timing)?;
    Ok(Spec {
        name,
        hypothesis,
        control,
        experiment,
        gates,
        observe,
        checks,
        invariants,
        abort_if,
        probes,
        faults,
        timing,
        max_duration,
        confidence,
    })
}

fn version(text: &str) -> Result<(), BadValue> {
    match text {
        "1" => Ok(()),
        _ => Err(BadValue::new(
            format!("{} is not a version that this kchaos reads", quoted(text)),
            "write `version: 1`",
        )),
    }
}

fn name(text: &str) -> Result<String, BadValue> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    let dashed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut slug: String = text.chars().map(dashed).take(MAX_NAME_BYTES).collect();
    slug = slug.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    let example = if slug.is_empty() { "redis-survives-loss" } else { &slug };
    Err(BadValue::new(
        format!(
            "{} is not a name of 1 to {MAX_NAME_BYTES} lower-case letters, digits and dashes",
            quoted(text)
        ),
        format!("write one such as `{example}`"),
    ))
}

/// Text for people. Control characters could rewrite a terminal, and XML cannot hold them.
fn hypothesis(text: &str) -> Result<String, BadValue> {
    let count = text.chars().count();
    if count > MAX_HYPOTHESIS_CHARS {
        return Err(BadValue::new(
            format!("{count} characters are too many"),
            format!("write at most {MAX_HYPOTHESIS_CHARS}"),
        ));
    }
    match text.chars().find(|c| c.is_control() && *c != '\n') {
        Some(c) => Err(BadValue::new(format!("it holds the control character {c:?}"), "write plain text")),
        None => Ok(text.to_owned()),
    }
}

/// A target and where it stands.
type Placed = (Place, Target);

fn both_groups(raw: &Spanned<RawGroups>) -> Result<(Vec<Target>, Vec<Target>), SpecError> {
    let control = group("groups.control", &raw.value.control, raw.referenced)?;
    let experiment = group("groups.experiment", &raw.value.experiment, raw.referenced)?;
    let count = control.len() + experiment.len();
    if count > MAX_TARGETS {
        let why = BadValue::new(format!("there are {count} targets"), format!("write at most {MAX_TARGETS}"));
        return Place::new("groups", raw.referenced).refuse(why);
    }
    distinct(control.iter().chain(&experiment))?;
    let targets = |group: Vec<Placed>| group.into_iter().map(|(_, target)| target).collect();
    Ok((targets(control), targets(experiment)))
}

fn group(path: &str, raw: &Option<Many>, parent: Location) -> Result<Vec<Placed>, SpecError> {
    const EXAMPLE: &str = "a target such as `docker:web`, or a list of them";
    let raw = raw.as_ref().ok_or_else(|| missing(path, parent, EXAMPLE))?;
    let scalars = scalars(path, raw)?;
    if scalars.is_empty() {
        return Err(missing(path, raw.referenced, EXAMPLE));
    }
    let target = |(path, at, text): (String, Location, String)| {
        let place = Place::new(path, at);
        match text.parse() {
            Ok(target) => Ok((place, target)),
            Err(problem) => place.refuse(problem),
        }
    };
    scalars.into_iter().map(target).collect()
}

/// A target can be in one group only, and only once.
fn distinct<'a>(targets: impl Iterator<Item = &'a Placed>) -> Result<(), SpecError> {
    let mut seen: Vec<&Placed> = Vec::new();
    for placed @ (place, target) in targets {
        if let Some((first, _)) = seen.iter().find(|(_, other)| other == target) {
            let why = BadValue::new(
                format!("`{target}` stands already at {first}"),
                "name each target once; a control group is other targets that do the same work",
            );
            return place.clone().refuse(why);
        }
        seen.push(placed);
    }
    Ok(())
}

/// The scalars of a field that takes one or a list: the path, position and text of each.
fn scalars(path: &str, raw: &Many) -> Result<Vec<(String, Location, String)>, SpecError> {
    let refuse = |what, right| Place::new(path, raw.referenced).refuse(BadValue::new(what, right));
    match &raw.value {
        OneOrMore::One(text) => Ok(vec![(path.to_owned(), raw.referenced, text.clone())]),
        OneOrMore::More(texts) => {
            let entry =
                |(i, text): (usize, &Text)| (format!("{path}[{i}]"), text.referenced, text.value.clone());
            Ok(texts.iter().enumerate().map(entry).collect())
        }
        OneOrMore::Nothing => {
            refuse("nothing is written here", "write a value or a list, or leave the field out")
        }
        OneOrMore::Mapping => refuse(
            "a value or a list is expected here, not a mapping",
            "write it plainly; a space after a colon makes a mapping (`docker:web`, not `docker: web`)",
        ),
    }
}

/// A field that must be there, understood.
fn needed<T>(
    path: &str,
    raw: &Option<Text>,
    parent: Location,
    example: &str,
    parse: impl FnOnce(&str) -> Result<T, BadValue>,
) -> Result<T, SpecError> {
    let text = raw.as_ref().ok_or_else(|| missing(path, parent, example))?;
    understood(path, text, parse)
}

/// A text, understood.
fn understood<T>(
    path: &str,
    text: &Text,
    parse: impl FnOnce(&str) -> Result<T, BadValue>,
) -> Result<T, SpecError> {
    parse(&text.value).map_err(|problem| SpecError { place: Place::new(path, text.referenced), problem })
}

/// A field that must be there, and is not.
fn missing(path: &str, parent: Location, example: &str) -> SpecError {
    SpecError {
        place: Place::new(path, parent),
        problem: BadValue::new("this is missing", format!("write {example}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chaos_common::Chance;

    use super::*;
    use crate::{
        experiment::{
            hypothesis::{Gate, Margin, Metric},
            spec::Timing,
        },
        fault::{DirectionSpec, Fault, Limits, Loss, NetEffect, NetFault, NetFilter, Pattern},
    };

    const SMALLEST: &str = "\
version: 1
name: smallest
groups: { control: docker:a, experiment: docker:b }
steady_state: { gates: [{ metric: net.rx_bytes, decrease: 10% }] }
faults: [{ loss: { percent: 5 } }]
";

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_smallest_spec_has_the_defaults() {
        let loss = NetFault {
            effect: NetEffect::Loss(Loss::default()),
            pattern: Pattern::Random {
                chance: Chance::from_fraction(0.05).unwrap(),
                correlation: Chance::NEVER,
            },
            direction: DirectionSpec::Egress,
            filter: NetFilter::default(),
            limits: Limits::default(),
        };
        let expected = Spec {
            name: "smallest".into(),
            hypothesis: String::new(),
            control: vec![Target::Docker("a".into())],
            experiment: vec![Target::Docker("b".into())],
            gates: vec![Gate {
                metric: Metric::RxBytes,
                margin: Margin { increase: None, decrease: Some(0.1) },
            }],
            observe: vec![],
            checks: vec![],
            invariants: vec![],
            abort_if: vec![],
            probes: Vec::new(),
            faults: vec![Fault::Net(loss)],
            timing: Timing::HOLD,
            max_duration: seconds(600),
            confidence: 0.95,
        };
        assert_eq!(parse(SMALLEST), Ok(expected));
    }

    #[test]
    fn one_value_stands_for_a_list_of_one() {
        let listed = SMALLEST.replace("control: docker:a", "control: [docker:a]");
        assert_eq!(parse(&listed), parse(SMALLEST));
    }

    #[test]
    fn spellings_of_a_percentage() {
        for same in ["5%", "'5'", "\"5%\"", "5.0", "5 %"] {
            assert_eq!(
                parse(&SMALLEST.replace("percent: 5", &format!("percent: {same}"))),
                parse(SMALLEST),
                "{same}"
            );
        }
    }

    #[test]
    fn anchors_save_writing() {
        let faults =
            "faults:\n- loss: { percent: 5, peers: &peers [::1] }\n- loss: { every: 9, peers: *peers }\n";
        let text = SMALLEST.replace("faults: [{ loss: { percent: 5 } }]", faults);
        assert_eq!(parse(&text).unwrap().faults.len(), 2);
    }

    #[test]
    fn errors_carry_path_and_position() {
        let error = parse(&SMALLEST.replace("percent: 5", "percent: 500")).unwrap_err();
        assert_eq!(error.place, Place { path: "faults[0].loss.percent".into(), line: 5, column: 29 });
    }
}
