//! What the kernel does not let a fault look at: where it lets threads be preempted within a program, another thread's call on that
//! CPU is not looked at. It is counted.

use std::{
    env,
    ffi::OsStr,
    fs,
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use kchaos::target::Netns;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{errno, stage::raw_named};
use crate::{
    Test,
    controller::{self, exit},
    lab::Cgroup,
    tests,
    turn::at_calls,
    victim::Victim,
};

pub fn tests() -> Vec<Test> {
    tests![PREEMPTIBLE: a_call_that_a_program_missed_is_counted]
}

/// What has this program be the one whose calls are missed.
pub const VERB: &str = "calls-preempted";
/// How often the urgent thread interrupts the other one.
const TIMES: u32 = 4_000;

/// Who is interrupted within the program, and who interrupts: no call of theirs succeeds but those that the kernel says it
/// has missed.
fn a_call_that_a_program_missed_is_counted() -> anyhow::Result<()> {
    let _alone = at_calls();
    let cgroup = Cgroup::new()?;
    let _resident = Victim::start_in(&Netns::current()?, Some(&cgroup.dir))?;
    ensure!(succeeded(&cgroup)? >= u64::from(TIMES), "before");
    let fault = "errno --syscalls getpriority --error EACCES --mechanism fmod-ret-syscall";
    let kchaos = controller::inject(&format!("{fault} --on {}", cgroup.target()))?;
    let succeeded_during = succeeded(&cgroup)?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let missed = ended.json()?["recursion_misses"].as_u64().context("no recursion_misses")?;
    println!("{missed} missed, {succeeded_during} succeeded");
    ensure!(missed > 0, "nothing was missed: {}", ended.output);
    ensure!((1..=missed).contains(&succeeded_during), "{missed} missed, {succeeded_during} succeeded");
    ensure!(succeeded(&cgroup)? >= u64::from(TIMES), "after");
    Ok(())
}

/// How many calls of two threads in a cgroup succeed.
fn succeeded(cgroup: &Cgroup) -> anyhow::Result<u64> {
    let output = Command::new(env::current_exe()?).arg(VERB).arg(&cgroup.dir).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The program itself: says how many calls succeeded.
pub fn main(cgroup: &OsStr) -> ExitCode {
    match preempting(cgroup) {
        Ok(succeeded) => {
            println!("{succeeded}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Two threads on one CPU, one of which always makes the call, and one that comes in between to make it.
fn preempting(cgroup: &OsStr) -> anyhow::Result<u64> {
    fs::write(std::path::Path::new(cgroup).join("cgroup.procs"), std::process::id().to_string())?;
    let mut cpu = CpuSet::new();
    cpu.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpu)?;
    let refused = errno("EACCES")?;
    let succeeds = || u64::from(raw_named("getpriority", [0; 6]) != refused);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut succeeded = 0;
            while !over.load(Ordering::Relaxed) {
                succeeded += succeeds();
            }
            succeeded
        });
        let urgent = urgent().map(|()| {
            let mut succeeded = 0;
            for _ in 0..TIMES {
                thread::sleep(Duration::from_micros(100));
                succeeded += succeeds();
            }
            succeeded
        });
        over.store(true, Ordering::Relaxed);
        let busy = busy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(busy + urgent?)
    })
}

/// Lets the calling thread run as soon as it wakes.
fn urgent() -> std::io::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: reads the parameter, which is there.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
