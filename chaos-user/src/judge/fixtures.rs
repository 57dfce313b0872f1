//! Against numbers computed once with numpy and scipy: `tests/fixtures/judge_reference.py`.

use chaos_common::Counters;
use serde_json::Value;

use super::{
    estimate::{Contrast, estimate},
    ewc, gate, holm, quantile,
};
use crate::{
    experiment::hypothesis::{Gate, Margin, Metric},
    steady::{
        rates::{Tick, points},
        sample::Phase,
    },
};

fn reference() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/judge_reference.json")).unwrap()
}

pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

pub(super) fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(number).collect()
}

pub(super) fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

#[track_caller]
pub(super) fn close(ours: f64, theirs: &Value) {
    within(1e-7, ours, theirs);
}

#[track_caller]
fn within(relative: f64, ours: f64, theirs: &Value) {
    let theirs = number(theirs);
    let tolerance = relative * theirs.abs() + 1e-12;
    assert!((ours - theirs).abs() <= tolerance, "{ours} against {theirs}");
}

#[track_caller]
pub(super) fn close_pair(ours: (f64, f64), theirs: &Value) {
    close(ours.0, &theirs[0]);
    close(ours.1, &theirs[1]);
}

#[test]
fn long_run_variance() {
    let expected = &reference()["ewc"];
    let long_run = ewc::long_run(&numbers(&expected["series"])).unwrap();
    close(long_run.omega, &expected["omega"]);
    close(long_run.nu, &expected["nu"]);
    assert_eq!([8, 32, 60, 120].map(ewc::cosines), [4, 4, 6, 10]);
    assert_eq!(ewc::long_run(&[1.0; 4]), None);
}

#[test]
fn quantiles_and_tails() {
    let expected = reference();
    for case in list(&expected["t"]) {
        close(quantile::t(number(&case["level"]), number(&case["df"])), &case["quantile"]);
    }
    for case in list(&expected["t_tail"]) {
        close(quantile::t_tail(number(&case["x"]), number(&case["df"])), &case["p"]);
    }
    for case in list(&expected["binomial_at_least"]) {
        let (hits, trials) = (case["hits"].as_u64().unwrap(), case["trials"].as_u64().unwrap());
        close(quantile::binomial_at_least(hits, trials, number(&case["share"])), &case["p"]);
    }
}

#[test]
fn intervals_of_shares() {
    let expected = reference();
    for case in list(&expected["clopper_pearson"]) {
        let (hits, trials) = (number(&case["hits"]), number(&case["trials"]));
        let relative = if trials > 1e5 { 1e-4 } else { 1e-7 };
        let (low, high) = quantile::clopper_pearson(hits, trials, number(&case["level"]));
        within(relative, low, &case["ci"][0]);
        within(relative, high, &case["ci"][1]);
    }
    for case in list(&expected["wilson"]) {
        let (hits, trials) = (case["hits"].as_u64().unwrap(), case["trials"].as_u64().unwrap());
        close_pair(quantile::wilson(hits, trials, number(&case["level"])).unwrap(), &case["ci"]);
    }
}

#[test]
fn holm_steps_down() {
    let expected = &reference()["holm"];
    for (ours, theirs) in holm::adjust(&numbers(&expected["p"])).iter().zip(list(&expected["adjusted"])) {
        close(*ours, theirs);
    }
    assert!(holm::adjust(&[]).is_empty());
    assert_eq!(holm::adjust(&[0.03]), [0.03]);
}

fn ticks(case: &Value, seconds: f64, counters: impl Fn(usize, usize) -> Counters) -> Vec<Tick> {
    let off = case["off"].as_u64().unwrap() as usize;
    let all = list(case.get("control").unwrap_or(&case["trials"][0])).len();
    let tick = |t: usize| Tick {
        phase: if t < off { Phase::Baseline } else { Phase::Inject },
        at_s: (t + 1) as f64 * seconds,
        seconds,
        control: counters(0, t).into(),
        experiment: counters(1, t).into(),
        apart: vec![],
    };
    (0..all).map(tick).collect()
}

#[track_caller]
fn check(case: &Value, metric: Metric, ticks: &[Tick]) {
    let (before, during): (Vec<_>, Vec<_>) = ticks.iter().partition(|tick| tick.phase == Phase::Baseline);
    let of = |ticks: &[&Tick]| points(metric, ticks.iter().copied());
    let measure =
        |metric: Metric, contrast| estimate(metric.kind(), contrast, &of(&before), &of(&during), 0.95);
    let ours = measure(metric, Contrast::Groups).unwrap();
    close(ours.theta, &case["theta"]);
    close(ours.se, &case["se"]);
    close(ours.df, &case["df"]);
    close_pair((ours.theta_ci[0], ours.theta_ci[1]), &case["theta_ci"]);
    if case["p_fail"].is_number() {
        let margin = Margin {
            increase: case.get("increase").and_then(Value::as_f64),
            decrease: case.get("decrease").and_then(Value::as_f64),
        };
        let result = &gate::judge(&[Gate { metric, margin }], &measure, 0.95)[0];
        close(result.p_fail.unwrap(), &case["p_fail"]);
    }
}

#[test]
fn effects_on_rates() {
    for case in list(&reference()["rates"]) {
        let at = |group: usize, t: usize| case[["control", "experiment"][group]][t].as_u64().unwrap();
        let counters = |group, t| Counters { rx_packets: at(group, t), ..Counters::ZERO };
        check(case, Metric::RxPackets, &ticks(case, number(&case["seconds"]), counters));
    }
}

#[test]
fn effects_on_ratios() {
    for case in list(&reference()["ratios"]) {
        let at = |what: &str, group: usize, t: usize| case[what][group][t].as_u64().unwrap();
        let counters = |group, t| Counters {
            syscalls: at("trials", group, t),
            syscall_errors: at("hits", group, t),
            ..Counters::ZERO
        };
        check(case, Metric::SyscallErrorRatio, &ticks(case, 1.0, counters));
    }
}
