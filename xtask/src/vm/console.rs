//! What guests say: the kernel on the first serial port, our scripts on the second.

use std::{fs, path::Path};

/// Signs of a kernel in trouble, each with what it is. None of them comes from a program that only failed.
const SIGNS: [(&str, &str); 10] = [
    ("Kernel panic", "panic"),
    ("soft lockup", "soft lockup"),
    ("hard LOCKUP", "hard lockup"),
    ("BUG: ", "BUG"),
    ("kernel BUG at", "BUG"),
    ("Oops: ", "oops"),
    ("general protection fault", "oops"),
    ("detected stall", "RCU stall"),
    ("detected expedited stall", "RCU stall"),
    ("blocked for more than", "hung task"),
];

/// What was said so far.
pub(super) fn read(console: &Path) -> String {
    String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned()
}

/// The first sign of trouble on the kernel's console.
pub(super) fn trouble(console: &str) -> Option<String> {
    console.lines().find_map(|line| Some(format!("{}: {}", sign(line)?, line.trim())))
}

/// So many lines from the first sign of trouble on, or the last ones if there is none.
pub(super) fn excerpt(console: &str, count: usize) -> String {
    let lines: Vec<_> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let first = lines.iter().position(|line| sign(line).is_some());
    let first = first.unwrap_or(lines.len().saturating_sub(count));
    lines.into_iter().skip(first).take(count).collect::<Vec<_>>().join("\n")
}

fn sign(line: &str) -> Option<&'static str> {
    SIGNS.iter().find(|(sign, _)| line.contains(sign)).map(|(_, what)| *what)
}

/// A line of the second serial port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// The guest has started; this is its kernel's release.
    Ready(&'a str),
    /// A step begins.
    Begin(&'a str),
    /// A step has ended with this code.
    End(&'a str, i32),
    /// The guest could not start.
    Failed(&'a str),
    /// The guest switches off.
    Off,
    /// Output of a step.
    Output(&'a str),
}

impl<'a> Said<'a> {
    /// Reads a line.
    pub(super) fn read(line: &'a str) -> Self {
        let Some(ours) = line.strip_prefix("kchaos-vm: ") else { return Self::Output(line) };
        let (verb, rest) = ours.split_once(' ').unwrap_or((ours, ""));
        let end = || {
            let (step, code) = rest.rsplit_once(' ')?;
            Some(Self::End(step, code.parse().ok()?))
        };
        match verb {
            "ready" => Self::Ready(rest),
            "begin" => Self::Begin(rest),
            "end" => end().unwrap_or(Self::Output(line)),
            "failed:" => Self::Failed(rest),
            "off" => Self::Off,
            _ => Self::Output(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_kernels_in_trouble() {
        for (line, expected) in [
            ("[   12.3] Kernel panic - not syncing: Attempted to kill init!", "panic"),
            ("[   88.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [kchaos:77]", "soft lockup"),
            ("[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000008", "BUG"),
            ("[    1.0] Oops: 0002 [#1] PREEMPT SMP NOPTI", "oops"),
            ("[   70.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "RCU stall"),
            ("[   70.1] rcu: INFO: rcu_sched self-detected stall on CPU", "RCU stall"),
            ("[  242.1] INFO: task kchaos:812 blocked for more than 120 seconds.", "hung task"),
        ] {
            let console = format!("[    0.0] Linux version 6.1\n{line}\n");
            let found = trouble(&console).unwrap_or_else(|| panic!("{line}"));
            assert!(found.starts_with(&format!("{expected}: ")), "{found}");
        }
    }

    #[test]
    fn other_messages_are_no_trouble() {
        let console = "[    5.1] Memory cgroup out of memory: Killed process 91 (victim)\n\
            [    6.0] kchaos[92]: segfault at 0 ip 0 sp 0 error 4\n\
            [    7.0] reboot: Power down\n[ 8.0] watchdog: Delayed init\n";
        assert_eq!(trouble(console), None);
    }

    #[test]
    fn shows_where_trouble_began_or_the_end() {
        let console = "a\r\n\nOops: int3: 0000\nCPU: 0\nRIP: f\n";
        assert_eq!(excerpt(console, 2), "Oops: int3: 0000\nCPU: 0");
        assert_eq!(excerpt("a\r\n\nb\nc\n", 2), "b\nc");
        assert_eq!(excerpt("", 2), "");
    }

    #[test]
    fn reads_what_the_scripts_say() {
        assert_eq!(Said::read("kchaos-vm: ready 6.1.0-56-amd64"), Said::Ready("6.1.0-56-amd64"));
        assert_eq!(Said::read("kchaos-vm: begin doctor"), Said::Begin("doctor"));
        assert_eq!(Said::read("kchaos-vm: end tests 101"), Said::End("tests", 101));
        assert_eq!(Said::read("kchaos-vm: failed: loading 9p.ko"), Said::Failed("loading 9p.ko"));
        assert_eq!(Said::read("kchaos-vm: off"), Said::Off);
        assert_eq!(Said::read("test a ... ok"), Said::Output("test a ... ok"));
    }
}
