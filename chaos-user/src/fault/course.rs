//! How a fault comes and goes while it is in force: pulses, and ramps of its percentage. What it is at a given time is
//! computed here; `kernel/shaper.rs` writes it into the rule.

use std::{fmt, time::Duration};

use chaos_common::Rule;

use super::{
    Fault, Pattern,
    catalogue::{Parameter, fields},
    text::{FieldError, Given, understood},
};
use crate::units::{BadValue, parse_duration, show_duration};

/// Rules are written no more often than this.
pub const SHORTEST_STEP: Duration = Duration::from_millis(50);
/// A pulse must be long enough for that to do it justice.
const SHORTEST_PULSE: Duration = Duration::from_millis(100);
/// A ramp is a staircase of so many steps, or fewer if they would be too short.
const RAMP_STEPS: u32 = 200;

/// Names of the fields of `pulse`, in order.
const PULSE: [&str; 3] = ["delay", "active", "dormant"];

/// The parameter, for the catalogue.
pub const PULSE_PARAMETER: Parameter = fields(
    "pulse",
    &PULSE,
    "DELAY[,ACTIVE[,DORMANT]]",
    "always on",
    "on after a delay, then by turns active and dormant; without dormant once only",
);

/// When a fault is on, counted from when it was armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Dormant for so long first.
    pub delay: Duration,
    /// Then on for so long; to the end if `None`.
    pub active: Option<Duration>,
    /// Then dormant for so long, and on again; dormant to the end if `None`.
    pub dormant: Option<Duration>,
}

impl Pulse {
    /// As given: the fields in order, separated by commas.
    pub fn build(given: &Given) -> Result<Option<Self>, FieldError> {
        let Some(text) = given.text("pulse") else { return Ok(None) };
        let mut texts = text.split(',').map(str::trim);
        let mut field = |name: &str, shortest: Duration| match texts.next() {
            None | Some("") => Ok(None),
            Some(text) => {
                understood(&format!("pulse.{name}"), text, |text| at_least(text, shortest)).map(Some)
            }
        };
        let delay = field(PULSE[0], Duration::ZERO)?;
        let active = field(PULSE[1], SHORTEST_PULSE)?;
        let dormant = field(PULSE[2], SHORTEST_PULSE)?;
        let refuse =
            |field: &str, what: &str, right: &str| Err(FieldError::new(field, BadValue::new(what, right)));
        if texts.next().is_some() {
            return refuse("pulse", "there are more than 3 values", "write delay,active,dormant");
        }
        match (delay.unwrap_or_default(), active, dormant) {
            (Duration::ZERO, None, None) => refuse(
                "pulse",
                "this is no pulse",
                "write `delay`, or `active` and `dormant`, or leave it out",
            ),
            (_, None, Some(_)) => refuse(
                "pulse.active",
                "this is missing, so nothing would ever be dormant",
                "write how long the fault is on, such as `1s`",
            ),
            (delay, active, dormant) => Ok(Some(Self { delay, active, dormant })),
        }
    }

    /// Whether it is on, and when that changes.
    fn at(&self, elapsed: Duration) -> (bool, Option<Duration>) {
        let Some(since) = elapsed.checked_sub(self.delay) else { return (false, Some(self.delay)) };
        match (self.active, self.dormant) {
            (None, _) => (true, None),
            (Some(active), None) if since < active => (true, Some(self.delay + active)),
            (Some(_), None) => (false, None),
            (Some(active), Some(dormant)) => {
                let period = active + dormant;
                let into = Duration::from_nanos((since.as_nanos() % period.as_nanos()) as u64);
                let begun = elapsed.saturating_sub(into);
                if into < active { (true, Some(begun + active)) } else { (false, Some(begun + period)) }
            }
        }
    }
}

fn at_least(text: &str, shortest: Duration) -> Result<Duration, BadValue> {
    let duration = parse_duration(text)?;
    if duration < shortest {
        let what = format!("{} is too short to be kept", show_duration(duration));
        return Err(BadValue::new(what, format!("write at least `{}`", show_duration(shortest))));
    }
    Ok(duration)
}

/// How a rule changes while it is in force.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    pulse: Option<Pulse>,
    pattern: Pattern,
}

impl Course {
    /// Of a fault; `None` if it stays what it is.
    pub fn of(fault: &Fault) -> Option<Self> {
        let shape = Self { pulse: fault.limits().pulse, pattern: *fault.pattern() };
        let changes = shape.pulse.is_some() || matches!(shape.pattern, Pattern::Ramp { .. });
        changes.then_some(shape)
    }

    /// The rule at a time since it was armed. Whatever mix of two of these the kernel reads is a rule: they differ
    /// in single words, each of which is valid next to any value of the others.
    pub fn rule_at(&self, rule: Rule, elapsed: Duration) -> Rule {
        let on = self.pulse.is_none_or(|pulse| pulse.at(elapsed).0);
        let pattern = self.pattern.at(elapsed.saturating_sub(self.delay())).to_kernel();
        Rule { dormant: u32::from(!on), pattern, ..rule }
    }

    /// When it is another one; `None` if never again.
    pub fn next_change(&self, elapsed: Duration) -> Option<Duration> {
        let edge = self.pulse.and_then(|pulse| pulse.at(elapsed).1);
        let step = self.next_step(elapsed);
        edge.into_iter().chain(step).min()
    }

    /// A ramp begins with the first pulse.
    fn next_step(&self, elapsed: Duration) -> Option<Duration> {
        let Pattern::Ramp { over, .. } = self.pattern else { return None };
        let end = self.delay() + over;
        let step = (over / RAMP_STEPS).max(SHORTEST_STEP);
        (elapsed < end).then(|| (elapsed.max(self.delay()) + step).min(end))
    }

    fn delay(&self) -> Duration {
        self.pulse.map_or(Duration::ZERO, |pulse| pulse.delay)
    }
}

impl fmt::Display for Pulse {
    /// `off for 5s, then by turns on for 1s and off for 2s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.delay.is_zero() {
            write!(f, "off for {}, then ", show_duration(self.delay))?;
        }
        match (self.active.map(show_duration), self.dormant.map(show_duration)) {
            (None, _) => f.write_str("on"),
            (Some(active), None) => write!(f, "on for {active}, once"),
            (Some(active), Some(dormant)) => write!(f, "by turns on for {active} and off for {dormant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::catalogue::find;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn fault(values: &[(&'static str, &str)]) -> Result<Fault, FieldError> {
        let given = values
            .iter()
            .fold(Given::new(find("loss").unwrap()), |given, (name, value)| given.with(name, value));
        (given.entry.build)(&given)
    }

    fn shape(values: &[(&'static str, &str)]) -> Course {
        Course::of(&fault(values).unwrap()).unwrap()
    }

    fn pulsing(pulse: &str) -> Course {
        shape(&[("percent", "5"), ("pulse", pulse)])
    }

    const RULE: Rule = Rule {
        dry_run: 0,
        dormant: 0,
        match_clauses: 1,
        allow_clauses: 2,
        when: chaos_common::When::ALWAYS,
        seed: 3,
        budget: chaos_common::Budget::UNLIMITED,
        pattern: chaos_common::Pattern::NONE,
    };

    fn is_on(shape: &Course, elapsed: Duration) -> bool {
        shape.rule_at(RULE, elapsed).dormant == 0
    }

    /// Every change, in order, as the writer would see them.
    fn changes(shape: &Course, until: Duration) -> Vec<(u128, bool)> {
        let next = |elapsed: &Duration| shape.next_change(*elapsed).filter(|next| *next <= until);
        std::iter::successors(Some(Duration::ZERO), next)
            .map(|elapsed| (elapsed.as_millis(), is_on(shape, elapsed)))
            .collect()
    }

    #[test]
    fn pulses_come_and_go() {
        let by_turns = pulsing("500ms,1s,2s");
        assert_eq!(
            changes(&by_turns, ms(7_000)),
            [(0, false), (500, true), (1_500, false), (3_500, true), (4_500, false), (6_500, true)]
        );
        assert!(!is_on(&by_turns, ms(499)) && is_on(&by_turns, ms(1_499)) && !is_on(&by_turns, ms(3_499)));
        assert_eq!(
            changes(&pulsing(",300ms,200ms"), ms(800)),
            [(0, true), (300, false), (500, true), (800, false)]
        );
        assert_eq!(changes(&pulsing("1s"), ms(9_999)), [(0, false), (1_000, true)]);
        assert_eq!(changes(&pulsing("1s,2s"), ms(99_999)), [(0, false), (1_000, true), (3_000, false)]);
        assert!(is_on(&by_turns, Duration::from_secs(86_400) + ms(600)), "a day later");
    }

    fn chance_at(shape: &Course, elapsed: Duration) -> f64 {
        shape.rule_at(RULE, elapsed).pattern.long_run_fraction()
    }

    #[test]
    fn ramps_go_straight_and_stay() {
        let ramp = shape(&[("ramp", "10,20,10s")]);
        for (at, expected) in [(0, 0.1), (2_500, 0.125), (5_000, 0.15), (10_000, 0.2), (60_000, 0.2)] {
            assert!((chance_at(&ramp, ms(at)) - expected).abs() < 1e-9, "{at} ms");
        }
        let steps = changes(&ramp, ms(60_000));
        assert_eq!((steps.len(), steps[1].0, steps[200].0), (201, 50, 10_000));
        let down = shape(&[("ramp", "100%,0%,200s"), ("correlation", "50%"), ("pulse", "10s,1s,1s")]);
        assert!((chance_at(&down, ms(5_000)) - 1.0).abs() < 1e-6, "it begins with the first pulse");
        assert!((chance_at(&down, ms(60_000)) - 0.75).abs() < 1e-6);
        assert_eq!(
            down.next_change(ms(10_000)),
            Some(ms(11_000)),
            "a pulse's end or a step, whichever is first"
        );
        assert_eq!(shape(&[("ramp", "0,1,60ms")]).next_change(ms(50)), Some(ms(60)));
    }

    #[test]
    fn nothing_else_of_the_rule_changes() {
        let shape = shape(&[("ramp", "10,20,10s"), ("pulse", "1s")]);
        let changed = shape.rule_at(RULE, ms(3_000));
        assert_eq!(Rule { dormant: 0, pattern: RULE.pattern, ..changed }, RULE);
        assert_eq!(Course::of(&fault(&[("percent", "5")]).unwrap()), None);
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (pulse, part) in [
            ("1s,2s,3s,4s", "pulse: there are more than 3"),
            ("0s", "pulse: this is no pulse"),
            (",,1s", "pulse.active: this is missing"),
            (",10ms,1s", "pulse.active: 10ms is too short to be kept; write at least `100ms`"),
            (",1s,99ms", "pulse.dormant: 99ms is too short"),
            ("5", "pulse.delay: `5` has no unit"),
        ] {
            let refused = fault(&[("percent", "5"), ("pulse", pulse)]).unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn pulses_in_words() {
        for (pulse, words) in [
            ("5s,1s,2s", "off for 5s, then by turns on for 1s and off for 2s"),
            (",1s", "on for 1s, once"),
            ("10s", "off for 10s, then on"),
        ] {
            assert_eq!(pulsing(pulse).pulse.unwrap().to_string(), words);
        }
    }
}
