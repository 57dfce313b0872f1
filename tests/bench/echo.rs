//! Small questions and answers over one TCP connection, asked at a steady pace: how long answers take, counted from
//! when each question was due, so that a slow answer does not hide those that wait behind it.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use kchaos::target::Netns;

const BYTES: usize = 64;
const QUESTIONS: u32 = 2_000;
const PACE: Duration = Duration::from_micros(1_000);
/// An answer that takes longer is a failure of the benchmark.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers every connection, until the program ends; says where.
pub fn serve(netns: &Netns, address: IpAddr) -> anyhow::Result<SocketAddr> {
    let listener = netns.run(|| TcpListener::bind(SocketAddr::new(address, 0)))??;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // It ends with its client.
            thread::spawn(move || answer(stream));
        }
    });
    Ok(at)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut question = [0; BYTES];
    loop {
        stream.read_exact(&mut question)?;
        stream.write_all(&question)?;
    }
}

/// How long answers took, in seconds, from a new connection of this process.
pub fn ask(netns: &Netns, at: SocketAddr) -> anyhow::Result<Vec<f64>> {
    let mut stream = netns.run(|| TcpStream::connect_timeout(&at, PATIENCE))?.context("connecting")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; BYTES];
    let start = Instant::now();
    (0..QUESTIONS)
        .map(|number| {
            let due = start + PACE * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            stream.write_all(&[b'?'; BYTES])?;
            stream.read_exact(&mut answer)?;
            Ok(due.elapsed().as_secs_f64())
        })
        .collect()
}

/// The value below which this share of them lies.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
