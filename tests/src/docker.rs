//! A container as the target.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Test,
    controller::{self, exit},
    tests,
};

/// Names the daemon that the task runner has started for the tests.
const HOST_VARIABLE: &str = "KCHAOS_TEST_DOCKER_HOST";
const SYSTEM_HOST: &str = "unix:///var/run/docker.sock";
/// For a daemon that has work to do.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

pub fn tests() -> Vec<Test> {
    tests![DOCKER on any kernel: loss_hits_a_container_by_name, other_images_are_worth_a_word]
}

/// A Docker daemon.
pub struct Daemon {
    /// As DOCKER_HOST takes it.
    pub host: String,
}

/// The daemon that was started for the tests, or the machine's; else why there is none.
pub fn daemon() -> &'static Result<Daemon, String> {
    static DAEMON: OnceLock<Result<Daemon, String>> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let host = env::var(HOST_VARIABLE).unwrap_or_else(|_| SYSTEM_HOST.into());
        if let Some(socket) = host.strip_prefix("unix://").filter(|socket| !Path::new(socket).exists()) {
            return Err(format!("no {socket}, and {HOST_VARIABLE} names no other"));
        }
        let daemon = Daemon { host };
        daemon.docker(&["info", "--format", "{{.ID}}"]).map_err(|error| format!("{error:#}"))?;
        Ok(daemon)
    })
}

impl Daemon {
    /// What `docker` prints, if it succeeds in time.
    fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.try_docker(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn try_docker(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut docker = Command::new("docker");
        docker.args(["--host", &self.host]).args(arguments);
        let streams = docker.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().context("starting docker")?;
        let deadline = Instant::now() + ANSWERS_WITHIN;
        // What it prints is short enough for a pipe.
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(child.wait_with_output()?)
    }

    /// An image of busybox alone, made from the machine's own: no registry is needed.
    fn import_busybox(&self, name: &str) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let tree = folder.path().join("tree/bin");
        fs::create_dir_all(&tree)?;
        fs::copy("/bin/busybox", tree.join("busybox")).context("/bin/busybox (package busybox-static)")?;
        let tar = folder.path().join("image.tar");
        let packed = Command::new("/bin/busybox")
            .arg("tar")
            .arg("-cf")
            .arg(&tar)
            .args(["-C"])
            .arg(folder.path().join("tree"))
            .arg("bin")
            .status()?;
        ensure!(packed.success(), "packing an image");
        self.docker(&["import", &tar.display().to_string(), name]).map(drop)
    }
}

/// A container that does nothing, and its image; both removed when this goes.
struct Container {
    daemon: &'static Daemon,
    name: String,
}

impl Container {
    fn start(daemon: &'static Daemon, called: &str) -> anyhow::Result<Self> {
        let container = Self { daemon, name: format!("kchaos-test-{}-{called}", std::process::id()) };
        daemon.import_busybox(&container.name)?;
        let name = container.name.as_str();
        daemon.docker(&["run", "--detach", "--name", name, name, "/bin/busybox", "sleep", "300"])?;
        Ok(container)
    }

    fn gateway(&self) -> anyhow::Result<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}";
        self.daemon.docker(&["inspect", "--format", format, &self.name])
    }

    /// How many of three echo requests are answered.
    fn answered(&self, address: &str) -> anyhow::Result<u64> {
        let ping = ["exec", &self.name, "/bin/busybox", "ping", "-c", "3", "-i", "0.2", "-W", "1", address];
        let output = String::from_utf8(self.daemon.try_docker(&ping)?.stdout)?;
        let received = output.split(',').find_map(|part| part.trim().strip_suffix(" packets received"));
        received.with_context(|| format!("ping: {output}"))?.parse().context("a count")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The container may never have been started; its image may never have been imported.
        let _ = self.daemon.docker(&["rm", "--force", &self.name]);
        let _ = self.daemon.docker(&["rmi", "--force", &self.name]);
    }
}

/// The only other machine on a container's network is its gateway, which is spared unless somebody insists.
fn loss_hits_a_container_by_name() -> anyhow::Result<()> {
    let daemon = daemon().as_ref().map_err(anyhow::Error::msg)?;
    let container = Container::start(daemon, "loss")?;
    let gateway = container.gateway()?;
    let before = container.answered(&gateway)?;
    ensure!(before == 3, "{before} of 3 echo requests are answered before anything is injected");
    let arguments = format!("loss --percent 100 --on docker:{}", container.name);
    let kchaos = controller::inject(&arguments)?;
    let spared = container.answered(&gateway)?;
    let ended = kchaos.interrupt()?;
    ensure!(
        spared == 3,
        "{spared} of 3 echo requests to the gateway were answered, which is spared by default"
    );
    ensure!(ended.outcome("filtered")? == 3, "{}", ended.output);
    let kchaos = controller::inject(&format!("{arguments} --allow-defaults false"))?;
    let during = container.answered(&gateway)?;
    ensure!(during == 0, "{during} of 3 echo requests were answered though all are lost");
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    ensure!(ended.outcome("injected")? == 3, "{}", ended.output);
    let after = container.answered(&gateway)?;
    ensure!(after == 3, "{after} of 3 echo requests are answered afterwards");
    let missing = controller::run("inject loss --percent 1 --on docker:kchaos-test-nobody")?;
    missing.ensure_refused(&["there is no such container"])
}

/// Each of the two has an image of its own. Nobody asks them anything, so it ends with the baseline.
fn other_images_are_worth_a_word() -> anyhow::Result<()> {
    let daemon = daemon().as_ref().map_err(anyhow::Error::msg)?;
    let [one, other] = ["one", "other"].map(|called| Container::start(daemon, called));
    let [one, other] = [one?, other?];
    let folder = tempfile::tempdir()?;
    let [spec, report] = ["spec.yaml", "report.json"].map(|name| folder.path().join(name));
    let text = format!(
        "version: 1\nname: images\ngroups: {{ control: 'docker:{}', experiment: 'docker:{}' }}\n\
         steady_state: {{ gates: [{{ metric: net.tx_packets, decrease: 30% }}] }}\n\
         faults: [{{ loss: {{ percent: 100% }} }}]\n\
         run: {{ design: hold, baseline: 5s, inject: 5s, recover: 5s, settle: 0s }}\n",
        one.name, other.name
    );
    fs::write(&spec, text)?;
    let ended = controller::run(&format!("run {} --json {}", spec.display(), report.display()))?;
    ended.ensure_code(exit::INVALID)?;
    let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
    let preflight = report["preflight"].as_array().context("no preflight")?;
    let alike = preflight.iter().find(|finding| finding["check"] == "alike").context("nothing of images")?;
    let detail = alike["detail"].as_str().unwrap_or_default();
    let expected = format!("image is {} in the control group and {} in the", one.name, other.name);
    ensure!(detail.contains(&expected) && alike["ok"] == false && alike["refuses"] == false, "{alike:#}");
    Ok(())
}
