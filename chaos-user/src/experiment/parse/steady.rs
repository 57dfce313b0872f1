//! The `steady_state` of a spec: gates, each a metric and how far it may move.

use serde_saphyr::Spanned;

use super::{
    error::{Place, SpecError},
    missing, needed,
    raw::{RawGate, RawSteadyState, Text},
    understood,
};
use crate::{
    experiment::hypothesis::{Gate, GateError, Margin, Metric, Scale, least_margin},
    steady::histogram,
    units::{BadValue, parse_margin},
};

/// Most gates of one experiment: each one more makes a false alarm likelier.
const MAX_GATES: usize = 10;
/// How a gate is written, for advice.
const EXAMPLE: &str = "`- { metric: net.rx_bytes, decrease: 10% }`";

/// What should stay true, in numbers.
pub(super) fn gates(raw: &Spanned<RawSteadyState>) -> Result<Vec<Gate>, SpecError> {
    let path = "steady_state.gates";
    let gates = raw.value.gates.as_ref().ok_or_else(|| missing(path, raw.referenced, EXAMPLE))?;
    let count = gates.value.len();
    if !(1..=MAX_GATES).contains(&count) {
        let right = format!("write 1 to {MAX_GATES}, such as {EXAMPLE}");
        return Place::new(path, gates.referenced)
            .refuse(BadValue::new(format!("there are {count} gates"), right));
    }
    let mut read: Vec<Gate> = Vec::with_capacity(count);
    for (i, raw) in gates.value.iter().enumerate() {
        let gate = gate(&format!("{path}[{i}]"), raw)?;
        if let Some(j) = read.iter().position(|other| other.metric == gate.metric) {
            let what = format!("`{}` is gated already, by gates[{j}]", gate.metric);
            let right = "keep one gate for each metric (`within:` limits both directions)";
            return Place::new(format!("{path}[{i}].metric"), raw.referenced)
                .refuse(BadValue::new(what, right));
        }
        read.push(gate);
    }
    Ok(read)
}

fn gate(path: &str, raw: &Spanned<RawGate>) -> Result<Gate, SpecError> {
    let field = format!("{path}.metric");
    let metric: Metric =
        needed(&field, &raw.value.metric, raw.referenced, "`metric: net.rx_bytes`", str::parse)?;
    let (kind, text) = only_margin(path, raw)?;
    let field = format!("{path}.{kind}");
    let margin = understood(&field, text, |text| parse_margin(text, metric))?;
    if kind != "increase" && metric.kind().scale() == Scale::Relative && margin >= 1.0 {
        let what = "a rate cannot fall by more than all of it, so this gate would never fail";
        return Place::new(field, text.referenced).refuse(BadValue::new(what, "write less than `100%`"));
    }
    let margin = match kind {
        "increase" => Margin { increase: Some(margin), decrease: None },
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
    let RawGate { increase, decrease, within, .. } = &raw.value;
    let mut given = [("increase", increase), ("decrease", decrease), ("within", within)]
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
