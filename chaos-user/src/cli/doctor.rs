//! `kchaos doctor`: what this kernel can do, tried.

use clap::Args;
use serde::Serialize;

use super::{exit, terminal, terminal::say};
use crate::{
    fault::capability::{Capabilities, Probed},
    kernel::{host::Host, probe::diagnose},
    target::Hierarchy,
};

/// Options of `kchaos doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// What is printed; the schema is stable.
#[derive(Serialize)]
struct Diagnosis<'a> {
    schema: &'static str,
    kernel: String,
    machine: String,
    cgroup2: Result<String, String>,
    #[serde(flatten)]
    host: Host,
    probed: Vec<Explained<'a>>,
}

/// What came of trying one capability, and what users are told of it.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    probed: &'a Probed,
    name: &'static str,
    needed_for: &'static str,
    provided_by: &'static str,
}

impl<'a> Explained<'a> {
    fn new(probed: &'a Probed) -> Self {
        let Probed { capability, .. } = probed;
        let (name, needed_for) = (capability.name(), capability.needed_for());
        Self { probed, name, needed_for, provided_by: capability.provided_by() }
    }
}

/// Tries everything and says what came of it.
pub fn run(args: &DoctorArgs) -> anyhow::Result<u8> {
    let names = nix::sys::utsname::uname()?;
    let hierarchy = Hierarchy::find();
    let Capabilities { probed, .. } = diagnose()?;
    let diagnosis = Diagnosis {
        schema: "kchaos-doctor/1",
        kernel: names.release().to_string_lossy().into_owned(),
        machine: names.machine().to_string_lossy().into_owned(),
        host: Host::read(hierarchy.as_ref().ok()),
        cgroup2: hierarchy
            .map(|hierarchy| hierarchy.mount().display().to_string())
            .map_err(|error| error.to_string()),
        probed: probed.iter().map(Explained::new).collect(),
    };
    if args.json {
        say!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        print(&diagnosis, &probed);
    }
    Ok(exit::OK)
}

fn print(diagnosis: &Diagnosis<'_>, probed: &[Probed]) {
    let Host { cgroup_controllers, security_modules, lockdown } = &diagnosis.host;
    say!("kernel {} ({})", diagnosis.kernel, diagnosis.machine);
    match &diagnosis.cgroup2 {
        Ok(mount) => say!("cgroup v2 at {mount}, controllers: {}", words(cgroup_controllers)),
        Err(error) => say!("cgroup v2: {error}"),
    }
    match security_modules {
        Some(modules) => say!("security modules: {}", words(modules)),
        None => say!("security modules: not shown (securityfs is not mounted)"),
    }
    match lockdown {
        Some(level) => say!("lockdown: {level}"),
        None => say!("lockdown: not there, or not shown"),
    }
    let mut table = terminal::table(&["capability", "here", "needed for"]);
    for probed in probed {
        let here = match (&probed.missing_because, &probed.note) {
            (None, None) => "yes",
            (None, Some(_)) => "yes *",
            (Some(_), _) => "no",
        };
        table.add_row([probed.capability.name(), here, probed.capability.needed_for()]);
    }
    terminal::print(&table);
    for probed in probed {
        if let Some(note) = &probed.note {
            say!("* {}: {note}", probed.capability);
        }
    }
    print_missing(probed);
}

fn print_missing(probed: &[Probed]) {
    let mut missing = probed.iter().filter_map(|probed| Some((probed, probed.missing_because.as_ref()?)));
    let Some(first) = missing.next() else { return };
    say!("");
    let mut table = terminal::wrapped_table(&["missing", "what the kernel said", "provided by"]);
    for (probed, because) in std::iter::once(first).chain(missing) {
        table.add_row([probed.capability.name(), because, probed.capability.provided_by()]);
    }
    terminal::print(&table);
}

fn words(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}
