//! The control group by itself in the course of the run: a disc for each stretch with the fault, a ring for each without. Where
//! the discs lie apart from the rings, the fault reaches those that it should spare.

use super::{
    course::{Part, Series, Stretch},
    svg::{Figure, Path, Place, Scale},
    tag::Html,
    timeline::{self, LEFT, RIGHT},
};
use crate::{report::number, steady::summary::Point};

const TOP: f64 = 26.0;
const BOTTOM: f64 = 126.0;
const HEIGHT: f64 = 168.0;
/// A long stretch has a mark for so many ticks.
const TICKS: usize = 10;

/// How much the control group did for what it usually does, and when.
struct Mark {
    is_on: bool,
    at_s: f64,
    change: f64,
}

/// The figure; nothing without anything to draw.
pub fn render(id: &str, series: &Series) -> Html {
    let Some(usual) = series.control_usual() else { return Html::default() };
    let marks: Vec<Mark> =
        series.stretches.iter().flat_map(|stretch| marks(series, stretch, usual)).collect();
    if marks.is_empty() {
        return Html::default();
    }
    let shown = |change: f64| number::shown(series.kind, change);
    let time = Scale::over([0.0, series.end_s()], [LEFT, RIGHT], 0.0);
    let height = Scale::over(marks.iter().map(|mark| shown(mark.change)).chain([0.0]), [BOTTOM, TOP], 0.12);
    let title = format!("{} of the control group by itself", series.name);
    let mut figure = Figure::new(id, HEIGHT, title, said(&marks, series));
    timeline::shade(&mut figure, &time, &series.stretches, [TOP, BOTTOM]);
    timeline::axes(&mut figure, &time, &height, number::unit(series.kind));
    for (is_on, state) in [(false, "off"), (true, "on")] {
        let of = marks.iter().filter(|mark| mark.is_on == is_on);
        let places: Vec<Place> = of.map(|mark| [time.at(mark.at_s), height.at(shown(mark.change))]).collect();
        let mut dots = Path::default();
        dots.dots(&places);
        figure.path(&dots, &format!("disc {state}"));
        if !is_on {
            figure.path(&dots, "hole");
        }
    }
    figure.render()
}

fn marks(series: &Series, stretch: &Stretch, usual: f64) -> Vec<Mark> {
    let together =
        if matches!(stretch.part, Part::Block { .. }) { stretch.points.len().max(1) } else { TICKS };
    let mark = |ticks: &[(f64, Point)]| {
        let (first, last) = (ticks.first()?, ticks.last()?);
        let at_s = stretch.start_s + f64::midpoint(first.0 - first.1.seconds, last.0);
        let change = series.control_change(ticks.iter().map(|(_, point)| point), usual)?;
        Some(Mark { is_on: stretch.part.is_on(), at_s, change })
    };
    stretch.points.chunks(together).filter_map(mark).collect()
}

/// In words: between what the marks of each kind lie.
fn said(marks: &[Mark], series: &Series) -> String {
    let of = |name: &str, is_on: bool| {
        let changes = marks.iter().filter(|mark| mark.is_on == is_on).map(|mark| mark.change);
        let (low, high) = (changes.clone().reduce(f64::min)?, changes.reduce(f64::max)?);
        let [low, high] = [low, high].map(|change| number::change(series.kind, change));
        Some(format!("{name} between {low} and {high}"))
    };
    let parts: Vec<_> = [of("with the fault", true), of("without", false)].into_iter().flatten().collect();
    format!("Against what the control group usually does: {}", parts.join(", "))
}
