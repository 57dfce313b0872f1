//! The ways to have an effect on a call, best first.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::{
    Arch, Errors, Syscall,
    hook::{self, Hook, Only},
    name::listed,
    plausible,
};
use crate::{
    fault::{capability::Capability, mechanism::Mechanism, refuse::SocketCall},
    units::{BadValue, quoted},
};

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails, without having done anything.
    Errno(Errors),
    /// It says that it succeeded, without having done anything.
    Return(Forged),
    /// Its thread gets a signal.
    Signal,
    /// It takes longer.
    Delay,
}

/// What a call that did nothing says it has done: a number of bytes, a descriptor, or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged(i64);

impl Forged {
    /// The number.
    pub const fn value(self) -> i64 {
        self.0
    }
}

impl FromStr for Forged {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.trim().parse::<i64>() {
            Ok(value @ 0..) => Ok(Self(value)),
            Ok(_) => Err(BadValue::new(format!("{} is an error", quoted(text)), "use the fault `errno`")),
            Err(_) => {
                let right = format!("write a whole number from 0 to {}", i64::MAX);
                Err(BadValue::new(format!("{} is not a value to return", quoted(text)), right))
            }
        }
    }
}

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which sockets a fault is about. Hooks at a cgroup cost nobody else anything, but see only some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sockets {
    /// Of any family.
    #[default]
    Any,
    /// Of IPv4 and IPv6.
    Ip,
    /// Of UDP, where the call names a peer.
    UdpToPeer,
}

impl Sockets {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Any, Self::Ip, Self::UdpToPeer];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Ip => "ip",
            Self::UdpToPeer => "udp-to-peer",
        }
    }
}

/// Where programs are attached, from the best to the last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// At the target's cgroup.
    CgroupSock,
    /// At hooks of the security modules.
    Lsm,
    /// At the functions that run these hooks.
    FmodRetSecurity,
    /// At the function of the call.
    FmodRetSyscall,
    /// There too, where fmod_ret cannot be.
    Kprobe,
}

impl Rung {
    /// All of them, best first.
    pub const ALL: [Self; 5] =
        [Self::CgroupSock, Self::Lsm, Self::FmodRetSecurity, Self::FmodRetSyscall, Self::Kprobe];

    /// What it is called where users choose.
    pub const fn mechanism(self) -> Mechanism {
        match self {
            Self::CgroupSock => Mechanism::CgroupSock,
            Self::Lsm => Mechanism::Lsm,
            Self::FmodRetSecurity => Mechanism::FmodRetSecurity,
            Self::FmodRetSyscall => Mechanism::FmodRetSyscall,
            Self::Kprobe => Mechanism::Kprobe,
        }
    }

    /// What the kernel must be able to do for this effect.
    pub const fn needs(self, effect: &Effect) -> Capability {
        match (self, effect) {
            (Self::CgroupSock, _) => Capability::SockAddr,
            (Self::Lsm, _) => Capability::Lsm,
            (Self::FmodRetSecurity, _) => Capability::FmodRetSecurity,
            (Self::FmodRetSyscall, _) => Capability::FmodRetSyscall,
            // A signal alone needs no answer, but the program that sends it has one.
            (Self::Kprobe, Effect::Errno(_) | Effect::Return(_) | Effect::Signal) => Capability::Override,
            (Self::Kprobe, Effect::Delay) => Capability::Kprobe,
        }
    }
}

/// A way to have an effect on a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which kind of place.
    pub rung: Rung,
    /// Where exactly. A call passes one of them.
    pub places: Vec<Place>,
    /// Which of the calls it never sees.
    pub misses: Option<&'static str>,
}

/// Where a program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a cgroup, for this call on a socket.
    Cgroup(SocketCall),
    /// At a hook, or the function that runs it.
    Hook(&'static Hook),
    /// At the function of a call.
    Function(String),
}

impl Way {
    /// Whether the thread may sleep there: the function of a call is among those where fmod_ret programs may
    /// (`check_non_sleepable_error_inject`, kernel/bpf/verifier.c, 5.15 to 6.12), the functions of hooks are not.
    pub fn sleeps(&self) -> bool {
        self.places.iter().all(|place| match (self.rung, place) {
            (Rung::Lsm, Place::Hook(hook)) => hook.sleeps,
            (Rung::FmodRetSyscall, _) => true,
            _ => false,
        })
    }

    /// What has happened before it is met.
    pub fn after(&self) -> Option<&'static str> {
        self.places.iter().find_map(|place| match place {
            Place::Hook(hook) => hook.after,
            Place::Cgroup(_) | Place::Function(_) => None,
        })
    }

    /// The functions that the kernel must have for it.
    pub fn functions(&self) -> Vec<String> {
        let name = |(rung, name): (Rung, String)| match rung {
            Rung::CgroupSock => None,
            Rung::Lsm => Some(format!("bpf_lsm_{name}")),
            Rung::FmodRetSecurity | Rung::FmodRetSyscall | Rung::Kprobe => Some(name),
        };
        self.points().filter_map(name).collect()
    }

    /// The names of its places.
    pub fn points(&self) -> impl Iterator<Item = (Rung, String)> {
        self.places.iter().map(|place| {
            let name = match (self.rung, place) {
                (_, Place::Cgroup(call)) => call.name(),
                (Rung::FmodRetSecurity, Place::Hook(hook)) => hook.function.unwrap_or(hook.name),
                (_, Place::Hook(hook)) => hook.name,
                (_, Place::Function(name)) => name,
            };
            (self.rung, name.to_owned())
        })
    }
}

/// The ways to have an effect on a call, best first, and why the other rungs have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// Best first.
    pub ways: Vec<Way>,
    /// The rungs without a way.
    pub ruled_out: Vec<(Rung, &'static str)>,
}

/// Calls that never come back, or whose answer is no answer: what they return, nobody reads, or the thread is lost
/// (sigreturn(2), exit(2); `restart_syscall` answers for another call).
const WITHOUT_ANSWER: &str = "exit exit_group rt_sigreturn restart_syscall uprobe uretprobe";

/// Calls that a program mostly makes without entering the kernel.
const VDSO: &str = "clock_gettime clock_getres gettimeofday time getcpu getrandom";

/// All ways there are.
pub fn ladder(call: Syscall, effect: &Effect, sockets: Sockets, arch: Arch) -> Ladder {
    let mut ladder = Ladder { ways: Vec::new(), ruled_out: Vec::new() };
    for rung in Rung::ALL {
        match ways(rung, call, effect, sockets, arch) {
            Ok(ways) => ladder.ways.extend(ways),
            Err(why) => ladder.ruled_out.push((rung, why)),
        }
    }
    if *effect == Effect::Delay {
        // Where a thread cannot sleep it spins, at its CPU's expense, and for less than a millisecond.
        ladder.ways.sort_by_key(|way| !way.sleeps());
    }
    ladder
}

fn ways(
    rung: Rung,
    call: Syscall,
    effect: &Effect,
    sockets: Sockets,
    arch: Arch,
) -> Result<Vec<Way>, &'static str> {
    let function = call.function(arch).ok_or("this architecture does not have the call")?;
    // brk(2): on failure the system call returns the break as it was, and the C library takes any other answer for one.
    if call.name() == "brk" && matches!(effect, Effect::Errno(_)) && rung != Rung::FmodRetSecurity {
        return Err(
            "it says that it failed by returning the old break, which only this does: fmod-ret-security",
        );
    }
    let answers = matches!(effect, Effect::Errno(_) | Effect::Return(_));
    if answers && listed(WITHOUT_ANSWER, call.name()) {
        return Err("nobody would read what the call returns");
    }
    match rung {
        Rung::CgroupSock => cgroup(call, effect, sockets),
        Rung::Lsm | Rung::FmodRetSecurity => hooks(rung, call, effect),
        // With 0 the program lets the function run (`invoke_bpf_mod_ret`, arch/x86/net/bpf_jit_comp.c, 5.15 to 6.12).
        Rung::FmodRetSyscall if matches!(effect, Effect::Return(Forged(0))) => {
            Err("0 would let the call go on")
        }
        Rung::FmodRetSyscall | Rung::Kprobe => {
            let misses = listed(VDSO, call.name()).then_some("calls that the vDSO answers (vdso(7))");
            Ok(vec![Way { rung, places: vec![Place::Function(function)], misses }])
        }
    }
}

/// Programs at a cgroup only say yes or no. A call is met there if the fault is about no other sockets than it sees.
fn cgroup(call: Syscall, effect: &Effect, sockets: Sockets) -> Result<Vec<Way>, &'static str> {
    let socket_call =
        plausible::of_ip(call).ok_or("it is no call on a socket that cgroups are asked about")?;
    if !matches!(effect, Effect::Errno(_)) {
        return Err("a program at a cgroup can only make calls fail");
    }
    let seen = match socket_call {
        SocketCall::Sendmsg => Sockets::UdpToPeer,
        // For options the kernel asks about all families, and our program lets by those that `refuse` is not about.
        _ => Sockets::Ip,
    };
    if sockets < seen {
        return Err(match seen {
            Sockets::UdpToPeer => "cgroups are asked about UDP alone, where the call names a peer",
            _ => "cgroups are asked about sockets of IPv4 and IPv6 alone",
        });
    }
    Ok(vec![Way { rung: Rung::CgroupSock, places: vec![Place::Cgroup(socket_call)], misses: None }])
}

fn hooks(rung: Rung, call: Syscall, effect: &Effect) -> Result<Vec<Way>, &'static str> {
    if matches!(effect, Effect::Return(_)) {
        return Err("a security hook can refuse a call, not pretend that it was done");
    }
    let (answers, misses) = hook::answering(call);
    if answers.is_empty() {
        return Err("no security hook sees the call");
    }
    let fitting = |hooks: &Vec<&'static Hook>| hooks.iter().all(|hook| fits(rung, hook, effect));
    let ways: Vec<Way> = answers
        .into_iter()
        .filter(fitting)
        .map(|hooks| Way { rung, places: hooks.into_iter().map(Place::Hook).collect(), misses })
        .collect();
    if ways.is_empty() { Err("its security hook does not do that") } else { Ok(ways) }
}

fn fits(rung: Rung, hook: &Hook, effect: &Effect) -> bool {
    let enomem = |errors: &Errors| errors.weighted().iter().all(|(error, _)| error.name() == "ENOMEM");
    match (rung, hook.only, effect) {
        (Rung::FmodRetSecurity, _, _) if hook.function.is_none() => false,
        (_, Only::AnyError, _) | (Rung::FmodRetSecurity, Only::AtFunction, _) => true,
        (Rung::FmodRetSecurity, Only::Enomem, Effect::Errno(errors)) => enomem(errors),
        (Rung::FmodRetSecurity, Only::Enomem, _) => true,
        // Disabled for BPF (`bpf_lsm_disabled_hooks`, kernel/bpf/bpf_lsm.c, 6.12).
        (_, Only::Enomem | Only::AtFunction, _) => false,
    }
}

/// A place with the calls that a program there has to judge; all others it lets by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which kind of place.
    pub rung: Rung,
    /// Its name there: a hook, a function, or a call on a socket.
    pub name: String,
    /// Which calls, by name.
    pub calls: Vec<Syscall>,
}

/// The places of what was chosen for each call, each once.
pub fn points<'a>(chosen: impl IntoIterator<Item = (Syscall, &'a Way)>) -> Vec<Point> {
    let mut points: BTreeMap<(Rung, String), Vec<Syscall>> = BTreeMap::new();
    for (call, way) in chosen {
        for point in way.points() {
            let calls = points.entry(point).or_default();
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
    }
    points.into_iter().map(|((rung, name), calls)| Point { rung, name, calls }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::syscall::SyscallSet;

    const HERE: Arch = Arch::X86_64;

    fn errno(text: &str) -> Effect {
        Effect::Errno(text.parse().unwrap())
    }

    fn on(call: &str, effect: &Effect, sockets: Sockets) -> Ladder {
        ladder(call.parse().unwrap(), effect, sockets, HERE)
    }

    /// The places of a ladder, best first, in one text.
    fn places(call: &str, effect: &Effect, sockets: Sockets) -> String {
        let ways = on(call, effect, sockets).ways;
        let way = |way: &Way| way.points().map(|(_, name)| name).collect::<Vec<_>>().join("+");
        ways.iter().map(way).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_best_comes_first() {
        let eio = errno("EIO");
        for (call, expected) in [
            ("openat", "file_open security_file_open __x64_sys_openat __x64_sys_openat"),
            ("fsync", "__x64_sys_fsync __x64_sys_fsync"),
            ("mmap", "mmap_file __x64_sys_mmap __x64_sys_mmap"),
            ("fork", "task_alloc security_task_alloc __do_sys_fork __do_sys_fork"),
            (
                "rmdir",
                "path_rmdir inode_rmdir security_path_rmdir security_inode_rmdir __x64_sys_rmdir __x64_sys_rmdir",
            ),
            (
                "ftruncate",
                "file_truncate path_truncate security_file_truncate security_path_truncate \
                __x64_sys_ftruncate __x64_sys_ftruncate",
            ),
        ] {
            assert_eq!(places(call, &eio, Sockets::Any), expected, "{call}");
        }
        let both = on("unlinkat", &eio, Sockets::Any).ways;
        assert_eq!(both[0].points().count(), 2);
        let rungs: Vec<Rung> = on("openat", &eio, Sockets::Any).ways.iter().map(|way| way.rung).collect();
        assert_eq!(rungs, Rung::ALL[1..]);
        let arm = ladder("openat".parse().unwrap(), &eio, Sockets::Any, Arch::Arm64);
        assert_eq!(arm.ways[2].places, [Place::Function("__arm64_sys_openat".into())]);
    }

    #[test]
    fn cgroups_come_first_for_the_sockets_they_see() {
        let refused = errno("ECONNREFUSED");
        let after = "socket_connect security_socket_connect __x64_sys_connect __x64_sys_connect";
        assert_eq!(places("connect", &refused, Sockets::Ip), format!("connect {after}"));
        assert_eq!(places("connect", &refused, Sockets::Any), after);
        assert!(places("sendto", &refused, Sockets::Ip).starts_with("socket_sendmsg"));
        assert!(places("sendto", &refused, Sockets::UdpToPeer).starts_with("sendmsg socket_sendmsg"));
        let option = |sockets| places("setsockopt", &errno("EPERM"), sockets);
        assert!(option(Sockets::Ip).starts_with("setsockopt socket_setsockopt"));
        assert!(option(Sockets::Any).starts_with("socket_setsockopt"));
        assert_eq!(places("connect", &Effect::Signal, Sockets::Ip), after);
    }

    #[test]
    fn forged_success_is_for_the_call_itself() {
        let (zero, bytes) = (Effect::Return("0".parse().unwrap()), Effect::Return("512".parse().unwrap()));
        let rungs =
            |call, effect| on(call, effect, Sockets::Any).ways.iter().map(|way| way.rung).collect::<Vec<_>>();
        assert_eq!(rungs("fsync", &zero), [Rung::Kprobe]);
        assert_eq!(rungs("write", &bytes), [Rung::FmodRetSyscall, Rung::Kprobe]);
        assert_eq!(rungs("exit_group", &bytes), []);
        let why = on("fsync", &zero, Sockets::Any).ruled_out;
        assert!(why.contains(&(Rung::FmodRetSyscall, "0 would let the call go on")), "{why:?}");
        for (text, part) in
            [("-5", "use the fault `errno`"), ("x", "from 0 to"), ("9223372036854775808", "from 0")]
        {
            let error = text.parse::<Forged>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!("7".parse::<Forged>().unwrap().to_string(), "7");
    }

    #[test]
    fn memory_runs_out_and_nothing_else_happens_to_it() {
        assert_eq!(places("brk", &errno("ENOMEM"), Sockets::Any), "security_vm_enough_memory_mm");
        assert_eq!(places("brk", &errno("ENOMEM,EAGAIN"), Sockets::Any), "");
        let function = "security_vm_enough_memory_mm __x64_sys_mremap __x64_sys_mremap";
        assert_eq!(places("mremap", &errno("ENOMEM"), Sockets::Any), function);
    }

    #[test]
    fn delays_prefer_places_where_threads_sleep() {
        let rungs =
            |call| on(call, &Effect::Delay, Sockets::Any).ways.iter().map(|way| way.rung).collect::<Vec<_>>();
        use Rung::{FmodRetSecurity, FmodRetSyscall, Kprobe, Lsm};
        assert_eq!(rungs("openat"), [Lsm, FmodRetSyscall, FmodRetSecurity, Kprobe]);
        assert_eq!(rungs("read"), [FmodRetSyscall, Lsm, FmodRetSecurity, Kprobe]);
        assert_eq!(rungs("fsync"), [FmodRetSyscall, Kprobe]);
        assert_eq!(Rung::Kprobe.needs(&Effect::Delay), Capability::Kprobe);
        assert_eq!(Rung::Kprobe.needs(&errno("EIO")), Capability::Override);
        assert_eq!(Rung::Kprobe.needs(&Effect::Signal), Capability::Override);
    }

    #[test]
    fn what_a_way_misses_is_said() {
        let misses = |call| on(call, &errno("EINVAL"), Sockets::Any).ways[0].misses;
        assert_eq!(misses("openat"), Some("opening with O_PATH"));
        assert!(misses("clock_gettime").is_some_and(|misses| misses.contains("vDSO")));
        assert_eq!(misses("read"), None);
    }

    #[test]
    fn every_call_has_a_way_or_a_reason_on_each_rung() {
        let effects = [errno("EIO"), Effect::Return("1".parse().unwrap()), Effect::Signal, Effect::Delay];
        for (call, arch) in Syscall::all().flat_map(|call| Arch::ALL.map(|arch| (call, arch))) {
            for (effect, sockets) in
                effects.iter().flat_map(|effect| [Sockets::Any, Sockets::Ip].map(|s| (effect, s)))
            {
                let Ladder { ways, ruled_out } = ladder(call, effect, sockets, arch);
                let rungs = Rung::ALL.iter().filter(|rung| {
                    ways.iter().any(|way| way.rung == **rung) != ruled_out.iter().any(|(out, _)| out == *rung)
                });
                assert_eq!(rungs.count(), Rung::ALL.len(), "{call} {arch} {effect:?}");
                let has_number = call.number(arch).is_some();
                assert!(has_number || ways.is_empty(), "{call} {arch}");
            }
        }
    }

    #[test]
    fn each_call_is_judged_where_it_was_planned_and_nowhere_else() {
        let all: SyscallSet = "all".parse().unwrap();
        for rung in Rung::ALL {
            let ladders: Vec<_> = all
                .members()
                .map(|call| (call, ladder(call, &errno("ENOMEM"), Sockets::UdpToPeer, HERE)))
                .collect();
            let chosen: Vec<(Syscall, &Way)> = ladders
                .iter()
                .filter_map(|(call, ladder)| Some((*call, ladder.ways.iter().find(|way| way.rung >= rung)?)))
                .collect();
            let points = points(chosen.iter().copied());
            for (call, way) in &chosen {
                let mut judged: Vec<_> = points
                    .iter()
                    .filter(|point| point.calls.contains(call))
                    .map(|point| (point.rung, point.name.clone()))
                    .collect();
                let mut planned: Vec<_> = way.points().collect();
                judged.sort();
                planned.sort();
                assert_eq!(judged, planned, "{call}");
            }
            for (i, point) in points.iter().enumerate() {
                assert!(
                    points[..i].iter().all(|other| (other.rung, &other.name) != (point.rung, &point.name))
                );
                assert!((1..point.calls.len()).all(|i| !point.calls[..i].contains(&point.calls[i])));
            }
        }
    }
}
