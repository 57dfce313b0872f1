//! redis-cli and redis-benchmark ask a Redis.

use std::{net::IpAddr, os::unix::fs::symlink, process::Command, thread, time::Duration};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::{Client, Scene, Server, find, wait_until};
use crate::{
    Test,
    controller::exit,
    lab::{Cgroup, OUTSIDE, OUTSIDE_V6},
    tests,
};

pub fn tests() -> Vec<Test> {
    tests![
        REDIS on one kernel: redis_loss_shows_in_the_slowest_answers, redis_partition_stalls_and_goes_on;
        REDIS_DESTROY on one kernel: redis_reset_ends_a_client;
        REDIS_HOLD on one kernel: redis_delay_shows_in_every_answer
    ]
}

const ADDRESSES: [IpAddr; 2] = [OUTSIDE, OUTSIDE_V6];
/// The server by the name under which Debian's redis-tools have it: what it is depends on what it is called.
const PROGRAM: &str = "redis-check-rdb";
/// TCP sends again after so long, or a little more (include/net/tcp.h, `TCP_RTO_MIN`, 6.18).
const RTO_MIN_MS: f64 = 200.0;

/// A Redis that keeps nothing.
struct Store {
    scene: Scene,
    _folder: TempDir,
    _redis: Server,
}

/// What redis-benchmark says of its answers.
#[derive(Clone, Copy, Debug)]
struct Answers {
    p50_ms: f64,
    max_ms: f64,
}

impl Store {
    fn new() -> anyhow::Result<Self> {
        let (scene, folder) = (Scene::new()?, TempDir::new()?);
        let program = folder.path().join("redis-server");
        symlink(find(PROGRAM)?, &program)?;
        let mut redis = Command::new(&program);
        redis.args(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
        redis.args(["--bind", "0.0.0.0", "::", "--dir"]).arg(folder.path());
        let answers = || Ok(ask(&scene, &scene.neighbours, OUTSIDE, &["PING"])? == "PONG");
        let redis = scene.serve(redis)?.answers(answers)?;
        Ok(Self { scene, _folder: folder, _redis: redis })
    }

    /// Many short questions over four connections.
    fn benchmark(&self, cgroup: &Cgroup, address: IpAddr, questions: u32) -> anyhow::Result<Answers> {
        let (address, questions) = (address.to_string(), questions.to_string());
        let words =
            ["redis-benchmark", "-h", &address, "-n", &questions, "-c", "4", "-t", "ping_mbulk", "--csv"];
        let done = self.scene.client(cgroup, &words)?.done()?;
        let text = || format!("{}{}", done.output, done.said);
        ensure!(done.code == Some(0), "redis-benchmark ended with {:?}: {}", done.code, text());
        let mut lines = done.output.lines();
        let (names, values) = (lines.next().with_context(text)?, lines.next().with_context(text)?);
        let value = |name: &str| -> anyhow::Result<f64> {
            let mut both = names.split(',').zip(values.split(','));
            let (_, value) = both.find(|(known, _)| known.trim_matches('"') == name).with_context(text)?;
            Ok(value.trim_matches('"').parse()?)
        };
        Ok(Answers { p50_ms: value("p50_latency_ms")?, max_ms: value("max_latency_ms")? })
    }

    /// Answers are quick, whoever asks.
    fn is_quick(&self, cgroup: &Cgroup, when: &str) -> anyhow::Result<()> {
        // A busy machine may be late once.
        let mut last = None;
        for _ in 0..3 {
            let answers = self.benchmark(cgroup, OUTSIDE, 400)?;
            if answers.max_ms < RTO_MIN_MS {
                return Ok(());
            }
            last = Some(answers);
        }
        anyhow::bail!("{when}: answers are late: {last:?}")
    }
}

fn ask(scene: &Scene, cgroup: &Cgroup, address: IpAddr, words: &[&str]) -> anyhow::Result<String> {
    let address = address.to_string();
    let done = scene.client(cgroup, &[&["redis-cli", "-h", &address][..], words].concat())?.done()?;
    Ok(done.output.trim().to_owned())
}

/// A few of some thousand answers have to wait until TCP sends again; most do not.
fn redis_loss_shows_in_the_slowest_answers() -> anyhow::Result<()> {
    let store = Store::new()?;
    store.is_quick(&store.scene.cgroup, "before")?;
    let kchaos =
        store.scene.inject("loss --percent 100 --when 200+300 --max 12 --connections established")?;
    for address in ADDRESSES {
        let Answers { p50_ms, max_ms } = store.benchmark(&store.scene.cgroup, address, 2_000)?;
        let seldom = max_ms >= RTO_MIN_MS && p50_ms < RTO_MIN_MS / 2.0;
        ensure!(seldom, "{address}: half in {p50_ms} ms, the slowest in {max_ms} ms");
    }
    store.is_quick(&store.scene.neighbours, "a neighbour, during")?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("injected")? > 0, "{}", ended.output);
    store.is_quick(&store.scene.cgroup, "after")
}

fn redis_delay_shows_in_every_answer() -> anyhow::Result<()> {
    const BY_MS: f64 = 150.0;
    let store = Store::new()?;
    let quick = |when: &str| store.is_quick(&store.scene.cgroup, when);
    quick("before")?;
    let kchaos = store.scene.inject(&format!("delay --by {BY_MS}ms"))?;
    for address in ADDRESSES {
        let Answers { p50_ms, .. } = store.benchmark(&store.scene.cgroup, address, 24)?;
        ensure!((BY_MS..1.5 * BY_MS).contains(&p50_ms), "{address}: half in {p50_ms} ms");
    }
    store.is_quick(&store.scene.neighbours, "a neighbour, during")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    quick("after")
}

/// Counts over one connection, a step each 20 ms, until it is stopped.
fn count(store: &Store, cgroup: &Cgroup, address: IpAddr, key: &str) -> anyhow::Result<Client> {
    let address = address.to_string();
    store.scene.client(cgroup, &["redis-cli", "-h", &address, "-r", "1000000", "-i", "0.02", "INCR", key])
}

fn counted(store: &Store, key: &str) -> anyhow::Result<u64> {
    let text = ask(&store.scene, &store.scene.neighbours, OUTSIDE, &["GET", key])?;
    Ok(text.parse().unwrap_or(0))
}

/// Waits until it has counted on from there.
fn counts_on(store: &Store, key: &str, from: u64) -> anyhow::Result<()> {
    wait_until("it counts", || Ok(counted(store, key)? > from + 5))
}

/// Each step was answered once, in order; says how many.
fn steps(output: &str) -> anyhow::Result<u64> {
    let lines: Vec<u64> = output.lines().map_while(|line| line.parse().ok()).collect();
    let gap = lines.iter().zip(1..).find(|(step, number)| **step != *number);
    ensure!(gap.is_none(), "{gap:?}: {output}");
    Ok(lines.len() as u64)
}

/// It is told, and its next connection works. The neighbour's count goes on without a gap.
fn redis_reset_ends_a_client() -> anyhow::Result<()> {
    let store = Store::new()?;
    for (address, key) in ADDRESSES.into_iter().zip(["v4", "v6"]) {
        let neighbours = format!("neighbour-{key}");
        let hurt = count(&store, &store.scene.cgroup, address, key)?;
        let spared = count(&store, &store.scene.neighbours, address, &neighbours)?;
        counts_on(&store, key, 0)?;
        counts_on(&store, &neighbours, 0)?;
        let kchaos = store.scene.inject("reset")?;
        let hurt = hurt.done()?;
        let all = format!("{}{}", hurt.output, hurt.said);
        ensure!(
            hurt.code == Some(1) && all.contains("connection abort"),
            "{address}: {:?}, {all}",
            hurt.code
        );
        let (answered, step) = (steps(&hurt.output)?, counted(&store, key)?);
        ensure!((answered..=answered + 1).contains(&step), "{address}: {answered} answers of {step} steps");
        let again = ask(&store.scene, &store.scene.cgroup, address, &["INCR", key])?;
        ensure!(again == (step + 1).to_string(), "{address}: after {step} comes {again}");
        counts_on(&store, &neighbours, counted(&store, &neighbours)?)?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        ensure!(ended.outcome("injected")? == 1, "{}", ended.output);
        steps(&spared.stop()?.output).context("the neighbour's")?;
    }
    Ok(())
}

/// What has to wait is answered in the end, once each.
fn redis_partition_stalls_and_goes_on() -> anyhow::Result<()> {
    const WHILE: Duration = Duration::from_millis(700);
    let store = Store::new()?;
    for (address, key) in ADDRESSES.into_iter().zip(["v4", "v6"]) {
        let client = count(&store, &store.scene.cgroup, address, key)?;
        counts_on(&store, key, 0)?;
        let kchaos = store.scene.inject("partition --direction egress")?;
        let before = counted(&store, key)?;
        thread::sleep(WHILE);
        let stalled = counted(&store, key)?;
        kchaos.interrupt()?.ensure_code(exit::OK)?;
        ensure!(stalled == before, "it counted on from {before} to {stalled}");
        counts_on(&store, key, stalled)?;
        ensure!(steps(&client.stop()?.output)? >= stalled, "an answer is missing");
    }
    Ok(())
}
