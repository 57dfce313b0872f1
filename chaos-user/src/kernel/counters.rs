//! Reading every counter, both groups back to back.

use aya::{Ebpf, maps::PerCpuArray};
use chaos_common::{Counters, RuleStats, names::map, rule::state_index};

use super::{KernelError, clock::monotonic_ns, object::typed, wire::Wire};
use crate::steady::sample::Sample;

/// One reading. Per-CPU values are summed.
pub fn sample(ebpf: &mut Ebpf, rules: u32, slots: u32) -> Result<Sample, KernelError> {
    let begin_ns = monotonic_ns();
    let steady: PerCpuArray<_, Wire<Counters>> = typed(ebpf, map::STEADY)?;
    let slot_counters = (0..slots)
        .map(|slot| {
            let per_cpu = steady.get(&slot, 0).map_err(KernelError::map(map::STEADY))?;
            Ok(per_cpu.iter().fold(Counters::ZERO, |sum, value| sum.plus(value.0)))
        })
        .collect::<Result<Vec<_>, KernelError>>()?;
    let stats: PerCpuArray<_, Wire<RuleStats>> = typed(ebpf, map::RULE_STATS)?;
    let read = |rule, slot| {
        let per_cpu =
            stats.get(&state_index(rule, slot, slots), 0).map_err(KernelError::map(map::RULE_STATS))?;
        Ok(per_cpu.iter().fold(RuleStats::ZERO, |sum, value| sum.plus(value.0)))
    };
    let rules = (0..rules)
        .map(|rule| (0..slots).map(|slot| read(rule, slot)).collect())
        .collect::<Result<Vec<Vec<_>>, KernelError>>()?;
    Ok(Sample { begin_ns, end_ns: monotonic_ns(), slots: slot_counters, rules })
}
