//! From the ways chosen for calls to the points where programs are attached, and what these judge there.

use std::collections::{BTreeMap, BTreeSet};

use chaos_common::syscall::{CallEntry, CallPoint, HOW, point, uring};

use super::{
    Arch, Arguments, CallFault, Effect, IoUring, Syscall, Uring, Way,
    ladder::{Place, Rung, ladder},
    place::{CallPlace, DelayAt, DelayPlace, delays},
    slow::How,
};
use crate::fault::{
    Fault,
    capability::{Capabilities, Capability},
    mechanism::{Mechanism, Tried, Unplannable},
    plan::{Options, Parameters, PlanError, PlannedRule, rule},
};

/// A call that a rule is for, and how it is met.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedCall {
    /// Which.
    pub call: Syscall,
    /// How.
    pub way: Way,
    /// How it is delayed, if it is.
    pub how: Option<How>,
}

/// A point where programs are attached, and the calls judged there.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedPoint {
    /// Where.
    pub at: CallPlace,
    /// What the program there must know.
    pub point: CallPoint,
    /// By the calls' numbers.
    pub entries: BTreeMap<u32, CallEntry>,
}

/// A call that rules are for.
#[derive(Clone, Copy)]
struct Met {
    rules: u64,
    call: Syscall,
    only_writes: bool,
}

/// All points of an injection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// Those that may do something.
    pub points: Vec<PlannedPoint>,
    /// Functions of calls whose first answer must be remembered.
    pub begins: BTreeSet<String>,
    /// Where callers wait who were judged before.
    pub waits: BTreeSet<DelayPlace>,
}

impl CallFault {
    /// Each call by the first way that this kernel has.
    pub fn plan(&self, capabilities: &Capabilities, options: &Options) -> Result<PlannedRule, PlanError> {
        let (mut calls, mut unmet) = (Vec::new(), Vec::new());
        for (call, _) in self.calls.on(Arch::HERE) {
            match self.way(call, capabilities, options.forced) {
                Ok((way, how)) => calls.push(PlannedCall { call, way, how }),
                Err(why) => unmet.push((call, why)),
            }
        }
        // Of a class, those that can be met will do; a call that was named must be.
        let must = |call| self.by_name && self.calls.names(call);
        let lost = unmet.iter().position(|(call, _)| calls.is_empty() || must(*call));
        if let Some(lost) = lost {
            return Err(unmet.swap_remove(lost).1.into());
        }
        let ways = calls.iter().flat_map(|planned| &planned.way.places).filter_map(|place| match place {
            Place::Cgroup(socket_call) => Some(socket_call.ways()),
            Place::Hook(_) | Place::Function(_) => None,
        });
        Ok(PlannedRule {
            ways: ways.flatten().collect(),
            parameters: Parameters::Call { effect: self.kernel_effect(), filter: self.filter.to_kernel() },
            rule: rule(&self.pattern, &self.limits, (0, 0), options),
            fault: Fault::Call(self.clone()),
            queues: Vec::new(),
            ourselves: None,
            unmet: unmet.into_iter().map(|(call, _)| call).collect(),
            calls,
        })
    }

    /// All ways for a call that suit the fault.
    pub fn ways(&self, call: Syscall) -> Vec<Way> {
        let single = matches!(&self.effect, Effect::Errno(errors) if errors.weighted().len() == 1);
        let at_cgroup = single && self.signal.is_none() && self.filter.is_empty();
        let ways = ladder(call, &self.effect, self.sockets, Arch::HERE).ways;
        ways.into_iter().filter(|way| at_cgroup || way.rung != Rung::CgroupSock).collect()
    }

    /// The same with how each delays, if the fault does: who sleeps comes before who is kept busy.
    fn ways_to(&self, call: Syscall) -> Vec<(Way, Option<How>)> {
        let ways = self.ways(call);
        let Some(slow) = &self.slow else { return ways.into_iter().map(|way| (way, None)).collect() };
        let that = |how: How| {
            let those = ways.iter().filter(move |way| slow.hows(call, way).contains(&how));
            those.map(move |way| (way.clone(), Some(how)))
        };
        How::ALL.into_iter().flat_map(that).collect()
    }

    fn way(
        &self,
        call: Syscall,
        capabilities: &Capabilities,
        forced: Option<Mechanism>,
    ) -> Result<(Way, Option<How>), Unplannable> {
        let ways = self.ways_to(call);
        let forced = forced.filter(|forced| ways.iter().any(|(way, _)| way.rung.mechanism() == *forced));
        let mut tried = Vec::new();
        let exists = call.function(Arch::HERE).is_some_and(|function| capabilities.has_function(&function));
        for (way, how) in ways.into_iter().filter(|_| exists) {
            let mechanism = way.rung.mechanism();
            if forced.is_some_and(|forced| forced != mechanism) {
                continue;
            }
            let needs = way.rung.needs(&self.effect);
            let needs = [Some(needs), how.and_then(How::needs)].into_iter().flatten();
            if let Some(lacks) = needs.into_iter().find(|needs| !capabilities.has(*needs)) {
                tried.push(Tried::new(mechanism, lacks, capabilities));
            } else if way.rung == Rung::FmodRetSyscall
                && !way.functions().iter().all(|function| capabilities.can_modify(function))
            {
                // The kernels that have it let programs of both kinds answer there.
                tried.push(Tried::new(mechanism, Capability::Override, capabilities));
            } else if way.functions().iter().all(|function| capabilities.has_function(function)) {
                return Ok((way, how));
            }
        }
        tried.dedup();
        Err(Unplannable { what: format!("{} for {call}", self.name), tried })
    }

    /// Whether its calls are all met where requests of io_uring pass too, or have none.
    pub fn rings_pass_by(&self, planned: &PlannedRule) -> Option<Syscall> {
        if self.io_uring == IoUring::Ignore {
            return None;
        }
        let passes = |planned: &&PlannedCall| {
            let at_function = matches!(planned.way.rung, Rung::FmodRetSyscall | Rung::Kprobe);
            at_function && Uring::of(planned.call) != Uring::None
        };
        planned.calls.iter().find(passes).map(|planned| planned.call)
    }
}

impl Points {
    /// Of all rules.
    pub fn of(rules: &[PlannedRule]) -> Self {
        let mut points = Self::default();
        for (number, planned) in rules.iter().enumerate() {
            let Fault::Call(fault) = &planned.fault else { continue };
            for call in &planned.calls {
                points.add(1 << number, call, fault);
            }
        }
        // Who judges before a function takes note of the call as well.
        let judges = |function: &String| {
            points.points.iter().any(|point| point.at == CallPlace::Judge(function.clone()))
        };
        points.begins.retain(|function| !judges(function));
        points
    }

    fn add(&mut self, rules: u64, planned: &PlannedCall, fault: &CallFault) {
        let when = fault.slow.as_ref().map(|slow| slow.at).unwrap_or_default();
        for place in &planned.way.places {
            let (at, is, goes_on) = match (planned.way.rung, place) {
                (_, Place::Cgroup(_)) => continue,
                (Rung::Kprobe, Place::Function(function)) => {
                    (CallPlace::Kprobe(function.clone()), point::FUNCTION, 0)
                }
                (_, Place::Function(function)) => {
                    (CallPlace::ModifyReturn(function.clone()), point::FUNCTION, 0)
                }
                (Rung::Lsm, Place::Hook(hook)) => {
                    (CallPlace::Lsm(hook.name.to_owned()), hook.is(), hook.goes_on.unwrap_or(0))
                }
                (_, Place::Hook(hook)) => {
                    let function = hook.function.unwrap_or(hook.name);
                    (CallPlace::ModifyReturn(function.to_owned()), hook.is(), 0)
                }
            };
            let (at, waits) = match planned.how {
                Some(how) => match delays(&at, how, when) {
                    Some(places) => places,
                    None => continue,
                },
                None => (at, Vec::new()),
            };
            self.waits.extend(waits);
            if is & point::AGAIN != 0 {
                self.begins.extend(planned.call.function(Arch::HERE));
            }
            let met = Met { rules, call: planned.call, only_writes: fault.filter.writes };
            self.judge(at, (is, goes_on), met);
        }
    }

    /// Has a call judged at a place. A ring's request has no arguments that could be read: where only what opens to
    /// write is meant, those that open are let by.
    fn judge(&mut self, at: CallPlace, (is, goes_on): (u32, i32), met: Met) {
        let Some(number) = met.call.number(Arch::HERE) else { return };
        let point = self.point(at, is, goes_on);
        let of_call = entry(met.call);
        let mut judge = |number, of: CallEntry| {
            point.entries.entry(number).or_insert(of).rules |= met.rules;
        };
        judge(number, of_call);
        if is & point::URING != 0 && !(met.only_writes && of_call.flags != 0) {
            let of_ring = CallEntry { path: 0, fd: 0, flags: 0, ..of_call };
            match Uring::of(met.call) {
                Uring::Writes if is & point::MASK != 0 => judge(uring::WRITES, of_ring),
                Uring::Writes | Uring::Other => judge(uring::OTHER, of_ring),
                Uring::None => {}
            }
        }
    }

    /// A function whose kprobe would answer for nobody: the kernel calls it itself where programs of fmod_ret or fexit
    /// are (arch/x86/net/bpf_jit_comp.c, `arch_prepare_bpf_trampoline`, 6.12).
    pub fn answer_lost(&self) -> Option<&str> {
        let has = |function: &String| {
            let waits = self.waits.iter().any(|place| place.name == *function);
            waits
                || self.points.iter().any(|point| match &point.at {
                    CallPlace::ModifyReturn(name) => name == function,
                    CallPlace::Delay(place) => place.at != DelayAt::Lsm && place.name == *function,
                    CallPlace::Lsm(_) | CallPlace::Begin(_) | CallPlace::Judge(_) | CallPlace::Kprobe(_) => {
                        false
                    }
                })
        };
        self.points.iter().find_map(|point| match &point.at {
            CallPlace::Kprobe(function) if has(function) => Some(function.as_str()),
            _ => None,
        })
    }

    fn point(&mut self, at: CallPlace, is: u32, goes_on: i32) -> &mut PlannedPoint {
        let place = self.points.iter().position(|point| point.at == at).unwrap_or_else(|| {
            // One load of aya's serves all kprobes, and its constant is the object's own: 0.
            let id = if matches!(at, CallPlace::Kprobe(_)) { 0 } else { self.points.len() as u32 + 1 };
            let point = CallPoint { id, is, goes_on, spare: 0 };
            self.points.push(PlannedPoint { at, point, entries: BTreeMap::new() });
            self.points.len() - 1
        });
        &mut self.points[place]
    }
}

fn entry(call: Syscall) -> CallEntry {
    let Arguments { path, fd } = Arguments::of(call);
    let flags = match call.name() {
        "open" => 2,
        "openat" => 3,
        "openat2" => 3 | HOW,
        _ => 0,
    };
    CallEntry { rules: 0, path: path.unwrap_or(0), fd: fd.unwrap_or(0), flags, spare: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{capability::Capability, syscall::call::tests::made};

    fn errno(calls: &str, error: &str) -> CallFault {
        made("errno", &[("syscalls", calls), ("error", error), ("any", "true")]).unwrap()
    }

    fn planned(fault: &CallFault, lacks: &[Capability]) -> PlannedRule {
        fault.plan(&Capabilities::all_but(lacks), &Options::default()).unwrap()
    }

    fn number(call: &str) -> u32 {
        call.parse::<Syscall>().unwrap().number(Arch::HERE).unwrap()
    }

    fn function(call: &str) -> String {
        call.parse::<Syscall>().unwrap().function(Arch::HERE).unwrap()
    }

    /// Which numbers are judged at a hook.
    fn judged(points: &Points, hook: &str) -> Vec<u32> {
        let at = CallPlace::Lsm(hook.into());
        let point =
            points.points.iter().find(|point| point.at == at).unwrap_or_else(|| panic!("nothing at {hook}"));
        point.entries.keys().copied().collect()
    }

    #[test]
    fn each_call_is_judged_at_one_point_unless_its_hooks_answer_together() {
        let all = errno("all", "ENOMEM");
        let plan = planned(&all, &[]);
        let points = Points::of(std::slice::from_ref(&plan));
        for planned in &plan.calls {
            let number = planned.call.number(Arch::HERE).unwrap();
            let judging = points.points.iter().filter(|point| point.entries.contains_key(&number)).count();
            assert_eq!(judging, planned.way.places.len(), "{}", planned.call);
        }
        let mut ids: Vec<u32> = points.points.iter().map(|point| point.point.id).collect();
        ids.dedup();
        assert_eq!(ids, (1..=points.points.len() as u32).collect::<Vec<_>>());
    }

    #[test]
    fn calls_share_a_hook_and_rules_share_a_point() {
        let plans = [planned(&errno("openat,read", "EIO"), &[]), planned(&errno("openat2", "EIO"), &[])];
        let points = Points::of(&plans);
        assert_eq!(points.points.len(), 2);
        let mut opens = [number("openat"), number("openat2"), uring::OTHER];
        opens.sort_unstable();
        assert_eq!(judged(&points, "file_open"), opens);
        let open = &points.points[0].entries;
        assert_eq!((open[&number("openat")].rules, open[&number("openat2")].rules), (1, 2));
        assert_eq!(open[&uring::OTHER].rules, 3);
        let (path, flags) = (open[&number("openat")].path, open[&number("openat2")].flags);
        assert_eq!((path, flags), (2, 3 | HOW));
    }

    #[test]
    fn requests_of_rings_are_judged_where_a_hook_meets_their_calls() {
        let at = |calls: &str, hook| {
            let points = Points::of(&[planned(&errno(calls, "EIO"), &[])]);
            let numbers = judged(&points, hook);
            (numbers.contains(&uring::WRITES), numbers.contains(&uring::OTHER))
        };
        assert_eq!(at("write", "file_permission"), (true, false));
        assert_eq!(at("read", "file_permission"), (false, true));
        assert_eq!(at("getdents64", "file_permission"), (false, false));
        assert_eq!(at("setxattr", "inode_setxattr"), (false, true));
        assert_eq!(at("chmod", "path_chmod"), (false, false));
        let fsync = Points::of(&[planned(&errno("fsync", "EIO"), &[])]);
        assert_eq!(fsync.points[0].entries.keys().copied().collect::<Vec<_>>(), [number("fsync")]);
    }

    #[test]
    fn rings_pass_by_where_the_calls_themselves_are_met() {
        let passes = |fault: &CallFault, lacks: &[Capability]| fault.rings_pass_by(&planned(fault, lacks));
        assert_eq!(passes(&errno("fsync", "EIO"), &[]), Some("fsync".parse().unwrap()));
        assert_eq!(passes(&errno("openat", "EIO"), &[]), None);
        let no_hooks = [Capability::Lsm, Capability::FmodRetSecurity];
        assert_eq!(passes(&errno("openat", "EIO"), &no_hooks), Some("openat".parse().unwrap()));
        assert_eq!(passes(&errno("brk", "ENOMEM"), &[]), None);
        let fault = CallFault { io_uring: IoUring::Ignore, ..errno("fsync", "EIO") };
        assert_eq!(passes(&fault, &[]), None);
    }

    #[test]
    fn what_comes_by_twice_is_remembered_from_its_beginning() {
        let begins = |calls: &str| Points::of(&[planned(&errno(calls, "EIO"), &[])]).begins;
        assert_eq!(begins("pipe2"), BTreeSet::from([function("pipe2")]));
        assert!(begins("fsync").is_empty() && begins("connect").is_empty());
    }

    #[test]
    fn the_heap_ends_where_memory_is_counted_and_stacks_do_not() {
        let plan = planned(&errno("brk,mremap", "ENOMEM"), &[]);
        let points = Points::of(std::slice::from_ref(&plan));
        let [point] = &points.points[..] else { panic!("{points:?}") };
        assert_eq!(point.at, CallPlace::ModifyReturn("security_vm_enough_memory_mm".into()));
        let mut both = [number("brk"), number("mremap")];
        both.sort_unstable();
        assert_eq!(point.entries.keys().copied().collect::<Vec<_>>(), both);
        let without = Capabilities::all_but(&[Capability::FmodRetSecurity]);
        let refused = errno("brk", "ENOMEM").plan(&without, &Options::default()).unwrap_err().to_string();
        assert!(
            refused.contains("errno for brk") && refused.contains("fmod-ret-security needs"),
            "{refused}"
        );
    }

    #[test]
    fn a_call_that_was_named_must_be_met_and_of_a_class_some_will_do() {
        use Capability::{FmodRetSyscall, Override};
        let stock = Capabilities::all_but(&[FmodRetSyscall, Override]);
        let plan = |calls| errno(calls, "EIO").plan(&stock, &Options::default());
        let refused = plan("openat,fsync").unwrap_err().to_string();
        assert!(refused.contains("errno for fsync: fmod-ret-syscall needs"), "{refused}");
        let desc = plan("%desc").unwrap();
        assert!(desc.unmet.contains(&"fsync".parse().unwrap()) && !desc.calls.is_empty());
        assert!(plan("/^f(data)?sync$/").is_err(), "nothing is left");
    }

    #[test]
    fn a_hook_that_the_kernel_lacks_is_skipped() {
        let lacking = vec!["bpf_lsm_path_mkdir".to_owned()];
        let capabilities = Capabilities { lacking, ..Capabilities::all_but(&[]) };
        let plan = errno("mkdirat", "EIO").plan(&capabilities, &Options::default()).unwrap();
        assert_eq!(judged(&Points::of(&[plan]), "inode_mkdir").len(), 2);
        let lacking = vec![function("mkdirat")];
        let capabilities = Capabilities { lacking, ..Capabilities::all_but(&[]) };
        let refused = errno("mkdirat", "EIO").plan(&capabilities, &Options::default()).unwrap_err();
        assert!(refused.to_string().contains("it has no such call"), "{refused}");
    }

    #[test]
    fn a_cgroup_meets_calls_without_any_point_where_the_fault_is_for_its_sockets() {
        let connect = |more: &[(&'static str, &str)]| {
            let values = [&[("syscalls", "connect"), ("error", "ETIMEDOUT")], more].concat();
            planned(&made("errno", &values).unwrap(), &[])
        };
        let ip = connect(&[("sockets", "ip")]);
        assert_eq!(ip.mechanisms().collect::<Vec<_>>(), [Mechanism::CgroupSock]);
        assert!(!ip.ways.is_empty() && Points::of(&[ip]).points.is_empty());
        for more in [&[][..], &[("sockets", "ip"), ("comms", "curl")]] {
            assert_eq!(connect(more).mechanisms().collect::<Vec<_>>(), [Mechanism::Lsm], "{more:?}");
        }
    }

    #[test]
    fn a_mechanism_can_be_insisted_on() {
        let forced = |mechanism| {
            let options = Options { forced: Some(mechanism), ..Options::default() };
            let plan = errno("openat", "EIO").plan(&Capabilities::all_but(&[]), &options).unwrap();
            Points::of(&[plan]).points.swap_remove(0)
        };
        let security = CallPlace::ModifyReturn("security_file_open".into());
        assert_eq!(forced(Mechanism::FmodRetSecurity).at, security);
        assert_eq!(forced(Mechanism::FmodRetSyscall).at, CallPlace::ModifyReturn(function("openat")));
        let kprobe = forced(Mechanism::Kprobe);
        assert_eq!((kprobe.at, kprobe.point.id), (CallPlace::Kprobe(function("openat")), 0));
    }

    #[test]
    fn a_rings_request_has_no_arguments() {
        let of_ring = |name, values: &[(&'static str, &str)]| {
            let plan = made(name, values).unwrap().plan(&Capabilities::all_but(&[]), &Options::default());
            let points = Points::of(&[plan.unwrap()]).points;
            points
                .into_iter()
                .flat_map(|point| point.entries)
                .filter(|(number, _)| *number >= uring::WRITES)
                .collect::<Vec<_>>()
        };
        let entries = of_ring("errno", &[("syscalls", "openat,unlinkat"), ("error", "EIO")]);
        // unlinkat passes one of two hooks.
        assert_eq!(entries.len(), 3);
        assert!(
            entries.iter().all(|(_, entry)| (entry.path, entry.fd, entry.flags) == (0, 0, 0)),
            "{entries:?}"
        );
        // One at file_open more for a disk that cannot be read than for one that only cannot be written.
        let at_open = |is| {
            let plan =
                made("disk", &[("is", is)]).unwrap().plan(&Capabilities::all_but(&[]), &Options::default());
            let points = Points::of(&[plan.unwrap()]).points;
            let open =
                points.into_iter().find(|point| point.at == CallPlace::Lsm("file_open".into())).unwrap();
            open.entries.contains_key(&uring::OTHER)
        };
        assert_eq!((at_open("broken"), at_open("read-only")), (true, false));
    }

    #[test]
    fn a_kprobe_is_alone_at_its_function() {
        let retval = made("retval", &[("syscalls", "mkdir"), ("returns", "0")]).unwrap();
        let slow = |call, at| made("slow", &[("syscalls", call), ("by", "20ms"), ("at", at)]).unwrap();
        let lost = |other: &CallFault| {
            let points = Points::of(&[planned(&retval, &[]), planned(other, &[])]);
            points.answer_lost().map(str::to_owned)
        };
        assert_eq!(lost(&slow("mkdir", "exit")), Some(function("mkdir")));
        assert_eq!((lost(&slow("mkdir", "enter")), lost(&slow("rmdir", "exit"))), (None, None));
    }

    #[test]
    fn where_nobody_may_answer_for_a_function_the_call_is_refused_or_met_otherwise() {
        let getpid = errno("getpid", "EIO");
        let plan = |lacks: &[Capability]| {
            let unmodifiable = vec![function("getpid")];
            let capabilities = Capabilities { unmodifiable, ..Capabilities::all_but(lacks) };
            getpid.plan(&capabilities, &Options::default())
        };
        assert_eq!(plan(&[]).unwrap().calls[0].way.rung, Rung::Kprobe);
        let refused = plan(&[Capability::Override]).unwrap_err().to_string();
        assert!(
            refused.contains("errno for getpid") && refused.contains("fmod-ret-syscall needs"),
            "{refused}"
        );
    }
}
