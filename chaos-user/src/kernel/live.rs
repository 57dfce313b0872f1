//! The kernel we run on.

use super::{
    Kernel, KernelError, KernelLog, LiveInjection, btf,
    call::CallPrograms,
    fault_point::FaultPoint,
    held::HeldSignals,
    journal::Journal,
    lease::LeaseKeeper,
    loading,
    object::{self, Globals},
    probe,
    shaper::Shaper,
    sleep::{Caps, SleepService},
    symbols,
    watchdog::Watchdog,
};
use crate::fault::{
    Fault,
    capability::{Capabilities, Capability},
    plan::{Attachment, Plan, Via},
    syscall::slow::How,
    wanted::Wanted,
};

/// The kernel we run on.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiveKernel {
    /// Pass on what the kernel programs log.
    pub kernel_log: bool,
}

impl Kernel for LiveKernel {
    type Injection = LiveInjection;

    fn capabilities(&mut self, wanted: &Wanted) -> Result<Capabilities, KernelError> {
        let _held = HeldSignals::hold()?;
        let mut capabilities = probe::probe(&wanted.capabilities)?;
        if !wanted.functions.is_empty() {
            capabilities.lacking = btf::lacking(&wanted.functions).map_err(KernelError::btf)?;
            let unimplemented = symbols::unimplemented(&wanted.functions);
            capabilities.lacking.extend(unimplemented.map_err(KernelError::io(symbols::KALLSYMS))?);
        }
        if capabilities.has(Capability::FmodRetSyscall) {
            capabilities.unmodifiable = probe::unmodifiable(&wanted.functions)?;
        }
        Ok(capabilities)
    }

    fn inject(&mut self, name: &str, plan: &Plan) -> Result<LiveInjection, KernelError> {
        let _held = HeldSignals::hold()?;
        let mut ebpf = loading::load(&Globals::of_plan(plan, self.kernel_log))?;
        object::fill(&mut ebpf, plan)?;
        FaultPoint::Filled.reached();
        let calls = CallPrograms::of(plan, &ebpf)?;
        let sleep = match caps(plan) {
            Some(caps) => Some(SleepService::start(&mut ebpf, caps)?),
            None => None,
        };
        let log = if self.kernel_log { Some(KernelLog::start(&mut ebpf)?) } else { None };
        let lease = LeaseKeeper::new(object::take_lease(&mut ebpf)?, Shaper::take(&mut ebpf, plan)?);
        let attached = plan.attachments.iter().map(ToString::to_string).collect();
        let journal =
            Journal::create(name, attached).map_err(KernelError::io("the journal in /run/kchaos"))?;
        // From here on, whatever fails drops the injection, which undoes what was done.
        let mut injection = LiveInjection::new(ebpf, calls, lease, journal, log, plan);
        injection.sleep = sleep;
        let is_clsact =
            |attachment: &Attachment| matches!(attachment, Attachment::Tc { via: Via::Clsact, .. });
        if !plan.host_changes.is_empty() || plan.attachments.iter().any(is_clsact) {
            injection.watchdog = Some(Watchdog::start(injection.journal.dir())?);
        }
        FaultPoint::Journalled.reached();
        for change in plan.host_changes.iter().filter(|change| change.comes_first()) {
            injection.change(change)?;
        }
        for attachment in &plan.attachments {
            injection.attach(attachment)?;
            FaultPoint::AttachedFirst.reached();
        }
        // Behind the programs, which are not armed: adding and removing a clsact qdisc empties all queues of a device
        // (net/sched/sch_api.c, `qdisc_graft`, 6.1), and undoing runs backwards.
        for change in plan.host_changes.iter().filter(|change| !change.comes_first()) {
            injection.change(change)?;
        }
        FaultPoint::AttachedAll.reached();
        Ok(injection)
    }
}

/// How much may be slept, if anybody shall: of several faults, what the most generous allows.
fn caps(plan: &Plan) -> Option<Caps> {
    let slow = plan.rules.iter().filter_map(|planned| match &planned.fault {
        Fault::Call(fault) if planned.calls.iter().any(|call| call.how == Some(How::Sleep)) => fault.slow,
        _ => None,
    });
    slow.map(|slow| Caps { longest_ns: slow.longest.as_nanos() as u64, at_once: slow.sleepers }).reduce(
        |one, other| Caps {
            longest_ns: one.longest_ns.max(other.longest_ns),
            at_once: one.at_once.max(other.at_once),
        },
    )
}
