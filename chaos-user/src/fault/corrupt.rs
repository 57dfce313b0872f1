//! Payloads arrive changed, or in packets that the receiver discards.

use chaos_common::{Corruption, corrupt::MAX_BITS};

use super::{
    Fault,
    catalogue::{FaultEntry, Parameter, value},
    course,
    filter::{self, Protocol},
    limits,
    net::{NetEffect, NetFault},
    pattern,
    text::{FieldError, Given},
};
use crate::units::{BadValue, Offsets, one_of, parse_up_to};

const PARAMETERS: &[Parameter] = &[
    value("bits", "N", "1", "how many bits of a packet's payload are flipped"),
    value("offset", "FIRST[..[LAST]]", "all", "only these bytes of the payload, counted from 0"),
    value(
        "checksum",
        "fix|break",
        "fix",
        "fix: the changed payload reaches the application; break: the receiver discards the packet",
    ),
];

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "corrupt",
    summary: "payloads arrive changed, or in packets that the receiver discards",
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
    command: "kchaos inject corrupt --percent 1 --local-ports 8080 --on docker:web --for 30s",
    yaml: "- corrupt:\n    percent: 1%\n    bits: 4\n    protocol: tcp\n    local_ports: 8080\n",
};

/// What becomes of the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksum {
    Fix,
    Break,
}

impl Checksum {
    const fn name(self) -> &'static str {
        match self {
            Self::Fix => "fix",
            Self::Break => "break",
        }
    }
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let bits = given.optional("bits", |text| parse_up_to(text, MAX_BITS))?.unwrap_or(1);
    let Offsets { first, last } = given.optional("offset", str::parse)?.unwrap_or(Offsets::ALL);
    let checksum = given.optional("checksum", |text| {
        one_of(text, "`fix` or `break`", &[Checksum::Fix, Checksum::Break], |checksum| checksum.name())
    })?;
    let breaks_checksum = u32::from(checksum == Some(Checksum::Break));
    let corruption = Corruption { first, last, bits, breaks_checksum };
    let net = NetFault::build(NetEffect::Corrupt(corruption), given, None)?;
    if net.filter.protocol == Some(Protocol::Icmp) {
        let why =
            BadValue::new("only payloads of TCP and UDP are corrupted", "leave it out, or use tcp or udp");
        return Err(FieldError::new("protocol", why));
    }
    Ok(Fault::Net(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(values: &[(&'static str, &str)]) -> Given {
        values
            .iter()
            .fold(Given::new(&ENTRY).with("percent", "5"), |given, (name, value)| given.with(name, value))
    }

    fn corruption(values: &[(&'static str, &str)]) -> Corruption {
        match build(&given(values)).unwrap() {
            Fault::Net(NetFault { effect: NetEffect::Corrupt(corruption), .. }) => corruption,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_bit_anywhere_by_default() {
        let expected = Corruption { first: 0, last: u32::MAX, bits: 1, breaks_checksum: 0 };
        assert_eq!(corruption(&[]), expected);
        assert_eq!(corruption(&[("checksum", "fix")]), expected);
    }

    #[test]
    fn everything_at_once() {
        let corruption = corruption(&[("bits", "64"), ("offset", "4..7"), ("checksum", "break")]);
        assert_eq!(corruption, Corruption { first: 4, last: 7, bits: 64, breaks_checksum: 1 });
    }

    #[test]
    fn refusals_name_the_field() {
        for (values, part) in [
            (("bits", "0"), "bits: 0 would change nothing"),
            (("bits", "65"), "bits: `65` is not a number from 1 to 64"),
            (("offset", "7..4"), "offset: `7..4` ends before"),
            (("checksum", "brake"), "checksum: `brake` is not `fix` or `break`; did you mean `break`?"),
            (("protocol", "icmp"), "protocol: only payloads of TCP and UDP"),
        ] {
            let message = build(&given(&[values])).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let none = build(&Given::new(&ENTRY)).unwrap_err().to_string();
        assert!(none.contains("no pattern"), "{none}");
    }
}
