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
    judge::{Design, pulse::MIN_PAIRS},
    units::{BadValue, did_you_mean, parse_confidence, parse_duration, quoted, show_duration},
};

/// Shorter phases hold too few seconds to judge by.
const MIN_PHASE: Duration = Duration::from_secs(5);
/// Shorter blocks hold too little beside what they take to settle.
const MIN_BLOCK: Duration = Duration::from_secs(4);
/// More pairs than anybody waits for.
const MAX_PAIRS: usize = 1_000;
const DEFAULT_CONFIDENCE: f64 = 0.95;
const DEFAULT_MAX_DURATION: Duration = Duration::from_secs(10 * 60);

/// Phases and confidence.
pub(super) fn run(raw: &Option<Spanned<RawRun>>) -> Result<(Timing, f64), SpecError> {
    let Some(Spanned { value: raw, .. }) = raw else { return Ok((Timing::HOLD, DEFAULT_CONFIDENCE)) };
    let usual = match &raw.design {
        Some(text) => understood("run.design", text, design)?,
        None => Timing::HOLD,
    };
    belongs(usual.design, raw)?;
    let timing = Timing {
        baseline: phase("run.baseline", &raw.baseline, usual.baseline)?,
        pulses: match &raw.pulses {
            Some(text) => understood("run.pulses", text, pairs)?,
            None => usual.pulses,
        },
        block: match &raw.block {
            Some(text) => understood("run.block", text, block)?,
            None => usual.block,
        },
        inject: phase("run.inject", &raw.inject, usual.inject)?,
        recover: phase("run.recover", &raw.recover, usual.recover)?,
        settle: duration("run.settle", &raw.settle, usual.settle)?,
        seed: match &raw.seed {
            Some(text) => understood("run.seed", text, seed)?,
            None => usual.seed,
        },
        design: usual.design,
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
    let phases = timing.total();
    let max = if raw.is_none() && timing.design.has_pulses() { max.max(phases * 2) } else { max };
    if phases <= max {
        return Ok(max);
    }
    let (phases, max) = (show_duration(phases), show_duration(max));
    let unless = if raw.is_none() { ", unless told," } else { "" };
    let why = BadValue::new(
        format!("{} take {phases}, but the run is ended{unless} after {max}", names(timing.design)),
        format!("write `max_duration: {phases}` or more, or shorten a phase"),
    );
    let at = raw.as_ref().map_or(Location::UNKNOWN, |text| text.referenced);
    Place::new("max_duration", at).refuse(why)
}

const fn names(design: Design) -> &'static str {
    match design {
        Design::Hold => "baseline, inject and recover",
        Design::Pulse => "baseline, pulses and recover",
        Design::Both => "baseline, pulses, inject and recover",
    }
}

/// What the design has that is asked for, with what it has if nothing else is said.
fn design(text: &str) -> Result<Timing, BadValue> {
    match text {
        "hold" => Ok(Timing::HOLD),
        "pulse" => Ok(Timing::PULSE),
        "both" => Ok(Timing::BOTH),
        _ => Err(BadValue::new(
            format!("{} is not a design", quoted(text)),
            did_you_mean(text, ["hold", "pulse", "both"]),
        )),
    }
}

/// Refuses what the design has no use for.
fn belongs(design: Design, raw: &RawRun) -> Result<(), SpecError> {
    let only = [
        ("run.pulses", &raw.pulses, design.has_pulses(), "pulse"),
        ("run.block", &raw.block, design.has_pulses(), "pulse"),
        ("run.seed", &raw.seed, design.has_pulses(), "pulse"),
        ("run.inject", &raw.inject, design.has_hold(), "hold"),
    ];
    for (path, text, is_used, other) in only {
        if let (Some(text), false) = (text, is_used) {
            let why = BadValue::new(
                "this design has none",
                format!("write `design: {other}` or `design: both`, or leave it out"),
            );
            return Place::new(path, text.referenced).refuse(why);
        }
    }
    Ok(())
}

fn pairs(text: &str) -> Result<usize, BadValue> {
    let right = || format!("write {MIN_PAIRS} to {MAX_PAIRS}; 12 is usual");
    let pairs: usize = text
        .trim()
        .parse()
        .map_err(|_| BadValue::new(format!("{} is not a number of pairs", quoted(text)), right()))?;
    if !(MIN_PAIRS..=MAX_PAIRS).contains(&pairs) {
        let what =
            format!("{pairs} pairs of blocks are too {}", if pairs > MAX_PAIRS { "many" } else { "few" });
        return Err(BadValue::new(what, right()));
    }
    Ok(pairs)
}

fn block(text: &str) -> Result<Duration, BadValue> {
    match parse_duration(text)? {
        short if short < MIN_BLOCK => Err(BadValue::new(
            format!("{} is too short a block", quoted(text)),
            format!("write at least `{}`", show_duration(MIN_BLOCK)),
        )),
        broken if broken.subsec_nanos() != 0 => Err(BadValue::new(
            format!("{} is no number of seconds", quoted(text)),
            "write whole seconds, such as `10s`",
        )),
        duration => Ok(duration),
    }
}

fn seed(text: &str) -> Result<u64, BadValue> {
    let seed = text.trim().parse().ok().filter(|seed| *seed > 0);
    seed.ok_or_else(|| {
        BadValue::new(format!("{} is not a seed", quoted(text)), "write a whole number above 0, such as `42`")
    })
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
    if !timing.design.has_hold() || timing.inject - timing.settle >= MIN_PHASE {
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

/// What is left out at the start of a phase or a block must leave something of it.
fn settles(timing: &Timing, raw: &RawRun) -> Result<(), SpecError> {
    let hold = timing.design.has_hold().then_some(timing.inject / 2);
    // Half of what is left of an OFF block is compared with the other half.
    let block = timing.design.has_pulses().then_some(timing.block / 2 + SECOND);
    let recover = Some(timing.recover);
    let least = [hold, block, recover].into_iter().flatten().min();
    let Some(most) = least.filter(|most| timing.settle >= *most) else {
        return enough_is_left(timing, raw);
    };
    let settle = show_duration(timing.settle);
    let why = BadValue::new(
        format!("leaving out {settle} would leave too little of {} to judge by", judged(timing.design)),
        format!("write less than {} ({}), or make them longer", show_duration(most), limits(timing.design)),
    );
    let at = raw.settle.as_ref().map_or(Location::UNKNOWN, |text| text.referenced);
    Place::new("run.settle", at).refuse(why)
}

const SECOND: Duration = Duration::from_secs(1);

const fn judged(design: Design) -> &'static str {
    match design {
        Design::Hold => "inject or recover",
        Design::Pulse => "the blocks or recover",
        Design::Both => "the blocks, inject or recover",
    }
}

const fn limits(design: Design) -> &'static str {
    match design {
        Design::Hold => "half of inject, and less than recover",
        Design::Pulse => "half of a block and a second, and less than recover",
        Design::Both => "half of a block and a second, half of inject, and less than recover",
    }
}
