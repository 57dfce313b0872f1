use super::*;
use crate::experiment::{parse, probe::Ask};

const SHOP: &str = include_str!("../../../tests/specs/chaos-toolkit/shop.json");
const API: &str = include_str!("../../../tests/specs/chaos-toolkit/api.yaml");
const NOTHING: &str = include_str!("../../../tests/specs/chaos-toolkit/nothing.yaml");

/// As if a user had completed it: uncommented, and with gates that this spec can have without its probes being measured.
fn completed(spec: &str) -> String {
    let uncommented = spec.replace("#: ", "");
    let (before, rest) = uncommented.split_once("  checks:").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    format!("{before}  gates: [{{ metric: syscalls, within: 10% }}]\n\n{after}")
}

#[test]
fn an_experiment_becomes_a_spec() {
    let imported = import(SHOP).unwrap();
    assert_eq!(imported.probes, 4);
    insta::assert_snapshot!("shop", imported.spec);
    let spec = parse(&completed(&imported.spec)).unwrap();
    let ids: Vec<_> = spec.probes.iter().map(|probe| probe.id.as_str()).collect();
    assert_eq!(ids, ["the-front-page-is-the", "search", "net-ok", "search-2"]);
    assert_eq!(spec.probes[1].timeout, std::time::Duration::from_millis(3500));
    assert_eq!(
        (spec.name.as_str(), spec.hypothesis.as_str()),
        ("can-the-shop-s-frontend-lose-its-cache", "Customers are served")
    );
}

#[test]
fn what_cannot_be_imported_is_named() {
    let imported = import(SHOP).unwrap();
    for part in [
        "stock-is-counted",
        "latency-is-low",
        "login",
        "account",
        "stop-the-cache",
        "start-the-cache",
        "verify_tls",
        "120 s",
        "connection",
        "secrets",
        "reference `search`",
    ] {
        let said = imported.left_out.iter().filter(|line| line.contains(part)).count();
        assert!(said >= 1, "{part}: {:?}", imported.left_out);
        assert!(imported.spec.contains(part), "{part}");
    }
}

#[test]
fn yaml_is_read_too() {
    let imported = import(API).unwrap();
    assert_eq!((imported.probes, imported.left_out.len()), (1, 0));
    let spec = parse(&completed(&imported.spec)).unwrap();
    assert_eq!(spec.probes[0].id, "api-answers");
}

#[test]
fn where_nothing_can_be_imported_that_is_said() {
    let imported = import(NOTHING).unwrap();
    assert_eq!((imported.probes, imported.left_out.len()), (0, 2));
    assert!(imported.left_out[0].contains("exec"), "{:?}", imported.left_out);
}

#[test]
fn what_is_no_experiment_is_refused() {
    for (text, part) in [
        ("", "no experiment"),
        ("[1, 2]", "no experiment"),
        ("title: x\n", "no experiment"),
        ("{\"steady-state-hypothesis\": 1}", "no experiment"),
        ("a: [", "neither JSON nor YAML"),
    ] {
        let error = import(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text:?}: {error}");
    }
    assert_eq!(import(&" ".repeat(MAX_BYTES + 1)), Err(ImportError::TooLarge(MAX_BYTES + 1)));
}

#[test]
fn text_of_others_stays_in_its_place() {
    let hostile = r##"{"title": "a\nfaults: []", "steady-state-hypothesis": {"title": "x\"\n- y\u001b[2J", "probes": [
        {"name": "a\nversion: 2", "tolerance": {"type": "regex", "target": "body", "pattern": "\" #\u0085\u007f\ufeff\n- id: b"},
         "provider": {"type": "http", "url": "http://h/b", "headers": {"x": "\": 1"}}},
        {"name": "b\n- c", "tolerance": 200, "provider": {"type": "py\nthon"}}]}}"##;
    let imported = import(hostile).unwrap();
    assert_eq!((imported.probes, imported.left_out.len()), (1, 1), "{imported:?}");
    assert!(!imported.spec.contains(|c: char| c.is_control() && c != '\n'));
    assert!(!imported.left_out[0].contains(char::is_control));
    let spec = parse(&completed(&imported.spec)).unwrap();
    assert_eq!((spec.name.as_str(), spec.hypothesis.as_str()), ("a-faults", "x\" - y [2J"));
    assert_eq!((spec.probes.len(), spec.probes[0].id.as_str()), (1, "a-version-2"));
    let Ask::Http(http) = &spec.probes[0].ask else { panic!("{spec:?}") };
    assert_eq!(http.body_has.as_deref(), Some("\" #\u{85}\u{7f}\u{feff}\n- id: b"));
    assert_eq!(http.headers[0].1, "\": 1");
}

#[test]
fn what_our_specs_cannot_have_is_left_out() {
    let long = "x".repeat(2000);
    let text = format!(
        r#"{{"steady-state-hypothesis": {{"probes": [
        {{"tolerance": {{"type": "regex", "target": "body", "pattern": "{long}"}}, "provider": {{"type": "http", "url": "http://h"}}}},
        {{"tolerance": 999, "provider": {{"type": "http", "url": "http://h"}}}},
        {{"tolerance": 200, "provider": {{"type": "http", "url": "http://h:0/"}}}},
        {{"tolerance": true, "provider": {{"type": "http", "url": "http://h"}}}}]}}}}"#
    );
    let imported = import(&text).unwrap();
    assert_eq!((imported.probes, imported.left_out.len()), (0, 4), "{imported:?}");
    let many = format!("{}]}}}}", r#"{"steady-state-hypothesis": {"probes": [{"tolerance": 200, "provider": {"type": "http", "url": "http://h"}}"#.to_owned()
        + &r#",{"tolerance": 200, "provider": {"type": "http", "url": "http://h"}}"#.repeat(9));
    let imported = import(&many).unwrap();
    assert_eq!((imported.probes, imported.left_out.len()), (8, 2));
}
