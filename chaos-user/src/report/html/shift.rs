//! Where in the distribution of durations the groups differ: the experimental group against the control group at each decile
//! and in the tail, with the fault and without. (The shift function of Doksum, Annals of Statistics 2, 1974.)

use super::{
    course::{Part, Series},
    heatmap::duration,
    svg::{self, Figure, Path, Place, Scale, WIDTH},
    table,
    tag::Html,
};
use crate::steady::summary::Point;

const QUANTILES: [(f64, &str); 11] = [
    (0.1, "10 %"),
    (0.2, "20 %"),
    (0.3, "30 %"),
    (0.4, "40 %"),
    (0.5, "50 %"),
    (0.6, "60 %"),
    (0.7, "70 %"),
    (0.8, "80 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
];

const HEIGHT: f64 = 260.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = HEIGHT - 46.0;

/// One quantile of both groups, in nanoseconds.
#[derive(Clone, Copy)]
struct Both {
    control: f64,
    experiment: f64,
}

impl Both {
    /// In percent of the control group's.
    fn shift(self) -> f64 {
        (self.experiment / self.control - 1.0) * 100.0
    }
}

/// The figure, and the numbers in a table; nothing without durations.
pub fn render(id: &str, series: &Series) -> Html {
    let [off, on] = [series.total(Part::is_usual), series.total(Part::is_on)].map(|point| quantiles(&point));
    let values = off.iter().chain(&on).flatten().map(|both| both.shift());
    if values.clone().next().is_none() {
        return Html::default();
    }
    let height = Scale::over(values.chain([0.0]), [BOTTOM, TOP], 0.08);
    let across = Scale::over([0.0, QUANTILES.len() as f64 - 1.0], [LEFT + 22.0, RIGHT - 22.0], 0.0);
    let title = format!("Where durations of {} differ", series.name);
    let desc = "The experimental group against the control group at each quantile. The numbers are in the table below.";
    let mut figure = Figure::new(id, HEIGHT, title, desc);
    axes(&mut figure, &across, &height);
    for (state, quantiles) in [("off", &off), ("on", &on)] {
        draw(&mut figure, [&across, &height], quantiles, state);
    }
    legend(&mut figure);
    [figure.render(), numbers(series, &off, &on)].into_iter().collect()
}

fn quantiles(point: &Point) -> [Option<Both>; QUANTILES.len()] {
    QUANTILES.map(|(q, _)| {
        let (control, experiment) =
            (point.control.latency.quantile(q)?, point.experiment.latency.quantile(q)?);
        (control > 0.0).then_some(Both { control, experiment })
    })
}

fn axes(figure: &mut Figure, across: &Scale, height: &Scale) {
    let (ticks, decimals) = height.ticks(5.0);
    for tick in ticks {
        figure.line(
            [LEFT, height.at(tick)],
            [RIGHT, height.at(tick)],
            if tick == 0.0 { "zero" } else { "grid" },
        );
        figure.text([LEFT - 6.0, height.at(tick) + 4.0], "small end", &svg::signed(tick, decimals));
    }
    figure.text([LEFT - 6.0, TOP - 12.0], "small end", "%");
    for (i, (_, name)) in QUANTILES.iter().enumerate() {
        figure.text([across.at(i as f64), BOTTOM + 18.0], "small mid", name);
    }
    figure.text([f64::midpoint(LEFT, RIGHT), BOTTOM + 38.0], "small mid", "so many durations are shorter");
}

/// A ring without the fault, a disc with it.
fn draw(figure: &mut Figure, [across, height]: [&Scale; 2], quantiles: &[Option<Both>], state: &str) {
    let place = |(i, both): (usize, &Option<Both>)| Some([across.at(i as f64), height.at((*both)?.shift())]);
    let places: Vec<Place> = quantiles.iter().enumerate().filter_map(place).collect();
    let (mut line, mut dots) = (Path::default(), Path::default());
    line.line(&places);
    dots.dots(&places);
    figure.path(&line, &format!("thin {state}"));
    figure.path(&dots, &format!("disc {state}"));
    if state == "off" {
        figure.path(&dots, "hole");
    }
}

fn legend(figure: &mut Figure) {
    for (x, state, name) in [(LEFT + 30.0, "on", "fault on"), (LEFT + 120.0, "off", "fault off")] {
        let mut dot = Path::default();
        dot.dots(&[[x, TOP - 18.0]]);
        figure.path(&dot, &format!("disc {state}"));
        if state == "off" {
            figure.path(&dot, "hole");
        }
        figure.text([x + 10.0, TOP - 14.0], "small", name);
    }
}

fn numbers(series: &Series, off: &[Option<Both>], on: &[Option<Both>]) -> Html {
    let cells = |both: &Option<Both>| match both {
        Some(both) => [both.control, both.experiment].map(duration),
        None => ["–", "–"].map(String::from),
    };
    let rows = QUANTILES.iter().zip(off.iter().zip(on)).map(|((_, name), (off, on))| {
        let ([control_off, experiment_off], [control_on, experiment_on]) = (cells(off), cells(on));
        vec![(*name).to_owned(), control_off, experiment_off, control_on, experiment_on]
    });
    let header = ["quantile", "control, off", "experiment, off", "control, on", "experiment, on"];
    table::folded(&format!("Quantiles of {}", series.name), &header, rows)
}
