//! A plan in words.

use std::fmt;

use chaos_common::net::Direction;

use super::{
    Fault,
    plan::{Attachment, Note, Via},
    spared,
    syscall::{
        point::{CallPlace, DelayAt, DelayPlace},
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
                CallPlace::Delay(place) => write!(f, "{place}, host-wide"),
            },
            Self::RawTracepoint { program, tracepoint } => {
                write!(f, "raw tracepoint {tracepoint} ({program}), host-wide")
            }
        }
    }
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
            Self::Misses { call, misses } => write!(f, "{call}: {misses} is not met"),
            Self::CallsFirst { call, after } => write!(f, "{call} is met when something has happened: {after}"),
            Self::CallPrograms => f.write_str(
                "32-bit programs are let by; other programs of the host pay a lookup for each such call",
            ),
            Self::Sleepers => f.write_str(
                "while somebody sleeps, others of the host wait for them: who detaches BPF from perf's kprobes, uprobes or classic \
                 tracepoints, moves such a thread to another processor or cpuset, or takes a processor offline or the host to sleep",
            ),
            Self::KeptBusy => f.write_str(
                "calls are delayed on the processor, for one fifth of its time at most for each target",
            ),
            Self::NotMeasured { metric, lacks } => {
                write!(f, "{} is not measured: this kernel lacks {lacks}", metric.name())
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
