//! The catalogue of faults, and planning: pure, no I/O.

pub mod attachment;
pub mod capability;
pub mod catalogue;
pub mod clause;
mod corrupt;
pub mod count;
pub mod course;
pub mod delay;
pub mod dns;
pub mod dry;
mod duplicate;
pub mod filter;
pub mod gate;
pub mod host_change;
pub mod jitter;
pub mod limits;
pub mod loss;
pub mod mechanism;
pub mod names;
pub mod net;
pub mod netem;
pub mod note;
pub mod partition;
pub mod pattern;
pub mod plan;
mod ranges;
pub mod rate;
pub mod refuse;
pub mod reorder;
pub mod reset;
pub mod show;
pub mod spared;
pub mod syscall;
pub mod text;
pub mod wanted;

pub use filter::{DirectionSpec, NetFilter, PortRange};
pub use limits::Limits;
pub use loss::Loss;
pub use net::{NetEffect, NetFault};
pub use pattern::Pattern;
pub use refuse::RefuseFault;
pub use reset::ResetFault;
pub use syscall::{CallFault, Effect};

/// What goes wrong, in the user's terms.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Something happens to packets or connections.
    Net(NetFault),
    /// Calls on sockets fail.
    Refuse(RefuseFault),
    /// Established connections are destroyed.
    Reset(ResetFault),
    /// Something happens to system calls.
    Call(CallFault),
}

impl Fault {
    /// As users write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Net(net) => net.effect.name(),
            Self::Refuse(_) => refuse::ENTRY.name,
            Self::Reset(_) => reset::ENTRY.name,
            Self::Call(call) => call.name,
        }
    }

    /// What reports call it: `loss egress`.
    pub fn label(&self) -> String {
        match self {
            Self::Net(net) => format!("{} {}", net.effect.name(), net.direction),
            Self::Refuse(refuse) => refuse.label(),
            Self::Reset(_) => reset::ENTRY.name.to_owned(),
            Self::Call(call) => call.label(),
        }
    }

    /// Which packets and connections it is for, if it is about these.
    pub const fn filter(&self) -> Option<&NetFilter> {
        match self {
            Self::Net(net) => Some(&net.filter),
            Self::Refuse(refuse) => Some(&refuse.filter),
            Self::Reset(reset) => Some(&reset.filter),
            Self::Call(_) => None,
        }
    }

    /// Which of the occurrences that its filter lets through it hits.
    pub const fn pattern(&self) -> &Pattern {
        match self {
            Self::Net(net) => &net.pattern,
            Self::Refuse(refuse) => &refuse.pattern,
            Self::Reset(reset) => &reset.pattern,
            Self::Call(call) => &call.pattern,
        }
    }

    /// How often it may.
    pub const fn limits(&self) -> &Limits {
        match self {
            Self::Net(net) => &net.limits,
            Self::Refuse(refuse) => &refuse.limits,
            Self::Reset(reset) => &reset.limits,
            Self::Call(call) => &call.limits,
        }
    }

    /// Whether calls fail by it that would not have failed.
    pub const fn gives_errors(&self) -> bool {
        match self {
            Self::Net(_) | Self::Reset(_) => false,
            Self::Refuse(_) => true,
            Self::Call(call) => matches!(call.effect, Effect::Errno(_)),
        }
    }

    /// What its occurrences are.
    pub const fn occurrences(&self) -> &'static str {
        match self {
            Self::Net(_) => "packets",
            Self::Refuse(_) | Self::Call(_) => "such calls",
            Self::Reset(_) => "established connections",
        }
    }
}
