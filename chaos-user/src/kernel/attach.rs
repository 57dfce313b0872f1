//! Attaching programs where a plan says.

use std::{fs::File, os::fd::AsFd};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, CgroupSockopt,
        LinkOrder, Program, ProgramError, ProgramId, ProgramInfo, RawTracePoint, SchedClassifier,
        TcAttachType, tc::TcAttachOptions,
    },
};
use chaos_common::{names::program, net::Direction};

use super::{
    KernelError,
    fault_point::FaultPoint,
    filter_action,
    journal::Journal,
    qdisc::{self, FilterHandle},
};
use crate::fault::plan::{Attachment, Place, TC_ORDER, Via, is_last, tc_rank};

/// So much of a program's name is kept by the kernel (include/linux/bpf.h, BPF_OBJ_NAME_LEN, 6.18).
const NAME_BYTES: usize = 15;

/// Attaches one program. It is loaded on its first use; the link ends with the object.
pub fn attach(ebpf: &mut Ebpf, journal: &mut Journal, attachment: &Attachment) -> Result<(), KernelError> {
    let what = || attachment.to_string();
    match attachment {
        Attachment::Tc { via: Via::Tcx, program, direction, at } => {
            tcx(ebpf, program, *direction, at).map_err(KernelError::program(what()))
        }
        Attachment::Tc { via: Via::Clsact, program, direction, at } => {
            clsact(ebpf, journal, program, *direction, at)
        }
        Attachment::CgroupSkb { program, direction, cgroup } => {
            let dir = File::open(&cgroup.dir).map_err(KernelError::io(what()))?;
            cgroup_skb(ebpf, program, *direction, &dir).map_err(KernelError::program(what()))
        }
        Attachment::CgroupSock { program, cgroup } => {
            let dir = File::open(&cgroup.dir).map_err(KernelError::io(what()))?;
            cgroup_sock(ebpf, program, &dir).map_err(KernelError::program(what()))
        }
        // Nothing is attached: the controller asks (`super::reset`). Calls have programs of their own (`super::call`).
        Attachment::SockDiag { .. } | Attachment::Call { .. } => Ok(()),
        Attachment::RawTracepoint { program, tracepoint } => {
            raw_tracepoint(ebpf, program, tracepoint).map_err(KernelError::program(what()))
        }
    }
}

/// First of its chain, so that nobody's verdict keeps packets from us; whatever we pass goes on to the rest. What
/// would not, comes last.
pub fn tcx(ebpf: &mut Ebpf, name: &str, direction: Direction, at: &Place) -> Result<(), ProgramError> {
    let classifier: &mut SchedClassifier = loaded(ebpf, name)?;
    let (device, direction) = (&at.device.name, tc_direction(direction));
    let attach = || {
        let order = TcAttachOptions::TcxOrder(tcx_order(device, direction, name)?);
        classifier.attach_with_options(device, direction, order)
    };
    at.netns.run(attach).map_err(ProgramError::IOError)??;
    Ok(())
}

/// Behind those of other injections that a packet must meet before: what is held back leaves as a copy that nobody
/// knows the owner of.
fn tcx_order(device: &str, direction: TcAttachType, name: &str) -> Result<LinkOrder, ProgramError> {
    if is_last(name) {
        return Ok(LinkOrder::last());
    }
    let (_, attached) = SchedClassifier::query_tcx(device, direction)?;
    let comes_before = |info: &ProgramInfo| {
        TC_ORDER[..tc_rank(name)]
            .iter()
            .any(|other| info.name_as_str() == Some(&other[..other.len().min(NAME_BYTES)]))
    };
    let before = attached.iter().rfind(|info| comes_before(info));
    Ok(before.map_or_else(LinkOrder::first, |info| {
        // SAFETY: nothing is made of the id but a place in the chain.
        LinkOrder::after_program_id(unsafe { ProgramId::new(info.id()) })
    }))
}

fn clsact(
    ebpf: &mut Ebpf,
    journal: &mut Journal,
    name: &str,
    direction: Direction,
    at: &Place,
) -> Result<(), KernelError> {
    let device = &at.device.name;
    let what = || format!("clsact qdisc on {device}");
    let has_qdisc = at.netns.run(|| qdisc::has_clsact(device)).and_then(|has| has);
    let adds_qdisc = !has_qdisc.map_err(KernelError::io(what()))?;
    journal.note_clsact(at.netns.inode, device, adds_qdisc).map_err(KernelError::io(what()))?;
    FaultPoint::ClsactNoted.reached();
    if adds_qdisc {
        let added = at.netns.run(|| qdisc::add_clsact(device)).and_then(|added| added);
        added.map_err(KernelError::io(what()))?;
        FaultPoint::ClsactAdded.reached();
    }
    let what = format!("tc filter on {device}");
    if name == program::SHAPE_BY_ACTION {
        return filter_with_action(ebpf, name, at, journal.filters(), what);
    }
    clsact_filter(ebpf, name, direction, at, journal.filters()).map_err(KernelError::program(what))
}

/// One that sends packets through the ifb that is there.
fn filter_with_action(
    ebpf: &mut Ebpf,
    name: &str,
    at: &Place,
    handle: FilterHandle,
    what: String,
) -> Result<(), KernelError> {
    let classifier: &mut SchedClassifier = loaded(ebpf, name).map_err(KernelError::program(what.clone()))?;
    let program = classifier.fd().map_err(KernelError::program(what.clone()))?.as_fd();
    let added = at.netns.run(|| filter_action::add(&at.device.name, name, handle, program));
    added.and_then(|added| added).map_err(KernelError::io(what))
}

/// The filter alone, on a qdisc that is there.
pub fn clsact_filter(
    ebpf: &mut Ebpf,
    name: &str,
    direction: Direction,
    at: &Place,
    handle: FilterHandle,
) -> Result<(), ProgramError> {
    let classifier: &mut SchedClassifier = loaded(ebpf, name)?;
    let attach = || {
        let options = qdisc::attach_options(name, handle);
        let link = classifier.attach_with_options(&at.device.name, tc_direction(direction), options)?;
        // The filter is detached by `qdisc::undo`, in its own namespace; aya would try in ours.
        std::mem::forget(classifier.take_link(link)?);
        Ok(())
    };
    at.netns.run(attach).map_err(ProgramError::IOError)?
}

const fn tc_direction(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Egress => TcAttachType::Egress,
        Direction::Ingress => TcAttachType::Ingress,
    }
}

/// Beside whatever others have attached there: a cgroup link always allows others, and the kernel refuses any
/// flag that says so (kernel/bpf/cgroup.c, `cgroup_bpf_link_attach`, 6.18), hence the mode without flags.
pub fn cgroup_skb(ebpf: &mut Ebpf, name: &str, direction: Direction, dir: &File) -> Result<(), ProgramError> {
    let program: &mut CgroupSkb = loaded(ebpf, name)?;
    let attach_type = match direction {
        Direction::Egress => CgroupSkbAttachType::Egress,
        Direction::Ingress => CgroupSkbAttachType::Ingress,
    };
    program.attach(dir, attach_type, CgroupAttachMode::Single)?;
    Ok(())
}

/// Where calls on sockets pass, beside others just so.
pub fn cgroup_sock(ebpf: &mut Ebpf, name: &str, dir: &File) -> Result<(), ProgramError> {
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    match ebpf.program(name) {
        Some(Program::CgroupSock(_)) => loaded::<CgroupSock>(ebpf, name)?.attach(dir, MODE).map(drop),
        Some(Program::CgroupSockopt(_)) => loaded::<CgroupSockopt>(ebpf, name)?.attach(dir, MODE).map(drop),
        _ => loaded::<CgroupSockAddr>(ebpf, name)?.attach(dir, MODE).map(drop),
    }
}

/// On the whole host.
pub fn raw_tracepoint(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = loaded(ebpf, name)?;
    program.attach(tracepoint)?;
    Ok(())
}

/// A program of the object, loaded.
fn loaded<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    P: Load,
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
    let is_loaded = program.fd().is_ok();
    let program: &mut P = program.try_into()?;
    if !is_loaded {
        program.load_program()?;
    }
    Ok(program)
}

/// Every kind of program loads itself under the same name, but not through a trait of aya's.
trait Load {
    fn load_program(&mut self) -> Result<(), ProgramError>;
}

macro_rules! load {
    ($($program:ty),*) => { $(
        impl Load for $program {
            fn load_program(&mut self) -> Result<(), ProgramError> {
                self.load()
            }
        }
    )* };
}
load!(SchedClassifier, CgroupSkb, CgroupSock, CgroupSockAddr, CgroupSockopt, RawTracePoint);
