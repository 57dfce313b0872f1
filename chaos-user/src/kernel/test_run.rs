//! What the programs cost, by BPF_PROG_TEST_RUN: the kernel runs a program on a packet many times and says
//! how long one run took (net/bpf/test_run.c, `bpf_test_run`, 6.18). The packet's socket is the kernel's own and
//! belongs to the cgroup of the calling process.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use chaos_common::{Lease, Target, names::map};

use super::{
    KernelError, loading, monotonic_ns,
    object::{self, Globals},
    targets::Targets,
    wire::Wire,
};
use crate::fault::plan::Plan;

/// Size of `struct __sk_buff` and where `ifindex` is in it (include/uapi/linux/bpf.h; both are ABI).
const SK_BUFF_BYTES: usize = 192;
const IFINDEX_OFFSET: usize = 40;

/// A tc program ready to be run.
pub struct Trial {
    ebpf: aya::Ebpf,
    program: &'static str,
}

/// What running came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The program's verdict in the last run.
    pub verdict: u32,
    /// Time per run, in nanoseconds.
    pub ns: f64,
}

impl Trial {
    /// Loads a tc program with a plan's maps, `others` more targets that nobody is in, and the lease live.
    pub fn new(program: &'static str, plan: &Plan, others: u64) -> Result<Self, KernelError> {
        // Ids that no cgroup has.
        let others = (0..others).map(|id| Target::of(u64::MAX - id, 1, 0));
        let targets: Vec<Target> = plan.targets.iter().map(|target| target.entry).chain(others).collect();
        let globals = Globals { targets: Targets::of(&targets), ..Globals::of_plan(plan, false) };
        let mut ebpf = loading::load(&globals)?;
        object::fill(&mut ebpf, plan)?;
        let until_ns = monotonic_ns() + Duration::from_secs(3600).as_nanos() as u64;
        let mut lease = object::take_lease(&mut ebpf)?;
        lease.set(0, Wire(Lease { until_ns }), 0).map_err(KernelError::map(map::LEASE))?;
        let mut trial = Self { ebpf, program };
        trial.classifier()?.load().map_err(KernelError::program(program))?;
        Ok(trial)
    }

    /// Runs it `repeat` times on `packet`, which begins with an Ethernet header and is about to leave a device
    /// of the calling thread's namespace.
    pub fn run(&mut self, packet: &[u8], ifindex: u32, repeat: u32) -> Result<Cost, KernelError> {
        let program = self.program;
        let mut context = [0; SK_BUFF_BYTES];
        context[IFINDEX_OFFSET..][..size_of::<u32>()].copy_from_slice(&ifindex.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        let result = self.classifier()?.test_run(options).map_err(KernelError::program(program))?;
        // The kernel reports the mean of one run, in whole nanoseconds.
        Ok(Cost { verdict: result.return_value, ns: result.duration.as_nanos() as f64 })
    }

    fn classifier(&mut self) -> Result<&mut SchedClassifier, KernelError> {
        let missing = || aya::programs::ProgramError::NotLoaded;
        let program = self.ebpf.program_mut(self.program);
        let classifier = program.ok_or_else(missing).and_then(TryInto::try_into);
        classifier.map_err(KernelError::program(self.program))
    }
}
