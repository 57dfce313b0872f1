//! Packets disappear on the way; neither end is told.

use super::{
    Fault, Pattern,
    catalogue::{FaultEntry, Parameter, value},
    course,
    filter::{self, DirectionSpec},
    limits,
    net::{NetEffect, NetFault},
    pattern,
    text::{FieldError, Given},
};
use crate::units::BadValue;

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "loss",
    summary: "packets disappear on the way; neither end is told",
    parameters: &[
        pattern::PARAMETERS,
        PARAMETERS,
        &[filter::DIRECTION],
        &[filter::CONNECTIONS],
        filter::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build,
    command: "kchaos inject loss --percent 5 --on docker:web --for 30s",
    yaml: "- loss:\n    percent: 5%\n    protocol: tcp\n    ports: [80, 8000-8100]\n",
};

const PARAMETERS: &[Parameter] = &[
    value("visibility", "wire|local", "wire", "local: the sender is told, as if its own queue were full"),
    value("unit", "packets|segments", "packets", "what a chain (gemodel, state, correlation) moves on by"),
];

/// How packets get lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Who is told.
    pub visibility: Visibility,
    /// What the pattern counts.
    pub unit: Unit,
}

/// Who is told of a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Nobody: it happens somewhere on the way.
    #[default]
    Wire,
    /// The sender: it happens at its own device.
    Local,
}

/// What a pattern with a memory moves on by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// One step for each packet as the hook meets it, however many segments it will be cut into.
    #[default]
    Packets,
    /// One step for each segment; a packet shares the fate of its first one.
    Segments,
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let visibility = given.optional("visibility", str::parse)?.unwrap_or_default();
    let unit = given.optional("unit", str::parse)?.unwrap_or_default();
    let net = NetFault::build(NetEffect::Loss(Loss { visibility, unit }), given, None)?;
    let refuse =
        |field: &str, what: &str, right: &str| Err(FieldError::new(field, BadValue::new(what, right)));
    if visibility == Visibility::Local && net.direction != DirectionSpec::Egress {
        let what = "what arrives has no sender here who could be told";
        return refuse("visibility", what, "leave it out, or use `direction: egress`");
    }
    if unit == Unit::Segments && matches!(net.pattern, Pattern::Every(_)) {
        let what = "a single segment cannot be taken out of the packet that it is part of";
        return refuse("unit", what, "leave it out, or use `percent`");
    }
    if unit == Unit::Segments && matches!(net.pattern, Pattern::Ramp { .. }) && given.has("correlation") {
        let what = "how a chain moves by many segments is fixed, and a ramp would change it";
        return refuse("unit", what, "leave out one of `unit`, `correlation`, `ramp`");
    }
    Ok(Fault::Net(net))
}

#[cfg(test)]
mod tests {
    use chaos_common::{Chance, When};

    use super::*;
    use crate::fault::{Limits, NetFilter};

    fn chance(fraction: f64) -> Chance {
        Chance::from_fraction(fraction).unwrap()
    }

    fn given(values: &[(&'static str, &str)]) -> Given {
        values.iter().fold(Given::new(&ENTRY), |given, (name, value)| given.with(name, value))
    }

    fn fault(values: &[(&'static str, &str)]) -> NetFault {
        let Ok(Fault::Net(net)) = build(&given(values)) else { panic!("{values:?}") };
        net
    }

    fn pattern(values: &[(&'static str, &str)]) -> Pattern {
        fault(values).pattern
    }

    fn refusal(values: &[(&'static str, &str)]) -> String {
        build(&given(values)).unwrap_err().to_string()
    }

    const FIVE_PERCENT: (&str, &str) = ("percent", "5");

    #[test]
    fn percent_alone_has_the_defaults() {
        let fault = fault(&[FIVE_PERCENT]);
        assert_eq!(fault.pattern, Pattern::Random { chance: chance(0.05), correlation: Chance::NEVER });
        assert_eq!(fault.direction, DirectionSpec::Egress);
        assert_eq!(fault.filter, NetFilter::default());
        assert_eq!(fault.limits, Limits::default());
    }

    #[test]
    fn zero_percent_is_allowed_and_never_fires() {
        assert_eq!(pattern(&[("percent", "0")]).long_run_fraction(), 0.0);
    }

    #[test]
    fn everything_at_once() {
        let fault = fault(&[
            FIVE_PERCENT,
            ("correlation", "25%"),
            ("direction", "both"),
            ("protocol", "tcp"),
            ("peers", "10.0.0.0/8"),
            ("peers", "fd00::/8"),
            ("ports", "80"),
            ("ports", "8000-8100"),
            ("local_ports", "1024-65535"),
            ("allow", "10.0.0.1"),
            ("allow", ":22"),
            ("when", "1..1000+2"),
            ("max", "500"),
            ("rate", "100/s"),
            ("seed", "42"),
        ]);
        assert_eq!(fault.pattern, Pattern::Random { chance: chance(0.05), correlation: chance(0.25) });
        assert_eq!(fault.direction, DirectionSpec::Both);
        assert_eq!(fault.filter.ports, [80..=80, 8000..=8100]);
        assert_eq!((fault.filter.peers.len(), fault.filter.allow.len()), (2, 2));
        let when = When { first: 1, last: 1000, step: 2 };
        let limits = Limits { when, max: Some(500), rate_per_s: Some(100), seed: Some(42), pulse: None };
        assert_eq!(fault.limits, limits);
    }

    #[test]
    fn gemodel_has_the_defaults_of_netem() {
        let with = |text| pattern(&[("gemodel", text)]);
        let simple = |p, r| Pattern::GilbertElliott {
            p: chance(p),
            r,
            lost_in_bad: Chance::ALWAYS,
            lost_in_good: Chance::NEVER,
        };
        assert_eq!(with("1%"), simple(0.01, chance(0.01).complement()));
        assert_eq!(with("1%,10%"), simple(0.01, chance(0.1)));
        assert_eq!(with("1%, 10%, 100%, 0%"), simple(0.01, chance(0.1)));
        assert!((with("1%").long_run_fraction() - 0.01).abs() < 1e-9, "with p alone, losses are independent");
        let gap = with("1%,,50%");
        assert!(matches!(gap, Pattern::GilbertElliott { lost_in_bad, .. } if lost_in_bad == chance(0.5)));
    }

    #[test]
    fn state_has_the_defaults_of_netem() {
        let with = |text| pattern(&[("state", text)]);
        assert!(
            (with("2%").long_run_fraction() - 0.02).abs() < 1e-9,
            "with p13 alone, losses are independent"
        );
        let (p13, p31, p32, p23, p14) =
            (chance(0.01), chance(0.3), Chance::NEVER, Chance::ALWAYS, chance(0.1));
        assert_eq!(with("1,30,,,10"), Pattern::FourState { p13, p31, p32, p23, p14 });
    }

    #[test]
    fn every_model_that_is_accepted_has_a_loss_rate() {
        for state in ["0", "1", "0,0,0,0,50", "1,1,1,1,1", "50,50,50,100,50", "1e-7,1e-7,0,0,0"] {
            let fraction = pattern(&[("state", state)]).long_run_fraction();
            assert!((0.0..=1.0).contains(&fraction), "{state}: {fraction}");
        }
    }

    #[test]
    fn exactly_one_pattern() {
        assert!(refusal(&[]).contains("no pattern"));
        let two = refusal(&[FIVE_PERCENT, ("every", "3")]);
        assert!(two.starts_with("every: `percent` is given already"), "{two}");
    }

    #[test]
    fn refusals_name_the_field() {
        for (values, part) in [
            (&[("percent", "150")][..], "percent: `150` is not between"),
            (&[("every", "0")], "every: 0 would never"),
            (&[("every", "5"), ("when", "1+")], "when: `every: N` is itself"),
            (&[("every", "5"), ("correlation", "1")], "correlation: `every` has no"),
            (&[FIVE_PERCENT, ("correlation", "100")], "correlation: with so much"),
            (&[("gemodel", "1,2,3,4,5")], "gemodel: there are more than 4"),
            (&[("gemodel", "1,x")], "gemodel.r: `x` is not a percentage"),
            (&[("gemodel", ",5")], "gemodel: `p` is missing"),
            (&[("state", "60,10,0,0,50")], "state.p14: p13 60% and p14 50%"),
            (&[("state", "1,60,50")], "state.p32: p31 60% and p32 50%"),
            (&[("state", "1,0")], "state.p31: p31 is 0"),
            (&[("state", "1,50,50,0")], "state.p23: p23 is 0"),
            (&[FIVE_PERCENT, ("max", "0")], "max: 0 would never"),
            (&[FIVE_PERCENT, ("rate", "0/s")], "rate: 0/s would never"),
            (&[FIVE_PERCENT, ("seed", "0")], "seed: 0 is not a seed"),
            (&[FIVE_PERCENT, ("peers", "::1"), ("peers", "10.0.0.1/8")], "peers[1]: `10.0.0.1/8`"),
            (&[FIVE_PERCENT, ("peers", "10.0.0.1/8")], "peers: `10.0.0.1/8`"),
            (&[("ramp", "0,20")], "ramp: there are 2 values"),
            (&[("ramp", "0,,5s")], "ramp: `to` is missing"),
            (&[("ramp", "20,20,5s")], "ramp: from 20% to 20% over 5s is no ramp"),
            (&[("ramp", "0,20,5")], "ramp.over: `5` has no unit"),
            (&[("ramp", "0,101,5s")], "ramp.to: `101` is not between"),
            (&[("ramp", "0,20,5s"), ("correlation", "100")], "correlation: with so much"),
            (&[FIVE_PERCENT, ("ramp", "0,20,5s")], "ramp: `percent` is given already"),
            (&[FIVE_PERCENT, ("connections", "new"), ("protocol", "udp")], "connections: udp has no"),
            (&[FIVE_PERCENT, ("allow_defaults", "no")], "allow_defaults: `no` is not"),
            (&[FIVE_PERCENT, ("visibility", "local"), ("direction", "both")], "visibility: what arrives"),
            (&[("every", "5"), ("unit", "segments")], "unit: a single segment"),
            (&[("ramp", "0,20,5s"), ("unit", "segments"), ("correlation", "5")], "unit: how a chain"),
        ] {
            let message = refusal(values);
            assert!(message.contains(part), "{message}");
        }
        let long = (0..65).fold(given(&[FIVE_PERCENT]), |given, _| given.with("ports", "80"));
        assert!(build(&long).unwrap_err().to_string().contains("ports: 65 entries"));
    }

    #[test]
    fn icmp_has_no_ports() {
        let icmp = [FIVE_PERCENT, ("protocol", "icmp")];
        let refused = refusal(&[&icmp[..], &[("local_ports", "80")]].concat());
        assert!(refused.starts_with("local_ports: ICMP has no ports"), "{refused}");
        assert!(build(&given(&[&icmp[..], &[("allow", ":22")]].concat())).is_ok());
    }

    #[test]
    fn errors_name_the_option_of_the_command_line() {
        let error = build(&given(&[FIVE_PERCENT, ("local_ports", "1"), ("local_ports", "x")])).unwrap_err();
        assert_eq!((error.field.as_str(), error.parameter()), ("local_ports[1]", "local_ports"));
        assert_eq!(error.option(), "--local-ports");
    }
}
