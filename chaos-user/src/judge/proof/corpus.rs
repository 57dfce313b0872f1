//! Data that users of Kayenta reported as judged wrongly. None may come out PASS where they say it should have failed.
//!
//! Each is played as a fault phase of both groups, after a baseline in which both were as the control group is.

use super::kayenta::{self, Class};
use crate::{
    experiment::hypothesis::{Kind, Margin},
    judge::{
        estimate::{Contrast, estimate},
        gate,
    },
    steady::summary::{Point, Summary},
};

/// A reported case: what it is counted as, and how far it may rise.
struct Case {
    name: &'static str,
    experiment: &'static [f64],
    control: &'static [f64],
    /// Out of how many each value is, for errors. The reports do not say; few calls are the harder case.
    out_of: Option<f64>,
    margin: Margin,
}

const RISES_BY_A_QUARTER: Margin = Margin { increase: Some(0.25), decrease: None };
const WITHIN_A_QUARTER: Margin = Margin { increase: Some(0.25), decrease: Some(0.25) };
const HALF_A_POINT: Margin = Margin { increase: Some(0.005), decrease: None };

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "kayenta #426: sparse errors against none",
            experiment: &[0.0, 1.0, 2.0, 1.0, 0.0, 0.0],
            control: &[0.0; 6],
            out_of: Some(10.0),
            margin: HALF_A_POINT,
        },
        Case {
            name: "kayenta #799: the same errors with gaps, taken as none",
            experiment: &[
                1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0,
                0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0,
            ],
            control: &[0.0; 25],
            out_of: Some(10.0),
            margin: HALF_A_POINT,
        },
        Case {
            name: "kayenta #799: errors against a control group that has none",
            experiment: &[1.0, 4.0, 2.0, 3.0, 1.0],
            control: &[0.0; 5],
            out_of: Some(10.0),
            margin: HALF_A_POINT,
        },
        Case {
            name: "kayenta #780: what varied much varies little",
            experiment: &[
                10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 17.0, 17.1, 17.2, 17.3, 17.4, 17.5, 17.6, 17.7,
            ],
            control: &[
                1.0, 100.0, 4.0, 101.0, 5.0, 102.0, 6.0, 103.0, 7.0, 104.0, 8.0, 105.0, 9.0, 106.0, 17.0,
            ],
            out_of: None,
            margin: WITHIN_A_QUARTER,
        },
        Case {
            name: "spinnaker #6278: a hundred times as much in seven of ten",
            experiment: &[100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 1.0, 1.0, 1.0],
            control: &[1.0; 10],
            out_of: None,
            margin: RISES_BY_A_QUARTER,
        },
    ]
}

impl Case {
    fn kind(&self) -> Kind {
        if self.out_of.is_some() { Kind::RareRatio } else { Kind::Rate }
    }

    fn point(&self, experiment: f64, control: f64) -> Point {
        let of = |value: f64| Summary::count(value, self.out_of.unwrap_or(1.0), value as u64);
        Point { control: of(control), experiment: of(experiment), seconds: 1.0 }
    }

    fn word(&self) -> &'static str {
        let before: Vec<Point> = self.control.iter().map(|value| self.point(*value, *value)).collect();
        let during: Vec<Point> =
            self.experiment.iter().zip(self.control).map(|(e, c)| self.point(*e, *c)).collect();
        match estimate(self.kind(), Contrast::Groups, &before, &during, 0.95) {
            Err(_) => "INCONCLUSIVE",
            Ok(effect) if gate::is_inside(&effect, self.margin) => "PASS",
            Ok(effect) if gate::p_fail(&effect, self.margin) <= 0.05 => "FAIL",
            Ok(_) => "INCONCLUSIVE",
        }
    }
}

/// The cases as rows of the page's table.
pub(super) fn rows() -> Vec<String> {
    let row = |case: &Case| {
        let theirs = match kayenta::classify(case.experiment, case.control) {
            Class::Pass => "Pass",
            Class::High => "High",
            Class::Low => "Low",
        };
        format!("| {} | {theirs} | {} |", case.name, case.word())
    };
    cases().iter().map(row).collect()
}

#[test]
fn none_passes_that_should_have_failed() {
    for case in cases() {
        assert_ne!(case.word(), "PASS", "{}", case.name);
    }
}

#[test]
fn what_is_clear_fails() {
    let of = |name: &str| cases().into_iter().find(|case| case.name.contains(name)).map(|case| case.word());
    assert_eq!(of("#799: errors against"), Some("FAIL"));
    assert_eq!(of("#6278"), Some("FAIL"));
}
