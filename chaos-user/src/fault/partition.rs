//! The target and its peers cannot reach each other, in silence or with an answer.

use super::{
    DirectionSpec, Fault, Pattern,
    catalogue::{FaultEntry, Parameter, value},
    course, filter, limits,
    net::{NetEffect, NetFault},
    pattern,
    text::{FieldError, Given},
};
use crate::units::BadValue;

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "partition",
    summary: "the target and its peers cannot reach each other",
    parameters: &[
        PARAMETERS,
        &[filter::CONNECTIONS],
        filter::PARAMETERS,
        pattern::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build,
    command: "kchaos inject partition --peers 10.0.0.0/8 --on docker:web --for 30s",
    yaml: "- partition:\n    peers: 10.0.0.0/8\n    ports: 5432\n    reject: rst\n",
};

const PARAMETERS: &[Parameter] = &[
    value("direction", "egress|ingress|both", "both", "which way nothing gets through, seen from the target"),
    value("reject", "rst|icmp", "silence", "answer what the target sends: TCP by a reset, or all by ICMP"),
];

/// How what the target sends is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// TCP by a reset; the rest not at all.
    Rst,
    /// By ICMP: administratively prohibited.
    Icmp,
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let reject = given.optional("reject", str::parse)?;
    let mut fault = NetFault::build(NetEffect::Partition { reject }, given, Some(Pattern::ALL))?;
    if !given.has("direction") {
        fault.direction = DirectionSpec::Both;
    }
    if reject.is_some() && fault.direction == DirectionSpec::Ingress {
        let why = BadValue::new(
            "only what the target sends can be answered",
            "leave it out, or use `direction: both` or `egress`",
        );
        return Err(FieldError::new("reject", why));
    }
    Ok(Fault::Net(fault))
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

    #[test]
    fn without_parameters_it_is_everything_both_ways_and_silent() {
        let fault = fault(&[]);
        assert_eq!(fault.effect, NetEffect::Partition { reject: None });
        assert_eq!((fault.pattern, fault.direction), (Pattern::ALL, DirectionSpec::Both));
        assert_eq!(fault.to_string(), "partition 100% both");
    }

    #[test]
    fn it_can_answer() {
        let fault = fault(&[("reject", "rst"), ("direction", "egress"), ("percent", "50")]);
        assert_eq!(fault.effect, NetEffect::Partition { reject: Some(Reject::Rst) });
        assert_eq!(fault.to_string(), "partition 50% egress, answered by rst");
    }

    #[test]
    fn refusals_name_the_field() {
        for (values, part) in [
            (&[("reject", "reset")][..], "reject: `reset` is not a way to reject"),
            (&[("reject", "rst"), ("direction", "ingress")], "reject: only what the target sends"),
            (&[("direction", "in")], "direction: `in` is not"),
        ] {
            let message = build(&given(values)).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
