//! From the ways chosen for calls to the points where programs are attached, and what these judge there.

use std::collections::{BTreeMap, BTreeSet};

use chaos_common::syscall::{CallEntry, CallPoint, HOW, point, uring};

use super::{
    Arch, Arguments, CallFault, Effect, IoUring, Syscall, Uring, Way,
    ladder::{Place, Rung, ladder},
    slow::{At, How},
};
use crate::fault::{
    Fault,
    capability::Capabilities,
    mechanism::{Mechanism, Unplannable},
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

/// Where a program for calls is attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallPlace {
    /// A hook of the security modules.
    Lsm(String),
    /// A function, in its place.
    ModifyReturn(String),
    /// A function, before it, to take note of it.
    Begin(String),
    /// A function, in its place, by a kprobe.
    Kprobe(String),
    /// One of these, to delay.
    Delay(DelayPlace),
}

/// Where a program is attached that delays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DelayPlace {
    /// What kind of place.
    pub at: DelayAt,
    /// The hook, or the function.
    pub name: String,
    /// How it delays.
    pub how: How,
    /// Which of several of its kind there: a program is skipped where it sleeps already.
    pub copy: u32,
}

/// What kind of place delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DelayAt {
    /// A hook of the security modules.
    Lsm,
    /// A function, in its place.
    ModifyReturn,
    /// A function, after it.
    After,
}

/// So many programs stand where one is skipped while it sleeps.
const COPIES: u32 = 8;

/// All points of an injection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// Those that may do something.
    pub points: Vec<PlannedPoint>,
    /// Functions of calls whose first answer must be remembered.
    pub begins: BTreeSet<String>,
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
                tried.push((mechanism, lacks));
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
            let at = match &planned.fault {
                Fault::Call(CallFault { slow: Some(slow), .. }) => slow.at,
                _ => At::Enter,
            };
            for call in &planned.calls {
                points.add(1 << number, call, at);
            }
        }
        points
    }

    fn add(&mut self, rules: u64, planned: &PlannedCall, when: At) {
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
            let (places, is) = match planned.how {
                Some(how) => delays(&at, how, when, is),
                None => (vec![at], is),
            };
            if is & point::AGAIN != 0 {
                self.begins.extend(planned.call.function(Arch::HERE));
            }
            places.into_iter().for_each(|at| self.judge(at, (is, goes_on), rules, planned.call));
        }
    }

    /// Has a call judged at a place.
    fn judge(&mut self, at: CallPlace, (is, goes_on): (u32, i32), rules: u64, call: Syscall) {
        let Some(number) = call.number(Arch::HERE) else { return };
        let point = self.point(at, is, goes_on);
        let mut judge = |number| {
            let entry = point.entries.entry(number).or_insert_with(|| entry(call));
            entry.rules |= rules;
        };
        judge(number);
        if is & point::URING != 0 {
            match Uring::of(call) {
                Uring::Writes if is & point::MASK != 0 => judge(uring::WRITES),
                Uring::Writes | Uring::Other => judge(uring::OTHER),
                Uring::None => {}
            }
        }
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

/// The places where a call is delayed that would be answered at this one. Programs of LSM are never skipped
/// (kernel/bpf/trampoline.c, `__bpf_prog_enter_sleepable`, 6.1).
fn delays(at: &CallPlace, how: How, when: At, is: u32) -> (Vec<CallPlace>, u32) {
    let (at, name) = match at {
        CallPlace::Lsm(hook) => (DelayAt::Lsm, hook),
        CallPlace::ModifyReturn(function) if when == At::Exit => (DelayAt::After, function),
        CallPlace::ModifyReturn(function) => (DelayAt::ModifyReturn, function),
        CallPlace::Begin(_) | CallPlace::Kprobe(_) | CallPlace::Delay(_) => return (Vec::new(), is),
    };
    let copies = if at != DelayAt::Lsm && how == How::Sleep { COPIES } else { 1 };
    let place = |copy| CallPlace::Delay(DelayPlace { at, name: name.clone(), how, copy });
    let is = if copies > 1 { is | point::AGAIN } else { is };
    ((0..copies).map(place).collect(), is)
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
