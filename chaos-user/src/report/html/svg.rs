//! Figures: shapes, scales, axes. Coordinates are those of the figure, which the page scales to its width.

use super::tag::{Attributes, Html, leaf, tag, words};

/// Every figure is as wide as this.
pub const WIDTH: f64 = 720.0;

/// A place in a figure.
pub type Place = [f64; 2];

/// A figure that says in words what it shows.
#[derive(Debug)]
pub struct Figure {
    id: String,
    title: String,
    desc: String,
    height: f64,
    shapes: Html,
}

impl Figure {
    /// Without shapes. The id is unique on the page.
    pub fn new(
        id: impl Into<String>,
        height: f64,
        title: impl Into<String>,
        desc: impl Into<String>,
    ) -> Self {
        Self { id: id.into(), title: title.into(), desc: desc.into(), height, shapes: Html::default() }
    }

    /// Puts a shape on top.
    pub fn push(&mut self, shape: Html) {
        self.shapes.push(shape);
    }

    /// A straight line.
    pub fn line(&mut self, from: Place, to: Place, class: &str) {
        let [x1, y1, x2, y2] = [from[0], from[1], to[0], to[1]].map(px);
        self.push(leaf("line", &[("class", class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]));
    }

    /// A rectangle between two corners, whichever comes first.
    pub fn rect(&mut self, one: Place, other: Place, class: &str) {
        let [x, y] = [0, 1].map(|i| px(one[i].min(other[i])));
        let [width, height] = [0, 1].map(|i| px((one[i] - other[i]).abs()));
        let place: Attributes<'_> =
            &[("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)];
        self.push(leaf("rect", place));
    }

    /// The same, hatched, so that it is told from its surroundings without colours too.
    pub fn hatched(&mut self, one: Place, other: Place, class: &str) {
        self.rect(one, other, class);
        let mut strokes = Path::default();
        strokes.hatch(one, other);
        self.path(&strokes, "hatch");
    }

    /// A text. The class says which end of it is at the place: nothing, `mid` or `end`.
    pub fn text(&mut self, at: Place, class: &str, content: &str) {
        let [x, y] = at.map(px);
        self.push(words("text", &[("class", class), ("x", &x), ("y", &y)], content));
    }

    /// A name, and what there is to say about it.
    pub fn named(&mut self, at: Place, name: &str, said: &str) {
        let [x, y] = at.map(px);
        let parts = [words("tspan", &[("class", "name")], name), words("tspan", &[("dx", "12")], said)];
        self.push(tag("text", &[("x", &x), ("y", &y)], parts));
    }

    /// A line or an area; nothing if it has no points.
    pub fn path(&mut self, path: &Path, class: &str) {
        if !path.0.is_empty() {
            self.push(leaf("path", &[("class", class), ("d", &path.0)]));
        }
    }

    /// A path of which only what is within two corners is seen.
    pub fn clipped(&mut self, [one, other]: [Place; 2], path: &Path, class: &str) {
        if path.0.is_empty() {
            return;
        }
        let id = format!("{}-clip-{class}", self.id);
        let mut frame = Self::new("", 0.0, "", "");
        frame.rect(one, other, "");
        self.push(tag("clipPath", &[("id", &id)], [frame.shapes]));
        let clip = format!("url(#{id})");
        self.push(leaf("path", &[("class", class), ("d", &path.0), ("clip-path", &clip)]));
    }

    /// The figure, in a box of its own in which a narrow screen can scroll it.
    pub fn render(self) -> Html {
        let [title, desc] = ["title", "desc"].map(|part| format!("{}-{part}", self.id));
        let view = format!("0 0 {} {}", px(WIDTH), px(self.height));
        let by = format!("{title} {desc}");
        let svg: Attributes<'_> = &[
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("viewBox", &view),
            ("role", "img"),
            ("aria-labelledby", &by),
        ];
        let named =
            [words("title", &[("id", &title)], &self.title), words("desc", &[("id", &desc)], &self.desc)];
        let svg = tag("svg", svg, named.into_iter().chain([self.shapes]));
        tag(
            "div",
            &[("class", "scroll"), ("tabindex", "0"), ("role", "group"), ("aria-label", &self.title)],
            [svg],
        )
    }
}

/// A number in an attribute. What is not finite has no place: the callers leave it out, and if one does not, the figure
/// still is one.
pub fn px(value: f64) -> String {
    let text = format!("{:.1}", if value.is_finite() { value } else { 0.0 });
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Where a pen goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// Through these places.
    pub fn line(&mut self, places: &[Place]) {
        for (i, place) in places.iter().enumerate() {
            let [x, y] = place.map(px);
            self.0 += &format!("{}{x} {y}", if i == 0 { "M" } else { "L" });
        }
    }

    /// A dot at each of these, as round as the stroke is wide.
    pub fn dots(&mut self, places: &[Place]) {
        for [x, y] in places.iter().map(|place| place.map(px)) {
            self.0 += &format!("M{x} {y}h0");
        }
    }

    /// A rectangle between two corners.
    pub fn rect(&mut self, one: Place, other: Place) {
        let ([x, y], [width, height]) = (one.map(px), [0, 1].map(|i| px(other[i] - one[i])));
        self.0 += &format!("M{x} {y}h{width}v{height}h-{width}z");
    }

    /// Rising strokes between two corners, left to right and top to bottom. Not a pattern, of which printers make a picture.
    pub fn hatch(&mut self, [left, top]: Place, [right, bottom]: Place) {
        const APART: f64 = 8.0;
        let strokes = ((right - left + bottom - top) / APART).clamp(0.0, 1e4) as usize;
        for stroke in 1..=strokes {
            // On a stroke x + y is the same everywhere.
            let sum = left + top + stroke as f64 * APART;
            let [from, to] = [left.max(sum - bottom), right.min(sum - top)];
            self.line(&[[from, sum - from], [to, sum - to]]);
        }
    }

    /// A diamond around a place.
    pub fn diamond(&mut self, [x, y]: Place, radius: f64) {
        self.line(&[[x, y - radius], [x + radius, y], [x, y + radius], [x - radius, y]]);
        self.0.push('z');
    }

    /// An arrow head that points to the left (-1) or the right (1), its point at the place.
    pub fn arrow(&mut self, [x, y]: Place, towards: f64, size: f64) {
        self.line(&[[x - towards * size, y - size], [x, y], [x - towards * size, y + size]]);
    }
}

/// From values to places along one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The least and the greatest value, which differ.
    domain: [f64; 2],
    /// Where they are.
    range: [f64; 2],
}

impl Scale {
    /// For all of these values with some room on either side, if asked. Values that are not finite are left out.
    pub fn over(values: impl IntoIterator<Item = f64>, range: [f64; 2], room: f64) -> Self {
        let wider = |[low, high]: [f64; 2], value: f64| [low.min(value), high.max(value)];
        let finite = values.into_iter().filter(|value| value.is_finite());
        let [low, high] = finite.fold([f64::INFINITY, f64::NEG_INFINITY], wider);
        let domain = match high - low {
            span if !span.is_finite() => [0.0, 1.0],
            span if span <= f64::EPSILON * high.abs() => [low - 1.0, high + 1.0],
            span => [low - span * room, high + span * room],
        };
        Self { domain, range }
    }

    /// Where a value is.
    pub fn at(&self, value: f64) -> f64 {
        let ([low, high], [from, to]) = (self.domain, self.range);
        from + (value - low) / (high - low) * (to - from)
    }

    /// Where it is, or the nearest end.
    pub fn within(&self, value: f64) -> f64 {
        self.at(value.clamp(self.domain[0], self.domain[1]))
    }

    /// The least and the greatest value.
    pub const fn domain(&self) -> [f64; 2] {
        self.domain
    }

    /// About so many round values, and how many decimals they need.
    pub fn ticks(&self, about: f64) -> (Vec<f64>, usize) {
        let [low, high] = self.domain;
        let step = round_step((high - low) / about);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let first = (low / step).ceil() as i64;
        let last = (high / step).floor() as i64;
        let most = first.saturating_add(50).min(last);
        ((first..=most).map(|i| i as f64 * step).collect(), decimals)
    }
}

/// The least of 1, 2, 5, 10, … that is not less.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

/// A signed number with so many decimals; nothing has no sign.
pub fn signed(value: f64, decimals: usize) -> String {
    let text = format!("{value:+.decimals$}");
    if text.trim_start_matches(['+', '-', '0', '.']).is_empty() {
        "0".into()
    } else {
        text.replace('-', "−")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let (ticks, decimals) = Scale::over([-0.13, 0.29], [0.0, 100.0], 0.0).ticks(5.0);
        let labels: Vec<_> = ticks.iter().map(|tick| signed(*tick, decimals)).collect();
        assert_eq!(labels, ["−0.1", "0", "+0.1", "+0.2"]);
        assert_eq!(Scale::over([0.0, 180.0], [0.0, 1.0], 0.0).ticks(6.0).0, [0.0, 50.0, 100.0, 150.0]);
    }

    #[test]
    fn a_scale_of_nothing_is_a_scale() {
        for values in [vec![], vec![f64::NAN], vec![3.0], vec![0.0, 0.0], vec![f64::INFINITY, 1.0]] {
            let scale = Scale::over(values.clone(), [10.0, 90.0], 0.1);
            let at = scale.at(scale.domain()[0]);
            assert!(at.is_finite() && !scale.ticks(5.0).0.is_empty(), "{values:?}");
        }
    }

    #[test]
    fn no_number_in_an_attribute_is_anything_else() {
        assert_eq!([1.0, -0.04, 2.25, f64::NAN, f64::INFINITY].map(px), ["1", "0", "2.2", "0", "0"]);
    }
}
