//! The picture of the verdict: the interval of each gate over its margin. Each is drawn in shares of its own margin, so that
//! gates of different units share one axis.

use super::{
    svg::{self, Figure, Path, Place, Scale, WIDTH},
    tag::Html,
};
use crate::{
    experiment::hypothesis::{Kind, Margin},
    judge::{
        Estimate, GateVerdict,
        gate::{both_ways, limits},
    },
};

/// A gate, or something else that is held against a margin.
#[derive(Debug)]
pub struct Row<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What it says.
    pub state: State,
    /// In which terms.
    pub kind: Kind,
    /// What it is held against.
    pub margin: Margin,
    /// Whether both sides are, although only one is given.
    pub both_ways: bool,
    /// The effect, if it could be estimated.
    pub estimate: Option<&'a Estimate>,
    /// The numbers, in words.
    pub words: String,
}

/// What a row says: a shape, a colour and a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Inside its margin.
    Inside,
    /// Outside of it.
    Outside,
    /// Neither is shown.
    Open,
    /// It was not judged.
    NotJudged,
}

impl From<GateVerdict> for State {
    fn from(verdict: GateVerdict) -> Self {
        match verdict {
            GateVerdict::Pass => Self::Inside,
            GateVerdict::Fail => Self::Outside,
            GateVerdict::Inconclusive => Self::Open,
        }
    }
}

impl State {
    /// Its class in the style sheet.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Inside => "pass",
            Self::Outside => "fail",
            Self::Open => "open",
            Self::NotJudged => "none",
        }
    }
}

/// Left and right end of the axis.
const ENDS: [f64; 2] = [16.0, WIDTH - 16.0];
const ROW: f64 = 50.0;
const TOP: f64 = 22.0;
/// Shares of the margin that are shown at least and at most; what lies beyond is an arrow.
const LEAST: f64 = 1.4;
const MOST: f64 = 6.0;

/// Interval and estimate of a row, in shares of its margin.
struct Shares {
    at: f64,
    ci: [f64; 2],
}

/// The figure; nothing if no row has anything to draw.
pub fn render(id: &str, title: &str, rows: &[Row<'_>]) -> Html {
    let shares: Vec<Option<Shares>> = rows.iter().map(shares).collect();
    if shares.iter().all(Option::is_none) {
        return Html::default();
    }
    let reach =
        shares.iter().flatten().flat_map(|share| [share.ci[0].abs(), share.ci[1].abs(), share.at.abs()]);
    let reach = (reach.fold(LEAST, f64::max) * 1.08).min(MOST);
    let axis = Scale::over([-reach, reach], ENDS, 0.0);
    let bottom = TOP + rows.len() as f64 * ROW;
    let desc: Vec<_> = rows.iter().map(|row| format!("{}: {}", row.name, row.words)).collect();
    let mut figure = Figure::new(id, bottom + 44.0, title, desc.join(". "));
    let has = |side: fn(&Margin) -> Option<f64>| {
        rows.iter().any(|row| row.both_ways || side(&row.margin).is_some())
    };
    for (share, is_there) in [(-1.0, has(|margin| margin.decrease)), (1.0, has(|margin| margin.increase))] {
        if is_there {
            figure.text([axis.at(share), 12.0], "small mid", "margin");
        }
    }
    figure.line([axis.at(0.0), TOP - 4.0], [axis.at(0.0), bottom], "zero");
    for (i, (row, share)) in rows.iter().zip(&shares).enumerate() {
        draw(&mut figure, &axis, row, share.as_ref(), TOP + i as f64 * ROW);
    }
    foot(&mut figure, &axis, bottom);
    figure.render()
}

fn foot(figure: &mut Figure, axis: &Scale, bottom: f64) {
    figure.line([ENDS[0], bottom], [ENDS[1], bottom], "axis");
    let (ticks, decimals) = axis.ticks(6.0);
    for tick in ticks {
        figure.line([axis.at(tick), bottom], [axis.at(tick), bottom + 4.0], "axis");
        figure.text([axis.at(tick), bottom + 18.0], "small mid", &svg::signed(tick, decimals));
    }
    figure.text(
        [WIDTH / 2.0, bottom + 36.0],
        "small mid",
        "change, in shares of the margin (0: no change, ±1: at the margin)",
    );
}

fn draw(figure: &mut Figure, axis: &Scale, row: &Row<'_>, share: Option<&Shares>, top: f64) {
    let (class, y) = (row.state.class(), top + 33.0);
    figure.named([ENDS[0], top + 15.0], row.name, &row.words);
    let side = |given: Option<f64>, limit: f64, end: f64| match given.is_some() || row.both_ways {
        true => axis.at(limit),
        false => end,
    };
    let band = [side(row.margin.decrease, -1.0, ENDS[0]), side(row.margin.increase, 1.0, ENDS[1])];
    figure.rect([band[0], y - 11.0], [band[1], y + 11.0], "band");
    for (edge, end) in band.into_iter().zip(ENDS) {
        if (edge - end).abs() > 0.5 {
            figure.line([edge, y - 11.0], [edge, y + 11.0], "limit");
        }
    }
    let Some(share) = share else {
        figure.text([axis.at(0.0) + 8.0, y + 4.0], "small", "nothing that can be drawn over its margin");
        return;
    };
    let class = format!("interval {class}");
    let ends = share.ci.map(|end| axis.within(end));
    figure.line([ends[0], y], [ends[1], y], &class);
    for (share, end) in share.ci.iter().zip(ends) {
        cap(figure, axis, *share, [end, y], &class);
    }
    let [low, high] = axis.domain();
    if (low..=high).contains(&share.at) {
        mark(figure, [axis.at(share.at), y], row.state);
    } else {
        // Beyond the figure: the arrow's own place says nothing, so a number does.
        let (towards, anchor) = if share.at < low { (1.0, "small") } else { (-1.0, "small end") };
        let at = axis.within(share.at) + towards * 14.0;
        figure.text([at, y + 4.0], anchor, &format!("{} times the margin", svg::signed(share.at, 1)));
    }
}

/// The end of an interval: a bar, or an arrow if it lies outside the figure.
fn cap(figure: &mut Figure, axis: &Scale, share: f64, [x, y]: Place, class: &str) {
    let [low, high] = axis.domain();
    let mut end = Path::default();
    match share {
        share if share < low => end.arrow([x, y], -1.0, 6.0),
        share if share > high => end.arrow([x, y], 1.0, 6.0),
        _ => end.line(&[[x, y - 5.0], [x, y + 5.0]]),
    }
    figure.path(&end, class);
}

/// A disc inside, a diamond outside, a ring where neither is shown.
fn mark(figure: &mut Figure, at: Place, state: State) {
    let mut shape = Path::default();
    match state {
        State::Outside => {
            shape.diamond(at, 8.0);
            figure.path(&shape, "shape fail");
        }
        State::Inside => {
            shape.dots(&[at]);
            figure.path(&shape, "disc pass");
        }
        State::Open | State::NotJudged => {
            let class = state.class();
            shape.dots(&[at]);
            figure.path(&shape, &format!("disc {class}"));
            figure.path(&shape, "hole");
        }
    }
}

/// What is counted has no interval, and a margin of nothing no shares.
fn shares(row: &Row<'_>) -> Option<Shares> {
    let effect = row.estimate.filter(|effect| effect.kind != Kind::Event)?;
    let given = limits(row.kind, row.margin);
    let [low, high] = if row.both_ways { both_ways(given) } else { given };
    let unit = |finite: f64, other: f64| if finite.is_finite() { finite.abs() } else { other.abs() };
    let (down, up) = (unit(low, high), unit(high, low));
    let share = |theta: f64| theta / if theta < 0.0 { down } else { up };
    let shares = Shares { at: share(effect.theta), ci: effect.theta_ci.map(share) };
    let finite = [down, up, shares.at, shares.ci[0], shares.ci[1]].iter().all(|number| number.is_finite());
    finite.then_some(shares)
}
