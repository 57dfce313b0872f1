//! Which calls are meant: by path, descriptor, thread, user and process; and those that pass by.

use std::process::{Child, Command};

use anyhow::{Context, ensure};
use kchaos::{fault::mechanism::Mechanism, target::Netns};
use tempfile::TempDir;

use super::{
    Scene, Wish, end, ensure_counted, errno, ring,
    stage::{Made, Making, READY},
    wish,
};
use crate::{
    Test,
    need::{KPROBE, LSM, SECURITY, SYSCALL},
    select::Kernels,
    victim::{
        Victim,
        call::{Call, Kind},
    },
};

pub fn tests() -> Vec<Test> {
    let test = |name: String, needs, run| Test {
        // Where a kernel keeps paths is another matter on each.
        kernels: if needs == LSM && name.contains("paths") { Kernels::Each } else { Kernels::InTurn },
        name: crate::name(module_path!(), &name),
        needs,
        run,
    };
    let mut tests = Vec::new();
    for (needs, name, runs) in [
        (LSM, "lsm", all_by::<0>()),
        (SECURITY, "fmod_ret_security", all_by::<1>()),
        (SYSCALL, "fmod_ret_syscall", all_by::<2>()),
        (KPROBE, "kprobe", all_by::<3>()),
    ] {
        let all = runs.into_iter().map(|(what, run)| test(format!("errno_{what}_by_{name}"), needs, run));
        tests.extend(all);
    }
    let uring = [
        ("errno_of_a_rings_requests_by_lsm", LSM, of_a_ring as fn() -> _),
        ("errno_that_a_ring_would_pass_by_is_refused", SYSCALL, refused_to_rings as fn() -> _),
    ];
    tests.extend(uring.map(|(name, needs, run)| test(name.to_owned(), needs, run)));
    tests
}

/// In this order.
const BY: [Mechanism; 4] =
    [Mechanism::Lsm, Mechanism::FmodRetSecurity, Mechanism::FmodRetSyscall, Mechanism::Kprobe];

type Run = fn() -> anyhow::Result<()>;

fn all_by<const BY: usize>() -> Vec<(&'static str, Run)> {
    let mut all: Vec<(&str, Run)> = vec![
        ("on_paths", paths::<BY>),
        ("on_descriptors", descriptors::<BY>),
        ("of_threads_and_users", threads_and_users::<BY>),
        ("of_a_process", process::<BY>),
    ];
    if cfg!(target_arch = "x86_64") {
        all.push(("lets_32_bit_calls_by", compat::<BY>));
    }
    all
}

/// Which of three calls fail while a wish is fulfilled.
fn hits(scene: &Scene, by: Mechanism, wish: Wish, making: Making) -> anyhow::Result<Vec<usize>> {
    let act = making.act.clone();
    let mut injection = scene.armed(&[wish], Some(by))?;
    let made = scene.make(making)?;
    let failed: Vec<usize> = (0..READY).filter(|call| made.results[*call] < 0).collect();
    ensure!(failed.iter().all(|call| made.results[*call] == errno("EIO").unwrap_or(0)), "{act}: {made:?}");
    ensure_counted(&mut injection, 0, failed.len() as u64, failed.len() as u64)?;
    end(injection)?;
    Ok(failed)
}

fn eio(call: &str, parameter: &'static str, value: &str) -> Wish {
    wish("errno", [("syscalls", call), ("error", "EIO"), ("any", "true"), (parameter, value)])
}

fn paths<const BY_: usize>() -> anyhow::Result<()> {
    let by = BY[BY_];
    let scene = Scene::new()?;
    let dir = TempDir::with_prefix("kct")?;
    let at = |name: &str| format!("{}/{name}", dir.path().display());
    let mut acts = vec![
        ("openat", "a"),
        ("openat relative", "a"),
        ("openat folder", "a"),
        ("open", "a"),
        ("read", "a"),
        ("write", "a"),
        ("truncate", "a"),
        ("mkdir", "b"),
    ];
    if matches!(by, Mechanism::FmodRetSyscall | Mechanism::Kprobe) {
        acts.push(("fsync", "a"));
    }
    for (number, (act, prefix)) in acts.into_iter().enumerate() {
        let call = act.split(' ').next().unwrap_or_default();
        let mut patterns = vec![(at(&format!("{prefix}1")), vec![1]), ("/nowhere/".to_owned(), vec![])];
        // Each call has its path from somewhere else; how it is compared is the same for all.
        if number == 0 {
            patterns.extend([
                (at(""), vec![0, 1, 2]),
                (format!("*/{prefix}2"), vec![2]),
                (at("?0"), vec![0]),
                (at("nobody"), vec![]),
            ]);
        }
        for (pattern, expected) in patterns {
            for made in 0..READY {
                // Those of the last time.
                let _ = std::fs::remove_dir(at(&format!("b{made}")));
            }
            let making = Making { dir: Some(dir.path().to_owned()), ..scene.making(act, READY) };
            let failed = hits(&scene, by, eio(call, "paths", &pattern), making)
                .with_context(|| format!("{act} on {pattern} by {by}"))?;
            ensure!(failed == expected, "{act} on {pattern} by {by}: {failed:?} failed, not {expected:?}");
        }
    }
    Ok(())
}

fn descriptors<const BY_: usize>() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    for (kind, hurts) in [("file", "write"), ("socket", "write socket"), ("pipe", "write pipe")] {
        for act in ["write", "write socket", "write pipe"] {
            let failed = hits(&scene, BY[BY_], eio("write", "fds", kind), scene.making(act, READY))?;
            let expected = if act == hurts { READY } else { 0 };
            ensure!(failed.len() == expected, "{act} on {kind}: {failed:?} failed");
        }
    }
    Ok(())
}

fn threads_and_users<const BY_: usize>() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let making = |comm: &str, user| Making {
        comm: Some(comm.to_owned()),
        user: Some(user),
        ..scene.making("socket", READY)
    };
    for (parameter, value, comm, user, expected) in [
        ("comms", "kct-a", "kct-a", 0, READY),
        ("comms", "kct-a", "kct-ab", 0, 0),
        ("users", "7-8", "kct-a", 7, READY),
        ("users", "7-8", "kct-a", 9, 0),
    ] {
        let failed = hits(&scene, BY[BY_], eio("socket", parameter, value), making(comm, user))?;
        ensure!(failed.len() == expected, "{parameter} {value}, {comm} of {user}: {failed:?} failed");
    }
    Ok(())
}

fn process<const BY_: usize>() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let netns = Netns::current()?;
    let (one, other) = (
        Victim::start_in(&netns, Some(&scene.cgroup.dir))?,
        Victim::start_in(&netns, Some(&scene.cgroup.dir))?,
    );
    let makes = |victim: &Victim| victim.call(Call::Socket { kind: Kind::Udp, v6: false }, 3);
    ensure!(makes(&one)? == [0; 3], "before");
    let tgid = one.pid.to_string();
    let injection = scene.armed(&[eio("socket", "tgid", &tgid)], Some(BY[BY_]))?;
    let (hurt, spared) = (makes(&one)?, makes(&other)?);
    ensure!(hurt == [libc::EIO; 3] && spared == [0; 3], "{hurt:?}, and beside it {spared:?}");
    end(injection)?;
    ensure!(makes(&one)? == [0; 3], "after");
    Ok(())
}

/// What is mkdir to a 32-bit program is getpid to others, who have another number for it.
fn compat<const BY_: usize>() -> anyhow::Result<()> {
    const ACT: &str = "mkdir 32-bit";
    let scene = Scene::new()?;
    let works = |when: &str| {
        let made: Made = scene.act(ACT, READY)?;
        ensure!(made.results == [0; READY] && made.effects == READY, "{when}: {made:?}");
        Ok(())
    };
    let before = scene.act(ACT, READY)?;
    if libc::WIFSIGNALED(before.status) && libc::WTERMSIG(before.status) == libc::SIGSEGV {
        println!("this kernel takes no 32-bit calls (CONFIG_IA32_EMULATION)");
        return Ok(());
    }
    works("before")?;
    let at_function = matches!(BY[BY_], Mechanism::FmodRetSyscall | Mechanism::Kprobe);
    // A kernel may let nobody answer for calls without parameters.
    let both = at_function && scene.plan(&[eio("mkdir,getpid", "max", "100")], Some(BY[BY_])).is_ok();
    let calls = if both { "mkdir,getpid" } else { "mkdir" };
    let mut injection = scene.armed(&[eio(calls, "max", "100")], Some(BY[BY_]))?;
    works("during")?;
    ensure_counted(&mut injection, 0, 0, 0)?;
    let failed = scene.act("mkdir", READY)?;
    ensure!(failed.results == [errno("EIO")?; READY] && failed.effects == 0, "{failed:?}");
    end(injection)?;
    works("after")
}

fn of_a_ring() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    for (act, call) in [("openat ring", "openat"), ("write ring", "write")] {
        let works = |when: &str| {
            let made = scene.act(act, READY)?;
            ensure!(made.results.iter().all(|result| *result >= 0), "{act} {when}: {made:?}");
            Ok(())
        };
        works("before")?;
        let mut injection = scene.armed(&[eio(call, "max", "100")], Some(Mechanism::Lsm))?;
        let made = scene.act(act, READY)?;
        ensure!(made.results == [errno("EIO")?; READY], "{act}: {made:?}");
        ensure_counted(&mut injection, 0, READY as u64, READY as u64)?;
        let beside = scene.beside(act, READY)?;
        ensure!(beside.results.iter().all(|result| *result >= 0), "{act} beside: {beside:?}");
        end(injection)?;
        works("after")?;
    }
    Ok(())
}

/// A process that keeps what it was given open, ended when this goes.
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn refused_to_rings() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let plain = || wish("errno", [("syscalls", "fsync"), ("error", "EIO")]);
    let by = Some(Mechanism::FmodRetSyscall);
    scene.plan(&[plain()], by).context("without a ring")?;
    let ring = ring::inherited()?;
    let keeper = Keeper(Command::new("sleep").arg("60").spawn()?);
    drop(ring);
    std::fs::write(scene.cgroup.dir.join("cgroup.procs"), keeper.0.id().to_string())?;
    let refused = scene.plan(&[plain()], by).err().context("a ring was not noticed")?.to_string();
    ensure!(refused.contains("io_uring: ignore"), "{refused}");
    let ignoring = wish("errno", [("syscalls", "fsync"), ("error", "EIO"), ("io_uring", "ignore")]);
    let injection = scene.armed(&[ignoring], by)?;
    let made = scene.act("fsync", READY)?;
    ensure!(made.results == [errno("EIO")?; READY], "{made:?}");
    end(injection)?;
    ensure!(scene.act("fsync", READY)?.effects == READY, "after");
    drop(keeper);
    scene.plan(&[plain()], by).context("after the ring").map(drop)
}
