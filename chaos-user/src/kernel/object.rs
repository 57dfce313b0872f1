//! The kernel programs: loaded with a plan's constants, maps filled.

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, Map, MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use chaos_common::{
    Leaps, Lease, Pod, Rule, Target,
    dns::KEY_BYTES,
    names::map,
    net::{Direction, MAX_HOOKS, NetConfig, uses},
    random,
    rule::{Levels, MAX_LEVELS},
    shape::{Shape, Table},
    sock::Refusal,
    steady::{SockLayout, SteadyLayout},
    syscall::{CallEntry, CallKey, CallLayout, CallPoint, MAX_PATHS, PathTable, point},
};

use super::{KernelError, btf, clock::monotonic_ns, observe::counted_by, targets::Targets, wire::Wire};
use crate::{
    fault::{
        CallFault, Fault,
        clause::Clauses,
        jitter,
        plan::{Attachment, Parameters, Plan, PlannedTarget},
    },
    steady::family::Family,
};

/// The object that the build script made.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/chaos-ebpf"));

/// What the loader fills in before the verifier runs.
pub struct Globals {
    pub levels: Levels,
    /// Whom it concerns; written into their map as it is made.
    pub targets: Targets,
    pub slots: u32,
    pub rules: u32,
    pub net: NetConfig,
    pub by_segment: u64,
    /// Whether any rule names paths.
    pub by_path: bool,
    /// Marks the copies of packets that arrive; another for each injection.
    pub copy: u32,
    pub kernel_log: bool,
    /// Where the kernel keeps what programs read by itself; they never find it where it is unknown.
    pub layout: SockLayout,
    /// The same for what calls are about.
    pub calls: CallLayout,
    /// Whether calls are judged.
    pub judges_calls: bool,
    /// Where programs stand that are loaded for no point in particular.
    pub point: CallPoint,
    pub steady: SteadyGlobals,
    pub probe: ProbeGlobals,
}

/// What counters need to know.
#[derive(Clone, Copy)]
pub struct SteadyGlobals {
    /// Where the kernel keeps what they read.
    pub layout: SteadyLayout,
    /// Whether calls are timed.
    pub calls: bool,
    /// Whether anything is: then there are histograms.
    pub times: bool,
}

impl SteadyGlobals {
    /// Nothing is timed, and nothing read from the kernel's memory that only this is for.
    pub const NOTHING: Self = Self { layout: SteadyLayout::UNKNOWN, calls: false, times: false };

    /// What these need. BTF is read for those alone that do not count without.
    pub fn of(families: &[Family]) -> Self {
        let reads = families.iter().any(|family| family.needs_btf());
        let layout = || btf::steady_layout().unwrap_or(SteadyLayout::UNKNOWN);
        Self {
            layout: if reads { layout() } else { SteadyLayout::UNKNOWN },
            calls: families.contains(&Family::Latency),
            times: families.iter().any(|family| !family.series().is_empty()),
        }
    }
}

/// Kprobes, which are at the functions of calls.
const AT_FUNCTIONS: CallPoint = CallPoint { is: point::FUNCTION, ..CallPoint::NONE };

/// What probe programs need to know.
#[derive(Clone, Copy)]
pub struct ProbeGlobals {
    /// Whom they may do something to; 0 is nobody.
    pub cgroup: u64,
    /// What they do.
    pub ret: i32,
    /// How long they delay.
    pub sleep_ns: u64,
}

impl ProbeGlobals {
    /// Nobody is concerned.
    pub const NOBODY: Self = Self { cgroup: 0, ret: 0, sleep_ns: 0 };
}

impl Globals {
    /// One rule, for every packet of one cgroup at this depth, and probe programs for the same; `reads_sockets` if one
    /// of them [reads sockets](reads_sockets).
    pub fn of_probe(probe: ProbeGlobals, level: u32, reads_sockets: bool) -> Self {
        let mut levels = Levels { count: 1, level: [0; MAX_LEVELS] };
        levels.level[0] = level;
        let net = NetConfig { rules: [1; MAX_HOOKS], uses: uses::LOOPBACK, ..NetConfig::NONE };
        let target = (probe.cgroup != 0).then_some(Target::of(probe.cgroup, 1, 0));
        Self {
            levels,
            targets: Targets::of(target.as_slice()),
            slots: 1,
            rules: 1,
            net,
            by_segment: 0,
            by_path: false,
            copy: new_copy_mark(),
            kernel_log: false,
            layout: if reads_sockets { sock_layout() } else { SockLayout::UNKNOWN },
            calls: CallLayout::UNKNOWN,
            judges_calls: false,
            point: AT_FUNCTIONS,
            steady: SteadyGlobals::NOTHING,
            probe,
        }
    }

    /// No rule, and counters for targets in so many slots.
    pub fn of_counters(
        levels: Levels,
        targets: Targets,
        slots: u32,
        sockets: SockLayout,
        calls: CallLayout,
        steady: SteadyGlobals,
    ) -> Self {
        Self {
            levels,
            targets,
            slots,
            rules: 1,
            net: NetConfig::NONE,
            by_segment: 0,
            by_path: false,
            copy: new_copy_mark(),
            kernel_log: false,
            layout: sockets,
            calls,
            judges_calls: false,
            point: AT_FUNCTIONS,
            steady,
            probe: ProbeGlobals::NOBODY,
        }
    }

    pub fn of_plan(plan: &Plan, kernel_log: bool) -> Self {
        let (steady, judges_calls) =
            (SteadyGlobals::of(&counted_by(&plan.attachments)), !plan.points.points.is_empty());
        Self {
            levels: plan.levels,
            targets: targets(&plan.targets),
            slots: plan.targets.len().max(1) as u32,
            rules: plan.rules.len().max(1) as u32,
            net: plan.net_config(),
            by_segment: plan.by_segment(),
            by_path: plan.by_path(),
            copy: new_copy_mark(),
            kernel_log,
            layout: if plan.attachments.iter().any(reads_sockets) {
                sock_layout()
            } else {
                SockLayout::UNKNOWN
            },
            calls: if judges_calls || steady.calls {
                btf::call_layout().unwrap_or(CallLayout::UNKNOWN)
            } else {
                CallLayout::UNKNOWN
            },
            judges_calls,
            point: AT_FUNCTIONS,
            steady,
            probe: ProbeGlobals::NOBODY,
        }
    }
}

/// Whether a program reads the kernel's own account of a socket. Only for those is BTF read, which takes longer than
/// all else that is done before a fault is in force.
const fn reads_sockets(attachment: &Attachment) -> bool {
    match attachment {
        Attachment::Tc { direction, .. } => matches!(direction, Direction::Ingress),
        Attachment::RawTracepoint { .. } | Attachment::CgroupSock { .. } => true,
        Attachment::CgroupSkb { .. } | Attachment::SockDiag { .. } | Attachment::Call { .. } => false,
    }
}

/// Without BTF what needs these offsets is not planned.
fn sock_layout() -> SockLayout {
    btf::sock_layout().unwrap_or(SockLayout::UNKNOWN)
}

/// 16 bits, not all 0.
fn new_copy_mark() -> u32 {
    1 + random::draw(monotonic_ns(), std::process::id(), 0) % u32::from(u16::MAX)
}

/// Writes a plan into the maps. The lease stays disarmed: it is zero until somebody arms it.
pub fn fill(ebpf: &mut Ebpf, plan: &Plan) -> Result<(), KernelError> {
    let mut rules: Array<_, Wire<Rule>> = typed(ebpf, map::RULES)?;
    for (number, planned) in (0..).zip(&plan.rules) {
        rules.set(number, Wire(planned.rule), 0).map_err(KernelError::map(map::RULES))?;
    }
    fill_parameters(ebpf, plan)?;
    fill_calls(ebpf, plan)?;
    fill_leaps(ebpf, plan)?;
    fill_ranges(ebpf, &plan.clauses)?;
    fill_names(ebpf, &plan.clauses)
}

/// Whom it concerns.
pub fn targets(planned: &[PlannedTarget]) -> Targets {
    Targets::of(&planned.iter().map(|target| target.entry).collect::<Vec<_>>())
}

/// Each program finds what it needs in its own map, by rule.
fn fill_parameters(ebpf: &mut Ebpf, plan: &Plan) -> Result<(), KernelError> {
    for (number, planned) in (0..).zip(&plan.rules) {
        match planned.parameters {
            Parameters::None => {}
            Parameters::Reject(how) => set(ebpf, map::REJECTS, number, how)?,
            Parameters::Dns(answer) => set(ebpf, map::DNS_ANSWERS, number, answer)?,
            Parameters::Corrupt(corruption) => set(ebpf, map::CORRUPTIONS, number, corruption)?,
            Parameters::Duplicate(duplication) => set(ebpf, map::DUPLICATIONS, number, duplication)?,
            Parameters::Shape(shape) => fill_shape(ebpf, number, shape)?,
            Parameters::Refuse { errno } => set(ebpf, map::REFUSALS, number, Refusal { errno, spare: 0 })?,
            Parameters::Call { effect, filter } => {
                set(ebpf, map::CALL_EFFECTS, number, effect)?;
                set(ebpf, map::CALL_FILTERS, number, filter)?;
                // Where its calls are met at a cgroup, they fail with its only error.
                set(ebpf, map::REFUSALS, number, Refusal { errno: effect.errors[0], spare: 0 })?;
                if let Fault::Call(CallFault { slow: Some(slow), .. }) = &planned.fault {
                    fill_shape(ebpf, number, slow.delay.shape())?;
                }
            }
        }
    }
    Ok(())
}

/// Which calls are judged where, and the paths of those that name some.
fn fill_calls(ebpf: &mut Ebpf, plan: &Plan) -> Result<(), KernelError> {
    let mut calls: HashMap<_, Wire<CallKey>, Wire<CallEntry>> = typed(ebpf, map::CALLS)?;
    for planned in &plan.points.points {
        for (number, entry) in &planned.entries {
            let key = CallKey { point: planned.point.id, number: *number };
            calls.insert(Wire(key), Wire(*entry), 0).map_err(KernelError::map(map::CALLS))?;
        }
    }
    let mut tables: Array<_, Wire<PathTable>> = typed(ebpf, map::CALL_PATHS)?;
    for (number, planned) in (0..).zip(&plan.rules) {
        let Fault::Call(fault) = &planned.fault else { continue };
        for (place, pattern) in (number * MAX_PATHS as u32..).zip(&fault.filter.paths) {
            tables.set(place, Wire(pattern.to_kernel()), 0).map_err(KernelError::map(map::CALL_PATHS))?;
        }
    }
    Ok(())
}

fn fill_shape(ebpf: &mut Ebpf, number: u32, shape: Shape) -> Result<(), KernelError> {
    let mut shapes: Array<_, Wire<Shape>> = typed(ebpf, map::SHAPES)?;
    shapes.set(number, Wire(shape), 0).map_err(KernelError::map(map::SHAPES))?;
    if shape.jitter_ns == 0 {
        return Ok(());
    }
    let mut tables: Array<_, Wire<Table>> = typed(ebpf, map::SHAPE_TABLES)?;
    for (index, table) in jitter::tables(shape.distribution) {
        tables.set(index, Wire(table), 0).map_err(KernelError::map(map::SHAPE_TABLES))?;
    }
    Ok(())
}

fn fill_leaps(ebpf: &mut Ebpf, plan: &Plan) -> Result<(), KernelError> {
    let by_segment = plan.by_segment();
    let mut leaps: Array<_, Wire<Leaps>> = typed(ebpf, map::LEAPS)?;
    for (number, planned) in (0..).zip(&plan.rules).filter(|(number, _)| by_segment & (1 << number) != 0) {
        let of = Wire(Leaps::of(&planned.rule.pattern));
        leaps.set(number, of, 0).map_err(KernelError::map(map::LEAPS))?;
    }
    Ok(())
}

fn fill_names(ebpf: &mut Ebpf, clauses: &Clauses) -> Result<(), KernelError> {
    for (beginning, mask) in &clauses.names.entries {
        let mut key = [0; KEY_BYTES];
        key[..beginning.len()].copy_from_slice(beginning);
        let mut names: LpmTrie<_, [u8; KEY_BYTES], u64> = typed(ebpf, map::DNS_NAMES)?;
        let key = Key::new(beginning.len() as u32 * 8, key);
        names.insert(&key, mask, 0).map_err(KernelError::map(map::DNS_NAMES))?;
    }
    Ok(())
}

/// Writes one rule's parameters into the map of their kind.
fn set<T: Pod>(ebpf: &mut Ebpf, name: &'static str, rule: u32, value: T) -> Result<(), KernelError> {
    let mut values: Array<_, Wire<T>> = typed(ebpf, name)?;
    values.set(rule, Wire(value), 0).map_err(KernelError::map(name))
}

/// Who names which addresses and ports.
fn fill_ranges(ebpf: &mut Ebpf, clauses: &Clauses) -> Result<(), KernelError> {
    fill_all(ebpf, map::PEERS_V4, &clauses.peers_v4)?;
    fill_all(ebpf, map::PEERS_V6, &clauses.peers_v6)?;
    fill_all(ebpf, map::PORTS, &clauses.ports)
}

/// Writes an array from its beginning.
pub fn fill_all<T: Pod>(ebpf: &mut Ebpf, name: &'static str, values: &[T]) -> Result<(), KernelError> {
    let mut array: Array<_, Wire<T>> = typed(ebpf, name)?;
    for (index, value) in (0..).zip(values) {
        array.set(index, Wire(*value), 0).map_err(KernelError::map(name))?;
    }
    Ok(())
}

/// A map of the object, as the type it is.
pub fn typed<'a, M>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<&'a mut Map, Error = aya::maps::MapError>,
{
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    M::try_from(map).map_err(KernelError::map(name))
}

/// The lease, taken out of the object for the thread that renews it.
pub fn take_lease(ebpf: &mut Ebpf) -> Result<Array<MapData, Wire<Lease>>, KernelError> {
    let map = ebpf.take_map(map::LEASE).ok_or_else(|| missing(map::LEASE))?;
    Array::try_from(map).map_err(KernelError::map(map::LEASE))
}

/// The rules, taken out of the object for the thread that changes them.
pub fn take_rules(ebpf: &mut Ebpf) -> Result<Array<MapData, Wire<Rule>>, KernelError> {
    let map = ebpf.take_map(map::RULES).ok_or_else(|| missing(map::RULES))?;
    Array::try_from(map).map_err(KernelError::map(map::RULES))
}

fn missing(name: &'static str) -> KernelError {
    KernelError::Map { map: name, source: aya::maps::MapError::InvalidName { name: name.into() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaos_common::names::{global, program};

    /// Names stand in chaos-common and, as attributes take no constants, again in the kernel half.
    #[test]
    fn the_object_holds_every_name() {
        let object = String::from_utf8_lossy(OBJECT);
        for name in program::ALL.iter().chain(map::ALL).chain(global::ALL) {
            assert!(object.contains(&format!("\0{name}\0")), "{name} is not in the object");
        }
    }
}
