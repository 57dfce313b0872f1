//! Somebody else's program on the same device: it counts what it sees.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context;
use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType, loaded_programs,
    tc::{NlOptions, TcAttachOptions, TcHandle},
};
use chaos_common::net::Direction;
use kchaos::target::Netns;

use crate::{bpf, lab::DEVICE};

/// TC_ACT_SHOT: dropped, and the sender is told.
const SHOT: i32 = 2;
/// TC_ACT_UNSPEC, which is TCX_NEXT: on to the next program.
const NEXT: i32 = -1;

/// Behind those that ours have, one for each program.
const PRIORITY: u16 = 99;
const HANDLE: TcHandle = TcHandle::new(0, 0x77);

/// By which of tc's doors.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// TCX.
    Tcx,
    /// A filter on a clsact qdisc that is there.
    Clsact,
}

impl At {
    fn options(self, order: LinkOrder, priority: u16) -> TcAttachOptions {
        match self {
            Self::Tcx => TcAttachOptions::TcxOrder(order),
            Self::Clsact => TcAttachOptions::Netlink(NlOptions { priority, handle: HANDLE, classid: None }),
        }
    }
}

/// A program of somebody else's; detached when this goes, if it is attached by a link.
pub struct Foreign {
    seen: bpf::Number,
    _program: OwnedFd,
    classifier: SchedClassifier,
}

impl Foreign {
    /// One that only counts.
    pub fn counting() -> anyhow::Result<Self> {
        Self::load(1, NEXT)
    }

    /// One that drops each `nth` packet in the way that the sender is told of.
    pub fn dropping(nth: i32) -> anyhow::Result<Self> {
        Self::load(nth, SHOT)
    }

    /// One that only counts packets with this mark.
    pub fn counting_mark(mark: i32) -> anyhow::Result<Self> {
        Self::made(|name, seen| bpf::load_mark_counter(name, seen, mark))
    }

    fn load(nth: i32, verdict: i32) -> anyhow::Result<Self> {
        Self::made(|name, seen| bpf::load_counting_classifier(name, seen, nth, verdict))
    }

    fn made(load: impl FnOnce(&str, &bpf::Number) -> io::Result<OwnedFd>) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let seen = bpf::Number::new()?;
        let program = load(&name, &seen).context("a program made by hand")?;
        let ours = |info: &aya::programs::ProgramInfo| info.name_as_str() == Some(&name);
        let info = loaded_programs().flatten().find(ours).context("it is loaded, but not listed")?;
        let classifier = SchedClassifier::from_program_info(info, name.into())?;
        Ok(Self { seen, _program: program, classifier })
    }

    /// One that marks what has no mark, and counts what has its mark already.
    pub fn marking() -> anyhow::Result<Self> {
        Self::made(bpf::load_marking_classifier)
    }

    /// One that counts what has that mark, and no index.
    pub fn counting_marked() -> anyhow::Result<Self> {
        Self::made(bpf::load_marked_classifier)
    }

    /// Attaches it last of the TCX programs on a device.
    pub fn attach_tcx(&mut self, netns: &Netns) -> anyhow::Result<()> {
        self.attach(netns, Direction::Egress, TcAttachOptions::TcxOrder(LinkOrder::last()))
    }

    /// Attaches it where it sees packets before ours do.
    pub fn attach_before(&mut self, at: At, netns: &Netns, direction: Direction) -> anyhow::Result<()> {
        self.attach(netns, direction, at.options(LinkOrder::first(), 1))
    }

    /// Attaches it where it sees packets after ours did.
    pub fn attach_behind(&mut self, at: At, netns: &Netns, direction: Direction) -> anyhow::Result<()> {
        self.attach(netns, direction, at.options(LinkOrder::last(), u16::MAX))
    }

    /// Attaches it last of those that are there, as others do without a thought of us.
    pub fn attach_where_others_do(
        &mut self,
        at: At,
        netns: &Netns,
        direction: Direction,
    ) -> anyhow::Result<()> {
        if matches!(at, At::Clsact) {
            netns.run(|| aya::programs::tc::qdisc_add_clsact(DEVICE))??;
        }
        self.attach(netns, direction, at.options(LinkOrder::last(), PRIORITY))
    }

    /// Attaches it as a tc filter. The qdisc is left there, as others do.
    pub fn attach_clsact(&mut self, netns: &Netns) -> anyhow::Result<()> {
        // It may have been there already.
        let _ = netns.run(|| aya::programs::tc::qdisc_add_clsact(DEVICE))?;
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        self.attach(netns, Direction::Egress, TcAttachOptions::Netlink(options))
    }

    fn attach(
        &mut self,
        netns: &Netns,
        direction: Direction,
        options: TcAttachOptions,
    ) -> anyhow::Result<()> {
        let direction = match direction {
            Direction::Egress => TcAttachType::Egress,
            Direction::Ingress => TcAttachType::Ingress,
        };
        let attach = || {
            let link = self.classifier.attach_with_options(DEVICE, direction, options)?;
            self.classifier.take_link(link)
        };
        let link = netns.run(attach)??;
        // It stays until its device goes: aya would detach a filter in whatever namespace it is dropped in.
        std::mem::forget(link);
        Ok(())
    }

    /// How many packets it has seen.
    pub fn seen(&self) -> anyhow::Result<u64> {
        Ok(self.seen.get()?)
    }
}

/// Somebody else's program where a cgroup's processes connect: it counts, and may refuse. Detached when this goes.
pub struct Refuser {
    seen: bpf::Number,
    _link: OwnedFd,
}

impl Refuser {
    /// Attaches it at a cgroup, after those that are there; with an errno it refuses everything.
    pub fn attach(cgroup: &Path, errno: Option<i32>) -> anyhow::Result<Self> {
        let seen = bpf::Number::new()?;
        let program = bpf::load_counting_connect4(&seen, errno).context("a program made by hand")?;
        let link = bpf::link_connect4(&program, &File::open(cgroup)?)?;
        Ok(Self { seen, _link: link })
    }

    /// How many calls it has seen.
    pub fn seen(&self) -> anyhow::Result<u64> {
        Ok(self.seen.get()?)
    }
}
