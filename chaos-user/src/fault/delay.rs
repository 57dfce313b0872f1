//! Packets arrive later than they would.

use std::{fmt, time::Duration};

use chaos_common::{
    Chance,
    shape::{Shape, kind},
};

use super::{
    Fault, Pattern,
    catalogue::{FaultEntry, Parameter, value},
    course, filter,
    jitter::{Distribution, Jitter, Order, correlated},
    limits,
    net::{NetEffect, NetFault},
    pattern,
    text::{FieldError, Given},
};
use crate::units::{BadValue, Percent, parse_duration, show_duration};

/// The longest that a packet may be held back: fq drops what is more than 10 s ahead.
pub const MOST: Duration = Duration::from_secs(9);

/// How much a delay differs.
pub const JITTER: Parameter =
    value("jitter", "DURATION", "0s", "how much more or less; what that means says the distribution");
/// And how.
pub const DISTRIBUTION: Parameter = value(
    "distribution",
    "uniform|normal|pareto|paretonormal",
    "uniform",
    "of the jitter, as in tc-netem(8)",
);

const PARAMETERS: &[Parameter] = &[
    value("by", "DURATION", "-", "how long packets are held back"),
    JITTER,
    DISTRIBUTION,
    value("jitter_correlation", "PERCENT", "0%", "how much one packet's jitter is like the one before"),
    value("order", "keep|free", "keep", "whether packets that jitter overtake those of their flow"),
];

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "delay",
    summary: "packets arrive later",
    parameters: &[
        PARAMETERS,
        pattern::PARAMETERS,
        &[filter::DIRECTION],
        &[filter::CONNECTIONS],
        filter::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build,
    command: "kchaos inject delay --by 50ms --jitter 10ms --on docker:web --for 30s",
    yaml: "- delay:\n    by: 50ms\n    jitter: 10ms\n    distribution: normal\n",
};

/// How long packets are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub by: Duration,
    /// How much more or less.
    pub jitter: Option<Jitter>,
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let by = given.required("by", "50ms", parse_hold)?;
    let delay = Delay { by, jitter: jitter(given)? };
    if delay.most() > MOST {
        let why = BadValue::new(
            format!("with it, packets could be held back for {}", show_duration(delay.most())),
            format!("make the delay and {} jitters {} at most", factor(&delay), show_duration(MOST)),
        );
        return Err(FieldError::new("jitter", why));
    }
    NetFault::build(NetEffect::Delay(delay), given, Some(Pattern::ALL)).map(Fault::Net)
}

/// A time for which packets can be held back.
pub(super) fn parse_hold(text: &str) -> Result<Duration, BadValue> {
    let held = parse_duration(text)?;
    let right = format!("write more than 0 and at most `{}`", show_duration(MOST));
    match held {
        Duration::ZERO => Err(BadValue::new("0 would never hold anything back", right)),
        held if held > MOST => Err(BadValue::new(
            format!("`{}` is longer than packets can be held back", show_duration(held)),
            right,
        )),
        held => Ok(held),
    }
}

/// How much more or less.
pub(super) fn jitter(given: &Given) -> Result<Option<Jitter>, FieldError> {
    let by = given.optional("jitter", parse_duration)?.filter(|by| *by > Duration::ZERO);
    let Some(by) = by else {
        let of_jitter = ["distribution", "jitter_correlation", "order"];
        return match of_jitter.into_iter().find(|name| given.has(name)) {
            None => Ok(None),
            Some(name) => {
                let why = BadValue::new(
                    "there is no jitter",
                    "give one, such as `jitter: 10ms`, or leave this out",
                );
                Err(FieldError::new(name, why))
            }
        };
    };
    Ok(Some(Jitter {
        by,
        distribution: given.optional("distribution", str::parse::<Distribution>)?.unwrap_or_default(),
        correlation: given.optional("jitter_correlation", correlation)?.unwrap_or(Chance::NEVER),
        order: given.optional("order", str::parse::<Order>)?.unwrap_or_default(),
    }))
}

fn correlation(text: &str) -> Result<Chance, BadValue> {
    let Percent(correlation) = text.parse()?;
    if correlation.fraction() > 0.9999 {
        return Err(BadValue::new(
            "with so much correlation the jitter would hardly ever change",
            "write at most `99.99%`",
        ));
    }
    Ok(correlation)
}

const fn factor(delay: &Delay) -> u32 {
    match delay.jitter {
        Some(jitter) => jitter.distribution.most(),
        None => 0,
    }
}

impl Delay {
    /// The longest that it holds a packet back.
    pub fn most(&self) -> Duration {
        self.by + self.jitter.map_or(Duration::ZERO, |jitter| jitter.by * factor(self))
    }

    /// As the kernel half takes it.
    pub fn shape(&self) -> Shape {
        let plain = Shape { kind: kind::DELAY, by_ns: ns(self.by), ..Shape::NONE };
        let Some(jitter) = self.jitter else { return plain };
        let shape = Shape {
            distribution: jitter.distribution.number(),
            keeps_order: u32::from(jitter.order == Order::Keep),
            jitter_ns: ns(jitter.by),
            ..plain
        };
        correlated(shape, jitter.correlation)
    }
}

/// Nothing here is longer than [`MOST`].
pub fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_duration(self.by))?;
        let Some(jitter) = self.jitter else { return Ok(()) };
        write!(f, " ±{} {}", show_duration(jitter.by), jitter.distribution)?;
        match jitter.order {
            Order::Keep => Ok(()),
            Order::Free => f.write_str(" in any order"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(values: &[(&'static str, &str)]) -> Given {
        values.iter().fold(Given::new(&ENTRY), |given, (name, value)| given.with(name, value))
    }

    fn delay(values: &[(&'static str, &str)]) -> Delay {
        match build(&given(values)).unwrap() {
            Fault::Net(NetFault { effect: NetEffect::Delay(delay), .. }) => delay,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(values: &[(&'static str, &str)]) -> String {
        build(&given(values)).unwrap_err().to_string()
    }

    const BY: (&str, &str) = ("by", "50ms");

    #[test]
    fn a_delay_alone_is_for_every_packet() {
        let Fault::Net(fault) = build(&given(&[BY])).unwrap() else { panic!("a network fault") };
        assert_eq!(fault.pattern, Pattern::ALL);
        assert_eq!(delay(&[BY]), Delay { by: Duration::from_millis(50), jitter: None });
        assert_eq!(fault.to_string(), "delay 50ms 100% egress");
    }

    #[test]
    fn everything_at_once() {
        let all = [
            BY,
            ("jitter", "10ms"),
            ("distribution", "pareto"),
            ("jitter_correlation", "25%"),
            ("order", "free"),
        ];
        let delay = delay(&all);
        assert_eq!(delay.most(), Duration::from_millis(90));
        assert_eq!(delay.to_string(), "50ms ±10ms pareto in any order");
        let shape = delay.shape();
        assert_eq!((shape.by_ns, shape.jitter_ns, shape.keeps_order), (50_000_000, 10_000_000, 0));
        assert_eq!((shape.rho, shape.fresh), (16_384, 63_454));
    }

    #[test]
    fn refusals_name_the_field() {
        for (values, part) in [
            (&[][..], "by: this is missing"),
            (&[("by", "50")], "by: `50` has no unit"),
            (&[("by", "0s")], "by: 0 would never"),
            (&[("by", "10s")], "by: `10s` is longer than"),
            (&[("by", "8s"), ("jitter", "2s")], "jitter: with it, packets could be held back for 10s"),
            (
                &[("by", "1s"), ("jitter", "3s"), ("distribution", "normal")],
                "for 13s; make the delay and 4 jitters",
            ),
            (&[BY, ("order", "free")], "order: there is no jitter"),
            (&[BY, ("jitter", "0s"), ("distribution", "normal")], "distribution: there is no jitter"),
            (
                &[BY, ("jitter", "1ms"), ("distribution", "gauss")],
                "distribution: `gauss` is not a distribution",
            ),
            (&[BY, ("jitter", "1ms"), ("jitter_correlation", "100%")], "jitter_correlation: with so much"),
            (&[BY, ("jitter", "1ms"), ("order", "reverse")], "order: `reverse` is not an order"),
        ] {
            let message = refusal(values);
            assert!(message.contains(part), "{message}");
        }
    }
}
