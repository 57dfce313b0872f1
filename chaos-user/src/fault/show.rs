//! A plan in words.

use std::fmt;

use chaos_common::net::Direction;

use super::{
    Fault,
    plan::{Attachment, Note, PlannedRule, Via},
    spared,
    syscall::{
        ladder::Rung,
        place::{CallPlace, DelayAt, DelayPlace},
        point::PlannedCall,
        slow::How,
    },
};
use crate::{target::netns::OUR_IFB, units::show_duration};

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tc { via, program, direction, at } => {
                let what = match via {
                    Via::Tcx => "tcx link",
                    Via::Clsact => "clsact filter",
                };
                let (device, way, netns) = (&at.device.name, way(*direction), at.netns.inode);
                write!(f, "{what} ({program}) on {device} {way} in network namespace {netns}")
            }
            Self::CgroupSkb { program, direction, cgroup } => {
                let way = way(*direction);
                write!(f, "cgroup_skb {way} link ({program}) on {}", cgroup.path.display())
            }
            Self::CgroupSock { program, cgroup } => {
                write!(f, "cgroup link ({program}) on {}", cgroup.path.display())
            }
            Self::SockDiag { netns, every, .. } => {
                write!(f, "sock_diag in network namespace {}, ", netns.inode)?;
                match every {
                    Some(every) => write!(f, "every {}", show_duration(*every)),
                    None => f.write_str("once"),
                }
            }
            Self::Call { at, .. } => match at {
                CallPlace::Lsm(hook) => write!(f, "lsm program at {hook}, host-wide"),
                CallPlace::ModifyReturn(function) => write!(f, "fmod_ret program at {function}, host-wide"),
                CallPlace::Begin(function) => write!(f, "fentry program at {function}, host-wide"),
                CallPlace::Kprobe(function) => write!(f, "kprobe at {function}, host-wide"),
                CallPlace::Judge(function) => {
                    write!(f, "fentry program at {function} that says how long it takes, host-wide")
                }
                CallPlace::Delay(place) => write!(f, "{place}, host-wide"),
            },
            Self::RawTracepoint { program, tracepoint } => {
                write!(f, "raw tracepoint {tracepoint} ({program}), host-wide")
            }
        }
    }
}

/// Where programs are attached: one line for those that are alike and stand side by side.
pub fn attachments(attachments: &[Attachment]) -> Vec<String> {
    let lines: Vec<String> = attachments.iter().map(ToString::to_string).collect();
    let alike = lines.chunk_by(|one, other| one == other);
    alike
        .map(
            |lines| {
                if lines.len() > 1 { format!("{} × {}", lines.len(), lines[0]) } else { lines[0].clone() }
            },
        )
        .collect()
}

/// The calls of a fault, each with how and where it is met: one line for those that have that in common.
pub fn calls(planned: &PlannedRule) -> Vec<String> {
    let mut lines: Vec<(Rung, Option<String>, Vec<&PlannedCall>)> = Vec::new();
    for call in &planned.calls {
        let (rung, at) = (call.way.rung, shared_place(call));
        match lines.iter_mut().find(|(other, place, _)| *other == rung && *place == at) {
            Some((_, _, calls)) => calls.push(call),
            None => lines.push((rung, at, vec![call])),
        }
    }
    let line = |(rung, at, calls): &(Rung, Option<String>, Vec<&PlannedCall>)| {
        let names: Vec<&str> = calls.iter().map(|planned| planned.call.name()).collect();
        let own = || match calls[..] {
            [only] => places(only),
            _ => "the function of each".to_owned(),
        };
        format!("{} by {} at {}", names.join(", "), rung.mechanism(), at.clone().unwrap_or_else(own))
    };
    lines.iter().map(line).collect()
}

/// Where a call is met together with others; `None` at its own function.
fn shared_place(call: &PlannedCall) -> Option<String> {
    let is_own = matches!(call.way.rung, Rung::FmodRetSyscall | Rung::Kprobe);
    (!is_own).then(|| places(call))
}

fn places(call: &PlannedCall) -> String {
    call.way.points().map(|(_, name)| name).collect::<Vec<_>>().join(" or ")
}

/// What a human should know: one line for notes that differ in the call alone.
pub fn notes(notes: &[Note]) -> Vec<String> {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for note in notes {
        let text = note.to_string();
        let call = match note {
            Note::Misses { call, .. } | Note::CallsFirst { call, .. } => call.name(),
            _ => {
                lines.push((text, Vec::new()));
                continue;
            }
        };
        let about = text.trim_start_matches("of ").trim_start_matches(call);
        match lines.iter_mut().find(|(other, _)| other == about) {
            Some((_, calls)) => calls.push(call),
            None => lines.push((about.to_owned(), vec![call])),
        }
    }
    let line = |(about, calls): &(String, Vec<&str>)| match calls[..] {
        [] => about.clone(),
        _ => format!("of {}{about}", calls.join(", ")),
    };
    lines.iter().map(line).collect()
}

impl fmt::Display for DelayPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.at {
            DelayAt::Lsm => "lsm",
            DelayAt::ModifyReturn => "fmod_ret",
            DelayAt::After => "fexit",
        };
        let how = match self.how {
            How::Sleep => "puts callers to sleep",
            How::Spin => "keeps callers busy",
        };
        write!(f, "{kind} program at {} that {how}", self.name)
    }
}

/// As users read it.
pub const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SyscallTracepoint => {
                f.write_str("while it is attached, the sys_exit tracepoint makes every system call of the host a little slower")
            }
            Self::ClsactResidue => f.write_str(
                "a SIGKILL leaves a clsact filter behind: inert within 3 s, removed by a watchdog or `kchaos sweep`",
            ),
            Self::FqResidue => f.write_str(
                "a SIGKILL leaves an fq qdisc behind, which delays nothing by itself; a watchdog or `kchaos sweep` removes it",
            ),
            Self::IfbResidue => write!(
                f,
                "a SIGKILL leaves the device {OUR_IFB} behind, through which nothing goes by itself; a watchdog or `kchaos sweep` removes it"
            ),
            Self::IfbPassesBy => f.write_str(
                "what is held back on its way in passes by tc filters that come behind kchaos's, and nftables at ingress",
            ),
            Self::NetemResidue => f.write_str(
                "a SIGKILL leaves a prio qdisc with netem behind, through which packets go only while our program sends them; \
                 a watchdog or `kchaos sweep` removes it",
            ),
            Self::FqAsItIs { device, fq } => write!(
                f,
                "{device} has an fq already, which is used as it is: what exceeds its {} packets, or {} of one flow, is lost",
                fq.limit, fq.flow_limit
            ),
            Self::SparedThoughNamed { fault, entries } => write!(
                f,
                "{fault} asks for {}, which is spared by default; `allow_defaults: false` would hit it",
                spared::list(entries)
            ),
            Self::NotMet { fault, calls } => write!(
                f,
                "{fault} leaves out what this kernel has no way for: {}",
                calls.iter().map(|call| call.name()).collect::<Vec<_>>().join(", ")
            ),
            Self::Misses { call, misses } => write!(f, "of {call}, this is not met: {misses}"),
            Self::CallsFirst { call, after } => {
                write!(f, "of {call}, this has happened when it comes by: {after}")
            }
            Self::CallPrograms => f.write_str(
                "32-bit programs are let by; other programs of the host pay a lookup for each such call",
            ),
            Self::Override => f.write_str(
                "a call answered by a kprobe goes on, and is counted as injected all the same, while somebody has a program of \
                 fmod_ret or fexit at its function: `bpftool link` lists them",
            ),
            Self::Sleepers => f.write_str(
                "while somebody sleeps, others of the host wait for them: who detaches BPF from perf's kprobes, uprobes or classic \
                 tracepoints, moves such a thread to another processor or cpuset, or takes a processor offline or the host to sleep",
            ),
            Self::KeptBusy => f.write_str(
                "calls are delayed on the processor, for one fifth of its time at most for each target",
            ),
            Self::NotMeasured { family, lacks } => {
                write!(f, "{} is not counted: this kernel lacks {lacks}", family.name())
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::Refuse(refuse) => refuse.fmt(f),
            Self::Reset(reset) => reset.fmt(f),
            Self::Call(call) => call.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{
        capability::{Capabilities, Capability},
        plan::Options,
        syscall::call::tests::made,
    };

    fn lines(lacks: &[Capability], syscalls: &str, error: &str) -> Vec<String> {
        let fault = made("errno", &[("syscalls", syscalls), ("error", error), ("any", "true")]).unwrap();
        calls(&fault.plan(&Capabilities::all_but(lacks), &Options::default()).unwrap())
    }

    #[test]
    fn calls_are_shown_with_the_place_where_they_are_met() {
        assert_eq!(
            lines(&[], "openat,openat2,unlinkat,fsync", "EIO"),
            [
                "fsync by fmod-ret-syscall at __x64_sys_fsync",
                "openat, openat2 by lsm at file_open",
                "unlinkat by lsm at path_unlink or path_rmdir",
            ]
        );
        assert_eq!(
            lines(&[Capability::Lsm], "openat", "EIO"),
            ["openat by fmod-ret-security at security_file_open"]
        );
        let slow = [Capability::Lsm, Capability::FmodRetSecurity, Capability::FmodRetSyscall];
        assert_eq!(lines(&slow, "openat,fsync", "EIO"), ["fsync, openat by kprobe at the function of each"]);
    }

    #[test]
    fn a_class_of_many_calls_stays_readable() {
        let lines = lines(&[], "%file", "EIO");
        assert!(lines.len() < 30, "{lines:#?}");
        assert!(lines.iter().any(|line| line.ends_with("by lsm at inode_getattr")), "{lines:#?}");
    }
    #[test]
    fn notes_that_differ_in_the_call_alone_are_one_line() {
        let misses = |call: &str, misses| Note::Misses { call: call.parse().unwrap(), misses };
        let after = |call: &str, after| Note::CallsFirst { call: call.parse().unwrap(), after };
        let all = [
            after("open", "it exists"),
            misses("open", "O_PATH"),
            misses("openat", "O_PATH"),
            Note::CallPrograms,
            after("openat", "it exists"),
            misses("splice", "pipes"),
        ];
        assert_eq!(
            notes(&all),
            [
                "of open, openat, this has happened when it comes by: it exists",
                "of open, openat, this is not met: O_PATH",
                &Note::CallPrograms.to_string(),
                "of splice, this is not met: pipes",
            ]
        );
    }

    #[test]
    fn programs_that_are_alike_are_counted() {
        let begin = |function: &str| Attachment::Call {
            at: CallPlace::Begin(function.to_owned()),
            point: chaos_common::syscall::CallPoint::NONE,
        };
        let lines = attachments(&[begin("a"), begin("a"), begin("b")]);
        assert_eq!(lines, ["2 × fentry program at a, host-wide", "fentry program at b, host-wide"]);
    }
}
