//! The `run` of a spec, and how long it may take altogether.

use std::time::Duration;

use serde_saphyr::{Location, Spanned};

use super::{
    error::{Place, SpecError},
    raw::{RawRun, Text},
    understood,
};
use crate::{
    experiment::spec::Timing,
    units::{BadValue, did_you_mean, parse_confidence, parse_duration, quoted, show_duration},
};

/// Shorter phases hold too few seconds to judge by.
const MIN_PHASE: Duration = Duration::from_secs(5);
const DEFAULT_TIMING: Timing = Timing {
    baseline: Duration::from_secs(20),
    inject: Duration::from_secs(20),
    recover: Duration::from_secs(10),
    settle: Duration::from_secs(2),
};
const DEFAULT_CONFIDENCE: f64 = 0.95;
const DEFAULT_MAX_DURATION: Duration = Duration::from_secs(10 * 60);

/// Phases and confidence.
pub(super) fn run(raw: &Option<Spanned<RawRun>>) -> Result<(Timing, f64), SpecError> {
    let Some(Spanned { value: raw, .. }) = raw else { return Ok((DEFAULT_TIMING, DEFAULT_CONFIDENCE)) };
    if let Some(text) = &raw.design {
        understood("run.design", text, design)?;
    }
    let timing = Timing {
        baseline: phase("run.baseline", &raw.baseline, DEFAULT_TIMING.baseline)?,
        inject: phase("run.inject", &raw.inject, DEFAULT_TIMING.inject)?,
        recover: phase("run.recover", &raw.recover, DEFAULT_TIMING.recover)?,
        settle: duration("run.settle", &raw.settle, DEFAULT_TIMING.settle)?,
    };
    settles(&timing, raw)?;
    let confidence = match &raw.confidence {
        Some(text) => understood("run.confidence", text, parse_confidence)?,
        None => DEFAULT_CONFIDENCE,
    };
    Ok((timing, confidence))
}

/// The cap on the whole run, which must leave room for its phases.
pub(super) fn max_duration(raw: &Option<Text>, timing: &Timing) -> Result<Duration, SpecError> {
    let max = duration("max_duration", raw, DEFAULT_MAX_DURATION)?;
    let phases = timing.baseline + timing.inject + timing.recover;
    if phases <= max {
        return Ok(max);
    }
    let (phases, max) = (show_duration(phases), show_duration(max));
    let unless = if raw.is_none() { ", unless told," } else { "" };
    let why = BadValue::new(
        format!("baseline, inject and recover take {phases}, but the run is ended{unless} after {max}"),
        format!("write `max_duration: {phases}` or more, or shorten a phase"),
    );
    let at = raw.as_ref().map_or(Location::UNKNOWN, |text| text.referenced);
    Place::new("max_duration", at).refuse(why)
}

fn design(text: &str) -> Result<(), BadValue> {
    match text {
        "hold" => Ok(()),
        "pulse" | "both" => Err(BadValue::new(
            format!("the design {} is not supported yet", quoted(text)),
            "write `hold`: baseline, inject, recover, once each",
        )),
        _ => Err(BadValue::new(format!("{} is not a design", quoted(text)), did_you_mean(text, ["hold"]))),
    }
}

fn phase(path: &str, raw: &Option<Text>, default: Duration) -> Result<Duration, SpecError> {
    let Some(text) = raw else { return Ok(default) };
    understood(path, text, |text| match parse_duration(text)? {
        short if short < MIN_PHASE => Err(BadValue::new(
            format!("{} holds too few seconds to judge by", quoted(text)),
            format!("write at least `{}`", show_duration(MIN_PHASE)),
        )),
        duration => Ok(duration),
    })
}

fn duration(path: &str, raw: &Option<Text>, default: Duration) -> Result<Duration, SpecError> {
    raw.as_ref().map_or(Ok(default), |text| understood(path, text, parse_duration))
}

/// Of a phase that is judged, something must be left to judge by.
fn enough_is_left(timing: &Timing, raw: &RawRun) -> Result<(), SpecError> {
    if timing.inject - timing.settle >= MIN_PHASE {
        return Ok(());
    }
    let (inject, settle, least) = (timing.inject, timing.settle, timing.settle + MIN_PHASE);
    let why = BadValue::new(
        format!(
            "{} less {} to settle is too short to be judged",
            show_duration(inject),
            show_duration(settle)
        ),
        format!("write {} or more, or less for run.settle", show_duration(least)),
    );
    let at = raw.inject.as_ref().map_or(Location::UNKNOWN, |text| text.referenced);
    Place::new("run.inject", at).refuse(why)
}

/// What is left out at the start of a phase must leave something of it.
fn settles(timing: &Timing, raw: &RawRun) -> Result<(), SpecError> {
    let most = (timing.inject / 2).min(timing.recover);
    if timing.settle < most {
        return enough_is_left(timing, raw);
    }
    let settle = show_duration(timing.settle);
    let why = BadValue::new(
        format!("leaving out {settle} would leave too little of inject or recover to judge by"),
        format!(
            "write less than {} (half of inject, and less than recover), or make them longer",
            show_duration(most)
        ),
    );
    let at = raw.settle.as_ref().map_or(Location::UNKNOWN, |text| text.referenced);
    Place::new("run.settle", at).refuse(why)
}
