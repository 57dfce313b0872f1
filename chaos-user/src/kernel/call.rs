//! Programs where system calls pass, each loaded for its point.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use aya::{Ebpf, programs::KProbe};
use aya_obj::btf::BtfKind;
use chaos_common::{names::program, syscall::CallPoint};

use super::{
    KernelError,
    object::OBJECT,
    probe::vmlinux,
    raw_prog::{self, ProgramKind, RawProgramError, RelocatedObject},
};
use crate::fault::{plan::Plan, syscall::point::CallPlace};

/// The section of the constant that is another for each load.
const POINT_SECTION: &str = ".rodata.point";

/// The object, ready to have programs loaded from it, and the links of those that were.
pub struct CallPrograms {
    object: Option<(RelocatedObject, RawFd)>,
    links: Vec<OwnedFd>,
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
        Ok(Self { object, links: Vec::new() })
    }

    /// Attaches one more.
    pub fn attach(&mut self, ebpf: &mut Ebpf, at: &CallPlace, point: CallPoint) -> Result<(), KernelError> {
        let link = match at {
            CallPlace::Kprobe(function) => return kprobe(ebpf, function),
            CallPlace::Lsm(hook) => {
                self.load(program::CALL_HOOK, &format!("bpf_lsm_{hook}"), ProgramKind::LSM, point)?
            }
            CallPlace::ModifyReturn(function) => {
                self.load(program::CALL_HOOK, function, ProgramKind::MODIFY_RETURN, point)?
            }
            CallPlace::Begin(function) => {
                self.load(program::CALL_BEGIN, function, ProgramKind::FENTRY, point)?
            }
        };
        self.links.push(link);
        Ok(())
    }

    /// Ends them all.
    pub fn end(&mut self) {
        self.links.clear();
        self.object = None;
    }

    fn load(
        &self,
        name: &str,
        function: &str,
        kind: ProgramKind,
        point: CallPoint,
    ) -> Result<OwnedFd, KernelError> {
        let (object, point_map) =
            self.object.as_ref().ok_or_else(|| RawProgramError::NoProgram(name.to_owned()))?;
        let id = vmlinux().map_err(KernelError::btf)?.id_by_type_name_kind(function, BtfKind::Func);
        let no_function = |source| RawProgramError::NoFunction { function: function.to_owned(), source };
        let kind = ProgramKind { function_id: id.map_err(no_function)?, ..kind };
        let constant = raw_prog::constant(POINT_SECTION, point).map_err(KernelError::io(POINT_SECTION))?;
        let mut relocated = object.program(name)?;
        relocated.exchange(*point_map, constant.as_raw_fd());
        let refused = |(source, log)| RawProgramError::Refused { function: function.to_owned(), source, log };
        let loaded = relocated.load(kind).map_err(refused)?;
        let not_attached = |source| RawProgramError::Attach { function: function.to_owned(), source };
        Ok(raw_prog::attach(&loaded).map_err(not_attached)?)
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
