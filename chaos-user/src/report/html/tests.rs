//! What holds for every page.

use std::{fmt::Write as _, fs, path::Path};

use quick_xml::events::Event;

use super::{
    course::{Part, Series, Stretch},
    page, render,
};
use crate::{
    experiment::hypothesis::{Kind, Margin},
    report::{
        examples::{Example, HOSTILE, all, named},
        formats::well_formed,
    },
    steady::{
        histogram::Histogram,
        sample::Phase,
        summary::{Point, Summary},
    },
};

fn pages() -> Vec<(&'static str, String)> {
    all().iter().map(|Example { name, report, input }| (*name, render(report, input))).collect()
}

/// Every attribute of every element, as `element attribute=value`.
fn attributes(page: &str) -> Vec<(String, String, String)> {
    let mut reader = quick_xml::Reader::from_str(page);
    let mut all = vec![];
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => return all,
            Event::Start(tag) | Event::Empty(tag) => {
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                for attribute in tag.attributes().map(Result::unwrap) {
                    let key = String::from_utf8(attribute.key.as_ref().to_vec()).unwrap();
                    let value = String::from_utf8(attribute.value.to_vec()).unwrap();
                    all.push((name.clone(), key, value));
                }
            }
            _ => {}
        }
    }
}

fn elements(page: &str) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(page);
    let mut all = vec![];
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => return all,
            Event::Start(tag) | Event::Empty(tag) => {
                all.push(String::from_utf8(tag.name().as_ref().to_vec()).unwrap());
            }
            _ => {}
        }
    }
}

#[test]
fn every_page_is_well_formed_and_needs_nothing_from_elsewhere() {
    for (name, page) in pages() {
        well_formed(&page);
        for element in elements(&page) {
            let loads =
                ["script", "link", "img", "iframe", "object", "embed", "image", "use", "foreignObject", "a"];
            assert!(!loads.contains(&element.as_str()), "{name}: <{element}>");
        }
        for (element, key, value) in attributes(&page) {
            let is_namespace = key == "xmlns" && value == "http://www.w3.org/2000/svg";
            assert!(
                is_namespace || !value.contains("://") || value.contains("evil.example"),
                "{name}: {element} {key}={value}"
            );
            assert!(
                !key.starts_with("on") && !["src", "href", "style"].contains(&key.as_str()),
                "{name}: {element} {key}"
            );
            let local = !value.contains("url(") || value.starts_with("url(#");
            assert!(local, "{name}: {element} {key}={value}");
        }
        let style = include_str!("style.css");
        assert!(!style.contains("url(") && !style.contains("@import"));
    }
}

#[test]
fn every_number_in_a_figure_is_one() {
    let numbers = ["x", "y", "x1", "x2", "y1", "y2", "width", "height"];
    for (name, page) in pages() {
        for (element, key, value) in attributes(&page) {
            let is_length = numbers.contains(&key.as_str());
            assert!(
                !is_length || value.parse::<f64>().is_ok_and(f64::is_finite),
                "{name}: {element} {key}={value}"
            );
            let is_path = matches!(key.as_str(), "d" | "viewBox");
            assert!(!is_path || !value.contains(['N', 'i', 'n', 'e']), "{name}: {element} {key}={value}");
            if matches!(key.as_str(), "width" | "height") {
                assert!(!value.starts_with('-'), "{name}: {element} {key}={value}");
            }
        }
        for word in [">NaN", "NaN %", " inf", "+inf", "-inf"] {
            assert!(!page.contains(word), "{name}: {word}");
        }
    }
}

#[test]
fn every_figure_says_what_it_shows_and_ids_are_unique() {
    for (name, page) in pages() {
        let attributes = attributes(&page);
        let mut ids: Vec<_> =
            attributes.iter().filter(|(_, key, _)| key == "id").map(|(.., id)| id).collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "{name}");
        let named =
            attributes.iter().filter(|(element, key, _)| element == "svg" && key == "aria-labelledby");
        for (.., by) in named {
            assert!(by.split(' ').all(|id| ids.iter().any(|known| *known == id)), "{name}: {by}");
        }
        let figures = page.matches("<svg").count();
        assert_eq!(
            (page.matches("<desc").count(), page.matches("role=\"img\"").count()),
            (figures, figures),
            "{name}"
        );
    }
}

#[test]
fn hostile_names_are_text() {
    let page = {
        let Example { report, input, .. } = named("hostile");
        render(&report, &input)
    };
    assert!(!page.contains("<script") && !page.contains("alert(\""));
    let shown = "&lt;/td&gt;&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;";
    assert!(page.matches(shown).count() > 8, "name, hypothesis, faults, groups, rollback");
    assert!(HOSTILE.contains('\u{1}') && !page.contains('\u{1}'));
}

#[test]
fn each_verdict_has_its_word_and_its_claim() {
    for Example { name, report, input } in all() {
        let page = render(&report, &input);
        let word = crate::report::text::verdict_word(report.verdict);
        assert!(page.contains(&format!("<span>{word}</span>")), "{name}");
        assert_eq!(page.contains("not judged"), !crate::report::text::is_judged(&report), "{name}");
    }
}

#[test]
fn figures_are_there_where_there_is_something_to_draw() {
    let has = |name: &str, id: &str| {
        let Example { report, input, .. } = named(name);
        render(&report, &input).contains(&format!("id=\"{id}-title\""))
    };
    for id in ["gates", "course0", "course1", "control", "strip1", "recovery"] {
        assert!(has("pass", id), "{id}");
    }
    for id in ["gates", "course0", "pulse0", "control"] {
        assert!(has("pulses", id), "{id}");
    }
    assert!(has("both", "hold") && has("both", "pulse1"));
    assert!(!has("pass", "pulse0") && !has("pass", "hold") && !has("pass", "shift0"));
    assert!(!has("nothing-measured", "gates") && !has("nothing-measured", "strip0"));
    assert!(!has("aborted-at-once", "course0") && !has("nothing-measured", "course0"));
    assert!(has("ten-gates", "course9"));
}

/// Durations of a service whose slowest twentieth is slower by `slower` while the fault is on.
pub(super) fn durations(slower: f64) -> Series {
    let draw = |i: u64| f64::from(chaos_common::random::draw(7, 0, i)) / 2f64.powi(32);
    let histogram = |tick: u64, group: u64, slow: f64| {
        let mut histogram = Histogram::default();
        for i in 0..400 {
            let at = ((tick * 2 + group) * 400 + i) * 2;
            let (fast, tail) = (draw(at), draw(at + 1));
            let usual = 900_000.0 * (1.0 + fast * fast * 2.0);
            let ns = if tail < 0.05 { usual * slow } else { usual };
            histogram.record(ns as u64);
        }
        histogram
    };
    let phase = |(number, phase): (u64, Phase)| {
        let is_on = phase == Phase::Inject;
        let point = |second: u64| {
            let tick = number * 60 + second;
            let latency = |group, slow| Summary::latency(histogram(tick, group, slow));
            let experiment = latency(1, if is_on { slower } else { 1.5 });
            (second as f64 + 1.0, Point { control: latency(0, 1.5), experiment, seconds: 1.0 })
        };
        let start_s = number as f64 * 60.0;
        Stretch { part: Part::Phase(phase), start_s, seconds: 60.0, points: (0..60).map(point).collect() }
    };
    let phases = [Phase::Baseline, Phase::Inject, Phase::Recover];
    Series {
        name: "get.latency p99".into(),
        kind: Kind::Quantile { per_mille: 990 },
        margin: Margin { increase: Some(0.25), decrease: None },
        stretches: (0..).zip(phases).map(phase).collect(),
    }
}

#[test]
fn durations_are_drawn() {
    let Example { report, .. } = named("fail");
    let drawn = page(&report, &[durations(12.0)]);
    well_formed(&drawn);
    for id in ["shift0-title", "heat0-title", "course0-title"] {
        assert!(drawn.contains(id), "{id}");
    }
    let row = |quantile: &str| {
        let from = drawn.find(&format!("<th scope=\"row\">{quantile}</th>")).unwrap();
        drawn[from..].split("</tr>").next().unwrap().to_owned()
    };
    let slow = row("99 %");
    assert!(slow.contains("ms"), "{slow}");
    let heat = drawn.matches("class=\"heat6\"").count();
    assert!(heat >= 2, "the darkest colour is in the figure and in the legend");
    let empty = Series { stretches: vec![], ..durations(1.0) };
    let one_sided = {
        let mut series = durations(1.0);
        series.stretches.iter_mut().flat_map(|stretch| &mut stretch.points).for_each(|(_, point)| {
            point.control = Summary::default();
        });
        series
    };
    for series in [empty, one_sided] {
        let drawn = page(&report, &[series]);
        well_formed(&drawn);
        assert!(!drawn.contains("NaN"));
    }
}

/// Writes all pages to the folder `KCHAOS_EXAMPLES`, to be looked at; does nothing without it.
#[test]
fn pages_to_look_at() {
    let Some(folder) = std::env::var_os("KCHAOS_EXAMPLES") else { return };
    let write =
        |name: &str, page: &str| fs::write(Path::new(&folder).join(format!("{name}.html")), page).unwrap();
    let mut sizes = String::new();
    for (name, page) in pages() {
        writeln!(sizes, "{name}: {} bytes", page.len()).unwrap();
        write(name, &page);
    }
    let Example { report, input, .. } = named("fail");
    let mut series = super::course::series(&report, &input);
    series.push(durations(12.0));
    write("durations", &page(&report, &series));
    println!("{sizes}");
}
