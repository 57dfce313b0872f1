//! Running `kchaos` as a user does.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use crate::{docker, lab::Cgroup};

/// What `inject` says when the fault is on.
const ON: &str = "Ctrl-C ends it";
/// For kchaos to load everything in an emulated guest where other tests have the verifier at work. Only a hang takes longer.
const ON_WITHIN: Duration = Duration::from_secs(240);
/// More than any run in here takes.
const ENDS_WITHIN: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(5);

/// Exit codes, as the user knows them.
pub mod exit {
    pub const OK: i32 = 0;
    pub const FAIL: i32 = 1;
    pub const COULD_NOT_RUN: i32 = 2;
    pub const INVALID: i32 = 4;
    pub const ABORTED: i32 = 5;
}

/// The program: `KCHAOS_BIN`, or what cargo built beside this one.
fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        if let Some(path) = env::var_os("KCHAOS_BIN") {
            return path.into();
        }
        let own = env::current_exe().unwrap_or_default();
        let beside =
            own.ancestors().skip(1).take(2).map(|dir| dir.join("kchaos")).find(|path| path.is_file());
        beside.unwrap_or_else(|| panic!("no kchaos beside {}; cargo build -p chaos-user", own.display()))
    };
    PROGRAM.get_or_init(find).clone()
}

/// `kchaos` with these arguments, which have no blanks in them, in an environment of ours.
pub fn command(arguments: &str) -> Command {
    let mut command = Command::new(program());
    command.args(arguments.split_whitespace());
    for variable in ["KCHAOS_LOG", "DOCKER_HOST", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(variable);
    }
    if let Ok(docker) = docker::daemon() {
        command.env("DOCKER_HOST", &docker.host);
    }
    command
}

/// Runs it to its end.
pub fn run(arguments: &str) -> anyhow::Result<Ended> {
    Running::start(command(arguments))?.ended()
}

/// Keeps tests apart that leave a dead controller behind or sweep: `kchaos sweep` is for the whole host.
pub fn sweeps() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // A test that failed has left nothing in it that could be wrong.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs it to its end within a cgroup.
pub fn run_in(cgroup: &Cgroup, arguments: &str) -> anyhow::Result<Ended> {
    let mut shell = Command::new("sh");
    let program = command(arguments);
    shell.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#]).arg(&cgroup.dir);
    shell.arg(program.get_program()).args(program.get_args());
    Running::start(shell)?.ended()
}

/// Starts `kchaos inject` and waits until the fault is on. Were this program killed, it would end soon.
pub fn inject(arguments: &str) -> anyhow::Result<Running> {
    let limit = if arguments.contains("--for ") { "" } else { "--for 60s" };
    let mut running = Running::start(command(&format!("inject {arguments} --json {limit}")))?;
    running.wait_for(ON)?;
    Ok(running)
}

/// The same with a variable of its environment set.
pub fn inject_with(variables: &[(&str, String)], arguments: &str) -> anyhow::Result<Running> {
    let mut command = command(&format!("inject {arguments} --json --for 60s"));
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let mut running = Running::start(command)?;
    running.wait_for(ON)?;
    Ok(running)
}

/// A `kchaos` that runs, killed if it still does when this goes.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    said: String,
    output: Option<JoinHandle<String>>,
}

/// A `kchaos` that has ended.
#[derive(Debug)]
pub struct Ended {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub said: String,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting kchaos")?;
        let mut output = child.stdout.take().context("its standard output")?;
        let errors = BufReader::new(child.stderr.take().context("its standard error")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // Ends with kchaos, or when nobody listens any more.
            errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let output = thread::spawn(move || {
            let mut text = String::new();
            // What was read before an error is shown all the same.
            let _ = output.read_to_string(&mut text);
            text
        });
        Ok(Self { child, lines, said: String::new(), output: Some(output) })
    }

    /// Waits until it says something, on standard error.
    pub fn wait_for(&mut self, text: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + ON_WITHIN;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = line.contains(text);
                    self.said += &(line + "\n");
                    if found {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("kchaos did not say `{text}`: {}", self.said),
                Err(RecvTimeoutError::Disconnected) => bail!("kchaos ended: {}", self.said),
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(nix::sys::signal::kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// Whether it has not ended yet.
    pub fn goes_on(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> anyhow::Result<Ended> {
        let deadline = Instant::now() + ENDS_WITHIN;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "kchaos does not end: {}", self.said);
            thread::sleep(POLL);
        };
        let output = self.output.take().context("its output is read once")?;
        let output = output.join().map_err(|_| anyhow!("reading its output panicked"))?;
        self.said.extend(self.lines.iter().map(|line| line + "\n"));
        Ok(Ended { code: status.code(), output, said: std::mem::take(&mut self.said) })
    }

    /// Waits until it does not end any more where this signal comes, but does something about it.
    pub fn wait_until_it_catches(&self, signal: Signal) -> anyhow::Result<()> {
        let (status, deadline) = (format!("/proc/{}/status", self.pid()), Instant::now() + ON_WITHIN);
        loop {
            let text = fs::read_to_string(&status)?;
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("no SigCgt")?;
            if u64::from_str_radix(caught.trim(), 16)? & (1 << (signal as i32 - 1)) != 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "kchaos does not catch {signal}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal again and again until it has ended.
    pub fn ended_by_many(mut self, signal: Signal) -> anyhow::Result<Ended> {
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.goes_on()? {
            ensure!(Instant::now() < deadline, "kchaos does not end: {}", self.said);
            self.signal(signal)?;
            thread::sleep(Duration::from_millis(1));
        }
        self.ended()
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(self) -> anyhow::Result<Ended> {
        self.signal(Signal::SIGINT)?;
        self.ended()
    }

    /// Ends it as nothing else does: it has no time to undo anything.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Asked to stop first, so that a failed test leaves nothing behind; both fail only if it has ended.
            let _ = self.signal(Signal::SIGCONT);
            let _ = self.signal(Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(POLL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    /// Its report.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.output).with_context(|| format!("not JSON: {}{}", self.output, self.said))
    }

    /// Has it ended with this code?
    pub fn ensure_code(&self, code: i32) -> anyhow::Result<()> {
        ensure!(
            self.code == Some(code),
            "exit code {:?}, expected {code}: {}{}",
            self.code,
            self.output,
            self.said
        );
        Ok(())
    }

    /// A count out of the outcomes of `inject`'s report.
    pub fn outcome(&self, name: &str) -> anyhow::Result<u64> {
        let report = self.json()?;
        report["outcomes"][name].as_u64().with_context(|| format!("no outcome {name} in {report}"))
    }

    /// It was refused, for a reason with these words in it.
    pub fn ensure_refused(&self, words: &[&str]) -> anyhow::Result<()> {
        self.ensure_code(exit::COULD_NOT_RUN)?;
        for word in words {
            ensure!(self.said.contains(word), "expected `{word}` in: {}", self.said);
        }
        Ok(())
    }
}
