//! One gate second by second: how much further the groups are apart than usually, over the margin, with the fault's time
//! shaded.

use super::{
    course::{Part, Series, Stretch},
    svg::{self, Figure, Path, Place, Scale, WIDTH},
    table,
    tag::Html,
};
use crate::{report::number, steady::sample::Phase};

const HEIGHT: f64 = 236.0;
/// Corners of what is drawn in.
pub(super) const LEFT: f64 = 58.0;
pub(super) const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = HEIGHT - 42.0;

/// So many ticks make a point of the line.
const WINDOW: usize = 10;
const MOST_DOTS: usize = 1200;
/// Of the single ticks so many, as a share, may lie above and below what is shown.
const HIDDEN: f64 = 0.02;

/// Changes and when they were.
type Changes = Vec<Place>;

/// The figure and its numbers; nothing without anything to draw.
pub fn render(id: &str, series: &Series) -> Html {
    let Some(usual) = series.usual() else { return Html::default() };
    let of_all = |window: &dyn Fn(&Stretch) -> usize| -> Vec<Changes> {
        let of = |stretch| changes(series, stretch, window(stretch), together(series), usual);
        series.stretches.iter().map(of).collect()
    };
    let each = of_all(&|_| together(series));
    let smooth = of_all(&|stretch| window(stretch).max(together(series)));
    if smooth.iter().all(Vec::is_empty) {
        return Html::default();
    }
    let title = format!("{} in the course of the run", series.name);
    let mut figure = Figure::new(id, HEIGHT, title, said(series, usual));
    draw(&mut figure, series, &each, &smooth);
    [figure.render(), numbers(series, usual)].into_iter().collect()
}

fn draw(figure: &mut Figure, series: &Series, each: &[Changes], smooth: &[Changes]) {
    let shown = |change: f64| number::shown(series.kind, change);
    let time = Scale::over([0.0, series.end_s()], [LEFT, RIGHT], 0.0);
    let values = smooth.iter().flatten().map(|[_, change]| *change).chain(usual_range(each));
    let values = values.chain(series.limits().into_iter().flatten()).chain([0.0]);
    let height = Scale::over(values.map(shown), [BOTTOM, TOP], 0.08);
    shade(figure, &time, &series.stretches, [TOP, BOTTOM]);
    band(figure, &height, series);
    axes(figure, &time, &height, number::unit(series.kind));
    let place = |[at_s, change]: &Place| [time.at(*at_s), height.at(shown(*change))];
    let places = |part: &Changes| part.iter().map(place).collect::<Vec<_>>();
    let (mut dots, mut line) = (Path::default(), Path::default());
    each.iter().for_each(|part| dots.dots(&places(part)));
    smooth.iter().for_each(|part| line.line(&places(part)));
    let corners = [[LEFT, TOP], [RIGHT, BOTTOM]];
    figure.clipped(corners, &dots, "dots");
    figure.clipped(corners, &line, "curve");
    band_labels(figure, &height, series);
}

/// The same in a table, by stretch.
fn numbers(series: &Series, usual: f64) -> Html {
    let row = |stretch: &Stretch| {
        let change = series.change(stretch.points.iter().map(|(_, point)| point), usual);
        vec![
            name(stretch.part).to_owned(),
            number::seconds(stretch.start_s),
            number::seconds(stretch.seconds),
            change.map_or("–".into(), |change| number::change(series.kind, change)),
        ]
    };
    let rows = series.stretches.iter().map(row);
    table::folded(&format!("Numbers of {}", series.name), &["part", "began after", "took", "change"], rows)
}

const fn name(part: Part) -> &'static str {
    match part {
        Part::Phase(Phase::Baseline) => "before",
        Part::Phase(Phase::Inject) => "fault on",
        Part::Phase(Phase::Recover) => "after",
        Part::Block { on: true } => "on",
        Part::Block { on: false } => "off",
    }
}

/// In words: the mean of each kind of part.
fn said(series: &Series, usual: f64) -> String {
    let of = |name: &str, is: &dyn Fn(Part) -> bool| {
        let change = series.change([&series.total(is)], usual)?;
        Some(format!("{name} {}", number::change(series.kind, change)))
    };
    let parts =
        [of("with the fault", &Part::is_on), of("after it", &|part| part == Part::Phase(Phase::Recover))];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("How much further the groups are apart than without the fault, each second: {}", parts.join(", "))
}

/// Shorter than a stretch, so that it has several points.
fn window(stretch: &Stretch) -> usize {
    WINDOW.min(stretch.points.len() / 3).max(1)
}

/// So many ticks make a dot: one, unless there are more than anybody could tell apart.
fn together(series: &Series) -> usize {
    let ticks: usize = series.stretches.iter().map(|stretch| stretch.points.len()).sum();
    ticks.div_ceil(MOST_DOTS).max(1)
}

/// Changes of so many ticks added up, each so many ticks after the one before.
fn changes(series: &Series, stretch: &Stretch, window: usize, step: usize, usual: f64) -> Changes {
    let change = |ticks: &[(f64, crate::steady::summary::Point)]| {
        let (first, last) = (ticks.first()?, ticks.last()?);
        let at_s = f64::midpoint(first.0 - first.1.seconds, last.0);
        let change = series.change(ticks.iter().map(|(_, point)| point), usual)?;
        Some([stretch.start_s + at_s, change])
    };
    stretch.points.windows(window).step_by(step).filter_map(change).collect()
}

/// Between which values most single ticks lie.
fn usual_range(each: &[Changes]) -> Vec<f64> {
    let mut all: Vec<f64> = each.iter().flatten().map(|[_, change]| *change).collect();
    all.sort_by(f64::total_cmp);
    let hidden = (all.len() as f64 * HIDDEN) as usize;
    let ends = [all.get(hidden), all.iter().rev().nth(hidden)];
    ends.into_iter().flatten().copied().collect()
}

/// The time of the fault, hatched so that it is not told by colour alone, with names where there is room.
pub(super) fn shade(figure: &mut Figure, time: &Scale, stretches: &[Stretch], [top, bottom]: [f64; 2]) {
    for stretch in stretches {
        let [from, to] = [stretch.start_s, stretch.start_s + stretch.seconds].map(|at_s| time.at(at_s));
        if stretch.part.is_on() {
            figure.hatched([from, top], [to, bottom], "on");
            figure.line([from, top], [to, top], "on-bar");
        }
        // A short name is enough where the hatching says the same.
        let name = name(stretch.part);
        if to - from > 9.5 * name.len() as f64 {
            figure.text([f64::midpoint(from, to), top - 8.0], "small mid", name);
        }
    }
}

/// Where the margin ends, in the figure; at its border where there is no margin.
fn band_ends(height: &Scale, series: &Series) -> [f64; 2] {
    let [low, high] = series.limits();
    let at =
        |limit: Option<f64>, open| limit.map_or(open, |limit| height.at(number::shown(series.kind, limit)));
    [at(low, BOTTOM), at(high, TOP)]
}

fn band(figure: &mut Figure, height: &Scale, series: &Series) {
    let limits = series.limits();
    if limits == [None, None] {
        return;
    }
    let ends = band_ends(height, series);
    figure.rect([LEFT, ends[1]], [RIGHT, ends[0]], "band");
    for (_, y) in limits.iter().zip(ends).filter(|(limit, _)| limit.is_some()) {
        figure.line([LEFT, y], [RIGHT, y], "limit");
    }
}

/// At the left, where the line is near zero; outside of the band if there is room. Drawn last, as dots may be there.
fn band_labels(figure: &mut Figure, height: &Scale, series: &Series) {
    let [low, high] = band_ends(height, series);
    let lower = if low + 16.0 > BOTTOM { -5.0 } else { 14.0 };
    let upper = if high - 16.0 < TOP { 14.0 } else { -5.0 };
    for (limit, y) in series.limits().into_iter().zip([low + lower, high + upper]) {
        let Some(limit) = limit else { continue };
        let words = format!("margin {}", number::change(series.kind, limit));
        figure.text([LEFT + 5.0, y], "small", &words);
    }
}

/// Seconds below, the unit of the change to the left.
pub(super) fn axes(figure: &mut Figure, time: &Scale, height: &Scale, unit: &str) {
    let [low, high] = height.domain();
    let (top, bottom) = (height.at(high), height.at(low));
    let (ticks, decimals) = height.ticks(5.0);
    for tick in ticks {
        figure.line(
            [LEFT, height.at(tick)],
            [RIGHT, height.at(tick)],
            if tick == 0.0 { "zero" } else { "grid" },
        );
        figure.text([LEFT - 6.0, height.at(tick) + 4.0], "small end", &svg::signed(tick, decimals));
    }
    figure.text([LEFT - 6.0, top - 8.0], "small end", unit);
    seconds_axis(figure, time, bottom);
}

/// Seconds, or minutes if there are many.
pub(super) fn seconds_axis(figure: &mut Figure, time: &Scale, y: f64) {
    const MANY_S: f64 = 900.0;
    let (unit_s, unit) = if time.domain()[1] > MANY_S { (60.0, "minutes") } else { (1.0, "seconds") };
    let range = time.domain().map(|at_s| time.at(at_s));
    let scale = Scale::over(time.domain().map(|at_s| at_s / unit_s), range, 0.0);
    figure.line([range[0], y], [range[1], y], "axis");
    let (ticks, decimals) = scale.ticks(8.0);
    for tick in ticks {
        figure.line([scale.at(tick), y], [scale.at(tick), y + 4.0], "axis");
        figure.text([scale.at(tick), y + 17.0], "small mid", &format!("{tick:.decimals$}"));
    }
    figure.text([f64::midpoint(range[0], range[1]), y + 34.0], "small mid", unit);
}
