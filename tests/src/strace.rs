//! The same program under `strace -e inject=…` and under kchaos: what it sees must be the same, call by call, where both
//! have a word for it.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    Test,
    controller::{self, exit},
    lab::Cgroup,
    tests,
    turn::at_calls,
    victim::calls,
};

pub fn tests() -> Vec<Test> {
    tests![
        STRACE on one kernel: an_errno_is_the_one_of_strace, a_signal_comes_as_strace_sends_it, errno_when_counts_as_strace_counts;
        STRACE_SLEEP on one kernel: a_delay_at_entry_is_the_one_of_strace;
        STRACE_SLEEP_SYSCALL on one kernel: a_delay_at_exit_is_the_one_of_strace;
        STRACE_SYSCALL on one kernel: a_call_without_a_hook_fails_as_under_strace, a_retval_is_the_one_of_strace;
        STRACE_OVERRIDE on one kernel: a_retval_of_zero_is_the_one_of_strace
    ]
}

/// How many calls a victim makes.
const CALLS: u32 = 12;
/// More than that takes under strace in an emulated guest.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a victim saw of its calls, and the signal that ended it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    lines: Vec<String>,
    killed_by: Option<i32>,
}

/// A fault in both languages.
struct Both {
    call: &'static str,
    strace: &'static str,
    kchaos: &'static str,
}

const fn both(call: &'static str, strace: &'static str, kchaos: &'static str) -> Both {
    Both { call, strace, kchaos }
}

/// A victim that waits until it may begin; ended when this goes.
struct Waiting {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Waiting {
    /// Starts one in a cgroup, under what is in front of it.
    fn start(cgroup: &Cgroup, call: &str, front: &[String]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut words = front.to_vec();
        words.push(std::env::current_exe()?.display().to_string());
        words.extend([
            calls::VERB.into(),
            call.into(),
            CALLS.to_string(),
            folder.path().display().to_string(),
        ]);
        let mut command = Command::new(&words[0]);
        let child = command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let victim = Self { child, _folder: folder };
        fs::write(cgroup.dir.join("cgroup.procs"), victim.child.id().to_string())
            .context("moving a victim")?;
        Ok(victim)
    }

    /// Lets it begin, and waits for its end.
    fn go(mut self) -> anyhow::Result<Seen> {
        self.child.stdin.take().context("its standard input")?.write_all(b"\n")?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "a victim does not end");
            thread::sleep(Duration::from_millis(10));
        };
        let mut text = String::new();
        self.child.stdout.take().context("its standard output")?.read_to_string(&mut text)?;
        ensure!(status.code().is_none_or(|code| code == 0), "a victim failed: {status}");
        Ok(Seen { lines: text.lines().map(str::to_owned).collect(), killed_by: status.signal() })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a victim sees of a fault, under strace and under kchaos. Before and after, all its calls succeed.
fn seen(fault: &Both) -> anyhow::Result<[Seen; 2]> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let Both { call, strace, kchaos } = fault;
    let untouched = || Waiting::start(&cgroup, call, &[])?.go();
    let before = untouched()?;
    ensure!(before.lines.len() == CALLS as usize, "{before:?}");
    ensure!(before.lines.iter().all(|line| !line.starts_with('-')), "fails by itself: {before:?}");
    let inject = format!("inject={call}:{strace}");
    let front = ["strace", "-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
    let by_strace = Waiting::start(&cgroup, call, &front.map(str::to_owned))?.go()?;
    let victim = Waiting::start(&cgroup, call, &[])?;
    let running = controller::inject(&format!("{kchaos} --syscalls {call} --on {}", cgroup.target()))?;
    let by_kchaos = victim.go()?;
    running.interrupt()?.ensure_code(exit::OK)?;
    let after = untouched()?;
    ensure!(after == before, "{call}: {before:?} before, {after:?} afterwards");
    ensure!(by_strace != before, "{call}: strace's {strace} changed nothing: {before:?}");
    Ok([by_strace, by_kchaos])
}

/// All of them look the same both ways.
fn are_alike(faults: &[Both]) -> anyhow::Result<()> {
    for fault in faults {
        let Both { call, strace, kchaos } = fault;
        let [by_strace, by_kchaos] = seen(fault)?;
        ensure!(
            by_strace == by_kchaos,
            "{call}: {by_strace:?} by strace's {strace}, {by_kchaos:?} by kchaos's {kchaos}"
        );
    }
    Ok(())
}

fn an_errno_is_the_one_of_strace() -> anyhow::Result<()> {
    are_alike(&[
        both("mkdirat", "error=ENOSPC", "errno --error ENOSPC"),
        both("unlinkat", "error=EBUSY", "errno --error EBUSY"),
        both("symlinkat", "error=EDQUOT", "errno --error EDQUOT"),
        both("renameat2", "error=EXDEV", "errno --error EXDEV"),
        both("openat2", "error=EMFILE:when=2+2", "errno --error EMFILE --when 2+2"),
        both("pwrite64", "error=EIO:when=2+2", "errno --error EIO --when 2+2"),
    ])
}

fn errno_when_counts_as_strace_counts() -> anyhow::Result<()> {
    are_alike(&[
        both("mkdirat", "error=EIO:when=3", "errno --error EIO --when 3"),
        both("mkdirat", "error=EIO:when=3+", "errno --error EIO --when 3+"),
        both("mkdirat", "error=EIO:when=2+3", "errno --error EIO --when 2+3"),
        both("unlinkat", "error=EIO:when=3..5", "errno --error EIO --when 3..5"),
        both("unlinkat", "error=EIO:when=2..9+3", "errno --error EIO --when 2..9+3"),
    ])
}

fn a_signal_comes_as_strace_sends_it() -> anyhow::Result<()> {
    are_alike(&[
        both("mkdirat", "error=EINTR:signal=SIGUSR1:when=2+4", "signal --signal SIGUSR1 --when 2+4"),
        both("mkdirat", "signal=SIGUSR1:when=4+4", "signal --signal SIGUSR1 --error none --when 4+4"),
    ])?;
    let [by_strace, by_kchaos] =
        seen(&both("unlinkat", "signal=SIGKILL:when=3", "signal --signal SIGKILL --when 3"))?;
    ensure!(by_strace.killed_by == Some(libc::SIGKILL) && by_strace.lines.len() == 2, "{by_strace:?}");
    ensure!(by_strace == by_kchaos, "{by_strace:?} by strace, {by_kchaos:?} by kchaos");
    Ok(())
}

/// As long, of the same calls, and these do what they do.
fn a_delay_at_entry_is_the_one_of_strace() -> anyhow::Result<()> {
    are_alike(&[
        both("mkdirat", "delay_enter=400000:when=2+5", "slow --by 400ms --when 2+5"),
        both("unlinkat", "delay_enter=1600000:when=3..3", "slow --by 1600ms --longest 2s --when 3..3"),
    ])
}

fn a_delay_at_exit_is_the_one_of_strace() -> anyhow::Result<()> {
    are_alike(&[
        both("mkdirat", "delay_exit=400000:when=2+5", "slow --at exit --by 400ms --when 2+5"),
        both("fsync", "delay_exit=1600000:when=3..3", "slow --at exit --by 1600ms --longest 2s --when 3..3"),
    ])
}

fn a_call_without_a_hook_fails_as_under_strace() -> anyhow::Result<()> {
    are_alike(&[both("fsync", "error=EIO:when=1+2", "errno --error EIO --when 1+2")])
}

fn a_retval_is_the_one_of_strace() -> anyhow::Result<()> {
    are_alike(&[both("pwrite64", "retval=7:when=2+2", "retval --returns 7 --when 2+2")])
}

fn a_retval_of_zero_is_the_one_of_strace() -> anyhow::Result<()> {
    are_alike(&[
        both("mkdirat", "retval=0:when=3..6", "retval --returns 0 --when 3..6"),
        both("unlinkat", "retval=0:when=5", "retval --returns 0 --when 5"),
    ])
}
