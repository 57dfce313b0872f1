//! Chaos Toolkit: the HTTP probes of a `steady-state-hypothesis`. There, each is asked before and after, and must be within
//! its tolerance (chaoslib/hypothesis.py and provider/http.py, 1.4x). Here, each is asked all the time and of both groups,
//! and most of the answers must be.

mod probe;
mod write;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use self::probe::Probe;
use super::{ImportError, Imported};
use crate::experiment::parse::{MAX_ID_BYTES, MAX_PROBES, TAKEN_IDS, parse};

/// The largest experiment that is read.
pub const MAX_BYTES: usize = 1 << 20;
const HYPOTHESIS: &str = "steady-state-hypothesis";

/// Reads an experiment, JSON or YAML.
pub fn import(text: &str) -> Result<Imported, ImportError> {
    if text.len() > MAX_BYTES {
        return Err(ImportError::TooLarge(text.len()));
    }
    let whole = read(text)?;
    let experiment = whole.as_object().ok_or(ImportError::NoExperiment(HYPOTHESIS))?;
    let hypothesis =
        experiment.get(HYPOTHESIS).and_then(Value::as_object).ok_or(ImportError::NoExperiment(HYPOTHESIS))?;
    let variables = variables(experiment);
    let (mut probes, mut left_out): (Vec<Probe>, Vec<String>) = Default::default();
    for (i, raw) in list(hypothesis, "probes").iter().enumerate() {
        let name = raw.get("name").and_then(Value::as_str).map_or(format!("{i}"), str::to_owned);
        match take(raw, &name, &variables, &probes) {
            Ok(probe) => {
                left_out.extend(probe.notes.iter().map(|note| format!("of probe `{name}`: {note}")));
                probes.push(probe);
            }
            Err(why) => left_out.push(format!("probe `{name}`: {why}")),
        }
    }
    left_out.extend(the_rest(experiment, hypothesis));
    let left_out: Vec<String> = left_out.iter().map(|line| on_one_line(line)).collect();
    let title =
        |of: &Map<String, Value>| of.get("title").and_then(Value::as_str).unwrap_or_default().to_owned();
    let spec = write::spec(&title(experiment), &title(hypothesis), &probes, &left_out);
    Ok(Imported { spec, left_out, probes: probes.len() })
}

/// A probe beside the `others`, that our own specs can have.
fn take(
    raw: &Value,
    name: &str,
    variables: &BTreeMap<String, String>,
    others: &[Probe],
) -> Result<Probe, String> {
    let mut probe = Probe::read(raw, variables)?;
    probe.id = id(name, others);
    if others.len() == MAX_PROBES {
        return Err(format!("there are more than {MAX_PROBES}"));
    }
    match parse(&write::alone(&probe)) {
        Ok(_) => Ok(probe),
        Err(error) => Err(format!("it cannot be said here: {}", error.problem)),
    }
}

fn read(text: &str) -> Result<Value, ImportError> {
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    serde_saphyr::from_str(text).map_err(|error| ImportError::Unreadable(on_one_line(&error.to_string())))
}

/// What `${name}` stands for, where the experiment itself says it.
fn variables(experiment: &Map<String, Value>) -> BTreeMap<String, String> {
    let configuration = experiment.get("configuration").and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    configuration.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

fn list<'a>(of: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What an experiment has besides the probes of its hypothesis: each is named, so that nothing goes missing unseen.
fn the_rest(experiment: &Map<String, Value>, hypothesis: &Map<String, Value>) -> Vec<String> {
    let mut rest = Vec::new();
    for (part, advice) in [
        ("method", "write what should go wrong under `faults:` (see `kchaos faults`)"),
        ("rollbacks", "kchaos undoes its faults by itself"),
    ] {
        for raw in list(experiment, part) {
            let text = |field| raw.get(field).and_then(Value::as_str);
            let what = text("type").unwrap_or("reference");
            let name = text("name").or_else(|| text("ref")).unwrap_or("without a name");
            let provider = raw.pointer("/provider/type").and_then(Value::as_str);
            let provider = provider.map_or(String::new(), |provider| format!(" ({provider})"));
            rest.push(format!("{what} `{name}`{provider} of `{part}`: {advice}"));
        }
    }
    const UNDERSTOOD: [&str; 10] = [
        "version",
        "title",
        "description",
        "tags",
        "contributions",
        "configuration",
        "method",
        "rollbacks",
        HYPOTHESIS,
        "extensions",
    ];
    let strange = experiment.keys().filter(|key| !UNDERSTOOD.contains(&key.as_str()));
    rest.extend(strange.map(|key| format!("`{key}`: kchaos has nothing like it")));
    let strange = hypothesis.keys().filter(|key| !["title", "probes", "description"].contains(&key.as_str()));
    rest.extend(strange.map(|key| format!("`{key}` of `{HYPOTHESIS}`: kchaos has nothing like it")));
    if experiment
        .get("extensions")
        .is_some_and(|extensions| extensions.as_array().is_none_or(|all| !all.is_empty()))
    {
        rest.push("`extensions`: kchaos has nothing like it".to_owned());
    }
    rest
}

/// A name that a probe may have, and that no other has.
fn id(name: &str, others: &[Probe]) -> String {
    // Room for `-` and a digit.
    let mut slug: String = slug(name).chars().take(MAX_ID_BYTES - 3).collect();
    slug = slug.trim_end_matches('-').to_owned();
    if slug.is_empty() {
        slug = "probe-1".to_owned();
    }
    if TAKEN_IDS.contains(&slug.as_str()) {
        slug.push_str("-ok");
    }
    let taken = |id: &str| others.iter().any(|other| other.id == id);
    match taken(&slug) {
        false => slug,
        true => (2..).map(|n| format!("{slug}-{n}")).find(|id| !taken(id)).unwrap_or(slug),
    }
}

/// Lower-case letters and digits, with dashes between words.
fn slug(text: &str) -> String {
    let dashed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let dashed: String = text.chars().map(dashed).collect();
    dashed.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

/// For comments and terminals: what is no plain character could end the one or rewrite the other.
fn on_one_line(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let plain = |c: char| {
        if c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c }
    };
    text.chars().map(plain).take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests;
