//! Tests of kchaos on the kernel that runs, as its users run it: the program `kchaos`, cgroups, network
//! namespaces and real packets. Each shows an effect: works before, hurts during, works again after.
//!
//! Everything a test makes is in namespaces and cgroups of its own and goes with it.

mod bpf;
mod capability;
mod coexist;
mod controller;
mod docker;
mod experiment;
mod fault_point;
mod flow;
mod foreign;
mod lab;
mod need;
mod net;
mod report;
mod safety;
mod snapshot;
mod stream;
mod surroundings;
mod target;
mod victim;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use need::Need;

/// More at once would make them wait for one another on a small machine, and they are timed.
const THREADS: usize = 2;

/// One test.
struct Test {
    name: String,
    needs: &'static [Need],
    run: fn() -> anyhow::Result<()>,
}

/// Lists tests by what they need: `tests![EGRESS: one, two; INGRESS: three]`.
macro_rules! tests {
    ($($needs:ident: $($name:ident),+);+ $(;)?) => {
        vec![$($($crate::Test {
            name: $crate::name(module_path!(), stringify!($name)),
            needs: $crate::need::$needs,
            run: $name,
        }),+),+]
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
        docker::tests(),
        capability::tests(),
    ];
    let trials = tests.into_iter().flatten().map(|test| trial(test, &arguments)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(test: Test, arguments: &Arguments) -> Trial {
    let Test { name, needs, run } = test;
    let chosen = |trial: Trial| (!arguments.is_filtered_out(&trial)).then_some(trial);
    let Some(unmet) = chosen(Trial::test(name.as_str(), || Ok(())))
        .filter(|_| !arguments.list)
        .and_then(|_| need::unmet(needs))
    else {
        return Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))));
    };
    println!("skipped {name}: {unmet}");
    Trial::ignorable_test(name, move || Ok(Completion::ignored_with(unmet)))
}
