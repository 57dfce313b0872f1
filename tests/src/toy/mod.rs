//! Two small services that can be told to misbehave, in networks of their own: effects of known size, on while a fault is.
//!
//! A beacon in each group sends a packet to a sink outside every 20 ms. The fault loses those of the experimental group, so
//! that it is real and counted. When the sink misses them, it tells the group's service to misbehave; when it hears them
//! again, to behave. Tests and benchmarks use this.

pub mod load;
pub mod server;

use std::{
    fs, io,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use kchaos::target::Netns;
use tempfile::TempDir;

use crate::lab::{self, Cgroup};

/// Where services listen.
pub const PORT: u16 = 7800;
/// Where the sink hears the beacons.
pub const SINK_PORT: u16 = 7900;
/// How often a beacon sends.
const BEACON_EVERY: Duration = Duration::from_millis(20);
/// A sink that hears nothing for so long takes the fault to be on.
const SILENCE: Duration = Duration::from_millis(60);
/// More than a service takes to begin, in a guest that is emulated.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);

/// A network for each of two groups, and one outside that is joined to both.
pub struct Networks {
    /// Where clients are, and kchaos.
    pub outside: Netns,
    /// The control group's, and the experimental group's.
    pub inside: [Netns; 2],
}

/// Where a group is.
pub const fn address(side: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 109, side as u8, 1)
}

impl Networks {
    /// Lays the wires.
    pub fn new() -> anyhow::Result<Self> {
        let (outside, inside) = (Netns::create()?, [Netns::create()?, Netns::create()?]);
        for (side, netns) in inside.iter().enumerate() {
            let peer = format!("/proc/{}/fd/{}", std::process::id(), netns.file().as_raw_fd());
            let here = format!(
                "ip link set lo up\n ip link add kcw{side} type veth peer name eth0 netns {peer}\n\
                 ip addr add 10.109.{side}.2/24 dev kcw{side}\n ip link set kcw{side} up"
            );
            lab::run_in(&outside, &here)?;
            let there = format!(
                "ip link set lo up\n ip addr add {}/24 dev eth0\n ip link set eth0 up",
                address(side)
            );
            lab::run_in(netns, &there)?;
        }
        Ok(Self { outside, inside })
    }

    /// Waits until somebody listens there.
    pub fn wait_for(&self, side: usize, port: u16) -> anyhow::Result<()> {
        let at = SocketAddr::new(IpAddr::V4(address(side)), port);
        let deadline = Instant::now() + BEGINS_WITHIN;
        while Instant::now() < deadline {
            if self.outside.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(1)))?.is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("nobody listens at {at}")
    }
}

/// What the services are told when a beacon falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planted {
    /// What they do: a word of [`server::Does`].
    pub does: server::Does,
    /// The control group's does it as well.
    pub in_control: bool,
    /// They behave again when the beacon is heard.
    pub ends: bool,
    /// There is a beacon, so that the fault has something to hit.
    pub beacon: bool,
}

impl Planted {
    /// Nothing: the fault hits a beacon that nobody minds.
    pub const NOTHING: Self = Self { does: server::Does::Well, in_control: false, ends: true, beacon: true };

    /// In the experimental group, while the fault is on.
    pub const fn new(does: server::Does) -> Self {
        Self { does, ..Self::NOTHING }
    }
}

/// Both groups, each with a service, a beacon, and clients.
pub struct World {
    // In this order they end: each needs those behind it.
    _clients: load::Load,
    _sink: Sink,
    _programs: Vec<Program>,
    /// The networks that they are in.
    pub networks: Networks,
    /// The control group's, and the experimental group's.
    pub cgroups: [Cgroup; 2],
    /// For specs and reports.
    pub folder: TempDir,
    /// How often services were told to misbehave.
    pub told: Arc<AtomicU64>,
}

impl World {
    /// Starts everything; clients ask so often, and ask again so often after an error.
    pub fn new(planted: Planted, per_s: f64, retries: u32) -> anyhow::Result<Self> {
        let (networks, cgroups) = (Networks::new()?, [Cgroup::new()?, Cgroup::new()?]);
        let sink = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 109, 1, 2)), SINK_PORT);
        let socket = networks.outside.run(|| UdpSocket::bind(sink))??;
        let (mut programs, mut services) = (vec![], vec![]);
        for (side, cgroup) in cgroups.iter().enumerate() {
            let netns = &networks.inside[side];
            let mut service = Program::start(netns, cgroup, &["serve", &PORT.to_string()])?;
            services.push(service.requests.take().context("a service's standard input")?);
            programs.push(service);
            networks.wait_for(side, PORT)?;
            if side == 1 && planted.beacon {
                programs.push(Program::start(netns, cgroup, &["beacon", &sink.to_string()])?);
            }
        }
        let told = Arc::new(AtomicU64::new(0));
        let sink = Sink::start(socket, planted, services, told.clone());
        let wander = load::Wander::new(per_s, load::SEED);
        let asks = [0, 1].map(|side| load::Client {
            to: SocketAddr::new(IpAddr::V4(address(side)), PORT),
            asks: load::Asks::Http { retries },
            wander: wander.clone(),
        });
        let clients = load::Load::start(&networks.outside, asks.into());
        Ok(Self {
            networks,
            cgroups,
            folder: TempDir::new()?,
            told,
            _programs: programs,
            _sink: sink,
            _clients: clients,
        })
    }

    /// Writes a spec whose fault loses the beacon's packets, and returns what runs it and leaves a report as JSON.
    pub fn spec(&self, steady_state: &str, run: &str) -> anyhow::Result<[String; 2]> {
        let [control, experiment] = self.cgroups.each_ref().map(Cgroup::target);
        let text = format!(
            "version: 1\nname: planted\ngroups: {{ control: '{control}', experiment: '{experiment}' }}\n\
             steady_state: {{ {steady_state} }}\n\
             faults: [{{ loss: {{ percent: 100%, protocol: udp, ports: {SINK_PORT}, allow_defaults: false }} }}]\n\
             run: {run}\nmax_duration: 10m\n"
        );
        let [spec, report] = ["spec.yaml", "report.json"].map(|name| self.folder.path().join(name));
        fs::write(&spec, text)?;
        Ok([spec, report].map(|path| path.display().to_string()))
    }
}

/// Listens to the beacons, and tells the services.
struct Sink {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    fn start(socket: UdpSocket, planted: Planted, services: Vec<ChildStdin>, told: Arc<AtomicU64>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = thread::spawn(move || {
            if let Err(error) = listen(&socket, planted, services, &told, &ends) {
                eprintln!("the sink: {error}");
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it had to say it has said.
            let _ = thread.join();
        }
    }
}

fn listen(
    socket: &UdpSocket,
    planted: Planted,
    mut services: Vec<ChildStdin>,
    told: &AtomicU64,
    over: &AtomicBool,
) -> io::Result<()> {
    socket.set_read_timeout(Some(SILENCE))?;
    let (mut heard, mut misbehaving) = (false, false);
    while !over.load(Ordering::Relaxed) {
        // What waits in the socket has been heard in time, however late we are.
        let hears = socket.recv(&mut [0; 8]).is_ok();
        heard |= hears;
        let misbehave = heard && !hears;
        let word = match (misbehaving, misbehave) {
            (false, true) => planted.does,
            (true, false) if planted.ends => server::Does::Well,
            _ => continue,
        };
        misbehaving = misbehave;
        told.fetch_add(1, Ordering::Relaxed);
        let told = if planted.in_control { 0 } else { 1 };
        for service in &mut services[told..] {
            writeln!(service, "{}", word.word())?;
        }
    }
    Ok(())
}

/// This program, started again in a network namespace and a cgroup; ended when this goes.
struct Program {
    child: Child,
    requests: Option<ChildStdin>,
}

impl Program {
    fn start(netns: &Netns, cgroup: &Cgroup, words: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(server::VERB).args(words).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = netns.run(|| command.spawn())?.context("starting a service")?;
        let requests = child.stdin.take();
        let mut program = Self { child, requests };
        fs::write(cgroup.dir.join("cgroup.procs"), program.child.id().to_string())?;
        // It makes no socket before it has been told to go: a socket belongs to the cgroup that it was made in.
        if let Some(requests) = &mut program.requests {
            writeln!(requests, "go")?;
        }
        Ok(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
