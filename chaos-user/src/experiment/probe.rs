//! What is asked of each target while an experiment runs: probes of the steady state, seen from outside.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};

use crate::units::{BadValue, quoted};

/// What stands for the address of the target that is asked.
pub const PLACEHOLDER: &str = "{target}";
/// The port of a URL that names none.
const HTTP_PORT: u16 = 80;

/// One question, asked of every target of both groups at the same times.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What its metrics begin with: `get` of `get.p99`.
    pub id: String,
    /// From when one request is due to when the next one is.
    pub every: Duration,
    /// A request has failed when it takes longer, from when it was due.
    pub timeout: Duration,
    /// What is asked, and what is a good answer.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// `http:`.
    Http(HttpAsk),
    /// `tcp:`: whether a connection comes about.
    Tcp {
        /// Where.
        port: u16,
    },
    /// `exec:`: a program that ends with 0.
    Exec(Command),
    /// `prometheus:`: what the target says of itself.
    Prometheus(Scrape),
}

/// A request over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpAsk {
    /// Where.
    pub url: Url,
    /// `GET` unless told.
    pub method: Method,
    /// Sent along.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Which answers are good.
    pub status: Statuses,
    /// What the body of a good answer holds.
    pub body_has: Option<String>,
    /// A connection for each request, instead of connections that are kept.
    pub fresh: bool,
}

/// A program and its arguments, in which [`PLACEHOLDER`] is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Found by `PATH` if it has no slash.
    pub program: String,
    /// Without the program's name.
    pub arguments: Vec<String>,
}

/// A page in Prometheus' text format.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    /// Where.
    pub url: Url,
    /// The names of what is kept; if empty, all is, up to a limit.
    pub series: BTreeSet<String>,
}

/// `http://{target}:PORT/PATH?QUERY`. The host is always the target, so that both groups are asked the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Url {
    /// The port.
    pub port: u16,
    /// The path and the query.
    pub path: PathAndQuery,
}

impl FromStr for Url {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        const EXAMPLE: &str = "write one such as `http://{target}:8080/health`";
        let Some(rest) = text.strip_prefix("http://") else {
            let what = match text.strip_prefix("https://") {
                Some(_) => format!("{} would need TLS, which probes do not speak", quoted(text)),
                None => format!("{} is not a URL of HTTP", quoted(text)),
            };
            return Err(BadValue::new(what, EXAMPLE));
        };
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let not_the_target = || BadValue::new(format!("{} does not ask the target", quoted(text)), EXAMPLE);
        let port = match host.strip_prefix(PLACEHOLDER).ok_or_else(not_the_target)? {
            "" => HTTP_PORT,
            rest => rest.strip_prefix(':').and_then(port).ok_or_else(|| bad_port(text))?,
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let bad_path = |why: &str| BadValue::new(format!("the path of {} {why}", quoted(text)), EXAMPLE);
        if path.contains('#') {
            return Err(bad_path("has a fragment, which is never sent"));
        }
        if path.contains(PLACEHOLDER) {
            return Err(bad_path("has the target's address in it, which stands for the host only"));
        }
        match path.parse() {
            Ok(path) => Ok(Self { port, path }),
            Err(_) => Err(bad_path("has characters that must be written as `%20` and the like")),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{PLACEHOLDER}:{}{}", self.port, self.path)
    }
}

/// The port of `{target}:PORT`.
pub fn parse_endpoint(text: &str) -> Result<u16, BadValue> {
    match text.strip_prefix(PLACEHOLDER).map(|rest| rest.strip_prefix(':')) {
        Some(Some(text_of_port)) => port(text_of_port).ok_or_else(|| bad_port(text)),
        _ => Err(BadValue::new(
            format!("{} is not a port of the target", quoted(text)),
            "write one such as `{target}:6379`",
        )),
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| *port != 0 && digits)
}

fn bad_port(text: &str) -> BadValue {
    BadValue::new(format!("the port of {} is no number from 1 to 65535", quoted(text)), "write one of these")
}

/// Statuses of HTTP: ranges, first and last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// From the first to the last.
    pub fn range(first: u16, last: u16) -> Self {
        Self(vec![(first, last)])
    }

    /// Whether this is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    /// Those of both.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl FromStr for Statuses {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self::range(first, last)),
            (Some(first), Some(last)) => Err(BadValue::new(
                format!("{} ends before it begins", quoted(text)),
                format!("write `{last}-{first}`"),
            )),
            _ => Err(BadValue::new(
                format!("{} is neither a status of HTTP nor a range of them", quoted(text)),
                "write one such as `200` or `200-399`",
            )),
        }
    }
}

fn status(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|status| (100..=599).contains(status))
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.write_str(&self.0.iter().map(show).collect::<Vec<_>>().join(", "))
    }
}

impl Probe {
    /// How many requests to one target can be under way: each has ended when its timeout is over. A few more, as timers
    /// are late now and then.
    pub fn most_under_way(&self) -> usize {
        const SLACK: u128 = 8;
        let most = self.timeout.as_nanos().div_ceil(self.every.as_nanos().max(1)) + SLACK;
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_ask_the_target() {
        let url: Url = "http://{target}:8080/get?k=1".parse().unwrap();
        assert_eq!((url.port, url.path.as_str()), (8080, "/get?k=1"));
        for (text, port, path) in [("http://{target}", 80, "/"), ("http://{target}?a", 80, "/?a")] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.port, url.path.as_str()), (port, path), "{text}");
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        for (text, part) in [
            ("https://{target}/", "TLS"),
            ("{target}:80/", "not a URL of HTTP"),
            ("http://10.0.0.1/", "does not ask the target"),
            ("http://me@{target}/", "does not ask the target"),
            ("http://{target}.example/", "no number"),
            ("http://{target}:0/", "no number"),
            ("http://{target}:+80/", "no number"),
            ("http://{target}/a b", "%20"),
            ("http://{target}/#top", "never sent"),
            ("http://{target}/x?of={target}", "the host only"),
        ] {
            assert!(text.parse::<Url>().unwrap_err().to_string().contains(part), "{text}");
        }
    }

    #[test]
    fn statuses_are_ranges() {
        let some = "200-204".parse::<Statuses>().unwrap().and("301".parse().unwrap());
        assert_eq!(some.to_string(), "200-204, 301");
        let held: Vec<_> =
            [199, 200, 204, 205, 301].into_iter().filter(|code| some.contains(*code)).collect();
        assert_eq!(held, [200, 204, 301]);
        for text in ["", "2xx", "99", "600", "200-", "300-200"] {
            assert!(text.parse::<Statuses>().is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints_have_a_port() {
        assert_eq!(parse_endpoint("{target}:6379"), Ok(6379));
        for text in ["{target}", "10.0.0.1:80", "{target}:", "{target}:99999", "{target}80"] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }
}
