//! The `steady_state` of a spec: gates, each a metric and how far it may move.

use serde_saphyr::{Location, Spanned};

use super::{
    error::{Place, SpecError},
    missing, needed,
    raw::{RawGate, RawSteadyState, Text},
    scalars, understood,
};
use crate::{
    experiment::{
        hypothesis::{Gate, GateError, Kind, Margin, Metric, Scale, least_margin},
        metric::Word,
        preset::Preset,
    },
    judge::Design,
    steady::{family::Family, histogram},
    units::{BadValue, did_you_mean, parse_margin, quoted},
};

/// Most gates of one experiment: each one more makes a false alarm likelier.
const MAX_GATES: usize = 10;
/// How a gate is written, for advice.
const EXAMPLE: &str = "`- { metric: net.rx_bytes, decrease: 10% }`";

/// What is to be counted beside what gates take.
pub(super) fn observe(raw: &Spanned<RawSteadyState>) -> Result<Vec<Family>, SpecError> {
    const PATH: &str = "steady_state.observe";
    let asked = raw.value.observe.as_ref().map_or(Ok(vec![]), |raw| scalars(PATH, raw))?;
    let known = |text: &str| {
        let found = Family::ALL.into_iter().find(|family| family.name() == text.trim());
        found.ok_or_else(|| {
            let right = did_you_mean(text, Family::ALL.map(Family::name));
            BadValue::new(format!("{} is nothing that is counted", quoted(text)), right)
        })
    };
    let family = |(path, at, text): (String, Location, String)| {
        known(&text).map_err(|problem| SpecError { place: Place::new(path, at), problem })
    };
    asked.into_iter().map(family).collect()
}

/// What should stay true, in numbers: the gates of the preset, if one is asked for, with those that are written out in
/// place of its own.
pub(super) fn gates(
    raw: &Spanned<RawSteadyState>,
    probes: &[Word],
    design: Design,
) -> Result<Vec<Gate>, SpecError> {
    let of_preset = match &raw.value.preset {
        Some(text) => understood("steady_state.use", text, preset)?.gates(probes, design),
        None => vec![],
    };
    let path = "steady_state.gates";
    let Some(gates) = &raw.value.gates else {
        return match of_preset.len() {
            0 => Err(missing(path, raw.referenced, EXAMPLE)),
            1..=MAX_GATES => Ok(of_preset),
            count => {
                let what = format!("this preset has {count} gates, with those of each probe");
                let right = format!("have fewer probes, or write 1 to {MAX_GATES} gates out");
                Place::new("steady_state.use", raw.referenced).refuse(BadValue::new(what, right))
            }
        };
    };
    let number = |count: usize| {
        let right = format!("write 1 to {MAX_GATES}, such as {EXAMPLE}");
        Place::new(path, gates.referenced).refuse(BadValue::new(format!("there are {count} gates"), right))
    };
    if gates.value.len() > MAX_GATES {
        return number(gates.value.len());
    }
    let mut read: Vec<Gate> = Vec::with_capacity(gates.value.len());
    for (i, raw) in gates.value.iter().enumerate() {
        let gate = gate(&format!("{path}[{i}]"), raw, design)?;
        if let Some(j) = read.iter().position(|other| other.metric == gate.metric) {
            let what = format!("`{}` is gated already, by gates[{j}]", gate.metric);
            let right = "keep one gate for each metric (`within:` limits both directions)";
            return Place::new(format!("{path}[{i}].metric"), raw.referenced)
                .refuse(BadValue::new(what, right));
        }
        read.push(gate);
    }
    let is_written = |metric| read.iter().any(|gate: &Gate| gate.metric == metric);
    let rest: Vec<Gate> = of_preset.into_iter().filter(|gate| !is_written(gate.metric)).collect();
    read.extend(rest);
    match read.len() {
        1..=MAX_GATES => Ok(read),
        count => number(count),
    }
}

fn preset(text: &str) -> Result<Preset, BadValue> {
    let found = Preset::ALL.into_iter().find(|preset| preset.name() == text.trim());
    found.ok_or_else(|| {
        let right = did_you_mean(text, Preset::ALL.map(Preset::name));
        BadValue::new(format!("{} is not a preset", quoted(text)), right)
    })
}

fn gate(path: &str, raw: &Spanned<RawGate>, design: Design) -> Result<Gate, SpecError> {
    let field = format!("{path}.metric");
    let metric: Metric =
        needed(&field, &raw.value.metric, raw.referenced, "`metric: net.rx_bytes`", str::parse)?;
    if !metric.kind().follows_pulses() && !design.has_hold() {
        let what = format!("`{metric}` adds up over time, and pulses are too short to tell");
        let right = "write `design: both` or `design: hold`, or leave this gate out";
        let at = raw.value.metric.as_ref().map_or(raw.referenced, |text| text.referenced);
        return Place::new(field, at).refuse(BadValue::new(what, right));
    }
    let (kind, text) = only_margin(path, raw)?;
    let field = format!("{path}.{kind}");
    let is_event = metric.kind() == Kind::Event;
    if is_event != (kind == "max") {
        let why = match is_event {
            true => BadValue::new(
                format!("`{metric}` is counted, not compared"),
                "write `max:` and how often it may happen, such as `max: 0`",
            ),
            false => BadValue::new(
                format!("`{metric}` is compared with the control group, and has no maximum"),
                "write one of `increase:`, `decrease:`, `within:`, for what would hurt",
            ),
        };
        return Place::new(field, text.referenced).refuse(why);
    }
    let margin = understood(&field, text, |text| parse_margin(text, metric))?;
    if kind != "increase" && metric.kind().scale() == Scale::Relative && margin >= 1.0 {
        let what = "a rate cannot fall by more than all of it, so this gate would never fail";
        return Place::new(field, text.referenced).refuse(BadValue::new(what, "write less than `100%`"));
    }
    let margin = match kind {
        "increase" | "max" => Margin { increase: Some(margin), decrease: None },
        "decrease" => Margin { increase: None, decrease: Some(margin) },
        _ => Margin { increase: Some(margin), decrease: Some(margin) },
    };
    match margin.check(metric.kind(), histogram::WIDTH) {
        Ok(()) => Ok(Gate { metric, margin }),
        Err(why @ GateError::CoarseBuckets { width, .. }) => {
            let right = format!("write at least `{}%`", least_margin(width) * 100.0);
            Place::new(field, text.referenced).refuse(BadValue::new(why.to_string(), right))
        }
    }
}

/// A margin must be declared before the run, and only one: two would be two gates.
fn only_margin<'a>(path: &str, raw: &'a Spanned<RawGate>) -> Result<(&'static str, &'a Text), SpecError> {
    const ONE: &str = "write one of `increase:`, `decrease:`, `within:`, for what would hurt";
    let RawGate { increase, decrease, within, max, .. } = &raw.value;
    let mut given = [("increase", increase), ("decrease", decrease), ("within", within), ("max", max)]
        .into_iter()
        .filter_map(|(kind, text)| text.as_ref().map(|text| (kind, text)));
    let Some(first) = given.next() else {
        let why = BadValue::new("this gate has no margin, so nothing could fail it", ONE);
        return Place::new(path, raw.referenced).refuse(why);
    };
    match given.next() {
        None => Ok(first),
        Some((second, text)) => {
            let what = format!("this gate has `{}:` and `{second}:`", first.0);
            Place::new(format!("{path}.{second}"), text.referenced).refuse(BadValue::new(what, ONE))
        }
    }
}
