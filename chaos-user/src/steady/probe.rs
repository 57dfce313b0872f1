//! What a probe saw of a target, and what happened between two readings of it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// What a probe has seen of one target since it began; it only ever counts up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeReading {
    /// Requests that were due.
    pub due: u64,
    /// Good answers.
    pub answered: u64,
    /// Bad answers, timeouts, refused connections.
    pub failed: u64,
    /// Nanoseconds from when a request was due to its end, of every one that has come to an end; of one that took too long
    /// its timeout.
    pub latency: Histogram,
    /// When the last page was read, in nanoseconds since the probe began; of a difference, the time between two pages.
    pub scraped_ns: u64,
    /// What the last page said, by the names of its series. Nothing, if it could not be read.
    pub scraped: BTreeMap<String, Scraped>,
}

/// What a target says of itself, added up over all labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scraped {
    /// Something that only counts up.
    Counter(f64),
    /// Something that goes up and down.
    Level {
        /// The levels of all targets.
        sum: f64,
        /// How many targets that was.
        targets: u64,
    },
    /// A classic histogram.
    Buckets(Buckets),
}

/// Bounds of a histogram in its own unit, usually seconds, and how many values are at most each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buckets {
    /// Upper bounds, rising, without infinity.
    pub bounds: Vec<f64>,
    /// How many values are at most each bound, rising.
    pub at_most: Vec<f64>,
    /// All values.
    pub total: f64,
}

impl ProbeReading {
    /// What happened since `earlier`; `None` if anything went backwards, as after a restart of the target: then nobody
    /// knows how much of it was before. Series are left out where either reading lacks them or no page was read in between.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let fresh = self.scraped_ns > earlier.scraped_ns;
        let mut scraped = BTreeMap::new();
        for (name, now) in self.scraped.iter().filter(|_| fresh) {
            if let Some(before) = earlier.scraped.get(name).filter(|before| now.is_like(before)) {
                scraped.insert(name.clone(), now.since(before)?);
            }
        }
        Some(Self {
            due: self.due.checked_sub(earlier.due)?,
            answered: self.answered.checked_sub(earlier.answered)?,
            failed: self.failed.checked_sub(earlier.failed)?,
            latency: self.latency.since(&earlier.latency)?,
            scraped_ns: self.scraped_ns.checked_sub(earlier.scraped_ns)?,
            scraped,
        })
    }

    /// All targets of a group; `None` if there are none. A series that one of them lacks is left out: the sum of the
    /// others would look like a fall.
    pub fn sum<'a>(targets: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut targets = targets.into_iter();
        let mut sum = targets.next()?.clone();
        targets.for_each(|target| sum.merge(target));
        Some(sum)
    }

    /// Adds another target of the group. Begin with one of them, as [`ProbeReading::sum`] does: what nothing was read of
    /// has no series, and takes them from the others.
    pub fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.answered += other.answered;
        self.failed += other.failed;
        self.latency.merge(&other.latency);
        self.scraped_ns = self.scraped_ns.max(other.scraped_ns);
        self.scraped.retain(|name, scraped| {
            other.scraped.get(name).is_some_and(|theirs| scraped.is_like(theirs) && scraped.merge(theirs))
        });
    }

    /// Requests that came to an end.
    pub fn ended(&self) -> u64 {
        self.answered + self.failed
    }
}

impl Scraped {
    /// One target's level.
    pub fn level(value: f64) -> Self {
        Self::Level { sum: value, targets: 1 }
    }

    /// Whether both are of one kind, with the same bounds.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Buckets(one), Self::Buckets(other)) => one.bounds == other.bounds,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }

    fn since(&self, earlier: &Self) -> Option<Self> {
        match (self, earlier) {
            (Self::Counter(now), Self::Counter(before)) => Some(Self::Counter(grown(*now, *before)?)),
            (Self::Buckets(now), Self::Buckets(before)) => Some(Self::Buckets(now.since(before)?)),
            (level, _) => Some(level.clone()),
        }
    }

    /// Adds what is like it; says whether it was.
    fn merge(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Counter(one), Self::Counter(other)) => *one += other,
            (Self::Level { sum, targets }, Self::Level { sum: other, targets: more }) => {
                *sum += other;
                *targets += more;
            }
            (Self::Buckets(one), Self::Buckets(other)) => one.merge(other),
            _ => return false,
        }
        true
    }
}

impl Buckets {
    /// How many values are above `limit`, as if they were spread evenly over the bucket in which it lies; `None` beyond
    /// the last bound, as nothing is known of what is there.
    pub fn above(&self, limit: f64) -> Option<f64> {
        let at = self.bounds.iter().position(|bound| *bound >= limit)?;
        let (low, below) = match at {
            // Durations and sizes begin at 0, as `histogram_quantile` of Prometheus assumes too.
            0 => (0.0_f64.min(self.bounds[0]), 0.0),
            _ => (self.bounds[at - 1], self.at_most[at - 1]),
        };
        let width = self.bounds[at] - low;
        let part = if width > 0.0 { ((limit - low) / width).clamp(0.0, 1.0) } else { 1.0 };
        Some((self.total - below - part * (self.at_most[at] - below)).max(0.0))
    }

    fn since(&self, earlier: &Self) -> Option<Self> {
        let counts = self.at_most.iter().zip(&earlier.at_most);
        let at_most = counts.map(|(now, before)| grown(*now, *before)).collect::<Option<_>>()?;
        Some(Self { bounds: self.bounds.clone(), at_most, total: grown(self.total, earlier.total)? })
    }

    fn merge(&mut self, other: &Self) {
        self.at_most.iter_mut().zip(&other.at_most).for_each(|(one, other)| *one += other);
        self.total += other.total;
    }
}

fn grown(now: f64, before: f64) -> Option<f64> {
    (now >= before).then_some(now - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(at_most: [f64; 2], total: f64) -> Scraped {
        Scraped::Buckets(Buckets { bounds: vec![0.1, 0.5], at_most: at_most.to_vec(), total })
    }

    fn page(scraped_ns: u64, series: impl IntoIterator<Item = (&'static str, Scraped)>) -> ProbeReading {
        let scraped = series.into_iter().map(|(name, scraped)| (name.to_owned(), scraped)).collect();
        ProbeReading { due: scraped_ns, answered: scraped_ns, scraped_ns, scraped, ..ProbeReading::default() }
    }

    fn requests(good: u64, bad: u64) -> ProbeReading {
        let latency = [(500, good + bad)].into_iter().collect();
        ProbeReading { due: good + bad, answered: good, failed: bad, latency, ..ProbeReading::default() }
    }

    #[test]
    fn what_happened_is_the_difference_of_two_readings() {
        assert_eq!(requests(9, 3).since(&requests(5, 1)), Some(requests(4, 2)));
        assert_eq!(requests(9, 1).since(&requests(5, 3)), None);
        assert_eq!(requests(9, 1).since(&ProbeReading::default()), Some(requests(9, 1)));
    }

    #[test]
    fn series_are_differences_but_for_levels() {
        let before = [
            ("hits", Scraped::Counter(5.0)),
            ("queue", Scraped::level(9.0)),
            ("t", buckets([1.0, 2.0], 3.0)),
        ];
        let after = [
            ("hits", Scraped::Counter(7.0)),
            ("queue", Scraped::level(4.0)),
            ("t", buckets([1.0, 4.0], 9.0)),
        ];
        let between = page(2, after).since(&page(1, before)).unwrap();
        let expected = [
            ("hits", Scraped::Counter(2.0)),
            ("queue", Scraped::level(4.0)),
            ("t", buckets([0.0, 2.0], 6.0)),
        ];
        assert_eq!(between, page(1, expected));
    }

    #[test]
    fn a_reset_loses_the_tick() {
        let hits = |count| [("hits", Scraped::Counter(count))];
        assert_eq!(page(2, hits(0.0)).since(&page(1, hits(5.0))), None);
        let times = |within| [("t", buckets([within, 2.0], 3.0))];
        assert_eq!(page(2, times(0.0)).since(&page(1, times(1.0))), None);
    }

    #[test]
    fn missing_is_missing_and_never_zero() {
        let hits = |count| [("hits", Scraped::Counter(count))];
        let none = BTreeMap::new();
        let same_page = page(1, hits(5.0)).since(&page(1, hits(5.0))).unwrap();
        assert_eq!((&same_page.scraped, same_page.scraped_ns), (&none, 0), "no page was read in between");
        assert_eq!(
            page(2, []).since(&page(1, hits(5.0))).unwrap().scraped,
            none,
            "the page could not be read"
        );
        assert_eq!(
            page(2, hits(5.0)).since(&page(1, [])).unwrap().scraped,
            none,
            "it could not be read before"
        );
        let another = [("hits", Scraped::level(1.0))];
        assert_eq!(page(2, another).since(&page(1, hits(5.0))).unwrap().scraped, none, "another kind");
    }

    #[test]
    fn a_group_is_the_sum_of_its_targets() {
        let one = page(
            1,
            [("hits", Scraped::Counter(1.0)), ("queue", Scraped::level(4.0)), ("only", Scraped::level(1.0))],
        );
        let other = page(2, [("hits", Scraped::Counter(2.0)), ("queue", Scraped::level(8.0))]);
        let sum = ProbeReading::sum([&one, &other]).unwrap();
        let queue = Scraped::Level { sum: 12.0, targets: 2 };
        let expected: BTreeMap<_, _> =
            [("hits".to_owned(), Scraped::Counter(3.0)), ("queue".to_owned(), queue)].into();
        assert_eq!((sum.due, sum.scraped_ns, sum.scraped), (3, 2, expected));
        assert_eq!(ProbeReading::sum([]), None);
        assert_eq!(ProbeReading::sum([&requests(5, 1), &requests(2, 2)]), Some(requests(7, 3)));
    }

    #[test]
    fn a_share_of_a_histogram_is_read_within_its_bounds() {
        let Scraped::Buckets(times) = buckets([10.0, 30.0], 50.0) else { unreachable!() };
        for (limit, above) in [(0.0, 50.0), (0.05, 45.0), (0.1, 40.0), (0.3, 30.0), (0.5, 20.0)] {
            assert!((times.above(limit).unwrap() - above).abs() < 1e-9, "{limit}");
        }
        assert_eq!(times.above(0.6), None, "what is beyond the last bound, nobody knows");
    }

    #[test]
    fn readings_survive_being_written() {
        let reading = page(
            3,
            [("hits", Scraped::Counter(0.1)), ("q", Scraped::level(-4.5)), ("t", buckets([1.0, 2.0], 3.0))],
        );
        let written = serde_json::to_string(&reading).unwrap();
        assert_eq!(serde_json::from_str::<ProbeReading>(&written).unwrap(), reading);
    }
}
