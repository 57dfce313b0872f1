//! What the kernel half alone cannot do: changes of the host that no lease switches off. Each is inert by itself, is
//! undone by name, and stands in the plan.

use std::{fmt, time::Duration};

use chaos_common::priority::MAX_BANDS;

use super::{
    Fault,
    capability::{Capabilities, Capability},
    delay::MOST,
    mechanism::{Mechanism, Unplannable, choose},
    net::NetEffect,
    netem::{self, Netem},
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
    /// A `prio` with `netem` below as the root qdisc of a device, where the kernel's own was.
    RootNetem {
        /// Where.
        at: Place,
        /// What is there, and comes back.
        replaces: String,
        /// What each netem does.
        netem: Netem,
        /// How many there are.
        bands: u32,
        /// The longest that one keeps a packet.
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
    /// netem does one thing to all packets.
    #[error(
        "{count} faults hold packets back; without fq they wait in netem, which holds packets back for one fault only: \
         run one at a time, or use a kernel with fq ({})",
        Capability::Fq.provided_by()
    )]
    OneByNetem {
        /// How many there are.
        count: usize,
    },
    /// netem hangs where packets leave.
    #[error("{fault} on ingress: without fq packets wait in netem, which kchaos uses for what leaves only")]
    NetemOnIngress {
        /// Which.
        fault: &'static str,
    },
    /// There are no more queues.
    #[error(
        "a rate for {targets} targets: without fq each needs a netem of its own, and a prio has room for {MAX_BANDS}"
    )]
    TooManyWires {
        /// How many there are.
        targets: usize,
    },
    /// It would be the better way.
    #[error(
        "{device} has an fq already, which netem cannot replace: leave the mechanism to kchaos, or name fq"
    )]
    FqInTheWay {
        /// The device.
        device: String,
    },
}

impl HoldError {
    /// Another injection's root qdisc.
    pub fn ours(at: &Place) -> Self {
        Self::Ours { device: at.device.name.clone(), netns: at.netns.inode }
    }

    /// Somebody's.
    pub fn configured(at: &Place, kind: &str, handle: u16) -> Self {
        let (device, netns) = (at.device.name.clone(), at.netns.inode);
        Self::Configured { device, netns, kind: kind.to_owned(), handle }
    }
}

/// How many packets a second are reckoned with: some more than a gigabit per second of full frames; those that TCP hands
/// over in large pieces count once.
const PACKETS_PER_S: u64 = 100_000;
/// Room for half as many again.
const ROOM: u64 = 3;
const FOR: u64 = 2;
/// Nobody has to wait for what is never filled.
const FEWEST: u64 = 100_000;
/// Memory for this many packets is some gigabytes.
const MOST_PACKETS: u64 = 1_000_000;

/// How far short of an fq's horizon times are kept: room for what others have asked of a packet.
const SPARED: Duration = Duration::from_secs(1);

/// What it takes to hold packets back at `places`, and what to know about it.
pub fn to_hold(
    rules: &[PlannedRule],
    places: &[Place],
    targets: usize,
    dry_run: bool,
) -> Result<(Vec<HostChange>, Vec<Note>), HoldError> {
    let by_netem = rules.iter().any(|rule| rule.queue == Some(Mechanism::Netem));
    let (mut changes, mut notes) =
        if by_netem { netem::to_hold(rules, places, targets)? } else { to_hold_by_fq(rules, places)? };
    if dry_run {
        changes.clear();
        notes.retain(|note| !matches!(note, Note::FqResidue | Note::NetemResidue));
    }
    Ok((changes, notes))
}

fn to_hold_by_fq(rules: &[PlannedRule], places: &[Place]) -> Result<(Vec<HostChange>, Vec<Note>), HoldError> {
    let hold: Duration = rules.iter().map(most_held).sum();
    let (mut changes, mut notes) = (Vec::new(), Vec::new());
    for at in places {
        let device = at.device.name.clone();
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
            RootQdisc::Ours => return Err(HoldError::ours(at)),
            RootQdisc::Configured { kind, handle } => return Err(HoldError::configured(at, kind, *handle)),
        }
    }
    if !changes.is_empty() {
        notes.push(Note::FqResidue);
    }
    Ok((changes, notes))
}

/// Whether any rule holds packets back.
pub fn holds(rules: &[PlannedRule]) -> bool {
    rules.iter().any(|rule| rule.queue.is_some())
}

/// By what an effect holds packets back, if it does.
pub fn queue(
    effect: &NetEffect,
    capabilities: &Capabilities,
    forced: Option<Mechanism>,
) -> Result<Option<Mechanism>, Unplannable> {
    let queues = effect.queues();
    if queues.is_empty() {
        return Ok(None);
    }
    choose(queues, effect.name(), capabilities, forced).map(Some)
}

fn most_held(rule: &PlannedRule) -> Duration {
    match &rule.fault {
        Fault::Net(net) => net.effect.most_held(),
        Fault::Refuse(_) | Fault::Reset(_) => Duration::ZERO,
    }
}

/// One and a half times as many packets as come while one is held back.
pub fn limit(hold: Duration) -> u32 {
    let meanwhile = hold.as_millis() as u64 * PACKETS_PER_S / 1000;
    (meanwhile * ROOM / FOR).clamp(FEWEST, MOST_PACKETS) as u32
}

impl fmt::Display for HostChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, replaces, limit) = match self {
            Self::RootFq { at, replaces, limit, .. } => {
                f.write_str("fq")?;
                (at, replaces, *limit)
            }
            Self::RootNetem { at, replaces, netem, bands, .. } => {
                write!(f, "prio with {bands} netem ({netem})")?;
                (at, replaces, netem.limit)
            }
        };
        let (device, netns) = (&at.device.name, at.netns.inode);
        let before = if replaces.is_empty() { "none" } else { replaces };
        write!(
            f,
            " as root qdisc of {device} in network namespace {netns}, for {limit} packets, instead of {before}"
        )
    }
}

impl HostChange {
    /// Where.
    pub const fn at(&self) -> &Place {
        match self {
            Self::RootFq { at, .. } | Self::RootNetem { at, .. } => at,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        fault::{
            Fault,
            catalogue::find,
            plan::{Options, PlanError, plan},
            text::Given,
        },
        target::{Cgroup, Device, Group, Member, Namespace, Netns, Scope, root_qdisc::Fq},
    };

    pub fn scope(roots: &[RootQdisc]) -> Scope {
        let device = |(number, root): (usize, &RootQdisc)| Device {
            ifindex: number as u32 + 2,
            name: format!("eth{number}"),
            root: root.clone(),
        };
        let devices = roots.iter().enumerate().map(device).collect();
        let netns = Netns::current().expect("our own network namespace");
        let cgroup = Cgroup { path: "/web".into(), dir: "/sys/fs/cgroup/web".into(), id: 7, level: 1 };
        let target = "cgroup:/web".parse().expect("a target");
        let namespaces = vec![Namespace { netns, devices }];
        Scope {
            members: vec![Member { group: Group::Experiment, target, cgroup, namespaces }],
            spared: Vec::new(),
        }
    }

    pub fn fault(name: &str, parameters: &[(&'static str, &str)]) -> Fault {
        let entry = find(name).expect("a fault");
        let given = parameters.iter().fold(Given::new(entry), |given, (name, value)| given.with(name, value));
        (entry.build)(&given).expect("right parameters")
    }

    fn planned(faults: &[Fault], roots: &[RootQdisc]) -> Result<(Vec<HostChange>, Vec<Note>), PlanError> {
        let plan = plan(faults, &scope(roots), &Capabilities::all_but(&[]), &Options::default())?;
        Ok((plan.host_changes, plan.notes))
    }

    pub fn default(kind: &str) -> RootQdisc {
        RootQdisc::Default { kind: kind.to_owned() }
    }

    pub fn delay(by: &str) -> Fault {
        fault("delay", &[("by", by)])
    }

    #[test]
    fn the_kernels_own_is_replaced_on_every_device_and_a_loss_replaces_none() {
        let (changes, notes) = planned(&[delay("50ms")], &[default("noqueue"), default("mq")]).unwrap();
        let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("fq as root qdisc of eth0 in network namespace"), "{texts:?}");
        assert!(texts[0].ends_with("for 100000 packets, instead of noqueue"), "{texts:?}");
        assert!(texts[1].ends_with("instead of mq"), "{texts:?}");
        assert!(notes.contains(&Note::FqResidue));
        let (changes, notes) = planned(&[fault("loss", &[("percent", "5")])], &[default("noqueue")]).unwrap();
        assert!(changes.is_empty() && !notes.contains(&Note::FqResidue));
    }

    #[test]
    fn it_has_room_for_what_all_faults_hold_back_together() {
        let room = |faults: &[Fault]| match &planned(faults, &[default("noqueue")]).unwrap().0[..] {
            [HostChange::RootFq { limit, hold, .. }] => (*limit, *hold),
            other => panic!("{other:?}"),
        };
        let rate = fault("rate", &[("bandwidth", "10mbit")]);
        assert_eq!(room(&[delay("1s"), rate]), (300_000, Duration::from_secs(2)));
        assert_eq!(room(&[delay("9s")]).0, 1_000_000);
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let options = Options { dry_run: true, ..Options::default() };
        let scope = scope(&[default("noqueue")]);
        let plan = plan(&[delay("50ms")], &scope, &Capabilities::all_but(&[]), &options).unwrap();
        assert!(plan.host_changes.is_empty() && !plan.attachments.is_empty());
    }

    #[test]
    fn an_fq_that_is_there_is_used_if_it_reaches_far_enough() {
        let fq = |seconds| Fq { limit: 10_000, flow_limit: 100, horizon: Duration::from_secs(seconds) };
        let (changes, notes) = planned(&[delay("50ms")], &[RootQdisc::Fq(fq(10))]).unwrap();
        assert!(changes.is_empty());
        assert!(notes.contains(&Note::FqAsItIs { device: "eth0".into(), fq: fq(10) }));
        let refused = planned(&[delay("2s")], &[RootQdisc::Fq(fq(2))]).unwrap_err().to_string();
        assert!(refused.contains("for 2s, and the fq on eth0 takes at most 1s"), "{refused}");
    }

    #[test]
    fn what_is_somebodys_is_refused_with_advice() {
        let configured = RootQdisc::Configured { kind: "htb".into(), handle: 0x10 };
        let refused = planned(&[delay("50ms")], &[default("noqueue"), configured]).unwrap_err().to_string();
        assert!(refused.contains("eth1") && refused.contains("htb 10:"), "{refused}");
        assert!(refused.contains("tc qdisc del dev eth1 root"), "{refused}");
        let refused = planned(&[delay("50ms")], &[RootQdisc::Ours]).unwrap_err().to_string();
        assert!(refused.contains("another injection"), "{refused}");
    }

    #[test]
    fn more_than_fq_takes_is_refused() {
        let refused = planned(&[delay("5s"), delay("5s")], &[default("noqueue")]).unwrap_err().to_string();
        assert!(refused.contains("for 10s, and the fq on eth0 takes at most 9s"), "{refused}");
    }

    #[test]
    fn a_kernel_without_fq_is_told() {
        let without = Capabilities::all_but(&[Capability::Fq, Capability::Netem]);
        let scope = scope(&[default("noqueue")]);
        let error = plan(&[delay("50ms")], &scope, &without, &Options::default()).unwrap_err().to_string();
        assert!(
            error.contains("cannot do delay: fq needs fq (Linux 5.18 with CONFIG_NET_SCH_FQ)"),
            "{error}"
        );
        let netem = "netem needs netem (CONFIG_NET_SCH_NETEM and CONFIG_NET_SCH_PRIO)";
        assert!(error.contains(netem), "{error}");
    }
}
