//! Which tests run here, and in which order.

use std::{
    collections::{BTreeSet, HashSet},
    env, fs,
    sync::LazyLock,
    time::Instant,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{
    Test,
    deal::Lab,
    need::{self, Need},
    times, turn,
};

/// The task runner's lab sets it to the name of its kernel.
const LAB_VARIABLE: &str = "KCHAOS_LAB_KERNEL";
/// Where the whole lab is run, it sets it to all of its kernels, as [`Lab::read`] reads them.
const KERNELS_VARIABLE: &str = "KCHAOS_LAB_KERNELS";
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

/// What is left to this kernel of the tests that need not be run on each.
pub struct Share {
    /// Those of [`Kernels::InTurn`]; all of them outside of a whole run of the lab.
    ours: Option<BTreeSet<String>>,
}

impl Share {
    /// This kernel's.
    pub fn of(tests: &[Test]) -> anyhow::Result<Self> {
        let variables = (env::var(KERNELS_VARIABLE), env::var(LAB_VARIABLE));
        let (Ok(kernels), Ok(this)) = variables else { return Ok(Self { ours: None }) };
        let is_dealt = |test: &Test| test.kernels == Kernels::InTurn && !PASSED.contains(test.name.as_str());
        Ok(Self { ours: Some(Lab::read(&kernels, this)?.deal(tests, is_dealt)) })
    }

    /// Why a test need not run here, if so.
    fn elsewhere(&self, test: &Test) -> Option<&'static str> {
        let others = self.ours.as_ref().is_some_and(|ours| !ours.contains(&test.name));
        match test.kernels {
            Kernels::InTurn if others && PASSED.contains(test.name.as_str()) => {
                Some("it passed on the machine's own kernel")
            }
            Kernels::InTurn if others => Some("another kernel's turn"),
            Kernels::Any => env::var_os(LAB_VARIABLE).map(|_| "one kernel is enough"),
            Kernels::Each | Kernels::InTurn => None,
        }
    }
}

/// What passed on the machine's own kernel.
static PASSED: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let read = || fs::read_to_string(env::var_os(PASSED_VARIABLE)?).ok();
    read().unwrap_or_default().lines().map(str::to_owned).collect()
});

/// All of them, those of each family as far from one another as can be: they wait for the same things, and
/// would wait for each other. Those that are timed come last.
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
    let (timed, others): (Vec<_>, Vec<_>) =
        placed.into_iter().map(|(_, _, test)| test).partition(|test| is_timed(test.needs));
    others.into_iter().chain(timed).collect()
}

/// Whether a test looks at how long something takes: it is about what holds packets or callers back.
fn is_timed(needs: &[Need]) -> bool {
    use kchaos::fault::capability::Capability::{Fq, FuseSleep, Netem};
    [Fq, Netem, FuseSleep].iter().any(|capability| needs.contains(&Need::Kernel(*capability)))
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
pub fn trial(test: Test, arguments: &Arguments, share: &Share) -> Option<Trial> {
    let chosen = !arguments.is_filtered_out(&Trial::test(test.name.as_str(), || Ok(())));
    if let Some(why) = chosen.then(|| share.elsewhere(&test)).flatten() {
        println!("left out {}: {why}", test.name);
        return None;
    }
    let Test { name, needs, run, .. } = test;
    if let Some(unmet) = (chosen && !arguments.list).then(|| need::unmet(needs)).flatten() {
        println!("skipped {name}: {unmet}");
        return Some(Trial::ignorable_test(name, move || Ok(Completion::ignored_with(unmet))));
    }
    Some(Trial::test(name.clone(), move || {
        let _turn = turn::take(is_timed(needs));
        let started = Instant::now();
        let result = run().or_else(|error| again(&name, run, error));
        times::note(name, started.elapsed());
        result.map_err(|error| Failed::from(format!("{error:#}")))
    }))
}
