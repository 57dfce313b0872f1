//! Deals the tests that one kernel is enough for among the lab's kernels.

use std::{cmp::Reverse, collections::BTreeSet};

use anyhow::Context;
use kchaos::fault::capability::Capability;

use crate::{Test, need::Need, select::Kernels};

/// What not every kernel of the lab can do, as `kchaos doctor --json` calls it.
type Names = BTreeSet<String>;

/// The lab's kernels, and which of them this is.
pub struct Lab {
    kernels: Vec<Kernel>,
    this: String,
}

struct Kernel {
    name: String,
    /// How long it takes for a test, beside others.
    pace: usize,
    /// What it can do that not all can.
    has: Names,
}

impl Lab {
    /// `deb61*3=btf,fq;fei612*2=btf,fq,tcx`: every kernel with how long it takes for a test, beside others, and what it must be
    /// able to do.
    pub fn read(kernels: &str, this: String) -> anyhow::Result<Self> {
        let names = |list: &str| list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let kernel = |text: &str| {
            let (head, has) = text.split_once('=').unwrap_or((text, ""));
            let (name, pace) = head.split_once('*').with_context(|| format!("{head} has no pace"))?;
            let pace = pace.parse().with_context(|| format!("the pace of {head}"))?;
            anyhow::Ok(Kernel { name: name.to_owned(), pace, has: names(has) })
        };
        let mut kernels = kernels.split(';').map(kernel).collect::<Result<Vec<_>, _>>()?;
        let everywhere = kernels.iter().map(|kernel| kernel.has.clone()).reduce(|one, other| &one & &other);
        let everywhere = everywhere.unwrap_or_default();
        kernels.iter_mut().for_each(|kernel| kernel.has = &kernel.has - &everywhere);
        Ok(Self { kernels, this })
    }

    /// The tests that are this kernel's to run of those that `is_dealt` picks. Each goes to the kernel that has the least to do
    /// so far of those that can run it; what few can run is dealt first, then what takes long. Every kernel comes to the same
    /// result.
    pub fn deal(&self, tests: &[Test], is_dealt: impl Fn(&Test) -> bool) -> BTreeSet<String> {
        let able = |test: &Test| self.able(test);
        let mut loads = vec![0_usize; self.kernels.len()];
        for test in tests.iter().filter(|test| test.kernels == Kernels::Each) {
            able(test).into_iter().for_each(|kernel| loads[kernel] += self.takes(kernel, test));
        }
        let dealt = tests.iter().filter(|test| is_dealt(test));
        let mut dealt: Vec<_> = dealt.map(|test| (able(test), test)).collect();
        dealt.sort_by_key(|(able, test)| (able.len(), Reverse(weight(test))));
        let mut ours = BTreeSet::new();
        for (able, test) in dealt {
            let then = |kernel: &usize| loads[*kernel] + self.takes(*kernel, test);
            let Some(kernel) = able.into_iter().min_by_key(then) else { continue };
            loads[kernel] += self.takes(kernel, test);
            if self.kernels[kernel].name == self.this {
                ours.insert(test.name.clone());
            }
        }
        ours
    }

    fn takes(&self, kernel: usize, test: &Test) -> usize {
        self.kernels[kernel].pace * weight(test)
    }

    /// Which kernels have what a test needs; all if none has, so that it is missed.
    fn able(&self, test: &Test) -> Vec<usize> {
        let of_some = |name: &String| self.kernels.iter().any(|kernel| kernel.has.contains(name));
        let wanted: Names = test.needs.iter().filter_map(name).filter(of_some).collect();
        (0..self.kernels.len()).filter(|kernel| wanted.is_subset(&self.kernels[*kernel].has)).collect()
    }
}

/// How long a test takes, roughly: to begin to meet system calls takes about four times as long as to begin to meet packets.
fn weight(test: &Test) -> usize {
    use Capability::{FmodRetSecurity, FmodRetSyscall, Lsm, Override};
    let calls = [Lsm, FmodRetSecurity, FmodRetSyscall, Override].map(Need::Kernel);
    if calls.iter().any(|need| test.needs.contains(need)) { 4 } else { 1 }
}

/// As `kchaos doctor --json` calls it.
fn name(need: &Need) -> Option<String> {
    let Need::Kernel(capability) = need else { return None };
    let capability: &Capability = capability;
    serde_json::to_value(capability).ok()?.as_str().map(str::to_owned)
}
