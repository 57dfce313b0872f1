//! Load that wanders: clients that ask as many times in a second as a schedule says, whatever became of those before.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use chaos_common::random;
use kchaos::target::Netns;

/// Of schedules, unless another is wanted.
pub const SEED: u64 = 11;
/// Seconds of a schedule; then it begins anew.
const SECONDS: usize = 3_600;
/// How alike one second is to the next, and how much they differ.
const RHO: f64 = 0.95;
const SD: f64 = 0.15;
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nobody asks.
const NAP: Duration = Duration::from_millis(2);
/// Of what could not be asked in time so many are made up for.
const MOST_LATE: f64 = 100.0;

/// How many questions are due by when: an AR(1) process for each second, the same for whoever has it.
#[derive(Clone)]
pub struct Wander {
    /// At the end of each second.
    due: Arc<Vec<f64>>,
}

impl Wander {
    /// So many in an ordinary second.
    pub fn new(per_s: f64, seed: u64) -> Self {
        let (mut state, mut sum) = (0.0, 0.0);
        let due = (0..SECONDS).map(|second| {
            state = RHO * state + SD * (1.0 - RHO * RHO).sqrt() * gauss(seed, second as u64);
            sum += per_s * f64::exp(state);
            sum
        });
        Self { due: Arc::new(due.collect()) }
    }

    fn due_by(&self, elapsed: Duration) -> f64 {
        let (second, part) = (elapsed.as_secs() as usize, f64::from(elapsed.subsec_nanos()) / 1e9);
        let total = self.due[SECONDS - 1];
        let before = if second % SECONDS == 0 { 0.0 } else { self.due[second % SECONDS - 1] };
        (second / SECONDS) as f64 * total + before + part * (self.due[second % SECONDS] - before)
    }
}

/// Nearly normal: the sum of twelve.
fn gauss(seed: u64, number: u64) -> f64 {
    let uniform = |stream| f64::from(random::draw(seed, stream, number)) / f64::from(u32::MAX);
    (0..12).map(uniform).sum::<f64>() - 6.0
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// A page; again so often if the answer is an error.
    Http {
        /// At most.
        retries: u32,
    },
    /// Redis, to keep something and how long it is, in turns.
    Redis,
}

/// Who asks, over one connection.
#[derive(Clone)]
pub struct Client {
    /// Whom.
    pub to: SocketAddr,
    /// What.
    pub asks: Asks,
    /// How often.
    pub wander: Wander,
}

/// Clients that ask until this goes.
pub struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Questions that were answered.
    pub answered: Arc<AtomicU64>,
}

impl Load {
    /// Starts them, each in a thread of its own.
    pub fn start(netns: &Netns, clients: Vec<Client>) -> Self {
        Self::run(netns, clients, |client, state, begin| {
            let due = client.wander.due_by(begin.elapsed());
            state.asked = state.asked.max(due - MOST_LATE);
            while state.asked < due {
                state.asked += 1.0;
                state.ask(client);
            }
            thread::sleep(NAP);
        })
    }

    /// The same without a schedule: each asks as soon as it has been answered.
    pub fn saturating(netns: &Netns, clients: Vec<Client>) -> Self {
        Self::run(netns, clients, |client, state, _| state.ask(client))
    }

    fn run(netns: &Netns, clients: Vec<Client>, step: fn(&Client, &mut State, Instant)) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (answered, begin) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let one = |client: Client| {
            let (over, netns, answered) = (over.clone(), netns.clone(), answered.clone());
            thread::spawn(move || {
                let mut state = State { netns, stream: None, asked: 0.0, number: 0, answered };
                while !over.load(Ordering::Relaxed) {
                    step(&client, &mut state, begin);
                }
            })
        };
        let threads = clients.into_iter().map(one).collect();
        Self { over, threads, answered }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it had to ask it has asked.
            let _ = thread.join();
        }
    }
}

struct State {
    netns: Netns,
    stream: Option<TcpStream>,
    asked: f64,
    number: u64,
    answered: Arc<AtomicU64>,
}

impl State {
    /// Asks once. Who is not answered takes a new connection the next time.
    fn ask(&mut self, client: &Client) {
        let done = self.stream(client.to).and_then(|mut stream| match client.asks {
            Asks::Http { retries } => http(&mut stream, retries).map(|()| stream),
            Asks::Redis => redis(&mut stream, self.number).map(|()| stream),
        });
        self.number += 1;
        match done {
            Ok(stream) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                self.stream = Some(stream);
            }
            Err(_) => thread::sleep(NAP),
        }
    }

    fn stream(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        if let Some(stream) = self.stream.take() {
            return Ok(stream);
        }
        let stream = self.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE))??;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

fn http(stream: &mut TcpStream, retries: u32) -> io::Result<()> {
    for _ in 0..=retries {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: toy\r\n\r\n")?;
        let head = read_until(stream, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.ok_or_else(|| io::Error::other("no length"))?];
        stream.read_exact(&mut body)?;
        if head.starts_with("http/1.1 200") {
            break;
        }
    }
    Ok(())
}

fn redis(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let key = random::draw(1, 0, number / 2) % 1_000;
    let words = match number % 2 {
        0 => format!("SET key:{key} {:064}\r\n", number),
        _ => format!("STRLEN key:{key}\r\n"),
    };
    stream.write_all(words.as_bytes())?;
    let answer = read_until(stream, b"\r\n")?;
    if answer.starts_with(b"-") { Err(io::Error::other("refused")) } else { Ok(()) }
}

/// Reads up to there; what comes behind is left where it is.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> io::Result<Vec<u8>> {
    let mut read = Vec::with_capacity(256);
    let mut peeked = [0; 512];
    loop {
        let there = stream.peek(&mut peeked)?;
        if there == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = read.len();
        read.extend_from_slice(&peeked[..there]);
        let from = before.saturating_sub(end.len());
        let found = read[from..].windows(end.len()).position(|window| window == end);
        let kept = found.map_or(read.len(), |at| from + at + end.len());
        stream.read_exact(&mut peeked[..kept - before])?;
        if found.is_some() {
            read.truncate(kept);
            return Ok(read);
        }
    }
}
