//! What watches over a run: `checks` and `invariants` of the steady state, and `abort_if`.

use std::time::Duration;

use serde_saphyr::Spanned;

use super::{
    error::{Place, SpecError},
    missing, needed,
    raw::{Many, OneOrMore, RawAbortIf, RawCheck, RawInvariant, RawSteadyState, Text},
    scalars, understood,
};
use crate::{
    experiment::{
        hypothesis::{Gate, Kind, Metric, Scale},
        watch::{AbortIf, Check, Harm, Invariant, Limit, Processes, Side},
    },
    units::{
        BadValue, example_of_level, one_of, parse_duration, parse_level, parse_margin, quoted, show_duration,
        show_level, show_margin,
    },
};

/// Most entries of each list.
const MOST: usize = 20;
/// How long an invariant may take, unless told.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Longest name of an invariant.
const MAX_ID_BYTES: usize = 63;

const CHECK: &str = "`- { metric: syscall.error_ratio, above: 5% }`";
const INVARIANT: &str = "`- { id: no-lost-write, run: ./check.sh }`";
const ABORT: &str = "`- { metric: syscall.error_ratio, above: 5%, for: 5s }`";
const ONE_SIDE: &str = "write one of `above:` and `below:`, for what is bad";

/// What must hold in both groups before anything is done.
pub(super) fn checks(raw: &Spanned<RawSteadyState>) -> Result<Vec<Check>, SpecError> {
    let path = "steady_state.checks";
    let Some(raw) = &raw.value.checks else { return Ok(vec![]) };
    some_of(path, raw, CHECK)?;
    let mut checks: Vec<Check> = Vec::new();
    for (i, raw) in raw.value.iter().enumerate() {
        let (path, RawCheck { metric, above, below }) = (format!("{path}[{i}]"), &raw.value);
        let limit = limit(&path, raw.referenced, metric, above, below)?;
        let same = |other: &Check| other.0.metric == limit.metric && other.0.side == limit.side;
        if let Some(j) = checks.iter().position(same) {
            let what =
                format!("`{} {}:` is checked already, by checks[{j}]", limit.metric, limit.side.name());
            return Place::new(path, raw.referenced).refuse(BadValue::new(what, "keep the stricter one"));
        }
        checks.push(Check(limit));
    }
    Ok(checks)
}

/// What must hold once everything is over.
pub(super) fn invariants(raw: &Spanned<RawSteadyState>) -> Result<Vec<Invariant>, SpecError> {
    let path = "steady_state.invariants";
    let Some(raw) = &raw.value.invariants else { return Ok(vec![]) };
    some_of(path, raw, INVARIANT)?;
    let mut invariants: Vec<Invariant> = Vec::new();
    for (i, raw) in raw.value.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let RawInvariant { id, run, timeout } = &raw.value;
        let field = format!("{path}.id");
        let id = needed(&field, id, raw.referenced, "`id: no-lost-write`", id_of)?;
        if invariants.iter().any(|other| other.id == id) {
            let why =
                BadValue::new(format!("{} is there already", quoted(&id)), "give each a name of its own");
            return Place::new(field, raw.referenced).refuse(why);
        }
        let run = command(&format!("{path}.run"), run, raw.referenced)?;
        let timeout = match timeout {
            Some(text) => understood(&format!("{path}.timeout"), text, timeout_of)?,
            None => DEFAULT_TIMEOUT,
        };
        invariants.push(Invariant { id, run, timeout });
    }
    Ok(invariants)
}

/// What ends the run early.
pub(super) fn abort_if(
    raw: &Option<Spanned<Vec<Spanned<RawAbortIf>>>>,
    gates: &[Gate],
    checks: &[Check],
) -> Result<Vec<AbortIf>, SpecError> {
    let Some(raw) = raw else { return Ok(vec![]) };
    some_of("abort_if", raw, ABORT)?;
    let mut guards: Vec<AbortIf> = Vec::new();
    for (i, raw) in raw.value.iter().enumerate() {
        let path = format!("abort_if[{i}]");
        let guard = guard(&path, raw, gates)?;
        if let Some(j) = guards.iter().position(|other| is_same(other, &guard)) {
            let what = format!("abort_if[{j}] is about the same");
            return Place::new(path, raw.referenced).refuse(BadValue::new(what, "keep one of them"));
        }
        guards.push(guard);
    }
    let levels = guards.iter().any(|guard| matches!(guard, AbortIf::Level { .. }));
    match guards.iter().position(|guard| *guard == AbortIf::ControlUnhealthy) {
        Some(i) if checks.is_empty() && !levels => {
            let place = Place::new(format!("abort_if[{i}].control"), raw.value[i].referenced);
            let what = "nothing says when the control group would be unhealthy";
            let right = format!("write `checks:` in `steady_state:`, such as {CHECK}");
            place.refuse(BadValue::new(what, right))
        }
        _ => Ok(guards),
    }
}

/// Two of which one would never be the first.
fn is_same(one: &AbortIf, other: &AbortIf) -> bool {
    match (one, other) {
        (AbortIf::Harm(one), AbortIf::Harm(other)) => {
            one.metric == other.metric && one.increase == other.increase
        }
        (AbortIf::Processes(_), AbortIf::Processes(_)) => true,
        _ => one == other,
    }
}

fn guard(path: &str, raw: &Spanned<RawAbortIf>, gates: &[Gate]) -> Result<AbortIf, SpecError> {
    let RawAbortIf { metric, above, below, r#for, harm, control, processes } = &raw.value;
    only_one_kind(path, raw)?;
    if let Some(text) = control {
        let words = |text: &str| one_of(text, "a state to end for", &[()], |()| "unhealthy");
        return understood(&format!("{path}.control"), text, words).map(|()| AbortIf::ControlUnhealthy);
    }
    if let Some(text) = processes {
        let words = |text: &str| one_of(text, "`exit` or `ignore`", &Processes::ALL, |one| one.name());
        return understood(&format!("{path}.processes"), text, words).map(AbortIf::Processes);
    }
    if let Some(text) = harm {
        let field = format!("{path}.metric");
        let metric = needed(&field, metric, raw.referenced, "`metric: net.rx_bytes`", str::parse)?;
        return understood(&format!("{path}.harm"), text, |text| harm_of(text, metric, gates))
            .map(AbortIf::Harm);
    }
    let limit = limit(path, raw.referenced, metric, above, below)?;
    let lasting = match r#for {
        Some(text) => understood(&format!("{path}.for"), text, |text| lasting(text, limit.metric.kind()))?,
        None => Duration::ZERO,
    };
    Ok(AbortIf::Level { limit, lasting })
}

/// An entry is about a level, or harm, or the control group, or processes.
fn only_one_kind(path: &str, raw: &Spanned<RawAbortIf>) -> Result<(), SpecError> {
    let RawAbortIf { metric, above, below, r#for, harm, control, processes } = &raw.value;
    let level = above.as_ref().or(below.as_ref());
    let kinds = [level, harm.as_ref(), control.as_ref(), processes.as_ref()];
    let right = format!(
        "write {ABORT}, `- {{ metric: net.rx_bytes, harm: 30% }}`, `- control: unhealthy` or `- processes: ignore`"
    );
    match kinds.iter().flatten().count() {
        0 => {
            let why = BadValue::new("this entry does not say what would end the run", right);
            Place::new(path, raw.referenced).refuse(why)
        }
        1 if level.is_none() && r#for.is_some() => {
            let why = BadValue::new("`for:` goes with `above:` or `below:` only", "leave it out");
            Place::new(format!("{path}.for"), raw.referenced).refuse(why)
        }
        1 if level.is_none() && harm.is_none() && metric.is_some() => {
            let why = BadValue::new("`metric:` goes with `above:`, `below:` or `harm:` only", "leave it out");
            Place::new(format!("{path}.metric"), raw.referenced).refuse(why)
        }
        1 => Ok(()),
        _ => {
            let why =
                BadValue::new("this entry is about several things", format!("make it several: {right}"));
            Place::new(path, raw.referenced).refuse(why)
        }
    }
}

/// `30%`, or with a sign for what hurts. Without one, what the gate says, or what usually does.
fn harm_of(text: &str, metric: Metric, gates: &[Gate]) -> Result<Harm, BadValue> {
    let kind = metric.kind();
    if matches!(kind, Kind::Gauge | Kind::Trend | Kind::Event) {
        let what = format!("`{metric}` adds up over time, so that seconds say nothing about harm");
        return Err(BadValue::new(
            what,
            format!("write a level, such as `above: {}`", example_of_level(kind)),
        ));
    }
    let trimmed = text.trim();
    let (sign, size) = match trimmed.strip_prefix(['+', '-']) {
        Some(size) => (Some(trimmed.starts_with('+')), size),
        None => (None, trimmed),
    };
    let margin = gates.iter().find(|gate| gate.metric == metric).map(|gate| gate.margin);
    let by_gate = margin.and_then(|margin| match (margin.increase, margin.decrease) {
        (Some(_), None) => Some(true),
        (None, Some(_)) => Some(false),
        _ => None,
    });
    // More work hurts nobody, more errors, stalls and time do.
    let increase = sign.or(by_gate).unwrap_or(kind != Kind::Rate);
    let most = parse_margin(size, metric)?;
    if !increase && kind.scale() == Scale::Relative && most >= 1.0 {
        let what = format!("`{metric}` cannot fall by more than all of it, so this would never end a run");
        return Err(BadValue::new(what, "write less than `100%`, or `+` before it for a rise"));
    }
    let side = |margin: crate::experiment::hypothesis::Margin| {
        if increase { margin.increase } else { margin.decrease }
    };
    match margin.and_then(side) {
        Some(margin) if most <= margin => {
            let margin = show_margin(margin, metric);
            let what = format!("the gate allows {margin}, so this would end runs that could pass");
            Err(BadValue::new(what, format!("write more than `{margin}`")))
        }
        _ => Ok(Harm { metric, increase, most }),
    }
}

fn lasting(text: &str, kind: Kind) -> Result<Duration, BadValue> {
    let lasting = parse_duration(text)?;
    if kind == Kind::Event && !lasting.is_zero() {
        let what = "this metric is counted over the whole run, and never comes down again";
        return Err(BadValue::new(what, "leave `for:` out"));
    }
    Ok(lasting)
}

/// A metric, and the level beyond which it is bad.
fn limit(
    path: &str,
    at: serde_saphyr::Location,
    metric: &Option<Text>,
    above: &Option<Text>,
    below: &Option<Text>,
) -> Result<Limit, SpecError> {
    let field = format!("{path}.metric");
    let metric: Metric = needed(&field, metric, at, "`metric: syscall.error_ratio`", str::parse)?;
    let (side, text) = match (above, below) {
        (Some(text), None) => (Side::Above, text),
        (None, Some(text)) => (Side::Below, text),
        (Some(_), Some(text)) => {
            let why = BadValue::new("this has `above:` and `below:`", "make it two entries, one for each");
            return Place::new(format!("{path}.below"), text.referenced).refuse(why);
        }
        (None, None) => return Place::new(path, at).refuse(BadValue::new("this has no limit", ONE_SIDE)),
    };
    let field = format!("{path}.{}", side.name());
    let level = understood(&field, text, |text| level_of(text, metric.kind(), side))?;
    Ok(Limit { metric, side, level })
}

/// A level that something can be beyond.
fn level_of(text: &str, kind: Kind, side: Side) -> Result<f64, BadValue> {
    if kind == Kind::Trend {
        let what = "how fast something grows is known only after a while, so it can be no limit";
        return Err(BadValue::new(what, "limit the level itself, or gate this"));
    }
    let level = parse_level(text, kind)?;
    let is_share = matches!(kind, Kind::RareRatio | Kind::Tail { .. });
    let never = match side {
        Side::Above => is_share && level >= 1.0,
        Side::Below => level <= 0.0,
    };
    if never {
        let what = format!("nothing is ever {} {}", side.name(), show_level(level, kind));
        return Err(BadValue::new(what, format!("write a level such as `{}`", example_of_level(kind))));
    }
    if kind == Kind::Event && side == Side::Below {
        let what = "what is counted begins at 0, so this would be so from the start";
        return Err(BadValue::new(what, "write `above:`, for how often it may happen"));
    }
    Ok(level)
}

/// A list is a program and its arguments; a text is for a shell.
fn command(path: &str, raw: &Option<Many>, at: serde_saphyr::Location) -> Result<Vec<String>, SpecError> {
    const EXAMPLE: &str = "a command such as `run: ./check.sh`, or a list of a program and its arguments";
    let raw = raw.as_ref().ok_or_else(|| missing(path, at, EXAMPLE))?;
    let words: Vec<String> = scalars(path, raw)?.into_iter().map(|(_, _, text)| text).collect();
    let why = match words.first() {
        None => BadValue::new("there is no command", format!("write {EXAMPLE}")),
        Some(program) if program.trim().is_empty() => {
            BadValue::new("the command is empty", format!("write {EXAMPLE}"))
        }
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            BadValue::new("it holds a NUL, which no command can", "write plain text")
        }
        Some(_) => {
            let shell = matches!(raw.value, OneOrMore::One(_));
            let prefix: &[&str] = if shell { &["sh", "-c"] } else { &[] };
            return Ok(prefix.iter().map(|word| (*word).to_owned()).chain(words).collect());
        }
    };
    Place::new(path, raw.referenced).refuse(why)
}

fn timeout_of(text: &str) -> Result<Duration, BadValue> {
    match parse_duration(text)? {
        Duration::ZERO => Err(BadValue::new("no command is done in no time", "write such as `60s`")),
        long if long > LONGEST_TIMEOUT => {
            let right = format!("write at most `{}`", show_duration(LONGEST_TIMEOUT));
            Err(BadValue::new(format!("{} is longer than anybody would wait", quoted(text)), right))
        }
        timeout => Ok(timeout),
    }
}

fn id_of(text: &str) -> Result<String, BadValue> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    let what = format!("{} is not a name of 1 to {MAX_ID_BYTES} letters, digits and `-_.`", quoted(text));
    Err(BadValue::new(what, "write one such as `no-lost-write`"))
}

fn some_of<T>(path: &str, raw: &Spanned<Vec<T>>, example: &str) -> Result<(), SpecError> {
    let count = raw.value.len();
    if (1..=MOST).contains(&count) {
        return Ok(());
    }
    let right = format!("write 1 to {MOST}, such as {example}, or leave the field out");
    Place::new(path, raw.referenced).refuse(BadValue::new(format!("there are {count} entries"), right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{hypothesis::Margin, parse};

    fn spec(steady: &str, more: &str) -> String {
        format!(
            "version: 1\nname: watched\ngroups: {{ control: docker:a, experiment: docker:b }}\n\
             steady_state:\n  gates: [{{ metric: net.rx_bytes, decrease: 10% }}]\n{steady}\
             faults: [{{ loss: {{ percent: 5 }} }}]\n{more}"
        )
    }

    #[test]
    fn all_of_it_together() {
        let steady = "  checks:\n  - { metric: syscall.error_ratio, above: 5% }\n  - { metric: net.rx_packets, below: 10/s }\n  \
                      invariants:\n  - { id: no-lost-write, run: [\"./check.sh\", \"-v\"], timeout: 5s }\n  - { id: alive, run: curl -sf localhost }\n";
        let more = "abort_if:\n- { metric: syscall.error_ratio, above: 5%, for: 5s }\n- { metric: net.rx_bytes, harm: 30% }\n\
                    - control: unhealthy\n- processes: ignore\n";
        let spec = parse(&spec(steady, more)).unwrap();
        let errors = Limit { metric: Metric::SyscallErrorRatio, side: Side::Above, level: 0.05 };
        let floor = Limit { metric: Metric::RxPackets, side: Side::Below, level: 10.0 };
        assert_eq!(spec.checks, [Check(errors), Check(floor)]);
        let invariant = |id: &str, run: &[&str], seconds| Invariant {
            id: id.into(),
            run: run.iter().map(|word| (*word).to_owned()).collect(),
            timeout: Duration::from_secs(seconds),
        };
        let shell = invariant("alive", &["sh", "-c", "curl -sf localhost"], 60);
        assert_eq!(spec.invariants, [invariant("no-lost-write", &["./check.sh", "-v"], 5), shell]);
        let harm = Harm { metric: Metric::RxBytes, increase: false, most: 0.3 };
        let guards = [
            AbortIf::Level { limit: errors, lasting: Duration::from_secs(5) },
            AbortIf::Harm(harm),
            AbortIf::ControlUnhealthy,
            AbortIf::Processes(Processes::Ignore),
        ];
        assert_eq!(spec.abort_if, guards);
    }

    #[test]
    fn a_sign_says_what_hurts_and_without_one_the_gate_or_the_kind_does() {
        let gate =
            |increase, decrease| Gate { metric: Metric::RxBytes, margin: Margin { increase, decrease } };
        let harm = |text, metric, gates: &[Gate]| harm_of(text, metric, gates).unwrap().increase;
        assert!(!harm("30%", Metric::RxBytes, &[]));
        assert!(harm("+30%", Metric::RxBytes, &[]));
        assert!(harm("30%", Metric::RxBytes, &[gate(Some(0.1), None)]));
        assert!(!harm("-30%", Metric::RxBytes, &[gate(Some(0.1), None)]));
        assert!(!harm("30%", Metric::RxBytes, &[gate(Some(0.1), Some(0.1))]));
        assert!(harm("1pp", Metric::SyscallErrorRatio, &[]));
        assert!(!harm("- 1pp", Metric::SyscallErrorRatio, &[]));
        let refused = harm_of("10%", Metric::RxBytes, &[gate(None, Some(0.1))]).unwrap_err().to_string();
        assert!(refused.contains("write more than `10%`"), "{refused}");
        assert!(harm_of("+10%", Metric::RxBytes, &[gate(None, Some(0.1))]).is_ok(), "the other side");
    }
}
