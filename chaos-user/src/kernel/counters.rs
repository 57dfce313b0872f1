//! Reading every counter, all groups back to back.

use aya::{
    Ebpf,
    maps::{Array, PerCpuArray},
};
use chaos_common::{
    Counters, Pod, RuleStats,
    names::map,
    rule::state_index,
    steady::{CallCounts, ErrorCounts, Histogram, TaskCounts, TcpCounts, histogram_index},
};

use super::{KernelError, clock::monotonic_ns, object::typed, wire::Wire};
use crate::{
    steady::{
        cgroupfs::CgroupFiles,
        family::Family,
        reading::{Reading, SlotReading},
        sample::Sample,
    },
    target::Cgroup,
};

/// One reading of what programs count that need no more than targets. Per-CPU values are summed.
pub fn sample(ebpf: &mut Ebpf, rules: u32, slots: u32) -> Result<Sample, KernelError> {
    let begin_ns = monotonic_ns();
    let of_slot = |slot| Ok(SlotReading::of(steady(ebpf, slot)?));
    let readings = (0..slots).map(of_slot).collect::<Result<Vec<_>, KernelError>>()?;
    let rules = rule_stats(ebpf, rules, slots)?;
    Ok(Sample { begin_ns, end_ns: monotonic_ns(), slots: readings, rules })
}

/// One reading of everything that a run measures. What most gates are made of comes first, at the time that the reading is
/// said to be of: files and histograms take their time.
pub fn full_sample(
    ebpf: &mut Ebpf,
    rules: u32,
    cgroups: &[Cgroup],
    counted: &[Family],
) -> Result<Sample, KernelError> {
    let begin_ns = monotonic_ns();
    let counters = (0..cgroups.len() as u32).map(|slot| steady(ebpf, slot)).collect::<Result<Vec<_>, _>>()?;
    let end_ns = monotonic_ns();
    let rules = rule_stats(ebpf, rules, cgroups.len() as u32)?;
    let of_slot = |((slot, cgroup), counters): ((u32, &Cgroup), Counters)| {
        let reading = slot_reading(ebpf, slot, cgroup, counted, counters)?;
        Ok(SlotReading { packets: Some(counters), ..reading })
    };
    let slots = (0..).zip(cgroups).zip(counters).map(of_slot).collect::<Result<Vec<_>, KernelError>>()?;
    Ok(Sample { begin_ns, end_ns, slots, rules })
}

fn steady(ebpf: &mut Ebpf, slot: u32) -> Result<Counters, KernelError> {
    let per_cpu: Vec<Counters> = of_each_cpu(ebpf, map::STEADY, slot)?;
    Ok(per_cpu.into_iter().fold(Counters::ZERO, Counters::plus))
}

/// What came of the rules, by rule and slot.
fn rule_stats(ebpf: &mut Ebpf, rules: u32, slots: u32) -> Result<Vec<Vec<RuleStats>>, KernelError> {
    let stats: PerCpuArray<_, Wire<RuleStats>> = typed(ebpf, map::RULE_STATS)?;
    let read = |rule, slot| {
        let per_cpu =
            stats.get(&state_index(rule, slot, slots), 0).map_err(KernelError::map(map::RULE_STATS))?;
        Ok(per_cpu.iter().fold(RuleStats::ZERO, |sum, value| sum.plus(value.0)))
    };
    (0..rules).map(|rule| (0..slots).map(|slot| read(rule, slot)).collect()).collect()
}

/// One reading of each target's counters and files. What is not counted is left out.
pub fn reading(ebpf: &mut Ebpf, cgroups: &[Cgroup], counted: &[Family]) -> Result<Reading, KernelError> {
    let begin_ns = monotonic_ns();
    let of_slot = |(slot, cgroup): (u32, &Cgroup)| {
        let counters = steady(ebpf, slot)?;
        slot_reading(ebpf, slot, cgroup, counted, counters)
    };
    let slots = (0..).zip(cgroups).map(of_slot).collect::<Result<Vec<_>, KernelError>>()?;
    Ok(Reading { begin_ns, end_ns: monotonic_ns(), slots })
}

fn slot_reading(
    ebpf: &mut Ebpf,
    slot: u32,
    cgroup: &Cgroup,
    counted: &[Family],
    steady: Counters,
) -> Result<SlotReading, KernelError> {
    let counts = |family| counted.contains(&family);
    let calls = counts(Family::Calls);
    let mut reading = SlotReading {
        packets: counts(Family::Net).then_some(steady),
        retransmits: counts(Family::Tcp).then_some(steady.tcp_retransmits),
        calls: summed(ebpf, map::STEADY_CALLS, slot, calls, CallCounts::plus)?,
        errors: summed(ebpf, map::STEADY_ERRORS, slot, calls, ErrorCounts::plus)?,
        tcp: summed(ebpf, map::STEADY_TCP, slot, counts(Family::Tcp), TcpCounts::plus)?,
        tasks: summed(ebpf, map::STEADY_TASKS, slot, counts(Family::Processes), TaskCounts::plus)?,
        times: std::array::from_fn(|_| None),
        files: CgroupFiles::read(&cgroup.dir),
        probes: Vec::new(),
    };
    let families = counted.iter().filter(|family| calls || **family != Family::Latency);
    for series in families.flat_map(|family| family.series()) {
        let times: Array<_, Wire<Histogram>> = typed(ebpf, map::STEADY_TIMES)?;
        let histogram = times.get(&histogram_index(slot, series), 0);
        let histogram = histogram.map_err(KernelError::map(map::STEADY_TIMES))?;
        reading.times[series as usize] = Some(histogram.0.buckets.to_vec());
    }
    Ok(reading)
}

/// The sum of all CPUs, if it is counted.
fn summed<T: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    slot: u32,
    is_counted: bool,
    plus: fn(T, T) -> T,
) -> Result<Option<T>, KernelError> {
    if !is_counted {
        return Ok(None);
    }
    Ok(of_each_cpu(ebpf, name, slot)?.into_iter().reduce(plus))
}

fn of_each_cpu<T: Pod>(ebpf: &mut Ebpf, name: &'static str, slot: u32) -> Result<Vec<T>, KernelError> {
    let values: PerCpuArray<_, Wire<T>> = typed(ebpf, name)?;
    let per_cpu = values.get(&slot, 0).map_err(KernelError::map(name))?;
    Ok(per_cpu.iter().map(|value| value.0).collect())
}
