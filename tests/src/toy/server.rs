//! The programs in the groups: a service that answers over HTTP and does what it is told on standard input, and a beacon.

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufRead, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use chaos_common::random;

/// The word under which this program is one of these.
pub const VERB: &str = "toy";

/// What a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Does {
    /// What it should.
    Well,
    /// 2 % of its answers come 1 ms later.
    Late,
    /// 1 % of its answers are errors.
    Errors,
    /// 20 % of its answers are errors: clients ask again.
    ManyErrors,
    /// It computes for a tenth of the time.
    Spins,
    /// It keeps 20 MB more each minute.
    Leaks,
}

const ALL: [Does; 6] = [Does::Well, Does::Late, Does::Errors, Does::ManyErrors, Does::Spins, Does::Leaks];

static DOES: AtomicU8 = AtomicU8::new(Does::Well as u8);
static ANSWERS: AtomicU64 = AtomicU64::new(0);

/// One round of what is not answering.
const ROUND: Duration = Duration::from_millis(100);
/// 20 MB in a minute.
const LEAK_BYTES: usize = (20 << 20) / 600;
const LATER: Duration = Duration::from_millis(1);

impl Does {
    /// As it is told.
    pub fn word(self) -> String {
        format!("{self:?}")
    }

    fn is_on(self) -> bool {
        DOES.load(Ordering::Relaxed) == self as u8
    }
}

/// `toy serve PORT` or `toy beacon ADDRESS:PORT`, until standard input ends.
pub fn main(arguments: &[String]) -> ExitCode {
    // It is not where it belongs before.
    if io::stdin().lock().read_line(&mut String::new()).is_err() {
        return ExitCode::FAILURE;
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["serve", port] => port.parse().map_err(io::Error::other).and_then(serve),
        ["beacon", to] => beacon(to),
        _ => Err(io::Error::other("expected `serve PORT` or `beacon ADDRESS:PORT`")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn beacon(to: &str) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let ended = ends_with_stdin(|_| ());
    while !ended.is_finished() {
        // What is lost on its way is no error of sending.
        socket.send_to(b"here", to)?;
        thread::sleep(super::BEACON_EVERY);
    }
    Ok(())
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    thread::spawn(chores);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // It ends with its client.
            thread::spawn(move || answer(stream));
        }
    });
    let ended = ends_with_stdin(|line| {
        if let Some(does) = ALL.iter().find(|does| does.word() == line) {
            DOES.store(*does as u8, Ordering::Relaxed);
        }
    });
    // Who reads standard input does not panic.
    let _ = ended.join();
    Ok(())
}

fn ends_with_stdin(mut told: impl FnMut(&str) + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || io::stdin().lock().lines().map_while(Result::ok).for_each(|line| told(&line)))
}

/// What a service does beside answering.
fn chores() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        let begin = Instant::now();
        if Does::Leaks.is_on() {
            kept.push(vec![1; LEAK_BYTES]);
        }
        while Does::Spins.is_on() && begin.elapsed() < ROUND / 10 {}
        thread::sleep(ROUND.saturating_sub(begin.elapsed()));
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut asked, mut chunk) = (Vec::new(), [0; 2048]);
    loop {
        let bytes = stream.read(&mut chunk)?;
        if bytes == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&chunk[..bytes]);
        while let Some(end) = asked.windows(4).position(|four| four == b"\r\n\r\n") {
            let question: Vec<u8> = asked.drain(..end + 4).collect();
            let answer = if question.starts_with(b"GET /metrics") { metrics()? } else { page() };
            stream.write_all(answer.as_bytes())?;
        }
    }
}

fn page() -> String {
    let number = ANSWERS.fetch_add(1, Ordering::Relaxed);
    let hits = |percent: u32| random::draw(7, 0, number) < u32::MAX / 100 * percent;
    if Does::Late.is_on() && hits(2) {
        thread::sleep(LATER);
    }
    let fails = (Does::Errors.is_on() && hits(1)) || (Does::ManyErrors.is_on() && hits(20));
    http(if fails { "500 Sorry" } else { "200 Fine" }, "hello\n")
}

/// What this process has in memory.
fn metrics() -> io::Result<String> {
    const PAGE_BYTES: u64 = 4096;
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "# TYPE resident_bytes gauge\nresident_bytes {}\n", pages * PAGE_BYTES);
    Ok(http("200 Fine", &text))
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
