//! What the kernel half alone cannot do: changes of the host that no lease switches off. Each is inert by itself, is
//! undone by name, and stands in the plan.

use std::{fmt, time::Duration};

use super::{
    Fault,
    delay::MOST,
    plan::{Note, Place, PlannedRule},
};
use crate::{target::root_qdisc::RootQdisc, units::show_duration};

/// A change of the host.
#[derive(Clone, Debug, PartialEq)]
pub enum HostChange {
    /// An `fq` as the root qdisc of a device, where the kernel's own was.
    RootFq {
        /// Where.
        at: Place,
        /// What is there, and comes back.
        replaces: String,
        /// How many packets it holds.
        limit: u32,
        /// The longest that we keep one in it.
        hold: Duration,
    },
}

/// Why packets cannot be held back there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// Somebody's own root qdisc.
    #[error(
        "{device} in network namespace {netns} has a root qdisc that somebody configured ({kind} {handle:x}:); \
         kchaos does not replace it: delete it (tc qdisc del dev {device} root) or make it fq"
    )]
    Configured {
        /// The device.
        device: String,
        /// Its namespace.
        netns: u64,
        /// What kind.
        kind: String,
        /// Its handle's number.
        handle: u16,
    },
    /// Another injection's.
    #[error(
        "another injection holds packets back on {device} in network namespace {netns}; end it first \
         (`kchaos status` shows it), or, if its controller is dead, run `kchaos sweep`"
    )]
    Ours {
        /// The device.
        device: String,
        /// Its namespace.
        netns: u64,
    },
    /// Beyond what fq takes.
    #[error(
        "the faults together could hold a packet back for {}, and the fq on {device} takes at most {}",
        show_duration(*asked), show_duration(*most)
    )]
    TooLong {
        /// What could come together.
        asked: Duration,
        /// The device.
        device: String,
        /// What is possible.
        most: Duration,
    },
}

/// How many packets a second are reckoned with: some more than a gigabit per second of full frames; those that TCP hands
/// over in large pieces count once.
const PACKETS_PER_S: u64 = 100_000;
/// Room for half as many again.
const ROOM: u64 = 3;
const FOR: u64 = 2;
/// What an fq holds by itself.
const FEWEST: u64 = 10_000;
/// Memory for this many packets is some gigabytes.
const MOST_PACKETS: u64 = 1_000_000;

/// How far short of an fq's horizon times are kept: room for what others have asked of a packet.
const SPARED: Duration = Duration::from_secs(1);

/// What it takes to hold packets back at `places`, and what to know about it.
pub fn to_hold(
    rules: &[PlannedRule],
    places: &[Place],
    dry_run: bool,
) -> Result<(Vec<HostChange>, Vec<Note>), HoldError> {
    let hold: Duration = rules.iter().map(most_held).sum();
    let (mut changes, mut notes) = (Vec::new(), Vec::new());
    for at in places {
        let (device, netns) = (at.device.name.clone(), at.netns.inode);
        let fits = |most| {
            (hold <= most).then_some(()).ok_or(HoldError::TooLong {
                asked: hold,
                device: device.clone(),
                most,
            })
        };
        match &at.device.root {
            RootQdisc::Default { kind } => {
                fits(MOST)?;
                let (limit, replaces) = (limit(hold), kind.clone());
                changes.push(HostChange::RootFq { at: at.clone(), replaces, limit, hold });
            }
            RootQdisc::Fq(fq) => {
                fits(MOST.min(fq.horizon.saturating_sub(SPARED)))?;
                notes.push(Note::FqAsItIs { device, fq: *fq });
            }
            RootQdisc::Ours => return Err(HoldError::Ours { device, netns }),
            RootQdisc::Configured { kind, handle } => {
                return Err(HoldError::Configured { device, netns, kind: kind.clone(), handle: *handle });
            }
        }
    }
    if dry_run {
        changes.clear();
    }
    Ok((changes, notes))
}

fn most_held(rule: &PlannedRule) -> Duration {
    match &rule.fault {
        Fault::Net(net) => net.effect.most_held(),
        Fault::Refuse(_) | Fault::Reset(_) => Duration::ZERO,
    }
}

/// One and a half times as many packets as come while one is held back.
fn limit(hold: Duration) -> u32 {
    let meanwhile = hold.as_millis() as u64 * PACKETS_PER_S / 1000;
    (meanwhile * ROOM / FOR).clamp(FEWEST, MOST_PACKETS) as u32
}

impl fmt::Display for HostChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::RootFq { at, replaces, limit, hold: _ } = self;
        let (device, netns) = (&at.device.name, at.netns.inode);
        let before = if replaces.is_empty() { "none" } else { replaces };
        write!(
            f,
            "fq as root qdisc of {device} in network namespace {netns}, for {limit} packets, instead of {before}"
        )
    }
}
