//! Victims: this program, started again in a cgroup and a network namespace. They do what they are asked on
//! standard input, and answer on standard output.

pub mod call;
pub mod calls;
pub mod chore;
pub mod program;
pub mod resolve;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use kchaos::target::Netns;
use serde::{Deserialize, Serialize};

use crate::{
    calls::stage::{Made, Making},
    lab::{Cgroup, Lab},
};
use call::Call;

/// The word under which this program is a victim.
pub const VERB: &str = "victim";
/// More than any request takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket of a victim.
pub type Socket = usize;

/// What a victim can be asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Open a UDP socket that hears of errors; connected if there is a peer.
    Udp { bind: SocketAddr, peer: Option<SocketAddr> },
    /// Send `count` numbered packets.
    SendNumbers { socket: Socket, to: Option<SocketAddr>, first: u64, count: u64 },
    /// Send one packet of so many bytes to the peer.
    SendDatagram { socket: Socket, bytes: usize },
    /// Send `count` numbered packets that say when they were sent, one each `gap_us`.
    SendStamped { socket: Socket, first: u64, count: u64, gap_us: u64 },
    /// Mark what a socket sends.
    Mark { socket: Socket, mark: u32 },
    /// Give what a socket sends a priority.
    Priority { socket: Socket, priority: i32 },
    /// Send numbered packets, `length` of them in each call: the kernel cuts such a train into packets (UDP GSO).
    SendTrains { socket: Socket, first: u64, trains: u64, length: u64 },
    /// Send `count` packets at an even pace, each numbered by the clock, and say by what numbers.
    SendTimes { socket: Socket, count: u64, every_us: u64 },
    /// Say which numbers have arrived, in that order.
    Numbers { socket: Socket },
    /// Have the kernel say from now on when packets arrive.
    Stamp { socket: Socket },
    /// Say what has arrived of `count` stamped packets from number `first` on, until it is quiet.
    Arrivals { socket: Socket, first: u64, count: u64, quiet_ms: u64 },
    /// Send what is sent over IPv4 from now on without a checksum.
    NoChecksums { socket: Socket },
    /// Say how many errors the network has reported.
    ErrorQueue { socket: Socket },
    /// Listen.
    Listen { bind: SocketAddr },
    /// Take the next connection, and read all that comes.
    Accept { listener: Socket },
    /// Open a TCP connection, and say so if there is none in time.
    Connect { bind: SocketAddr, to: SocketAddr, within_ms: u64 },
    /// Write so many bytes.
    Write { socket: Socket, bytes: u64, within_ms: u64 },
    /// Read so many bytes, and say how many of their bits are not 0.
    ReadZeros { socket: Socket, bytes: u64 },
    /// Say how TCP is doing.
    Tcp { socket: Socket },
    /// Send `count` echo requests, and say how many were answered.
    Ping { to: SocketAddr, count: u64 },
    /// Make one call on a new socket so many times, and say what came of each.
    Try { call: Call, times: u64 },
    /// Wait for an end of a connection, and say which.
    Hear { socket: Socket, within_ms: u64 },
    /// Ask a name server.
    Resolve { question: resolve::Question, within_ms: u64 },
    /// Take another name.
    Rename { name: String },
    /// Make a system call, in a child.
    Act(Making),
    /// Start a child, in another cgroup if one is given, that does all this.
    InChild { cgroup: Option<PathBuf>, asks: Vec<Ask> },
}

/// What a victim answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// A socket was made.
    Socket(Socket),
    /// How many.
    Count(u64),
    /// What sending so many packets came to, where it failed.
    Refused(Vec<String>),
    /// Which.
    Numbers(Vec<u64>),
    /// Of each packet: its number, when it was sent and when it arrived, in nanoseconds since 1970.
    Arrivals(Vec<[u64; 3]>),
    /// What each call came to: 0 or an errno.
    Errnos(Vec<i32>),
    /// How a connection has ended: 0 for in peace, or an errno; `None` if it has not.
    End(Option<i32>),
    /// How TCP is doing.
    Tcp(Tcp),
    /// What a name server said, if anything.
    Resolved(Option<resolve::Reply>),
    /// What came of a system call.
    Made(Made),
    /// What a child answered.
    Child(Vec<Answer>),
}

/// What the kernel says about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcp {
    /// Segments sent again.
    pub retransmitted: u32,
    /// Segments sent, of whatever kind.
    pub segments_out: u32,
    /// Segments that arrived out of order: the receiver's view of a gap.
    pub out_of_order: u32,
    /// Data segments sent, those sent again included.
    pub data_segments_out: u32,
    /// Bytes that the peer has acknowledged.
    pub bytes_acked: u64,
}

/// A victim, ended when this goes.
pub struct Victim {
    /// Its process.
    pub pid: u32,
    child: Child,
    talk: Mutex<(ChildStdin, Receiver<String>)>,
}

impl Victim {
    /// Starts one inside, in a cgroup. It opens no socket before it is there: a socket belongs to the cgroup
    /// that it was made in.
    pub fn start(lab: &Lab, cgroup: &Cgroup) -> anyhow::Result<Self> {
        Self::start_in(&lab.inside, Some(&cgroup.dir))
    }

    /// Starts one anywhere; in our own cgroup, unless another is given.
    pub fn start_in(netns: &Netns, cgroup: Option<&Path>) -> anyhow::Result<Self> {
        let mut child = netns.run(|| command().spawn())?.context("starting a victim")?;
        let talk = talk(&mut child)?;
        let victim = Self { pid: child.id(), child, talk: Mutex::new(talk) };
        if let Some(cgroup) = cgroup {
            fs::write(cgroup.join("cgroup.procs"), victim.pid.to_string()).context("moving a victim")?;
        }
        Ok(victim)
    }

    /// Asks, and waits for the answer.
    pub fn ask(&self, ask: Ask) -> anyhow::Result<Answer> {
        let mut talk = self.talk.lock().map_err(|_| anyhow!("another thread panicked while asking"))?;
        let (requests, answers) = &mut *talk;
        writeln!(requests, "{}", serde_json::to_string(&ask)?).context("asking a victim")?;
        let answer = answers.recv_timeout(PATIENCE).with_context(|| format!("no answer to {ask:?}"))?;
        serde_json::from_str::<Result<Answer, String>>(&answer)?.map_err(|error| anyhow!("{ask:?}: {error}"))
    }

    /// Opens a UDP socket.
    pub fn udp(&self, bind: SocketAddr, peer: Option<SocketAddr>) -> anyhow::Result<Socket> {
        self.socket(Ask::Udp { bind, peer })
    }

    /// Opens a TCP connection.
    pub fn connect(&self, bind: SocketAddr, to: SocketAddr) -> anyhow::Result<Socket> {
        self.socket(Ask::Connect { bind, to, within_ms: 5_000 })
    }

    /// Makes a socket.
    pub fn socket(&self, ask: Ask) -> anyhow::Result<Socket> {
        match self.ask(ask)? {
            Answer::Socket(socket) => Ok(socket),
            other => bail!("expected a socket, got {other:?}"),
        }
    }

    /// Asks for a number.
    pub fn count(&self, ask: Ask) -> anyhow::Result<u64> {
        match self.ask(ask)? {
            Answer::Count(count) => Ok(count),
            other => bail!("expected a count, got {other:?}"),
        }
    }

    /// Writes to a connection; says how much went out in time.
    pub fn write(&self, socket: Socket, bytes: u64) -> anyhow::Result<u64> {
        self.count(Ask::Write { socket, bytes, within_ms: 20_000 })
    }

    /// Makes a call on a new socket so many times; what each came to: 0 or an errno.
    pub fn call(&self, call: Call, times: u64) -> anyhow::Result<Vec<i32>> {
        match self.ask(Ask::Try { call, times })? {
            Answer::Errnos(errnos) => Ok(errnos),
            other => bail!("expected errnos, got {other:?}"),
        }
    }

    /// How a connection ends within this time: 0 for in peace, or an errno; `None` if it does not.
    pub fn hear(&self, socket: Socket, within: Duration) -> anyhow::Result<Option<i32>> {
        match self.ask(Ask::Hear { socket, within_ms: within.as_millis() as u64 })? {
            Answer::End(end) => Ok(end),
            other => bail!("expected the end of a connection, got {other:?}"),
        }
    }

    /// What the kernel says about a connection.
    pub fn tcp(&self, socket: Socket) -> anyhow::Result<Tcp> {
        match self.ask(Ask::Tcp { socket })? {
            Answer::Tcp(tcp) => Ok(tcp),
            other => bail!("expected TCP's state, got {other:?}"),
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(VERB).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Both directions of a victim's standard streams. A thread reads, so that waiting can be bounded.
fn talk(child: &mut Child) -> anyhow::Result<(ChildStdin, Receiver<String>)> {
    let requests = child.stdin.take().context("a victim's standard input")?;
    let output = BufReader::new(child.stdout.take().context("a victim's standard output")?);
    let (sender, answers) = mpsc::channel();
    thread::spawn(move || {
        // Ends with the victim, or when nobody waits for its answers any more.
        output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    Ok((requests, answers))
}
