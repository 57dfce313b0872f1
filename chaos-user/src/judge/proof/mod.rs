//! The judge on worlds whose truth is known, two thousand runs each, and on what others judged wrongly. Seeds are fixed, so
//! that every number is the same on every run, and docs/judge.md has them. A share of 5 % is known to ±0.5 % (one standard
//! error), one of 90 % to ±0.7 %.

mod corpus;
mod guards;
mod holds;
mod kayenta;
mod noise;
mod pulses;
mod table;
mod targets;

const RUNS: u64 = 2_000;

/// In which share of the runs, in percent, each of these is so. On as many threads as there are processors.
fn share_of_runs(of_run: impl Fn(u64) -> Vec<bool> + Sync) -> Vec<f64> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let count = |thread: u64| {
        let mut counts: Vec<u32> = vec![];
        for run in (thread..RUNS).step_by(threads as usize) {
            let seen = of_run(run);
            counts.resize(seen.len(), 0);
            counts.iter_mut().zip(seen).for_each(|(count, seen)| *count += u32::from(seen));
        }
        counts
    };
    let all: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || count(thread))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a run panicked")).collect()
    });
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let sum = |column: usize| all.iter().filter_map(|counts| counts.get(column)).sum::<u32>();
    (0..columns).map(|column| 100.0 * f64::from(sum(column)) / RUNS as f64).collect()
}
