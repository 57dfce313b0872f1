//! Packets wait for their turn on a wire that is slower than the real one.

use std::{fmt, time::Duration};

use chaos_common::shape::{Shape, kind};

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
use crate::units::{BadValue, BitRate, Bytes, show_duration};

/// How long packets may wait if nobody says.
const LIMIT: Duration = Duration::from_secs(1);
/// A full frame of Ethernet: a wire that cannot carry one in the time that packets may wait would carry nothing.
const FRAME_BYTES: u64 = 1514;
const SECOND_NS: u128 = 1_000_000_000;

const PARAMETERS: &[Parameter] = &[
    value("bandwidth", "RATE", "-", "bits per second of each target, its headers included"),
    value("burst", "SIZE", "0B", "how much may go at once after a silence"),
    value("limit", "DURATION", "1s", "how long packets may wait; those that would wait longer are lost"),
];

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "rate",
    summary: "packets go over a slower wire",
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
    command: "kchaos inject rate --bandwidth 10mbit --on docker:web --for 30s",
    yaml: "- rate:\n    bandwidth: 10mbit\n    burst: 32kB\n    limit: 200ms\n",
};

/// A wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How fast it is.
    pub bits_per_s: u64,
    /// How much may go at once after a silence.
    pub burst_bytes: u64,
    /// How long packets may wait.
    pub limit: Duration,
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let BitRate(bits_per_s) = given.required("bandwidth", "10mbit", str::parse)?;
    let rate = Rate {
        bits_per_s,
        burst_bytes: given.optional("burst", str::parse::<Bytes>)?.map_or(0, |bytes| bytes.0),
        limit: given.optional("limit", parse_hold)?.unwrap_or(LIMIT),
    };
    let frame = Duration::from_nanos(rate.takes_ns(FRAME_BYTES));
    if frame > rate.limit {
        let why = BadValue::new(
            format!(
                "a frame of {FRAME_BYTES} bytes takes {} at {}, so it would always be lost",
                show_duration(Duration::from_millis(frame.as_millis() as u64)),
                BitRate(bits_per_s)
            ),
            "make it longer, or the bandwidth higher",
        );
        return Err(FieldError::new("limit", why));
    }
    NetFault::build(NetEffect::Rate(rate), given, Some(Pattern::ALL)).map(Fault::Net)
}

impl Rate {
    fn takes_ns(&self, bytes: u64) -> u64 {
        let ns = u128::from(bytes) * 8 * SECOND_NS / u128::from(self.bits_per_s);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// As the kernel half takes it.
    pub fn shape(&self) -> Shape {
        Shape {
            kind: kind::RATE,
            bits_per_s: self.bits_per_s,
            burst_ns: self.takes_ns(self.burst_bytes),
            limit_ns: ns(self.limit),
            ..Shape::NONE
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BitRate(self.bits_per_s).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(values: &[(&'static str, &str)]) -> Given {
        values.iter().fold(Given::new(&ENTRY), |given, (name, value)| given.with(name, value))
    }

    fn rate(values: &[(&'static str, &str)]) -> Rate {
        match build(&given(values)).unwrap() {
            Fault::Net(NetFault { effect: NetEffect::Rate(rate), .. }) => rate,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bandwidth_alone_has_a_queue_of_a_second() {
        let wire = rate(&[("bandwidth", "10mbit")]);
        assert_eq!(wire, Rate { bits_per_s: 10_000_000, burst_bytes: 0, limit: LIMIT });
        let Fault::Net(fault) = build(&given(&[("bandwidth", "10mbit")])).unwrap() else {
            panic!("a network fault")
        };
        assert_eq!(fault.to_string(), "rate 10mbit 100% egress");
    }

    #[test]
    fn a_burst_becomes_time_on_the_wire() {
        let shape = rate(&[("bandwidth", "8mbit"), ("burst", "32kB"), ("limit", "200ms")]).shape();
        assert_eq!((shape.burst_ns, shape.limit_ns), (32_000_000, 200_000_000));
        let slow = rate(&[("bandwidth", "2kbit"), ("burst", "1GB"), ("limit", "9s")]).shape();
        assert_eq!(slow.burst_ns, 4_000_000_000_000_000, "of 46 days, which is years less than u64 holds");
    }

    #[test]
    fn refusals_name_the_field() {
        for (values, part) in [
            (&[][..], "bandwidth: this is missing"),
            (&[("bandwidth", "10")], "bandwidth: `10` has no unit"),
            (&[("bandwidth", "1mbit"), ("burst", "1500")], "burst: `1500` has no unit"),
            (&[("bandwidth", "1mbit"), ("limit", "10s")], "limit: `10s` is longer than"),
            (&[("bandwidth", "8kbit")], "limit: a frame of 1514 bytes takes 1s514ms at 8kbit"),
        ] {
            let message = build(&given(values)).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
