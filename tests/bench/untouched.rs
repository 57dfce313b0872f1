//! What traffic that nobody means pays while somebody else on the same device loses 5 % of their packets: by kchaos,
//! by a proxy that everything goes through, as tools in user space do it, and by iptables' statistic match.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use anyhow::{Context, ensure};
use kchaos::{
    demo::{CLIENTS, SERVICES, namespaces},
    target::Netns,
};

use super::{
    BenchCgroup,
    echo::{ask, quantile, serve},
    iperf::{Drop, SECONDS, Server, stream_to, while_injecting},
    spread,
};

const ROUNDS: usize = 7;

/// What lies on the path.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    Nothing,
    Kchaos,
    Iptables,
    Proxy,
}

impl Path {
    const ALL: [Self; 4] = [Self::Nothing, Self::Kchaos, Self::Iptables, Self::Proxy];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Kchaos => "kchaos, 5 % loss for another cgroup",
            Self::Iptables => "iptables -m statistic, another port",
            Self::Proxy => "a TCP proxy in user space",
        }
    }
}

/// What came of one path in one round.
struct Measured {
    bits_per_s: f64,
    p50_s: f64,
    p99_s: f64,
}

/// Runs all cases and prints them against nothing.
pub fn bench() -> anyhow::Result<()> {
    let (sender, receiver) = namespaces().context("network namespaces")?;
    let (target, elsewhere) = (BenchCgroup::new("lossy")?, BenchCgroup::new("untouched")?);
    elsewhere.enter()?;
    let _server = Server::start(&receiver)?;
    let echo = serve(&receiver, IpAddr::V4(CLIENTS))?;
    let iperf = SocketAddr::new(IpAddr::V4(CLIENTS), Server::PORT);
    let (by_proxy, iperf_by_proxy) = (proxy(&sender, echo)?, proxy(&sender, iperf)?);
    let plan = target.plan("loss", &[("percent", "5%")], &sender)?;
    let direct = || measure(&sender, echo, iperf);
    let mut results: [Vec<Measured>; 4] = Default::default();
    for round in 0..=ROUNDS {
        for (path, results) in Path::ALL.iter().zip(&mut results) {
            let measured = match path {
                Path::Nothing => direct(),
                Path::Kchaos => while_injecting(&plan, direct),
                Path::Iptables => {
                    let _rule = Drop::at_port(&sender, "OUTPUT", "0.05", "9")?;
                    direct()
                }
                Path::Proxy => measure(&sender, by_proxy, iperf_by_proxy),
            }?;
            // The first round warms up.
            if round > 0 {
                results.push(measured);
            }
        }
    }
    print(&results);
    Ok(())
}

fn measure(sender: &Netns, echo: SocketAddr, iperf: SocketAddr) -> anyhow::Result<Measured> {
    let bits_per_s = stream_to(sender, iperf, 1, SECONDS)?.bits_per_s;
    let latencies = ask(sender, echo)?;
    Ok(Measured { bits_per_s, p50_s: quantile(&latencies, 0.5), p99_s: quantile(&latencies, 0.99) })
}

fn print(results: &[Vec<Measured>; 4]) {
    println!(
        "untouched traffic ({ROUNDS} rounds); median [smallest, largest], ratios to nothing in the same round"
    );
    let nothing = &results[0];
    for (path, measured) in Path::ALL.iter().zip(results) {
        let column = |of: fn(&Measured) -> f64, scale: f64, digits| {
            let values: Vec<f64> = measured.iter().map(|measured| of(measured) * scale).collect();
            let ratios: Vec<f64> =
                measured.iter().zip(nothing).map(|(one, nothing)| of(one) / of(nothing)).collect();
            format!("{:>20} ratio {:<18}", spread(&values, digits), spread(&ratios, 2))
        };
        println!(
            "  {:<36} Gbit/s {}  p50 µs {}  p99 µs {}",
            path.name(),
            column(|measured| measured.bits_per_s, 1e-9, 2),
            column(|measured| measured.p50_s, 1e6, 0),
            column(|measured| measured.p99_s, 1e6, 0),
        );
    }
}

/// Hands every connection on to `to`, until the program ends; says where.
fn proxy(netns: &Netns, to: SocketAddr) -> anyhow::Result<SocketAddr> {
    // Its clients are in its own namespace, whose loopback device nobody has needed so far.
    let up = netns.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status())?;
    ensure!(up.context("ip")?.success(), "lo stays down");
    let listener = netns.run(|| TcpListener::bind(SocketAddr::new(IpAddr::V4(SERVICES), 0)))??;
    let at = listener.local_addr()?;
    let netns = netns.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            // A client whose server is gone sees the connection end.
            let Ok(Ok(server)) = netns.run(|| TcpStream::connect(to)) else { continue };
            if let Err(error) = hand_on(client, server) {
                eprintln!("proxy: {error}");
            }
        }
    });
    Ok(at)
}

fn hand_on(client: TcpStream, server: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || copy(from, to));
    }
    Ok(())
}

/// Until one end closes, which the other is told.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    use std::io::{Read, Write};
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    // It may be closed already.
    let _ = to.shutdown(std::net::Shutdown::Write);
}
