//! One probe of Chaos Toolkit.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue, Uri, header};
use serde_json::{Map, Value};

use super::on_one_line;
use crate::experiment::probe::{PLACEHOLDER, Statuses};

/// The smallest and the largest timeout that our probes take.
const TIMEOUT_S: (f64, f64) = (0.001, 30.0);
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];
/// What the probe sets by itself.
const OURS: [HeaderName; 5] =
    [header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE];

/// What our probe will be, as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Probe {
    pub(super) id: String,
    /// As Chaos Toolkit has it.
    pub(super) asked: String,
    pub(super) url: String,
    pub(super) method: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) status: Vec<String>,
    pub(super) body_has: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    /// What was left out of it.
    pub(super) notes: Vec<String>,
}

type Variables = BTreeMap<String, String>;
type Object = Map<String, Value>;

impl Probe {
    /// What can be said of it in our terms; the error says why it cannot.
    pub(super) fn read(raw: &Value, variables: &Variables) -> Result<Self, String> {
        let raw = raw.as_object().ok_or("it is no probe")?;
        let provider = http_provider(raw)?;
        let mut probe = Self::default();
        probe.tolerance(raw.get("tolerance"))?;
        probe.method(provider)?;
        probe.url(provider, variables)?;
        probe.headers(provider, variables)?;
        probe.timeout(provider);
        probe.rest(raw, provider);
        Ok(probe)
    }

    fn tolerance(&mut self, raw: Option<&Value>) -> Result<(), String> {
        match raw {
            Some(number @ Value::Number(_)) => self.status = vec![status(number)?],
            Some(Value::Array(all)) if !all.is_empty() => {
                self.status = all.iter().map(status).collect::<Result<_, _>>()?;
            }
            Some(Value::Object(of)) => self.tolerance_of(of)?,
            None => return Err("it has no tolerance".to_owned()),
            _ => return Err("its tolerance is no status of HTTP".to_owned()),
        }
        Ok(())
    }

    fn tolerance_of(&mut self, of: &Object) -> Result<(), String> {
        let text = |field| of.get(field).and_then(Value::as_str);
        match (text("type"), text("target")) {
            (Some("range"), Some("status")) => {
                let (first, last) = range(of).ok_or("its range is none of statuses of HTTP")?;
                self.status = vec![format!("{first}-{last}")];
            }
            (Some("range"), _) => return Err("its range is not of `status`".to_owned()),
            (Some("regex"), Some("body")) => {
                let pattern = text("pattern").unwrap_or_default();
                if pattern.is_empty() || pattern.contains(|c| "\\^$.|?*+()[]{}".contains(c)) {
                    return Err(
                        "its pattern is more than a text; `body_has: TEXT` looks for a text".to_owned()
                    );
                }
                self.body_has = Some(pattern.to_owned());
                // Chaos Toolkit looks at nothing else then.
                self.status = vec!["100-599".to_owned()];
            }
            (Some(kind @ ("regex" | "jsonpath" | "probe")), _) => {
                return Err(format!("its tolerance is of type `{kind}`, which kchaos has not"));
            }
            _ => return Err("its tolerance is of no type that Chaos Toolkit has".to_owned()),
        }
        Ok(())
    }

    fn method(&mut self, provider: &Object) -> Result<(), String> {
        let method = provider.get("method").and_then(Value::as_str).unwrap_or("GET").to_ascii_uppercase();
        if !METHODS.contains(&method.as_str()) {
            return Err("its method is one that kchaos has not".to_owned());
        }
        let has_arguments = match provider.get("arguments") {
            None | Some(Value::Null) => false,
            Some(Value::Object(arguments)) => !arguments.is_empty(),
            Some(_) => true,
        };
        if has_arguments && method != "GET" {
            return Err("it sends a body, which probes of kchaos do not".to_owned());
        }
        self.method = Some(method).filter(|method| method != "GET");
        Ok(())
    }

    fn url(&mut self, provider: &Object, variables: &Variables) -> Result<(), String> {
        let raw = provider.get("url").and_then(Value::as_str).ok_or("it has no `url`")?;
        let url = substituted(raw, variables)?;
        let uri: Uri = url.parse().map_err(|_| "its `url` is none")?;
        if uri.scheme_str() == Some("https") {
            return Err("its `url` needs TLS, which probes of kchaos do not speak".to_owned());
        }
        if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
            return Err("its `url` is none of HTTP".to_owned());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("its `url` has a password in it; write a header `Authorization`".to_owned());
        }
        let port = uri.port_u16().map_or(String::new(), |port| format!(":{port}"));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = with_arguments(path, provider, variables)?;
        self.url = format!("http://{PLACEHOLDER}{port}{path}");
        self.asked = on_one_line(&url);
        Ok(())
    }

    fn headers(&mut self, provider: &Object, variables: &Variables) -> Result<(), String> {
        let headers = provider.get("headers").and_then(Value::as_object);
        for (name, value) in headers.into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let value = substituted(&value, variables)?;
            match (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                (Ok(known), Ok(_)) if OURS.contains(&known) => {
                    self.notes.push(format!("the header `{known}`, which is for the probe to set"));
                }
                (Ok(known), Ok(_)) => drop(self.headers.insert(known.to_string(), value)),
                _ => return Err("its headers are none of HTTP".to_owned()),
            }
        }
        Ok(())
    }

    /// Seconds, or some for the connection and some for the answer: here it is the time for both.
    fn timeout(&mut self, provider: &Object) {
        let seconds = match provider.get("timeout") {
            Some(Value::Array(both)) => both.iter().map(Value::as_f64).sum::<Option<f64>>(),
            Some(one) => one.as_f64(),
            None => return,
        };
        let Some(seconds) = seconds.filter(|seconds| *seconds > 0.0) else {
            self.notes.push("its `timeout`, which is no number of seconds".to_owned());
            return;
        };
        let within = seconds.clamp(TIMEOUT_S.0, TIMEOUT_S.1);
        if within != seconds {
            self.notes.push(format!("its timeout of {seconds} s, which is now {within} s"));
        }
        self.timeout = Some(Duration::from_millis((within * 1000.0).round() as u64));
    }

    /// Names whatever else it has.
    fn rest(&mut self, raw: &Object, provider: &Object) {
        const PROBE: [&str; 4] = ["type", "name", "provider", "tolerance"];
        const PROVIDER: [&str; 6] = ["type", "url", "method", "headers", "timeout", "arguments"];
        let strange = raw.keys().filter(|key| !PROBE.contains(&key.as_str()));
        self.notes.extend(strange.map(|key| format!("`{key}`, which kchaos has not")));
        let strange = provider.keys().filter(|key| !PROVIDER.contains(&key.as_str()));
        self.notes.extend(strange.map(|key| format!("`{key}` of its provider, which kchaos has not")));
    }
}

fn http_provider(raw: &Object) -> Result<&Object, String> {
    let provider = raw.get("provider").and_then(Value::as_object);
    match (provider, provider.and_then(|provider| provider.get("type")).and_then(Value::as_str)) {
        (Some(provider), Some("http")) => Ok(provider),
        (_, Some("process")) => {
            Err("it runs a program; here `exec: [PROGRAM, ARGUMENT]` does, and a good one ends with 0".into())
        }
        (_, Some(other)) => Err(format!("its provider is `{}`, which kchaos has not", on_one_line(other))),
        _ if raw.contains_key("ref") => Err("it refers to another one; write it out".into()),
        _ => Err("it has no provider".into()),
    }
}

fn status(raw: &Value) -> Result<String, String> {
    let number = raw.as_u64().map(|number| number.to_string());
    let known = number.filter(|number| number.parse::<Statuses>().is_ok());
    known.ok_or_else(|| "its tolerance is no status of HTTP".to_owned())
}

fn range(of: &Object) -> Option<(u64, u64)> {
    let [first, last] = of.get("range")?.as_array()?.as_slice() else { return None };
    let (first, last) = (first.as_f64()?.ceil().max(100.0), last.as_f64()?.floor().min(599.0));
    (first <= last).then_some((first as u64, last as u64))
}

/// `GET` sends its arguments in the URL.
fn with_arguments(path: &str, provider: &Object, variables: &Variables) -> Result<String, String> {
    let mut path = path.to_owned();
    let arguments = match provider.get("arguments") {
        None | Some(Value::Null) => return Ok(path),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err("its arguments are no names with values".to_owned()),
    };
    for (name, value) in arguments {
        let value = match value {
            Value::String(text) => substituted(text, variables)?,
            Value::Number(number) => number.to_string(),
            _ => return Err("its arguments are more than texts and numbers".to_owned()),
        };
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&format!("{}={}", escaped(name), escaped(&value)));
    }
    Ok(path)
}

/// As queries have it (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn substituted(text: &str, variables: &Variables) -> Result<String, String> {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("it has a `${` that does not end")?;
        let name = name.trim();
        let value = variables.get(name).ok_or_else(|| {
            format!("it needs `${{{}}}`, which is not written in the experiment itself", on_one_line(name))
        })?;
        done.push_str(before);
        done.push_str(value);
        rest = after;
    }
    Ok(done + rest)
}
