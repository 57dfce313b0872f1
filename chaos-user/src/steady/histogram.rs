//! Durations by bucket, as the kernel half counts them ([`chaos_common::h2`]): merged by adding, read by quantile or tail.
//! Means of percentiles are never taken; buckets are added first.

use chaos_common::h2;
use serde::{Deserialize, Serialize};

/// How often which bucket was hit. Only buckets that were hit are kept, in order; so are they written: pairs of a bucket
/// and its count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u64)>", into = "Vec<(u32, u64)>")]
pub struct Histogram {
    hits: Vec<(u32, u64)>,
}

/// The widest a bucket is, as a fraction of what it holds: 32 to a doubling. Below 64 ns, where each nanosecond has a
/// bucket of its own, they are wider, and nothing that a call does is that short.
pub const WIDTH: f64 = 1.0 / 32.0;

impl Histogram {
    /// From the counts of all buckets, as they lie in a map of the kernel half.
    pub fn from_dense(counts: &[u64]) -> Self {
        (0..).zip(counts.iter().copied()).collect()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// How much was counted.
    pub fn total(&self) -> u64 {
        self.hits.iter().map(|(_, hits)| hits).fold(0, |sum, hits| sum.saturating_add(*hits))
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.add(h2::bucket(value), 1);
    }

    fn add(&mut self, bucket: u32, hits: u64) {
        match self.hits.binary_search_by_key(&bucket, |(number, _)| *number) {
            Ok(at) => self.hits[at].1 = self.hits[at].1.saturating_add(hits),
            Err(at) => self.hits.insert(at, (bucket, hits)),
        }
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        if self.is_empty() {
            self.hits.clone_from(&other.hits);
        } else if !other.is_empty() {
            self.hits = zip_buckets(&self.hits, &other.hits, u64::saturating_add);
        }
    }

    /// Less what a part of it counted.
    pub fn without(&self, part: &Self) -> Self {
        Self { hits: zip_buckets(&self.hits, &part.hits, u64::saturating_sub) }
    }

    /// What was counted since `earlier`; `None` if any bucket went backwards.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let grew = |(bucket, hits): &(u32, u64)| self.hits_of(*bucket) >= *hits;
        earlier.hits.iter().all(grew).then(|| self.without(earlier))
    }

    fn hits_of(&self, bucket: u32) -> u64 {
        let at = self.hits.binary_search_by_key(&bucket, |(number, _)| *number);
        at.map_or(0, |at| self.hits[at].1)
    }

    /// How many values are at most `value`; those of the bucket in which it lies count in part, as if they were spread
    /// evenly over its logarithm.
    pub fn at_most(&self, value: f64) -> f64 {
        let within = |(bucket, hits): &(u32, u64)| *hits as f64 * position(*bucket, value);
        let begins_below = |(bucket, _): &&(u32, u64)| (h2::lower(*bucket) as f64) < value;
        self.hits.iter().take_while(begins_below).map(within).sum()
    }

    /// How many values are above `value`.
    pub fn above(&self, value: f64) -> f64 {
        (self.total() as f64 - self.at_most(value)).max(0.0)
    }

    /// The value that the share `q` of all values is at most, log-linear inside its bucket; `None` if there are none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q.clamp(0.0, 1.0) * self.total() as f64;
        let mut below = 0.0;
        for (bucket, hits) in &self.hits {
            let hits = *hits as f64;
            if below + hits >= rank {
                let (low, high) = bounds(*bucket);
                return Some(low * (high / low).powf(((rank - below) / hits).clamp(0.0, 1.0)));
            }
            below += hits;
        }
        None
    }
}

impl FromIterator<(u32, u64)> for Histogram {
    /// From counts by bucket, in any order.
    fn from_iter<I: IntoIterator<Item = (u32, u64)>>(counts: I) -> Self {
        let mut histogram = Self::default();
        let hit = |(bucket, hits): &(u32, u64)| *hits > 0 && (*bucket as usize) < h2::BUCKETS;
        for (bucket, hits) in counts.into_iter().filter(hit) {
            histogram.add(bucket, hits);
        }
        histogram
    }
}

impl From<Vec<(u32, u64)>> for Histogram {
    fn from(counts: Vec<(u32, u64)>) -> Self {
        counts.into_iter().collect()
    }
}

impl From<Histogram> for Vec<(u32, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.hits
    }
}

/// Between which values a bucket lies. What took no time at all is taken as half a nanosecond, to have a logarithm.
fn bounds(bucket: u32) -> (f64, f64) {
    ((h2::lower(bucket) as f64).max(0.5), h2::upper(bucket) as f64)
}

/// How much of a bucket lies at or below `value`, on its logarithm.
fn position(bucket: u32, value: f64) -> f64 {
    let (low, high) = bounds(bucket);
    if value >= high { 1.0 } else { ((value / low).ln() / (high / low).ln()).clamp(0.0, 1.0) }
}

/// Both, bucket by bucket; what comes out as none is left out.
fn zip_buckets(one: &[(u32, u64)], other: &[(u32, u64)], both: fn(u64, u64) -> u64) -> Vec<(u32, u64)> {
    let mut all = Vec::with_capacity(one.len() + other.len());
    let (mut i, mut j) = (0, 0);
    while i < one.len() || j < other.len() {
        let (a, b) = (one.get(i).copied(), other.get(j).copied());
        let (bucket, hits) = match (a, b) {
            (Some((bucket, a)), Some((same, b))) if bucket == same => (bucket, both(a, b)),
            (Some((bucket, a)), next) if next.is_none_or(|(next, _)| bucket < next) => (bucket, both(a, 0)),
            (_, Some((bucket, b))) => (bucket, both(0, b)),
            (_, None) => break,
        };
        i += usize::from(a.is_some_and(|(at, _)| at == bucket));
        j += usize::from(b.is_some_and(|(at, _)| at == bucket));
        if hits > 0 {
            all.push((bucket, hits));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_true_ones() {
        let histogram = of((1..=100_000).map(|i| i * 1_000));
        for (q, truth) in [(0.5, 50e6), (0.9, 90e6), (0.99, 99e6), (0.999, 99.9e6)] {
            let ours = histogram.quantile(q).unwrap();
            assert!((ours / truth - 1.0).abs() < WIDTH / 4.0, "{q}: {ours}");
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn tails_and_quantiles_are_each_others_inverse() {
        let histogram = of((0..5_000).map(|i| 100 + i * i));
        for q in [0.01, 0.3, 0.5, 0.99] {
            let value = histogram.quantile(q).unwrap();
            assert!((histogram.at_most(value) / 5_000.0 - q).abs() < 1e-9, "{q}");
            assert!((histogram.above(value) - 5_000.0 * (1.0 - q)).abs() < 1e-5, "{q}");
        }
        assert_eq!((histogram.at_most(0.0), histogram.above(0.0)), (0.0, 5_000.0));
        assert_eq!(histogram.above(1e12), 0.0);
    }

    #[test]
    fn merging_is_counting_together_and_can_be_undone() {
        let (one, other) = (of([5, 70, 70, 9_000]), of([70, 1 << 40]));
        let mut both = one.clone();
        both.merge(&other);
        assert_eq!(both, of([5, 70, 70, 9_000, 70, 1 << 40]));
        assert_eq!((both.without(&other), both.total()), (one.clone(), 6));
        assert_eq!(both.since(&one), Some(other.clone()));
        assert_eq!(one.since(&both), None, "counters only ever count up");
        let mut none = Histogram::default();
        none.merge(&one);
        assert_eq!((none, other.without(&other)), (one, Histogram::default()));
    }

    #[test]
    fn written_and_read_it_is_the_same() {
        let written = serde_json::to_string(&of([70, 5, 70])).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&written).unwrap(), of([5, 70, 70]));
        let disordered =
            serde_json::from_str::<Histogram>("[[700,4],[3,2],[700,5],[99999,1],[9,0]]").unwrap();
        assert_eq!(disordered, [(3, 2), (700, 9)].into_iter().collect());
    }

    #[test]
    fn dense_and_sparse_are_the_same() {
        let mut counts = vec![0; h2::BUCKETS];
        (counts[3], counts[700]) = (2, 9);
        let sparse: Histogram = [(700, 4), (3, 2), (700, 5), (9, 0), (5_000, 1)].into_iter().collect();
        assert_eq!(Histogram::from_dense(&counts), sparse);
        assert_eq!(sparse.total(), 11);
    }
}
