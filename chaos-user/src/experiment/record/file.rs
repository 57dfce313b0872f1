//! The file of a run: lines of JSON. The first says what was planned, each of those between is a reading, the last says how
//! it ended.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::{LineError, Recorded, RunFacts, SampleLine};
use crate::{
    experiment::{Recording, SpecError, hypothesis::Metric, parse, preflight},
    judge::{AbortReason, delivery::RuleDelivery, names},
    kernel::CallReport,
    report::Watched,
    target::Group,
    units::BadValue,
};

/// The version of the file's shape.
pub const SCHEMA: &str = "kchaos-run/1";

/// The longest line that is read: a reading of 64 targets with every histogram full.
const MAX_LINE_BYTES: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    schema: String,
    /// The spec's text.
    spec: String,
    seed: u64,
    /// By slot.
    slots: Vec<String>,
    rules: Vec<RuleDelivery>,
    metrics: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kappa: Vec<(String, f64)>,
    facts: RunFacts,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    aborted: Option<AbortReason>,
    calls: CallReport,
    watched: Watched,
}

/// Why a file cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is none.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Another version wrote it.
    #[error("it is `{0}`, and this kchaos reads `{SCHEMA}`")]
    Schema(String),
    /// It ends before the run did.
    #[error("it ends before the run did: the last line is missing")]
    Unfinished,
    /// Its spec is refused.
    #[error("the spec in it: {0}")]
    Spec(#[from] SpecError),
    /// A name in it is not known.
    #[error("{0}")]
    Name(#[from] BadValue),
}

impl Recorded {
    /// Writes it.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let head = Head {
            schema: SCHEMA.into(),
            spec: self.source.clone(),
            seed: self.spec.timing.seed,
            slots: self.slots.iter().map(|group| names::group(*group).to_owned()).collect(),
            rules: self.rules.clone(),
            metrics: self.metrics.iter().map(|metric| metric.name().to_owned()).collect(),
            kappa: self.kappa.iter().map(|(metric, kappa)| (metric.name().to_owned(), *kappa)).collect(),
            facts: self.facts.clone(),
        };
        line(to, &head)?;
        for (part, sample) in &self.recording.samples {
            line(to, &SampleLine::new(*part, sample))?;
        }
        let Recording { aborted, calls, .. } = &self.recording;
        line(to, &Tail { aborted: aborted.clone(), calls: calls.clone(), watched: self.watched.clone() })
    }

    /// Reads one.
    pub fn read(from: impl BufRead) -> Result<Self, ReplayError> {
        let mut lines = lines(from);
        let (number, first) = lines.next().ok_or(ReplayError::Unfinished)??;
        let head: Head = of_line(number, &first)?;
        if head.schema != SCHEMA {
            return Err(ReplayError::Schema(head.schema));
        }
        let mut spec = parse(&head.spec)?;
        spec.timing.seed = head.seed;
        let (mut samples, mut last) = (Vec::new(), None);
        for line in lines {
            let (number, text) = line?;
            if let Some((number, text)) = last.replace((number, text)) {
                let line: SampleLine = of_line(number, &text)?;
                samples.push(line.sample().map_err(|error| wrong(number, error))?);
            }
        }
        let (number, text) = last.ok_or(ReplayError::Unfinished)?;
        // The last line of a file that was cut off is a reading.
        if serde_json::from_str::<SampleLine>(&text).is_ok() {
            return Err(ReplayError::Unfinished);
        }
        let Tail { aborted, calls, watched } = of_line(number, &text)?;
        let not_ready = preflight::refusals(&watched.preflight);
        Ok(Self {
            source: head.spec,
            spec,
            slots: head.slots.iter().map(|name| group(name)).collect::<Result<_, _>>()?,
            rules: head.rules,
            metrics: head.metrics.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            kappa: head
                .kappa
                .iter()
                .map(|(name, kappa)| Ok((name.parse::<Metric>()?, *kappa)))
                .collect::<Result<_, BadValue>>()?,
            facts: head.facts,
            watched,
            recording: Recording { samples, calls, aborted, not_ready, heard: Vec::new() },
        })
    }
}

fn line(to: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

/// Lines with their numbers, from 1.
fn lines(mut from: impl BufRead) -> impl Iterator<Item = Result<(usize, String), ReplayError>> {
    let mut number = 0;
    std::iter::from_fn(move || {
        let mut text = String::new();
        match io::Read::take(&mut from, MAX_LINE_BYTES).read_line(&mut text) {
            Ok(0) => None,
            Ok(_) => {
                number += 1;
                Some(Ok((number, text)))
            }
            Err(error) => Some(Err(error.into())),
        }
    })
}

fn of_line<'a, T: Deserialize<'a>>(number: usize, text: &'a str) -> Result<T, ReplayError> {
    serde_json::from_str(text).map_err(|error| ReplayError::Line { line: number, problem: error.to_string() })
}

fn wrong(line: usize, error: LineError) -> ReplayError {
    ReplayError::Line { line, problem: error.to_string() }
}

fn group(name: &str) -> Result<Group, ReplayError> {
    let known = [Group::Control, Group::Experiment].into_iter().find(|group| names::group(*group) == name);
    known.ok_or_else(|| wrong(1, LineError::Part))
}
