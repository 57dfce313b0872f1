//! Some packets overtake others.

use std::{fmt, time::Duration};

use chaos_common::{
    When,
    shape::{Shape, kind},
};

use super::{
    Fault, Pattern,
    catalogue::{FaultEntry, Parameter, value},
    course,
    delay::{ns, parse_hold},
    filter, limits,
    net::{NetEffect, NetFault},
    pattern,
    text::{FieldError, Given},
};
use crate::units::{BadValue, parse_count, show_duration};

const PARAMETERS: &[Parameter] = &[
    value("by", "DURATION", "-", "how long packets are held back that do not overtake"),
    value("gap", "N", "-", "each N-th packet overtakes; with a pattern, each N-th of which that hits"),
];

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "reorder",
    summary: "some packets overtake others",
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
    command: "kchaos inject reorder --percent 25 --by 10ms --on docker:web --for 30s",
    yaml: "- reorder:\n    percent: 25%\n    by: 10ms\n",
};

/// What overtakes leaves at once, all else is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reorder {
    /// For how long.
    pub by: Duration,
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let by = given.required("by", "10ms", parse_hold)?;
    let gap = given.optional("gap", |text| parse_count(text, "write 1 for each of them"))?;
    let default = gap.map(|_| Pattern::ALL);
    let mut fault = NetFault::build(NetEffect::Reorder(Reorder { by }), given, default)?;
    if let Some(gap) = gap {
        if let Some(other) = ["every", "when"].into_iter().find(|name| given.has(name)) {
            let right = format!("give only one of `gap`, `{other}`");
            let why = BadValue::new("`gap: N` is itself short for `when: N+N`", right);
            return Err(FieldError::new(other, why));
        }
        fault.limits.when = When::every(gap);
    }
    Ok(Fault::Net(fault))
}

impl Reorder {
    /// As the kernel half takes it.
    pub fn shape(&self) -> Shape {
        Shape { kind: kind::REORDER, by_ns: ns(self.by), ..Shape::NONE }
    }
}

impl fmt::Display for Reorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_duration(self.by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(values: &[(&'static str, &str)]) -> Given {
        values.iter().fold(Given::new(&ENTRY), |given, (name, value)| given.with(name, value))
    }

    fn fault(values: &[(&'static str, &str)]) -> NetFault {
        let Fault::Net(net) = build(&given(values)).unwrap() else { panic!("a network fault") };
        net
    }

    const BY: (&str, &str) = ("by", "10ms");

    #[test]
    fn a_gap_takes_each_nth_and_a_pattern_some_of_those() {
        let alone = fault(&[BY, ("gap", "5")]);
        assert_eq!((alone.pattern, alone.limits.when), (Pattern::ALL, When::every(5)));
        let some = fault(&[BY, ("gap", "5"), ("percent", "25")]);
        assert_eq!((some.pattern.long_run_fraction(), some.limits.when), (0.25, When::every(5)));
        assert_eq!(fault(&[BY, ("percent", "25")]).to_string(), "reorder 10ms 25% egress");
    }

    #[test]
    fn refusals_name_the_field() {
        for (values, part) in [
            (&[("percent", "5")][..], "by: this is missing"),
            (&[BY], "percent: no pattern is given"),
            (&[BY, ("gap", "0")], "gap: 0 would never"),
            (&[BY, ("gap", "5"), ("every", "5")], "every: `gap: N` is itself short"),
            (&[BY, ("gap", "5"), ("when", "1+")], "when: `gap: N` is itself short"),
        ] {
            let message = build(&given(values)).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
