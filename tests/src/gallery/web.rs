//! A web server that has no descriptors left, and a client that is refused.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use super::{Scene, ensure_complains, ensure_logged, ensure_says, shown};
use crate::{
    Test,
    clients::{Client, Done, Server},
    lab::Cgroup,
    tests,
};

pub fn tests() -> Vec<Test> {
    tests![
        HTTP_CALLS on one kernel: nginx_answers_500_when_it_cannot_open_a_file,
            nginx_lets_wait_when_it_cannot_accept, curl_says_7_when_connect_fails;
        HTTP_SOCK on one kernel: curl_says_7_when_it_is_refused
    ]
}

const HURT: u16 = 80;
const SPARED: u16 = 81;
/// What curl says if it cannot connect.
const NOT_CONNECTED: i32 = 7;
/// … if it takes too long.
const TIMED_OUT: i32 = 28;
/// What curl is to print behind the page.
const STATUS: &str = "%{http_code}";

/// A web server with one page.
struct Web {
    folder: PathBuf,
    port: u16,
    _nginx: Server,
}

impl Web {
    fn new(scene: &Scene, cgroup: &Cgroup, name: &str, port: u16) -> anyhow::Result<Self> {
        let folder = scene.below(name)?;
        fs::create_dir(folder.join("www"))?;
        fs::write(folder.join("www/index.html"), "hello\n")?;
        fs::write(folder.join("nginx.conf"), configuration(&folder, port))?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "error.log"]);
        let answers = || Ok(fetch(scene, &scene.beside, port, "5")?.code == Some(0));
        let _nginx = scene.serve(cgroup, nginx)?.answers(answers)?;
        Ok(Self { folder, port, _nginx })
    }

    /// What somebody in a cgroup gets.
    fn fetch(&self, scene: &Scene, cgroup: &Cgroup) -> anyhow::Result<Done> {
        fetch(scene, cgroup, self.port, "5")
    }

    fn is_well(&self, scene: &Scene, cgroup: &Cgroup, when: &str) -> anyhow::Result<()> {
        ensure_says(&self.fetch(scene, cgroup)?, "hello\n200", when)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("error.log")
    }
}

fn fetch(scene: &Scene, cgroup: &Cgroup, port: u16, within_s: &str) -> anyhow::Result<Done> {
    let url = url(port);
    let words = ["curl", "--silent", "--show-error", "--max-time", within_s, "--write-out", STATUS, &url];
    scene.ask(cgroup, &words, "")
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

/// Everything that it writes is in its folder, as it may write nowhere else. It runs as root, as its folder is root's.
fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/{what}; "))
        .concat();
    format!(
        "daemon off; master_process off; pid {folder}/pid; events {{}}\n\
         http {{ access_log off; {places}\n\
         server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}\n"
    )
}

/// Two servers: who is hurt, and who is not.
fn two(scene: &Scene) -> anyhow::Result<(Web, Web)> {
    let hurt = Web::new(scene, &scene.cgroup, "hurt", HURT)?;
    let spared = Web::new(scene, &scene.beside, "spared", SPARED)?;
    hurt.is_well(scene, &scene.beside, "before")?;
    Ok((hurt, spared))
}

/// It accepts, and says that it is its own fault.
fn nginx_answers_500_when_it_cannot_open_a_file() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let (hurt, spared) = two(&scene)?;
    let open = "errno --syscalls openat --error EMFILE";
    let fault = scene.inject(&format!("{open} --paths {}/", scene.folder.path().display()))?;
    let done = hurt.fetch(&scene, &scene.beside)?;
    ensure!(done.code == Some(0) && done.output.ends_with("500"), "{}", shown(&done));
    ensure_complains(&done, &["500 Internal Server Error"])?;
    spared.is_well(&scene, &scene.beside, "beside, during")?;
    fault.end()?;
    ensure_logged("nginx", &hurt.log(), &["index.html\" failed (24: Too many open files)"])?;
    hurt.is_well(&scene, &scene.beside, "after")
}

/// Who comes is in the kernel's queue, hears nothing, and is answered when there are descriptors again, if it still waits.
fn nginx_lets_wait_when_it_cannot_accept() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let (hurt, spared) = two(&scene)?;
    let fault = scene.inject("fds")?;
    let impatient = fetch(&scene, &scene.beside, HURT, "2")?;
    ensure!(impatient.code == Some(TIMED_OUT), "{}", shown(&impatient));
    // It is connected all the same.
    scene.netns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, HURT)))?.context("connecting")?;
    let url = url(HURT);
    let words = ["curl", "--silent", "--show-error", "--max-time", "40", "--write-out", STATUS, &url];
    let patient = Client::start(&scene.netns, &scene.beside, &words, "")?;
    spared.is_well(&scene, &scene.beside, "beside, during")?;
    fault.end()?;
    let patient = patient.done()?;
    println!("curl --max-time 40, asked during: {}", shown(&patient));
    ensure_says(&patient, "hello\n200", "who waited")?;
    ensure_logged("nginx", &hurt.log(), &["accept4() failed (24: Too many open files)"])?;
    hurt.is_well(&scene, &scene.beside, "after")
}

fn curl_says_7_when_connect_fails() -> anyhow::Result<()> {
    curl_says_7("errno --syscalls connect --error ECONNREFUSED")
}

fn curl_says_7_when_it_is_refused() -> anyhow::Result<()> {
    curl_says_7("refuse")
}

/// As if nobody listened there.
fn curl_says_7(fault: &str) -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let web = Web::new(&scene, &scene.beside, "web", SPARED)?;
    web.is_well(&scene, &scene.cgroup, "before")?;
    let fault = scene.inject(fault)?;
    let done = web.fetch(&scene, &scene.cgroup)?;
    ensure!(done.code == Some(NOT_CONNECTED), "{}", shown(&done));
    ensure_complains(&done, &["curl: (7) Failed to connect to 127.0.0.1 port 81"])?;
    web.is_well(&scene, &scene.beside, "beside, during")?;
    fault.end()?;
    web.is_well(&scene, &scene.cgroup, "after")
}
