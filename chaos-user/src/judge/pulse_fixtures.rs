//! Pulses, families, quantiles and guards against numbers computed once with numpy, scipy and statsmodels:
//! `tests/fixtures/judge_pulses_reference.py`.

use serde_json::Value;

use super::{
    bh,
    estimate::{Contrast, Estimate, estimate},
    fixtures::{close, close_pair, list, number, numbers},
    guard::{HarmTest, RareTest},
    holm,
    jackknife::{Sums, of_sums},
    pulse::{self, PairPoints},
    quantile, trend,
};
use crate::{
    experiment::hypothesis::Kind,
    steady::{
        histogram::Histogram,
        summary::{Point, Summary},
    },
};

fn reference() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/judge_pulses_reference.json")).unwrap()
}

fn per_mille(case: &Value) -> Kind {
    Kind::Quantile { per_mille: case["per_mille"].as_u64().unwrap() as u16 }
}

fn histogram(hits: &Value) -> Histogram {
    list(hits).iter().map(|hit| (hit[0].as_u64().unwrap() as u32, hit[1].as_u64().unwrap())).collect()
}

fn check_spread(ours: &Estimate, case: &Value) {
    close(ours.theta, &case["theta"]);
    close(ours.se, &case["se"]);
    close(ours.df, &case["df"]);
}

fn check(case: &Value, kind: Kind, cell: impl Fn(&Value) -> Summary) {
    let pair = |pair: &Value| {
        let point = |control: usize, experiment: usize| Point {
            control: cell(&pair[control]),
            experiment: cell(&pair[experiment]),
            seconds: 8.0,
        };
        PairPoints { on: point(0, 1), off: point(2, 3) }
    };
    let pairs: Vec<PairPoints> = list(&case["pairs"]).iter().map(pair).collect();
    let ours = pulse::estimate(kind, Contrast::Groups, &pairs, 0.95).unwrap();
    check_spread(&ours, case);
    close_pair((ours.theta_ci[0], ours.theta_ci[1]), &case["theta_ci"]);
    close(pulse::p_randomization(kind, Contrast::Groups, &pairs).unwrap(), &case["p_randomization"]);
}

#[test]
fn pulses_of_rates_shares_and_quantiles() {
    let expected = reference();
    for case in list(&expected["rates"]) {
        check(case, Kind::Rate, |count| Summary::count(number(count), 8.0, number(count) as u64));
    }
    for case in list(&expected["ratios"]) {
        let cell = |cell: &Value| {
            let [hits, trials] = [0, 1].map(|i| number(&cell[i]));
            Summary::count(hits, trials, hits as u64)
        };
        check(case, Kind::RareRatio, cell);
    }
    for case in list(&expected["quantiles"]) {
        check(case, per_mille(case), |hits| Summary::latency(histogram(hits)));
    }
}

#[test]
fn holds_of_quantiles() {
    for case in list(&reference()["hold_quantiles"]) {
        let points = |phase: usize| -> Vec<Point> {
            let groups = &case["phases"][phase];
            let of = |group: usize, tick: usize| Summary::latency(histogram(&groups[group][tick]));
            let point = |tick| Point { control: of(0, tick), experiment: of(1, tick), seconds: 1.0 };
            (0..list(&groups[0]).len()).map(point).collect()
        };
        let ours = estimate(per_mille(case), Contrast::Groups, &points(0), &points(1), 0.95).unwrap();
        check_spread(&ours, case);
    }
}

fn check_targets(case: &Value, kind: Kind, cell: impl Fn(&Value, usize) -> Summary) {
    let of = |group: &str| -> [Vec<Summary>; 2] {
        [0, 1].map(|at| list(&case[group]).iter().map(|target| cell(&target[at], at)).collect())
    };
    let groups = ["control", "experiment"].map(of);
    let [control, experiment] = groups.each_ref().map(|[before, during]| Sums { before, during });
    let ours = of_sums(kind, Contrast::Groups, control, experiment).unwrap();
    close(ours.se, &case["se"]);
    close(ours.df, &case["df"]);
}

#[test]
fn targets_left_out_one_at_a_time() {
    let expected = reference();
    for case in list(&expected["target_rates"]) {
        let seconds = numbers(&case["seconds"]);
        let cell =
            |count: &Value, at: usize| Summary::count(number(count), seconds[at], number(count) as u64);
        check_targets(case, Kind::Rate, cell);
    }
    for case in list(&expected["target_ratios"]) {
        let cell = |cell: &Value, _| {
            let [hits, trials] = [0, 1].map(|i| number(&cell[i]));
            Summary::count(hits, trials, hits as u64)
        };
        check_targets(case, Kind::RareRatio, cell);
    }
    for case in list(&expected["target_quantiles"]) {
        check_targets(case, per_mille(case), |hits, _| Summary::latency(histogram(hits)));
    }
}

#[test]
fn two_one_sided_tests() {
    for case in list(&reference()["tost"]) {
        let [mean, se, df, limit] = ["mean", "se", "df", "limit"].map(|name| number(&case[name]));
        let p = quantile::t_tail((limit - mean) / se, df).max(quantile::t_tail((mean + limit) / se, df));
        close(p, &case["p"]);
        let half = quantile::t(0.95, df) * se;
        assert_eq!(mean - half > -limit && mean + half < limit, p < 0.05, "the interval and the tests agree");
    }
}

#[test]
fn families() {
    let expected = &reference()["adjusted"];
    let p = numbers(&expected["p"]);
    for (name, adjusted) in [("holm", holm::adjust(&p)), ("bh", bh::adjust(&p))] {
        adjusted.iter().zip(list(&expected[name])).for_each(|(ours, theirs)| close(*ours, theirs));
    }
    assert!(bh::adjust(&[]).is_empty());
}

#[test]
fn slopes() {
    let expected = &reference()["slope"];
    close(
        trend::slope(&numbers(&expected["at"]), &numbers(&expected["values"])).unwrap(),
        &expected["slope"],
    );
}

#[test]
fn histograms() {
    let expected = &reference()["histogram"];
    let histogram = histogram(&expected["hits"]);
    for case in list(&expected["quantiles"]) {
        close(histogram.quantile(number(&case[0])).unwrap(), &case[1]);
    }
    for case in list(&expected["at_most"]) {
        close(histogram.at_most(number(&case[0])), &case[1]);
    }
}

#[test]
fn wagers() {
    let expected = reference();
    for case in list(&expected["harm"]) {
        let baseline = numbers(&case["baseline"]);
        let mut test = HarmTest::new(&baseline, number(&case["m_abort"]), number(&case["alpha"])).unwrap();
        for (score, e_max) in numbers(&case["during"]).iter().zip(list(&case["e_max"])) {
            let fired = test.feed(*score);
            let evidence = test.evidence();
            // Far below the limit only the leading term is computed.
            let tolerance = if number(e_max) < 0.1 { 0.02 } else { 1e-7 };
            assert!((evidence.e_max / number(e_max) - 1.0).abs() < tolerance, "{evidence:?} against {e_max}");
            assert_eq!(fired, number(e_max) >= evidence.threshold);
        }
    }
    for case in list(&expected["rare"]) {
        let mut test = RareTest::new(number(&case["odds"]), number(&case["most"]), 1.0, 0.01);
        test.feed(case["experiment"].as_u64().unwrap(), case["control"].as_u64().unwrap());
        close(test.evidence().e_max, &case["e"]);
    }
}
