//! What must hold once everything is over: commands that must succeed.
//!
//! Each runs in a process group of its own, which is killed with all that is in it when its time is up, or when nobody
//! waits for it any more.

use std::{
    collections::VecDeque,
    io::{self, PipeReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use super::watch::{Invariant, InvariantRecord};
use crate::units::show_duration;

/// How often it is looked whether a command has ended.
const POLL: Duration = Duration::from_millis(10);
/// A command that has ended may have left somebody behind who holds its output open; nobody waits longer for the rest.
const REST_WITHIN: Duration = Duration::from_secs(1);
/// How much of the end of what a command says is kept.
const MOST_BYTES: usize = 4096;
const MOST_LINES: usize = 5;

/// Runs all of them, one after another.
pub async fn run_all(invariants: &[Invariant]) -> Vec<InvariantRecord> {
    let mut records = Vec::with_capacity(invariants.len());
    for invariant in invariants {
        records.push(run(invariant).await);
    }
    records
}

/// Runs one.
pub async fn run(invariant: &Invariant) -> InvariantRecord {
    let start = Instant::now();
    let (ok, detail) = match Running::start(invariant) {
        Ok(running) => running.ended(start + invariant.timeout).await.said(invariant.timeout),
        Err(error) => (false, format!("could not be started: {error}")),
    };
    InvariantRecord { id: invariant.id.clone(), ok, detail, seconds: start.elapsed().as_secs_f64() }
}

/// A command that runs.
struct Running {
    child: Child,
    reaped: bool,
    tail: Arc<Mutex<Tail>>,
    reader: JoinHandle<()>,
}

/// How it ended, and what it said.
struct Ended {
    /// `None` if its time was up.
    status: Option<io::Result<ExitStatus>>,
    said: String,
}

impl Running {
    fn start(invariant: &Invariant) -> io::Result<Self> {
        let (program, arguments) =
            invariant.run.split_first().ok_or_else(|| io::Error::other("there is no command"))?;
        let (reader, writer) = io::pipe()?;
        // The command, and with it our ends of the pipe for writing, goes with this statement.
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let kept = Arc::clone(&tail);
        let reader = thread::spawn(move || read(reader, &kept));
        Ok(Self { child, reaped: false, tail, reader })
    }

    /// Waits for its end, until its time is up.
    async fn ended(mut self, until: Instant) -> Ended {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(Ok(status)),
                Ok(None) if Instant::now() >= until => break None,
                Ok(None) => sleep(POLL).await,
                Err(error) => break Some(Err(error)),
            }
        };
        match &status {
            Some(_) => self.reaped = true,
            None => self.kill(),
        }
        let rest_until = Instant::now() + REST_WITHIN;
        while !self.reader.is_finished() && Instant::now() < rest_until {
            sleep(POLL).await;
        }
        let said = self.tail.lock().unwrap_or_else(PoisonError::into_inner).lines();
        Ended { status, said }
    }

    /// With all of its group. Its number is its own as long as nobody has waited for it.
    fn kill(&mut self) {
        if !self.reaped {
            // Fails only if all of them have ended.
            let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
            let _ = self.child.wait();
            self.reaped = true;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Ended {
    /// Whether it holds, and why not.
    fn said(self, timeout: Duration) -> (bool, String) {
        let ok = matches!(&self.status, Some(Ok(status)) if status.success());
        let how = match &self.status {
            None => format!("took longer than {}, and was killed", show_duration(timeout)),
            Some(Err(error)) => format!("could not be waited for: {error}"),
            Some(Ok(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("ended by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
        };
        (ok, if self.said.is_empty() { how } else { format!("{how}: {}", self.said) })
    }
}

fn read(mut from: PipeReader, tail: &Mutex<Tail>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        tail.lock().unwrap_or_else(PoisonError::into_inner).add(&buffer[..count]);
    }
}

/// The end of what a command says.
#[derive(Debug, Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let surplus = self.0.len().saturating_sub(MOST_BYTES);
        self.0.drain(..surplus);
    }

    /// Its last lines, without what could rewrite a terminal.
    fn lines(&mut self) -> String {
        let text = String::from_utf8_lossy(self.0.make_contiguous()).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(MOST_LINES)..].join("\n");
        last.chars().filter(|c| !c.is_control() || *c == '\n').collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> Invariant {
        let run = ["sh", "-c", script].map(str::to_owned).to_vec();
        Invariant { id: "holds".into(), run, timeout }
    }

    const AMPLE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn exit_code_0_holds_and_any_other_does_not() {
        let all = [shell("echo fine", AMPLE), shell("echo lost 3 writes >&2; exit 3", AMPLE)];
        let records = run_all(&all).await;
        let said: Vec<_> = records.iter().map(|record| (record.ok, record.detail.as_str())).collect();
        assert_eq!(said, [(true, "exit code 0: fine"), (false, "exit code 3: lost 3 writes")]);
        let killed = run(&shell("kill -9 $$", AMPLE)).await;
        assert_eq!((killed.ok, killed.detail.as_str()), (false, "ended by signal 9"));
    }

    #[tokio::test]
    async fn what_cannot_be_started_does_not_hold() {
        let run_of = |words: &[&str]| Invariant {
            id: "holds".into(),
            run: words.iter().map(|word| (*word).to_owned()).collect(),
            timeout: AMPLE,
        };
        for words in [&["/nonexistent/check"][..], &[]] {
            let record = run(&run_of(words)).await;
            assert!(!record.ok && record.detail.starts_with("could not be started: "), "{record:?}");
        }
    }

    #[tokio::test]
    async fn whoever_takes_too_long_is_killed_with_all_it_started() {
        let dir = std::env::temp_dir().join(format!("kchaos-invariant-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let child = dir.join("child");
        let script = format!("sleep 1000 & echo $! > {}; echo waiting; wait", child.display());
        let record = run(&shell(&script, Duration::from_millis(500))).await;
        assert!(!record.ok, "{record:?}");
        assert_eq!(record.detail, "took longer than 500ms, and was killed: waiting");
        let child: i32 = std::fs::read_to_string(&child).unwrap().trim().parse().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        // It may not have been waited for yet by whoever inherited it.
        let status = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(status.is_empty() || status.contains(") Z") || status.contains(") X"), "{status}");
    }

    #[tokio::test]
    async fn of_much_output_the_end_is_kept() {
        let record = run(&shell("seq 100000; printf '\\033[2Jdone\\n'; exit 1", AMPLE)).await;
        assert_eq!(record.detail, "exit code 1: 99997\n99998\n99999\n100000\n[2Jdone");
    }

    #[tokio::test]
    async fn somebody_left_behind_is_not_waited_for() {
        let start = Instant::now();
        let record = run(&shell("sleep 20 & echo started", AMPLE)).await;
        assert!(record.ok && record.detail.ends_with("started"), "{record:?}");
        assert!(start.elapsed() < Duration::from_secs(15));
    }
}
