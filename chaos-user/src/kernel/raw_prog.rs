//! Loads what aya 0.14 cannot: fmod_ret, which changes what a function of the kernel returns.
//!
//! aya's parser refuses an object with a section of that name, so the program stands in the object as one for
//! LSM. aya has made the maps and filled in the globals by then; here the object is parsed once more, one program of
//! it is relocated to those maps and handed to the kernel as TRACING with the attach type MODIFY_RETURN
//! (kernel/bpf/syscall.c, `bpf_prog_load` and `bpf_tracing_prog_attach`, 6.18).
//!
//! An fmod_ret program runs before the function. 0 lets the function go on; anything else is returned in its
//! place, unchecked and as 64 bits even where the function returns `int`: the program must sign-extend. It is
//! skipped where a TRACING program runs already (`recursion_misses`).

use std::{
    collections::{BTreeMap, HashSet},
    ffi::CStr,
    fmt, io, mem,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use aya::{Btf, Ebpf, maps::Map};
use aya_obj::{Function, Object, ProgramSection, btf::BtfKind, generated::bpf_insn};

use super::btf;

/// What is loaded, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct ModifyReturn<'a> {
    /// The program, which stands in the object as one for LSM.
    pub program: &'a str,
    /// A function of the kernel: a system call's entry point where the kernel allows errors to be injected into
    /// it, or a `security_*` (kernel/bpf/verifier.c, `check_attach_modify_return`, 6.18).
    pub function: &'a str,
    /// The function whose arguments the program reads, `bpf_lsm_file_open` for instance. The verifier does
    /// not notice arguments in another order: `mmap_file` of LSM has others than `security_mmap_file`. `None`
    /// for programs that read none.
    pub written_for: Option<&'a str>,
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
    /// There is no such program in it, or it is another kind.
    #[error("the object has no program `{0}` for LSM")]
    NoProgram(String),
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
    pub fn modify_return(
        object: &[u8],
        ebpf: &Ebpf,
        btf: &Btf,
        what: ModifyReturn<'_>,
    ) -> Result<Self, RawProgramError> {
        let ModifyReturn { program, function, written_for } = what;
        let function_id = btf.id_by_type_name_kind(function, BtfKind::Func);
        let function_id = function_id
            .map_err(|source| RawProgramError::NoFunction { function: function.to_owned(), source })?;
        if let Some(other) = written_for {
            btf::same_prototype(other, function).map_err(RawProgramError::Prototype)?;
        }
        let relocated = Relocated::new(object, ebpf, program)?;
        let loaded = relocated.load(function_id).map_err(|(source, log)| RawProgramError::Refused {
            function: function.to_owned(),
            source,
            log,
        })?;
        let link = attach(&loaded)
            .map_err(|source| RawProgramError::Attach { function: function.to_owned(), source })?;
        // The link keeps the program.
        Ok(Self { _link: link })
    }
}

/// One program, ready for the kernel.
#[derive(Debug)]
struct Relocated {
    name: [u8; NAME_BYTES],
    license: std::ffi::CString,
    sleepable: bool,
    function: Function,
}

impl Relocated {
    fn new(object: &[u8], ebpf: &Ebpf, program: &str) -> Result<Self, RawProgramError> {
        let no_program = || RawProgramError::NoProgram(program.to_owned());
        let mut object = Object::parse(object)?;
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
        let parsed = object.programs.get(program).ok_or_else(no_program)?;
        let ProgramSection::Lsm { sleepable } = parsed.section else { return Err(no_program()) };
        let function = object.functions.get(&parsed.function_key()).ok_or_else(no_program)?.clone();
        Ok(Self { name: kernel_name(program), license: parsed.license.clone(), sleepable, function })
    }

    /// Loads it for the function with this BTF id. The verifier is asked for its reasons only when it refuses:
    /// it is faster without.
    fn load(&self, function_id: u32) -> Result<OwnedFd, (io::Error, VerifierLog)> {
        self.try_load(function_id, &mut []).map_err(|error| {
            let mut log = vec![0; LOG_BYTES];
            let again = self.try_load(function_id, &mut log).err();
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
            (again.unwrap_or(error), VerifierLog(log.trim_end().to_owned()))
        })
    }

    fn try_load(&self, function_id: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
        let instructions: &[bpf_insn] = &self.function.instructions;
        let mut attributes = Load {
            program_type: BPF_PROG_TYPE_TRACING,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: self.license.as_ptr() as u64,
            log_level: (!log.is_empty()).into(),
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            kernel_version: 0,
            flags: if self.sleepable { BPF_F_SLEEPABLE } else { 0 },
            name: self.name,
            ifindex: 0,
            expected_attach_type: BPF_MODIFY_RETURN,
            btf: [0; 9],
            attach_btf_id: function_id,
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

fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    // No name: the function was named when the program was loaded.
    bpf(BPF_RAW_TRACEPOINT_OPEN, &mut Open { name: 0, program: program.as_raw_fd() as u32, spare: 0 })
}

/// As the kernel shows it; longer ones are cut.
fn kernel_name(program: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name.iter_mut().take(NAME_BYTES - 1).zip(program.bytes()).for_each(|(to, from)| *to = from);
    name
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
const BPF_PROG_LOAD: i64 = 5;
const BPF_RAW_TRACEPOINT_OPEN: i64 = 17;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_MODIFY_RETURN: u32 = 26;
const BPF_F_SLEEPABLE: u32 = 1 << 4;
const NAME_BYTES: usize = 16;

const LOG_BYTES: usize = 1 << 20;
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
    /// The program's own BTF, of which it has none: `prog_btf_fd` to `line_info_cnt`.
    btf: [u32; 9],
    attach_btf_id: u32,
}

/// The same for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    spare: u32,
}

/// A command that returns a descriptor.
fn bpf<T>(command: i64, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is that long, and every pointer in it is valid during the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), mem::size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: bpf(2) has just returned it, so nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
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
        assert_eq!(mem::offset_of!(Load, attach_btf_id), 108);
        assert_eq!(mem::size_of::<Load>(), 112);
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(&kernel_name("probe"), b"probe\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&kernel_name("a_name_of_twenty_one!"), b"a_name_of_twent\0");
    }
}
