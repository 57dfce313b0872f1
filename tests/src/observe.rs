//! `kchaos observe`: that what targets do is counted, all of it and nobody else's.

use std::{
    fs,
    fs::File,
    io::Write,
    net::{SocketAddr, TcpStream},
    os::unix::ffi::OsStrExt,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use kchaos::{
    experiment::hypothesis::Metric,
    fault::{
        catalogue::find,
        plan::{Options, plan},
        text::Given,
        wanted::wanted,
    },
    kernel::{Injection, Kernel, LiveInjection, LiveKernel},
    target,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Test,
    controller::{self, Running, exit},
    lab::{Cgroup, INSIDE, Lab, OUTSIDE},
    snapshot::{Snapshot, left_by},
    stream::Stream,
    tests,
    victim::{
        Ask, Victim,
        call::{Call, Kind},
        chore::Chores,
    },
};

pub fn tests() -> Vec<Test> {
    tests![
        OBSERVE: observe_counts_calls_by_class_and_error, observe_counts_connections_and_resets, observe_counts_ends_and_signals,
            observe_sees_who_waits_for_a_processor;
        OBSERVE on any kernel: observe_adds_up;
        OBSERVE_MEMORY on one kernel: observe_sees_memory_grow_and_oom_kills;
        OBSERVE_BLOCK: observe_times_block_devices;
        OBSERVE on one kernel: observe_times_calls_that_do_not_wait, observe_leaves_nothing_behind;
        OBSERVE_LOSS on one kernel: observe_counts_retransmissions;
        OBSERVE_SOCK on one kernel: observe_tells_injected_errors_from_organic;
        OBSERVE_HOLD on one kernel: observe_sees_round_trips_grow
    ]
}

/// Two cgroups, of which the second does nothing, and a folder.
struct Siblings {
    busy: Cgroup,
    idle: Cgroup,
    folder: TempDir,
}

impl Siblings {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { busy: Cgroup::new()?, idle: Cgroup::new()?, folder: TempDir::new()? })
    }

    /// One who does chores in each.
    fn chores(&self) -> anyhow::Result<[Chores; 2]> {
        let folder = self.folder.path();
        Ok([Chores::start(&self.busy, folder)?, Chores::start(&self.idle, folder)?])
    }

    /// Observes both until `work` is done; what both did then, and each time between.
    fn observe(&self, options: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Observed> {
        let (busy, idle) = (self.busy.target(), self.idle.target());
        let arguments = format!("observe --json --on {busy} --on {idle} {options}");
        let mut kchaos = Running::start(controller::command(&arguments))?;
        kchaos.wait_for("Ctrl-C ends it")?;
        work()?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        let lines = ended.output.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let observed = Observed { lines };
        ensure!(observed.end()["missing"] == Value::Array(Vec::new()), "missing: {}", ended.output);
        Ok(observed)
    }
}

/// What was printed.
struct Observed {
    lines: Vec<Value>,
}

impl Observed {
    fn end(&self) -> &Value {
        self.lines.last().unwrap_or(&Value::Null)
    }

    fn busy(&self) -> &Value {
        &self.end()["groups"][0]
    }

    fn idle(&self) -> &Value {
        &self.end()["groups"][1]
    }
}

/// The number there; the path's parts are joined by dots.
fn number(of: &Value, path: &str) -> anyhow::Result<u64> {
    let value = path.split('.').fold(of, |value, part| &value[part]);
    value.as_u64().with_context(|| format!("no number {path} in {of}"))
}

fn ensure_number(of: &Value, path: &str, wanted: u64) -> anyhow::Result<()> {
    let found = number(of, path)?;
    ensure!(found == wanted, "{path} is {found} and not {wanted}: {of}");
    Ok(())
}

fn observe_counts_calls_by_class_and_error() -> anyhow::Result<()> {
    let siblings = Siblings::new()?;
    let [mut busy, _idle] = siblings.chores()?;
    let chores = [
        ("pread64", 7),
        ("pwrite64", 5),
        ("write", 2),
        ("fsync", 3),
        ("faccessat", 6),
        ("sendto", 5),
        ("recvfrom", 5),
        ("write-socket", 4),
        ("read-socket", 4),
        ("munmap", 8),
        ("kill", 11),
        ("close", 12),
        ("look-nowhere", 13),
    ];
    let observed = siblings.observe("", || busy.do_all(&chores).map(drop))?;
    for (class, calls, failed) in [
        ("file_read", 7, 0),
        ("file_write", 7, 0),
        ("fsync", 3, 0),
        ("open_stat", 19, 13),
        ("net_send", 9, 0),
        ("net_recv", 9, 0),
        ("mem", 8, 0),
        ("proc", 11, 0),
    ] {
        ensure_number(observed.busy(), &format!("calls.by_class.{class}.calls"), calls)?;
        ensure_number(observed.busy(), &format!("calls.by_class.{class}.failed"), failed)?;
    }
    // Where the clock is no page of memory, reading it is another call of this class.
    ensure_number(observed.busy(), "calls.by_class.other.failed", 12)?;
    let errors = &observed.busy()["calls"]["errors"];
    ensure!(*errors == serde_json::json!({ "EBADF": 12, "ENOENT": 13 }), "{errors}");
    ensure_number(observed.idle(), "calls.total", 0)
}

fn observe_times_calls_that_do_not_wait() -> anyhow::Result<()> {
    const TIMES: u64 = 10;
    const HELD_UP: Duration = Duration::from_millis(20);
    let siblings = Siblings::new()?;
    let fifo = siblings.folder.path().join("fifo");
    make_fifo(&fifo)?;
    let [mut busy, _idle] = siblings.chores()?;
    let mut took = Vec::new();
    let observed = siblings.observe("--latency", || {
        for _ in 0..TIMES {
            busy.ask("open-fifo", 1)?;
            thread::sleep(HELD_UP);
            drop(File::options().write(true).open(&fifo)?);
            took.push(busy.answer()?.as_nanos() as u64);
        }
        busy.do_all(&[("nanosleep", TIMES), ("fsync", TIMES)]).map(drop)
    })?;
    took.sort_unstable();
    let opened = &observed.busy()["latency"]["open_stat"];
    ensure_number(opened, "count", TIMES)?;
    // The kernel's call is a part of what was measured around it, and its bucket no more than a 32nd too high.
    let (least, half, most) = (took[0], number(opened, "p50_ns")?, number(opened, "max_ns")?);
    ensure!(half >= least * 3 / 4 && half > 10_000_000, "{half} of {took:?}");
    ensure!(most <= took[TIMES as usize - 1] * 33 / 32, "{most} of {took:?}");
    ensure_number(observed.busy(), "latency.fsync.count", TIMES)?;
    // It has slept, and heard from a pipe as often.
    ensure!(number(observed.busy(), "calls.by_class.waiting.calls")? >= 2 * TIMES);
    ensure!(observed.busy()["latency"]["waiting"].is_null(), "waiting is timed");
    ensure_number(observed.busy(), "latency.file_read.count", 0)?;
    ensure_number(observed.idle(), "latency.open_stat.count", 0)
}

fn make_fifo(path: &Path) -> anyhow::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a zero.
    ensure!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) } == 0, std::io::Error::last_os_error());
    Ok(())
}

fn observe_counts_connections_and_resets() -> anyhow::Result<()> {
    const PORT: u16 = 7777;
    let (lab, siblings) = (Lab::new()?, Siblings::new()?);
    let (busy, _idle) = (Victim::start(&lab, &siblings.busy)?, Victim::start(&lab, &siblings.idle)?);
    let closed = lab.listener(OUTSIDE)?.local_addr()?;
    let at = SocketAddr::new(INSIDE, PORT);
    let ask_inside = || lab.outside.run(|| TcpStream::connect(at));
    let observed = siblings.observe("", || {
        let refused = busy.call(Call::Connect { kind: Kind::Tcp, from: None, to: closed }, 3)?;
        ensure!(refused == [libc::ECONNREFUSED; 3], "{refused:?}");
        let stream = Stream::new(&lab, &busy, OUTSIDE)?;
        stream.deliver(100)?;
        let listener = busy.socket(Ask::Listen { bind: at })?;
        let taken = ask_inside()??;
        busy.socket(Ask::Accept { listener })?;
        // This one nobody takes, and it is reset when its listener ends.
        let mut left = ask_inside()??;
        left.write_all(b"?")?;
        drop(stream);
        drop(taken);
        drop(busy);
        left.set_read_timeout(Some(Duration::from_secs(5)))?;
        let end = std::io::Read::read(&mut left, &mut [0]);
        let errno = end.as_ref().err().and_then(std::io::Error::raw_os_error);
        ensure!(errno == Some(libc::ECONNRESET), "{end:?}");
        Ok(())
    })?;
    ensure_number(observed.busy(), "tcp.connects", 4)?;
    ensure_number(observed.busy(), "tcp.connected", 1)?;
    ensure_number(observed.busy(), "tcp.accepted", 2)?;
    ensure_number(observed.busy(), "tcp.resets_received", 3)?;
    ensure!(number(observed.busy(), "tcp.resets_sent")? >= 1, "{}", observed.busy());
    for what in ["connects", "connected", "accepted", "resets_sent", "resets_received", "retransmits"] {
        ensure_number(observed.idle(), &format!("tcp.{what}"), 0)?;
    }
    Ok(())
}

fn observe_counts_retransmissions() -> anyhow::Result<()> {
    let (lab, siblings) = (Lab::new()?, Siblings::new()?);
    let (busy, _idle) = (Victim::start(&lab, &siblings.busy)?, Victim::start(&lab, &siblings.idle)?);
    // Without, it would be few packets that are lost or not.
    lab.offloads(false)?;
    let stream = Stream::new(&lab, &busy, OUTSIDE)?;
    let deliver = || siblings.observe("", || stream.deliver(1 << 20));
    let before = stream.sender()?.retransmitted;
    ensure_number(deliver()?.busy(), "tcp.retransmits", before.into())?;
    let loss = controller::inject(&format!("loss --percent 10 --on {}", siblings.busy.target()))?;
    let during = deliver()?;
    loss.interrupt()?.ensure_code(exit::OK)?;
    // A call of the tracepoint may stand for several segments.
    let (counted, segments) =
        (number(during.busy(), "tcp.retransmits")?, stream.sender()?.retransmitted - before);
    ensure!((1..=u64::from(segments)).contains(&counted), "{counted} counted of {segments}");
    ensure_number(during.idle(), "tcp.retransmits", 0)?;
    ensure_number(deliver()?.busy(), "tcp.retransmits", 0)
}

fn observe_sees_round_trips_grow() -> anyhow::Result<()> {
    let (lab, siblings) = (Lab::new()?, Siblings::new()?);
    let (busy, _idle) = (Victim::start(&lab, &siblings.busy)?, Victim::start(&lab, &siblings.idle)?);
    let round_trip = || -> anyhow::Result<u64> {
        let stream = Stream::new(&lab, &busy, OUTSIDE)?;
        let observed = siblings.observe("--latency", || (0..20).try_for_each(|_| stream.deliver(100)))?;
        ensure_number(observed.idle(), "round_trip.count", 0)?;
        ensure!(number(observed.busy(), "round_trip.count")? >= 20, "{}", observed.busy());
        number(observed.busy(), "round_trip.p50_ns")
    };
    let before = round_trip()?;
    let delay = controller::inject(&format!("delay --by 50ms --on {}", siblings.busy.target()))?;
    let during = round_trip()?;
    delay.interrupt()?.ensure_code(exit::OK)?;
    let after = round_trip()?;
    ensure!(before < 25_000_000 && after < 25_000_000, "{before} before, {after} after");
    ensure!((50_000_000..100_000_000).contains(&during), "{during} during, {before} before");
    Ok(())
}

fn observe_counts_ends_and_signals() -> anyhow::Result<()> {
    let siblings = Siblings::new()?;
    let [mut killed, _idle] = siblings.chores()?;
    let (mut terminated, mut unhurt) = {
        let [terminated, idle] = siblings.chores()?;
        drop(idle);
        (terminated, Chores::start(&siblings.busy, siblings.folder.path())?)
    };
    let observed = siblings.observe("", || {
        unhurt.do_all(&[("signal", 5)])?;
        killed.kill()?;
        terminated.ask("terminate", 1)?;
        terminated.ended()?;
        unhurt.ended()
    })?;
    ensure_number(observed.busy(), "processes.exits", 3)?;
    let killed = &observed.busy()["processes"]["killed"];
    ensure!(*killed == serde_json::json!({ "SIGKILL": 1, "SIGTERM": 1 }), "{killed}");
    ensure_number(observed.busy(), "processes.signals.SIGUSR1", 5)?;
    ensure_number(observed.idle(), "processes.exits", 0)
}

/// All of them are on one processor.
fn observe_sees_who_waits_for_a_processor() -> anyhow::Result<()> {
    let siblings = Siblings::new()?;
    let [mut one, _idle] = siblings.chores()?;
    let mut other = Chores::start(&siblings.busy, siblings.folder.path())?;
    let observed = siblings.observe("--runqueue", || {
        one.ask("spin", 600)?;
        other.ask("spin", 600)?;
        one.answer()?;
        other.answer()?;
        Ok(())
    })?;
    ensure!(number(observed.busy(), "run_queue.count")? >= 10, "{}", observed.busy());
    ensure!(number(observed.busy(), "run_queue.max_ns")? >= 1_000_000, "{}", observed.busy());
    ensure_number(observed.idle(), "run_queue.count", 0)
}

fn observe_times_block_devices() -> anyhow::Result<()> {
    const TIMES: u64 = 10;
    let siblings = Siblings::new()?;
    let [mut busy, _idle] = siblings.chores()?;
    let observed = siblings.observe("--block", || busy.do_all(&[("read-device", TIMES)]).map(drop))?;
    ensure_number(observed.busy(), "block.read.count", TIMES)?;
    ensure_number(observed.busy(), "block.write.count", 0)?;
    let half = number(observed.busy(), "block.read.p50_ns")?;
    ensure!((20_000_000..60_000_000).contains(&half), "{}", observed.busy());
    ensure_number(observed.busy(), "io.reads", TIMES)?;
    ensure_number(observed.idle(), "block.read.count", 0)
}

fn observe_sees_memory_grow_and_oom_kills() -> anyhow::Result<()> {
    const HOARD: u64 = 32 << 20;
    /// The kernel adds up what its processors count once it is much, or two seconds old (mm/memcontrol.c, 6.18).
    const NOT_ADDED_YET: u64 = 1 << 20;
    let siblings = Siblings::new()?;
    let [mut busy, _idle] = siblings.chores()?;
    let grown = siblings.observe("--every 200ms", || {
        thread::sleep(Duration::from_millis(500));
        busy.do_all(&[("hoard", HOARD)]).map(drop)
    })?;
    for (group, least, most) in [(0, HOARD - NOT_ADDED_YET, 2 * HOARD), (1, 0, HOARD / 8)] {
        let had = |line: &Value| number(&line["groups"][group], "memory.anon_bytes");
        let grown = had(grown.end())?.saturating_sub(had(&grown.lines[0])?);
        ensure!((least..=most).contains(&grown), "group {group} has grown by {grown} bytes");
    }
    ensure!(number(grown.busy(), "memory.page_faults")? > 0, "{}", grown.busy());
    ensure_number(grown.busy(), "memory.oom_kills", 0)?;
    let limit = |file: &str, limit: &str| fs::write(siblings.busy.dir.join(file), limit);
    // Without swap in the kernel there is no such file.
    let _ = limit("memory.swap.max", "0");
    limit("memory.max", &(2 * HOARD).to_string())?;
    let killed = siblings.observe("", || {
        busy.ask("hoard", 4 * HOARD)?;
        busy.ended()
    })?;
    ensure_number(killed.busy(), "memory.oom_kills", 1)?;
    ensure_number(killed.busy(), "processes.killed.SIGKILL", 1)?;
    ensure_number(killed.idle(), "memory.oom_kills", 0)
}

/// An injection alone knows what it has given.
fn observe_tells_injected_errors_from_organic() -> anyhow::Result<()> {
    const REFUSED: u64 = 7;
    const MISSED: u64 = 4;
    let (lab, siblings) = (Lab::new()?, Siblings::new()?);
    let victim = Victim::start(&lab, &siblings.busy)?;
    let closed = lab.listener(OUTSIDE)?.local_addr()?;
    let connect = Call::Connect { kind: Kind::Tcp, from: None, to: closed };
    let mut injection = refuse(&siblings.busy)?;
    let missed = victim.call(connect, MISSED)?;
    injection.arm(Duration::from_secs(30))?;
    let refused = victim.call(connect, REFUSED)?;
    injection.disarm()?;
    let again = victim.call(connect, 1)?;
    let errors = injection.reading()?.slots[0].errors.context("calls are counted")?;
    ensure!(injection.rollback().is_complete(), "something is left");
    ensure!(missed.iter().chain(&again).all(|errno| *errno == libc::ECONNREFUSED), "{missed:?} {again:?}");
    ensure!(refused.iter().all(|errno| *errno == libc::EACCES), "{refused:?}");
    let of = |errno: i32| (errors.returned[errno as usize], errors.injected[errno as usize]);
    ensure!(of(libc::EACCES) == (REFUSED, REFUSED), "EACCES: {:?}", of(libc::EACCES));
    ensure!(of(libc::ECONNREFUSED) == (MISSED + 1, 0), "ECONNREFUSED: {:?}", of(libc::ECONNREFUSED));
    ensure!(errors.injected.iter().sum::<u64>() == REFUSED, "{errors:?}");
    Ok(())
}

/// Refuses TCP's connections with EACCES, and counts calls.
fn refuse(cgroup: &Cgroup) -> anyhow::Result<LiveInjection> {
    let entry = find("refuse").context("the catalogue has it")?;
    let given = [("error", "EACCES"), ("calls", "connect")]
        .into_iter()
        .fold(Given::new(entry), |given, (name, value)| given.with(name, value));
    let faults = [(entry.build)(&given)?];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scope = runtime.block_on(target::resolve(&[], &[cgroup.target().parse()?], &[]))?;
    let mut kernel = LiveKernel::default();
    let options = Options { gates: Some(vec![Metric::Syscalls]), ..Options::default() };
    let capabilities = kernel.capabilities(&wanted(&faults, &options))?;
    Ok(kernel.inject("test", &plan(&faults, &scope, &capabilities, &options)?)?)
}

fn observe_adds_up() -> anyhow::Result<()> {
    let siblings = Siblings::new()?;
    let [mut busy, _idle] = siblings.chores()?;
    let observed = siblings.observe("--every 100ms", || {
        for _ in 0..10 {
            busy.do_all(&[("pread64", 3)])?;
            thread::sleep(Duration::from_millis(70));
        }
        Ok(())
    })?;
    let (ticks, end) = observed.lines.split_at(observed.lines.len() - 1);
    ensure!(ticks.len() >= 3 && ticks.iter().all(|line| line["kind"] == "tick"), "{ticks:?}");
    ensure!(end[0]["kind"] == "end" && end[0]["schema"] == "kchaos-observe/1", "{end:?}");
    let of = |line: &Value| number(&line["groups"][0], "calls.by_class.file_read.calls");
    let sum = ticks.iter().map(of).sum::<anyhow::Result<u64>>()?;
    ensure!(sum == 30 && of(&end[0])? == 30, "{sum} in all ticks, {} at the end", of(&end[0])?);
    Ok(())
}

fn observe_leaves_nothing_behind() -> anyhow::Result<()> {
    let (lab, siblings) = (Lab::new()?, Siblings::new()?);
    let _victims = siblings.chores()?;
    let cgroups = [&siblings.busy, &siblings.idle];
    let before = Snapshot::take(&lab, &cgroups)?;
    let arguments = format!("observe --latency --runqueue --on {}", siblings.busy.target());
    for is_killed in [false, true] {
        let mut kchaos = Running::start(controller::command(&arguments))?;
        kchaos.wait_for("Ctrl-C ends it")?;
        let pid = kchaos.pid();
        ensure!(before != Snapshot::take(&lab, &cgroups)?, "nothing is attached");
        ensure!(left_by(pid)?.is_empty(), "it has a journal or a cgroup of its own");
        if is_killed {
            kchaos.kill()?;
        } else {
            kchaos.interrupt()?.ensure_code(exit::OK)?;
        }
        before.ensure_restored(&lab, &cgroups, pid)?;
    }
    Ok(())
}
