//! Programs that people use, when their system calls fail: what they say, what they do, and what is left afterwards.
//! What they said is printed, as docs/gallery.md quotes it.

pub mod postgres;
mod redis;
mod sqlite;
mod web;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, ensure};
use kchaos::target::Netns;
use tempfile::TempDir;

use crate::{
    Test,
    clients::{Client, Done, Server},
    controller::{self, Running, exit},
    lab::{self, Cgroup},
    turn::at_calls,
    victim::Victim,
};

pub fn tests() -> Vec<Test> {
    [sqlite::tests(), redis::tests(), web::tests(), postgres::tests()].concat()
}

/// Who is hurt and who is not: two cgroups, in a network that nobody else is in, and a folder.
struct Scene {
    /// A target must have somebody in it; most of these programs come and go.
    _resident: Victim,
    netns: Netns,
    cgroup: Cgroup,
    beside: Cgroup,
    folder: TempDir,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let (netns, cgroup) = (Netns::create()?, Cgroup::new()?);
        lab::run_in(&netns, "ip link set lo up")?;
        let _resident = Victim::start_in(&netns, Some(&cgroup.dir))?;
        Ok(Self { _resident, netns, cgroup, beside: Cgroup::new()?, folder: TempDir::new()? })
    }

    /// A folder below ours.
    fn below(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Has a program go to its end in a cgroup, and prints what it came to. None of them takes so long.
    fn ask(&self, cgroup: &Cgroup, words: &[&str], input: &str) -> anyhow::Result<Done> {
        let done =
            Client::start(&self.netns, cgroup, &[&["timeout", "50"], words].concat(), input)?.done()?;
        let name = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
        println!("{name} {}: {:?}", words[1..].join(" "), done.code);
        input.lines().for_each(|line| println!("{name} < {line}"));
        [&done.output, &done.said].iter().flat_map(|text| text.lines()).for_each(|line| {
            println!("{name} > {line}");
        });
        Ok(done)
    }

    fn serve(&self, cgroup: &Cgroup, command: Command) -> anyhow::Result<Server> {
        Server::start(&self.netns, cgroup, command)
    }

    /// Has it happen to the target. One begins at a time: loading it takes all that an emulated processor has.
    fn inject(&self, fault: &str) -> anyhow::Result<Fault> {
        static ONE: Mutex<()> = Mutex::new(());
        // Met at its function, where a kprobe of another test would be kept from answering.
        let turn = fault.contains("fsync").then(at_calls);
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        println!("kchaos inject {fault}");
        let running = controller::inject(&format!("{fault} --on {}", self.cgroup.target()))?;
        Ok(Fault { running, _turn: turn })
    }
}

/// A fault that is on.
struct Fault {
    running: Running,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Fault {
    /// Ends it. It has hit something.
    fn end(self) -> anyhow::Result<()> {
        let ended = self.running.interrupt()?;
        ended.ensure_code(exit::OK)?;
        let injected = ended.outcome("injected")?;
        println!("kchaos: injected {injected}");
        ensure!(injected > 0, "{}", ended.output);
        Ok(())
    }
}

/// It has ended well, and says this.
fn ensure_says(done: &Done, text: &str, when: &str) -> anyhow::Result<()> {
    ensure!(done.code == Some(0) && done.output.trim() == text, "{when}, not {text}: {}", shown(done));
    Ok(())
}

/// It complains, with these words.
fn ensure_complains(done: &Done, words: &[&str]) -> anyhow::Result<()> {
    let missing = words.iter().find(|word| !done.said.contains(**word) && !done.output.contains(**word));
    ensure!(missing.is_none(), "no {missing:?}: {}", shown(done));
    Ok(())
}

fn shown(done: &Done) -> String {
    format!("{:?}, {}{}", done.code, done.output, done.said)
}

/// The log of a program has these words; the first line with each is printed.
fn ensure_logged(program: &str, file: &Path, words: &[&str]) -> anyhow::Result<()> {
    let log = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    for word in words {
        let line = log.lines().find(|line| line.contains(word));
        println!("{program}'s log: {}", line.with_context(|| format!("no {word} in: {log}"))?);
    }
    Ok(())
}
