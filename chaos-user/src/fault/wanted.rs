//! What a plan may ask of the kernel, so that no more is tried than that: each trial costs a start some milliseconds.

use super::{
    Fault,
    capability::Capability,
    count::needs,
    filter::directions,
    mechanism::Mechanism,
    plan::Options,
    syscall::{Arch, Way},
};

/// What is to be found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What is to be tried.
    pub capabilities: Vec<Capability>,
    /// Functions of the kernel that are to be looked for.
    pub functions: Vec<String>,
}

/// Every capability and function whose presence may change how these faults are planned, each once.
pub fn wanted(faults: &[Fault], options: &Options) -> Wanted {
    let by_faults = faults.iter().flat_map(mechanisms).map(Mechanism::needs);
    let by_metrics = options.families().into_iter().flat_map(|family| needs(family).iter().copied());
    let ways = faults.iter().flat_map(|fault| ways(fault).into_iter().map(move |way| (fault, way)));
    let mut wanted = Wanted { capabilities: by_faults.chain(by_metrics).collect(), functions: Vec::new() };
    for (fault, way) in ways {
        if let Fault::Call(call) = fault {
            wanted.capabilities.push(way.rung.needs(&call.effect));
            wanted.capabilities.extend(call.slow.map(|_| Capability::FuseSleep));
        }
        wanted.functions.extend(way.functions());
    }
    wanted.functions.extend(faults.iter().flat_map(own_functions));
    wanted.capabilities.sort_unstable();
    wanted.capabilities.dedup();
    wanted.functions.sort_unstable();
    wanted.functions.dedup();
    wanted
}

/// The functions of the calls of a fault.
fn own_functions(fault: &Fault) -> Vec<String> {
    match fault {
        Fault::Call(fault) => fault.calls.members().filter_map(|call| call.function(Arch::HERE)).collect(),
        Fault::Net(_) | Fault::Refuse(_) | Fault::Reset(_) => Vec::new(),
    }
}

/// Every way to meet the calls of a fault.
fn ways(fault: &Fault) -> Vec<Way> {
    match fault {
        Fault::Call(fault) => fault.calls.on(Arch::HERE).flat_map(|(call, _)| fault.ways(call)).collect(),
        Fault::Net(_) | Fault::Refuse(_) | Fault::Reset(_) => Vec::new(),
    }
}

/// Every mechanism on the ladders of a fault.
fn mechanisms(fault: &Fault) -> Vec<Mechanism> {
    match fault {
        Fault::Net(net) => {
            let ways = directions(net.direction).iter().copied();
            let ladders = |way| net.effect.queues(way).iter().copied().chain([net.effect.ladder(way)]);
            ways.flat_map(ladders).flatten().copied().collect()
        }
        Fault::Refuse(_) => vec![Mechanism::CgroupSock],
        Fault::Reset(_) => vec![Mechanism::SockDiag],
        Fault::Call(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{catalogue::find, syscall::Syscall, text::Given};

    fn fault(name: &str, values: &[(&'static str, &str)]) -> Fault {
        let entry = find(name).unwrap();
        let given = values.iter().fold(Given::new(entry), |given, (name, value)| given.with(name, value));
        (entry.build)(&given).unwrap()
    }

    #[test]
    fn no_more_is_tried_than_can_be_used() {
        use Capability::{
            CgroupSkb, Clsact, ClsactIngress, Fq, Ifb, RetransmitTracepoint, SockDestroy, SyscallTracepoint,
            Tcx, TcxIngress,
        };
        let quick = |fault| wanted(&[fault], &Options::default()).capabilities;
        assert_eq!(quick(fault("loss", &[("percent", "1%")])), [Tcx, Clsact]);
        let arriving = [("percent", "1%"), ("direction", "ingress")];
        assert_eq!(quick(fault("loss", &arriving)), [CgroupSkb]);
        let held = [("by", "1ms"), ("direction", "ingress")];
        assert_eq!(quick(fault("delay", &held)), [TcxIngress, ClsactIngress, Fq, Ifb]);
        assert_eq!(quick(fault("reset", &[])), [SockDestroy]);
        let gated = Options {
            gates: Some(vec![crate::experiment::hypothesis::Metric::Syscalls]),
            ..Options::default()
        };
        let measured = wanted(&[fault("reset", &[])], &gated).capabilities;
        assert_eq!(measured, [CgroupSkb, SyscallTracepoint, RetransmitTracepoint, SockDestroy]);
    }
    #[test]
    fn of_calls_the_ways_are_tried_and_their_functions_looked_for() {
        use Capability::{FmodRetSecurity, FmodRetSyscall, Lsm, Override, SockAddr};
        let quick =
            |name: &str, values: &[(&'static str, &str)]| wanted(&[fault(name, values)], &Options::default());
        let open = quick("errno", &[("syscalls", "openat"), ("error", "EIO")]);
        assert_eq!(open.capabilities, [Lsm, FmodRetSecurity, FmodRetSyscall, Override]);
        let own = "openat".parse::<Syscall>().unwrap().function(Arch::HERE).unwrap();
        assert_eq!(open.functions, [own.as_str(), "bpf_lsm_file_open", "security_file_open"]);
        let lie = quick("retval", &[("syscalls", "fsync"), ("returns", "0")]);
        assert_eq!(lie.capabilities, [Override]);
        let connect = [("syscalls", "connect"), ("error", "ETIMEDOUT"), ("sockets", "ip")];
        assert_eq!(
            quick("errno", &connect).capabilities,
            [SockAddr, Lsm, FmodRetSecurity, FmodRetSyscall, Override]
        );
    }
}
