//! What one probe has seen of one target.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Answer;
use crate::{steady::probe::ProbeReading, units::quoted};

/// Counts, behind a lock that is held for as long as it takes to copy them.
#[derive(Debug)]
pub(super) struct Tally {
    timeout: Duration,
    most_under_way: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    reading: ProbeReading,
    under_way: usize,
    diagnosis: Option<String>,
}

/// How a request ended.
pub(super) struct End {
    /// From when it was due.
    pub(super) latency: Duration,
    /// From when the probe began.
    pub(super) at: Duration,
    /// `None` if it was given up.
    pub(super) answer: Option<Answer>,
}

impl Tally {
    pub(super) fn new(timeout: Duration, most_under_way: usize) -> Self {
        Self { timeout, most_under_way, seen: Mutex::default() }
    }

    pub(super) fn reading(&self) -> ProbeReading {
        self.seen().reading.clone()
    }

    pub(super) fn diagnosis(&self) -> Option<String> {
        self.seen().diagnosis.clone()
    }

    /// Counts a request that is due now. Whether it may be made: too many at once would be more than the target or this
    /// machine can bear, and have failed.
    pub(super) fn begin(&self) -> bool {
        let mut seen = self.seen();
        seen.reading.due += 1;
        if seen.under_way < self.most_under_way {
            seen.under_way += 1;
            return true;
        }
        seen.failed(self.timeout, format!("{} requests were under way already", self.most_under_way));
        false
    }

    /// Counts how a request ended.
    pub(super) fn end(&self, end: End) {
        let mut seen = self.seen();
        seen.under_way = seen.under_way.saturating_sub(1);
        match end.answer {
            Some(Ok(scraped)) => {
                seen.reading.answered += 1;
                seen.record(end.latency.min(self.timeout));
                if !scraped.is_empty() {
                    seen.reading.scraped_ns = nanoseconds(end.at);
                    seen.reading.scraped = scraped;
                }
            }
            Some(Err(why)) => seen.failed(end.latency.min(self.timeout), why),
            None => seen.failed(self.timeout, format!("no answer within {:?}", self.timeout)),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn failed(&mut self, latency: Duration, why: String) {
        self.reading.failed += 1;
        self.record(latency);
        // What the last good page said is no longer so.
        self.reading.scraped = BTreeMap::new();
        self.diagnosis = Some(harmless(&why));
    }

    fn record(&mut self, latency: Duration) {
        self.reading.latency.record(nanoseconds(latency));
    }
}

/// In part in the words of a target, which may hold anything.
fn harmless(why: &str) -> String {
    quoted(why).trim_matches('`').to_owned()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
