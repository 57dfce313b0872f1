//! Which tests run here, and in which order.

use std::{collections::HashSet, env, fs, sync::LazyLock, time::Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{Test, need, times};

/// The task runner's lab sets it to the name of its kernel.
const LAB_VARIABLE: &str = "KCHAOS_LAB_KERNEL";
/// Where the whole lab is run, it sets it to `1/4` for the second of four kernels.
const TURN_VARIABLE: &str = "KCHAOS_LAB_TURN";
/// Where the machine's own kernel was tried before the lab, it names a file with the tests that passed there.
const PASSED_VARIABLE: &str = "KCHAOS_LAB_PASSED";
/// The task runner sets it where a test that fails is to be run once more, which it counts and lists.
const AGAIN_VARIABLE: &str = "KCHAOS_TEST_AGAIN";

/// On which kernels a test has something to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// On each: the effect goes through the kernel.
    Each,
    /// On the machine's own or, if that cannot, on one of the lab's, each in its turn: which packets and calls are hit is
    /// decided by the same instructions everywhere, and that every kernel runs those is shown by the tests for each. So are the same
    /// thing in IPv6, beside a neighbour, in another arrangement.
    InTurn,
    /// One will do, and that is the machine's own: what is refused, what is printed.
    Any,
}

impl Kernels {
    /// Why a test need not run here, if so.
    fn elsewhere(self, name: &str) -> Option<&'static str> {
        match self {
            Self::Each => None,
            Self::InTurn => {
                let turn = env::var(TURN_VARIABLE).ok()?;
                if PASSED.contains(name) {
                    return Some("it passed on the machine's own kernel");
                }
                (!is_turn(name, &turn)).then_some("another kernel's turn")
            }
            Self::Any => env::var_os(LAB_VARIABLE).map(|_| "one kernel is enough"),
        }
    }
}

/// What passed on the machine's own kernel.
static PASSED: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let read = || fs::read_to_string(env::var_os(PASSED_VARIABLE)?).ok();
    read().unwrap_or_default().lines().map(str::to_owned).collect()
});

/// Whether it is the turn of the kernel `turn` names. Names decide, so that a test stays where it was when others come.
fn is_turn(name: &str, turn: &str) -> bool {
    let numbers = turn.split_once('/').and_then(|(this, of)| Some((this.parse().ok()?, of.parse().ok()?)));
    let Some((this, of)) = numbers.filter(|(_, of): &(u32, u32)| *of > 0) else { return true };
    // FNV-1a, 32 bits.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 16) % of == this
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

/// A name that more than one of them has: what came of these could not be told apart.
pub fn twice(tests: &[Test]) -> Option<&str> {
    let mut names = HashSet::new();
    tests.iter().map(|test| test.name.as_str()).find(|name| !names.insert(*name))
}

/// Runs a test that has failed once more, where it is to be.
fn again(name: &str, run: fn() -> anyhow::Result<()>, error: anyhow::Error) -> anyhow::Result<()> {
    if env::var_os(AGAIN_VARIABLE).is_none() {
        return Err(error);
    }
    println!("failed once {name}: {}", format!("{error:#}").replace('\n', "; "));
    run()
}

/// What runs a test; `None` if it need not run here, which is said.
pub fn trial(test: Test, arguments: &Arguments) -> Option<Trial> {
    let Test { name, needs, kernels, run } = test;
    let chosen = !arguments.is_filtered_out(&Trial::test(name.as_str(), || Ok(())));
    if let Some(why) = chosen.then(|| kernels.elsewhere(&name)).flatten() {
        println!("left out {name}: {why}");
        return None;
    }
    if let Some(unmet) = (chosen && !arguments.list).then(|| need::unmet(needs)).flatten() {
        println!("skipped {name}: {unmet}");
        return Some(Trial::ignorable_test(name, move || Ok(Completion::ignored_with(unmet))));
    }
    Some(Trial::test(name.clone(), move || {
        let started = Instant::now();
        let result = run().or_else(|error| again(&name, run, error));
        times::note(name, started.elapsed());
        result.map_err(|error| Failed::from(format!("{error:#}")))
    }))
}
