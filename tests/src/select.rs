//! Which tests run here, and in which order.

use std::{env, time::Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{Test, need, times};

/// The task runner's lab sets it to the name of its kernel.
const LAB_VARIABLE: &str = "KCHAOS_LAB_KERNEL";

/// On which kernels a test has something to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// On each: the effect goes through the kernel.
    Each,
    /// One will do, and that is the machine's own: what is refused, what is printed.
    Any,
}

/// All of them, those of each family as far from one another as can be: they wait for the same things, and
/// would wait for each other.
pub fn spread(families: Vec<Vec<Test>>) -> Vec<Test> {
    let place = |(count, number): (usize, usize)| (number * 1_000) / count;
    let mut placed: Vec<_> = families
        .into_iter()
        .flat_map(|family| {
            let count = family.len();
            family.into_iter().enumerate().map(move |(number, test)| (place((count, number)), count, test))
        })
        .collect();
    // Where two families meet, the smaller one has the longer tests.
    placed.sort_by_key(|(place, count, _)| (*place, *count));
    placed.into_iter().map(|(_, _, test)| test).collect()
}

/// What runs a test; `None` if it need not run here, which is said.
pub fn trial(test: Test, arguments: &Arguments) -> Option<Trial> {
    let Test { name, needs, kernels, run } = test;
    let chosen = !arguments.is_filtered_out(&Trial::test(name.as_str(), || Ok(())));
    if chosen && kernels == Kernels::Any && env::var_os(LAB_VARIABLE).is_some() {
        println!("left out {name}: one kernel is enough");
        return None;
    }
    if let Some(unmet) = (chosen && !arguments.list).then(|| need::unmet(needs)).flatten() {
        println!("skipped {name}: {unmet}");
        return Some(Trial::ignorable_test(name, move || Ok(Completion::ignored_with(unmet))));
    }
    Some(Trial::test(name.clone(), move || {
        let started = Instant::now();
        let result = run();
        times::note(name, started.elapsed());
        result.map_err(|error| Failed::from(format!("{error:#}")))
    }))
}
