//! Prometheus' text format, and OpenMetrics as far as it is the same: names and values, added up over labels. Pure. The
//! parser is our own: `prometheus-parse` 0.2 splits labels at commas and braces within their values, takes no name with a
//! colon, says nothing of lines that it does not understand, and brings a regex engine and a calendar.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::steady::probe::{Buckets, Scraped};

/// Most series of which anything is kept, by their names, where none are asked for.
pub const MAX_SERIES: usize = 500;
/// Most bounds of a histogram.
const MAX_BOUNDS: usize = 256;

/// Reads a page: the series in `wanted`, or all if it is empty, the first [`MAX_SERIES`] by their names. What is no
/// number, has buckets that do not fit together, or goes by another name is missing. A line that cannot be read makes the whole page bad:
/// who knows what it meant.
pub fn read(text: &str, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, Scraped>, String> {
    let mut page = Page { wanted, types: HashMap::new(), sums: BTreeMap::new() };
    for (number, line) in (1..).zip(text.lines()) {
        page.line(line)
            .ok_or_else(|| format!("line {number} of the page is not in Prometheus' text format"))?;
    }
    if page.sums.is_empty() {
        let what = if wanted.is_empty() { "no series" } else { "none of the series asked for" };
        return Err(format!("the page has {what}"));
    }
    let done = page.sums.into_iter().filter_map(|(name, sum)| Some((name.to_owned(), sum.done()?)));
    Ok(done.take(MAX_SERIES).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Counter,
    Level,
    Histogram,
    Summary,
}

struct Page<'a> {
    wanted: &'a BTreeSet<String>,
    types: HashMap<&'a str, Type>,
    sums: BTreeMap<&'a str, Sum>,
}

/// What is added up of one series.
enum Sum {
    Counter(f64),
    Level(f64),
    /// By bound: the count, and of how many histograms.
    Buckets(Vec<(f64, f64, u32)>),
    /// It cannot be added up.
    Nothing,
}

/// One line.
struct Sample<'a> {
    name: &'a str,
    /// The value of `le`.
    bound: Option<&'a str>,
    is_quantile: bool,
    value: f64,
}

impl<'a> Page<'a> {
    fn line(&mut self, line: &'a str) -> Option<()> {
        let line = line.trim();
        match line.strip_prefix('#') {
            Some(comment) => self.comment(comment),
            None if line.is_empty() => {}
            None => {
                let sample = Sample::read(line)?;
                if let Some((series, kind)) = self.series(&sample)
                    && (self.wanted.is_empty() || self.wanted.contains(series))
                {
                    self.add(series, kind, &sample);
                }
            }
        }
        Some(())
    }

    /// `# TYPE name counter`; other comments are for people.
    fn comment(&mut self, comment: &'a str) {
        let mut words = comment.split_whitespace();
        if let (Some("TYPE"), Some(name), Some(kind)) = (words.next(), words.next(), words.next()) {
            let kind = match kind {
                "counter" => Type::Counter,
                "histogram" => Type::Histogram,
                "summary" => Type::Summary,
                "gauge" | "info" | "stateset" => Type::Level,
                _ => return,
            };
            self.types.insert(name, kind);
        }
    }

    /// The series that a sample is of, and how it is counted; `None` for what cannot be added up, and for when things were
    /// made.
    fn series(&self, sample: &Sample<'a>) -> Option<(&'a str, Type)> {
        let name = sample.name;
        let part = |suffix| {
            let base = name.strip_suffix(suffix)?;
            self.types.get(base).map(|kind| (base, *kind))
        };
        if let Some(kind) = self.types.get(name) {
            // Quantiles of several targets, or of two times, have no sum.
            let is_quantile = *kind == Type::Summary || *kind == Type::Histogram;
            return (!is_quantile).then_some((name, *kind));
        }
        match (part("_bucket"), part("_sum").or_else(|| part("_count")), part("_total"), part("_created")) {
            (Some((base, Type::Histogram)), ..) => Some((base, Type::Histogram)),
            (_, Some((_, Type::Histogram | Type::Summary)), ..) => Some((name, Type::Counter)),
            (_, _, Some((_, Type::Counter)), _) => Some((name, Type::Counter)),
            (.., Some((_, Type::Counter | Type::Histogram | Type::Summary))) => None,
            // Nothing is said of it: the convention is.
            _ if name.ends_with("_total") => Some((name, Type::Counter)),
            _ if sample.is_quantile => None,
            _ => Some((name, Type::Level)),
        }
    }

    fn add(&mut self, series: &'a str, kind: Type, sample: &Sample<'a>) {
        let sum = self.sums.entry(series).or_insert(match kind {
            Type::Counter | Type::Summary => Sum::Counter(0.0),
            Type::Level => Sum::Level(0.0),
            Type::Histogram => Sum::Buckets(Vec::new()),
        });
        let counts = sample.value.is_finite() && sample.value >= 0.0;
        let is_added = match sum {
            Sum::Counter(sum) if counts => {
                *sum += sample.value;
                true
            }
            Sum::Level(sum) => {
                *sum += sample.value;
                sample.value.is_finite()
            }
            Sum::Buckets(buckets) if counts => add_bucket(buckets, sample),
            _ => false,
        };
        if !is_added {
            *sum = Sum::Nothing;
        }
    }
}

/// Adds a bucket to those of its bound; says whether it could.
fn add_bucket(buckets: &mut Vec<(f64, f64, u32)>, sample: &Sample) -> bool {
    let bound = sample.bound.and_then(|bound| bound.parse::<f64>().ok());
    let Some(bound) = bound.filter(|bound| !bound.is_nan()) else { return false };
    match buckets.binary_search_by(|(other, ..)| other.total_cmp(&bound)) {
        Ok(at) => {
            buckets[at].1 += sample.value;
            buckets[at].2 += 1;
        }
        Err(at) => buckets.insert(at, (bound, sample.value, 1)),
    }
    buckets.len() <= MAX_BOUNDS
}

impl Sum {
    fn done(self) -> Option<Scraped> {
        match self {
            Self::Counter(sum) => Some(sum).filter(|sum| sum.is_finite()).map(Scraped::Counter),
            Self::Level(sum) => Some(sum).filter(|sum| sum.is_finite()).map(Scraped::level),
            Self::Buckets(buckets) => done(buckets).map(Scraped::Buckets),
            Self::Nothing => None,
        }
    }
}

/// Histograms of other bounds cannot be added up, and counts that fall from bound to bound are none.
fn done(mut buckets: Vec<(f64, f64, u32)>) -> Option<Buckets> {
    let (infinity, total, histograms) = buckets.pop()?;
    let whole = infinity == f64::INFINITY && total.is_finite() && !buckets.is_empty();
    let fits = buckets.iter().all(|(bound, _, of)| bound.is_finite() && *of == histograms);
    let rises = buckets.is_sorted_by(|one, next| one.1 <= next.1)
        && buckets.last().is_some_and(|last| last.1 <= total);
    (whole && fits && rises).then(|| Buckets {
        bounds: buckets.iter().map(|(bound, ..)| *bound).collect(),
        at_most: buckets.iter().map(|(_, count, _)| *count).collect(),
        total,
    })
}

impl<'a> Sample<'a> {
    /// `name{label="value",…} value [timestamp] [# exemplar]`.
    fn read(line: &'a str) -> Option<Self> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let end = line.find(|c| !is_name(c)).filter(|end| *end > 0)?;
        let (name, rest) = line.split_at(end);
        let mut sample = Self { name, bound: None, is_quantile: false, value: 0.0 };
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('{') {
            Some(labels) => sample.labels(labels)?,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        sample.value = words.next()?.parse().ok()?;
        let timestamp = words.next().is_none_or(|word| word.parse::<f64>().is_ok() || word == "#");
        timestamp.then_some(sample)
    }

    /// Takes note of `le` and `quantile`; what comes after the brace is left.
    fn labels(&mut self, mut text: &'a str) -> Option<&'a str> {
        loop {
            text = text.trim_start().trim_start_matches(',').trim_start();
            if let Some(rest) = text.strip_prefix('}') {
                return Some(rest);
            }
            let (label, rest) = text.split_once('=')?;
            let rest = rest.trim_start().strip_prefix('"')?;
            let end = closing_quote(rest)?;
            match label.trim() {
                "le" => self.bound = Some(&rest[..end]),
                "quantile" => self.is_quantile = true,
                _ => {}
            }
            text = &rest[end + 1..];
        }
    }
}

/// Quotes within a value have a backslash before them.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<BTreeMap<String, Scraped>, String> {
        read(text, &BTreeSet::new())
    }

    const PAGE: &str = r#"# HELP requests_total What was asked.
# TYPE requests_total counter
requests_total{path="/a,b={\"x\"}\\",code="200"} 1027 1395066363000
requests_total{path="/c",code="500"} 3
# TYPE queue gauge
queue -4.5e0
# TYPE took_seconds histogram
took_seconds_bucket{le="0.1"} 10
took_seconds_bucket{le="0.5"} 15
took_seconds_bucket{le="+Inf"} 16
took_seconds_sum 4.5
took_seconds_count 16
# TYPE rpc summary
rpc{quantile="0.99"} 0.3
rpc_sum 9
rpc_count 30

odd:untyped 7
other_total{} 8
"#;

    #[test]
    fn a_page_is_read_by_its_types() {
        let buckets = Buckets { bounds: vec![0.1, 0.5], at_most: vec![10.0, 15.0], total: 16.0 };
        let expected = [
            ("odd:untyped", Scraped::level(7.0)),
            ("other_total", Scraped::Counter(8.0)),
            ("queue", Scraped::level(-4.5)),
            ("requests_total", Scraped::Counter(1030.0)),
            ("rpc_count", Scraped::Counter(30.0)),
            ("rpc_sum", Scraped::Counter(9.0)),
            ("took_seconds", Scraped::Buckets(buckets)),
            ("took_seconds_count", Scraped::Counter(16.0)),
            ("took_seconds_sum", Scraped::Counter(4.5)),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, scraped)| (name.to_owned(), scraped)).into();
        assert_eq!(all(PAGE), Ok(expected));
        let wanted: BTreeSet<_> = ["queue".to_owned(), "took_seconds".to_owned(), "none".to_owned()].into();
        let kept: Vec<_> = read(PAGE, &wanted).unwrap().into_keys().collect();
        assert_eq!(kept, ["queue", "took_seconds"]);
    }

    #[test]
    fn openmetrics_is_read_too() {
        let page =
            "# TYPE hits counter\nhits_total{a=\"b\"} 5 # {trace=\"x\"} 1 2\nhits_created 1.6e9\n# EOF\n";
        assert_eq!(all(page), Ok([("hits_total".to_owned(), Scraped::Counter(5.0))].into()));
    }

    #[test]
    fn histograms_are_added_up_where_their_bounds_are_the_same() {
        let histogram = |label: &str, bounds: [(&str, u32); 3]| {
            bounds.map(|(le, count)| format!("t_bucket{{x=\"{label}\",le=\"{le}\"}} {count}\n")).concat()
        };
        let one = histogram("1", [("1", 2), ("2", 3), ("+Inf", 3)]);
        let page = |other| all(&format!("# TYPE t histogram\nup 1\n{one}{}", histogram("2", other))).unwrap();
        let both = Buckets { bounds: vec![1.0, 2.0], at_most: vec![3.0, 5.0], total: 7.0 };
        assert_eq!(page([("1.0", 1), ("2.0", 2), ("+Inf", 4)])["t"], Scraped::Buckets(both));
        for unfit in [
            [("1", 1), ("5", 2), ("+Inf", 4)],
            [("1", 9), ("2", 2), ("+Inf", 4)],
            [("1", 1), ("2", 2), ("9", 4)],
        ] {
            assert_eq!(page(unfit).get("t"), None, "{unfit:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_missing() {
        let page = "# TYPE c counter\nc 1\nc{a=\"b\"} NaN\n# TYPE d counter\nd -1\ng NaN\nh +Inf\nup 1\n";
        assert_eq!(all(page), Ok([("up".to_owned(), Scraped::level(1.0))].into()));
    }

    #[test]
    fn garbage_is_told_by_its_line() {
        for (text, part) in [
            ("", "no series"),
            ("# just words\n", "no series"),
            ("<html>\n", "line 1"),
            ("up 1\n{\"json\": true}\n", "line 2"),
            ("up\n", "line 1"),
            ("up one\n", "line 1"),
            ("up{a=\"b} 1\n", "line 1"),
            ("up{a} 1\n", "line 1"),
            ("up 1 soon\n", "line 1"),
            ("é 1\n", "line 1"),
        ] {
            assert!(all(text).unwrap_err().contains(part), "{text:?}: {:?}", all(text));
        }
        assert!(read("up 1\n", &["down".to_owned()].into()).unwrap_err().contains("asked for"));
    }

    #[test]
    fn a_page_of_many_series_is_cut() {
        let many: String = (0..MAX_SERIES + 9).map(|i| format!("s{i:05} 1\n")).collect();
        assert_eq!(all(&many).unwrap().len(), MAX_SERIES);
    }
}
