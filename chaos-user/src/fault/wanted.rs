//! What a plan may ask of the kernel, so that no more is tried than that: each trial costs a start some milliseconds.

use super::{
    Fault,
    capability::Capability,
    filter::directions,
    mechanism::Mechanism,
    plan::{Options, needs},
};
use crate::experiment::hypothesis::Metric;

/// Every capability whose presence may change how these faults are planned, each once.
pub fn wanted(faults: &[Fault], options: &Options) -> Vec<Capability> {
    let by_faults = faults.iter().flat_map(mechanisms).map(Mechanism::needs);
    let by_metrics = Metric::ALL.into_iter().filter(|metric| options.may_measure(*metric)).map(needs);
    let mut wanted: Vec<Capability> = by_faults.chain(by_metrics).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{catalogue::find, text::Given};

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
        let quick = |fault| wanted(&[fault], &Options::default());
        assert_eq!(quick(fault("loss", &[("percent", "1%")])), [Tcx, Clsact]);
        let arriving = [("percent", "1%"), ("direction", "ingress")];
        assert_eq!(quick(fault("loss", &arriving)), [CgroupSkb]);
        let held = [("by", "1ms"), ("direction", "ingress")];
        assert_eq!(quick(fault("delay", &held)), [TcxIngress, ClsactIngress, Fq, Ifb]);
        assert_eq!(quick(fault("reset", &[])), [SockDestroy]);
        let gated = Options { gates: Some(vec![Metric::Syscalls]), ..Options::default() };
        let measured = wanted(&[fault("reset", &[])], &gated);
        assert_eq!(measured, [CgroupSkb, SyscallTracepoint, RetransmitTracepoint, SockDestroy]);
    }
}
