//! `kchaos doctor`: what this kernel can do, tried.

use clap::Args;
use serde::Serialize;

use super::{exit, terminal, terminal::say};
use crate::{
    fault::capability::Capabilities,
    kernel::{Kernel, LiveKernel},
    target::Hierarchy,
};

/// Options of `kchaos doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Diagnosis {
    schema: &'static str,
    kernel: String,
    cgroup2: Result<String, String>,
    #[serde(flatten)]
    capabilities: Capabilities,
}

/// Tries everything and says what came of it.
pub fn run(args: &DoctorArgs) -> anyhow::Result<u8> {
    let diagnosis = Diagnosis {
        schema: "kchaos-doctor/1",
        kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
        cgroup2: Hierarchy::find()
            .map(|hierarchy| hierarchy.mount().display().to_string())
            .map_err(|error| error.to_string()),
        capabilities: LiveKernel::default().capabilities()?,
    };
    if args.json {
        say!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        print(&diagnosis);
    }
    Ok(exit::OK)
}

fn print(diagnosis: &Diagnosis) {
    say!("kernel {}", diagnosis.kernel);
    match &diagnosis.cgroup2 {
        Ok(mount) => say!("cgroup v2 at {mount}"),
        Err(error) => say!("cgroup v2: {error}"),
    }
    let mut table = terminal::table(&["capability", "here", "needed for", "if missing"]);
    for probed in &diagnosis.capabilities.probed {
        let capability = probed.capability;
        let (here, missing) = match &probed.missing_because {
            None => ("yes", String::new()),
            Some(why) => ("no", format!("{why}; provided by {}", capability.provided_by())),
        };
        table.add_row([capability.name(), here, capability.needed_for(), &missing]);
    }
    terminal::print(&table);
}
