//! Programs where system calls pass, each loaded for its point.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use aya::{Ebpf, programs::KProbe};
use chaos_common::{names::program, syscall::CallPoint};

use super::{
    KernelError,
    constant::constant,
    object::OBJECT,
    probe::vmlinux,
    raw_prog::{self, RawPlace, RawProgramError, RelocatedObject},
};
use crate::fault::{
    plan::Plan,
    syscall::{
        point::{CallPlace, DelayAt, DelayPlace},
        slow::How,
    },
};

/// The section of the constant that is another for each load.
const POINT_SECTION: &str = ".rodata.point";

/// The object, ready to have programs loaded from it, and the links of those that were.
pub struct CallPrograms {
    object: Option<(RelocatedObject, RawFd)>,
    links: Vec<OwnedFd>,
    /// Programs that the kernel skips while they sleep.
    skipped: Vec<OwnedFd>,
}

impl CallPrograms {
    /// For a plan; nothing for one without such points. `ebpf` must still hold all of its maps.
    pub fn of(plan: &Plan, ebpf: &Ebpf) -> Result<Self, KernelError> {
        let object = match plan.points.points.is_empty() {
            true => None,
            false => {
                let point = raw_prog::held_map(ebpf, POINT_SECTION)?;
                Some((RelocatedObject::new(OBJECT, ebpf)?, point))
            }
        };
        Ok(Self { object, links: Vec::new(), skipped: Vec::new() })
    }

    /// Attaches one more.
    pub fn attach(&mut self, ebpf: &mut Ebpf, at: &CallPlace, point: CallPoint) -> Result<(), KernelError> {
        let (name, place) = match at {
            CallPlace::Kprobe(function) => return kprobe(ebpf, function),
            CallPlace::Lsm(hook) => (program::CALL_HOOK, RawPlace::Lsm(hook)),
            CallPlace::ModifyReturn(function) => (program::CALL_HOOK, RawPlace::ModifyReturn(function)),
            CallPlace::Begin(function) => (program::CALL_BEGIN, RawPlace::Fentry(function)),
            CallPlace::Delay(place) => return self.attach_delay(place, point),
        };
        let (_, link) = self.load(name, place, point, false)?;
        self.links.push(link);
        Ok(())
    }

    fn attach_delay(&mut self, place: &DelayPlace, point: CallPoint) -> Result<(), KernelError> {
        let at = match place.at {
            DelayAt::Lsm => RawPlace::Lsm(&place.name),
            DelayAt::ModifyReturn => RawPlace::ModifyReturn(&place.name),
            DelayAt::After => RawPlace::Fexit(&place.name),
        };
        let name = match place.how {
            How::Sleep => program::CALL_SLOW,
            How::Spin => program::CALL_SPIN,
        };
        let (loaded, link) = self.load(name, at, point, place.how == How::Sleep)?;
        self.links.push(link);
        if place.at != DelayAt::Lsm {
            self.skipped.push(loaded);
        }
        Ok(())
    }

    /// How often programs were skipped that delay, as they slept on that processor already.
    pub fn recursion_misses(&self) -> Result<u64, KernelError> {
        let misses = |program: &OwnedFd| raw_prog::recursion_misses(program);
        self.skipped.iter().map(misses).sum::<io::Result<u64>>().map_err(KernelError::io("bpf_prog_info"))
    }

    /// Ends them all.
    pub fn end(&mut self) {
        self.links.clear();
        self.skipped.clear();
        self.object = None;
    }

    fn load(
        &self,
        name: &str,
        at: RawPlace<'_>,
        point: CallPoint,
        sleepable: bool,
    ) -> Result<(OwnedFd, OwnedFd), KernelError> {
        let (object, point_map) =
            self.object.as_ref().ok_or_else(|| RawProgramError::NoProgram(name.to_owned()))?;
        let btf = vmlinux().map_err(KernelError::btf)?;
        let kind = at.kind(btf, sleepable)?;
        let constant = constant(POINT_SECTION, point).map_err(KernelError::io(POINT_SECTION))?;
        let mut relocated = object.program(name, btf)?;
        relocated.exchange(*point_map, constant.as_raw_fd());
        let refused = |(source, log)| RawProgramError::Refused { function: at.function(), source, log };
        let loaded = relocated.load(kind).map_err(refused)?;
        let not_attached = |source| RawProgramError::Attach { function: at.function(), source };
        let link = raw_prog::attach(&loaded).map_err(not_attached)?;
        Ok((loaded, link))
    }
}

/// One program serves all: that it is loaded for no function in particular is what tells a kprobe from the rest.
fn kprobe(ebpf: &mut Ebpf, function: &str) -> Result<(), KernelError> {
    let what = || format!("kprobe at {function}");
    let missing = || aya::programs::ProgramError::NotLoaded;
    let program =
        ebpf.program_mut(program::CALL_OVERRIDE).ok_or_else(missing).map_err(KernelError::program(what()))?;
    let program: &mut KProbe = program.try_into().map_err(KernelError::program(what()))?;
    if program.fd().is_err() {
        program.load().map_err(KernelError::program(what()))?;
    }
    program.attach(function, 0).map(drop).map_err(KernelError::program(what()))
}
