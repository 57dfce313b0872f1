//! How long things took in both groups, second by second, with one scale of colours for both: the same colour is the same
//! number of durations per second.

use super::{
    course::{Series, Stretch},
    svg::{self, Figure, Path, Scale, WIDTH},
    tag::Html,
    timeline::{RIGHT, seconds_axis},
};
use crate::{
    judge::{names, score::side},
    report::number,
    steady::{histogram::Histogram, summary::Point},
    target::Group,
};

const ROWS: usize = 32;
/// Classes of colours, in the style sheet.
const COLOURS: usize = 7;
/// No more columns than this.
const COLUMNS: usize = 160;
const LEFT: f64 = 66.0;
const PANEL: f64 = 150.0;
const TOPS: [f64; 2] = [30.0, 230.0];
const HEIGHT: f64 = 468.0;

/// Ticks that are drawn together.
struct Column {
    start_s: f64,
    end_s: f64,
    point: Point,
}

/// Durations per second of each row, of one group in one column.
type Hits = [f64; ROWS];

/// The figure of both groups; nothing without durations.
pub fn render(id: &str, series: &Series) -> Html {
    let columns = columns(series);
    let Some([shortest, longest]) = range(&columns) else { return Html::default() };
    let time = Scale::over([0.0, series.end_s()], [LEFT, RIGHT], 0.0);
    let groups = [Group::Control, Group::Experiment];
    let hits = groups.map(|group| {
        columns.iter().map(|column| hits(column, group, [shortest, longest])).collect::<Vec<_>>()
    });
    let most = hits.iter().flatten().flatten().copied().fold(0.0, f64::max);
    let title = format!("Durations of {} in both groups", series.name);
    let mut figure = Figure::new(id, HEIGHT, title, said(series));
    for ((group, top), hits) in groups.into_iter().zip(TOPS).zip(&hits) {
        let height = Scale::over([shortest.ln(), longest.ln()], [top + PANEL, top], 0.0);
        figure.text([LEFT, top - 8.0], "name", names::group(group));
        cells(&mut figure, &columns, hits, [&time, &height], most);
        durations_axis(&mut figure, &height, [shortest, longest]);
    }
    fault_bars(&mut figure, &time, &series.stretches);
    seconds_axis(&mut figure, &time, TOPS[1] + PANEL);
    legend(&mut figure, most);
    figure.render()
}

/// In words: the median and the 99th percentile of each group, with and without the fault.
fn said(series: &Series) -> String {
    let of = |name: &str, point: &Point| {
        let quantiles = |histogram: &Histogram| {
            let at = |q| histogram.quantile(q).map_or("–".into(), duration);
            format!("p50 {}, p99 {}", at(0.5), at(0.99))
        };
        let [control, experiment] = [&point.control.latency, &point.experiment.latency].map(quantiles);
        format!("{name} the fault control {control}, experiment {experiment}")
    };
    let (off, on) = (series.total(|part| part.is_usual()), series.total(|part| part.is_on()));
    format!("{}. {}", of("Without", &off), of("With", &on))
}

fn columns(series: &Series) -> Vec<Column> {
    let ticks: usize = series.stretches.iter().map(|stretch| stretch.points.len()).sum();
    let together = ticks.div_ceil(COLUMNS).max(1);
    let column = |stretch: &Stretch, ticks: &[(f64, Point)]| {
        let (first, last) = (ticks.first()?, ticks.last()?);
        let [start_s, end_s] = [first.0 - first.1.seconds, last.0].map(|at_s| stretch.start_s + at_s);
        Some(Column { start_s, end_s, point: Point::sum(ticks.iter().map(|(_, point)| point)) })
    };
    let of = |stretch| {
        let stretch: &Stretch = stretch;
        stretch.points.chunks(together).filter_map(move |ticks| column(stretch, ticks))
    };
    series.stretches.iter().flat_map(of).collect()
}

/// What nearly all durations lie between.
fn range(columns: &[Column]) -> Option<[f64; 2]> {
    let mut all = Histogram::default();
    for column in columns {
        all.merge(&column.point.control.latency);
        all.merge(&column.point.experiment.latency);
    }
    let (shortest, longest) = (all.quantile(0.001)?, all.quantile(0.9999)?);
    Some([shortest / 1.1, longest.max(shortest * 1.5) * 1.1])
}

fn hits(column: &Column, group: Group, [shortest, longest]: [f64; 2]) -> Hits {
    let durations = &side(group, &column.point).latency;
    let edge = |row: usize| shortest * (longest / shortest).powf(row as f64 / ROWS as f64);
    let seconds = (column.end_s - column.start_s).max(1e-9);
    std::array::from_fn(|row| {
        // A pile at one bucket's worth of time is spread over it, so that a row may have a part of a duration.
        (durations.at_most(edge(row + 1)) - durations.at_most(edge(row))).max(0.0) / seconds
    })
}

/// Which colour; none for nothing. Logarithmic, as a few slow ones must be seen beside thousands of fast ones.
fn colour(hits: f64, most: f64) -> Option<usize> {
    const FEW: f64 = 0.05;
    if hits < FEW {
        return None;
    }
    let share = (hits / FEW).ln() / (most / FEW).ln();
    Some(((share * COLOURS as f64) as usize).min(COLOURS - 1))
}

fn cells(figure: &mut Figure, columns: &[Column], hits: &[Hits], [time, height]: [&Scale; 2], most: f64) {
    let mut colours: [Path; COLOURS] = Default::default();
    let [low, high] = height.domain();
    let edge = |row: usize| height.at(low + (high - low) * row as f64 / ROWS as f64);
    for (column, hits) in columns.iter().zip(hits) {
        let [from, to] = [column.start_s, column.end_s].map(|at_s| time.at(at_s));
        for (row, hits) in hits.iter().enumerate() {
            if let Some(colour) = colour(*hits, most) {
                colours[colour].rect([from, edge(row + 1)], [to, edge(row)]);
            }
        }
    }
    for (colour, path) in colours.iter().enumerate() {
        figure.path(path, &format!("heat{colour}"));
    }
}

/// The time of the fault, as a bar between both groups.
fn fault_bars(figure: &mut Figure, time: &Scale, stretches: &[Stretch]) {
    let y = TOPS[0] + PANEL + 8.0;
    for stretch in stretches.iter().filter(|stretch| stretch.part.is_on()) {
        let [from, to] = [stretch.start_s, stretch.start_s + stretch.seconds].map(|at_s| time.at(at_s));
        figure.rect([from, y], [to, y + 8.0], "on-solid");
    }
    figure.text([LEFT - 6.0, y + 8.0], "small end", "fault on");
}

/// 1, 2, 5, … of each power of ten, or the powers alone if that is too many.
fn durations_axis(figure: &mut Figure, height: &Scale, [shortest, longest]: [f64; 2]) {
    let powers = shortest.log10().floor() as i32..=longest.log10().ceil() as i32;
    let powers: Vec<f64> = powers.map(|power| 10f64.powi(power)).collect();
    let within = |steps: &[f64]| -> Vec<f64> {
        let all = powers.iter().flat_map(|power| steps.iter().map(move |step| step * power));
        all.filter(|ns| (shortest..=longest).contains(ns)).collect()
    };
    let fine = within(&[1.0, 2.0, 5.0]);
    let ticks = if fine.len() > 7 { within(&[1.0]) } else { fine };
    for ns in ticks {
        let y = height.at(ns.ln());
        figure.line([LEFT - 4.0, y], [LEFT, y], "axis");
        figure.text([LEFT - 7.0, y + 4.0], "small end", &duration(ns));
    }
    let [low, high] = height.domain().map(|ns| height.at(ns));
    figure.line([LEFT, low], [LEFT, high], "axis");
}

fn legend(figure: &mut Figure, most: f64) {
    const CELL: f64 = 24.0;
    let y = HEIGHT - 24.0;
    let left = WIDTH - 24.0 - COLOURS as f64 * CELL - 90.0;
    figure.text([left - 8.0, y + 11.0], "small end", "durations per second: few");
    for colour in 0..COLOURS {
        let from = left + colour as f64 * CELL;
        figure.rect([from, y], [from + CELL, y + 14.0], &format!("heat{colour}"));
    }
    let words = number::short(most);
    figure.text([left + COLOURS as f64 * CELL + 8.0, y + 11.0], "small", words.trim());
}

/// `1.2 ms`.
pub fn duration(ns: f64) -> String {
    let (scale, unit) = match ns {
        ns if ns < 1e3 => (1.0, "ns"),
        ns if ns < 1e6 => (1e3, "µs"),
        ns if ns < 1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = ns / scale;
    let decimals = if (value - value.round()).abs() < 0.005 * value || value >= 100.0 { 0 } else { 1 };
    svg::signed(value, decimals).trim_start_matches('+').to_owned() + " " + unit
}
