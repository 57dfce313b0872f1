//! A plan in force.

use std::time::Duration;

use aya::Ebpf;

use super::{
    CallReport, Injection, KernelError, KernelLog, Rollback, attach,
    call::CallPrograms,
    clock::monotonic_ns,
    counters,
    fault_point::FaultPoint,
    fq, ifb,
    journal::Journal,
    lease::LeaseKeeper,
    netem,
    observe::counted_by,
    reset::Resets,
    sleep::{self, Delays, SleepService},
    sweep,
    watchdog::Watchdog,
};
use crate::{
    fault::{
        host_change::HostChange,
        plan::{Attachment, Plan},
    },
    steady::{family::Family, reading::Reading, sample::Sample},
    target::{Cgroup, Netns},
};

/// A plan in force on the kernel we run on; owns every handle.
#[must_use = "dropping an injection rolls it back"]
pub struct LiveInjection {
    ebpf: Option<Ebpf>,
    pub(super) journal: Journal,
    pub(super) watchdog: Option<Watchdog>,
    calls: CallPrograms,
    /// Those who let callers sleep.
    pub(super) sleep: Option<SleepService>,
    delays: bool,
    lease: LeaseKeeper,
    resets: Resets,
    log: Option<KernelLog>,
    rules: u32,
    cgroups: Vec<Cgroup>,
    counted: Vec<Family>,
    programs: usize,
    /// Held open so that residue can be undone even when its last process is gone.
    namespaces: Vec<Netns>,
    rolled_back: bool,
}

impl LiveInjection {
    pub(super) fn new(
        ebpf: Ebpf,
        calls: CallPrograms,
        lease: LeaseKeeper,
        journal: Journal,
        log: Option<KernelLog>,
        plan: &Plan,
    ) -> Self {
        let namespaces = plan.attachments.iter().filter_map(|attachment| match attachment {
            Attachment::Tc { at, .. } => Some(at.netns.clone()),
            _ => None,
        });
        let changed = plan.host_changes.iter().map(|change| change.netns().clone());
        let resets = Resets::new(plan, lease.view());
        let programs = plan.attachments.iter().filter(|one| !matches!(one, Attachment::SockDiag { .. }));
        Self {
            ebpf: Some(ebpf),
            calls,
            sleep: None,
            delays: plan.rules.iter().flat_map(|rule| &rule.calls).any(|call| call.how.is_some()),
            journal,
            watchdog: None,
            lease,
            resets,
            log,
            rules: plan.rules.len() as u32,
            cgroups: plan.targets.iter().map(|target| target.cgroup.clone()).collect(),
            counted: counted_by(&plan.attachments),
            programs: programs.count(),
            namespaces: namespaces.chain(changed).collect(),
            rolled_back: false,
        }
    }

    /// Makes one more change of the host.
    pub(super) fn change(&mut self, change: &HostChange) -> Result<(), KernelError> {
        match change {
            HostChange::RootFq { at, limit, hold, .. } => {
                fq::replace_root(&mut self.journal, at, *limit, *hold)
            }
            HostChange::RootNetem { at, netem, bands, hold, .. } => {
                netem::change(&mut self.journal, at, netem, *bands, *hold)
            }
            HostChange::Ifb { netns, limit, hold } => ifb::make(&mut self.journal, netns, *limit, *hold),
        }
    }

    /// Attaches one more program, or opens the door for what is done without one.
    pub(super) fn attach(&mut self, attachment: &Attachment) -> Result<(), KernelError> {
        if let Attachment::SockDiag { rule, netns, .. } = attachment {
            return self.resets.open(*rule, netns);
        }
        if let Attachment::Call { at, point } = attachment {
            return self.calls.attach(self.ebpf.as_mut().ok_or_else(ended)?, at, *point);
        }
        match &mut self.ebpf {
            Some(ebpf) => attach::attach(ebpf, &mut self.journal, attachment),
            None => Err(ended()),
        }
    }

    /// Everything that is counted of each target. Of the errors of its calls, those that faults gave are told apart.
    pub fn reading(&mut self) -> Result<Reading, KernelError> {
        let ebpf = self.ebpf.as_mut().ok_or_else(ended)?;
        counters::reading(ebpf, &self.cgroups, &self.counted)
    }

    /// Disarm, detach, undo; each is tried whatever became of the one before.
    fn undo(&mut self) -> Rollback {
        self.rolled_back = true;
        let mut rollback = Rollback::default();
        rollback.step("disarm", self.disarm());
        FaultPoint::Disarmed.reached();
        self.log = None;
        // Whoever sleeps wakes before programs are detached, which takes its time. None has anybody else sleep: they are
        // disarmed, and their sleep has ended.
        self.sleep = None;
        self.calls.end();
        // A link ends when the kernel loses the last reference to it: its handle in here.
        self.ebpf = None;
        rollback.step::<KernelError>(format!("detach {} programs", self.programs), Ok(()));
        FaultPoint::Detached.reached();
        for residue in self.journal.residue().iter().rev() {
            let netns = self.namespaces.iter().find(|netns| sweep::lies_in(residue, netns));
            rollback.step(sweep::command(residue, netns), sweep::undo(residue, netns));
        }
        FaultPoint::Undone.reached();
        if rollback.is_complete() {
            rollback.step(format!("rm -r {}", self.journal.dir().display()), self.journal.remove());
        }
        FaultPoint::Forgotten.reached();
        self.watchdog = None;
        rollback
    }
}

fn ended() -> KernelError {
    KernelError::io("the injection")(std::io::Error::other("has been rolled back"))
}

impl Injection for LiveInjection {
    fn arm(&mut self, duration: Duration) -> Result<(), KernelError> {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.resets.stop_dry()?;
        self.lease.arm(monotonic_ns().saturating_add(duration_ns))?;
        self.resets.start()?;
        FaultPoint::Armed.reached();
        Ok(())
    }

    fn arm_dry(&mut self, duration: Duration) -> Result<(), KernelError> {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.lease.arm_dry(monotonic_ns().saturating_add(duration_ns))?;
        self.resets.start_dry()
    }

    fn disarm(&mut self) -> Result<(), KernelError> {
        let disarmed = self.lease.disarm();
        self.resets.stop().and(disarmed)
    }

    fn sample(&mut self) -> Result<Sample, KernelError> {
        self.lease.beat();
        let ebpf = self.ebpf.as_mut().ok_or_else(ended)?;
        let mut sample = counters::full_sample(ebpf, self.rules, &self.cgroups, &self.counted)?;
        self.resets.add_to(&mut sample.rules)?;
        Ok(sample)
    }

    fn calls(&mut self) -> Result<CallReport, KernelError> {
        let ebpf = self.ebpf.as_mut().ok_or_else(ended)?;
        let delays = match self.delays {
            true => Some(Delays::new(&sleep::stats(ebpf)?, self.calls.delays_skipped()?)),
            false => None,
        };
        Ok(CallReport { recursion_misses: self.calls.recursion_misses(ebpf)?, delays })
    }

    fn rollback(mut self) -> Rollback {
        self.undo()
    }
}

impl Drop for LiveInjection {
    fn drop(&mut self) {
        if self.rolled_back {
            return;
        }
        let rollback = self.undo();
        for step in rollback.steps.iter().filter(|step| step.error.is_some()) {
            log::error!("rollback: {}: {}", step.what, step.error.as_deref().unwrap_or_default());
        }
    }
}
