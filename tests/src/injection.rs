//! Injecting without the program: what the command line has no way to ask for.

use anyhow::Context;
use kchaos::{
    fault::{
        catalogue::find,
        plan::{Options, plan},
        text::Given,
        wanted::wanted,
    },
    kernel::{Kernel, LiveInjection, LiveKernel},
    target,
};

use crate::lab::Cgroup;

/// Faults for one cgroup, each with its parameters; attached, not armed.
pub fn inject(
    cgroup: &Cgroup,
    faults: &[(&'static str, &[(&'static str, &str)])],
) -> anyhow::Result<LiveInjection> {
    let build = |(name, parameters): &(&'static str, &[(&'static str, &str)])| {
        let entry = find(name).with_context(|| format!("the catalogue has {name}"))?;
        let given = parameters.iter().fold(Given::new(entry), |given, (name, value)| given.with(name, value));
        Ok((entry.build)(&given)?)
    };
    let faults = faults.iter().map(build).collect::<anyhow::Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scope = runtime.block_on(target::resolve(&[], &[cgroup.target().parse()?], &[]))?;
    let mut kernel = LiveKernel::default();
    let options = Options::default();
    let capabilities = kernel.capabilities(&wanted(&faults, &options))?;
    Ok(kernel.inject("test", &plan(&faults, &scope, &capabilities, &options)?)?)
}
