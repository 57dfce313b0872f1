//! What users are told about specs that are wrong, all of it in one snapshot, and that the examples are right.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use kchaos::{
    experiment::parse::{MAX_SPEC_BYTES, parse},
    fault::catalogue::{self, CATALOGUE, Parameter},
};

/// The YAML files of a folder, sorted by name.
fn specs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths
}

#[test]
fn every_bad_spec_is_told_where_what_and_what_would_be_right() {
    let mut messages = String::new();
    for path in specs("tests/specs/bad") {
        let name = path.file_stem().unwrap().to_string_lossy();
        match parse(&fs::read_to_string(&path).unwrap()) {
            Ok(_) => panic!("{name} was accepted"),
            Err(error) => writeln!(messages, "{name}\n    {error}").unwrap(),
        }
    }
    insta::assert_snapshot!("bad_specs", messages);
}

#[test]
fn every_example_is_right() {
    let examples = specs("../examples");
    assert!(!examples.is_empty());
    for path in examples {
        if let Err(error) = parse(&fs::read_to_string(&path).unwrap()) {
            panic!("{}: {error}", path.display());
        }
    }
}

/// A whole spec around one entry of `faults`.
fn around(fault: &str) -> String {
    let fault: String = fault.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "version: 1\nname: test\ngroups: {{ control: docker:a, experiment: docker:b }}\n\
         steady_state: {{ gates: [{{ metric: syscalls, within: 10% }}] }}\nfaults:\n{fault}"
    )
}

#[test]
fn the_catalogues_own_examples_are_right() {
    for entry in CATALOGUE {
        parse(&around(entry.yaml)).unwrap_or_else(|error| panic!("{}: {error}", entry.name));
    }
}

/// The catalogue and the fields that specs may have are written down separately, so they are compared.
#[test]
fn the_catalogue_lists_the_fields_that_specs_have() {
    for entry in CATALOGUE {
        let error = parse(&around(&format!("- {}: {{ zzzzzz: 1 }}", entry.name))).unwrap_err();
        let known: Vec<_> = entry.parameter_names().map(|name| format!("`{name}`")).collect();
        assert_eq!(error.problem.right, format!("known: {}", known.join(", ")));
    }
    assert!(
        parse(&around("- zzzzzz: {}")).unwrap_err().to_string().contains(&catalogue::did_you_mean("zzzzzz"))
    );
}

/// A parameter has a row in a table of the fault's page, or, where it is one that faults have in common, of the page
/// about those, which the fault's page then names.
#[test]
fn every_fault_has_an_example_and_documents_every_parameter() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = |name: &str| fs::read_to_string(root.join(format!("docs/faults/{name}.md"))).unwrap();
    let documents = |page: &str, parameter: &Parameter| page.contains(&format!("| `{}` |", parameter.name));
    let common = page("common");
    for entry in CATALOGUE {
        assert!(root.join(format!("examples/{}.yaml", entry.name)).exists(), "examples/{}.yaml", entry.name);
        let own = page(entry.name);
        assert!(own.contains(entry.command), "{}", entry.command);
        for parameter in entry.parameters() {
            let elsewhere =
                parameter.is_common() && own.contains("](common.md)") && documents(&common, parameter);
            assert!(elsewhere || documents(&own, parameter), "{}: {}", entry.name, parameter.name);
        }
    }
}

#[test]
fn a_spec_too_large_is_refused_unread() {
    let error = parse(&"#".repeat(MAX_SPEC_BYTES + 1)).unwrap_err();
    assert!(error.to_string().starts_with("spec: 1048577 bytes"), "{error}");
}
