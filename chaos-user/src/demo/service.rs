//! The two programs of the demo: a request/response service over TCP, and an open-loop client.

use std::{
    io::{self, BufRead, Write},
    net::SocketAddr,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::kernel::monotonic_ns;

/// The control group's port; the experimental group's is the next.
pub const PORT: u16 = 7701;

/// A request is when it was due, and some weight; the answer is the same time, and more weight.
const REQUEST_BYTES: usize = 64;
const ANSWER_BYTES: usize = 1024;
const CONNECTIONS: u32 = 8;
/// Every connection asks this often, whatever became of earlier requests: a slow service does not get fewer.
const PERIOD: Duration = Duration::from_millis(40);

/// Answers until standard input ends.
pub fn serve(address: SocketAddr) -> anyhow::Result<()> {
    until_stdin_ends(async move {
        let listener = TcpListener::bind(address).await?;
        ready()?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream));
        }
    })
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let weight = Bytes::from_static(&[0; ANSWER_BYTES - size_of::<u64>()]);
    let mut requests = BytesMut::with_capacity(16 * REQUEST_BYTES);
    while stream.read_buf(&mut requests).await? > 0 {
        let mut answers = BytesMut::new();
        while requests.len() >= REQUEST_BYTES {
            answers.put_u64(requests.split_to(REQUEST_BYTES).get_u64());
            answers.put(weight.clone());
        }
        stream.write_all(&answers).await?;
    }
    Ok(())
}

/// Asks until standard input ends; prints a line per answer: when the request was due, and how long after
/// that the answer was there, in nanoseconds.
pub fn ask(address: SocketAddr) -> anyhow::Result<()> {
    until_stdin_ends(async move {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        ready()?;
        let mut asking = Vec::new();
        for (i, stream) in (0..).zip(streams) {
            let (answers, mut requests) = stream.into_split();
            asking.push(tokio::spawn(print_answers(answers)));
            asking.push(tokio::spawn(async move {
                // Spread evenly over a period, so that connections do not ask all at once.
                let mut due = interval_at(Instant::now() + PERIOD * i / CONNECTIONS, PERIOD);
                due.set_missed_tick_behavior(MissedTickBehavior::Burst);
                loop {
                    let late = due.tick().await.elapsed();
                    let due_ns = monotonic_ns().saturating_sub(late.as_nanos() as u64);
                    let mut request = BytesMut::zeroed(REQUEST_BYTES);
                    (&mut request[..]).put_u64(due_ns);
                    requests.write_all(&request).await?;
                }
            }));
        }
        for task in asking {
            task.await??;
        }
        Ok(())
    })
}

async fn print_answers(mut stream: OwnedReadHalf) -> io::Result<()> {
    let mut answers = BytesMut::with_capacity(4 * ANSWER_BYTES);
    while stream.read_buf(&mut answers).await? > 0 {
        let now_ns = monotonic_ns();
        while answers.len() >= ANSWER_BYTES {
            let due_ns = answers.split_to(ANSWER_BYTES).get_u64();
            println!("{due_ns} {}", now_ns.saturating_sub(due_ns));
        }
    }
    Ok(())
}

/// Waits for the first line of standard input, then works until there are no more.
fn until_stdin_ends(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    io::stdin().lock().read_line(&mut String::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Whatever ends reading ends the work.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = ended.send(());
    });
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            _ = end => Ok(()),
        }
    })
}

fn ready() -> io::Result<()> {
    println!("ready");
    io::stdout().flush()
}
