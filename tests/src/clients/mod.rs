//! Programs that people use, in place of victims of our own: what a fault is to curl, redis-cli and dig, and to the
//! servers that they ask.

mod http;
mod redis;
mod resolver;

use std::{
    env,
    io::Write,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use kchaos::target::Netns;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Test,
    controller::{self, Running},
    lab::{Cgroup, Lab, within},
    victim::Victim,
};

/// More than a server or a client takes to begin, in a guest that is emulated.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);

pub fn tests() -> Vec<Test> {
    [http::tests(), redis::tests(), resolver::tests()].into_iter().flatten().collect()
}

/// Who asks and who does not mind: two cgroups behind one wire, and one for who is asked.
struct Scene {
    /// A target must have somebody in it, or its network is unknown; clients come and go.
    _resident: Victim,
    lab: Lab,
    cgroup: Cgroup,
    neighbours: Cgroup,
    servers: Cgroup,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
        let _resident = Victim::start(&lab, &cgroup)?;
        Ok(Self { _resident, lab, cgroup, neighbours: Cgroup::new()?, servers: Cgroup::new()? })
    }

    /// Injects into who asks.
    fn inject(&self, fault: &str) -> anyhow::Result<Running> {
        controller::inject(&format!("{fault} --on {}", self.cgroup.target()))
    }

    /// Starts a server outside.
    fn serve(&self, command: Command) -> anyhow::Result<Server> {
        Server::start(&self.lab.outside, &self.servers, command)
    }

    /// A client inside, in a cgroup.
    fn client(&self, cgroup: &Cgroup, words: &[&str]) -> anyhow::Result<Client> {
        Client::start(&self.lab.inside, cgroup, words, "")
    }
}

/// Asks again and again until it is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + BEGINS_WITHIN;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "it takes too long until {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Where the path has a program.
pub fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.with_context(|| format!("no {program}"))
}

/// A client that runs.
pub struct Client(Child);

/// What came of a client.
pub struct Done {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub said: String,
}

impl Client {
    /// Starts one in a network namespace and a cgroup; it is told what is in `input`.
    pub fn start(netns: &Netns, cgroup: &Cgroup, words: &[&str], input: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let mut command = within(&cgroup.dir, &command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = netns.run(|| command.spawn())?.with_context(|| words.join(" "))?;
        let mut stdin = child.stdin.take().context("its standard input")?;
        // Who does not listen ends before it has read this.
        let _ = stdin.write_all(input.as_bytes());
        Ok(Self(child))
    }

    /// Waits until it has ended: each is told by an option of its own how long it may take.
    pub fn done(self) -> anyhow::Result<Done> {
        let Output { status, stdout, stderr } = self.0.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Done { code: status.code(), output: text(&stdout), said: text(&stderr) })
    }

    /// Ends it, whatever it does. What it has said so far counts.
    fn stop(mut self) -> anyhow::Result<Done> {
        self.0.kill()?;
        self.done()
    }
}

/// A server, ended when this goes.
pub struct Server(Child);

impl Server {
    /// Starts one in a network namespace and a cgroup.
    pub fn start(netns: &Netns, cgroup: &Cgroup, command: Command) -> anyhow::Result<Self> {
        let mut command = within(&cgroup.dir, &command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let name = format!("{command:?}");
        Ok(Self(netns.run(|| command.spawn())?.context(name)?))
    }

    /// Waits until it answers.
    pub fn answers(mut self, ask: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<Self> {
        wait_until("the server answers", || {
            let ended = self.0.try_wait()?;
            ensure!(ended.is_none(), "the server has ended: {ended:?}");
            ask()
        })?;
        Ok(self)
    }

    /// Asks it to end, as an administrator would, and waits.
    pub fn stop(self) -> anyhow::Result<ExitStatus> {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT)?;
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> anyhow::Result<ExitStatus> {
        wait_until("the server ends", || Ok(self.0.try_wait()?.is_some()))?;
        Ok(self.0.wait()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
