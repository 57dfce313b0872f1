//! Running other programs.

use std::{
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::setup::is_root;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path))
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Runs a command to its end; an error if it fails or takes too long.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = bounded(command).status().with_context(|| format!("starting {}", line(command)))?;
    check_bounded(command, status)
}

/// More than anything takes that a stage runs, building everything from nothing included.
const COMMAND_WITHIN_S: u64 = 40 * 60;
/// For who was asked to end to do so.
const ENDS_WITHIN_S: u64 = 20;
/// How timeout(1) says that it was too late.
const TOO_LATE: i32 = 124;

/// The same command, which ends with all that it started when it takes too long, and when we are killed.
pub(crate) fn bounded(command: &Command) -> Command {
    let mut bounded = Command::new("setpriv");
    bounded.args(["--pdeathsig", "TERM", "timeout"]);
    if !is_root() {
        // In the background, sudo could not ask for a password.
        bounded.arg("--foreground");
    }
    bounded.arg(format!("--kill-after={ENDS_WITHIN_S}")).arg(COMMAND_WITHIN_S.to_string());
    bounded.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bounded.current_dir(folder);
    }
    bounded
}

/// Runs a command, and ends it if it takes longer than this.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child =
        command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {}", line(command)))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return check(command, status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("`{}` took longer than {} s", line(command), limit.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What a command prints, if it succeeds.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", line(command)))?;
    check(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command for its effect alone, and says whether it succeeded.
pub(crate) fn quietly(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), value?.to_string_lossy())));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    variables.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

/// An error if a bounded command failed or took too long.
pub(crate) fn check_bounded(command: &Command, status: ExitStatus) -> Result<()> {
    if status.code() == Some(TOO_LATE) {
        bail!("`{}` took longer than {} minutes", line(command), COMMAND_WITHIN_S / 60);
    }
    check(command, status)
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let started = Instant::now();
        let error = run_within(Command::new("sleep").arg("30"), Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_bounded_command_is_the_same_otherwise() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $A $B; pwd"]).env("A", "1").env_remove("B").current_dir("/");
        let bounded = bounded(&command);
        assert!(line(&bounded).starts_with("A=1 setpriv --pdeathsig TERM timeout "));
        assert_eq!(bounded.get_current_dir(), Some("/".as_ref()));
        assert_eq!(capture(&mut { bounded }).unwrap(), "1\n/\n");
    }

    #[test]
    fn a_line_can_be_typed() {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y"]);
        assert_eq!(line(&command), "DEBIAN_FRONTEND=noninteractive apt-get install -y");
    }
}
