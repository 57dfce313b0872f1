//! What else happens to calls: they lie, signal, find no memory, no disk, no descriptors; and how often.

use anyhow::{Context, ensure};
use kchaos::fault::mechanism::Mechanism;

use super::{
    Scene, Wish, end, ensure_counted, errno,
    stage::{Made, NEVER, READY},
    wish,
};
use crate::{Test, flow::ensure_binomial, tests};

pub fn tests() -> Vec<Test> {
    tests![
        SYSCALL on one kernel: retval_loses_writes_by_fmod_ret;
        KPROBE on one kernel: retval_loses_writes_by_kprobe, retval_of_0_lies_by_kprobe;
        LSM on one kernel: signal_kills_at_the_third_call, signal_lets_a_call_go_on, disk_is_full, disk_is_broken,
            disk_is_read_only, fds_are_used_up, errno_has_the_shares_of_its_weights,
            errno_when_every_max_and_percent;
        MEMORY on one kernel: alloc_fails_and_stacks_grow
    ]
}

fn retval_loses_writes_by_fmod_ret() -> anyhow::Result<()> {
    pretends(Mechanism::FmodRetSyscall, "write", "512")
}

fn retval_loses_writes_by_kprobe() -> anyhow::Result<()> {
    pretends(Mechanism::Kprobe, "write", "512")
}

/// What fsync has done, nobody sees; what close has not done, one does.
fn retval_of_0_lies_by_kprobe() -> anyhow::Result<()> {
    pretends(Mechanism::Kprobe, "fsync", "0")?;
    pretends(Mechanism::Kprobe, "close", "0")
}

/// A call says what it was told to, and has done nothing.
fn pretends(by: Mechanism, call: &'static str, returns: &str) -> anyhow::Result<()> {
    let scene = Scene::new()?;
    works(&scene, &[call]).context("before")?;
    let wishes = [wish("retval", [("syscalls", call), ("returns", returns)])];
    let mut injection = scene.armed(&wishes, Some(by))?;
    let made = scene.act(call, READY)?;
    ensure!(made.results == [returns.parse::<i64>()?; READY], "{made:?}");
    // The effect of fsync is what it returns.
    ensure!(call == "fsync" || made.effects == 0, "it was done: {made:?}");
    ensure_counted(&mut injection, 0, READY as u64, READY as u64)?;
    let beside = scene.beside(call, READY)?;
    // What has been done can only be told from the answer where that is another one.
    ensure!(beside.effects == READY && (returns == "0" || beside.results != made.results), "{beside:?}");
    end(injection)?;
    works(&scene, &[call]).context("after")
}

fn signal_kills_at_the_third_call() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    works(&scene, &["mkdir"])?;
    let kill = wish("signal", [("syscalls", "mkdir"), ("signal", "SIGKILL"), ("when", "3..3")]);
    let mut injection = scene.armed(&[kill], None)?;
    let beside = scene.beside("mkdir", READY)?;
    ensure!(beside.effects == READY, "{beside:?}");
    let made = scene.act("mkdir", READY)?;
    ensure!(libc::WIFSIGNALED(made.status) && libc::WTERMSIG(made.status) == libc::SIGKILL, "{made:?}");
    ensure!(made.results == [0, 0, NEVER], "it came back: {made:?}");
    ensure!(made.effects == 2, "the third has made its directory: {made:?}");
    ensure_counted(&mut injection, 0, 1, 3)?;
    end(injection)?;
    works(&scene, &["mkdir"])
}

fn signal_lets_a_call_go_on() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let made = scene.act("mkdir", READY)?;
    ensure!(made.signals == 0 && made.effects == READY, "before: {made:?}");
    let usr1 = wish("signal", [("syscalls", "mkdir"), ("signal", "SIGUSR1"), ("error", "none")]);
    let injection = scene.armed(&[usr1], None)?;
    let made = scene.act("mkdir", READY)?;
    ensure!(made.signals as usize == READY, "its handler did not run for each: {made:?}");
    ensure!(made.results == [0; READY] && made.effects == READY, "the call did not go on: {made:?}");
    ensure!(scene.beside("mkdir", READY)?.signals == 0, "somebody else got it");
    end(injection)?;
    ensure!(scene.act("mkdir", READY)?.signals == 0, "after");
    Ok(())
}

fn alloc_fails_and_stacks_grow() -> anyhow::Result<()> {
    let hurts = ["mmap", "mremap", "brk", "clone"];
    let (scene, injection) = hurt(&[wish("alloc", [])], "ENOMEM", &hurts, &["stack", "mprotect", "openat"])?;
    let grown = scene.act("stack", READY)?;
    ensure!(grown.status == 0, "it died of its stack: {grown:?}");
    end(injection)?;
    works(&scene, &hurts).context("after")
}

const ELSEWHERE: &[&str] = &["write socket", "write pipe", "read pipe", "read socket"];

fn disk_is_full() -> anyhow::Result<()> {
    let hurts = ["write", "pwrite64", "writev", "fallocate", "mkdir", "mkdirat", "link", "symlink"];
    let spares = [ELSEWHERE, &["read", "getdents64", "openat", "unlink", "stat"]].concat();
    let (scene, injection) = hurt(&[wish("disk", [("is", "full")])], "ENOSPC", &hurts, &spares)?;
    end(injection)?;
    works(&scene, &hurts).context("after")
}

fn disk_is_broken() -> anyhow::Result<()> {
    let hurts =
        ["write", "pwrite64", "writev", "read", "pread64", "readv", "getdents64", "openat", "ftruncate"];
    let spares = [ELSEWHERE, &["stat", "chmod"]].concat();
    let (scene, injection) = hurt(&[wish("disk", [("is", "broken")])], "EIO", &hurts, &spares)?;
    end(injection)?;
    works(&scene, &hurts).context("after")
}

fn disk_is_read_only() -> anyhow::Result<()> {
    let hurts = [
        "write",
        "pwrite64",
        "mkdir",
        "unlink",
        "unlinkat",
        "rename",
        "renameat2",
        "rmdir",
        "link",
        "symlink",
        "truncate",
        "ftruncate",
        "chmod",
        "fchmodat",
        "chown",
        "fallocate",
    ];
    let spares = [ELSEWHERE, &["read", "getdents64", "openat", "open", "openat2", "stat"]].concat();
    let (scene, injection) = hurt(&[wish("disk", [("is", "read-only")])], "EROFS", &hurts, &spares)?;
    // Opening to write fails too; at a hook the file has been made by then.
    for act in ["openat new", "creat"] {
        let made = scene.act(act, READY)?;
        ensure!(made.results == [errno("EROFS")?; READY], "{act}: {made:?}");
    }
    end(injection)?;
    works(&scene, &hurts).context("after")
}

fn fds_are_used_up() -> anyhow::Result<()> {
    let hurts = [
        "openat",
        "open",
        "openat2",
        "socket",
        "accept4",
        "pipe2",
        "eventfd2",
        "epoll_create1",
        "memfd_create",
    ];
    let spares = ["read", "write", "mkdir", "connect", "mmap"];
    let (scene, injection) = hurt(&[wish("fds", [])], "EMFILE", &hurts, &spares)?;
    end(injection)?;
    works(&scene, &hurts).context("after")
}

/// All works before; during, these calls fail with this error and have no effect, those work, and somebody else's all
/// work.
fn hurt(
    wishes: &[Wish],
    error: &str,
    hurts: &[&str],
    spares: &[&str],
) -> anyhow::Result<(Scene, kchaos::kernel::LiveInjection)> {
    let scene = Scene::new()?;
    works(&scene, hurts).context("before")?;
    works(&scene, spares).context("before")?;
    let mut injection = scene.armed(wishes, None)?;
    for act in hurts {
        let made = scene.act(act, READY)?;
        ensure!(made.results == [errno(error)?; READY] && made.effects == 0, "{act}, not {error}: {made:?}");
        let beside = scene.beside(act, READY)?;
        ensure!(worked(&beside), "{act} beside: {beside:?}");
        super::counted(&mut injection, 0)?;
    }
    works(&scene, spares).context("during")?;
    Ok((scene, injection))
}

fn worked(made: &Made) -> bool {
    made.results.iter().all(|result| *result >= 0) && made.effects == READY
}

fn works(scene: &Scene, acts: &[&str]) -> anyhow::Result<()> {
    for act in acts {
        let made = scene.act(act, READY)?;
        ensure!(worked(&made) || *act == "brk" && made.results == [0; READY], "{act}: {made:?}");
    }
    Ok(())
}

const MANY: usize = 2_000;

fn errno_has_the_shares_of_its_weights() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let wishes = [wish("errno", [("syscalls", "write"), ("error", "EIO:3,ENOSPC:1")])];
    let injection = scene.armed(&wishes, None)?;
    let (eio, enospc) = (errno("EIO")?, errno("ENOSPC")?);
    ensure_binomial("EIO of EIO:3,ENOSPC:1", MANY as u64, 0.75, || {
        let results = scene.act("write", MANY)?.results;
        ensure!(results.iter().all(|result| [eio, enospc].contains(result)), "another error");
        Ok(results.iter().filter(|result| **result == eio).count() as u64)
    })?;
    end(injection)?;
    works(&scene, &["write"])
}

fn errno_when_every_max_and_percent() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let hits = |parameters: [(&'static str, &str); 1], times: usize| -> anyhow::Result<Vec<usize>> {
        let [parameter] = parameters;
        let wishes = [wish("errno", [("syscalls", "write"), ("error", "EIO"), parameter])];
        let injection = scene.armed(&wishes, None)?;
        let results = scene.act("write", times)?.results;
        end(injection)?;
        // The first is number 1.
        Ok((1..=times).filter(|call| results[call - 1] < 0).collect())
    };
    ensure!(hits([("when", "2..3")], 10)? == [2, 3], "when 2..3");
    ensure!(hits([("when", "4+3")], 10)? == [4, 7, 10], "when 4+3");
    ensure!(hits([("every", "3")], 10)? == [3, 6, 9], "every 3");
    ensure!(hits([("max", "2")], 10)? == [1, 2], "max 2");
    ensure_binomial("percent 25", MANY as u64, 0.25, || Ok(hits([("percent", "25")], MANY)?.len() as u64))?;
    works(&scene, &["write"])
}
