//! What `kchaos doctor --json` found on a kernel, against what the kernel must have.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::results::{Outcome, Results};

/// What doctor found.
#[derive(Debug)]
pub(super) struct Diagnosis {
    report: Value,
}

impl Diagnosis {
    /// Reads its output; what is printed before and after the report does not matter.
    pub(super) fn read(output: &str) -> Result<Self> {
        let report =
            output.find('{').zip(output.rfind('}')).and_then(|(first, last)| output.get(first..=last));
        let report = report.context("kchaos doctor printed no report")?;
        Ok(Self { report: serde_json::from_str(report).context("the report of kchaos doctor")? })
    }

    /// As text.
    pub(super) fn json(&self) -> String {
        format!("{:#}\n", self.report)
    }

    /// The report itself.
    pub(super) fn report(&self) -> &Value {
        &self.report
    }

    /// The report itself.
    pub(super) fn into_report(self) -> Value {
        self.report
    }

    /// Those of these that it did not find, and why.
    pub(super) fn lacking(&self, must_have: &[&str]) -> Vec<String> {
        must_have.iter().filter_map(|name| Some(format!("{name}: {}", self.missing_because(name)?))).collect()
    }

    /// Names of those it did not find.
    pub(super) fn missing(&self) -> Vec<&str> {
        let missing = self.probed().filter(|probed| !probed["missing_because"].is_null());
        missing.filter_map(|probed| probed["capability"].as_str()).collect()
    }

    /// Tests that were skipped for want of something that it did find.
    pub(super) fn contradicted(&self, results: &Results) -> Vec<String> {
        let found = self.probed().filter(|probed| probed["missing_because"].is_null());
        let names: Vec<&str> = found.filter_map(|probed| probed["name"].as_str()).collect();
        let skipped = results.iter().filter_map(|(test, outcome)| match outcome {
            Outcome::Skipped(reason) => Some((test, reason.strip_prefix("needs ")?.split_once(": ")?)),
            _ => None,
        });
        let contradicted = skipped.filter(|(_, (name, _))| names.contains(name));
        contradicted
            .map(|(test, (name, why))| format!("{test} was skipped for {name}, which is there: {why}"))
            .collect()
    }

    fn missing_because(&self, name: &str) -> Option<String> {
        match self.probed().find(|probed| probed["capability"] == name) {
            None => Some("kchaos doctor does not know it".to_owned()),
            Some(probed) => probed["missing_because"].as_str().map(str::to_owned),
        }
    }

    fn probed(&self) -> impl Iterator<Item = &Value> {
        self.report["probed"].as_array().into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"warning: something
        {"schema": "kchaos-doctor/1", "kernel": "6.1.0-56-amd64", "probed": [
            {"capability": "btf", "name": "btf", "missing_because": null},
            {"capability": "tcx", "name": "tcx", "missing_because": "Invalid argument"}]}
        "#;

    #[test]
    fn says_what_a_kernel_lacks_though_it_must_have_it() {
        let diagnosis = Diagnosis::read(REPORT).unwrap();
        assert_eq!(diagnosis.missing(), ["tcx"]);
        assert!(diagnosis.lacking(&["btf"]).is_empty());
        assert_eq!(
            diagnosis.lacking(&["btf", "tcx", "lsm"]),
            ["tcx: Invalid argument", "lsm: kchaos doctor does not know it"]
        );
    }

    #[test]
    fn a_test_must_not_be_skipped_for_what_is_there() {
        let said = "skipped a: needs btf: it never runs\ntest a ... ignored\n\
            skipped b: needs tcx: Invalid argument\ntest b ... ignored\n";
        assert_eq!(
            Diagnosis::read(REPORT).unwrap().contradicted(&Results::of(said)),
            ["a was skipped for btf, which is there: it never runs"]
        );
    }

    #[test]
    fn no_report_is_an_error() {
        assert!(Diagnosis::read("error: not root").is_err());
        assert!(Diagnosis::read("{ broken }").is_err());
    }
}
