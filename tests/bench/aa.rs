//! What the judge says of real programs to which nothing is done: two of Redis and two of nginx under load that wanders,
//! with everything attached and armed dry. Then what being attached costs a Redis that has all it can do.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use kchaos::target::Netns;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    attached, judged,
    lab::{Cgroup, within},
    toy::{
        Networks, address,
        load::{Asks, Client, Load, SEED, Wander},
    },
};

const HTTP: u16 = 8080;
pub const REDIS: u16 = 6379;
/// The server by the name under which Debian's redis-tools have it: what it is depends on what it is called.
const REDIS_PROGRAM: &str = "redis-check-rdb";
/// Requests to each server in an ordinary second.
const PER_S: f64 = 300.0;
/// How long nothing is done to them. `KCHAOS_BENCH_AA_S` says otherwise, 0 that this part is left out.
const QUIET_S: u64 = 420;

/// The servers, in both groups.
pub struct Servers {
    pub networks: Networks,
    pub cgroups: [Cgroup; 2],
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

pub fn at(side: usize, port: u16) -> SocketAddr {
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
    attached::bench(&servers)
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
