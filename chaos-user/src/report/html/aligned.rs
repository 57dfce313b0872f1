//! All pulses on top of each other: what the fault does as it goes on, and how soon it is over once it is off.

use super::{
    course::{Part, Series, Stretch},
    svg::{Figure, Path, Place, Scale},
    table,
    tag::Html,
    timeline::{self, LEFT, RIGHT},
};
use crate::{report::number, steady::summary::Point};

const TOP: f64 = 26.0;
const BOTTOM: f64 = 178.0;
const HEIGHT: f64 = 220.0;

/// The figure; nothing without pulses.
pub fn render(id: &str, series: &Series) -> Html {
    let [on, off] = [true, false].map(|on| blocks(series, on));
    let Some(usual) = series.usual().filter(|_| !on.is_empty()) else { return Html::default() };
    let seconds = on.iter().chain(&off).map(|stretch| stretch.seconds).fold(0.0, f64::max);
    let curves = [changes(series, &on, 0.0, usual), changes(series, &off, seconds, usual)];
    let limits = series.limits().map(|limit| limit.map(|limit| number::shown(series.kind, limit)));
    let values = curves.iter().flatten().map(|[_, change]| *change);
    let height = Scale::over(values.chain(limits.into_iter().flatten()).chain([0.0]), [BOTTOM, TOP], 0.08);
    let time = Scale::over([0.0, 2.0 * seconds], [LEFT, RIGHT], 0.0);
    let title = format!("{} as the fault goes on and off", series.name);
    let desc =
        format!("{} blocks with the fault and {} that follow one, second by second", on.len(), off.len());
    let mut figure = Figure::new(id, HEIGHT, title, desc);
    let stretch = Stretch { part: Part::Block { on: true }, start_s: 0.0, seconds, points: vec![] };
    timeline::shade(&mut figure, &time, &[stretch], [TOP, BOTTOM]);
    figure.text([time.at(1.5 * seconds), TOP - 8.0], "small mid", "off");
    for limit in limits.into_iter().flatten() {
        figure.line([LEFT, height.at(limit)], [RIGHT, height.at(limit)], "limit");
        figure.text([RIGHT - 4.0, height.at(limit) - 4.0], "small end", "margin");
    }
    timeline::axes(&mut figure, &time, &height, number::unit(series.kind));
    curves.iter().for_each(|curve| draw(&mut figure, [&time, &height], curve));
    [figure.render(), numbers(series, &curves)].into_iter().collect()
}

/// The same in a table, by second.
fn numbers(series: &Series, [on, off]: &[Vec<Place>; 2]) -> Html {
    let unit = number::unit(series.kind);
    let cell =
        |place: Option<&Place>| place.map_or("–".into(), |[_, change]| format!("{change:+.2} {unit}"));
    let row = |second: usize| vec![(second + 1).to_string(), cell(on.get(second)), cell(off.get(second))];
    let rows = (0..on.len().max(off.len())).map(row);
    table::folded(
        &format!("Numbers of {}, by second", series.name),
        &["second", "fault on", "fault off"],
        rows,
    )
}

/// The change in each second of these blocks, as it is shown.
fn changes(series: &Series, blocks: &[&Stretch], start_s: f64, usual: f64) -> Vec<Place> {
    let place = |(second, points): (usize, Vec<Point>)| {
        let change = series.change(&points, usual)?;
        Some([start_s + second as f64 + 0.5, number::shown(series.kind, change)])
    };
    aligned(blocks).into_iter().enumerate().filter_map(place).collect()
}

fn draw(figure: &mut Figure, [time, height]: [&Scale; 2], curve: &[Place]) {
    let places: Vec<Place> =
        curve.iter().map(|[at_s, change]| [time.at(*at_s), height.at(*change)]).collect();
    let (mut line, mut dots) = (Path::default(), Path::default());
    line.line(&places);
    dots.dots(&places);
    figure.path(&line, "curve");
    figure.path(&dots, "disc curve-dot");
}

/// The blocks with the fault, or those right after one.
fn blocks(series: &Series, on: bool) -> Vec<&Stretch> {
    let is_on = |stretch: &Stretch| stretch.part == Part::Block { on: true };
    if on {
        return series.stretches.iter().filter(|stretch| is_on(stretch)).collect();
    }
    let after = |pair: &[Stretch]| is_on(&pair[0]) && pair[1].part == Part::Block { on: false };
    series.stretches.windows(2).filter(|pair| after(pair)).map(|pair| &pair[1]).collect()
}

/// What happened in each second of all of them.
fn aligned(stretches: &[&Stretch]) -> Vec<Vec<Point>> {
    let mut seconds: Vec<Vec<Point>> = vec![];
    for (at_s, point) in stretches.iter().flat_map(|stretch| &stretch.points) {
        // Ticks end about on the second.
        let second = (at_s - 0.5).max(0.0) as usize;
        if seconds.len() <= second {
            seconds.resize_with(second + 1, Vec::new);
        }
        seconds[second].push(point.clone());
    }
    seconds
}
