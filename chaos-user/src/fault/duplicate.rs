//! Packets arrive more than once.

use chaos_common::{Duplication, duplicate::MAX_COPIES};

use super::{
    Fault,
    catalogue::{FaultEntry, Parameter, value},
    course, filter, limits,
    net::{NetEffect, NetFault},
    pattern,
    text::{FieldError, Given},
};
use crate::units::parse_up_to;

const PARAMETERS: &[Parameter] =
    &[value("copies", "N", "1", "how often such a packet arrives besides the once")];

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "duplicate",
    summary: "packets arrive more than once",
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
    command: "kchaos inject duplicate --percent 5 --on docker:web --for 30s",
    yaml: "- duplicate:\n    percent: 5%\n    copies: 2\n    protocol: udp\n    ports: 53\n",
};

fn build(given: &Given) -> Result<Fault, FieldError> {
    let copies = given.optional("copies", |text| parse_up_to(text, MAX_COPIES))?.unwrap_or(1);
    NetFault::build(NetEffect::Duplicate(Duplication { copies, spare: 0 }), given, None).map(Fault::Net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(text: Option<&str>) -> Result<u32, String> {
        let given = Given::new(&ENTRY).with("percent", "5");
        let given = text.into_iter().fold(given, |given, text| given.with("copies", text));
        match build(&given).map_err(|error| error.to_string())? {
            Fault::Net(NetFault { effect: NetEffect::Duplicate(duplication), .. }) => Ok(duplication.copies),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_copy_unless_more_are_asked_for() {
        assert_eq!(copies(None), Ok(1));
        assert_eq!(copies(Some("8")), Ok(8));
        let zero = copies(Some("0")).unwrap_err();
        assert!(zero.starts_with("copies: 0 would change nothing"), "{zero}");
        let nine = copies(Some("9")).unwrap_err();
        assert!(nine.starts_with("copies: `9` is not a number from 1 to 8"), "{nine}");
    }
}
