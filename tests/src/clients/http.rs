//! curl asks nginx for a file.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::{Client, Done, Scene, Server};
use crate::{
    Test,
    controller::{self, exit},
    lab::{Cgroup, OUTSIDE, OUTSIDE_V6},
    tests,
};

pub fn tests() -> Vec<Test> {
    tests![
        HTTP on one kernel: http_corrupt_and_broken_never_reaches_curl,
            http_corrupt_at_the_server_leaves_its_file_alone, http_partition_in_silence_times_out,
            http_partition_by_rst_fails_at_once, http_loss_of_one_segment_costs_a_second,
            http_loss_leaves_the_body_whole, http_corrupt_and_mended_reaches_curl;
        HTTP_SOCK on one kernel: http_refused_fails_at_once;
        HTTP_DESTROY on one kernel: http_reset_ends_a_download;
        HTTP_HOLD on one kernel: http_delay_shows_in_the_times_of_curl
    ]
}

const ADDRESSES: [IpAddr; 2] = [OUTSIDE, OUTSIDE_V6];
const PORT: u16 = 80;
const BYTES: usize = 1 << 20;
/// The header of an answer, which is all in one packet, ends before.
const PAST_THE_HEADER: usize = 1000;
/// What curl says if it cannot connect.
const NOT_CONNECTED: i32 = 7;
/// … if it takes too long.
const TIMED_OUT: i32 = 28;
/// … if a connection fails while it receives.
const RECEIVE_FAILED: i32 = 56;
/// Before TCP's first timer, after which it would try again (RFC 6298).
const AT_ONCE_S: f64 = 0.95;

/// A web server with a file of zeros.
struct Web {
    scene: Scene,
    folder: TempDir,
    _nginx: Server,
}

/// What curl came to.
struct Fetched {
    done: Done,
    body: Vec<u8>,
    connect_s: f64,
    total_s: f64,
}

impl Web {
    fn new() -> anyhow::Result<Self> {
        let (scene, folder) = (Scene::new()?, TempDir::new()?);
        fs::write(folder.path().join("zeros"), vec![0; BYTES])?;
        fs::write(folder.path().join("nginx.conf"), configuration(&folder))?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        let begun = || {
            Ok(scene
                .lab
                .outside
                .run(|| fs::read_to_string("/proc/thread-self/net/tcp6"))??
                .contains(":0050 "))
        };
        let nginx = scene.serve(nginx)?.answers(begun)?;
        Ok(Self { scene, folder, _nginx: nginx })
    }

    fn curl(&self, cgroup: &Cgroup, address: IpAddr, options: &[&str]) -> anyhow::Result<Client> {
        let body = self.folder.path().join("body");
        let _ = fs::remove_file(&body); // the last one's, if any
        let url = format!("http://{}/zeros", SocketAddr::new(address, PORT));
        let body = body.to_str().context("a folder's name")?;
        let asked = ["curl", "--silent", "--show-error", "--max-time", "20", "--output", body];
        let written = ["--write-out", "%{time_connect} %{time_total}", &url];
        self.scene.client(cgroup, &[&asked[..], &written, options].concat())
    }

    fn fetched(&self, client: Client) -> anyhow::Result<Fetched> {
        let done = client.done()?;
        let body = fs::read(self.folder.path().join("body")).unwrap_or_default();
        let times = done.output.split_whitespace().map(|time| time.parse().ok());
        let times: Option<Vec<f64>> = times.collect();
        let Some([connect_s, total_s]) = times.as_deref().map(<[f64; 2]>::try_from).transpose()? else {
            bail!("curl says: {} {}", done.output, done.said)
        };
        Ok(Fetched { done, body, connect_s, total_s })
    }

    /// What the target gets.
    fn fetch(&self, address: IpAddr, options: &[&str]) -> anyhow::Result<Fetched> {
        self.fetched(self.curl(&self.scene.cgroup, address, options)?)
    }

    /// Who is asked about gets the whole file.
    fn is_whole(&self, cgroup: &Cgroup, when: &str) -> anyhow::Result<()> {
        ADDRESSES.iter().try_for_each(|address| {
            let fetched = self.fetched(self.curl(cgroup, *address, &[])?)?;
            ensure!(fetched.whole(), "{when}, {address}: {}", fetched.text());
            Ok(())
        })
    }

    /// Before, the target gets the file; during, `work` says; afterwards it gets it again. A neighbour always does.
    fn during(
        &self,
        fault: &str,
        mut work: impl FnMut(IpAddr) -> anyhow::Result<()>,
    ) -> anyhow::Result<controller::Ended> {
        self.is_whole(&self.scene.cgroup, "before")?;
        let kchaos = self.scene.inject(fault)?;
        ADDRESSES
            .iter()
            .try_for_each(|address| work(*address).with_context(|| format!("{fault}, {address}")))?;
        self.is_whole(&self.scene.neighbours, "a neighbour, during")?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        self.is_whole(&self.scene.cgroup, "after")?;
        Ok(ended)
    }
}

/// Everything that it writes is in its folder, as it may write nowhere else.
fn configuration(folder: &TempDir) -> String {
    let folder = folder.path().display();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/{what}; "))
        .concat();
    // With sendfile, segments have the file's own pages in them.
    format!(
        "daemon off; master_process off; pid {folder}/pid; events {{}}\n\
         http {{ access_log off; sendfile on; {places}\n\
         server {{ listen {PORT}; listen [::]:{PORT}; root {folder};\n\
         location /slow {{ alias {folder}/zeros; limit_rate 20k; }} }} }}\n"
    )
}

impl Fetched {
    fn whole(&self) -> bool {
        self.done.code == Some(0) && self.body.len() == BYTES && self.flipped() == 0
    }

    /// Bits that are not 0.
    fn flipped(&self) -> u64 {
        self.body.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    fn text(&self) -> String {
        let Done { code, output, said } = &self.done;
        let (bytes, bits) = (self.body.len(), self.flipped());
        format!("curl ended with {code:?} after {output} s, {bytes} bytes, {bits} bits flipped: {said}")
    }

    fn ensure_failed(&self, code: i32) -> anyhow::Result<()> {
        ensure!(self.done.code == Some(code), "expected exit code {code}: {}", self.text());
        Ok(())
    }

    fn ensure_failed_at_once(&self, code: i32) -> anyhow::Result<()> {
        self.ensure_failed(code)?;
        ensure!(self.total_s < AT_ONCE_S, "it took too long: {}", self.text());
        Ok(())
    }
}

/// curl has no reason to complain: as long a body as there is, of which some bits are others.
fn http_corrupt_and_mended_reaches_curl() -> anyhow::Result<()> {
    const BITS: u64 = 3;
    let web = Web::new()?;
    let fault = format!("corrupt --direction ingress --every 2 --bits {BITS} --offset {PAST_THE_HEADER}..");
    let mut flipped = 0;
    let ended = web.during(&fault, |address| {
        let fetched = web.fetch(address, &[])?;
        let changed = fetched.done.code == Some(0) && fetched.body.len() == BYTES && fetched.flipped() > 0;
        ensure!(changed, "{}", fetched.text());
        flipped += fetched.flipped();
        Ok(())
    })?;
    let injected = ended.outcome("injected")?;
    ensure!(flipped <= injected * BITS, "{flipped} bits flipped, {injected} packets changed");
    Ok(())
}

/// The kernel discards what has a wrong checksum, and TCP sends it again.
fn http_corrupt_and_broken_never_reaches_curl() -> anyhow::Result<()> {
    let web = Web::new()?;
    let ended = web.during("corrupt --direction ingress --every 5 --checksum break", |address| {
        let fetched = web.fetch(address, &[])?;
        ensure!(fetched.whole(), "{}", fetched.text());
        Ok(())
    })?;
    ensure!(ended.outcome("injected")? > 0, "{}", ended.output);
    Ok(())
}

/// What nginx sends are the pages of its file, by sendfile(2). They are copied before they are changed.
fn http_corrupt_at_the_server_leaves_its_file_alone() -> anyhow::Result<()> {
    let web = Web::new()?;
    web.is_whole(&web.scene.cgroup, "before")?;
    let target = web.scene.servers.target();
    let kchaos =
        controller::inject(&format!("corrupt --every 2 --offset {PAST_THE_HEADER}.. --on {target}"))?;
    for address in ADDRESSES {
        let fetched = web.fetch(address, &[])?;
        ensure!(fetched.done.code == Some(0) && fetched.flipped() > 0, "{}", fetched.text());
    }
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    let file = fs::read(web.folder.path().join("zeros"))?;
    ensure!(file.iter().all(|byte| *byte == 0), "the file has changed");
    web.is_whole(&web.scene.cgroup, "after")
}

fn http_partition_in_silence_times_out() -> anyhow::Result<()> {
    let web = Web::new()?;
    let fault = "partition";
    web.during(fault, |address| web.fetch(address, &["--connect-timeout", "0.7"])?.ensure_failed(TIMED_OUT))
        .map(drop)
}

fn http_partition_by_rst_fails_at_once() -> anyhow::Result<()> {
    let web = Web::new()?;
    web.during("partition --reject rst", |address| {
        web.fetch(address, &[])?.ensure_failed_at_once(NOT_CONNECTED)
    })
    .map(drop)
}

fn http_refused_fails_at_once() -> anyhow::Result<()> {
    let web = Web::new()?;
    let ended = web.during("refuse --ports 80", |address| {
        let fetched = web.fetch(address, &[])?;
        fetched.ensure_failed_at_once(NOT_CONNECTED)?;
        ensure!(fetched.body.is_empty(), "{}", fetched.text());
        Ok(())
    })?;
    ensure!(ended.outcome("injected")? == ADDRESSES.len() as u64, "{}", ended.output);
    Ok(())
}

/// In the middle of a download, which would take a minute; the next one is whole.
fn http_reset_ends_a_download() -> anyhow::Result<()> {
    let web = Web::new()?;
    web.is_whole(&web.scene.cgroup, "before")?;
    for address in ADDRESSES {
        let download =
            web.curl(&web.scene.cgroup, address, &["--max-time", "70", "--request-target", "/slow"])?;
        let begun = || fs::metadata(web.folder.path().join("body")).is_ok_and(|file| file.len() > 0);
        super::wait_until("a download begins", || Ok(begun()))?;
        let kchaos = web.scene.inject("reset")?;
        let fetched = web.fetched(download)?;
        fetched.ensure_failed(RECEIVE_FAILED)?;
        ensure!(fetched.body.len() < BYTES, "{}", fetched.text());
        // It destroys once, what is there when it begins.
        web.is_whole(&web.scene.cgroup, "later")?;
        let ended = kchaos.interrupt()?;
        ended.ensure_code(exit::OK)?;
        ensure!(ended.outcome("injected")? == 1, "{}", ended.output);
    }
    web.is_whole(&web.scene.cgroup, "after")
}

/// That which opens a connection: TCP sends it again after a second (RFC 6298).
fn http_loss_of_one_segment_costs_a_second() -> anyhow::Result<()> {
    let web = Web::new()?;
    let ended = web.during("loss --percent 100 --connections new --when 1+3", |address| {
        let slow = web.fetch(address, &[])?;
        ensure!(slow.whole() && (AT_ONCE_S..2.5).contains(&slow.connect_s), "{}", slow.text());
        // The second was sent again, the third is this one's.
        let quick = web.fetch(address, &[])?;
        ensure!(quick.whole() && quick.connect_s < AT_ONCE_S, "{}", quick.text());
        Ok(())
    })?;
    ensure!(ended.outcome("injected")? == ADDRESSES.len() as u64, "{}", ended.output);
    Ok(())
}

fn http_loss_leaves_the_body_whole() -> anyhow::Result<()> {
    let web = Web::new()?;
    let ended = web.during("loss --direction both --percent 10", |address| {
        let fetched = web.fetch(address, &[])?;
        ensure!(fetched.whole(), "{}", fetched.text());
        Ok(())
    })?;
    ensure!(ended.outcome("injected")? > 0, "{}", ended.output);
    Ok(())
}

/// One delay for the handshake, another for the question.
fn http_delay_shows_in_the_times_of_curl() -> anyhow::Result<()> {
    const BY_S: f64 = 0.3;
    let web = Web::new()?;
    web.during("delay --by 300ms", |address| {
        let fetched = web.fetch(address, &[])?;
        let late = fetched.connect_s >= BY_S && fetched.total_s >= 2.0 * BY_S;
        ensure!(fetched.whole() && late && fetched.connect_s < 2.0 * BY_S, "{}", fetched.text());
        Ok(())
    })
    .map(drop)
}
