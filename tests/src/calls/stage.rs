//! Where an act is made: a folder of its own, what the call needs, and a child that makes it.
//!
//! The child shares memory with its parent, a victim outside of any target. It is moved into a cgroup before it may
//! begin, makes nothing but the call, and stays until its parent has looked at what came of it.

use std::{
    ffi::CString,
    fs,
    io::{self, Error},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    ptr, slice,
    sync::atomic::{AtomicI64, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use kchaos::fault::syscall::{Arch, Syscall};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::act::{Act, Make};

/// So many files, descriptors and mappings are ready; call number *n* takes number *n* of them, in turn.
pub const READY: usize = 3;
/// What is in each file.
pub const CONTENT: &[u8] = b"0123456789abcdef";
/// How much a mapping has.
pub const MAPPED_BYTES: usize = 1 << 20;
/// What a call that did not come back has returned.
pub const NEVER: i64 = i64::MIN;

const OUTPUT_BYTES: usize = 4096;
const MOST: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(40);

/// Whose turn it is.
mod turn {
    pub const PARENT: u32 = 0;
    pub const CHILD: u32 = 1;
    pub const DONE: u32 = 2;
    pub const LEAVE: u32 = 3;
}

/// How often, in which cgroup and as whom an act is made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Making {
    /// Which act.
    pub act: String,
    /// How often.
    pub times: usize,
    /// Where; in the victim's own cgroup if nowhere.
    pub cgroup: Option<PathBuf>,
    /// The child's name.
    pub comm: Option<String>,
    /// Its user.
    pub user: Option<u32>,
    /// Where its files are, instead of a folder of its own.
    pub dir: Option<PathBuf>,
}

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// What each call returned: negative for an errno.
    pub results: Vec<i64>,
    /// How many calls had an effect.
    pub effects: usize,
    /// How the child ended, as wait(2) says it.
    pub status: i32,
    /// How often it handled SIGUSR1.
    pub signals: u32,
}

struct Shared {
    turn: AtomicU32,
    signals: AtomicU32,
    results: [AtomicI64; MOST],
    outputs: [[u8; OUTPUT_BYTES]; READY],
}

/// What an act finds.
pub struct Stage {
    dir: PathBuf,
    _own: Option<TempDir>,
    mounts: Vec<PathBuf>,
    paths: Vec<CString>,
    others: Vec<CString>,
    /// What the calls are made on.
    pub fds: Vec<OwnedFd>,
    /// The other ends of it.
    pub ends: Vec<OwnedFd>,
    /// Mappings, each between two that nobody may touch.
    pub memory: Vec<usize>,
    /// Addresses of sockets, at the other paths.
    pub addresses: Vec<libc::sockaddr_un>,
    /// One buffer each: what is written, and what is read into.
    pub vectors: [[libc::iovec; 1]; 2 * READY],
    /// For openat2.
    pub how: [u64; 3],
    /// A millisecond.
    pub time: libc::timespec,
    /// An option's value.
    pub numbers: [u32; 1],
    /// A limit, soft and hard.
    pub limit: [u64; 2],
    /// Lengths of what is written.
    pub lengths: [AtomicU32; READY],
    /// The arguments of a program.
    pub arguments: [usize; 2],
    shared: *mut Shared,
}

/// A text that ends with a zero, as calls take it.
pub fn text(text: &'static std::ffi::CStr) -> i64 {
    text.as_ptr() as i64
}

/// The address of something, as calls take it.
pub fn address<T: ?Sized>(of: &T) -> i64 {
    ptr::from_ref(of).cast::<u8>() as i64
}

impl Stage {
    fn new(dir: Option<&Path>) -> io::Result<Self> {
        let own = if dir.is_none() { Some(tempfile::Builder::new().prefix("kct").tempdir()?) } else { None };
        let dir = match (dir, &own) {
            (Some(dir), _) => dir.to_owned(),
            (None, Some(own)) => own.path().to_owned(),
            (None, None) => return Err(Error::other("no folder")),
        };
        let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let nothing = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let mut stage = Self {
            dir: PathBuf::new(),
            _own: own,
            mounts: Vec::new(),
            paths: Vec::new(),
            others: Vec::new(),
            fds: Vec::new(),
            ends: Vec::new(),
            memory: Vec::new(),
            addresses: Vec::new(),
            vectors: [[nothing]; 2 * READY],
            how: [0; 3],
            time,
            numbers: [1],
            limit: [7, u64::MAX],
            lengths: [const { AtomicU32::new(4) }; READY],
            arguments: [text(c"true") as usize, 0],
            shared: shared()?,
        };
        stage.set_dir(&dir)?;
        Ok(stage)
    }

    /// From now on all paths are in there.
    pub fn set_dir(&mut self, dir: &Path) -> io::Result<()> {
        dir.clone_into(&mut self.dir);
        let named = |prefix: &str| -> io::Result<Vec<CString>> {
            let path = |number| CString::new(dir.join(format!("{prefix}{number}")).as_os_str().as_bytes());
            Ok((0..READY).map(path).collect::<Result<_, _>>()?)
        };
        (self.paths, self.others) = (named("a")?, named("b")?);
        for place in 0..READY {
            let base = |at: i64, iov_len| libc::iovec { iov_base: at as *mut _, iov_len };
            self.vectors[place] = [base(text(c"XXXX"), 4)];
            self.vectors[READY + place] = [base(self.output(place), 8)];
        }
        self.addresses = self.others.iter().map(|path| unix_address(path.as_bytes())).collect();
        Ok(())
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A filesystem of its own over its folder, which goes with it.
    pub fn mount(&mut self, kind: &str, at: &Path, data: &str) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let nothing: Option<&str> = None;
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(nothing, "/", nothing, private, nothing)?;
        nix::mount::mount(Some(kind), at, Some(kind), nix::mount::MsFlags::empty(), Some(data))?;
        self.mounts.push(at.to_owned());
        Ok(())
    }

    /// The path of a call's file.
    pub fn path(&self, call: usize) -> i64 {
        self.paths[call % READY].as_ptr() as i64
    }

    /// The same from its folder on.
    pub fn name(&self, call: usize) -> i64 {
        self.path(call) + self.dir.as_os_str().len() as i64 + 1
    }

    /// The path that it makes.
    pub fn other(&self, call: usize) -> i64 {
        self.others[call % READY].as_ptr() as i64
    }

    /// The same as paths of ours.
    pub fn names(&self, others: bool) -> impl Iterator<Item = PathBuf> + '_ {
        let names = if others { &self.others } else { &self.paths };
        names.iter().map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes())))
    }

    /// The descriptor of a call.
    pub fn fd(&self, call: usize) -> i64 {
        self.fds[call % self.fds.len()].as_raw_fd().into()
    }

    /// The other end of it.
    pub fn end(&self, call: usize) -> i64 {
        self.ends[call % self.ends.len()].as_raw_fd().into()
    }

    /// Where a call's output goes, which its parent sees.
    pub fn output(&self, call: usize) -> i64 {
        // SAFETY: mapped as long as the stage is.
        unsafe { (&raw mut (*self.shared).outputs[call % READY]) as i64 }
    }

    /// How many outputs have been written to.
    pub fn filled(&self) -> usize {
        let is_filled = |call: &usize| {
            // SAFETY: as above; the child is waiting.
            let output = unsafe { slice::from_raw_parts(self.output(*call) as *const u8, OUTPUT_BYTES) };
            output.iter().any(|byte| *byte != 0)
        };
        (0..READY).filter(is_filled).count()
    }

    fn shared(&self) -> &Shared {
        // SAFETY: as above, and all that both sides touch at once is atomic.
        unsafe { &*self.shared }
    }

    /// What each call has returned.
    pub fn results(&self) -> Vec<i64> {
        self.shared().results.iter().map(|result| result.load(Ordering::SeqCst)).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.fds.clear();
        self.ends.clear();
        for at in self.mounts.drain(..).rev() {
            // Goes with the victim's namespace otherwise.
            let _ = nix::mount::umount2(&at, nix::mount::MntFlags::MNT_DETACH);
        }
        for at in self.memory.drain(..) {
            // SAFETY: what `mapped` has mapped, of which nobody knows any more.
            unsafe { libc::munmap((at - MAPPED_BYTES) as *mut _, 3 * MAPPED_BYTES) };
        }
        // SAFETY: what `shared` has mapped.
        unsafe { libc::munmap(self.shared.cast(), size_of::<Shared>()) };
    }
}

/// Zeros that a child shares.
fn shared() -> io::Result<*mut Shared> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: new memory, of which all zeros is a value.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), size_of::<Shared>(), libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if at == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(at.cast()) }
}

fn unix_address(path: &[u8]) -> libc::sockaddr_un {
    let mut address =
        libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    address
}

extern "C" fn note_signal(_signal: i32) {
    let shared = SHARED_OF_CHILD.load(Ordering::SeqCst) as *const Shared;
    // SAFETY: set before the handler is.
    unsafe { (*shared).signals.fetch_add(1, Ordering::SeqCst) };
}

static SHARED_OF_CHILD: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Makes an act and says what came of it.
pub fn perform(making: &Making) -> io::Result<Made> {
    let act = Act::named(&making.act).ok_or_else(|| Error::other(format!("no act {}", making.act)))?;
    if making.times > MOST {
        return Err(Error::other("too often"));
    }
    let number = act.call().and_then(|call| call.number(Arch::HERE)).unwrap_or(0);
    let mut stage = Stage::new(making.dir.as_deref())?;
    (act.prepare)(&mut stage)
        .map_err(|error| Error::new(error.kind(), format!("preparing {}: {error}", act.label)))?;
    for result in &stage.shared().results {
        result.store(NEVER, Ordering::SeqCst);
    }
    let comm = CString::new(making.comm.clone().unwrap_or_default())?;
    SHARED_OF_CHILD.store(stage.shared as usize, Ordering::SeqCst);
    // SAFETY: the victim has one thread, and the child does nothing but calls.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(Error::last_os_error()),
        0 => in_child(act, number, &stage, making.times, &comm, making.user),
        child => child,
    };
    let made = watched(act, &stage, child, making);
    stage.shared().turn.store(turn::LEAVE, Ordering::SeqCst);
    let status = match &made {
        Ok((_, Some(status))) => *status,
        _ => wait(child, &|_| None)?,
    };
    let (effects, _) = made?;
    let mut results = stage.results();
    results.truncate(making.times);
    act.clean(&results);
    let never_came_back = results.first() == Some(&NEVER);
    if act.is_program() && never_came_back && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
        // It has become another program, and that ended in peace.
        return Ok(Made { results: vec![0; making.times], effects: making.times, status, signals: 0 });
    }
    let signals = stage.shared().signals.load(Ordering::SeqCst);
    Ok(Made { results, effects, status, signals })
}

/// Lets the child begin, and looks at it once it is done or gone.
fn watched(act: &Act, stage: &Stage, child: i32, making: &Making) -> io::Result<(usize, Option<i32>)> {
    if let Some(cgroup) = &making.cgroup {
        fs::write(cgroup.join("cgroup.procs"), child.to_string())?;
    }
    stage.shared().turn.store(turn::CHILD, Ordering::SeqCst);
    let is_done = |_| (stage.shared().turn.load(Ordering::SeqCst) == turn::DONE).then_some(0);
    let status = wait(child, &is_done)?;
    let is_alive = stage.shared().turn.load(Ordering::SeqCst) == turn::DONE;
    Ok((act.effect.count(stage, child), (!is_alive).then_some(status)))
}

/// Waits for an end of the child, or for what `or` says.
fn wait(child: i32, or: &dyn Fn(i32) -> Option<i32>) -> io::Result<i32> {
    let begin = Instant::now();
    loop {
        if let Some(end) = or(child) {
            return Ok(end);
        }
        let mut status = 0;
        // SAFETY: a child of ours, or one that is gone.
        match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
            0 if begin.elapsed() > PATIENCE => {
                // SAFETY: our child.
                unsafe { libc::kill(child, libc::SIGKILL) };
                return Err(Error::other("the child does not end"));
            }
            0 => thread::sleep(Duration::from_micros(200)),
            -1 => return Err(Error::last_os_error()),
            _ => return Ok(status),
        }
    }
}

fn in_child(act: &Act, number: u32, stage: &Stage, times: usize, comm: &CString, user: Option<u32>) -> ! {
    let shared = stage.shared();
    // SAFETY: calls that take no memory but what lives as long as the child.
    unsafe {
        libc::signal(libc::SIGUSR1, note_signal as *const () as usize);
        if !comm.is_empty() {
            libc::prctl(libc::PR_SET_NAME, comm.as_ptr());
        }
        if let Some(user) = user {
            libc::syscall(libc::SYS_setresuid, user, user, user);
        }
    }
    wait_for(shared, turn::CHILD);
    for call in 0..times {
        let result = match act.make {
            Make::Call(arguments) => raw(number, arguments(stage, call)),
            Make::Own(make) => make(stage, call),
        };
        if result == 0 && act.forks() {
            leave();
        }
        shared.results[call].store(result, Ordering::SeqCst);
    }
    shared.turn.store(turn::DONE, Ordering::SeqCst);
    wait_for(shared, turn::LEAVE);
    leave()
}

fn wait_for(shared: &Shared, turn: u32) {
    const { assert!(turn::PARENT == 0) };
    while shared.turn.load(Ordering::SeqCst) != turn {
        // SAFETY: takes nothing.
        unsafe { libc::syscall(libc::SYS_sched_yield) };
    }
}

fn leave() -> ! {
    // SAFETY: ends this process and nothing else.
    unsafe { libc::_exit(0) }
}

/// The call itself; negative for an errno, as the kernel has it.
pub fn raw(number: u32, [a, b, c, d, e, f]: [i64; 6]) -> i64 {
    // SAFETY: what is pointed to lives on the stage.
    let result = unsafe { libc::syscall(number.into(), a, b, c, d, e, f) };
    if result == -1 { -i64::from(Error::last_os_error().raw_os_error().unwrap_or(0)) } else { result }
}

/// The same by its name.
pub fn raw_named(name: &str, arguments: [i64; 6]) -> i64 {
    let number = Syscall::named(name).and_then(|call| call.number(Arch::HERE));
    number.map_or(-i64::from(libc::ENOSYS), |number| raw(number, arguments))
}
