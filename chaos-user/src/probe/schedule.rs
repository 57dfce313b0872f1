//! An open loop: request `k` is due at `start + k · every`, whatever became of those before. A target that stalls is asked
//! on, and each request that waits for it counts from when it was due. A loop that waited for answers would ask a stalled
//! target once, and count one slow answer for all that its clients would have suffered ("coordinated omission").

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    Answer,
    alarm::Alarm,
    tally::{End, Tally},
};

/// When requests are due, and when they are given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) start: Instant,
    pub(super) every: Duration,
    pub(super) timeout: Duration,
}

impl Pace {
    fn due(&self, k: u64) -> Instant {
        let every_ns = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        self.start + Duration::from_nanos(every_ns.saturating_mul(k))
    }
}

/// Asks all targets for one probe, until it is dropped; then no request goes on.
pub(super) async fn drive<F>(pace: Pace, tallies: Vec<Arc<Tally>>, mut alarm: Alarm, ask: impl Fn(usize) -> F)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    for k in 0.. {
        let due = pace.due(k);
        alarm.until(due).await;
        while under_way.try_join_next().is_some() {}
        for target in in_turn(k, tallies.len()) {
            let tally = tallies[target].clone();
            if tally.begin() {
                under_way.spawn(one(pace, due, tally, ask(target)));
            }
        }
    }
}

/// Who is asked first is asked a few microseconds earlier: each in its turn.
fn in_turn(k: u64, targets: usize) -> impl Iterator<Item = usize> {
    let first = k.checked_rem(targets as u64).unwrap_or(0) as usize;
    (first..targets).chain(0..first)
}

async fn one(pace: Pace, due: Instant, tally: Arc<Tally>, ask: impl Future<Output = Answer>) {
    let answer = timeout_at(due + pace.timeout, ask).await.ok();
    let now = Instant::now();
    tally.end(End { latency: now - due, at: now - pace.start, answer });
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::steady::{histogram::WIDTH, probe::ProbeReading};

    const MS: Duration = Duration::from_millis(1);

    /// What is seen in `seconds` of a target that answers at once, but for a stall.
    async fn seen(
        targets: usize,
        seconds: u64,
        stall: std::ops::Range<u64>,
        most: usize,
    ) -> Vec<ProbeReading> {
        let start = Instant::now();
        let pace = Pace { start, every: 10 * MS, timeout: 2000 * MS };
        let tallies: Vec<_> = (0..targets).map(|_| Arc::new(Tally::new(pace.timeout, most))).collect();
        let ask = move |_| async move {
            let second = start.elapsed().as_secs();
            if stall.start <= second && second < stall.end {
                tokio::time::sleep_until(start + Duration::from_secs(stall.end)).await;
            }
            sleep(MS).await;
            Ok(Default::default())
        };
        let driver = tokio::spawn(drive(pace, tallies.clone(), Alarm::Coarse, ask));
        tokio::time::sleep_until(start + Duration::from_secs(seconds) + 5 * MS).await;
        driver.abort();
        tallies.iter().map(|tally| tally.reading()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_due_at_times_fixed_beforehand() {
        let readings = seen(2, 3, 0..0, 300).await;
        assert_eq!(readings[0], readings[1]);
        assert_eq!((readings[0].due, readings[0].answered, readings[0].failed), (301, 301, 0));
        let slowest = readings[0].latency.quantile(1.0).unwrap();
        assert!((slowest / 1e6 - 1.0).abs() < 2.0 * WIDTH, "{slowest}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_shows_in_every_request_that_was_due_meanwhile() {
        let reading = &seen(1, 10, 4..5, 300).await[0];
        assert_eq!((reading.due, reading.answered), (1001, 1001), "it was asked on");
        // 100 of 1001 were due within the second of the stall; half of them waited for longer than half of it.
        for (limit_ms, waited) in [(5, 100.0), (500, 50.0), (900, 10.0)] {
            let above = reading.latency.above(f64::from(limit_ms) * 1e6);
            assert!((above - waited).abs() < 4.0, "{above} waited for more than {limit_ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_longer_than_its_timeout_has_failed_with_it() {
        let reading = &seen(1, 10, 2..7, 300).await[0];
        assert_eq!(reading.due, 1001);
        assert_eq!(
            reading.failed, 301,
            "those due in the first three seconds of the five, and the one at their end"
        );
        let above = reading.latency.above(1.95e9);
        assert!((300.0..320.0).contains(&above), "{above}");
        assert!(reading.latency.quantile(1.0).unwrap() < 2e9 * (1.0 + 2.0 * WIDTH));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_under_way_than_agreed() {
        let reading = &seen(1, 3, 2..60, 20).await[0];
        assert_eq!((reading.due, reading.answered), (301, 200));
        assert_eq!(reading.failed, 301 - 200 - 20, "all but the 20 that wait");
    }

    #[test]
    fn each_is_asked_first_in_its_turn() {
        let order = |k| in_turn(k, 3).collect::<Vec<_>>();
        assert_eq!([order(0), order(1), order(5)], [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(in_turn(4, 0).count(), 0);
    }
}
