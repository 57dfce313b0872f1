//! What a kernel can do: that the probe leaves nothing behind, and that the loader of raw programs does what it says
//! to whom it says.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, bail, ensure};
use kchaos::{
    fault::capability::Capability,
    kernel::{
        RawPlace,
        probe::{Hooked, probe},
    },
    target::Hierarchy,
};
use serde_json::Value;

use crate::{
    Test,
    controller::{self, exit},
    lab::Cgroup,
    tests,
};

/// System calls' entry points begin so.
const SYSCALL_PREFIX: &str = if cfg!(target_arch = "aarch64") { "__arm64_sys_" } else { "__x64_sys_" };

pub fn tests() -> Vec<Test> {
    tests![
        ROOT: doctor_tries_everything_and_leaves_nothing;
        SECURITY: security_hook_fails_for_one_cgroup_only;
        LSM: lsm_hook_fails_for_one_cgroup_only, sleepable_lsm_hook_fails_for_one_cgroup_only;
        FENTRY: a_functions_entry_is_watched, a_functions_end_is_watched;
        SYSCALL: system_call_fails_for_one_cgroup_only;
        ROOT on one kernel: a_probe_that_was_killed_is_cleaned_up_after;
        SECURITY on one kernel: a_security_hook_takes_nothing_sleepable,
            a_function_with_other_arguments_is_refused, a_function_that_is_not_there_is_named,
            a_function_that_must_not_be_changed_is_refused
    ]
}

fn doctor_tries_everything_and_leaves_nothing() -> anyhow::Result<()> {
    let ended = controller::run("doctor --json")?;
    ended.ensure_code(exit::OK)?;
    let report: Value = serde_json::from_str(&ended.output)?;
    ensure!(report["schema"] == "kchaos-doctor/1", "{report:#}");
    let tried: BTreeSet<&str> = report["probed"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|probed| probed["capability"].as_str())
        .collect();
    ensure!(tried.len() == Capability::ALL.len(), "{tried:?}");
    // Its links, namespaces and child have ended with it; only a cgroup could outlive it.
    ensure!(!ended.said.contains("left behind"), "{}", ended.said);
    Ok(())
}

fn a_probe_that_was_killed_is_cleaned_up_after() -> anyhow::Result<()> {
    // A process that has ended: what a killed probe leaves, named as it names it.
    let mut dead = Command::new("true").spawn()?;
    dead.wait()?;
    let left = Hierarchy::find()?.mount().join(format!("kchaos-probe-{}-0", dead.id()));
    fs::create_dir(&left)?;
    probe(&[Capability::CgroupSkb])?;
    ensure!(!left.exists(), "{} is still there", left.display());
    Ok(())
}

fn security_hook_fails_for_one_cgroup_only() -> anyhow::Result<()> {
    let ours = || File::open("/dev/null").map(drop).map_err(Into::into);
    let at = RawPlace::ModifyReturn("security_file_open");
    fails_for_one_cgroup_only(at, Some("bpf_lsm_file_open"), false, ": < /dev/null", ours)
}

fn lsm_hook_fails_for_one_cgroup_only() -> anyhow::Result<()> {
    let ours = || File::open("/dev/null").map(drop).map_err(Into::into);
    fails_for_one_cgroup_only(RawPlace::Lsm("file_open"), None, false, ": < /dev/null", ours)
}

fn sleepable_lsm_hook_fails_for_one_cgroup_only() -> anyhow::Result<()> {
    let ours = || File::open("/dev/null").map(drop).map_err(Into::into);
    fails_for_one_cgroup_only(RawPlace::Lsm("file_open"), None, true, ": < /dev/null", ours)
}

fn a_functions_entry_is_watched() -> anyhow::Result<()> {
    watches_one_cgroup_only(RawPlace::Fentry(&getpriority()))
}

fn a_functions_end_is_watched() -> anyhow::Result<()> {
    watches_one_cgroup_only(RawPlace::Fexit(&getpriority()))
}

fn getpriority() -> String {
    format!("{SYSCALL_PREFIX}getpriority")
}

/// Meets nobody before, one cgroup's process during, and nothing fails.
fn watches_one_cgroup_only(at: RawPlace<'_>) -> anyhow::Result<()> {
    let (cgroup, other) = (Cgroup::new()?, Cgroup::new()?);
    let id = fs::metadata(&cgroup.dir)?.ino();
    let watching = Hooked::at(at, None, false, id, 0)?;
    ensure_works(&other.dir, "nice").context("in another cgroup")?;
    ensure!(watching.hits()? == 0, "another cgroup's process counts");
    ensure_works(&cgroup.dir, "nice")?;
    ensure!(watching.hits()? > 0, "it attaches but never runs");
    Ok(())
}

/// (kernel/bpf/verifier.c, `bpf_check_attach_target`, 6.18).
fn a_security_hook_takes_nothing_sleepable() -> anyhow::Result<()> {
    match Hooked::at(RawPlace::ModifyReturn("security_file_open"), None, true, 0, -libc::EIO) {
        Ok(_) => bail!("security_file_open took a program that may sleep"),
        Err(error) if error.to_string().contains("is not sleepable") => Ok(()),
        Err(error) => bail!("expected `is not sleepable` in: {error}"),
    }
}

fn system_call_fails_for_one_cgroup_only() -> anyhow::Result<()> {
    // nice asks for the priority it has.
    let ours = || match Command::new("nice").output()?.status.success() {
        true => Ok(()),
        false => bail!("nice fails in our own cgroup"),
    };
    fails_for_one_cgroup_only(RawPlace::ModifyReturn(&getpriority()), None, false, "nice", ours)
}

/// Works before, fails with EIO during, works again after; `ours` works all the time.
fn fails_for_one_cgroup_only(
    at: RawPlace<'_>,
    written_for: Option<&str>,
    sleepable: bool,
    command: &str,
    ours: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (cgroup, other) = (Cgroup::new()?, Cgroup::new()?);
    let id = fs::metadata(&cgroup.dir)?.ino();
    ensure_works(&cgroup.dir, command).context("before")?;
    let hooked = Hooked::at(at, written_for, sleepable, id, -libc::EIO)?;
    let (works, said) = run_in(&cgroup.dir, command)?;
    ensure!(!works && said.contains("Input/output error"), "{command} should fail with EIO: {said}");
    ensure!(hooked.hits()? > 0, "it failed, but the program did not run");
    ensure_works(&other.dir, command).context("in another cgroup")?;
    ours().context("in our own cgroup")?;
    drop(hooked);
    ensure_works(&cgroup.dir, command).context("after")
}

fn ensure_works(cgroup: &Path, command: &str) -> anyhow::Result<()> {
    let (works, said) = run_in(cgroup, command)?;
    ensure!(works, "{command}: {said}");
    Ok(())
}

/// Whether a shell's command works in a cgroup, and what it says if not. The shell enters the cgroup itself, by a
/// file it has opened before.
fn run_in(cgroup: &Path, command: &str) -> anyhow::Result<(bool, String)> {
    let script = format!("echo $$ > \"$0/cgroup.procs\" || exit 99; {command}");
    let output = Command::new("sh").args(["-c", &script]).arg(cgroup).env("LC_ALL", "C").output()?;
    ensure!(output.status.code() != Some(99), "the shell could not enter {}", cgroup.display());
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Its arguments are those of the hook in another number (security/security.c, `security_mmap_file`, 6.18).
fn a_function_with_other_arguments_is_refused() -> anyhow::Result<()> {
    refused(
        "security_mmap_file",
        Some("bpf_lsm_mmap_file"),
        "does not take the arguments of bpf_lsm_mmap_file",
    )
}

fn a_function_that_is_not_there_is_named() -> anyhow::Result<()> {
    refused("security_nobody_knows", None, "this kernel has no function security_nobody_knows")
}

fn a_function_that_must_not_be_changed_is_refused() -> anyhow::Result<()> {
    refused("tcp_sendmsg", None, "tcp_sendmsg() is not modifiable")
}

fn refused(function: &str, written_for: Option<&str>, words: &str) -> anyhow::Result<()> {
    match Hooked::at(RawPlace::ModifyReturn(function), written_for, false, 0, -libc::EIO) {
        Ok(_) => bail!("{function} was modified"),
        Err(error) if error.to_string().contains(words) => Ok(()),
        Err(error) => bail!("expected `{words}` in: {error}"),
    }
}
