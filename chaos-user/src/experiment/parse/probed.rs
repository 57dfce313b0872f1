//! Metrics of probes, wherever a spec names them, and the probes that they are of.

use serde_saphyr::Spanned;

use super::{
    error::SpecError,
    raw::{RawSpec, RawSteadyState, Text},
    understood,
};
use crate::{
    experiment::{
        hypothesis::Metric,
        metric::ProbeStat,
        probe::{Ask, Probe},
    },
    units::{BadValue, did_you_mean},
};

/// Refuses metrics of probes that there are not, or that do not tell. What a page of Prometheus is read for is kept by its
/// probe.
pub(super) fn of_probes(
    spec: &RawSpec,
    steady: &Spanned<RawSteadyState>,
    probes: &mut [Probe],
) -> Result<(), SpecError> {
    for (path, text) in named(spec, steady) {
        let metric = understood(&path, text, |text| is_told(text.parse()?, probes))?;
        let Metric::Probe(
            id,
            ProbeStat::Rate(series) | ProbeStat::Level(series) | ProbeStat::Above(series, _),
        ) = metric
        else {
            continue;
        };
        for probe in probes.iter_mut().filter(|probe| probe.id == id.as_str()) {
            if let Ask::Prometheus(scrape) = &mut probe.ask {
                scrape.series.insert(series.to_string());
            }
        }
    }
    Ok(())
}

/// Every place that names a metric.
fn named<'a>(spec: &'a RawSpec, steady: &'a Spanned<RawSteadyState>) -> Vec<(String, &'a Text)> {
    let place = |list: &str, i: usize, text: &'a Option<Text>| {
        text.as_ref().map(|text| (format!("{list}[{i}].metric"), text))
    };
    let gates = steady.value.gates.iter().flat_map(|gates| gates.value.iter().enumerate());
    let checks = steady.value.checks.iter().flat_map(|checks| checks.value.iter().enumerate());
    let aborts = spec.abort_if.iter().flat_map(|aborts| aborts.value.iter().enumerate());
    let gates = gates.filter_map(|(i, gate)| place("steady_state.gates", i, &gate.value.metric));
    let checks = checks.filter_map(|(i, check)| place("steady_state.checks", i, &check.value.metric));
    let aborts = aborts.filter_map(|(i, abort)| place("abort_if", i, &abort.value.metric));
    gates.chain(checks).chain(aborts).collect()
}

fn is_told(metric: Metric, probes: &[Probe]) -> Result<Metric, BadValue> {
    let Metric::Probe(id, stat) = metric else { return Ok(metric) };
    let Some(probe) = probes.iter().find(|probe| probe.id == id.as_str()) else {
        let what = format!("`{metric}` is of the probe `{id}`, and there is none of that name");
        let right = match probes.is_empty() {
            true => "write it under `steady_state.probes`, or take one of the kernel's metrics".to_owned(),
            false => did_you_mean(id.as_str(), probes.iter().map(|probe| probe.id.as_str())),
        };
        return Err(BadValue::new(what, right));
    };
    let of_page = matches!(stat, ProbeStat::Rate(_) | ProbeStat::Level(_) | ProbeStat::Above(..));
    if of_page && !matches!(probe.ask, Ask::Prometheus(_)) {
        let what = format!("`{metric}` is of a page of Prometheus, and `{id}` reads none");
        return Err(BadValue::new(what, "write `prometheus:` for that probe, or take `ID.p99` and the like"));
    }
    Ok(metric)
}
