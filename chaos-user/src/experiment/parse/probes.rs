//! The `probes` of a spec: what is asked of each target.

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderName, HeaderValue, Method, header};
use serde_saphyr::{Location, Spanned};

use super::{
    error::{Place, SpecError},
    missing, needed,
    raw::{Many, RawProbe, RawSteadyState, Text},
    scalars, understood,
};
use crate::{
    experiment::probe::{Ask, Command, HttpAsk, Probe, Scrape, Statuses, Url, parse_endpoint},
    units::{BadValue, did_you_mean, parse_duration, parse_flag, quoted, show_duration},
};

/// Most probes of one experiment.
pub const MAX_PROBES: usize = 8;
/// Longest name of a probe.
pub const MAX_ID_BYTES: usize = 24;
/// Words that metrics of other sources begin with, now or sooner or later.
pub const TAKEN_IDS: &[&str] = &[
    "block",
    "calls",
    "cgroup",
    "control",
    "cpu",
    "dns",
    "experiment",
    "fault",
    "faults",
    "file",
    "fsync",
    "group",
    "io",
    "kchaos",
    "kernel",
    "latency",
    "mem",
    "memory",
    "net",
    "network",
    "pids",
    "pressure",
    "proc",
    "process",
    "processes",
    "probe",
    "psi",
    "run-queue",
    "runqueue",
    "sched",
    "signal",
    "signals",
    "syscall",
    "syscalls",
    "task",
    "tasks",
    "tcp",
    "udp",
];
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pages are made anew for each that asks: more often would be load.
const EVERY_PAGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10);
/// Rate times timeout: so many requests to one target can be under way when it stops answering.
const MAX_UNDER_WAY: u128 = 1000;
/// The same for programs, each of which is a process.
const MAX_PROCESSES: u128 = 50;
/// A closed connection keeps its port for a minute, and Linux has 28,000 of them for each target and port of its.
const EVERY_CONNECTION: Duration = Duration::from_micros(2500);
const MAX_ARGUMENTS: usize = 64;
const MAX_ARGUMENT_BYTES: usize = 4096;
const MAX_HEADERS: usize = 32;
const MAX_SERIES: usize = 100;
const MAX_BODY_TEXT_BYTES: usize = 1024;
const ONE_KIND: &str = "write exactly one of `http:`, `tcp:`, `exec:`, `prometheus:`";
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];

/// What is asked while an experiment runs; nothing unless told.
pub(super) fn probes(raw: &Spanned<RawSteadyState>) -> Result<Vec<Probe>, SpecError> {
    let path = "steady_state.probes";
    let Some(probes) = &raw.value.probes else { return Ok(Vec::new()) };
    let count = probes.value.len();
    if !(1..=MAX_PROBES).contains(&count) {
        let right = format!("write 1 to {MAX_PROBES}, or leave the field out");
        return Place::new(path, probes.referenced)
            .refuse(BadValue::new(format!("there are {count} probes"), right));
    }
    let mut read: Vec<Probe> = Vec::with_capacity(count);
    for (i, raw) in probes.value.iter().enumerate() {
        let probe = Reader { path: format!("{path}[{i}]"), raw: &raw.value, at: raw.referenced }.probe()?;
        if let Some(j) = read.iter().position(|other| other.id == probe.id) {
            let what = format!("`{}` is the name of probes[{j}] already", probe.id);
            let at = raw.value.id.as_ref().map_or(raw.referenced, |id| id.referenced);
            return Place::new(format!("{path}[{i}].id"), at)
                .refuse(BadValue::new(what, "give each probe a name of its own"));
        }
        read.push(probe);
    }
    Ok(read)
}

/// One probe, as written.
struct Reader<'a> {
    path: String,
    raw: &'a RawProbe,
    at: Location,
}

impl Reader<'_> {
    fn probe(&self) -> Result<Probe, SpecError> {
        let id = needed(&self.field("id"), &self.raw.id, self.at, "a name such as `id: get`", id)?;
        let kind = self.kind()?;
        self.fits(kind)?;
        let (ask, usual) = match kind {
            "http" => (self.http()?, Duration::from_millis(100)),
            "tcp" => (
                Ask::Tcp { port: self.one("tcp", &self.raw.tcp, parse_endpoint)? },
                Duration::from_millis(100),
            ),
            "exec" => (self.exec()?, Duration::from_secs(1)),
            _ => (self.prometheus()?, Duration::from_secs(1)),
        };
        let every = match kind {
            "prometheus" => self.given("every", &self.raw.every, |text| within(text, EVERY_PAGE))?,
            _ => self.given("rate", &self.raw.rate, rate)?,
        };
        let every = every.unwrap_or(usual);
        // A page that is not there when the next one is due comes too late.
        let usual = if kind == "prometheus" { DEFAULT_TIMEOUT.min(every) } else { DEFAULT_TIMEOUT };
        let timeout =
            self.given("timeout", &self.raw.timeout, |text| within(text, TIMEOUT))?.unwrap_or(usual);
        self.bounded(kind, every, timeout)?;
        let connects = matches!(&ask, Ask::Tcp { .. } | Ask::Http(HttpAsk { fresh: true, .. }));
        if let (true, true, Some(rate)) = (connects, every < EVERY_CONNECTION, &self.raw.rate) {
            let what = format!("{} would use up the ports that connections come from", quoted(&rate.value));
            let why = BadValue::new(
                what,
                "write at most `400/s`, or a probe with `http:` whose connections are kept",
            );
            return Place::new(self.field("rate"), rate.referenced).refuse(why);
        }
        Ok(Probe { id, every, timeout, ask })
    }

    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    fn given<T>(
        &self,
        name: &str,
        raw: &Option<Text>,
        parse: impl FnOnce(&str) -> Result<T, BadValue>,
    ) -> Result<Option<T>, SpecError> {
        raw.as_ref().map(|text| understood(&self.field(name), text, parse)).transpose()
    }

    fn one<T>(
        &self,
        name: &str,
        raw: &Option<Text>,
        parse: impl FnOnce(&str) -> Result<T, BadValue>,
    ) -> Result<T, SpecError> {
        needed(&self.field(name), raw, self.at, ONE_KIND, parse)
    }

    fn kind(&self) -> Result<&'static str, SpecError> {
        let raw = self.raw;
        let all = [
            ("http", raw.http.as_ref().map(|text| text.referenced)),
            ("tcp", raw.tcp.as_ref().map(|text| text.referenced)),
            ("exec", raw.exec.as_ref().map(|many| many.referenced)),
            ("prometheus", raw.prometheus.as_ref().map(|text| text.referenced)),
        ];
        let mut given = all.into_iter().filter_map(|(kind, at)| Some((kind, at?)));
        let Some((kind, _)) = given.next() else {
            return Place::new(&self.path, self.at)
                .refuse(BadValue::new("this probe asks nothing", ONE_KIND));
        };
        match given.next() {
            None => Ok(kind),
            Some((second, at)) => {
                let what = format!("this probe has `{kind}:` and `{second}:`");
                Place::new(self.field(second), at).refuse(BadValue::new(what, ONE_KIND))
            }
        }
    }

    /// Refuses fields that mean nothing for this kind of probe.
    fn fits(&self, kind: &str) -> Result<(), SpecError> {
        let raw = self.raw;
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.referenced);
        let fields: [(&str, &[&str], Option<Location>); 8] = [
            ("rate", &["http", "tcp", "exec"], text(&raw.rate)),
            ("every", &["prometheus"], text(&raw.every)),
            ("method", &["http"], text(&raw.method)),
            ("status", &["http"], raw.status.as_ref().map(|many| many.referenced)),
            ("body_has", &["http"], text(&raw.body_has)),
            ("headers", &["http"], raw.headers.as_ref().map(|headers| headers.referenced)),
            ("fresh", &["http"], text(&raw.fresh)),
            ("series", &["prometheus"], raw.series.as_ref().map(|many| many.referenced)),
        ];
        let strange = fields.into_iter().find(|(_, kinds, at)| at.is_some() && !kinds.contains(&kind));
        let Some((name, _, Some(at))) = strange else { return Ok(()) };
        let right = match (name, kind) {
            ("rate", _) => "write `every: 1s`, how often the page is read",
            ("every", _) => "write `rate: 10/s`, how many requests are made",
            _ => "leave it out",
        };
        let what = format!("a probe with `{kind}:` has no `{name}`");
        Place::new(self.field(name), at).refuse(BadValue::new(what, right))
    }

    fn http(&self) -> Result<Ask, SpecError> {
        let raw = self.raw;
        let url = self.one("http", &raw.http, str::parse)?;
        let method = self.given("method", &raw.method, method)?.unwrap_or(Method::GET);
        let body_has = self.given("body_has", &raw.body_has, body_text)?;
        if let (Some(_), Some(at), &Method::HEAD) = (&body_has, &raw.body_has, &method) {
            let why = BadValue::new("answers to HEAD have no body", "leave it out, or use `method: GET`");
            return Place::new(self.field("body_has"), at.referenced).refuse(why);
        }
        let fresh = self.given("fresh", &raw.fresh, parse_flag)?.unwrap_or(false);
        let (status, headers) = (self.status()?, self.headers()?);
        Ok(Ask::Http(HttpAsk { url, method, headers, status, body_has, fresh }))
    }

    fn status(&self) -> Result<Statuses, SpecError> {
        let Some(raw) = &self.raw.status else { return Ok(Statuses::range(200, 399)) };
        let each = self.each("status", raw, str::parse::<Statuses>)?;
        let none = || missing(&self.field("status"), raw.referenced, "one such as `200` or `200-399`");
        each.into_iter().reduce(Statuses::and).ok_or_else(none)
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, SpecError> {
        let Some(raw) = &self.raw.headers else { return Ok(Vec::new()) };
        if raw.value.len() > MAX_HEADERS {
            let what = format!("there are {} headers", raw.value.len());
            let why = BadValue::new(what, format!("write at most {MAX_HEADERS}"));
            return Place::new(self.field("headers"), raw.referenced).refuse(why);
        }
        let header = |(name, value): (&String, &Text)| {
            // A name may hold whatever was typed; messages must not.
            let place = Place::new(self.field(&format!("headers.{}", quoted(name))), value.referenced);
            match (header_name(name), HeaderValue::from_str(&value.value)) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                (Err(why), _) => place.refuse(why),
                (_, Err(_)) => place.refuse(BadValue::new(
                    "the value has characters that headers cannot have",
                    "write plain ASCII text on one line",
                )),
            }
        };
        raw.value.iter().map(header).collect()
    }

    fn exec(&self) -> Result<Ask, SpecError> {
        let Some(raw) = &self.raw.exec else { return Err(missing(&self.path, self.at, ONE_KIND)) };
        let mut words = self.each("exec", raw, argument)?;
        if words.is_empty() || words.len() > MAX_ARGUMENTS {
            let right = format!("write a program and up to {} arguments", MAX_ARGUMENTS - 1);
            let why = BadValue::new(format!("there are {} words", words.len()), right);
            return Place::new(self.field("exec"), raw.referenced).refuse(why);
        }
        let program = words.remove(0);
        if program.is_empty() || (words.is_empty() && program.contains(' ') && !program.contains('/')) {
            let what = format!("{} is not a program; no shell takes it apart", quoted(&program));
            let right = "write a list: `[\"redis-cli\", \"-h\", \"{target}\", \"ping\"]`";
            return Place::new(self.field("exec"), raw.referenced).refuse(BadValue::new(what, right));
        }
        Ok(Ask::Exec(Command { program, arguments: words }))
    }

    fn prometheus(&self) -> Result<Ask, SpecError> {
        let url: Url = self.one("prometheus", &self.raw.prometheus, str::parse)?;
        let Some(raw) = &self.raw.series else {
            return Ok(Ask::Prometheus(Scrape { url, series: BTreeSet::new() }));
        };
        let series: BTreeSet<String> = self.each("series", raw, series)?.into_iter().collect();
        if !(1..=MAX_SERIES).contains(&series.len()) {
            let why = BadValue::new(
                format!("there are {} series", series.len()),
                format!("write 1 to {MAX_SERIES}, or leave the field out"),
            );
            return Place::new(self.field("series"), raw.referenced).refuse(why);
        }
        Ok(Ask::Prometheus(Scrape { url, series }))
    }

    /// One or a list, each understood.
    fn each<T>(
        &self,
        name: &str,
        raw: &Many,
        parse: impl Fn(&str) -> Result<T, BadValue>,
    ) -> Result<Vec<T>, SpecError> {
        let entry = |(path, at, text): (String, Location, String)| {
            parse(&text).map_err(|problem| SpecError { place: Place::new(path, at), problem })
        };
        scalars(&self.field(name), raw)?.into_iter().map(entry).collect()
    }

    fn bounded(&self, kind: &str, every: Duration, timeout: Duration) -> Result<(), SpecError> {
        let at = self.raw.timeout.as_ref().map_or(self.at, |text| text.referenced);
        let refuse = |what, right| Place::new(self.field("timeout"), at).refuse(BadValue::new(what, right));
        let under_way = timeout.as_nanos().div_ceil(every.as_nanos().max(1));
        let most = if kind == "exec" { MAX_PROCESSES } else { MAX_UNDER_WAY };
        if kind == "prometheus" && timeout > every {
            let what = format!(
                "a page would be waited for when the next one is due, after {}",
                show_duration(every)
            );
            return refuse(what, format!("write at most `{}`", show_duration(every)));
        }
        if under_way > most {
            let what =
                format!("{under_way} requests would be under way at once if a target stopped answering");
            return refuse(what, format!("keep rate times timeout at {most} or below"));
        }
        Ok(())
    }
}

fn id(text: &str) -> Result<String, BadValue> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=MAX_ID_BYTES).contains(&text.len()) || !text.bytes().all(allowed) {
        return Err(BadValue::new(
            format!(
                "{} is not a name of 1 to {MAX_ID_BYTES} lower-case letters, digits and dashes",
                quoted(text)
            ),
            "write one such as `get`",
        ));
    }
    if TAKEN_IDS.contains(&text) {
        return Err(BadValue::new(
            format!("{} is what metrics of the kernel begin with", quoted(text)),
            format!("write another one, such as `my-{text}`"),
        ));
    }
    Ok(text.to_owned())
}

/// Requests per second, as the time from one to the next.
fn rate(text: &str) -> Result<Duration, BadValue> {
    const RIGHT: &str = "write one from `0.1/s` to `1000/s`";
    let not_a_rate = || BadValue::new(format!("{} is not a rate", quoted(text)), RIGHT);
    let (number, unit) = text.trim().split_once('/').unwrap_or((text.trim(), ""));
    let per_s: f64 = number.trim_end().parse().map_err(|_| not_a_rate())?;
    match unit.trim_start() {
        "s" => {}
        "" => {
            return Err(BadValue::new(format!("{} has no unit", quoted(text)), format!("write `{per_s}/s`")));
        }
        _ => return Err(BadValue::new(format!("{} is not per second", quoted(text)), RIGHT)),
    }
    match Duration::try_from_secs_f64(1.0 / per_s) {
        Ok(every) if EVERY.contains(&every) => Ok(every),
        _ => Err(BadValue::new(format!("{} is out of range", quoted(text)), RIGHT)),
    }
}

fn within(text: &str, range: std::ops::RangeInclusive<Duration>) -> Result<Duration, BadValue> {
    let duration = parse_duration(text)?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
    Err(BadValue::new(
        format!("{} is out of range", quoted(text)),
        format!("write one from `{least}` to `{most}`"),
    ))
}

fn method(text: &str) -> Result<Method, BadValue> {
    let known = METHODS.into_iter().find(|method| method.eq_ignore_ascii_case(text));
    known.and_then(|method| method.parse().ok()).ok_or_else(|| {
        let what = format!("{} is not a method that probes have", quoted(text));
        BadValue::new(what, did_you_mean(text, METHODS))
    })
}

fn body_text(text: &str) -> Result<String, BadValue> {
    match text.len() {
        0 => Err(BadValue::new("every body has that", "leave it out, or write what a good answer holds")),
        1..=MAX_BODY_TEXT_BYTES => Ok(text.to_owned()),
        _ => Err(BadValue::new("this is too long", format!("write at most {MAX_BODY_TEXT_BYTES} bytes"))),
    }
}

/// Headers that say how a message is sent are not the user's: a wrong one would be an error of the probe.
fn header_name(text: &str) -> Result<HeaderName, BadValue> {
    const OURS: [HeaderName; 5] =
        [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::TE];
    let not_a_header =
        |_| BadValue::new("this is not the name of a header", "write one such as `X-Request-Id`");
    match text.parse().map_err(not_a_header)? {
        name if OURS.contains(&name) => Err(BadValue::new(
            format!("`{name}` is for the probe to set"),
            "leave it out (`fresh: true` makes a connection for each request)",
        )),
        name => Ok(name),
    }
}

fn argument(text: &str) -> Result<String, BadValue> {
    match (text.len(), text.contains('\0')) {
        (0..=MAX_ARGUMENT_BYTES, false) => Ok(text.to_owned()),
        (_, true) => Err(BadValue::new("an argument cannot hold a zero byte", "leave it out")),
        _ => Err(BadValue::new("this is too long", format!("write at most {MAX_ARGUMENT_BYTES} bytes"))),
    }
}

fn series(text: &str) -> Result<String, BadValue> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    if (1..=200).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(BadValue::new(
        format!("{} is not the name of a series", quoted(text)),
        "write the name alone, such as `http_requests_total`; series are added up over their labels",
    ))
}

#[cfg(test)]
mod tests;
