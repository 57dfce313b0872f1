//! What tests need of the machine.

use std::{
    collections::BTreeMap,
    fmt, fs,
    process::Command,
    sync::{Mutex, PoisonError},
};

use kchaos::{
    fault::capability::Capability,
    kernel::probe::probe,
    target::{Hierarchy, Netns},
};

use crate::{docker, gallery, lab, tun};

/// One thing a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be root.
    Root,
    /// A Docker daemon that answers.
    Docker,
    /// Commands that can be run in a network namespace of their own, one a line: the programs and the modules
    /// that they ask for.
    Command(&'static str),
    /// A device without link layer, of which we are the other end.
    Tun,
    /// The server of PostgreSQL, which Debian has outside of the path.
    Postgres,
    /// A controller of cgroup v2, for the cgroups that tests make.
    Controller(&'static str),
    /// A module of the kernel with its parameters, which is loaded.
    Module(&'static str),
    /// Something of the kernel.
    Kernel(Capability),
}

/// Nothing but root.
pub const ROOT: &[Need] = &[Need::Root];
/// To fail system calls at hooks of the security modules.
pub const LSM: &[Need] = &[Need::Root, Need::Kernel(Capability::Lsm)];
/// The same where BPF is none of them.
pub const SECURITY: &[Need] = &[Need::Root, Need::Kernel(Capability::FmodRetSecurity)];
/// The same where no hook is.
pub const SYSCALL: &[Need] = &[Need::Root, Need::Kernel(Capability::FmodRetSyscall)];
/// The same by kprobes.
pub const KPROBE: &[Need] = &[Need::Root, Need::Kernel(Capability::Override)];
/// To fail what asks for memory.
pub const MEMORY: &[Need] =
    &[Need::Root, Need::Kernel(Capability::Lsm), Need::Kernel(Capability::FmodRetSecurity)];
/// To watch functions of the kernel.
pub const FENTRY: &[Need] = &[Need::Root, Need::Kernel(Capability::Fentry)];
/// To count the calls that fail by LSM.
pub const LSM_COUNTED: &[Need] = &[Need::Root, CALLS_TOO, Need::Kernel(Capability::Lsm)];
/// The same where BPF is no security module.
pub const SECURITY_COUNTED: &[Need] = &[Need::Root, CALLS_TOO, Need::Kernel(Capability::FmodRetSecurity)];
/// The same where no hook is.
pub const SYSCALL_COUNTED: &[Need] = &[Need::Root, CALLS_TOO, Need::Kernel(Capability::FmodRetSyscall)];
/// The same by kprobes.
pub const KPROBE_COUNTED: &[Need] = &[Need::Root, CALLS_TOO, Need::Kernel(Capability::Override)];

/// To lose packets on their way out, whichever way that is done.
pub const EGRESS: &[Need] = &[Need::Root, Need::Kernel(Capability::Clsact)];
/// To lose packets on their way out by TCX.
pub const TCX: &[Need] = &[Need::Root, Need::Kernel(Capability::Tcx)];
/// To lose packets on their way out by a tc filter, though the kernel has TCX.
pub const CLSACT: &[Need] = &[Need::Root, Need::Kernel(Capability::Clsact)];
/// To meet packets that have no link layer.
pub const TUN: &[Need] = &[Need::Root, Need::Tun, Need::Kernel(Capability::Clsact)];
/// To lose packets on their way in.
pub const INGRESS: &[Need] = &[Need::Root, Need::Kernel(Capability::CgroupSkb)];
/// To hold packets back on their way out, whichever way that is done.
pub const HOLD: &[Need] = &[Need::Root, Need::Kernel(Capability::Clsact), Need::Kernel(Capability::Fq)];
/// The same by TCX.
pub const HOLD_TCX: &[Need] = &[Need::Root, Need::Kernel(Capability::Tcx), Need::Kernel(Capability::Fq)];
/// The same, beside what the kernel itself offers.
pub const HOLD_NETEM: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Kernel(Capability::Fq),
    Need::Kernel(Capability::Netem),
];
/// To hold packets back on their way in, whichever way that is done.
pub const HOLD_INGRESS: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::ClsactIngress),
    Need::Kernel(Capability::Fq),
    Need::Kernel(Capability::Ifb),
];
/// The same by TCX.
pub const HOLD_INGRESS_TCX: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::TcxIngress),
    Need::Kernel(Capability::Fq),
    Need::Kernel(Capability::Ifb),
];
/// The same, beside what the kernel itself offers.
pub const HOLD_INGRESS_NETEM: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::ClsactIngress),
    Need::Kernel(Capability::Fq),
    Need::Kernel(Capability::Ifb),
    Need::Kernel(Capability::Netem),
];
/// The same on a device without link layer.
pub const HOLD_INGRESS_TUN: &[Need] = &[
    Need::Root,
    Need::Tun,
    Need::Kernel(Capability::ClsactIngress),
    Need::Kernel(Capability::Fq),
    Need::Kernel(Capability::Ifb),
];
/// To hold packets back on their way out without fq.
pub const NETEM: &[Need] = &[Need::Root, Need::Kernel(Capability::Clsact), Need::Kernel(Capability::Netem)];
/// The same at a VLAN.
pub const NETEM_VLAN: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Kernel(Capability::Netem),
    Need::Command("ip link add v7 type veth\nip link add link v7 name v7.7 type vlan id 7"),
];
/// To refuse calls on sockets.
pub const SOCK: &[Need] = &[Need::Root, Need::Kernel(Capability::SockAddr)];
/// To put callers to sleep.
pub const SLEEP: &[Need] = &[Need::Root, Need::Kernel(Capability::Lsm), Need::Kernel(Capability::FuseSleep)];
/// The same where no hook of LSM is.
pub const SLEEP_SYSCALL: &[Need] =
    &[Need::Root, Need::Kernel(Capability::FmodRetSyscall), Need::Kernel(Capability::FuseSleep)];
/// To fail system calls at hooks of the security modules, beside strace.
pub const STRACE: &[Need] = &[Need::Root, STRACE_TOO, Need::Kernel(Capability::Lsm)];
/// The same where no hook is.
pub const STRACE_SYSCALL: &[Need] = &[Need::Root, STRACE_TOO, Need::Kernel(Capability::FmodRetSyscall)];
/// To delay system calls at hooks of the security modules, beside strace.
pub const STRACE_SLEEP: &[Need] =
    &[Need::Root, STRACE_TOO, Need::Kernel(Capability::Lsm), Need::Kernel(Capability::FuseSleep)];
/// The same at the functions of calls.
pub const STRACE_SLEEP_SYSCALL: &[Need] =
    &[Need::Root, STRACE_TOO, Need::Kernel(Capability::FmodRetSyscall), Need::Kernel(Capability::FuseSleep)];
/// The same where a call that does nothing says that it succeeded.
pub const STRACE_OVERRIDE: &[Need] = &[Need::Root, STRACE_TOO, Need::Kernel(Capability::Override)];
/// To destroy connections.
pub const DESTROY: &[Need] = &[Need::Root, Need::Kernel(Capability::SockDestroy)];
/// To lose packets both ways.
pub const BOTH_WAYS: &[Need] =
    &[Need::Root, Need::Kernel(Capability::Clsact), Need::Kernel(Capability::CgroupSkb)];
/// To do all to a target that can be done to its packets and its calls at once.
pub const COMPOSED: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Kernel(Capability::CgroupSkb),
    Need::Kernel(Capability::SockAddr),
];
/// To measure what an experiment compares.
pub const EXPERIMENT: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Kernel(Capability::CgroupSkb),
    Need::Kernel(Capability::RetransmitTracepoint),
];
/// To lose packets on their way out, beside the host's own firewall.
pub const FIREWALL: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Command("iptables -A OUTPUT -p udp"),
    Need::Command("iptables -t mangle -A OUTPUT -p udp -j MARK --set-mark 7"),
];
/// To answer packets where a firewall remembers connections.
pub const STATEFUL: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Kernel(Capability::CgroupSkb),
    Need::Command("iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"),
];
/// To count what targets do.
pub const OBSERVE: &[Need] = &[Need::Root, CALLS_TOO, INGRESS_TOO, TCP_TOO];
/// The same under loss.
pub const OBSERVE_LOSS: &[Need] =
    &[Need::Root, CALLS_TOO, INGRESS_TOO, TCP_TOO, Need::Kernel(Capability::Clsact)];
/// The same where packets can be held back.
pub const OBSERVE_HOLD: &[Need] = &[
    Need::Root,
    CALLS_TOO,
    INGRESS_TOO,
    TCP_TOO,
    Need::Kernel(Capability::Clsact),
    Need::Kernel(Capability::Fq),
];
/// The same where calls can be refused.
pub const OBSERVE_SOCK: &[Need] = &[Need::Root, CALLS_TOO, Need::Kernel(Capability::SockAddr)];
/// The same where memory can be limited.
pub const OBSERVE_MEMORY: &[Need] =
    &[Need::Root, CALLS_TOO, INGRESS_TOO, TCP_TOO, Need::Controller("memory")];
/// The same with a block device that takes 20 ms for everything.
pub const OBSERVE_BLOCK: &[Need] = &[
    Need::Root,
    CALLS_TOO,
    INGRESS_TOO,
    TCP_TOO,
    Need::Controller("io"),
    Need::Module("null_blk nr_devices=1 irqmode=2 completion_nsec=20000000"),
];
/// To lose packets that are given another address on their way.
pub const NAT: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Command("iptables -t nat -A POSTROUTING -p udp -j MASQUERADE"),
];
/// To lose packets at a VLAN.
pub const VLAN: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Command("ip link add v7 type veth\nip link add link v7 name v7.7 type vlan id 7"),
];
/// To meddle with frames whose tag is not beside their data but in it.
pub const VLAN_IN_DATA: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Command("ip link add v7 type veth\nip link add link v7 name v7.7 type vlan id 7 reorder_hdr off"),
];
/// To meddle with what comes out of a tunnel.
pub const VXLAN: &[Need] = &[
    Need::Root,
    Need::Kernel(Capability::Clsact),
    Need::Kernel(Capability::CgroupSkb),
    Need::Command("ip link add v7 type vxlan id 7 dstport 4789"),
];
/// To lose packets at a bridge.
pub const BRIDGE: &[Need] =
    &[Need::Root, Need::Kernel(Capability::Clsact), Need::Command("ip link add br7 type bridge")];
/// To answer the queries of a program that people use.
pub const DIG: &[Need] = &[Need::Root, Need::Kernel(Capability::Clsact), Need::Command("dig -v")];
/// To meddle with what curl hears from nginx. That nginx says its version without complaint is all that is asked.
pub const HTTP: &[Need] = &[CURL, NGINX, Need::Root, Need::Kernel(Capability::Clsact), INGRESS_TOO];
/// The same where calls can be refused.
pub const HTTP_SOCK: &[Need] = &[CURL, NGINX, Need::Root, Need::Kernel(Capability::SockAddr)];
/// The same where connections can be destroyed.
pub const HTTP_DESTROY: &[Need] = &[CURL, NGINX, Need::Root, Need::Kernel(Capability::SockDestroy)];
/// The same where packets can be held back.
pub const HTTP_HOLD: &[Need] =
    &[CURL, NGINX, Need::Root, Need::Kernel(Capability::Clsact), Need::Kernel(Capability::Fq)];
/// To meddle with what Redis's clients hear from it. Its server is what checks its files by another name.
pub const REDIS: &[Need] = &[REDIS_CLIENT, REDIS_SERVER, Need::Root, Need::Kernel(Capability::Clsact)];
/// The same where connections can be destroyed.
pub const REDIS_DESTROY: &[Need] =
    &[REDIS_CLIENT, REDIS_SERVER, Need::Root, Need::Kernel(Capability::SockDestroy)];
/// The same where packets can be held back.
pub const REDIS_HOLD: &[Need] =
    &[REDIS_CLIENT, REDIS_SERVER, Need::Root, Need::Kernel(Capability::Clsact), Need::Kernel(Capability::Fq)];
/// To meddle with what dig hears from a name server.
pub const RESOLVER: &[Need] = &[DIGS, DNSMASQ, Need::Root, Need::Kernel(Capability::Clsact)];
/// The same where calls can be refused.
pub const RESOLVER_SOCK: &[Need] = &[DIGS, DNSMASQ, Need::Root, Need::Kernel(Capability::SockAddr)];

/// To meddle with the files of a database that is a library.
pub const SQLITE: &[Need] = &[SQLITE_SHELL, Need::Root, Need::Kernel(Capability::Lsm)];
/// The same where no hook is.
pub const SQLITE_SYSCALL: &[Need] = &[SQLITE_SHELL, Need::Root, Need::Kernel(Capability::FmodRetSyscall)];
/// To meddle with Redis's files.
pub const REDIS_FILES: &[Need] = &[REDIS_CLIENT, REDIS_SERVER, Need::Root, Need::Kernel(Capability::Lsm)];
/// To meddle with the calls of nginx, or of who asks it.
pub const HTTP_CALLS: &[Need] = &[CURL, NGINX, Need::Root, Need::Kernel(Capability::Lsm)];
/// To meddle with calls of PostgreSQL that no hook sees.
pub const POSTGRES: &[Need] =
    &[Need::Postgres, SETPRIV, Need::Root, Need::Kernel(Capability::FmodRetSyscall)];

/// To be preempted within a program that meets a call.
pub const PREEMPTIBLE: &[Need] = &[Need::Root, PREEMPTION, Need::Kernel(Capability::FmodRetSyscall)];

const PREEMPTION: Need = Need::Command("grep -E [(](full|lazy)[)] /sys/kernel/debug/sched/preempt");
const STRACE_TOO: Need = Need::Command("strace -V");
const CALLS_TOO: Need = Need::Kernel(Capability::SyscallTracepoint);
const TCP_TOO: Need = Need::Kernel(Capability::RetransmitTracepoint);
const INGRESS_TOO: Need = Need::Kernel(Capability::CgroupSkb);
const CURL: Need = Need::Command("curl --version");
const NGINX: Need = Need::Command("nginx -v");
const REDIS_CLIENT: Need = Need::Command("redis-benchmark --version");
const REDIS_SERVER: Need = Need::Command("redis-check-rdb --version");
const DIGS: Need = Need::Command("dig -v");
const SQLITE_SHELL: Need = Need::Command("sqlite3 --version");
const SETPRIV: Need = Need::Command("setpriv --version");
const DNSMASQ: Need = Need::Command("dnsmasq --version");

/// To lose a container's packets.
pub const DOCKER: &[Need] = &[Need::Root, Need::Docker, Need::Kernel(Capability::Clsact)];

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Docker => f.write_str("Docker"),
            Self::Command(command) => write!(f, "`{}`", command.replace('\n', "; ")),
            Self::Tun => f.write_str("tun"),
            Self::Postgres => f.write_str("PostgreSQL"),
            Self::Module(module) => write!(f, "the module `{module}`"),
            Self::Controller(name) => write!(f, "the cgroup controller `{name}`"),
            Self::Kernel(capability) => write!(f, "{capability}"),
        }
    }
}

/// The first of them that is not there, and why.
pub fn unmet(needs: &[Need]) -> Option<String> {
    needs.iter().find_map(|need| missing_because(*need).map(|why| format!("needs {need}: {why}")))
}

fn missing_because(need: Need) -> Option<String> {
    match need {
        Need::Root => (!nix::unistd::geteuid().is_root()).then(|| "we are somebody else".into()),
        Need::Tun => tun::missing_because(),
        Need::Postgres => gallery::postgres::folder().err().map(|error| format!("{error:#}")),
        Need::Docker => docker::daemon().as_ref().err().cloned(),
        Need::Command(command) => {
            let tried = Netns::create().map_err(Into::into).and_then(|netns| lab::run_in(&netns, command));
            tried.err().map(|error| format!("{error:#}"))
        }
        Need::Module(module) => module_missing_because(module),
        Need::Controller(name) => controller_missing_because(name),
        Need::Kernel(wanted) => tried(wanted),
    }
}

/// Loaded as the kernel itself loads what it needs.
fn module_missing_because(module: &str) -> Option<String> {
    const PROGRAM: &str = "/proc/sys/kernel/modprobe";
    let program = match fs::read_to_string(PROGRAM) {
        Ok(program) => program,
        Err(error) => return Some(format!("{PROGRAM}: {error}")),
    };
    match Command::new(program.trim()).args(module.split_whitespace()).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("{}: {error}", program.trim())),
    }
}

fn controller_missing_because(name: &str) -> Option<String> {
    let on = Hierarchy::find().map_err(|error| error.to_string()).and_then(|hierarchy| {
        let path = hierarchy.mount().join("cgroup.subtree_control");
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    });
    match on {
        Ok(on) if on.split_whitespace().any(|word| word == name) => None,
        Ok(on) => Some(format!("the root of the hierarchy hands down `{}` alone", on.trim())),
        Err(error) => Some(error),
    }
}

/// Each is tried when the first test asks for it.
fn tried(wanted: Capability) -> Option<String> {
    static TRIED: Mutex<BTreeMap<Capability, Option<String>>> = Mutex::new(BTreeMap::new());
    let attempt = || match probe(&[wanted]) {
        Err(error) => Some(error.to_string()),
        Ok(capabilities) => capabilities.probed.into_iter().find_map(|probed| probed.missing_because),
    };
    TRIED.lock().unwrap_or_else(PoisonError::into_inner).entry(wanted).or_insert_with(attempt).clone()
}
