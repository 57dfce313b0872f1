//! The spec, as text: its comments are half of what it says.

use std::fmt::Write;

use super::{on_one_line, probe::Probe, slug};
use crate::units::show_duration;

const MAX_NAME_BYTES: usize = 63;

pub(super) fn spec(title: &str, hypothesis: &str, probes: &[Probe], left_out: &[String]) -> String {
    let name: String = slug(title).chars().take(MAX_NAME_BYTES).collect();
    let name = name.trim_end_matches('-');
    let mut spec = format!(
        "# From an experiment of Chaos Toolkit. Complete the lines that begin with `#:`, and uncomment them.\n\
         version: 1\nname: {}\n",
        if name.is_empty() { "imported" } else { name }
    );
    let hypothesis = on_one_line(hypothesis);
    if !hypothesis.trim().is_empty() {
        let _ = writeln!(spec, "hypothesis: {}", quoted(hypothesis.trim()));
    }
    spec.push_str(
        "\n# Chaos Toolkit compares a system with itself, before and after. kchaos compares two that do the same work;\n\
         # nothing is done to the control group.\n\
         #: groups: { control: docker:web-a, experiment: docker:web-b }\n\nsteady_state:\n",
    );
    steady_state(&mut spec, probes);
    spec.push_str(
        "\n# What should go wrong (`kchaos faults` has the list).\n#: faults: [{ loss: { percent: 5% } }]\n",
    );
    if !left_out.is_empty() {
        spec.push_str("\n# Left out:\n");
        for line in left_out {
            let _ = writeln!(spec, "# - {line}");
        }
    }
    spec
}

fn steady_state(spec: &mut String, probes: &[Probe]) {
    spec.push_str("  probes:            # asked 10 times a second, of every target\n");
    probes.iter().for_each(|probe| one(spec, probe));
    spec.push_str("  checks:            # must hold for both groups before anything is done\n");
    for Probe { id, .. } in probes {
        let _ = writeln!(spec, "    - {{ metric: {id}.error_ratio, above: 1% }}");
    }
    spec.push_str(
        "  gates:             # experiment against control; these margins are kchaos's, and yours to set\n",
    );
    for Probe { id, .. } in probes {
        let _ = writeln!(spec, "    - {{ metric: {id}.error_ratio, increase: 1pp }}");
    }
}

/// One probe in a spec that has nothing else of note, to see whether it can be read.
pub(super) fn alone(probe: &Probe) -> String {
    let mut spec = "version: 1\nname: alone\ngroups: { control: docker:a, experiment: docker:b }\n\
                    faults: [{ loss: { percent: 5 } }]\nsteady_state:\n  \
                    gates: [{ metric: syscalls, within: 10% }]\n  probes:\n"
        .to_owned();
    one(&mut spec, probe);
    spec
}

fn one(spec: &mut String, probe: &Probe) {
    let _ = writeln!(spec, "    # was {}", probe.asked);
    let _ = writeln!(spec, "    - id: {}\n      http: {}", probe.id, quoted(&probe.url));
    if let Some(timeout) = probe.timeout {
        let _ = writeln!(spec, "      timeout: {}", show_duration(timeout));
    }
    if let Some(method) = &probe.method {
        let _ = writeln!(spec, "      method: {method}");
    }
    let statuses: Vec<_> = probe.status.iter().map(|status| quoted(status)).collect();
    let _ = writeln!(spec, "      status: [{}]", statuses.join(", "));
    if let Some(text) = &probe.body_has {
        let _ = writeln!(spec, "      body_has: {}", quoted(text));
    }
    if !probe.headers.is_empty() {
        spec.push_str("      headers:\n");
        for (name, value) in &probe.headers {
            let _ = writeln!(spec, "        {}: {}", quoted(name), quoted(value));
        }
    }
}

/// A text of JSON is one of YAML, but for what YAML does not print.
fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
            format!("\\u{:04x}", u32::from(c))
        }
        plain => plain.to_string(),
    };
    serde_json::Value::from(text).to_string().chars().map(escaped).collect()
}
