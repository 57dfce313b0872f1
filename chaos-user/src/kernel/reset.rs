//! Destroying connections, from a thread of the controller: no program in the kernel does it. So it ends with the
//! controller, whatever that dies of, and it asks for the lease itself.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use chaos_common::{RuleStats, rule::Outcome};

use super::{KernelError, clock::monotonic_ns, lease::LeaseView, probe, sock_diag::SockDiag};
use crate::{
    fault::{Fault, ResetFault, gate::Gate, plan::Plan},
    target::{Cgroup, Group, Netns},
};

/// How often it is looked for connections that could be destroyed.
const DRY_EVERY: Duration = Duration::from_millis(250);

/// What became of connections, by rule and slot, and why there will be no more of it.
#[derive(Debug, Default)]
struct Told {
    stats: Vec<Vec<RuleStats>>,
    error: Option<String>,
}

/// The rules of one injection that destroy connections.
pub struct Resets {
    /// Here while disarmed, with the thread while armed.
    jobs: Vec<Job>,
    running: Option<Running>,
    lease: LeaseView,
    told: Arc<Mutex<Told>>,
}

struct Running {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Job>>,
    dry: bool,
}

/// One rule.
struct Job {
    rule: u32,
    fault: ResetFault,
    gate: Gate,
    targets: Vec<(Cgroup, u32)>,
    doors: Vec<SockDiag>,
    /// When it is its turn again.
    due: Option<Instant>,
}

impl Resets {
    /// Those of a plan; they do nothing before they are armed.
    pub fn new(plan: &Plan, lease: LeaseView) -> Self {
        let slots = plan.targets.len();
        let mut jobs = Vec::new();
        for (number, planned) in (0..).zip(&plan.rules) {
            if let Fault::Reset(fault) = &planned.fault {
                jobs.push(Job {
                    rule: number,
                    fault: fault.sparing(&plan.spared),
                    // No two runs begin in the same nanosecond since the machine was started.
                    gate: Gate::new(number, planned.rule, slots, monotonic_ns()),
                    targets: targets(plan),
                    doors: Vec::new(),
                    due: None,
                });
            }
        }
        let stats = vec![vec![RuleStats::ZERO; slots]; plan.rules.len()];
        let told = Arc::new(Mutex::new(Told { stats, error: None }));
        Self { jobs, running: None, lease, told }
    }

    /// Opens the door to one more namespace. Tried out first, elsewhere: a kernel that cannot is not found out
    /// about when the fault is to begin.
    pub fn open(&mut self, rule: u32, netns: &Netns) -> Result<(), KernelError> {
        let what = || format!("sock_diag in network namespace {}", netns.inode);
        probe::destroys_connections().map_err(|why| KernelError::io(what())(io::Error::other(why)))?;
        let door = SockDiag::open(netns).and_then(|door| door.connections().map(|_| door));
        let door = door.map_err(KernelError::io(what()))?;
        if let Some(job) = self.jobs.iter_mut().find(|job| job.rule == rule) {
            job.doors.push(door);
        }
        Ok(())
    }

    /// Begins. Does nothing if there is nothing to do, or if it has begun already.
    pub fn start(&mut self) -> Result<(), KernelError> {
        self.begin(false)
    }

    /// Begins to count what could be destroyed, again and again, and destroys nothing.
    pub fn start_dry(&mut self) -> Result<(), KernelError> {
        self.begin(true)
    }

    /// Ends that.
    pub fn stop_dry(&mut self) -> Result<(), KernelError> {
        if self.running.as_ref().is_some_and(|running| running.dry) { self.stop() } else { Ok(()) }
    }

    fn begin(&mut self, dry: bool) -> Result<(), KernelError> {
        if self.jobs.is_empty() || self.running.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        self.jobs.iter_mut().for_each(|job| job.due = Some(now));
        let (stop, stopped) = mpsc::channel();
        let (mut jobs, lease, told) =
            (std::mem::take(&mut self.jobs), self.lease.clone(), Arc::clone(&self.told));
        let thread = thread::Builder::new().name("kchaos-reset".into()).spawn(move || {
            run(&mut jobs, &lease, &stopped, &told, dry);
            jobs
        });
        let thread = thread.map_err(KernelError::io("the thread that resets connections"))?;
        self.running = Some(Running { stop, thread, dry });
        Ok(())
    }

    /// Ends; when this returns, nothing more will happen.
    pub fn stop(&mut self) -> Result<(), KernelError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        // The thread may have ended by itself; then nobody hears this.
        let _ = running.stop.send(());
        let panicked = |_| KernelError::Lease("the thread that resets connections panicked".into());
        self.jobs = running.thread.join().map_err(panicked)?;
        Ok(())
    }

    /// Adds what was counted to what the programs of the kernel have.
    pub fn add_to(&self, rules: &mut [Vec<RuleStats>]) -> Result<(), KernelError> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &told.error {
            return Err(KernelError::io("resetting connections")(io::Error::other(error.clone())));
        }
        for (slots, more) in rules.iter_mut().zip(&told.stats) {
            slots.iter_mut().zip(more).for_each(|(stats, more)| *stats = stats.plus(*more));
        }
        Ok(())
    }
}

impl Drop for Resets {
    fn drop(&mut self) {
        // Whoever wanted to know has called stop.
        let _ = self.stop();
    }
}

/// The cgroups that something is done to, those above others first, with their slots.
fn targets(plan: &Plan) -> Vec<(Cgroup, u32)> {
    let experiment = plan.targets.iter().filter(|target| target.group == Group::Experiment);
    let mut targets: Vec<_> = experiment.map(|target| (target.cgroup.clone(), target.entry.slot)).collect();
    targets.sort_by_key(|(cgroup, _)| cgroup.level);
    targets
}

/// Every rule when it is its turn, until it is told to stop or nothing is left to do.
fn run(jobs: &mut [Job], lease: &LeaseView, stopped: &Receiver<()>, told: &Mutex<Told>, dry: bool) {
    while let Some(next) = jobs.iter().filter_map(|job| job.due).min() {
        match stopped.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
        let now = Instant::now();
        for job in jobs.iter_mut().filter(|job| job.due.is_some_and(|due| due <= now)) {
            let every = if dry { Some(DRY_EVERY) } else { job.fault.every };
            job.due = every.map(|every| following(job.due.unwrap_or(now), every));
            if let Err(error) = job.round(lease, told, dry) {
                told.lock().unwrap_or_else(PoisonError::into_inner).error = Some(error.to_string());
                return;
            }
        }
    }
}

/// The next turn that is not over yet: after a long sleep none is made up for.
fn following(due: Instant, every: Duration) -> Instant {
    let mut next = due + every;
    let now = Instant::now();
    while next <= now {
        next += every;
    }
    next
}

impl Job {
    /// Looks at every connection of the targets once.
    fn round(&mut self, lease: &LeaseView, told: &Mutex<Told>, dry: bool) -> io::Result<()> {
        if !lease.is_live() {
            return Ok(());
        }
        let slots = self.slots();
        for door in &self.doors {
            for connection in door.connections()? {
                let Some(slot) = slots.get(&connection.cgroup) else { continue };
                let before = self.gate.clone();
                // Asked for each: a stopped process that goes on, or a hung run loop, finds it over.
                let matches = self.fault.is_for(connection.ends);
                let outcome = match lease.is_live() {
                    // As in `fault/dry.rs`: counted, and not remembered.
                    true if dry && matches => Outcome::Chance,
                    true if dry => Outcome::Filtered,
                    true => self.gate.ask(*slot, matches, monotonic_ns()),
                    false => Outcome::Lease,
                };
                if outcome == Outcome::Injected && !door.destroy(&connection)? {
                    // It has ended by itself in the meantime, and counts for nothing.
                    self.gate = before;
                    continue;
                }
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                let stats = &mut told.stats[self.rule as usize][*slot as usize];
                *stats = stats.plus(RuleStats::of(outcome));
            }
        }
        Ok(())
    }

    /// Whose slot a socket's cgroup counts for, as far as there are cgroups now: that of the deepest target above.
    fn slots(&self) -> HashMap<u64, u32> {
        let below = |(cgroup, slot): &(Cgroup, u32)| {
            let slot = *slot;
            cgroup.ids().into_iter().map(move |id| (id, slot))
        };
        self.targets.iter().flat_map(below).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_that_were_slept_through_are_not_made_up_for() {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let next = following(long_ago, Duration::from_secs(3));
        assert_eq!(next, long_ago + Duration::from_secs(12));
    }
}
