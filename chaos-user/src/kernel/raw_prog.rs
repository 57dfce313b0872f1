//! Loads what aya 0.14 cannot: fmod_ret, which changes what a function of the kernel returns, and one program of the
//! object at several hooks at once.
//!
//! aya's parser refuses an object with a section for fmod_ret, so the program stands in the object as one for
//! LSM. aya has made the maps and filled in the globals by then; here the object is parsed once more, one program of
//! it is relocated to those maps and handed to the kernel as what it shall be ([`RawPlace`];
//! kernel/bpf/syscall.c, `bpf_prog_load` and `bpf_tracing_prog_attach`, 6.18).
//!
//! An fmod_ret program runs before the function. 0 lets the function go on; anything else is returned in its
//! place, unchecked and as 64 bits even where the function returns `int`: the program must sign-extend. What an LSM
//! program returns, the verifier checks. TRACING programs are skipped where one runs already (`recursion_misses`),
//! those for LSM are not from 6.1 on.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::CStr,
    fmt, io, mem,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use aya::{Btf, Ebpf, maps::Map};
use aya_obj::{Function, Object, ProgramSection, btf::BtfKind, generated::bpf_insn};

use super::{btf, kfunc};

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawPlace<'a> {
    /// A hook of LSM, `file_open` for instance. Where BPF is no active security module, it attaches and never runs.
    Lsm(&'a str),
    /// In place of a function of the kernel: a system call's entry point where the kernel allows errors to be
    /// injected into it, or a `security_*` (kernel/bpf/verifier.c, `check_attach_modify_return`, 6.18).
    ModifyReturn(&'a str),
    /// Before a function of the kernel. Such a program returns 0.
    Fentry(&'a str),
    /// After a function of the kernel. Such a program returns 0.
    Fexit(&'a str),
}

/// What is loaded, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct RawProgram<'a> {
    /// The program, which stands in the object as one for LSM.
    pub program: &'a str,
    /// Where it goes.
    pub at: RawPlace<'a>,
    /// The function whose arguments the program reads, `bpf_lsm_file_open` for instance. The verifier does
    /// not notice arguments in another order: `mmap_file` of LSM has others than `security_mmap_file`. `None`
    /// for programs that read none.
    pub written_for: Option<&'a str>,
    /// Whether it may sleep. Only some hooks of LSM take such a program (kernel/bpf/bpf_lsm.c, `sleepable_lsm_hooks`,
    /// 6.18), no `security_*` does, and of other functions those that errors may be injected into.
    pub sleepable: bool,
}

impl RawPlace<'_> {
    /// The function of the kernel that the program is attached to.
    pub(super) fn function(&self) -> String {
        match self {
            Self::Lsm(hook) => format!("bpf_lsm_{hook}"),
            Self::ModifyReturn(function) | Self::Fentry(function) | Self::Fexit(function) => {
                (*function).to_owned()
            }
        }
    }

    /// What the kernel shall take the program for there.
    pub(super) fn kind(&self, btf: &Btf, sleepable: bool) -> Result<ProgramKind, RawProgramError> {
        let (program_type, attach_type) = match self {
            Self::Lsm(_) => (BPF_PROG_TYPE_LSM, BPF_LSM_MAC),
            Self::ModifyReturn(_) => (BPF_PROG_TYPE_TRACING, BPF_MODIFY_RETURN),
            Self::Fentry(_) => (BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY),
            Self::Fexit(_) => (BPF_PROG_TYPE_TRACING, BPF_TRACE_FEXIT),
        };
        let function_id = function_id(btf, &self.function())?;
        Ok(ProgramKind { program_type, attach_type, function_id, sleepable })
    }
}

/// What BTF calls a function of the kernel.
fn function_id(btf: &Btf, function: &str) -> Result<u32, RawProgramError> {
    let id = btf.id_by_type_name_kind(function, BtfKind::Func);
    id.map_err(|source| RawProgramError::NoFunction { function: function.to_owned(), source })
}

/// A program in force.
#[must_use = "dropping a link ends it"]
#[derive(Debug)]
pub struct RawLink {
    _link: OwnedFd,
}

/// Why a program is not in force.
#[derive(Debug, thiserror::Error)]
pub enum RawProgramError {
    /// The object cannot be read.
    #[error("the object: {0}")]
    Object(#[from] aya_obj::ParseError),
    /// What describes its functions cannot be read.
    #[error("the object's BTF: {0}")]
    Btf(#[from] aya_obj::btf::BtfError),
    /// There is no such program in it.
    #[error("the object has no program `{0}`")]
    NoProgram(String),
    /// It is another kind.
    #[error("the object's program `{0}` is not one for LSM")]
    NotForLsm(String),
    /// A map has been taken out of the loaded object already.
    #[error("the loaded object does not hold map {0}: load raw programs before a map is taken out of it")]
    NoMap(String),
    /// The program refers to something that is not there.
    #[error(transparent)]
    Relocation(#[from] aya_obj::relocation::EbpfRelocationError),
    /// The kernel has no such function.
    #[error("this kernel has no function {function}: {source}")]
    NoFunction {
        /// Which.
        function: String,
        /// As BTF says.
        source: aya_obj::btf::BtfError,
    },
    /// The program would read arguments that the function does not have.
    #[error("{0}")]
    Prototype(String),
    /// The kernel does not load it.
    #[error("loading for {function}: {source}{log}")]
    Refused {
        /// For which function.
        function: String,
        /// What the kernel said.
        source: io::Error,
        /// What the verifier said.
        log: VerifierLog,
    },
    /// The kernel does not attach it.
    #[error("attaching to {function}: {source}")]
    Attach {
        /// To which function.
        function: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What the verifier said, if anything.
#[derive(Debug, Default)]
pub struct VerifierLog(String);

impl fmt::Display for VerifierLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "\n{}", self.0) }
    }
}

impl RawLink {
    /// Loads and attaches. `object` is what `ebpf` was loaded from, and `ebpf` must still hold all of its maps;
    /// `btf` describes the running kernel.
    pub fn attach(
        object: &[u8],
        ebpf: &Ebpf,
        btf: &Btf,
        what: RawProgram<'_>,
    ) -> Result<Self, RawProgramError> {
        let function = what.at.function();
        let kind = what.at.kind(btf, what.sleepable)?;
        if let Some(other) = what.written_for {
            btf::same_prototype(other, &function).map_err(RawProgramError::Prototype)?;
        }
        let relocated = RelocatedObject::new(object, ebpf)?.program(what.program, btf)?;
        relocated.stands_as_lsm()?;
        let loaded = relocated.load(kind).map_err(|(source, log)| RawProgramError::Refused {
            function: function.clone(),
            source,
            log,
        })?;
        let link = attach(&loaded).map_err(|source| RawProgramError::Attach { function, source })?;
        // The link keeps the program.
        Ok(Self { _link: link })
    }
}

/// What the kernel shall take a program for.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramKind {
    /// Its type.
    pub(super) program_type: u32,
    /// Where it will be attached; 0 where the type says it all.
    pub(super) attach_type: u32,
    /// BTF id of the function it will be attached to; 0 if it is none.
    pub(super) function_id: u32,
    /// Whether it may sleep.
    pub(super) sleepable: bool,
}

/// An object, relocated to the maps that a loaded one holds.
#[derive(Debug)]
pub(super) struct RelocatedObject {
    object: Object,
    /// What describes its functions: those that are visible outside are verified once, by themselves. A kernel that
    /// does not take it verifies them with each of their callers.
    btf: Option<Arc<OwnedFd>>,
}

/// One program of it, ready for the kernel.
#[derive(Debug)]
pub(super) struct Relocated {
    name: String,
    license: std::ffi::CString,
    section: ProgramSection,
    function: Function,
    btf: Option<Arc<OwnedFd>>,
}

impl RelocatedObject {
    /// Relocates the object that `ebpf` was loaded from to the maps it holds.
    pub(super) fn new(object: &[u8], ebpf: &Ebpf) -> Result<Self, RawProgramError> {
        let mut object = Object::parse(object)?;
        let btf = load_btf(&mut object)?.map(Arc::new);
        let maps = mem::take(&mut object.maps);
        let fds: BTreeMap<&str, RawFd> =
            ebpf.maps().filter_map(|(name, map)| Some((name, map_fd(map)?))).collect();
        let held = maps.iter().map(|(name, map)| {
            let fd = fds.get(name.as_str()).ok_or_else(|| RawProgramError::NoMap(name.clone()))?;
            Ok((name.as_str(), *fd, map))
        });
        let held = held.collect::<Result<Vec<_>, RawProgramError>>()?;
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        // Globals need no patching: they are read from aya's `.rodata` map, which holds the patched ones.
        object.relocate_maps(held.into_iter(), &text)?;
        object.relocate_calls(&text)?;
        Ok(Self { object, btf })
    }

    /// One of its programs, with the functions of the kernel that it calls.
    pub(super) fn program(&self, program: &str, btf: &Btf) -> Result<Relocated, RawProgramError> {
        let no_program = || RawProgramError::NoProgram(program.to_owned());
        let parsed = self.object.programs.get(program).ok_or_else(no_program)?;
        let mut function = self.object.functions.get(&parsed.function_key()).ok_or_else(no_program)?.clone();
        kfunc::resolve(&mut function.instructions, |name| function_id(btf, name))?;
        let (license, section) = (parsed.license.clone(), parsed.section.clone());
        Ok(Relocated { name: program.to_owned(), license, section, function, btf: self.btf.clone() })
    }
}

impl Relocated {
    /// What the object says it is.
    pub(super) fn section(&self) -> &ProgramSection {
        &self.section
    }

    /// Its section says nothing of where it goes.
    fn stands_as_lsm(&self) -> Result<(), RawProgramError> {
        match self.section {
            ProgramSection::Lsm { .. } => Ok(()),
            _ => Err(RawProgramError::NotForLsm(self.name.clone())),
        }
    }

    /// Has it refer to one map in another's place.
    pub(super) fn exchange(&mut self, map: RawFd, by: RawFd) {
        let is_of_map = |instruction: &&mut bpf_insn| {
            instruction.code == LOAD_IMMEDIATE_64
                && instruction.imm == map
                && [PSEUDO_MAP_FD, PSEUDO_MAP_VALUE].contains(&instruction.src_reg())
        };
        self.function.instructions.iter_mut().filter(is_of_map).for_each(|instruction| instruction.imm = by);
    }

    /// Loads it. The verifier is asked for its reasons only when it refuses: it is faster without.
    pub(super) fn load(&self, kind: ProgramKind) -> Result<OwnedFd, (io::Error, VerifierLog)> {
        self.try_load(kind, BPF_LOG_REASONS, &mut []).map_err(|error| {
            let mut log = vec![0; LOG_BYTES];
            let again = self.try_load(kind, BPF_LOG_REASONS, &mut log).err();
            (again.unwrap_or(error), VerifierLog(text(&log)))
        })
    }

    /// Loads it, and returns with it what the verifier says of its own work.
    pub(super) fn load_with_statistics(
        &self,
        kind: ProgramKind,
    ) -> Result<(OwnedFd, String), (io::Error, VerifierLog)> {
        let mut log = vec![0; STATISTICS_BYTES];
        match self.try_load(kind, BPF_LOG_STATS, &mut log) {
            Ok(loaded) => Ok((loaded, text(&log))),
            Err(error) => Err(self.load(kind).err().unwrap_or((error, VerifierLog::default()))),
        }
    }

    fn try_load(&self, kind: ProgramKind, log_level: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
        let instructions: &[bpf_insn] = &self.function.instructions;
        let functions = self.function.func_info.func_info_bytes();
        let described = self.btf.as_ref().filter(|_| !functions.is_empty());
        let mut attributes = Load {
            program_type: kind.program_type,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: self.license.as_ptr() as u64,
            log_level: if log.is_empty() { 0 } else { log_level },
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            kernel_version: 0,
            flags: if kind.sleepable { BPF_F_SLEEPABLE } else { 0 },
            name: kernel_name(&self.name),
            ifindex: 0,
            expected_attach_type: kind.attach_type,
            btf: described.map_or(0, |btf| btf.as_raw_fd() as u32),
            function_info_bytes: described.map_or(0, |_| self.function.func_info_rec_size as u32),
            function_info: described.map_or(0, |_| functions.as_ptr() as u64),
            function_infos: described.map_or(0, |_| self.function.func_info.len() as u32),
            line_info: [0; 4],
            attach_btf_id: kind.function_id,
        };
        let mut attempts_left = LOAD_ATTEMPTS;
        loop {
            attempts_left -= 1;
            match bpf(BPF_PROG_LOAD, &mut attributes) {
                // A signal interrupted the verifier (kernel/bpf/verifier.c, `do_check`, 6.18).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempts_left > 0 => {}
                result => return result,
            }
        }
    }
}

/// What the verifier wrote.
fn text(log: &[u8]) -> String {
    CStr::from_bytes_until_nul(log).unwrap_or_default().to_string_lossy().trim_end().to_owned()
}

/// Hands the kernel what describes an object's functions, as far as it understands that; `None` if it does not.
fn load_btf(object: &mut Object) -> Result<Option<OwnedFd>, RawProgramError> {
    let Some(features) = aya::features().btf() else { return Ok(None) };
    let Some(btf) = object.fixup_and_sanitize_btf(features)? else { return Ok(None) };
    let bytes = btf.to_bytes();
    let mut attributes = LoadBtf {
        btf: bytes.as_ptr() as u64,
        log: 0,
        btf_bytes: bytes.len() as u32,
        log_bytes: 0,
        log_level: 0,
        spare: 0,
    };
    Ok(bpf(BPF_BTF_LOAD, &mut attributes).ok())
}

/// Attaches what was loaded for a function or a hook.
pub(super) fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    // No name: the function was named when the program was loaded.
    bpf(BPF_RAW_TRACEPOINT_OPEN, &mut Open { name: 0, program: program.as_raw_fd() as u32, spare: 0 })
}

/// As the kernel shows it; longer ones are cut.
pub(super) fn kernel_name(program: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name.iter_mut().take(NAME_BYTES - 1).zip(program.bytes()).for_each(|(to, from)| *to = from);
    name
}

/// A map that `ebpf` holds.
pub(super) fn held_map(ebpf: &Ebpf, name: &str) -> Result<RawFd, RawProgramError> {
    ebpf.map(name).and_then(map_fd).ok_or_else(|| RawProgramError::NoMap(name.to_owned()))
}

/// aya has no function for this. Kinds of maps that the object does not have are left out.
fn map_fd(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}

// include/uapi/linux/bpf.h, 6.18.
/// An instruction that loads 64 bits, and what its source register then says of them.
const LOAD_IMMEDIATE_64: u8 = 0x18;
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;
const BPF_PROG_LOAD: i64 = 5;
const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
const BPF_RAW_TRACEPOINT_OPEN: i64 = 17;
const BPF_BTF_LOAD: i64 = 18;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_PROG_TYPE_LSM: u32 = 29;
const BPF_TRACE_FENTRY: u32 = 24;
const BPF_TRACE_FEXIT: u32 = 25;
const BPF_MODIFY_RETURN: u32 = 26;
const BPF_LSM_MAC: u32 = 27;
const BPF_F_SLEEPABLE: u32 = 1 << 4;
pub(super) const NAME_BYTES: usize = 16;
// include/linux/bpf_verifier.h, 6.18: BPF_LOG_LEVEL1 and BPF_LOG_STATS.
const BPF_LOG_REASONS: u32 = 1;
const BPF_LOG_STATS: u32 = 4;

const LOG_BYTES: usize = 1 << 20;
/// A line per function, and a few more.
const STATISTICS_BYTES: usize = 1 << 14;
const LOAD_ATTEMPTS: u32 = 5;

/// The head of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes what is missing as zeros.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_BYTES],
    ifindex: u32,
    expected_attach_type: u32,
    /// The program's own BTF.
    btf: u32,
    function_info_bytes: u32,
    function_info: u64,
    function_infos: u32,
    /// Of which it has none: `line_info_rec_size` to `line_info_cnt`.
    line_info: [u32; 4],
    attach_btf_id: u32,
}

/// The same for BPF_BTF_LOAD.
#[repr(C)]
struct LoadBtf {
    btf: u64,
    log: u64,
    btf_bytes: u32,
    log_bytes: u32,
    log_level: u32,
    spare: u32,
}

/// The same for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    spare: u32,
}

/// How often the kernel has skipped a program as it ran already (`struct bpf_prog_info`, include/uapi/linux/bpf.h, 5.15
/// to 7.3).
pub(super) fn recursion_misses(program: &OwnedFd) -> io::Result<u64> {
    const BYTES: usize = 216;
    const MISSES: usize = 208;
    let mut info = [0_u8; BYTES];
    let mut attributes = InfoByFd {
        program: program.as_raw_fd() as u32,
        info_bytes: BYTES as u32,
        info: info.as_mut_ptr() as u64,
    };
    command(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let mut misses = [0; 8];
    misses.copy_from_slice(&info[MISSES..MISSES + 8]);
    Ok(u64::from_ne_bytes(misses))
}

/// What is asked for there.
#[repr(C)]
struct InfoByFd {
    program: u32,
    info_bytes: u32,
    info: u64,
}

/// A command that returns a descriptor.
pub(super) fn bpf<T>(number: i64, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = command(number, attributes)?;
    // SAFETY: bpf(2) has just returned it, so nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Any other.
pub(super) fn command<T>(number: i64, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attributes` is that long, and every pointer in it is valid during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, number, std::ptr::from_mut(attributes), mem::size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets in `union bpf_attr`, which is ABI.
    #[test]
    fn the_attributes_are_where_the_kernel_looks_for_them() {
        assert_eq!(mem::offset_of!(Load, name), 48);
        assert_eq!(mem::offset_of!(Load, expected_attach_type), 68);
        assert_eq!(mem::offset_of!(Load, btf), 72);
        assert_eq!(mem::offset_of!(Load, function_info), 80);
        assert_eq!(mem::offset_of!(Load, line_info), 92);
        assert_eq!(mem::offset_of!(Load, attach_btf_id), 108);
        assert_eq!(mem::size_of::<Load>(), 112);
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(&kernel_name("probe"), b"probe\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&kernel_name("a_name_of_twenty_one!"), b"a_name_of_twent\0");
    }
}
