//! What the kernel half alone cannot do: changes of the host that no lease switches off. Each is inert by itself, is
//! undone by name, and stands in the plan.

use std::{fmt, time::Duration};

use chaos_common::{net::Direction, priority::MAX_BANDS};

use super::{
    Fault,
    attachment::places,
    capability::{Capabilities, Capability},
    delay::MOST,
    filter::directions,
    mechanism::{Mechanism, Unplannable, choose},
    net::NetFault,
    netem::{self, Netem},
    plan::{Note, Place, PlanError, PlannedRule},
    show::way,
};
use crate::{
    target::{Group, Namespace, Netns, Scope, netns::OUR_IFB, root_qdisc::RootQdisc},
    units::show_duration,
};

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
    /// An `ifb` in a network namespace, with an `fq`, through which what arrives takes a way round.
    Ifb {
        /// Where.
        netns: Netns,
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

impl HostChange {
    /// Whether it is made before anything is attached, as what is attached names it.
    pub const fn comes_first(&self) -> bool {
        matches!(self, Self::Ifb { .. })
    }

    /// The network namespace that it is in.
    pub const fn netns(&self) -> &Netns {
        match self {
            Self::RootFq { at: Place { netns, .. }, .. }
            | Self::RootNetem { at: Place { netns, .. }, .. }
            | Self::Ifb { netns, .. } => netns,
        }
    }
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

/// What it takes to hold packets back in a scope, and what to know about it.
pub fn to_hold(
    rules: &[PlannedRule],
    scope: &Scope,
    dry_run: bool,
) -> Result<(Vec<HostChange>, Vec<Note>), PlanError> {
    let (mut changes, mut notes) = (Vec::new(), Vec::new());
    if rules.iter().any(|rule| rule.queues.contains(&Mechanism::Netem)) {
        changes.extend(netem::to_hold(rules, &places(scope)?, scope.members.len())?);
        notes.extend((!dry_run).then_some(Note::NetemResidue));
    } else if let Some(hold) = longest(rules, Direction::Egress) {
        let (fqs, as_they_are) = leaving(&places(scope)?, hold)?;
        notes.extend(as_they_are);
        notes.extend((!fqs.is_empty() && !dry_run).then_some(Note::FqResidue));
        changes.extend(fqs);
    }
    if let Some(hold) = longest(rules, Direction::Ingress) {
        changes.extend(arriving(scope, hold)?);
        if !dry_run {
            notes.extend([Note::IfbResidue, Note::IfbPassesBy]);
        }
    }
    if dry_run {
        changes.clear();
    }
    Ok((changes, notes))
}

/// The longest that rules may hold back a packet going one way; `None` if none does.
fn longest(rules: &[PlannedRule], direction: Direction) -> Option<Duration> {
    let those = rules
        .iter()
        .filter(|rule| !rule.queues.is_empty() && rule.ways.iter().any(|way| way.direction == direction));
    those.map(most_held).reduce(|sum, held| sum + held)
}

/// An fq on each device, where there is none.
fn leaving(places: &[Place], hold: Duration) -> Result<(Vec<HostChange>, Vec<Note>), HoldError> {
    let (mut changes, mut notes) = (Vec::new(), Vec::new());
    for at in places {
        let device = at.device.name.clone();
        match &at.device.root {
            RootQdisc::Default { kind } => {
                fits(hold, &device, MOST)?;
                let (limit, replaces) = (limit(hold), kind.clone());
                changes.push(HostChange::RootFq { at: at.clone(), replaces, limit, hold });
            }
            RootQdisc::Fq(fq) => {
                fits(hold, &device, MOST.min(fq.horizon.saturating_sub(SPARED)))?;
                notes.push(Note::FqAsItIs { device, fq: *fq });
            }
            RootQdisc::Ours => return Err(HoldError::ours(at)),
            RootQdisc::Configured { kind, handle } => return Err(HoldError::configured(at, kind, *handle)),
        }
    }
    Ok((changes, notes))
}

/// An ifb in each network namespace.
fn arriving(scope: &Scope, hold: Duration) -> Result<Vec<HostChange>, HoldError> {
    fits(hold, OUR_IFB, MOST)?;
    let mut changes: Vec<HostChange> = Vec::new();
    for Namespace { netns, devices, is_held } in
        scope.group(Group::Experiment).flat_map(|(_, member)| &member.namespaces)
    {
        if devices.is_empty() || changes.iter().any(|change| change.netns() == netns) {
            continue;
        }
        if *is_held {
            return Err(HoldError::Ours { device: OUR_IFB.to_owned(), netns: netns.inode });
        }
        changes.push(HostChange::Ifb { netns: netns.clone(), limit: limit(hold), hold });
    }
    Ok(changes)
}

fn fits(asked: Duration, device: &str, most: Duration) -> Result<(), HoldError> {
    let device = device.to_owned();
    if asked <= most { Ok(()) } else { Err(HoldError::TooLong { asked, device, most }) }
}

/// By what a fault holds packets back, if it does; each of them is needed.
pub fn queues(
    net: &NetFault,
    capabilities: &Capabilities,
    forced: Option<Mechanism>,
) -> Result<Vec<Mechanism>, Unplannable> {
    let mut chosen = Vec::new();
    for direction in directions(net.direction) {
        let what = format!("{} on {}", net.effect.name(), way(*direction));
        for ladder in net.effect.queues(*direction) {
            let mechanism = choose(ladder, &what, capabilities, forced)?;
            if !chosen.contains(&mechanism) {
                chosen.push(mechanism);
            }
        }
    }
    Ok(chosen)
}

fn most_held(rule: &PlannedRule) -> Duration {
    match &rule.fault {
        Fault::Net(net) => net.effect.most_held(),
        Fault::Refuse(_) | Fault::Reset(_) | Fault::Call(_) => Duration::ZERO,
    }
}

/// One and a half times as many packets as come while one is held back.
pub fn limit(hold: Duration) -> u32 {
    let meanwhile = hold.as_millis() as u64 * PACKETS_PER_S / 1000;
    (meanwhile * ROOM / FOR).clamp(FEWEST, MOST_PACKETS) as u32
}

impl fmt::Display for HostChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootFq { at, replaces, limit, hold: _ } => root(f, "fq", at, *limit, replaces),
            Self::RootNetem { at, replaces, netem, bands, hold: _ } => {
                root(f, &format!("prio with {bands} netem ({netem})"), at, netem.limit, replaces)
            }
            Self::Ifb { netns, limit, hold: _ } => write!(
                f,
                "ifb device {OUR_IFB} in network namespace {}, with an fq for {limit} packets",
                netns.inode
            ),
        }
    }
}

/// A root qdisc of ours.
fn root(f: &mut fmt::Formatter<'_>, what: &str, at: &Place, limit: u32, replaces: &str) -> fmt::Result {
    let (device, netns) = (&at.device.name, at.netns.inode);
    let before = if replaces.is_empty() { "none" } else { replaces };
    write!(
        f,
        "{what} as root qdisc of {device} in network namespace {netns}, for {limit} packets, instead of {before}"
    )
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
            ethernet: true,
            root: root.clone(),
        };
        let devices = roots.iter().enumerate().map(device).collect();
        let netns = Netns::current().expect("our own network namespace");
        let cgroup = Cgroup { path: "/web".into(), dir: "/sys/fs/cgroup/web".into(), id: 7, level: 1 };
        let target = "cgroup:/web".parse().expect("a target");
        let namespaces = vec![Namespace { netns, devices, is_held: false }];
        Scope {
            members: vec![Member {
                group: Group::Experiment,
                target,
                cgroup,
                image: None,
                namespaces,
                ring: None,
            }],
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
            error.contains("cannot do delay on egress: fq needs fq (Linux 5.18 with CONFIG_NET_SCH_FQ)"),
            "{error}"
        );
        let netem = "netem needs netem (CONFIG_NET_SCH_NETEM and CONFIG_NET_SCH_PRIO)";
        assert!(error.contains(netem), "{error}");
    }

    fn arriving_delay(by: &str) -> Fault {
        fault("delay", &[("by", by), ("direction", "ingress")])
    }

    #[test]
    fn what_arrives_is_held_back_in_one_place_for_all_devices() {
        let configured = RootQdisc::Configured { kind: "htb".into(), handle: 0x10 };
        let (changes, notes) = planned(&[arriving_delay("50ms")], &[default("noqueue"), configured]).unwrap();
        let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 1);
        assert!(texts[0].starts_with("ifb device kchaos-ifb0 in network namespace"), "{texts:?}");
        assert!(notes.contains(&Note::IfbResidue) && !notes.contains(&Note::FqResidue));
    }

    #[test]
    fn each_way_has_room_for_its_own() {
        let both = fault("delay", &[("by", "5s"), ("direction", "both")]);
        let (changes, _) = planned(std::slice::from_ref(&both), &[default("noqueue")]).unwrap();
        assert!(
            matches!(changes[..], [HostChange::RootFq { hold: one, .. }, HostChange::Ifb { hold: other, .. }]
                if one == other),
            "{changes:?}"
        );
        let refused = planned(&[both, arriving_delay("5s")], &[default("noqueue")]).unwrap_err().to_string();
        assert!(refused.contains("for 10s, and the fq on kchaos-ifb0 takes at most 9s"), "{refused}");
    }

    #[test]
    fn a_namespace_with_an_ifb_of_ours_is_somebody_elses() {
        let mut scope = scope(&[default("noqueue")]);
        scope.members[0].namespaces[0].is_held = true;
        let all = Capabilities::all_but(&[]);
        let refused =
            plan(&[arriving_delay("1s")], &scope, &all, &Options::default()).unwrap_err().to_string();
        assert!(refused.contains("another injection holds packets back on kchaos-ifb0"), "{refused}");
        assert!(plan(&[delay("1s")], &scope, &all, &Options::default()).is_ok());
    }

    #[test]
    fn a_kernel_without_ifb_can_hold_back_what_leaves_alone() {
        let without = Capabilities::all_but(&[Capability::Ifb]);
        let scope = scope(&[default("noqueue")]);
        assert!(plan(&[delay("50ms")], &scope, &without, &Options::default()).is_ok());
        let error =
            plan(&[arriving_delay("50ms")], &scope, &without, &Options::default()).unwrap_err().to_string();
        assert!(error.contains("cannot do delay on ingress: ifb needs ifb (CONFIG_IFB)"), "{error}");
    }
}
