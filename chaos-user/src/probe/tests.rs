//! Against real servers and programs, all of this machine.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::*;
use crate::experiment::probe::{Command, HttpAsk, Scrape, Statuses};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than anything here should take, even where others build at the same time.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server has met.
#[derive(Default)]
struct Met {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
}

/// A server that does what the path says. It ends with the test's runtime.
async fn server() -> (u16, Arc<Met>) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let met = Arc::new(Met::default());
    let of_server = met.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let met = of_server.clone();
            met.connections.fetch_add(1, SeqCst);
            met.open.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                // How a client ends is not the server's concern.
                let _ = serve(stream, &met).await;
                met.open.fetch_sub(1, SeqCst);
            });
        }
    });
    (port, met)
}

async fn serve(mut stream: TcpStream, met: &Met) -> io::Result<()> {
    while let Some(head) = head(&mut stream).await? {
        let number = met.requests.fetch_add(1, SeqCst);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (status, body) = match path.as_str() {
            "/broken" => ("500 Internal Server Error", "no".to_owned()),
            "/gone" => ("404 Not Found", String::new()),
            "/moved" => ("302 Found\r\nLocation: /broken", String::new()),
            "/big" => ("200 OK", "x".repeat(MAX_BODY_BYTES + 1)),
            "/as-big-as-allowed" => ("200 OK", "x".repeat(MAX_BODY_BYTES)),
            "/asked" => ("200 OK", head.clone()),
            "/metrics" => ("200 OK", page(number)),
            "/resets" => ("200 OK", page(number % 3)),
            "/once" if number < 2 => ("200 OK", page(number)),
            "/once" => ("503 Service Unavailable", String::new()),
            "/never" => return stream.read(&mut [0]).await.map(drop),
            "/closes" => return Ok(()),
            _ => ("200 OK", "all is well".to_owned()),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await?;
        if path == "/kept-for-one" {
            return Ok(());
        }
    }
    Ok(())
}

fn page(number: usize) -> String {
    format!(
        "# TYPE hits counter\nhits{{a=\"1\"}} {number}\nhits{{a=\"2\"}} {number}\n# TYPE queue gauge\nqueue 7\n\
         # TYPE t histogram\nt_bucket{{le=\"0.5\"}} {number}\nt_bucket{{le=\"+Inf\"}} {}\n",
        2 * number
    )
}

async fn head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

fn probe(every_ms: u64, timeout_ms: u64, ask: Ask) -> Probe {
    let (every, timeout) = (Duration::from_millis(every_ms), Duration::from_millis(timeout_ms));
    Probe { id: "get".to_owned(), every, timeout, ask }
}

fn get(port: u16, path: &str) -> HttpAsk {
    HttpAsk {
        url: format!("http://{{target}}:{port}{path}").parse().unwrap(),
        method: ::http::Method::GET,
        headers: Vec::new(),
        status: Statuses::range(200, 399),
        body_has: None,
        fresh: false,
    }
}

fn scrape(port: u16, path: &str) -> Ask {
    Ask::Prometheus(Scrape { url: get(port, path).url, series: Default::default() })
}

fn exec(words: &[&str]) -> Ask {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Ask::Exec(Command { program: words[0].clone(), arguments: words[1..].to_vec() })
}

fn asker(ask: Ask) -> Asker {
    Asker::new(&probe(10, 1000, ask), HERE)
}

async fn answer(ask: Ask) -> Answer {
    timeout(PATIENCE, asker(ask).ask()).await.expect("an answer in time")
}

/// Two targets, both this machine.
fn start(probe: Probe) -> Prober {
    Prober::start(&[probe], &[1, 0].map(|slot| ProbeTarget { slot, address: HERE })).unwrap()
}

/// Waits until it is so, of both targets.
async fn until(prober: &Prober, so: impl Fn(&ProbeReading) -> bool) -> Vec<ProbeReading> {
    let waiting = async {
        loop {
            let readings: Vec<_> = prober.readings().into_iter().map(|mut slot| slot.remove(0)).collect();
            if readings.iter().all(&so) {
                return readings;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{:?}", prober.readings()))
}

/// A port where nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind((HERE, 0)).await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn answers_are_judged_by_status_and_body() {
    let (port, _) = server().await;
    let ask = |path: &str, status: Statuses, text: Option<&str>| {
        answer(Ask::Http(HttpAsk { status, body_has: text.map(str::to_owned), ..get(port, path) }))
    };
    let usual = || Statuses::range(200, 399);
    assert_eq!(ask("/", usual(), None).await, Ok(BTreeMap::new()));
    assert_eq!(ask("/", usual(), Some("is well")).await, Ok(BTreeMap::new()));
    assert!(ask("/", usual(), Some("is not well")).await.unwrap_err().contains("without the text"));
    assert!(ask("/", Statuses::range(201, 204), None).await.unwrap_err().contains("200"));
    assert_eq!(ask("/broken", usual(), None).await, Err("status 500".to_owned()));
    assert_eq!(ask("/gone", usual(), None).await, Err("status 404".to_owned()));
    assert_eq!(ask("/gone", Statuses::range(404, 404), None).await, Ok(BTreeMap::new()));
    assert_eq!(ask("/moved", usual(), None).await, Ok(BTreeMap::new()), "no redirect is followed");
    assert_eq!(ask("/as-big-as-allowed", usual(), None).await, Ok(BTreeMap::new()));
    assert!(ask("/big", usual(), None).await.unwrap_err().contains("longer than 1048576"));
    assert!(ask("/closes", usual(), None).await.unwrap_err().contains("closed"));
}

#[tokio::test]
async fn refused_connections_are_bad_answers() {
    let port = closed_port().await;
    let refused = Err("connection refused".to_owned());
    assert_eq!(answer(Ask::Http(get(port, "/"))).await, refused);
    assert_eq!(answer(Ask::Tcp { port }).await, refused);
    assert_eq!(answer(scrape(port, "/")).await, refused);
    let (port, met) = server().await;
    assert_eq!(answer(Ask::Tcp { port }).await, Ok(BTreeMap::new()));
    assert_eq!(met.requests.load(SeqCst), 0);
}

#[tokio::test]
async fn the_request_is_what_was_asked_for() {
    let (port, _) = server().await;
    let asked = |ask: HttpAsk| answer(Ask::Http(ask));
    let header = |name: &'static str, value| (name.parse().unwrap(), ::http::HeaderValue::from_static(value));
    let post = |text: String| HttpAsk {
        method: ::http::Method::POST,
        headers: vec![header("x-tenant", "blue"), header("host", "shop.example")],
        body_has: Some(text),
        ..get(port, "/asked")
    };
    for part in
        ["POST /asked HTTP/1.1\r\n", "x-tenant: blue\r\n", "host: shop.example\r\n", "user-agent: kchaos/"]
    {
        assert_eq!(asked(post(part.to_owned())).await, Ok(BTreeMap::new()), "{part}");
    }
    let host = format!("host: 127.0.0.1:{port}\r\n");
    assert_eq!(asked(HttpAsk { body_has: Some(host), ..get(port, "/asked") }).await, Ok(BTreeMap::new()));
}

#[tokio::test]
async fn connections_are_kept_unless_told() {
    let (port, met) = server().await;
    let kept = asker(Ask::Http(get(port, "/")));
    for _ in 0..20 {
        assert_eq!(kept.ask().await, Ok(BTreeMap::new()));
    }
    assert_eq!((met.connections.load(SeqCst), met.requests.load(SeqCst)), (1, 20));
    let text = Some("connection: close".to_owned());
    let fresh = asker(Ask::Http(HttpAsk { fresh: true, body_has: text, ..get(port, "/asked") }));
    for _ in 0..20 {
        assert_eq!(fresh.ask().await, Ok(BTreeMap::new()));
    }
    assert_eq!(met.connections.load(SeqCst), 21);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_bad_answer() {
    let (port, met) = server().await;
    let asker = asker(Ask::Http(get(port, "/kept-for-one")));
    for i in 0..20 {
        assert_eq!(asker.ask().await, Ok(BTreeMap::new()), "request {i}");
    }
    assert_eq!(met.connections.load(SeqCst), 20);
}

#[tokio::test]
async fn a_probe_counts_what_it_sees_of_each_target() {
    let (port, met) = server().await;
    let prober = start(probe(5, 1000, Ask::Http(get(port, "/"))));
    for reading in until(&prober, |reading| reading.answered >= 20).await {
        assert_eq!((reading.failed, reading.latency.total()), (0, reading.answered));
        assert!(reading.due >= reading.answered);
    }
    assert_eq!(prober.diagnoses(), [[None], [None]]);
    assert!(met.requests.load(SeqCst) >= 40);
}

#[tokio::test]
async fn who_never_answers_has_failed_with_the_timeout_and_ends_with_the_probe() {
    let (port, met) = server().await;
    let prober = start(probe(10, 60, Ask::Http(get(port, "/never"))));
    for reading in until(&prober, |reading| reading.failed >= 10).await {
        assert_eq!(reading.answered, 0);
        let (least, most) = (reading.latency.quantile(0.0).unwrap(), reading.latency.quantile(1.0).unwrap());
        assert!(least > 0.95 * 60e6 && most < 1.05 * 60e6, "{least} to {most}");
    }
    assert_eq!(prober.diagnoses()[1][0].as_deref(), Some("no answer within 60ms"));
    drop(prober);
    let all_gone = async {
        while met.open.load(SeqCst) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all_gone).await.expect("every connection is closed");
    let before = met.connections.load(SeqCst);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(met.connections.load(SeqCst), before, "nobody is asked any more");
}

#[tokio::test]
async fn pages_are_read_again_and_again() {
    let (port, _) = server().await;
    let prober = start(probe(20, 1000, scrape(port, "/metrics")));
    let earlier = until(&prober, |reading| reading.answered >= 2).await;
    let later = until(&prober, |reading| reading.answered >= 8).await;
    for (earlier, later) in earlier.iter().zip(&later) {
        let between = later.since(earlier).unwrap();
        assert!(between.scraped_ns > 0 && between.failed == 0);
        let Scraped::Counter(hits) = between.scraped["hits"] else { panic!("{between:?}") };
        let Scraped::Buckets(times) = &between.scraped["t"] else { panic!("{between:?}") };
        assert!(hits >= 12.0, "two for each request, this target's and the other's: {hits}");
        assert_eq!((times.above(0.5), times.total), (Some(hits / 2.0), hits));
        assert_eq!(between.scraped["queue"], Scraped::level(7.0));
    }
}

#[tokio::test]
async fn a_page_that_begins_anew_loses_what_was_between() {
    let (port, _) = server().await;
    let asker = asker(scrape(port, "/resets"));
    let tally = Tally::new(PATIENCE, 9);
    let mut readings = Vec::new();
    for i in 1..=4 {
        assert!(tally.begin());
        let (latency, at) = (Duration::ZERO, Duration::from_secs(i));
        tally.end(tally::End { latency, at, answer: Some(asker.ask().await) });
        readings.push(tally.reading());
    }
    let hits = |i: usize| readings[i].since(&readings[i - 1]).map(|between| between.scraped["hits"].clone());
    assert_eq!([hits(1), hits(2), hits(3)], [Some(Scraped::Counter(2.0)), Some(Scraped::Counter(2.0)), None]);
}

#[tokio::test]
async fn a_page_that_cannot_be_read_says_nothing() {
    let (port, _) = server().await;
    let prober = start(probe(20, 1000, scrape(port, "/once")));
    let readings = until(&prober, |reading| reading.failed >= 3).await;
    assert!(readings.iter().all(|reading| reading.scraped.is_empty()), "the last good page is no longer so");
    assert_eq!(prober.diagnoses(), [[Some("status 503".to_owned())], [Some("status 503".to_owned())]]);
    assert!(answer(scrape(port, "/")).await.unwrap_err().contains("line 1"));
    assert!(answer(scrape(port, "/big")).await.unwrap_err().contains("longer than"));
}

/// A file for a program to write a number into.
struct Note(PathBuf);

impl Note {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("kchaos-probe-test-{}-{name}", std::process::id())))
    }

    async fn pid(&self) -> u32 {
        let written = async {
            loop {
                if let Some(pid) = fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse().ok())
                {
                    return pid;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, written).await.expect("the program to write its number")
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn is_gone(pid: u32) {
    let gone = async {
        // A zombie has ended too, and waits for its parent.
        while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{pid} goes on"));
}

#[tokio::test]
async fn programs_are_good_if_they_end_with_0() {
    assert_eq!(answer(exec(&["true"])).await, Ok(BTreeMap::new()));
    let sh = |script| answer(exec(&["sh", "-c", script, "sh", "{target}"]));
    assert_eq!(sh("test $1 = 127.0.0.1 && test $KCHAOS_TARGET = 127.0.0.1").await, Ok(BTreeMap::new()));
    let said = sh("echo first >&2; echo 'no such key' >&2; echo >&2; exit 3").await;
    assert_eq!(said, Err("exit status: 3: no such key".to_owned()));
    assert_eq!(sh("exit 1").await, Err("exit status: 1".to_owned()));
    assert!(sh("kill -9 $$").await.unwrap_err().starts_with("signal: 9"));
    assert_eq!(
        sh("yes | head -c 1000000 >&2").await,
        Ok(BTreeMap::new()),
        "what it says does not hold it up"
    );
    let missing = answer(exec(&["kchaos-has-no-such-program"])).await.unwrap_err();
    assert!(missing.contains("kchaos-has-no-such-program") && missing.contains("not found"), "{missing}");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_its_children() {
    let note = Note::new("hangs");
    let script = format!("sleep 1000 & echo $! > {}; wait", note.0.display());
    let prober = Prober::start(
        &[probe(10_000, 2000, exec(&["sh", "-c", &script]))],
        &[ProbeTarget { slot: 0, address: HERE }],
    );
    let prober = prober.unwrap();
    let child = note.pid().await;
    let readings = until(&prober, |reading| reading.failed == 1).await;
    assert_eq!(readings[0].answered, 0);
    is_gone(child).await;
}

#[tokio::test]
async fn what_a_program_leaves_running_ends_with_it() {
    let note = Note::new("leaves");
    let script = format!("sleep 1000 & echo $! > {}", note.0.display());
    assert_eq!(answer(exec(&["sh", "-c", &script])).await, Ok(BTreeMap::new()));
    is_gone(note.pid().await).await;
}

#[tokio::test]
async fn programs_end_with_the_probe() {
    let note = Note::new("ends");
    let script = format!("sleep 1000 & echo $! > {}; wait", note.0.display());
    let target = ProbeTarget { slot: 0, address: HERE };
    let prober = Prober::start(&[probe(10_000, 30_000, exec(&["sh", "-c", &script]))], &[target]).unwrap();
    let child = note.pid().await;
    drop(prober);
    is_gone(child).await;
}

#[tokio::test]
async fn every_slot_needs_a_target() {
    let targets = [0, 2].map(|slot| ProbeTarget { slot, address: HERE });
    assert!(matches!(Prober::start(&[], &targets), Err(ProbeError::Slots { missing: 1, last: 2 })));
}

#[test]
fn probes_need_a_runtime() {
    assert!(matches!(Prober::start(&[], &[]), Err(ProbeError::NoRuntime)));
}
