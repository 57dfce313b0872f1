//! The folders are the layers: who may import what, and what must stay pure.

use super::{
    File, Finding, Tree,
    source::{code, has_word, imports},
};

/// Crates that only one layer of chaos-user may name.
const OWNED: [(&str, &[&str]); 8] = [
    ("aya", &["chaos-user/src/kernel/", "chaos-user/src/kernel.rs"]),
    ("aya_log", &["chaos-user/src/kernel/", "chaos-user/src/kernel.rs"]),
    ("aya_obj", &["chaos-user/src/kernel/", "chaos-user/src/kernel.rs"]),
    ("clap", &["chaos-user/src/cli/", "chaos-user/src/cli.rs", "chaos-user/src/main.rs"]),
    ("hyper", &["chaos-user/src/probe/"]),
    ("hyper_util", &["chaos-user/src/probe/"]),
    ("http_body_util", &["chaos-user/src/probe/"]),
    ("kube", &["chaos-user/src/agent/", "chaos-user/src/agent.rs"]),
];

/// Layers without effects.
const PURE: [&str; 6] = [
    "chaos-user/src/fault/",
    "chaos-user/src/judge/",
    "chaos-user/src/steady/rates.rs",
    "chaos-user/src/steady/probe.rs",
    "chaos-user/src/probe/exposition.rs",
    "chaos-user/src/import/",
];

/// Modules and types of the standard library that have effects. Addresses (`std::net::IpAddr`) have none.
const EFFECTS: [&str; 6] = ["fs", "process", "TcpStream", "TcpListener", "UdpSocket", "UnixStream"];

const EFFECTFUL_CRATES: [&str; 3] = ["tokio", "nix", "libc"];

const PRINTING: [&str; 4] = ["println", "eprintln", "print", "eprint"];

/// Names that say nothing.
const VAGUE: [&str; 6] = ["manager", "handler", "helper", "helpers", "util", "utils"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = owned_crates(tree);
    findings.extend(purity(tree));
    findings.extend(module_names(tree));
    findings
}

fn owned_crates(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| file.path.starts_with("chaos-user/src/")) {
        let foreign =
            OWNED.iter().filter(|(_, owners)| !owners.iter().any(|owner| file.path.starts_with(owner)));
        for (krate, owners) in foreign {
            // Unit tests included: a layer's tests see no more than the layer.
            let lines =
                file.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
            for (i, _) in lines.filter(|(_, line)| names_crate(line, krate)) {
                let advice = format!("only {} may name {krate}; move this there", owners[0]);
                findings.push(file.finding(i + 1, "layers", advice));
            }
        }
    }
    findings
}

fn names_crate(line: &str, krate: &str) -> bool {
    let import = line.trim_start();
    let whole = ["use ", "pub use ", "extern crate "].iter().find_map(|keyword| import.strip_prefix(keyword));
    // `kernel::aya::…` would be a module of ours.
    let path = has_word(line, krate, "::") && !line.contains(&format!("::{krate}::"));
    path || whole.is_some_and(|rest| has_word(rest, krate, ";") || has_word(rest, krate, "as "))
}

fn purity(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tests = tree.test_files();
    let pure =
        |file: &&File| PURE.iter().any(|layer| file.path.starts_with(layer)) && !tests.contains(&file.path);
    for file in tree.rust().filter(pure) {
        let mut effect = |line, what: &str| {
            let advice = format!("{what} is an effect, and this layer has none; let the caller do it");
            findings.push(file.finding(line, "pure", advice));
        };
        for (line, import) in imports(&file.text).iter().filter(|(_, import)| has_word(import, "std", "::")) {
            EFFECTS.iter().filter(|name| has_word(import, name, "")).for_each(|name| effect(*line, name));
        }
        for (number, line) in code(&file.text) {
            let is_import = line.trim_start().starts_with("use ");
            let paths = EFFECTS.iter().filter(|name| !is_import && line.contains(&format!("std::{name}::")));
            paths.for_each(|name| effect(number, name));
            EFFECTFUL_CRATES
                .iter()
                .filter(|name| names_crate(line, name))
                .for_each(|name| effect(number, name));
            PRINTING.iter().filter(|name| has_word(line, name, "!")).for_each(|name| effect(number, name));
        }
    }
    findings
}

fn module_names(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let path = file.path.trim_end_matches(".rs");
        if let Some(name) = path.split('/').find(|name| VAGUE.contains(name)) {
            findings.push(file.finding(0, "names", format!("`{name}` says nothing; name what it does")));
        }
        for (number, line) in code(&file.text) {
            let inline = VAGUE.iter().find(|name| has_word(line, "mod", name) && has_word(line, name, "{"));
            if let Some(name) = inline {
                findings.push(file.finding(
                    number,
                    "names",
                    format!("`{name}` says nothing; name what it does"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{places, tree};

    #[test]
    fn crates_belong_to_layers() {
        let tree = tree(&[
            ("chaos-user/src/kernel/probe.rs", "use aya::Ebpf;\n"),
            ("chaos-user/src/cli/run.rs", "use clap::Args;\n"),
            ("chaos-user/src/main.rs", "use clap::Parser;\n"),
            ("tests/tests/net.rs", "use aya::Ebpf;\n"),
            ("chaos-user/src/judge/mod.rs", "//! Not aya::x.\nuse aya::Ebpf;\n#[derive(clap::Args)]\n"),
            ("chaos-user/src/target/mod.rs", "fn f() -> kube::Client {}\nuse aya_log as log;\nuse kube;\n"),
        ]);
        assert_eq!(
            places(&owned_crates(&tree)),
            [
                "chaos-user/src/judge/mod.rs:2",
                "chaos-user/src/judge/mod.rs:3",
                "chaos-user/src/target/mod.rs:2",
                "chaos-user/src/target/mod.rs:1",
                "chaos-user/src/target/mod.rs:3",
            ]
        );
    }

    #[test]
    fn pure_layers_have_no_effects() {
        let impure = "use std::{\n    fs,\n    net::IpAddr,\n};\nfn f() {\n    println!(\"\");\n    std::process::exit(1);\n\
            \x20   tokio::spawn(x);\n}\n";
        let pure = "use std::net::IpAddr;\nmod process;\nuse super::process::Kill;\nfn f() { format!(\"fs::x\") }\n\
            #[cfg(test)]\nmod tests {\n    fn f() { println!(\"\") }\n}\n";
        let tree = tree(&[
            ("chaos-user/src/fault/plan.rs", impure),
            ("chaos-user/src/judge/hold.rs", pure),
            ("chaos-user/src/judge/mod.rs", "#[cfg(test)]\nmod simulation;\n"),
            ("chaos-user/src/judge/simulation.rs", impure),
            ("chaos-user/src/steady/cgroupfs.rs", impure),
        ]);
        let file = "chaos-user/src/fault/plan.rs";
        let expected = [1, 6, 7, 8].map(|line| format!("{file}:{line}"));
        assert_eq!(places(&purity(&tree)), expected);
    }

    #[test]
    fn vague_names_are_found() {
        let tree = tree(&[
            ("chaos-user/src/kernel/manager.rs", ""),
            ("xtask/src/utils/mod.rs", ""),
            ("tests/src/lib.rs", "mod helper {\n}\nmod helpers_of_docker {\n}\n"),
        ]);
        assert_eq!(
            places(&module_names(&tree)),
            ["chaos-user/src/kernel/manager.rs:0", "xtask/src/utils/mod.rs:0", "tests/src/lib.rs:1"]
        );
    }
}
