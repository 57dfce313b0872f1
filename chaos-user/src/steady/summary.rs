//! What one group did in a tick or in many: a sum, so that it can be merged, and taken out again.

use super::histogram::Histogram;

/// Sums of what a metric is made of. Statistics are taken of the sums, never averaged over ticks: a mean of ratios is
/// biased by ticks with little in them, and a mean of percentiles is no percentile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// What is counted; of a gauge its readings added up, of a tail what is beyond the limit.
    pub count: f64,
    /// What that is taken of: seconds, the denominator, the number of readings, all durations.
    pub of: f64,
    /// How many separate things happened: for bytes the packets they came in, for all else the count.
    pub events: u64,
    /// Of a quantile the durations.
    pub latency: Histogram,
}

impl Summary {
    /// Something counted in some time, or out of something else counted.
    pub fn count(count: f64, of: f64, events: u64) -> Self {
        Self { count, of, events, latency: Histogram::default() }
    }

    /// Durations, for a quantile of them.
    pub fn latency(latency: Histogram) -> Self {
        let total = latency.total();
        Self { count: total as f64, of: total as f64, events: total, latency }
    }

    /// How many of the durations were longer than `above_ns`.
    pub fn tail(latency: &Histogram, above_ns: u64) -> Self {
        let above = latency.above(above_ns as f64);
        Self::count(above, latency.total() as f64, above.round() as u64)
    }

    /// One reading of something that has a level.
    pub fn level(value: f64) -> Self {
        Self::count(value, 1.0, 1)
    }

    /// Adds what happened at another time or in another member of the group.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.of += other.of;
        self.events = self.events.saturating_add(other.events);
        self.latency.merge(&other.latency);
    }

    /// Less a part of it.
    pub fn without(&self, part: &Self) -> Self {
        Self {
            count: (self.count - part.count).max(0.0),
            of: (self.of - part.of).max(0.0),
            events: self.events.saturating_sub(part.events),
            latency: self.latency.without(&part.latency),
        }
    }
}

/// One metric in both groups at the same time. Where either could not be read there is no point: missing is not zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The control group.
    pub control: Summary,
    /// The experimental group.
    pub experiment: Summary,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Point {
    /// All of them together.
    pub fn sum<'a>(points: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for point in points {
            sum.control.merge(&point.control);
            sum.experiment.merge(&point.experiment);
            sum.seconds += point.seconds;
        }
        sum
    }

    /// Less a part of it.
    pub fn without(&self, part: &Self) -> Self {
        Self {
            control: self.control.without(&part.control),
            experiment: self.experiment.without(&part.experiment),
            seconds: (self.seconds - part.seconds).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(count: f64) -> Point {
        let latency: Histogram = [(count as u32, 2)].into_iter().collect();
        let experiment = Summary { latency, ..Summary::count(count, 2.0, count as u64) };
        Point { control: Summary::level(7.0), experiment, seconds: 1.0 }
    }

    #[test]
    fn what_is_put_together_can_be_taken_apart() {
        let all = Point::sum(&[point(3.0), point(5.0), point(90.0)]);
        assert_eq!((all.control.count, all.control.of, all.seconds), (21.0, 3.0, 3.0));
        assert_eq!((all.experiment.count, all.experiment.latency.total()), (98.0, 6));
        assert_eq!(all.without(&point(90.0)), Point::sum(&[point(3.0), point(5.0)]));
    }

    #[test]
    fn a_tail_is_a_share_of_all_durations() {
        let mut latency = Histogram::default();
        [1_000, 1_000, 1_000, 50_000].into_iter().for_each(|value| latency.record(value));
        assert_eq!(Summary::tail(&latency, 10_000), Summary::count(1.0, 4.0, 1));
        assert_eq!(Summary::latency(latency).of, 4.0);
    }
}
