//! Tests of kchaos on the kernel that runs, as its users run it: the program `kchaos`, cgroups, network
//! namespaces and real packets. Each shows an effect: works before, hurts during, works again after.
//!
//! Everything a test makes is in namespaces and cgroups of its own and goes with it.

mod bpf;
mod calls;
mod capability;
mod clients;
mod coexist;
mod controller;
mod deal;
mod docker;
mod dry;
mod experiment;
mod fault_point;
mod flow;
mod foreign;
mod gallery;
mod injection;
mod lab;
mod lag;
mod need;
mod net;
mod observe;
mod offload;
mod planted;
mod programs;
mod pulsed;
mod qdisc;
mod report;
mod safety;
mod select;
mod sleep;
mod slow;
mod snapshot;
mod strace;
mod stream;
mod surroundings;
mod target;
mod times;
// Benchmarks use it too; each of the two programs uses its part of it.
#[allow(dead_code)]
mod toy;
mod tun;
mod turn;
mod victim;

use std::{path::Path, process::ExitCode};

use kchaos::kernel::{
    WATCHDOG_VERB,
    sleep::{SLEEP_VERB, keep},
    watch,
};
use libtest_mimic::Arguments;

use need::Need;
use select::{Kernels, Share};

/// Most of the time a test waits: for a lease to end, for an experiment's phase. More at once would make them wait for one
/// another on a small machine, and they are timed.
const THREADS: usize = 4;

/// One test.
#[derive(Clone)]
struct Test {
    name: String,
    needs: &'static [Need],
    kernels: Kernels,
    run: fn() -> anyhow::Result<()>,
}

/// Lists tests by what they need: `tests![EGRESS: one, two; INGRESS: three]`. What they show must hold on each
/// kernel, except after `EGRESS on one kernel:`, where one of the lab's will do, and `EGRESS on any kernel:`, where it is
/// of kchaos's own doing.
macro_rules! tests {
    (@kernels) => { $crate::select::Kernels::Each };
    (@kernels one) => { $crate::select::Kernels::InTurn };
    (@kernels any) => { $crate::select::Kernels::Any };
    (@group $needs:ident, $kernels:expr, $($name:ident),+) => {
        vec![$($crate::Test {
            name: $crate::name(module_path!(), stringify!($name)),
            needs: $crate::need::$needs,
            kernels: $kernels,
            run: $name,
        }),+]
    };
    ($($needs:ident $(on $which:ident kernel)?: $($name:ident),+);+ $(;)?) => {
        [$($crate::tests!(@group $needs, $crate::tests!(@kernels $($which)?), $($name),+)),+].concat()
    };
}
pub(crate) use tests;

/// `net::udp::test` of `kchaos::net::udp` and `test`.
fn name(module: &str, function: &str) -> String {
    let inner = module.split_once("::").map_or(module, |(_, inner)| inner);
    format!("{inner}::{function}")
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(victim::VERB) {
        return victim::program::main();
    }
    match &std::env::args().collect::<Vec<_>>()[..] {
        [_, verb, arguments @ ..] if verb == victim::calls::VERB => return victim::calls::main(arguments),
        [_, verb, arguments @ ..] if verb == victim::chore::VERB => return victim::chore::main(arguments),
        [_, verb, arguments @ ..] if verb == sleep::VICTIM_VERB => return sleep::victim(arguments),
        [_, verb, arguments @ ..] if verb == toy::server::VERB => return toy::server::main(arguments),
        [_, verb, cgroup] if verb == calls::missed::VERB => return calls::missed::main(cgroup.as_ref()),
        [_, verb, arguments @ ..] if verb == sleep::CONTROLLER_VERB => return sleep::controller(arguments),
        _ => {}
    }
    // Tests that inject by themselves start what looks after it, as kchaos does.
    if let [_, verb, journal] = &std::env::args().collect::<Vec<_>>()[..]
        && verb == WATCHDOG_VERB
    {
        return if watch(Path::new(journal)).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let [_, verb, slots] = &std::env::args().collect::<Vec<_>>()[..]
        && verb == SLEEP_VERB
    {
        let kept = slots.parse().map_err(std::io::Error::other).and_then(keep);
        return if kept.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    lab::sweep();
    let tests = [
        net::tests(),
        target::tests(),
        safety::tests(),
        fault_point::tests(),
        coexist::tests(),
        surroundings::tests(),
        report::tests(),
        experiment::tests(),
        observe::tests(),
        pulsed::tests(),
        planted::tests(),
        clients::tests(),
        gallery::tests(),
        docker::tests(),
        dry::tests(),
        capability::tests(),
        programs::tests(),
        sleep::tests(),
        slow::tests(),
        strace::tests(),
        calls::tests(),
    ];
    let tests = select::spread(tests.into_iter().collect());
    if let Some(twice) = select::twice(&tests) {
        eprintln!("test {twice} is listed twice");
        return ExitCode::FAILURE;
    }
    let share = match Share::of(&tests) {
        Ok(share) => share,
        Err(error) => {
            eprintln!("KCHAOS_LAB_KERNELS: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = tests.into_iter().filter_map(|test| select::trial(test, &arguments, &share)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    times::show_longest();
    conclusion.exit_code()
}
