//! Processes that sleep: by nanosleep(2), and as their calls are slow. And kchaos, which makes them slow.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Barrier,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use serde_json::Value;

use super::BenchCgroup;

/// The verb of a process that sleeps.
pub const VERB: &str = "sleeper";
/// For whatever takes its time on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);

/// How long something took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// On the clock.
    pub elapsed_ns: f64,
    /// Of a processor.
    pub used_ns: f64,
}

impl Took {
    fn of(act: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        let begin = [libc::CLOCK_MONOTONIC, libc::CLOCK_THREAD_CPUTIME_ID].map(now_ns);
        act()?;
        let end = [libc::CLOCK_MONOTONIC, libc::CLOCK_THREAD_CPUTIME_ID].map(now_ns);
        Ok(Self { elapsed_ns: (end[0] - begin[0]) as f64, used_ns: (end[1] - begin[1]) as f64 })
    }
}

fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn nanosleep(ns: u64) -> io::Result<()> {
    let time = libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
    // SAFETY: the time is ours, and what is left of it is not asked for.
    match unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn open() -> io::Result<()> {
    // SAFETY: the path ends with a zero.
    match unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) } {
        ..0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Enters a cgroup. Each of its threads sleeps by nanosleep(2) and opens a file, in turn, as often as it shall; prints
/// what each took.
pub fn main(arguments: &[String]) -> anyhow::Result<()> {
    let [cgroup, threads, times, ns] = arguments else { bail!("{arguments:?}") };
    let (threads, times, ns) = (threads.parse::<usize>()?, times.parse::<usize>()?, ns.parse::<u64>()?);
    let (all_there, together) = (Barrier::new(threads + 1), Barrier::new(threads));
    let took = thread::scope(|scope| {
        let sleep = || {
            // A thread that allocates for the first time may open a file to count the processors.
            let mut took = Vec::with_capacity(2 * times);
            all_there.wait();
            all_there.wait();
            for _ in 0..times {
                together.wait();
                took.push(Took::of(|| nanosleep(ns))?);
                together.wait();
                took.push(Took::of(open)?);
            }
            Ok::<_, io::Error>(took)
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(sleep)).collect();
        all_there.wait();
        let entered = fs::write(Path::new(cgroup).join("cgroup.procs"), "0");
        all_there.wait();
        entered?;
        let mut took = Vec::new();
        for thread in running {
            took.extend(thread.join().map_err(|_| io::Error::other("a thread panicked"))??);
        }
        Ok::<_, io::Error>(took)
    })?;
    for both in took.chunks(2) {
        let numbers: Vec<_> = both.iter().map(|one| format!("{} {}", one.elapsed_ns, one.used_ns)).collect();
        println!("{}", numbers.join(" "));
    }
    Ok(())
}

/// What nanosleep(2) and the call took, each time.
pub struct Both {
    /// nanosleep(2).
    pub slept: Vec<Took>,
    /// The call.
    pub called: Vec<Took>,
}

fn command(cgroup: &BenchCgroup, threads: u32, times: u32, by: Duration) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(VERB).arg(&cgroup.dir).args([threads.to_string(), times.to_string()]);
    command.arg(by.as_nanos().to_string()).stdin(Stdio::null());
    Ok(command)
}

/// Has so many threads sleep both ways, so many times.
pub fn both(cgroup: &BenchCgroup, threads: u32, times: u32, by: Duration) -> anyhow::Result<Both> {
    let output = command(cgroup, threads, times, by)?.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "a sleeper: {}", output.status);
    let mut both = Both { slept: Vec::new(), called: Vec::new() };
    for line in String::from_utf8(output.stdout)?.lines() {
        let numbers: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [slept, used, called, used_by_call] = numbers[..] else { bail!("it said `{line}`") };
        both.slept.push(Took { elapsed_ns: slept, used_ns: used });
        both.called.push(Took { elapsed_ns: called, used_ns: used_by_call });
    }
    Ok(both)
}

/// A process of ours; killed if it still is there when this goes.
pub struct Process(Child);

impl Process {
    /// One that does nothing but be in a cgroup, which is no target without.
    pub fn resident(cgroup: &BenchCgroup) -> anyhow::Result<Self> {
        let resident = Self(Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn().context("sleep")?);
        fs::write(cgroup.dir.join("cgroup.procs"), resident.0.id().to_string())?;
        Ok(resident)
    }

    /// One that opens a file once, and sleeps over it: the daemon has heard of it.
    pub fn asleep(cgroup: &BenchCgroup) -> anyhow::Result<Self> {
        /// Before that, the kernel lets go who is killed by itself.
        const HEARD_WITHIN: Duration = Duration::from_millis(100);
        let sleeper = command(cgroup, 1, 1, Duration::ZERO)?.stdout(Stdio::null()).spawn()?;
        let sleeper = Self(sleeper);
        let tasks = format!("/proc/{}/task", sleeper.0.id());
        let sleeps = |task: &Path| {
            fs::read_to_string(task.join("wchan")).is_ok_and(|function| function == "request_wait_answer")
        };
        wait("it does not sleep", || Ok(fs::read_dir(&tasks)?.flatten().any(|task| sleeps(&task.path()))))?;
        thread::sleep(HEARD_WITHIN);
        Ok(sleeper)
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// Waits for its end.
    pub fn ends(&mut self) -> anyhow::Result<()> {
        wait("it does not end", || Ok(self.0.try_wait()?.is_some()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(or: &str, mut until: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !until()? {
        ensure!(begin.elapsed() < PATIENCE, "{or}");
        thread::sleep(POLL);
    }
    Ok(())
}

/// `kchaos inject slow` for a cgroup.
pub struct Slow {
    /// kchaos itself.
    pub kchaos: Process,
    _said: Receiver<String>,
}

impl Slow {
    /// Starts it, and waits until files of this cgroup open slowly.
    pub fn start(cgroup: &BenchCgroup, by: Duration) -> anyhow::Result<Self> {
        let (by, on) = (format!("{}ms", by.as_millis()), cgroup.target.to_string());
        let mut command = Command::new(program()?);
        command.args(["inject", "slow", "--syscalls", "open,openat", "--by", &by, "--longest", "2s"]);
        command.args(["--on", &on, "--for", "120s", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut kchaos = Process(command.stderr(Stdio::piped()).spawn().context("kchaos")?);
        let errors = BufReader::new(kchaos.0.stderr.take().context("its standard error")?);
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            // Ends with kchaos, or when nobody listens any more.
            errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        wait_for_it(&said)?;
        Ok(Self { kchaos, _said: said })
    }

    /// The process that answers sleepers: the one below kchaos's keeper that has the filesystem.
    pub fn daemon(&self) -> anyhow::Result<Pid> {
        let keepers = children(self.kchaos.pid())?;
        for keeper in keepers {
            for child in children(keeper)? {
                let open = fs::read_dir(format!("/proc/{child}/fd"))?.flatten();
                if open
                    .filter_map(|fd| fs::read_link(fd.path()).ok())
                    .any(|file| file == Path::new("/dev/fuse"))
                {
                    return Ok(Pid::from_raw(child));
                }
            }
        }
        bail!("no daemon below kchaos")
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(&mut self) -> anyhow::Result<()> {
        self.kchaos.signal(Signal::SIGINT)?;
        // A pipe has room for its report.
        self.kchaos.ends()
    }

    /// What it says when it has ended.
    pub fn report(&mut self) -> anyhow::Result<Value> {
        Ok(serde_json::from_reader(self.kchaos.0.stdout.take().context("its standard output")?)?)
    }
}

fn wait_for_it(said: &Receiver<String>) -> anyhow::Result<()> {
    let (deadline, mut all) = (Instant::now() + PATIENCE, String::new());
    loop {
        match said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("Ctrl-C ends it") => return Ok(()),
            Ok(line) => all += &(line + "\n"),
            Err(RecvTimeoutError::Timeout) => bail!("kchaos takes long: {all}"),
            Err(RecvTimeoutError::Disconnected) => bail!("kchaos ended: {all}"),
        }
    }
}

/// `KCHAOS_BIN`, or the program beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let program = match std::env::var_os("KCHAOS_BIN") {
        Some(path) => path.into(),
        None => std::env::current_exe()?.with_file_name("kchaos"),
    };
    ensure!(program.is_file(), "no {}; cargo build --release -p chaos-user", program.display());
    Ok(program)
}

/// The processes whose parent this one is.
fn children(parent: i32) -> anyhow::Result<Vec<i32>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        // Behind its name, which may have blanks: the state, then its parent.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parents = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        parents == Some(&parent.to_string())
    };
    Ok(pids.filter(is_child).collect())
}
