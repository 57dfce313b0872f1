//! Callers put to sleep: that they sleep as long as asked and no longer, and that whatever happens to whom, everybody
//! is awake again soon.

mod program;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use kchaos::kernel::{RawPlace, probe::Delayed, sleep::Caps};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Test, lab::Cgroup, tests, turn::at_calls};
pub use program::{CONTROLLER_VERB, VICTIM_VERB, controller, victim};
use program::{Call, SYSCALL, Took};

const FILE_OPEN: RawPlace<'_> = RawPlace::Lsm("file_open");
const MS: u64 = 1_000_000;
/// As long as anybody may sleep.
const LONG: u64 = 2_000 * MS;
const CAPS: Caps = Caps { longest_ns: LONG, at_once: 128 };
/// Whoever is awake so early did not sleep to the end of [`LONG`]. How soon it is, `cargo xtask bench` says (`sleep`).
/// On a machine that does other things, the best of several.
const EARLY: Duration = Duration::from_millis(1_000);
const ATTEMPTS: u32 = 3;
/// How long the daemon takes to hear of a sleeper, on a slow machine.
const HEARD_WITHIN: Duration = Duration::from_millis(100);
/// For whatever takes its time on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn tests() -> Vec<Test> {
    tests![
        SLEEP: a_call_takes_as_long_as_asked, a_target_that_is_killed_wakes,
            everybody_wakes_when_the_controller_is_killed, everything_ends_while_somebody_sleeps;
        SLEEP_SYSCALL: a_system_call_takes_as_long_as_asked;
        SLEEP on one kernel: a_signal_that_is_handled_does_not_shorten_a_delay,
            a_target_is_killed_after_a_signal_that_it_handles,
            everybody_wakes_when_the_controller_dies_and_the_daemon_is_stopped,
            a_link_ends_while_somebody_sleeps, nothing_remains, a_short_delay_keeps_the_processor_busy, nobody_sleeps_longer_than_the_caps_allow,
            more_at_once_than_allowed_are_not_delayed, a_target_that_is_asked_to_end_wakes,
            everybody_wakes_when_the_keeper_is_killed, everybody_wakes_when_the_inert_process_is_killed,
            everybody_wakes_when_the_daemon_is_stopped, those_who_wake_others_are_never_delayed,
            a_hundred_sleep_at_once, everybody_wakes_when_the_daemon_is_killed;
        SLEEP_SYSCALL on one kernel: a_system_call_is_delayed_at_its_entry
    ]
}

/// Delays whoever in a cgroup opens a file.
fn delayed(cgroup: &Cgroup, delay_ns: u64) -> anyhow::Result<Delayed> {
    Ok(Delayed::at(FILE_OPEN, id(cgroup)?, delay_ns, CAPS)?)
}

fn id(cgroup: &Cgroup) -> anyhow::Result<u64> {
    Ok(fs::metadata(&cgroup.dir)?.ino())
}

/// A process in a cgroup that makes calls; killed if it still does when this goes.
struct Victim {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Victim {
    /// Has as many threads make as many calls.
    fn start(cgroup: &Cgroup, call: Call, threads: u32, calls: u32) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(VICTIM_VERB).arg(&cgroup.dir).arg(call.name());
        command.args([threads.to_string(), calls.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, output })
    }

    /// Has one thread open one file, and waits until it sleeps and the daemon has heard of it: before that, the kernel
    /// lets go who is killed by itself.
    fn asleep(cgroup: &Cgroup, delayed: &mut Delayed) -> anyhow::Result<Self> {
        let victim = Self::start(cgroup, Call::Open, 1, 1)?;
        wait_until_asleep(delayed, 1)?;
        thread::sleep(HEARD_WITHIN);
        Ok(victim)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// How long each of its calls took.
    fn took(mut self) -> anyhow::Result<Vec<Took>> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the calls did not succeed: {status}: {text}");
        text.lines().map(Took::read).collect()
    }

    /// How long it takes from now on to end.
    fn ends(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begin.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(begin.elapsed())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until_asleep(delayed: &mut Delayed, many: u64) -> anyhow::Result<()> {
    let begin = Instant::now();
    while delayed.asleep()? < many {
        ensure!(begin.elapsed() < PATIENCE, "{} of {many} sleep", delayed.asleep()?);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The least of what several attempts take must be soon.
fn soon(attempt: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<()> {
    let mut tried = Vec::new();
    for _ in 0..ATTEMPTS {
        let took = attempt()?;
        println!("awake after {took:?}");
        if took < EARLY {
            return Ok(());
        }
        tried.push(took);
    }
    bail!("not awake within {EARLY:?}: {tried:?}")
}

fn a_call_takes_as_long_as_asked() -> anyhow::Result<()> {
    takes_as_long_as_asked(FILE_OPEN, Call::Open)
}

fn a_system_call_takes_as_long_as_asked() -> anyhow::Result<()> {
    takes_as_long_as_asked(RawPlace::ModifyReturn(SYSCALL), Call::GetPriority)
}

fn a_system_call_is_delayed_at_its_entry() -> anyhow::Result<()> {
    takes_as_long_as_asked(RawPlace::Fentry(SYSCALL), Call::GetPriority)
}

/// Takes no time before, in another cgroup and after; during, as long as asked and no processor.
fn takes_as_long_as_asked(at: RawPlace<'_>, call: Call) -> anyhow::Result<()> {
    const CALLS: u32 = 8;
    /// No other delay is so near. How late they are, the bench says.
    const LATE_NS: u64 = 50 * MS;
    let _alone = at_calls();
    let (cgroup, other) = (Cgroup::new()?, Cgroup::new()?);
    let least = |cgroup: &Cgroup, calls: u32| -> anyhow::Result<Took> {
        let took = Victim::start(cgroup, call, 1, calls)?.took()?;
        took.into_iter().min_by_key(|took| took.elapsed_ns).context("no call")
    };
    ensure!(least(&cgroup, CALLS)?.elapsed_ns < MS, "slow before");
    for wanted_ns in [MS, 10 * MS, 100 * MS] {
        let mut delayed = Delayed::at(at, id(&cgroup)?, wanted_ns, CAPS)?;
        let took = least(&cgroup, CALLS)?;
        println!("{wanted_ns} ns asked: {took:?}");
        ensure!(took.elapsed_ns >= wanted_ns, "{wanted_ns} ns asked: {took:?}");
        ensure!(took.elapsed_ns < wanted_ns + LATE_NS, "{wanted_ns} ns asked: {took:?}");
        ensure!(wanted_ns == MS || took.used_ns < wanted_ns / 2, "not asleep: {took:?}");
        let stats = delayed.stats()?;
        ensure!(stats.slept == u64::from(CALLS) && stats.asked == stats.slept, "{stats:?}");
        ensure!(stats.late.iter().sum::<u64>() == stats.slept, "{stats:?}");
        ensure!(stats.delivered_ns >= stats.wanted_ns - stats.slept * 10_000, "{stats:?}");
        ensure!(least(&other, CALLS)?.elapsed_ns < MS, "slow in another cgroup");
    }
    ensure!(least(&cgroup, CALLS)?.elapsed_ns < MS, "slow after");
    Ok(())
}

fn a_short_delay_keeps_the_processor_busy() -> anyhow::Result<()> {
    const WANTED_NS: u64 = 50_000;
    const CALLS: u32 = 20;
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let mut delayed = delayed(&cgroup, WANTED_NS)?;
    let took = Victim::start(&cgroup, Call::Open, 1, CALLS)?.took()?;
    ensure!(took.iter().all(|took| took.elapsed_ns >= WANTED_NS), "{took:?}");
    ensure!(took.iter().all(|took| took.used_ns >= WANTED_NS / 2), "{took:?}");
    let stats = delayed.stats()?;
    ensure!(stats.spun == u64::from(CALLS) && stats.slept == 0, "{stats:?}");
    Ok(())
}

fn a_hundred_sleep_at_once() -> anyhow::Result<()> {
    const THREADS: u32 = 100;
    const WANTED_NS: u64 = 500 * MS;
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let mut delayed = delayed(&cgroup, WANTED_NS)?;
    let begin = Instant::now();
    let took = Victim::start(&cgroup, Call::Open, THREADS, 2)?.took()?;
    let all = begin.elapsed();
    ensure!(took.len() == 2 * THREADS as usize, "{} calls", took.len());
    ensure!(took.iter().all(|took| took.elapsed_ns >= WANTED_NS), "{took:?}");
    let stats = delayed.stats()?;
    ensure!(stats.slept == 2 * u64::from(THREADS) && stats.no_slot + stats.refused == 0, "{stats:?}");
    // One after another they would take 100 s.
    ensure!(all < PATIENCE, "they did not sleep at once: {all:?}");
    ensure!(delayed.asleep()? == 0, "{} still sleep", delayed.asleep()?);
    Ok(())
}

fn nobody_sleeps_longer_than_the_caps_allow() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let longest = Caps::default().longest_ns;
    for (wanted_ns, caps) in [
        (longest + 1, Caps::default()),
        // Whatever the controller says.
        (LONG + 1, Caps { longest_ns: u64::MAX, ..Caps::default() }),
    ] {
        let mut delayed = Delayed::at(FILE_OPEN, id(&cgroup)?, wanted_ns, caps)?;
        let took = Victim::start(&cgroup, Call::Open, 1, 1)?.took()?;
        ensure!(took.iter().all(|took| took.elapsed_ns < longest), "{took:?}");
        let stats = delayed.stats()?;
        ensure!(stats.refused == 1 && stats.slept == 0, "{stats:?}");
    }
    Ok(())
}

fn more_at_once_than_allowed_are_not_delayed() -> anyhow::Result<()> {
    const THREADS: u32 = 10;
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let caps = Caps { at_once: 2, ..CAPS };
    let mut delayed = Delayed::at(FILE_OPEN, id(&cgroup)?, LONG, caps)?;
    let took = Victim::start(&cgroup, Call::Open, THREADS, 1)?.took()?;
    let slept = took.iter().filter(|took| took.elapsed_ns >= LONG).count();
    ensure!(slept == 2, "{slept} slept");
    let stats = delayed.stats()?;
    ensure!(stats.slept == 2 && stats.refused == u64::from(THREADS) - 2, "{stats:?}");
    Ok(())
}

fn a_target_that_is_killed_wakes() -> anyhow::Result<()> {
    ends_soon_after(Signal::SIGKILL)
}

fn a_target_that_is_asked_to_end_wakes() -> anyhow::Result<()> {
    ends_soon_after(Signal::SIGTERM)
}

fn ends_soon_after(signal: Signal) -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    soon(|| {
        let mut delayed = delayed(&cgroup, LONG)?;
        let mut victim = Victim::asleep(&cgroup, &mut delayed)?;
        victim.signal(signal)?;
        let took = victim.ends()?;
        let stats = delayed.stats()?;
        ensure!(stats.cut_short == 1 && stats.slept == 0, "{stats:?}");
        Ok(took)
    })
}

fn a_signal_that_is_handled_does_not_shorten_a_delay() -> anyhow::Result<()> {
    const WANTED_NS: u64 = 500 * MS;
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let mut delayed = delayed(&cgroup, WANTED_NS)?;
    let victim = Victim::asleep(&cgroup, &mut delayed)?;
    victim.signal(Signal::SIGUSR1)?;
    let took = victim.took()?;
    ensure!(took.iter().all(|took| took.elapsed_ns >= WANTED_NS), "{took:?}");
    let stats = delayed.stats()?;
    ensure!(stats.slept == 1 && stats.cut_short == 0, "{stats:?}");
    Ok(())
}

/// The kernel tells the daemon of the first signal only.
fn a_target_is_killed_after_a_signal_that_it_handles() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    soon(|| {
        let mut delayed = delayed(&cgroup, LONG)?;
        let mut victim = Victim::asleep(&cgroup, &mut delayed)?;
        victim.signal(Signal::SIGUSR1)?;
        thread::sleep(Duration::from_millis(100));
        victim.signal(Signal::SIGKILL)?;
        victim.ends()
    })
}

fn everybody_wakes_when_the_daemon_is_killed() -> anyhow::Result<()> {
    wakes_when_killed(|delayed| delayed.processes()[0])
}

fn everybody_wakes_when_the_inert_process_is_killed() -> anyhow::Result<()> {
    wakes_when_killed(|delayed| delayed.processes()[1])
}

fn everybody_wakes_when_the_keeper_is_killed() -> anyhow::Result<()> {
    wakes_when_killed(|delayed| delayed.processes()[2])
}

/// Ten sleep; all are awake soon, and later calls are not delayed.
fn wakes_when_killed(whom: impl Fn(&Delayed) -> i32) -> anyhow::Result<()> {
    const THREADS: u32 = 10;
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    soon(|| {
        let mut delayed = delayed(&cgroup, LONG)?;
        let mut victim = Victim::start(&cgroup, Call::Open, THREADS, 1)?;
        wait_until_asleep(&mut delayed, THREADS.into())?;
        kill(Pid::from_raw(whom(&delayed)), Signal::SIGKILL)?;
        let ended = victim.ends()?;
        let stats = delayed.stats()?;
        ensure!(stats.cut_short == u64::from(THREADS) && stats.slept == 0, "{stats:?}");
        let later = Victim::start(&cgroup, Call::Open, 1, 1)?.took()?;
        ensure!(later.iter().all(|took| took.elapsed_ns < LONG / 4), "{later:?}");
        Ok(ended)
    })
}

/// A controller in a process of its own, and who works for it.
struct Controller {
    child: Child,
    processes: Vec<i32>,
}

impl Controller {
    fn start(cgroup: &Cgroup, delay_ns: u64) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([CONTROLLER_VERB, &id(cgroup)?.to_string(), &delay_ns.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let processes: Result<_, _> = line.split_whitespace().map(str::parse).collect();
        Ok(Self { child, processes: processes.with_context(|| format!("it said `{line}`"))? })
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn everybody_wakes_when_the_controller_is_killed() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    soon(|| {
        let mut controller = Controller::start(&cgroup, LONG)?;
        let mut victim = Victim::start(&cgroup, Call::Open, 1, 1)?;
        wait_until_it_sleeps(&victim)?;
        controller.child.kill()?;
        let ended = victim.ends()?;
        wait_until_gone(&controller.processes)?;
        Ok(ended)
    })
}

/// Waits until one of its threads sleeps where our filesystem has it wait.
fn wait_until_it_sleeps(victim: &Victim) -> anyhow::Result<()> {
    let begin = Instant::now();
    let tasks = format!("/proc/{}/task", victim.child.id());
    let sleeps = |task: &Path| {
        let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
        read("wchan") == "request_wait_answer" && read("stat").contains(") S ")
    };
    while !fs::read_dir(&tasks)?.flatten().any(|task| sleeps(&task.path())) {
        ensure!(begin.elapsed() < PATIENCE, "it does not sleep");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn wait_until_gone(processes: &[i32]) -> anyhow::Result<()> {
    let begin = Instant::now();
    let is_there = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while processes.iter().any(is_there) {
        ensure!(begin.elapsed() < PATIENCE, "some of {processes:?} are still there");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Noticed by its silence, which is two seconds.
const NOTICED_WITHIN: Duration = Duration::from_millis(3_500);

fn everybody_wakes_when_the_daemon_is_stopped() -> anyhow::Result<()> {
    const THREADS: u32 = 10;
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let mut delayed = delayed(&cgroup, 500 * MS)?;
    let mut victim = Victim::start(&cgroup, Call::Open, THREADS, 1)?;
    wait_until_asleep(&mut delayed, THREADS.into())?;
    kill(Pid::from_raw(delayed.processes()[0]), Signal::SIGSTOP)?;
    let ended = victim.ends()?;
    ensure!(ended < NOTICED_WITHIN, "awake after {ended:?}");
    wait_until_gone(&delayed.processes())
}

fn everybody_wakes_when_the_controller_dies_and_the_daemon_is_stopped() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    soon(|| {
        let mut controller = Controller::start(&cgroup, LONG)?;
        let mut victim = Victim::start(&cgroup, Call::Open, 1, 1)?;
        wait_until_it_sleeps(&victim)?;
        kill(Pid::from_raw(controller.processes[0]), Signal::SIGSTOP)?;
        controller.child.kill()?;
        let ended = victim.ends()?;
        wait_until_gone(&controller.processes)?;
        Ok(ended)
    })
}

fn a_link_ends_while_somebody_sleeps() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let mut delayed = delayed(&cgroup, LONG)?;
    let victim = Victim::asleep(&cgroup, &mut delayed)?;
    let begin = Instant::now();
    delayed.unhook();
    let ended = begin.elapsed();
    ensure!(ended < EARLY, "ending the link took {ended:?}");
    let later = Victim::start(&cgroup, Call::Open, 1, 1)?.took()?;
    ensure!(later.iter().all(|took| took.elapsed_ns < LONG / 4), "still delayed: {later:?}");
    let took = victim.took()?;
    ensure!(took.iter().all(|took| took.elapsed_ns >= LONG), "who slept did not sleep on: {took:?}");
    Ok(())
}

fn everything_ends_while_somebody_sleeps() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let mut delayed = delayed(&cgroup, LONG)?;
    let processes = delayed.processes();
    let mut victim = Victim::asleep(&cgroup, &mut delayed)?;
    let begin = Instant::now();
    drop(delayed);
    let ended = begin.elapsed();
    ensure!(ended < EARLY, "ending it took {ended:?}");
    let awake = victim.ends()?;
    ensure!(awake < EARLY, "awake after {awake:?}");
    wait_until_gone(&processes)
}

/// The daemon among the delayed opens files of /proc when somebody is killed.
fn those_who_wake_others_are_never_delayed() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    soon(|| {
        let mut delayed = delayed(&cgroup, LONG)?;
        for process in delayed.processes() {
            fs::write(cgroup.dir.join("cgroup.procs"), process.to_string())?;
        }
        let mut victim = Victim::asleep(&cgroup, &mut delayed)?;
        victim.signal(Signal::SIGKILL)?;
        let ended = victim.ends()?;
        let stats = delayed.stats()?;
        ensure!(stats.spared > 0, "the daemon was not met: {stats:?}");
        Ok(ended)
    })
}

fn nothing_remains() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let connections = || -> anyhow::Result<BTreeSet<_>> {
        let entries = fs::read_dir("/sys/fs/fuse/connections")?;
        Ok(entries.map(|entry| Ok(entry?.file_name())).collect::<Result<_, std::io::Error>>()?)
    };
    let mounts = || fs::read_to_string("/proc/self/mountinfo");
    let (before, mounted) = (connections()?, mounts()?);
    let delayed = delayed(&cgroup, MS)?;
    ensure!(mounts()? == mounted, "the host's mounts have changed: {}", mounts()?);
    for process in delayed.processes() {
        let theirs = fs::read_to_string(format!("/proc/{process}/mountinfo"))?;
        ensure!(theirs == mounted, "its mounts have changed: {theirs}");
    }
    let during: BTreeSet<_> = connections()?.difference(&before).cloned().collect();
    ensure!(!during.is_empty(), "no connection");
    let processes = delayed.processes();
    drop(delayed);
    wait_until_gone(&processes)?;
    let begin = Instant::now();
    while connections()?.intersection(&during).next().is_some() {
        ensure!(begin.elapsed() < PATIENCE, "connections are left: {during:?}");
        thread::sleep(Duration::from_millis(5));
    }
    ensure!(mounts()? == mounted, "mounts are left: {}", mounts()?);
    Ok(())
}
