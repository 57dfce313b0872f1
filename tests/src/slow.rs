//! System calls that take longer: as long as asked, without a processor, and no longer whatever happens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use kchaos::kernel::Injection;

use crate::{
    Test,
    controller::{Running, command, exit, inject, run},
    injection,
    lab::Cgroup,
    sleep::VICTIM_VERB,
    tests,
    turn::at_calls,
};

const MS: u64 = 1_000_000;

pub fn tests() -> Vec<Test> {
    tests![
        SLEEP: slow_calls_take_as_long_as_asked;
        SLEEP_SYSCALL: slow_calls_that_no_hook_sees_take_as_long_as_asked;
        SLEEP_SYSCALL on one kernel: slow_at_exit_delays_the_answer, slow_threads_of_a_call_without_hook_all_sleep;
        EGRESS on any kernel: slow_beyond_its_longest_is_refused;
        SLEEP on one kernel: slow_at_entry_delays_the_effect, everybody_wakes_when_kchaos_is_killed_in_slow,
            slow_disk_delays_files_under_its_paths, slow_armed_dry_lets_nobody_sleep, slow_jitter_stays_in_its_range, slow_lets_a_hundred_sleep_at_once,
            slow_loses_what_is_beyond_its_sleepers, slow_delays_are_in_the_report_of_a_run,
            slow_leaves_nobody_stuck
    ]
}

/// A cgroup with a process in it, without which it is no target.
fn inhabited() -> anyhow::Result<(Cgroup, Maker)> {
    let cgroup = Cgroup::new()?;
    let resident = Maker(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn()?);
    fs::write(cgroup.dir.join("cgroup.procs"), resident.0.id().to_string())?;
    Ok((cgroup, resident))
}

/// How long each call of a process in a cgroup took, and how much of a processor.
fn calls(cgroup: &Cgroup, call: &str, threads: u32, times: u32) -> anyhow::Result<Vec<(u64, u64)>> {
    let output = Command::new(std::env::current_exe()?)
        .arg(VICTIM_VERB)
        .arg(&cgroup.dir)
        .args([call.to_owned(), threads.to_string(), times.to_string()])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let line = |line: &str| {
        let (took, used) = line.split_once(' ').context("two numbers")?;
        Ok((took.parse()?, used.parse()?))
    };
    String::from_utf8(output.stdout)?.lines().map(line).collect()
}

fn least(cgroup: &Cgroup, call: &str) -> anyhow::Result<(u64, u64)> {
    calls(cgroup, call, 1, 8)?.into_iter().min().context("no call")
}

fn slow_calls_take_as_long_as_asked() -> anyhow::Result<()> {
    take_as_long_as_asked("open", "open,openat")
}

fn slow_calls_that_no_hook_sees_take_as_long_as_asked() -> anyhow::Result<()> {
    take_as_long_as_asked("getpriority", "getpriority")
}

/// Takes no time before, beside and after; during, as long as asked and no processor.
fn take_as_long_as_asked(call: &str, syscalls: &str) -> anyhow::Result<()> {
    /// No other delay is so near. How late they are, `cargo xtask bench` says (`sleep`).
    const LATE_NS: u64 = 50 * MS;
    let _alone = at_calls();
    let ((cgroup, _resident), other) = (inhabited()?, Cgroup::new()?);
    ensure!(least(&cgroup, call)?.0 < MS, "slow before");
    for ms in [1, 10, 100] {
        let wanted_ns = ms * MS;
        let on = cgroup.target();
        let running = inject(&format!("slow --syscalls {syscalls} --by {ms}ms --on {on}"))?;
        let (took_ns, used_ns) = least(&cgroup, call)?;
        println!("{ms} ms asked: took {took_ns} ns, used {used_ns} ns");
        ensure!((wanted_ns..wanted_ns + LATE_NS).contains(&took_ns), "{ms} ms asked: {took_ns} ns");
        ensure!(ms == 1 || used_ns < wanted_ns / 2, "not asleep: {used_ns} ns");
        ensure!(least(&other, call)?.0 < MS, "slow in another cgroup");
        let ended = running.interrupt()?;
        ended.ensure_code(exit::OK)?;
        let delays = &ended.json()?["delays"];
        ensure!(delays["slept"].as_u64() >= Some(8) && delays["asked"] == delays["slept"], "{delays}");
        let delivered = delays["delivered_mean_ms"].as_f64().context("what was delivered")?;
        ensure!(delivered >= ms as f64 - 0.01, "{delays}");
        ensure!(least(&cgroup, call)?.0 < MS, "slow after");
    }
    Ok(())
}

/// Calls that would sleep are counted, and do not; then they do.
fn slow_armed_dry_lets_nobody_sleep() -> anyhow::Result<()> {
    const LONG: Duration = Duration::from_secs(60);
    let _alone = at_calls();
    let (cgroup, _resident) = inhabited()?;
    let faults: [(_, &[_]); 1] = [("slow", &[("syscalls", "open,openat"), ("by", "100ms")])];
    let mut injection = injection::inject(&cgroup, &faults)?;
    injection.arm_dry(LONG)?;
    let (took_ns, _) = least(&cgroup, "open")?;
    let dry = injection.sample()?.rules[0][0];
    ensure!(took_ns < 100 * MS, "dry: {took_ns} ns");
    ensure!(dry.eligible() >= 8 && dry.injected == 0, "{dry:?}");
    injection.arm(LONG)?;
    let (took_ns, _) = least(&cgroup, "open")?;
    ensure!(took_ns >= 100 * MS, "meant: {took_ns} ns");
    let rollback = injection.rollback();
    ensure!(rollback.is_complete(), "{rollback:?}");
    Ok(())
}

fn slow_jitter_stays_in_its_range() -> anyhow::Result<()> {
    let _alone = at_calls();
    let (cgroup, _resident) = inhabited()?;
    let on = cgroup.target();
    let running = inject(&format!("slow --syscalls open,openat --by 20ms --jitter 10ms --on {on}"))?;
    let took = calls(&cgroup, "open", 1, 40)?;
    running.interrupt()?.ensure_code(exit::OK)?;
    ensure!(took.iter().all(|(took, _)| *took >= 10 * MS), "{took:?}");
    let early = took.iter().filter(|(took, _)| *took < 18 * MS).count();
    let late = took.iter().filter(|(took, _)| *took > 22 * MS).count();
    ensure!(early > 0 && late > 0, "{took:?}");
    ensure!(took.iter().filter(|(took, _)| *took < 32 * MS).count() >= took.len() / 2, "{took:?}");
    Ok(())
}

fn slow_lets_a_hundred_sleep_at_once() -> anyhow::Result<()> {
    let _alone = at_calls();
    let (cgroup, _resident) = inhabited()?;
    let running = inject(&format!("slow --syscalls open,openat --by 500ms --on {}", cgroup.target()))?;
    let took = calls(&cgroup, "open", 100, 1)?;
    let ended = running.interrupt()?;
    ensure!(took.len() == 100 && took.iter().all(|(took, _)| *took >= 500 * MS), "{took:?}");
    let delays = &ended.json()?["delays"];
    ensure!(delays["slept"].as_u64() >= Some(100) && delays["lost"]["no_slot"] == 0, "{delays}");
    Ok(())
}

/// Eight threads on the lab's two processors: each sleeps, though a program is skipped that sleeps already.
fn slow_threads_of_a_call_without_hook_all_sleep() -> anyhow::Result<()> {
    let _alone = at_calls();
    let (cgroup, _resident) = inhabited()?;
    let running = inject(&format!("slow --syscalls getpriority --by 100ms --on {}", cgroup.target()))?;
    let took = calls(&cgroup, "getpriority", 8, 2)?;
    let ended = running.interrupt()?;
    let report = ended.json()?;
    let delays = &report["delays"];
    println!("{delays}");
    let slept = took.iter().filter(|(took, _)| *took >= 100 * MS).count();
    // A kernel that preempts threads within programs may not have shown some calls to ours; it says how many.
    let missed = report["recursion_misses"].as_u64().context("what was missed")?;
    ensure!(took.len() == 16 && slept as u64 + missed >= 16, "{missed} missed: {took:?}");
    ensure!(delays["slept"] == slept && delays["lost"]["recursion_misses"].as_u64() > Some(0), "{delays}");
    Ok(())
}

fn slow_loses_what_is_beyond_its_sleepers() -> anyhow::Result<()> {
    let _alone = at_calls();
    let (cgroup, _resident) = inhabited()?;
    let on = cgroup.target();
    let running = inject(&format!("slow --syscalls open,openat --by 500ms --sleepers 2 --on {on}"))?;
    let took = calls(&cgroup, "open", 6, 1)?;
    let ended = running.interrupt()?;
    let delayed = took.iter().filter(|(took, _)| *took >= 500 * MS).count();
    ensure!((1..=2).contains(&delayed), "{took:?}");
    let delays = &ended.json()?["delays"];
    ensure!(delays["lost"]["cap"].as_u64() >= Some(4), "{delays}");
    Ok(())
}

/// A process in a cgroup that makes a directory; killed if it still does when this goes.
struct Maker(Child);

impl Maker {
    fn start(cgroup: &Cgroup, dir: &PathBuf) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec mkdir "$1""#]).arg(&cgroup.dir).arg(dir);
        Ok(Self(shell.stdin(Stdio::null()).spawn()?))
    }

    fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    fn ends_within(&mut self, limit: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.is_running()? {
            ensure!(begin.elapsed() < limit, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const LONG: Duration = Duration::from_secs(2);

/// When the directory is there, and when the process that makes it ends.
fn making(at: &str) -> anyhow::Result<(Duration, Duration)> {
    let _alone = at_calls();
    let (cgroup, _resident) = inhabited()?;
    let dir = std::env::temp_dir().join(format!("kchaos-slow-{at}-{}", std::process::id()));
    let on = cgroup.target();
    let what = format!("slow --syscalls mkdir --by 2s --longest 2s --at {at} --on {on}");
    let running = inject(&what)?;
    let begin = Instant::now();
    let mut maker = Maker::start(&cgroup, &dir)?;
    let mut there = None;
    while maker.is_running()? {
        if there.is_none() && dir.exists() {
            there = Some(begin.elapsed());
        }
        ensure!(begin.elapsed() < 10 * LONG, "it does not end");
        thread::sleep(Duration::from_millis(1));
    }
    let ended = begin.elapsed();
    let there = there.or(dir.exists().then_some(ended)).context("there is no directory")?;
    fs::remove_dir(&dir)?;
    running.interrupt()?.ensure_code(exit::OK)?;
    println!("at {at}: there after {there:?}, ended after {ended:?}");
    ensure!(ended >= LONG, "not delayed: {ended:?}");
    Ok((there, ended))
}

fn slow_at_entry_delays_the_effect() -> anyhow::Result<()> {
    let (there, _) = making("enter")?;
    ensure!(there >= LONG, "there after {there:?}");
    Ok(())
}

fn slow_at_exit_delays_the_answer() -> anyhow::Result<()> {
    let (there, ended) = making("exit")?;
    ensure!(ended - there > LONG / 2, "there after {there:?}, ended after {ended:?}");
    Ok(())
}

/// Long before its delay is over, at least in one of several attempts.
fn everybody_wakes_when_kchaos_is_killed_in_slow() -> anyhow::Result<()> {
    const EARLY: Duration = Duration::from_millis(1_000);
    let _alone = at_calls();
    let mut tried = Vec::new();
    for _ in 0..3 {
        let (cgroup, _resident) = inhabited()?;
        let dir = std::env::temp_dir().join(format!("kchaos-slow-killed-{}", std::process::id()));
        let on = cgroup.target();
        let running = inject(&format!("slow --syscalls mkdir --by 2s --longest 2s --on {on}"))?;
        let mut maker = Maker::start(&cgroup, &dir)?;
        thread::sleep(Duration::from_millis(700));
        ensure!(maker.is_running()? && !dir.exists(), "it does not sleep");
        let begin = Instant::now();
        running.kill()?;
        maker.ends_within(10 * LONG)?;
        let took = begin.elapsed();
        fs::remove_dir(&dir)?;
        println!("awake after {took:?}");
        if took < EARLY {
            return Ok(());
        }
        tried.push(took);
    }
    anyhow::bail!("not awake within {EARLY:?}: {tried:?}")
}

/// How long reading a file takes a process in a cgroup: the least of three.
fn reading(cgroup: &Cgroup, file: &Path) -> anyhow::Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec cat "$1""#]).arg(&cgroup.dir).arg(file);
        let begin = Instant::now();
        let output = shell.stdin(Stdio::null()).output()?;
        least = least.min(begin.elapsed());
        ensure!(output.status.success() && output.stdout == b"what was written", "{output:?}");
    }
    Ok(least)
}

fn slow_disk_delays_files_under_its_paths() -> anyhow::Result<()> {
    const BY: Duration = Duration::from_secs(1);
    let _alone = at_calls();
    let ((cgroup, _resident), other) = (inhabited()?, Cgroup::new()?);
    let (slow, quick) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let [there, elsewhere] = [&slow, &quick].map(|dir| dir.path().join("file"));
    [&there, &elsewhere].into_iter().try_for_each(|file| fs::write(file, "what was written"))?;
    ensure!(reading(&cgroup, &there)? < BY, "slow before");
    let (on, paths) = (cgroup.target(), slow.path().display());
    let running = inject(&format!("disk --is slow --by 1s --longest 2s --paths {paths}/ --on {on}"))?;
    let (hurt, spared) = (reading(&cgroup, &there)?, reading(&cgroup, &elsewhere)?);
    let beside = reading(&other, &there)?;
    let ended = running.interrupt()?;
    println!("read in {hurt:?}, elsewhere in {spared:?}, in another cgroup in {beside:?}");
    ensure!(hurt >= BY && spared < BY && beside < BY, "{hurt:?}, {spared:?}, {beside:?}");
    ensure!(ended.json()?["delays"]["slept"].as_u64() >= Some(3), "{:?}", ended.json()?);
    ensure!(reading(&cgroup, &there)? < BY, "slow after");
    Ok(())
}

fn slow_delays_are_in_the_report_of_a_run() -> anyhow::Result<()> {
    let _alone = at_calls();
    let ((control, _one), (experiment, _two)) = (inhabited()?, inhabited()?);
    let folder = tempfile::tempdir()?;
    let (spec, report) = (folder.path().join("spec.yaml"), folder.path().join("report.json"));
    let text = format!(
        "version: 1\nname: slow-opens\ngroups: {{ control: '{}', experiment: '{}' }}\n\
         steady_state: {{ gates: [{{ metric: syscalls, within: 50% }}] }}\n\
         faults: [{{ slow: {{ syscalls: 'open,openat', by: 200ms }} }}]\n\
         run: {{ baseline: 5s, inject: 5s, recover: 5s, settle: 0s }}\n",
        control.target(),
        experiment.target(),
    );
    fs::write(&spec, text)?;
    let mut running =
        Running::start(command(&format!("run --force --json {} {}", report.display(), spec.display())))?;
    running.wait_for("inject: ")?;
    for _ in 0..3 {
        calls(&experiment, "open", 1, 2)?;
    }
    running.ended()?;
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report)?)?;
    let told = &report["calls"];
    println!("{told}");
    ensure!(told["delays"]["slept"].as_u64() >= Some(1) && told["recursion_misses"].is_u64(), "{told}");
    Ok(())
}

/// Delays of all lengths, controllers killed and started again: nobody is left asleep. `KCHAOS_SLOW_SOAK_S` is for how
/// many seconds.
fn slow_leaves_nobody_stuck() -> anyhow::Result<()> {
    let _alone = at_calls();
    let seconds = std::env::var("KCHAOS_SLOW_SOAK_S").ok().map(|text| text.parse()).transpose()?;
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(20));
    let (cgroup, _resident) = inhabited()?;
    let on = cgroup.target();
    let mut round = 0_u32;
    while Instant::now() < end {
        let running = inject(&format!("slow --syscalls open,openat --by 60ms --jitter 60ms --on {on}"))?;
        let mut victims = (0..3)
            .map(|_| {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(VICTIM_VERB).arg(&cgroup.dir).args(["open", "4", "20"]);
                Ok(Maker(command.stdout(Stdio::null()).spawn()?))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        thread::sleep(Duration::from_millis(u64::from(round % 5) * 100 + 50));
        if round.is_multiple_of(3) {
            victims.remove(0).0.kill()?;
        }
        if round.is_multiple_of(2) {
            running.kill()?
        } else {
            running.interrupt().map(drop)?
        }
        for victim in &mut victims {
            victim.ends_within(Duration::from_secs(20)).with_context(|| format!("round {round}"))?;
        }
        round += 1;
    }
    println!("{round} rounds");
    ensure!(least(&cgroup, "open")?.0 < MS, "slow after");
    Ok(())
}

fn slow_beyond_its_longest_is_refused() -> anyhow::Result<()> {
    let (cgroup, _resident) = inhabited()?;
    let what = format!("inject slow --syscalls openat --by 3s --longest 4s --on {}", cgroup.target());
    run(&what)?.ensure_refused(&["--longest", "nobody may sleep for so long"])
}
