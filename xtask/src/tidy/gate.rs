//! Every kernel program that can inject asks the gate before anything else happens.

use super::{
    File, Finding, Tree,
    source::{Function, functions, has_word},
};

/// They only count, do nothing, or touch nobody but the probe's own processes.
const EXEMPT: [&str; 3] = ["chaos-ebpf/src/steady/", "chaos-ebpf/src/bench.rs", "chaos-ebpf/src/probe.rs"];

/// Attributes that make a function a program (aya-ebpf-macros).
const PROGRAMS: [&str; 17] = [
    "btf_tracepoint",
    "cgroup_device",
    "cgroup_skb",
    "cgroup_sock",
    "cgroup_sock_addr",
    "cgroup_sockopt",
    "cgroup_sysctl",
    "classifier",
    "fentry",
    "fexit",
    "kprobe",
    "kretprobe",
    "lsm",
    "lsm_cgroup",
    "raw_tracepoint",
    "tracepoint",
    "xdp",
];

/// What changes something.
const EFFECTS: [&str; 13] = [
    "bpf_redirect",
    "bpf_clone_redirect",
    "bpf_skb_set_tstamp",
    "bpf_skb_adjust_room",
    "bpf_override_return",
    "bpf_send_signal",
    "bpf_set_retval",
    "bpf_skb_change_tail",
    "bpf_skb_store_bytes",
    ".store(",
    ".store_at(",
    ".set_retval(",
    ".set_priority(",
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let exempt = |file: &&File| EXEMPT.iter().any(|path| file.path.starts_with(path));
    let files = tree.under("chaos-ebpf/src/").filter(|file| !exempt(file));
    files.flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let functions = functions(&file.text);
    let programs = functions.iter().filter(|function| is_program(function));
    let ungated = programs.filter(|program| !asks_first(program, &functions));
    let advice = |program: &Function| {
        format!("program `{}` must call `gate(` before it changes anything", program.name)
    };
    ungated.map(|program| file.finding(program.line, "gate", advice(program))).collect()
}

fn is_program(function: &Function) -> bool {
    function
        .attributes
        .iter()
        .any(|attribute| PROGRAMS.iter().any(|program| has_word(attribute, program, "")))
}

/// Whether a function asks the gate, itself or through one that it calls, before it has any effect.
fn asks_first(function: &Function, all: &[Function]) -> bool {
    let Some((_, body)) = function.body.split_once('{') else { return false };
    let gate = position(body, |line| {
        let asks = |name| has_word(line, name, "(");
        // net/shape.rs: `departure` asks it about every rule.
        let asks_each = || asks("departure") || has_word(line, "gate", "::");
        asks("gate") || asks("gate_with") || asks("gate_for") || asks_each() || {
            let mut called = all.iter().filter(|other| other.name != function.name && !is_program(other));
            called.any(|other| has_word(line, other.name, "(") && asks_first(other, all))
        }
    });
    let effect = position(body, |line| EFFECTS.iter().any(|effect| line.contains(effect)));
    gate.is_some_and(|gate| effect.is_none_or(|effect| gate <= effect))
}

fn position(body: &str, is_it: impl Fn(&str) -> bool) -> Option<usize> {
    body.lines().position(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{places, tree};

    #[test]
    fn programs_ask_first() {
        let good = "#[classifier]\npub fn a(ctx: X) -> i32 {\n    match gate(skb) {\n        None => 0,\n        Some(_) => bpf_redirect(1),\n    }\n}\n\
            #[kprobe]\npub fn b(ctx: X) -> u32 {\n    fail(ctx)\n}\n\
            fn fail(ctx: X) -> u32 {\n    let Some(r) = gate::any(1) else { return 0 };\n    bpf_override_return(r)\n}\n";
        let bad = "#[cgroup_skb(egress)]\npub fn never(ctx: X) -> i32 {\n    0\n}\n\
            #[lsm(hook = \"file_open\")]\npub fn late(ctx: X) -> i32 {\n    bpf_set_retval(1);\n    gate(ctx)\n}\n\
            fn not_a_program() {}\n";
        let tree = tree(&[
            ("chaos-ebpf/src/net/loss.rs", good),
            ("chaos-ebpf/src/syscall.rs", bad),
            ("chaos-ebpf/src/steady/tcp.rs", bad),
        ]);
        assert_eq!(places(&check(&tree)), ["chaos-ebpf/src/syscall.rs:2", "chaos-ebpf/src/syscall.rs:6"]);
    }
}
