//! A plan in words.

use std::fmt;

use chaos_common::{Chance, net::Direction};

use super::{
    Fault, LossFault, LossModel,
    plan::{Attachment, Note},
};
use crate::units::Percent;

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcx { at } => {
                write!(f, "tcx link on {} egress in network namespace {}", at.device.name, at.netns.inode)
            }
            Self::Clsact { at } => {
                write!(
                    f,
                    "clsact filter on {} egress in network namespace {}",
                    at.device.name, at.netns.inode
                )
            }
            Self::CgroupSkb { program, direction, cgroup } => {
                let way = match direction {
                    Direction::Egress => "egress",
                    Direction::Ingress => "ingress",
                };
                write!(f, "cgroup_skb {way} link ({program}) on {}", cgroup.path.display())
            }
            Self::RawTracepoint { program, tracepoint } => {
                write!(f, "raw tracepoint {tracepoint} ({program}), host-wide")
            }
        }
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
            Self::NotMeasured { metric, lacks } => {
                write!(f, "{} is not measured: this kernel lacks {lacks}", metric.name())
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss(loss) => loss.fmt(f),
        }
    }
}

impl fmt::Display for LossFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loss {} {}", self.model, self.direction)
    }
}

impl fmt::Display for LossModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Random { chance, correlation: Chance::NEVER } => Percent(chance).fmt(f),
            Self::Random { chance, correlation } => {
                write!(f, "{} (correlation {})", Percent(chance), Percent(correlation))
            }
            Self::GilbertElliott { .. } => write!(f, "{} (Gilbert–Elliott)", self.in_the_long_run()),
            Self::FourState { .. } => write!(f, "{} (four-state)", self.in_the_long_run()),
            Self::Every(n) => write!(f, "of 1 in {n}"),
        }
    }
}

impl LossModel {
    fn in_the_long_run(self) -> String {
        format!("{:.3}%", self.long_run_fraction() * 100.0)
    }
}
