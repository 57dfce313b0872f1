//! What the judge says of real programs to which nothing is done: two of Redis and two of nginx under load that wanders,
//! with everything attached and armed dry. Then what being attached costs a Redis that has all it can do.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use chaos_common::random;
use kchaos::{judge::quantile::t, target::Netns};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    judged,
    lab::{Cgroup, within},
    toy::{
        Networks, address,
        load::{Asks, Client, Load, SEED, Wander},
    },
};

const HTTP: u16 = 8080;
const REDIS: u16 = 6379;
/// The server by the name under which Debian's redis-tools have it: what it is depends on what it is called.
const REDIS_PROGRAM: &str = "redis-check-rdb";
/// Requests to each server in an ordinary second.
const PER_S: f64 = 300.0;
/// How long nothing is done to them. `KCHAOS_BENCH_AA_S` says otherwise, 0 that this part is left out.
const QUIET_S: u64 = 420;
/// Of blocks with kchaos and blocks without.
const PAIRS: usize = 16;
const BLOCK: Duration = Duration::from_secs(3);
/// What is left out at a block's start, which comes after kchaos has loaded its programs, or ended: both take as much of the
/// processors as there is.
const SETTLE: Duration = Duration::from_secs(1);
/// Enough for a Redis that has one processor; more would only wait for each other.
const CONNECTIONS: usize = 2;

/// The servers, in both groups.
struct Servers {
    networks: Networks,
    cgroups: [Cgroup; 2],
    folder: TempDir,
    _servers: Vec<Server>,
}

/// Ended when this goes.
struct Server(Child);

impl Server {
    fn start(netns: &Netns, cgroup: &Cgroup, command: &Command) -> anyhow::Result<Self> {
        let mut command = within(&cgroup.dir, command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(netns.run(|| command.spawn())?.with_context(|| format!("{command:?}"))?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Servers {
    fn start() -> anyhow::Result<Self> {
        let (networks, cgroups, folder) =
            (Networks::new()?, [Cgroup::new()?, Cgroup::new()?], TempDir::new()?);
        let mut servers = vec![];
        for (side, cgroup) in cgroups.iter().enumerate() {
            let own = folder.path().join(side.to_string());
            fs::create_dir(&own)?;
            for (program, port) in [(redis(&own)?, REDIS), (nginx(&own)?, HTTP)] {
                servers.push(Server::start(&networks.inside[side], cgroup, &program)?);
                networks.wait_for(side, port)?;
            }
        }
        Ok(Self { networks, cgroups, folder, _servers: servers })
    }

    fn clients(&self) -> Load {
        let wander = Wander::new(PER_S, SEED);
        let each = [(REDIS, Asks::Redis), (HTTP, Asks::Http { retries: 0 })];
        let client =
            |side| each.map(|(port, asks)| Client { to: at(side, port), asks, wander: wander.clone() });
        Load::start(&self.networks.outside, [client(0), client(1)].concat())
    }
}

fn at(side: usize, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address(side)), port)
}

/// One that writes down what it is told.
fn redis(folder: &Path) -> anyhow::Result<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(REDIS_PROGRAM)).find(|file| file.is_file());
    let program = folder.join("redis-server");
    symlink(found.with_context(|| format!("no {REDIS_PROGRAM}"))?, &program)?;
    let mut redis = Command::new(program);
    redis.args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--protected-mode", "no"]);
    redis.args(["--auto-aof-rewrite-percentage", "0", "--bind", "0.0.0.0", "--dir"]).arg(folder);
    Ok(redis)
}

/// One with a page. Everything that it writes is in its folder.
fn nginx(folder: &Path) -> anyhow::Result<Command> {
    let page: PathBuf = folder.join("www");
    fs::create_dir(&page)?;
    fs::write(page.join("index.html"), "hello\n")?;
    let own = folder.display();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {own}/{what}; "))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {own}/pid; events {{}}\n\
         http {{ access_log {own}/access.log; keepalive_requests 1000000000; {places}\n\
         server {{ listen {HTTP}; root {own}/www; }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), text)?;
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]);
    Ok(nginx)
}

/// Both parts.
pub fn bench() -> anyhow::Result<()> {
    let servers = Servers::start()?;
    nothing_is_done(&servers)?;
    being_attached(&servers)
}

const GATES: &str = "{ metric: net.rx_packets, within: 10% }, { metric: syscalls.per_packet, within: 5% }, \
     { metric: cpu.per_packet, increase: 25% }, { metric: 'get.p(>2ms)', increase: 0.5pp }, \
     { metric: get.p50, increase: 15% }, { metric: get.p99, increase: 25% }, \
     { metric: get.error_ratio, increase: 0.5pp }, { metric: 'latency.file_write.p(>1ms)', increase: 0.5pp }, \
     { metric: latency.net_send.p50, increase: 15% }, { metric: syscall.unexpected_error_ratio, increase: 0.5pp }";

fn spec(servers: &Servers) -> String {
    let [control, experiment] = servers.cgroups.each_ref().map(Cgroup::target);
    format!(
        "version: 1\nname: aa\ngroups: {{ control: '{control}', experiment: '{experiment}' }}\n\
         steady_state:\n  probes: [{{ id: get, http: 'http://{{target}}:{HTTP}/', rate: 100/s, timeout: 1s }}]\n  \
         gates: [{GATES}]\n\
         faults: [{{ loss: {{ percent: 1%, protocol: tcp, allow_defaults: false }} }}]\n\
         run: {{ design: pulse, pulses: 6, block: 4s, settle: 1s, baseline: 30s, seed: 7 }}\n"
    )
}

fn nothing_is_done(servers: &Servers) -> anyhow::Result<()> {
    let seconds =
        std::env::var("KCHAOS_BENCH_AA_S").ok().and_then(|text| text.parse().ok()).unwrap_or(QUIET_S);
    let [spec_path, out] = ["spec.yaml", "baseline.json"].map(|name| servers.folder.path().join(name));
    if seconds == 0 {
        return Ok(());
    }
    fs::write(&spec_path, spec(servers))?;
    let _clients = servers.clients();
    thread::sleep(Duration::from_secs(5));
    let [spec_path, out] = [&spec_path, &out].map(|path| path.display().to_string());
    let (lasting, longest) = (format!("{seconds}s"), Duration::from_secs(seconds + 60));
    let words = ["calibrate", &spec_path, "--for", &lasting, "--out", &out];
    let (code, said) = judged::run(&servers.networks.outside, &words, longest)?;
    ensure!(code == Some(0), "kchaos calibrate ended with {code:?}: {said}");
    let known: Value = serde_json::from_slice(&fs::read(&out)?)?;
    println!(
        "nothing is done to redis and nginx for {seconds} s: pseudo-experiments of 6 pairs of blocks of 4 s"
    );
    println!(
        "  {:<34} {:>5} {:>5} {:>12} {:>11} {:>12} {:>10}",
        "gate", "runs", "FAIL", "\"different\"", "PASS", "half-width", "of margin"
    );
    for gate in known["gates"].as_array().context("no gates")? {
        println!("  {}", line(gate));
    }
    Ok(())
}

fn line(gate: &Value) -> String {
    let count = |name: &str| gate[name].as_u64().unwrap_or_default();
    let runs = count("runs");
    let share = |name: &str| format!("{:.1} %", 100.0 * count(name) as f64 / runs.max(1) as f64);
    let power = |name: &str| gate["power"][name].as_f64();
    format!(
        "{:<34} {:>5} {:>5} {:>12} {:>11} {:>12} {:>10}",
        gate["metric"].as_str().unwrap_or_default(),
        runs,
        count("fail"),
        share("different"),
        share("pass"),
        power("half_width").map_or_else(|| "-".into(), |half| format!("{:.2} %", half * 100.0)),
        power("of_margin").map_or_else(|| "-".into(), |share| format!("{:.0} %", share * 100.0)),
    )
}

/// What is attached meanwhile.
struct Attached {
    name: &'static str,
    /// Arguments of `kchaos inject`.
    words: &'static [&'static str],
    /// Which side it is for.
    side: usize,
}

const DRY_LOSS: &[&str] = &["loss", "--percent", "100", "--allow-defaults", "false", "--dry-run"];
const MEASURED: usize = 1;
const OTHER: usize = 0;

/// The second tells what there is beside the judging: kchaos runs, and its program is at a device of somebody else.
const ATTACHED: [Attached; 4] = [
    Attached { name: "loss, dry: each packet is judged", words: DRY_LOSS, side: MEASURED },
    Attached { name: "the same for the other Redis: none is", words: DRY_LOSS, side: OTHER },
    Attached {
        name: "loss of 0 %: each packet is judged",
        words: &["loss", "--percent", "0"],
        side: MEASURED,
    },
    Attached {
        name: "errno on write, dry: each write is judged",
        words: &["errno", "--syscalls", "write", "--error", "EIO", "--dry-run"],
        side: MEASURED,
    },
];

/// Pairs of blocks in an order that is drawn, attached and not.
fn being_attached(servers: &Servers) -> anyhow::Result<()> {
    let client = Client { to: at(MEASURED, REDIS), asks: Asks::Redis, wander: Wander::new(1.0, SEED) };
    let load = Load::saturating(&servers.networks.outside, vec![client; CONNECTIONS]);
    thread::sleep(Duration::from_secs(2));
    println!(
        "a Redis that has all it can do, attached against detached ({PAIRS} pairs of {} s)",
        BLOCK.as_secs()
    );
    for (stream, Attached { name, words, side }) in (0..).zip(ATTACHED) {
        let target = servers.cgroups[side].target();
        let words = [&["inject"][..], words, &["--on", &target, "--for", "90s", "--json"]].concat();
        if let Err(error) = judged::Running::inject(&servers.networks.outside, &words) {
            println!("  {name:<44} not on this kernel: {error}");
            continue;
        }
        let mut pairs = vec![];
        for pair in 0..PAIRS {
            let attached_first = random::draw(SEED, stream, pair as u64) & 1 == 0;
            let block = |attached: bool| -> anyhow::Result<Done> {
                let inject = || judged::Running::inject(&servers.networks.outside, &words);
                let _kchaos = attached.then(inject).transpose()?;
                Done::of(&load, &servers.cgroups[MEASURED])
            };
            let [first, second] = [block(attached_first)?, block(!attached_first)?];
            pairs.push(if attached_first { [first, second] } else { [second, first] });
        }
        let rates: Vec<f64> = pairs.iter().map(|[_, detached]| detached.per_s).collect();
        println!("  {name:<44} {:.0} answers/s detached", super::median(&rates));
        for (what, of) in [
            ("answers per second", (|done| done.per_s) as fn(&Done) -> f64),
            ("CPU time per answer", |done| done.cpu_us),
        ] {
            let ratios: Vec<f64> =
                pairs.iter().map(|[attached, detached]| (of(attached) / of(detached)).ln()).collect();
            let [ratio, low, high] = interval(&ratios).map(|log| log.exp_m1() * 100.0);
            let shown =
                if low > -2.0 && high < 2.0 { "within ±2 %" } else { "not shown to be within ±2 %" };
            println!("    {what:<20} {ratio:+.2} % [{low:+.2}, {high:+.2}] attached: {shown}");
        }
    }
    Ok(())
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
