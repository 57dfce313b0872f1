//! The object with its constants filled in.

use std::sync::{Mutex, PoisonError};

use aya::{Ebpf, EbpfLoader};
use chaos_common::{
    names::{global, map},
    net::{NetConfig, hook},
    rule::Levels,
    shape,
    steady::{CallClasses, GOING_ON, SockLayout, SteadyLayout, series},
    syscall::{CallLayout, CallPoint, MAX_CALLS, MAX_PATHS, REMEMBERED},
    targets::TargetHash,
};

use super::{
    KernelError,
    object::{self, Globals, OBJECT, ProbeGlobals},
    wire::Wire,
};
use crate::steady::calls;

/// What programs are told, as it lies in their memory.
struct Constants {
    levels: Wire<Levels>,
    targets: Wire<TargetHash>,
    slots: u32,
    net: Wire<NetConfig>,
    by_segment: u64,
    by_path: u32,
    copy: u32,
    layout: Wire<SockLayout>,
    steady: Wire<SteadyLayout>,
    classes: Wire<CallClasses>,
    calls_timed: u32,
    calls: Wire<CallLayout>,
    point: Wire<CallPoint>,
    probe: ProbeGlobals,
    log_level: u8,
}

/// They are never given back, so there must be little of them.
const _: () = assert!(size_of::<Constants>() <= 4096);

impl Constants {
    fn of(globals: &Globals) -> Self {
        Self {
            levels: Wire(globals.levels),
            targets: Wire(globals.targets.hash),
            slots: globals.slots,
            net: Wire(globals.net),
            by_segment: globals.by_segment,
            by_path: u32::from(globals.by_path),
            copy: globals.copy,
            layout: Wire(globals.layout),
            steady: Wire(globals.steady.layout),
            classes: Wire(calls::classes()),
            calls_timed: u32::from(globals.steady.calls),
            calls: Wire(globals.calls),
            point: Wire(globals.point),
            probe: globals.probe,
            log_level: if globals.kernel_log { u8::MAX } else { 0 },
        }
    }

    fn tell(&'static self, loader: &mut EbpfLoader<'static>) {
        loader
            .override_global(global::LEVELS, &self.levels, true)
            .override_global(global::TARGET_HASH, &self.targets, true)
            .override_global(global::SLOTS, &self.slots, true)
            .override_global(global::NET, &self.net, true)
            .override_global(global::BY_SEGMENT, &self.by_segment, true)
            .override_global(global::BY_PATH, &self.by_path, true)
            .override_global(global::COPY, &self.copy, true)
            .override_global(global::SOCK_LAYOUT, &self.layout, true)
            .override_global(global::STEADY_LAYOUT, &self.steady, true)
            .override_global(global::CALL_CLASSES, &self.classes, true)
            .override_global(global::CALLS_TIMED, &self.calls_timed, true)
            .override_global(global::CALL_LAYOUT, &self.calls, true)
            .override_global(global::POINT, &self.point, true)
            .override_global(global::PROBE_CGROUP, &self.probe.cgroup, true)
            .override_global(global::PROBE_RET, &self.probe.ret, true)
            .override_global(global::PROBE_SLEEP_NS, &self.probe.sleep_ns, true)
            .override_global(aya_log::LEVEL, &self.log_level, true);
    }
}

/// Creates the maps, with the targets in theirs, and relocates the programs; loads none.
pub fn load(globals: &Globals) -> Result<Ebpf, KernelError> {
    // To make a loader reads all types of the kernel (aya 0.14, `EbpfLoader::new`), which takes longer than all the rest. So one
    // is kept; what it borrows lives as long.
    static LOADER: Mutex<Option<EbpfLoader<'static>>> = Mutex::new(None);
    let mut kept = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    let loader = kept.get_or_insert_with(EbpfLoader::new);
    let constants: &'static Constants = Box::leak(Box::new(Constants::of(globals)));
    constants.tell(loader);
    size_maps(globals, loader);
    let mut ebpf = loader.load(OBJECT)?;
    object::fill_all(&mut ebpf, map::TARGETS, &globals.targets.entries)?;
    Ok(ebpf)
}

/// Maps that nothing uses have one entry.
fn size_maps(globals: &Globals, loader: &mut EbpfLoader<'static>) {
    let if_calls = |entries: u32| if globals.judges_calls { entries } else { 1 };
    let if_timed = |entries: u32| if globals.steady.times { entries } else { 1 };
    let entries = globals.rules * globals.slots;
    let holding = [hook::SHAPE_EGRESS, hook::SHAPE_INGRESS, hook::PRIORITY_EGRESS];
    let holds = holding.iter().any(|hook| globals.net.rules[*hook] != 0);
    let if_holds = |entries: u32| if holds { entries } else { 1 };
    loader
        .map_max_entries(map::TARGETS, globals.targets.entries.len() as u32)
        .map_max_entries(map::LEAPS, if globals.by_segment != 0 { globals.rules } else { 1 })
        .map_max_entries(map::RULE_STATE, entries)
        .map_max_entries(map::RULE_STATS, entries)
        .map_max_entries(map::SHAPE_STATE, if_holds(entries))
        .map_max_entries(map::SHAPE_TABLES, if holds { shape::TABLES } else { if_calls(shape::TABLES) })
        .map_max_entries(map::SPIN_DUE, if_calls(globals.slots))
        .map_max_entries(map::SHAPE_FLOWS, if_holds(shape::FLOWS))
        .map_max_entries(map::CALLS, if_calls(MAX_CALLS))
        .map_max_entries(map::CALL_PATHS, if globals.by_path { globals.rules * MAX_PATHS as u32 } else { 1 })
        .map_max_entries(map::CALL_MEMORY, if_calls(REMEMBERED))
        .map_max_entries(map::STEADY, globals.slots)
        .map_max_entries(map::STEADY_CALLS, globals.slots)
        .map_max_entries(map::STEADY_ERRORS, globals.slots)
        .map_max_entries(map::STEADY_TCP, globals.slots)
        .map_max_entries(map::STEADY_TASKS, globals.slots)
        .map_max_entries(map::STEADY_TIMES, if_timed(globals.slots * series::COUNT))
        .map_max_entries(map::CALLING_SINCE, if_timed(GOING_ON))
        .map_max_entries(map::RUNNABLE_SINCE, if_timed(GOING_ON))
        .map_max_entries(map::ISSUED_SINCE, if_timed(GOING_ON))
        .map_max_entries(map::PEERS_V4, 1 << globals.net.peer_v4_steps)
        .map_max_entries(map::PEERS_V6, 1 << globals.net.peer_v6_steps)
        .map_max_entries(map::PORTS, 1 << globals.net.port_steps);
}
