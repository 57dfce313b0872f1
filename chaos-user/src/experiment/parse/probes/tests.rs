use super::*;
use crate::experiment::parse;

fn of(probes: &str) -> Vec<Probe> {
    let spec = format!(
        "version: 1\nname: test\ngroups: {{ control: docker:a, experiment: docker:b }}\n\
         steady_state:\n  gates: [{{ metric: syscalls, within: 10% }}]\n  probes:\n{probes}\n\
         faults: [{{ loss: {{ percent: 5 }} }}]\n"
    );
    parse(&spec).unwrap_or_else(|error| panic!("{probes}: {error}")).probes
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn what_is_not_written_has_defaults() {
    let probes = of(
        "    - { id: get, http: \"http://{target}:8080/\" }\n    - { id: up, tcp: \"{target}:6379\" }\n\
         \x20   - { id: set, exec: ./probe.sh }\n    - { id: app, prometheus: \"http://{target}:9121/metrics\" }",
    );
    let paces: Vec<_> = probes.iter().map(|probe| (probe.every, probe.timeout)).collect();
    let (ten, second) = (milliseconds(100), milliseconds(1000));
    assert_eq!(paces, [(ten, second), (ten, second), (second, second), (second, second)]);
    let Ask::Http(http) = &probes[0].ask else { panic!("{probes:?}") };
    assert_eq!(
        (http.status.to_string().as_str(), &http.method, http.fresh),
        ("200-399", &Method::GET, false)
    );
    assert_eq!(probes[1].ask, Ask::Tcp { port: 6379 });
    assert_eq!(probes[2].ask, Ask::Exec(Command { program: "./probe.sh".to_owned(), arguments: Vec::new() }));
}

#[test]
fn everything_can_be_written() {
    let probes = of(
        "    - id: get\n      http: \"http://{target}/a?b=c\"\n      rate: 0.5/s\n      timeout: 250ms\n\
         \x20     method: post\n      status: [200, 300-304]\n      body_has: ok\n      headers: { X-A: 1, Host: a.example }\n\
         \x20     fresh: true\n\
         \x20   - { id: app, prometheus: \"http://{target}/m\", every: 500ms, series: [a_total, \"b:c\"] }\n\
         \x20   - { id: set, exec: [redis-cli, -p, 6379, ping], rate: 5/s }",
    );
    assert_eq!((probes[0].every, probes[0].timeout), (milliseconds(2000), milliseconds(250)));
    let Ask::Http(http) = &probes[0].ask else { panic!("{probes:?}") };
    let headers: Vec<_> =
        http.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(headers, [("host", &b"a.example"[..]), ("x-a", b"1")]);
    assert_eq!((&http.method, http.body_has.as_deref(), http.fresh), (&Method::POST, Some("ok"), true));
    assert_eq!(http.status.to_string(), "200, 300-304");
    assert_eq!((probes[1].every, probes[1].timeout), (milliseconds(500), milliseconds(500)));
    let Ask::Prometheus(scrape) = &probes[1].ask else { panic!("{probes:?}") };
    assert!(scrape.series.iter().eq(["a_total", "b:c"]));
    let Ask::Exec(command) = &probes[2].ask else { panic!("{probes:?}") };
    assert_eq!(command.arguments, ["-p", "6379", "ping"]);
}

#[test]
fn no_name_begins_a_metric_of_the_kernel() {
    use crate::experiment::metric::FIRST_WORDS;
    for first in FIRST_WORDS.iter().filter(|first| !first.contains('_')) {
        assert!(TAKEN_IDS.contains(first), "{first}");
    }
}

#[test]
fn under_way_are_as_many_as_can_be() {
    let probe = &of("    - { id: get, http: \"http://{target}/\", rate: 50/s, timeout: 250ms }")[0];
    assert!((13..30).contains(&probe.most_under_way()));
}
