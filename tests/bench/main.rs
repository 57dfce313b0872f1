//! `cargo xtask bench`: what kchaos costs, as ratios against a peer in the same run. Cases take turns, round by
//! round, so that a machine whose speed drifts is fair to all of them; medians are quoted.

mod aa;
mod attached;
mod calling;
mod delay;
mod echo;
mod goodput;
mod iperf;
mod jitter;
mod judged;
mod models;
mod packet;
mod planted;
mod rate;
mod sleep;
mod sleeper;
mod syscall;
mod throughput;
mod untouched;

// The tests' own; each of the two programs uses its part of them.
#[allow(dead_code)]
#[path = "../src/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "../src/toy/mod.rs"]
mod toy;

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow};
use kchaos::{
    fault::{
        Fault,
        capability::{Capabilities, Capability},
        catalogue,
        plan::{Options, Plan, PlanError, plan},
        text::Given,
        wanted::{Wanted, wanted},
    },
    kernel::{Kernel, LiveKernel},
    target::{Device, Group, Hierarchy, Member, Namespace, Netns, Scope, Target},
};

fn main() -> anyhow::Result<()> {
    match &std::env::args().collect::<Vec<_>>()[..] {
        [_, verb, arguments @ ..] if verb == calling::VERB => return calling::main(arguments),
        [_, verb, arguments @ ..] if verb == sleeper::VERB => return sleeper::main(arguments),
        [_, verb, arguments @ ..] if verb == toy::server::VERB => {
            std::process::exit(i32::from(toy::server::main(arguments) != std::process::ExitCode::SUCCESS))
        }
        _ => {}
    }
    lab::sweep();
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let kernel = nix::sys::utsname::uname()?;
    println!("kernel {}, {} CPUs", kernel.release().to_string_lossy(), std::thread::available_parallelism()?);
    if runs("packet") {
        packet::bench()?;
    }
    if runs("throughput") {
        throughput::bench()?;
    }
    if runs("goodput") {
        goodput::bench()?;
    }
    if runs("untouched") {
        untouched::bench()?;
    }
    if runs("models") {
        models::bench()?;
    }
    if runs("jitter") {
        jitter::bench()?;
    }
    if runs("delay") {
        delay::bench()?;
    }
    if runs("rate") {
        rate::bench()?;
    }
    if runs("syscall") {
        syscall::bench()?;
    }
    if runs("sleep") {
        sleep::bench()?;
    }
    if runs("aa") {
        aa::bench()?;
    }
    if runs("planted") {
        planted::bench()?;
    }
    Ok(())
}

/// A cgroup that is removed at the end.
pub struct BenchCgroup {
    target: Target,
    dir: PathBuf,
    hierarchy: Hierarchy,
}

impl BenchCgroup {
    fn new(name: &str) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/kchaos-bench-{}-{name}", std::process::id()));
        let hierarchy = Hierarchy::find()?;
        let dir = hierarchy.mount().join(path.strip_prefix("/")?);
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { target: Target::Cgroup(path), dir, hierarchy })
    }

    /// Moves this process in; what it makes from now on belongs here.
    fn enter(&self) -> anyhow::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), "0").context("entering a cgroup")
    }

    /// A plan that does this to what this cgroup sends in `netns`: a fault and its parameters, as specs have them.
    fn plan(&self, fault: &str, parameters: &[(&'static str, &str)], netns: &Netns) -> anyhow::Result<Plan> {
        let capabilities = LiveKernel::default()
            .capabilities(&Wanted { capabilities: Capability::PLANNABLE.to_vec(), functions: Vec::new() })?;
        self.plan_for(fault, parameters, netns, netns.devices()?, &capabilities)
    }

    /// The same for these devices and a kernel that can do this.
    fn plan_for(
        &self,
        fault: &str,
        parameters: &[(&'static str, &str)],
        netns: &Netns,
        devices: Vec<Device>,
        capabilities: &Capabilities,
    ) -> anyhow::Result<Plan> {
        let namespaces = vec![Namespace { netns: netns.clone(), devices, is_held: false }];
        let fault = made(fault, parameters)?;
        Ok(plan(&[fault], &self.scope(namespaces)?, capabilities, &Options::default())?)
    }

    /// A plan that does this to system calls of this cgroup; `None` if this kernel cannot.
    fn plan_calls(
        &self,
        fault: &str,
        parameters: &[(&'static str, &str)],
        options: &Options,
    ) -> anyhow::Result<Option<Plan>> {
        let faults = [made(fault, parameters)?];
        let capabilities = LiveKernel::default().capabilities(&wanted(&faults, options))?;
        match plan(&faults, &self.scope(Vec::new())?, &capabilities, options) {
            Ok(plan) => Ok(Some(plan)),
            Err(PlanError::Unplannable(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn scope(&self, namespaces: Vec<Namespace>) -> anyhow::Result<Scope> {
        let Target::Cgroup(path) = &self.target else { unreachable!("made that way") };
        let member = Member {
            group: Group::Experiment,
            target: self.target.clone(),
            cgroup: self.hierarchy.cgroup(&self.target, path)?,
            image: None,
            namespaces,
            ring: None,
        };
        Ok(Scope { members: vec![member], spared: Vec::new() })
    }
}

/// A fault of these parameters, as specs have them.
fn made(fault: &str, parameters: &[(&'static str, &str)]) -> anyhow::Result<Fault> {
    let entry = catalogue::find(fault).with_context(|| format!("no fault {fault}"))?;
    let given = parameters.iter().fold(Given::new(entry), |given, (name, value)| given.with(name, value));
    (entry.build)(&given).map_err(|error| anyhow!("{error}"))
}

impl Drop for BenchCgroup {
    fn drop(&mut self) {
        // Out of it first, or it cannot be removed.
        let left = fs::write(self.hierarchy.mount().join("cgroup.procs"), "0");
        if let Err(error) = left.and_then(|()| fs::remove_dir(&self.dir)) {
            eprintln!("{} was left behind: {error}", self.dir.display());
        }
    }
}

/// The middle value.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Smallest, middle and largest value, as text.
fn spread(values: &[f64], digits: usize) -> String {
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} [{smallest:.digits$}, {largest:.digits$}]", median(values))
}
