//! What holds for every example in a format, and what some look like.

use serde_json::Value;

use super::{
    Report,
    examples::{HOSTILE, all, named},
    json, junit, markdown, schema,
};

/// Where the schema is published.
const PUBLISHED: &str = include_str!("../../../docs/report.schema.json");

#[test]
fn the_published_schema_is_what_the_code_says() {
    let ours = schema::render().unwrap();
    assert!(
        ours == PUBLISHED,
        "docs/report.schema.json is not what the types say; write it anew: cargo run -p chaos-user -- schema > docs/report.schema.json"
    );
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(PUBLISHED).unwrap()).unwrap()
}

fn as_json(report: &Report) -> Value {
    serde_json::from_str(&json::render(report).unwrap()).unwrap()
}

#[test]
fn every_report_is_what_the_schema_says() {
    let validator = validator();
    for example in all() {
        let report = as_json(&example.report);
        let errors: Vec<_> = validator
            .iter_errors(&report)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, Vec::<String>::new(), "{}", example.name);
    }
}

#[test]
fn the_schema_refuses_what_is_no_report() {
    let (validator, good) = (validator(), as_json(&named("fail").report));
    let changed = |path: &str, to: Value| {
        let mut report = good.clone();
        *report.pointer_mut(path).unwrap() = to;
        report
    };
    assert!(validator.is_valid(&good));
    for (path, to) in [
        ("/schema", "kchaos-report/0".into()),
        ("/verdict", "good".into()),
        ("/gates/0/estimate/kind", "guess".into()),
        ("/gates/0/estimate/ci", serde_json::json!([1.0])),
        ("/faults/0/injected", (-1).into()),
        ("/phases/0/phase", Value::Null),
        ("/groups", Value::Null),
    ] {
        assert!(!validator.is_valid(&changed(path, to)), "{path}");
    }
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("claim");
    assert!(!validator.is_valid(&without));
}

fn in_junit(name: &str, strict: bool) -> String {
    junit::render(&named(name).report, strict).unwrap()
}

#[test]
fn continuous_integration_reads_junit() {
    for name in ["pass", "fail", "inconclusive", "invalid", "aborted", "both"] {
        insta::assert_snapshot!(format!("junit-{name}"), in_junit(name, false));
    }
}

#[test]
fn what_is_not_decided_is_skipped_unless_that_is_not_enough() {
    let (lenient, strict) = (in_junit("inconclusive", false), in_junit("inconclusive", true));
    assert!(lenient.contains("<skipped ") && !lenient.contains("<error"));
    assert!(strict.contains("<error ") && !strict.contains("<skipped"));
    assert_eq!(
        lenient.matches("type=\"inconclusive\"").count(),
        strict.matches("type=\"inconclusive\"").count()
    );
    for decided in ["fail", "invalid", "aborted"] {
        assert_eq!(in_junit(decided, false), in_junit(decided, true), "{decided}");
    }
}

#[test]
fn a_run_that_is_not_a_pass_is_never_green() {
    for example in all() {
        let xml = junit::render(&example.report, true).unwrap();
        let red = xml.matches("<failure").count() + xml.matches("<error").count();
        let passed = example.report.verdict.exit_code() == 0;
        let undone = example.report.rollback.iter().all(|step| step.ok);
        assert!((red == 0) <= (passed && undone), "{}: {xml}", example.name);
        well_formed(&xml);
    }
}

/// Reads all of it as XML.
pub(super) fn well_formed(xml: &str) {
    let mut reader = quick_xml::Reader::from_str(xml);
    reader.config_mut().check_end_names = true;
    loop {
        match reader.read_event() {
            Ok(quick_xml::events::Event::Eof) => return,
            Ok(quick_xml::events::Event::Start(tag) | quick_xml::events::Event::Empty(tag)) => {
                tag.attributes().for_each(|attribute| _ = attribute.unwrap());
            }
            Ok(_) => {}
            Err(error) => panic!("{error} at {} of {xml}", reader.error_position()),
        }
    }
}

#[test]
fn people_read_markdown() {
    for name in
        ["pass", "fail", "inconclusive", "invalid", "aborted", "pulses-fail", "both", "nothing-measured"]
    {
        insta::assert_snapshot!(format!("markdown-{name}"), markdown::render(&named(name).report));
    }
}

#[test]
fn names_mean_nothing_in_markdown() {
    let page = markdown::render(&named("hostile").report);
    insta::assert_snapshot!("markdown-hostile", page);
    for meaning in ["<script", "](http", "@everyone", " **[a]", "&amp;"] {
        let plain = page.match_indices(meaning).find(|(at, _)| !page[..*at].ends_with('\\'));
        assert_eq!(plain, None, "{meaning}");
    }
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let tables: Vec<_> = page.lines().filter(|line| line.starts_with('|')).collect();
    assert!(tables.iter().all(|line| columns(line) == columns(tables[0])), "{tables:?}");
    assert!(!page.contains('\u{1}') && HOSTILE.contains('\u{1}'));
}
