//! What there is to choose from: every fault and its parameters, once, for `kchaos faults`, for suggestions
//! and for the tests that hold the documentation to it.

use crate::units;

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct FaultEntry {
    /// As users write it.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What can be said about it.
    pub parameters: &'static [Parameter],
    /// On the command line.
    pub command: &'static str,
    /// In a spec: an entry of `faults`.
    pub yaml: &'static str,
}

/// One parameter of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// As specs have it; the option of the command line has `-` for `_`.
    pub name: &'static str,
    /// How its value is written.
    pub syntax: &'static str,
    /// What holds when it is left out.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// One line of the table that `kchaos faults` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The fault.
    pub fault: &'static str,
    /// One of its parameters.
    pub parameter: Parameter,
}

/// All faults.
pub static CATALOGUE: &[FaultEntry] = &[LOSS];

const LOSS: FaultEntry = FaultEntry {
    name: "loss",
    summary: "packets disappear on the way; neither end is told",
    parameters: &[
        parameter("percent", "PERCENT", "-", "share of packets lost in the long run; a model of loss"),
        parameter(
            "correlation",
            "PERCENT",
            "0%",
            "with percent: how much a loss makes the next one likelier (bursts)",
        ),
        parameter("gemodel", "P[,R[,1-H[,1-K]]]", "-", "Gilbert–Elliott, as in tc-netem(8); a model of loss"),
        parameter(
            "state",
            "P13[,P31[,P32[,P23[,P14]]]]",
            "-",
            "four-state chain, as in tc-netem(8); a model of loss",
        ),
        parameter("every", "N", "-", "each N-th packet, the N-th first; a model of loss"),
        parameter("direction", "egress|ingress|both", "egress", "which way, seen from the target"),
        parameter("protocol", "tcp|udp|icmp", "any", "only this protocol (icmp is ICMPv6 too)"),
        parameter("peers", "ADDRESS|CIDR, …", "any", "only packets to or from these peers"),
        parameter("ports", "PORT|FIRST-LAST, …", "any", "only these ports of the peer"),
        parameter("local_ports", "PORT|FIRST-LAST, …", "any", "only these ports of the target itself"),
        parameter(
            "allow",
            "ADDRESS|CIDR|:PORTS|ADDRESS:PORTS, …",
            "-",
            "never these, whatever the rest says; a port is either end's",
        ),
        parameter(
            "when",
            "FIRST[..LAST][+STEP]",
            "1+",
            "only these matching packets, counted from 1 for each target",
        ),
        parameter("max", "N", "no limit", "most packets lost, altogether"),
        parameter("rate", "N/s", "no limit", "most packets lost in a second, altogether"),
        parameter("seed", "N", "fresh randomness", "same packets in the same order, same losses"),
    ],
    command: "kchaos inject loss --percent 5 --on docker:web --for 30s",
    yaml: "- loss:\n    percent: 5%\n    protocol: tcp\n    ports: [80, 8000-8100]\n",
};

const fn parameter(
    name: &'static str,
    syntax: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Parameter {
    Parameter { name, syntax, default, meaning }
}

/// The fault of that name.
pub fn find(name: &str) -> Option<&'static FaultEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// The names of all faults.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    CATALOGUE.iter().map(|entry| entry.name)
}

/// Advice for a name that is no fault's.
pub fn did_you_mean(name: &str) -> String {
    units::did_you_mean(name, names())
}

/// All parameters of all faults, in order.
pub fn rows() -> Vec<Row> {
    CATALOGUE
        .iter()
        .flat_map(|entry| {
            entry.parameters.iter().map(|parameter| Row { fault: entry.name, parameter: *parameter })
        })
        .collect()
}

impl FaultEntry {
    /// The names of its parameters.
    pub fn parameter_names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.parameters.iter().map(|parameter| parameter.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = rows().iter().map(|row| (row.fault, row.parameter.name)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn found_by_name_or_suggested() {
        assert!(find("loss").is_some() && find("los").is_none());
        assert_eq!(did_you_mean("los"), "did you mean `loss`?");
        assert!(did_you_mean("meteor").contains("`loss`"));
    }
}
