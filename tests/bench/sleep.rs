//! What the fault `slow` delivers, beside nanosleep(2) of the same length: how late callers are awake and what of a
//! processor they use. And how soon they are awake when something dies.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::{
    BenchCgroup,
    echo::quantile,
    median,
    sleeper::{Process, Slow, Took, both},
};

/// Each with a kchaos of its own.
const ROUNDS: u32 = 3;
/// How long, by how many threads at once, how often in a round.
const CASES: [(Duration, u32, u32); 4] = [
    (Duration::from_millis(1), 1, 300),
    (Duration::from_millis(10), 1, 150),
    (Duration::from_millis(100), 1, 50),
    (Duration::from_millis(100), 100, 3),
];
/// What sleepers have before them when something dies.
const LONG: Duration = Duration::from_secs(2);
const DEATHS: usize = 5;

/// Runs all cases and prints them.
pub fn bench() -> anyhow::Result<()> {
    let cgroup = BenchCgroup::new("sleepy")?;
    let _resident = Process::resident(&cgroup)?;
    let open = both(&cgroup, 1, 200, Duration::ZERO)?.called;
    println!("openat without a fault {:.3} ms", late_ms(&open, Duration::ZERO, 0.5));
    println!("what sleep takes too long, and of the processor ({ROUNDS} rounds)");
    for (by, threads, times) in CASES {
        let (mut slept, mut called) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut slow = Slow::start(&cgroup, by)?;
            let both = both(&cgroup, threads, times, by)?;
            slow.interrupt()?;
            let early = early(&both.called, by);
            if early > 0 {
                let report = slow.report()?;
                println!("  not delayed {early}: {}, {}", report["outcomes"], report["delays"]["lost"]);
            }
            slept.extend(both.slept);
            called.extend(both.called);
        }
        let asked = format!("{by:?}, {threads} at once");
        println!("  {asked:<20} nanosleep {}   slow {}", late(&slept, by), late(&called, by));
    }
    println!("awake after, with {LONG:?} before them ({DEATHS} times)");
    for death in Death::ALL {
        let took = (0..DEATHS).map(|_| death.awake_after(&cgroup)).collect::<anyhow::Result<Vec<_>>>()?;
        let worst = took.iter().copied().fold(0.0, f64::max);
        println!("  {:<34} median {:>7.1} ms   worst {worst:>7.1} ms", death.name(), median(&took));
    }
    Ok(())
}

fn late_ms(took: &[Took], by: Duration, share: f64) -> f64 {
    let late: Vec<f64> = took.iter().map(|took| (took.elapsed_ns - by.as_nanos() as f64) / 1e6).collect();
    quantile(&late, share)
}

fn early(took: &[Took], by: Duration) -> usize {
    took.iter().filter(|took| took.elapsed_ns < by.as_nanos() as f64).count()
}

fn late(took: &[Took], by: Duration) -> String {
    let used: Vec<f64> = took.iter().map(|took| took.used_ns / 1e3).collect();
    let [middle, most] = [0.5, 0.99].map(|share| late_ms(took, by, share));
    format!("p50 {middle:>6.3} ms, p99 {most:>7.3} ms, CPU {:>5.0} µs", median(&used))
}

/// What happens while somebody sleeps.
#[derive(Clone, Copy)]
enum Death {
    Target,
    Daemon,
    Kchaos,
    Stopped,
    Interrupted,
}

impl Death {
    const ALL: [Self; 5] = [Self::Target, Self::Daemon, Self::Kchaos, Self::Stopped, Self::Interrupted];

    const fn name(self) -> &'static str {
        match self {
            Self::Target => "SIGKILL of the target",
            Self::Daemon => "SIGKILL of the daemon",
            Self::Kchaos => "SIGKILL of kchaos",
            Self::Stopped => "SIGSTOP of the daemon",
            Self::Interrupted => "SIGINT of kchaos",
        }
    }

    /// Milliseconds.
    fn awake_after(self, cgroup: &BenchCgroup) -> anyhow::Result<f64> {
        let mut slow = Slow::start(cgroup, LONG)?;
        let daemon = slow.daemon()?;
        let mut sleeper = Process::asleep(cgroup)?;
        let begin = Instant::now();
        match self {
            Self::Target => sleeper.signal(Signal::SIGKILL)?,
            Self::Daemon => kill(daemon, Signal::SIGKILL)?,
            Self::Kchaos => slow.kchaos.signal(Signal::SIGKILL)?,
            Self::Stopped => kill(daemon, Signal::SIGSTOP)?,
            Self::Interrupted => slow.kchaos.signal(Signal::SIGINT)?,
        }
        sleeper.ends()?;
        let awake_ms = begin.elapsed().as_secs_f64() * 1e3;
        match self {
            Self::Kchaos | Self::Interrupted => slow.kchaos.ends()?,
            Self::Target | Self::Daemon | Self::Stopped => slow.interrupt()?,
        }
        Ok(awake_ms)
    }
}
