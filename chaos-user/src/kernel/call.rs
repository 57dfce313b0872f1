//! Programs where system calls pass, each loaded for its point.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use aya::{Ebpf, programs::KProbe};
use chaos_common::{names::program, syscall::CallPoint};

use super::{
    KernelError,
    constant::constant,
    info,
    object::OBJECT,
    probe::vmlinux,
    raw_prog::{self, RawPlace, RawProgramError, RelocatedObject},
};
use crate::fault::{
    plan::Plan,
    syscall::{
        place::{CallPlace, DelayAt, DelayPlace},
        slow::How,
    },
};

/// The section of the constant that is another for each load.
const POINT_SECTION: &str = ".rodata.point";

/// The object, ready to have programs loaded from it, those that were, and their links.
pub struct CallPrograms {
    object: Option<(RelocatedObject, RawFd)>,
    programs: Vec<OwnedFd>,
    /// Those that delay, each copy.
    delaying: Vec<OwnedFd>,
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
        Ok(Self { object, programs: Vec::new(), delaying: Vec::new(), links: Vec::new() })
    }

    /// Attaches one more.
    pub fn attach(&mut self, ebpf: &mut Ebpf, at: &CallPlace, point: CallPoint) -> Result<(), KernelError> {
        let (name, place) = match at {
            CallPlace::Kprobe(function) => return kprobe(ebpf, function),
            CallPlace::Lsm(hook) => (program::CALL_HOOK, RawPlace::Lsm(hook)),
            CallPlace::ModifyReturn(function) => (program::CALL_HOOK, RawPlace::ModifyReturn(function)),
            CallPlace::Begin(function) => (program::CALL_BEGIN, RawPlace::Fentry(function)),
            CallPlace::Judge(function) => (program::CALL_JUDGE, RawPlace::Fentry(function)),
            CallPlace::Delay(place) => return self.attach_delay(place, point),
        };
        let (program, link) = self.load(name, place, point, false)?;
        self.programs.push(program);
        self.links.push(link);
        Ok(())
    }

    fn attach_delay(&mut self, place: &DelayPlace, point: CallPoint) -> Result<(), KernelError> {
        let at = match place.at {
            DelayAt::Lsm => RawPlace::Lsm(&place.name),
            DelayAt::ModifyReturn => RawPlace::ModifyReturn(&place.name),
            DelayAt::After => RawPlace::Fexit(&place.name),
        };
        let name = match (place.how, place.at) {
            (How::Sleep, DelayAt::Lsm) => program::CALL_SLOW,
            (How::Sleep, DelayAt::ModifyReturn | DelayAt::After) => program::CALL_WAIT,
            (How::Spin, _) => program::CALL_SPIN,
        };
        let (loaded, link) = self.load(name, at, point, place.how == How::Sleep)?;
        self.delaying.push(loaded);
        self.links.push(link);
        Ok(())
    }

    /// Ends them all.
    pub fn end(&mut self) {
        self.links.clear();
        self.programs.clear();
        self.delaying.clear();
        self.object = None;
    }

    /// How often the kernel ran none of those that answer where it should have: see [`missed`].
    pub fn recursion_misses(&self, ebpf: &Ebpf) -> Result<u64, KernelError> {
        let by_kprobe = match ebpf.program(program::CALL_OVERRIDE).map(aya::programs::Program::fd) {
            Some(Ok(program)) => missed(program.as_fd())?,
            // Not in the plan, or at no function.
            None | Some(Err(_)) => 0,
        };
        self.programs.iter().try_fold(by_kprobe, |sum, program| Ok(sum + missed(program.as_fd())?))
    }

    /// The same of those that delay, each copy of one by itself.
    pub fn delays_skipped(&self) -> Result<u64, KernelError> {
        self.delaying.iter().try_fold(0, |sum, program| Ok(sum + missed(program.as_fd())?))
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

/// How often the kernel let a program be because it ran already on that CPU (kernel/bpf/trampoline.c,
/// `__bpf_prog_enter_recur`; kernel/trace/bpf_trace.c, `trace_call_bpf`, 6.18). Of the whole host, whoever called.
fn missed(program: BorrowedFd<'_>) -> Result<u64, KernelError> {
    let info = info::of(program).map_err(KernelError::io("the recursion misses of a program"))?;
    Ok(info.recursion_misses)
}
