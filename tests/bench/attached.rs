//! What being attached costs a Redis that has all it can do.

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use chaos_common::random;
use kchaos::{
    fault::{
        plan::{Options, Plan, PlanError, plan},
        wanted::wanted,
    },
    judge::quantile::t,
    kernel::{Injection, Kernel, LiveInjection, LiveKernel},
    target,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    aa::{REDIS, Servers, at},
    lab::Cgroup,
    made,
    toy::load::{Asks, Client, Load, SEED, Wander},
};

/// Of blocks with programs attached and blocks without. `KCHAOS_BENCH_PAIRS` says otherwise.
const PAIRS: usize = 300;
/// Short, as a shared machine is faster or slower for seconds at a time: of blocks of a second those without anything attached
/// differ from one another by 10 %, of 50 ms by 5 %, and there are twenty times as many.
const BLOCK: Duration = Duration::from_millis(100);
/// What is left out at a block's start, which comes after programs were loaded, or ended.
const SETTLE: Duration = Duration::from_millis(40);
/// One processor is for the Redis that is measured, the other for all that is not: who shares one with whom is otherwise
/// another matter in each block.
const REDIS_CPU: usize = 1;
const OTHERS_CPU: usize = 0;
/// Enough for a Redis that has one processor; more would only wait for each other.
const CONNECTIONS: usize = 2;
/// No block takes so long.
const ARMED: Duration = Duration::from_secs(60);

/// What is attached meanwhile.
struct Attached {
    name: &'static str,
    fault: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    dry_run: bool,
    /// Which side it is for.
    side: usize,
}

const EVERYTHING: &[(&str, &str)] = &[("percent", "100%"), ("allow_defaults", "false")];
const MEASURED: usize = 1;
const OTHER: usize = 0;

/// A loss that hits nothing.
const fn nothing_lost(name: &'static str, parameters: &'static [(&'static str, &'static str)]) -> Attached {
    Attached { name, fault: "loss", parameters, dry_run: false, side: MEASURED }
}

/// The second tells what there is beside the judging: the program is at a device of somebody else.
const ATTACHED: [Attached; 6] = [
    Attached {
        name: "loss of everything, dry",
        fault: "loss",
        parameters: EVERYTHING,
        dry_run: true,
        side: MEASURED,
    },
    Attached {
        name: "the same for the other Redis",
        fault: "loss",
        parameters: EVERYTHING,
        dry_run: true,
        side: OTHER,
    },
    nothing_lost("loss of 0 %, nothing spared", &[("percent", "0%"), ("allow_defaults", "false")]),
    nothing_lost(
        "loss of 0 %, of one peer",
        &[("percent", "0%"), ("allow_defaults", "false"), ("peers", "10.0.0.0/8")],
    ),
    nothing_lost("loss of 0 %, by default", &[("percent", "0%")]),
    Attached {
        name: "errno on write, dry: each write is judged",
        fault: "errno",
        parameters: &[("syscalls", "write"), ("error", "EIO")],
        dry_run: true,
        side: MEASURED,
    },
];

/// Pairs of blocks in an order that is drawn, attached and not.
pub fn bench(servers: &Servers) -> anyhow::Result<()> {
    leave_the_disk_alone(servers)?;
    let threads = fs::read_to_string(servers.cgroups[MEASURED].dir.join("cgroup.threads"))?;
    for thread in threads.lines() {
        pin(Pid::from_raw(thread.parse()?), REDIS_CPU)?;
    }
    pin(Pid::from_raw(0), OTHERS_CPU)?;
    let client = Client { to: at(MEASURED, REDIS), asks: Asks::Redis, wander: Wander::new(1.0, SEED) };
    let load = Load::saturating(&servers.networks.outside, vec![client; CONNECTIONS]);
    thread::sleep(Duration::from_secs(2));
    let pairs = env::var("KCHAOS_BENCH_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(PAIRS);
    println!(
        "a Redis that has all it can do, attached against detached ({pairs} pairs of {} ms)",
        BLOCK.as_millis()
    );
    // Some of them: `KCHAOS_BENCH_ATTACHED=default`.
    let some = env::var("KCHAOS_BENCH_ATTACHED").unwrap_or_default();
    for (stream, attached) in (0..).zip(&ATTACHED).filter(|(_, attached)| attached.name.contains(&some)) {
        match attached.plan(&servers.cgroups[attached.side])? {
            Some(plan) => compare(attached, &plan, (stream, pairs), &load, servers)?,
            None => println!("  {:<44} not on this kernel", attached.name),
        }
    }
    Ok(())
}

impl Attached {
    /// `None` if this kernel cannot.
    fn plan(&self, cgroup: &Cgroup) -> anyhow::Result<Option<Plan>> {
        let faults = [made(self.fault, self.parameters)?];
        let options = Options { dry_run: self.dry_run, ..Options::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let scope = runtime.block_on(target::resolve(&[], &[cgroup.target().parse()?], &[]))?;
        let capabilities = LiveKernel::default().capabilities(&wanted(&faults, &options))?;
        match plan(&faults, &scope, &capabilities, &options) {
            Ok(plan) => Ok(Some(plan)),
            Err(PlanError::Unplannable(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn compare(
    attached: &Attached,
    plan: &Plan,
    (stream, count): (u32, usize),
    load: &Load,
    servers: &Servers,
) -> anyhow::Result<()> {
    let mut pairs = vec![];
    for pair in 0..count {
        let attached_first = random::draw(SEED, stream, pair as u64) & 1 == 0;
        let block = |attached: bool| -> anyhow::Result<Done> {
            let injection = attached.then(|| armed(plan)).transpose()?;
            let done = Done::of(load, &servers.cgroups[MEASURED])?;
            if let Some(injection) = injection {
                let rollback = injection.rollback();
                ensure!(rollback.is_complete(), "rollback incomplete: {rollback:?}");
            }
            Ok(done)
        };
        let [first, second] = [block(attached_first)?, block(!attached_first)?];
        pairs.push(if attached_first { [first, second] } else { [second, first] });
    }
    let rates: Vec<f64> = pairs.iter().map(|[_, detached]| detached.per_s).collect();
    println!("  {:<44} {:.0} answers/s detached", attached.name, super::median(&rates));
    for (what, of) in [
        ("answers per second", (|done| done.per_s) as fn(&Done) -> f64),
        ("CPU time per answer", |done| done.cpu_us),
    ] {
        let ratios: Vec<f64> =
            pairs.iter().map(|[attached, detached]| (of(attached) / of(detached)).ln()).collect();
        let [ratio, low, high] = interval(&ratios).map(|log| log.exp_m1() * 100.0);
        let shown = if low > -2.0 && high < 2.0 { "within ±2 %" } else { "not shown to be within ±2 %" };
        println!("    {what:<20} {ratio:+.2} % [{low:+.2}, {high:+.2}] attached: {shown}");
    }
    Ok(())
}

fn armed(plan: &Plan) -> anyhow::Result<LiveInjection> {
    let mut injection = LiveKernel::default().inject("bench", plan)?;
    injection.arm(ARMED)?;
    Ok(injection)
}

/// Has the Redis that is measured write nothing down any more.
fn leave_the_disk_alone(servers: &Servers) -> anyhow::Result<()> {
    let connect = || TcpStream::connect(at(MEASURED, REDIS));
    let mut redis = servers.networks.outside.run(connect)??;
    redis.write_all(b"CONFIG SET appendonly no\r\n")?;
    let mut answer = [0; 5];
    redis.read_exact(&mut answer)?;
    ensure!(&answer == b"+OK\r\n", "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Has a thread run on one processor; those that it starts later, too.
fn pin(thread: Pid, cpu: usize) -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(thread, &cpus).context("this needs two processors")
}

/// What came of a block.
struct Done {
    /// Answers in a second.
    per_s: f64,
    /// What each took of a processor, which a machine that does other things too leaves alone.
    cpu_us: f64,
}

impl Done {
    fn of(load: &Load, cgroup: &Cgroup) -> anyhow::Result<Self> {
        thread::sleep(SETTLE);
        let now = || anyhow::Ok((load.answered.load(Ordering::Relaxed) as f64, cpu_us(cgroup)?));
        let (begin, before) = (Instant::now(), now()?);
        thread::sleep(BLOCK);
        let after = now()?;
        let answers = after.0 - before.0;
        Ok(Self { per_s: answers / begin.elapsed().as_secs_f64(), cpu_us: (after.1 - before.1) / answers })
    }
}

fn cpu_us(cgroup: &Cgroup) -> anyhow::Result<f64> {
    let text = fs::read_to_string(cgroup.dir.join("cpu.stat"))?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    Ok(usage.context("no usage in cpu.stat")?.parse()?)
}

/// The mean and its 90 % interval.
fn interval(values: &[f64]) -> [f64; 3] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t(0.95, n - 1.0) * (variance / n).sqrt();
    [mean, mean - half, mean + half]
}
