//! What watched over the run, and what it saw.

use serde::Serialize;

use super::number;
use crate::experiment::{
    preflight::Finding,
    watch::{BadAnswer, GuardRecord, InvariantRecord},
};

/// What watched over the run. In JSON, what was not asked for is not there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Watched {
    /// What was looked at before anything was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preflight: Vec<Finding>,
    /// What would have ended the run early, or has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardRecord>,
    /// What must hold after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invariants: Vec<InvariantRecord>,
    /// What probes heard that was no good answer: the last of each target's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<BadAnswer>,
}

impl Watched {
    /// For people: a label and a text each. Of what was looked at before, what was not fine; refusals are the verdict.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let doubts = self.preflight.iter().filter(|finding| !finding.ok && !finding.refuses);
        let doubts = doubts.map(|finding| ("preflight", format!("{}: {}", finding.check, finding.detail)));
        let guards = self.guards.iter().map(|guard| ("guard", guarded(guard)));
        let invariants = self.invariants.iter().map(|invariant| ("invariant", held(invariant)));
        let probes = self.probes.iter().map(|bad| ("probe", heard(bad)));
        doubts.chain(guards).chain(invariants).chain(probes).collect()
    }
}

/// `get of docker:web, in the experiment group: the last bad answer was "status 503"`.
fn heard(bad: &BadAnswer) -> String {
    let BadAnswer { id, target, group, why } = bad;
    format!("{id} of {target}, in the {group} group: the last bad answer was \"{why}\"")
}

/// `net.rx_bytes harm -30%: quiet, e-value 0.4 of 200 at most`.
fn guarded(guard: &GuardRecord) -> String {
    let saw = match (&guard.reason, guard.fired) {
        (Some(reason), _) => return format!("{}: did not watch, {reason}", guard.id),
        (None, true) => "fired",
        (None, false) => "quiet",
    };
    match (guard.e_value_max, guard.threshold) {
        (Some(e), Some(threshold)) => {
            format!("{}: {saw}, e-value {} of {threshold:.0} at most", guard.id, e_value(e))
        }
        _ => format!("{}: {saw}", guard.id),
    }
}

/// Nobody needs more digits of what can be any number.
fn e_value(e: f64) -> String {
    if e < 10_000.0 { format!("{e:.1}") } else { format!("{e:.0e}") }
}

/// `no-lost-write: holds (1 s)`.
fn held(invariant: &InvariantRecord) -> String {
    let took = number::seconds(invariant.seconds);
    match invariant.ok {
        true => format!("{}: holds ({took})", invariant.id),
        false => format!("{}: broken, {} ({took})", invariant.id, invariant.detail.replace('\n', " / ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::preflight::Looked;

    fn guard(fired: bool, e_value_max: Option<f64>, reason: Option<&str>) -> GuardRecord {
        GuardRecord {
            id: "net.rx_bytes harm -30%".into(),
            metric: Some("net.rx_bytes".into()),
            e_value_max,
            threshold: e_value_max.map(|_| 200.0),
            fired,
            reason: reason.map(str::to_owned),
        }
    }

    #[test]
    fn each_is_a_line() {
        let finding = |ok, refuses| Finding { check: Looked::Power, ok, refuses, detail: "few".into() };
        let invariant = |ok, detail: &str| InvariantRecord {
            id: "no-lost-write".into(),
            ok,
            detail: detail.into(),
            seconds: 2.0,
        };
        let watched = Watched {
            preflight: vec![finding(true, false), finding(false, false), finding(false, true)],
            guards: vec![
                guard(false, Some(0.44), None),
                guard(true, Some(1.23e9), None),
                guard(false, None, Some("the baseline is short")),
                guard(true, None, None),
            ],
            invariants: vec![invariant(true, "exit code 0"), invariant(false, "exit code 3: lost\n3 writes")],
            probes: vec![BadAnswer {
                id: "get".into(),
                target: "docker:web".into(),
                group: "experiment".into(),
                why: "status 503".into(),
            }],
        };
        let lines = watched.lines();
        let text: Vec<_> = lines.iter().map(|(label, text)| format!("{label} {text}")).collect();
        assert_eq!(
            text,
            [
                "preflight power: few",
                "guard net.rx_bytes harm -30%: quiet, e-value 0.4 of 200 at most",
                "guard net.rx_bytes harm -30%: fired, e-value 1e9 of 200 at most",
                "guard net.rx_bytes harm -30%: did not watch, the baseline is short",
                "guard net.rx_bytes harm -30%: fired",
                "invariant no-lost-write: holds (2 s)",
                "invariant no-lost-write: broken, exit code 3: lost / 3 writes (2 s)",
                "probe get of docker:web, in the experiment group: the last bad answer was \"status 503\"",
            ]
        );
        assert_eq!(serde_json::to_string(&Watched::default()).unwrap(), "{}");
    }
}
