//! A store that appends what it does to a file: what it answers while the disk is full.

use std::{fs::create_dir_all, os::unix::fs::symlink, path::PathBuf, process::Command};

use anyhow::{Context, ensure};

use super::{Scene, ensure_complains, ensure_logged, ensure_says, shown};
use crate::{
    Test,
    clients::{Done, Server, find, wait_until},
    lab::Cgroup,
    tests,
};

pub fn tests() -> Vec<Test> {
    tests![
        REDIS_FILES on one kernel: redis_refuses_writes_while_the_disk_is_full,
            redis_that_syncs_always_ends_when_the_disk_is_full
    ]
}

/// The server by the name under which Debian's redis-tools have it: what it is depends on what it is called.
const PROGRAM: &str = "redis-check-rdb";

/// A Redis that keeps what it is told.
struct Store<'a> {
    scene: &'a Scene,
    cgroup: &'a Cgroup,
    /// Of its data, its log and its socket.
    name: &'static str,
    /// How often it syncs.
    fsync: &'static str,
}

impl Store<'_> {
    fn start(&self) -> anyhow::Result<Server> {
        let (data, program) = (data(self.scene).join(self.name), self.file("redis-server"));
        create_dir_all(&data)?;
        if !program.exists() {
            symlink(find(PROGRAM)?, &program)?;
        }
        let mut redis = Command::new(program);
        redis.args(["--port", "0", "--unixsocket"]).arg(self.file("socket"));
        redis.args(["--save", "", "--appendonly", "yes", "--appendfsync", self.fsync]);
        redis.arg("--dir").arg(data).arg("--logfile").arg(self.file("log"));
        let answers = || Ok(self.tell(&["PING"])?.output.trim() == "PONG");
        self.scene.serve(self.cgroup, redis)?.answers(answers)
    }

    fn file(&self, what: &str) -> PathBuf {
        self.scene.folder.path().join(format!("{}-{what}", self.name))
    }

    /// What somebody beside is answered.
    fn tell(&self, words: &[&str]) -> anyhow::Result<Done> {
        let socket = self.file("socket");
        let socket = socket.to_str().context("a socket's name")?;
        self.scene.ask(&self.scene.beside, &[&["redis-cli", "-s", socket][..], words].concat(), "")
    }

    fn says(&self, words: &[&str], text: &str, when: &str) -> anyhow::Result<()> {
        ensure_says(&self.tell(words)?, text, when)
    }
}

/// Where all of them have their data, and nothing else.
fn data(scene: &Scene) -> PathBuf {
    scene.folder.path().join("data")
}

/// Who is hurt and who is not, both with data below the same folder.
fn two<'a>(scene: &'a Scene, fsync: &'static str) -> [Store<'a>; 2] {
    let store = |name, cgroup| Store { scene, cgroup, name, fsync };
    [store("hurt", &scene.cgroup), store("spared", &scene.beside)]
}

/// What it answers to what it refuses.
const MISCONF: &str = "MISCONF Errors writing to the AOF file: No space left on device";

/// It says yes to what comes before it has noticed, and to no writes after that. Reads go on. When there is room again it
/// notices by itself, and nothing that it said yes to is lost.
fn redis_refuses_writes_while_the_disk_is_full() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let [hurt, spared] = two(&scene, "everysec");
    let (server, _spared) = (hurt.start()?, spared.start()?);
    hurt.says(&["SET", "before", "1"], "OK", "before")?;
    let fault = scene.inject(&format!("disk --is full --paths {}/", data(&scene).display()))?;
    hurt.says(&["SET", "first", "1"], "OK", "during, the first")?;
    wait_until("it refuses writes", || Ok(hurt.tell(&["SET", "later", "1"])?.output.contains("MISCONF")))?;
    for refused in [&["SET", "later", "1"][..], &["DEL", "before"], &["PING"]] {
        ensure_complains(&hurt.tell(refused)?, &[MISCONF])?;
    }
    hurt.says(&["GET", "before"], "1", "during")?;
    spared.says(&["SET", "beside", "1"], "OK", "beside, during")?;
    fault.end()?;
    wait_until("it takes writes again", || Ok(hurt.tell(&["SET", "after", "1"])?.output.trim() == "OK"))?;
    let logged = ["Error writing to the AOF file: No space left on device", "AOF write error looks solved"];
    ensure_logged("redis", &hurt.file("log"), &logged)?;
    drop(server); // killed
    let _server = hurt.start()?;
    for (key, value) in [("before", "1"), ("first", "1"), ("after", "1")] {
        hurt.says(&["GET", key], value, "killed and started again")?;
    }
    Ok(())
}

/// One that promises to have synced before it answers cannot say yes: it ends. Nothing is lost that it said yes to.
fn redis_that_syncs_always_ends_when_the_disk_is_full() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let [hurt, spared] = two(&scene, "always");
    let (server, _spared) = (hurt.start()?, spared.start()?);
    hurt.says(&["SET", "before", "1"], "OK", "before")?;
    let write = "errno --syscalls write --error ENOSPC";
    let fault = scene.inject(&format!("{write} --paths {}/", data(&scene).display()))?;
    let lost = hurt.tell(&["SET", "lost", "1"])?;
    ensure!(lost.code != Some(0) && !lost.output.contains("OK"), "it said yes: {}", shown(&lost));
    let status = server.ended()?;
    println!("redis-server: {status}");
    ensure!(status.code() == Some(1), "{status}");
    spared.says(&["SET", "beside", "1"], "OK", "beside, during")?;
    fault.end()?;
    let logged = ["Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting"];
    ensure_logged("redis", &hurt.file("log"), &logged)?;
    let _server = hurt.start()?;
    hurt.says(&["GET", "before"], "1", "after")?;
    hurt.says(&["GET", "lost"], "", "after")?;
    hurt.says(&["SET", "after", "1"], "OK", "after")
}
