//! Rules that change while they are in force, or whose injection is armed without doing anything: written when they
//! change, by the thread that renews the lease. A controller that is gone writes nothing any more, and whatever was written
//! last ends with the lease.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
};
use chaos_common::Rule;

use super::{KernelError, object, wire::Wire};
use crate::fault::{
    course::{Course, SHORTEST_STEP},
    dry::only_counting,
    plan::Plan,
};

/// The rules of one injection.
pub struct Shaper {
    map: Array<MapData, Wire<Rule>>,
    rules: Vec<Rule>,
    shaped: Vec<Shaped>,
    /// The map holds rules that only count.
    dry: bool,
}

struct Shaped {
    number: u32,
    shape: Course,
    /// When it changes next, counted from when it was armed.
    due: Option<Duration>,
}

impl Shaper {
    /// Of a plan.
    pub fn take(ebpf: &mut Ebpf, plan: &Plan) -> Result<Self, KernelError> {
        let shaped = (0..).zip(&plan.rules).filter_map(|(number, planned)| {
            Some(Shaped { number, shape: Course::of(&planned.fault)?, due: None })
        });
        let rules = plan.rules.iter().map(|planned| planned.rule).collect();
        Ok(Self { shaped: shaped.collect(), rules, map: object::take_rules(ebpf)?, dry: false })
    }

    /// Makes the rules what they are when armed.
    pub fn start(&mut self) -> Result<(), MapError> {
        if self.dry {
            self.write_all(|rule| rule)?;
            self.dry = false;
        }
        self.shaped.iter_mut().for_each(|shaped| shaped.due = Some(Duration::ZERO));
        self.write(Duration::ZERO)
    }

    /// Makes the rules such as only count, until they are started.
    pub fn start_dry(&mut self) -> Result<(), MapError> {
        self.dry = true;
        self.shaped.iter_mut().for_each(|shaped| shaped.due = None);
        self.write_all(only_counting)
    }

    fn write_all(&mut self, make: impl Fn(Rule) -> Rule) -> Result<(), MapError> {
        (0..).zip(&self.rules).try_for_each(|(number, rule)| self.map.set(number, Wire(make(*rule)), 0))
    }

    /// When the next rule changes, counted from when they were armed; `None` if none does.
    pub fn due(&self) -> Option<Duration> {
        self.shaped.iter().filter_map(|shaped| shaped.due).min()
    }

    /// Writes the rules that have changed by now.
    pub fn write(&mut self, elapsed: Duration) -> Result<(), MapError> {
        for shaped in self.shaped.iter_mut().filter(|shaped| shaped.due.is_some_and(|due| due <= elapsed)) {
            let Some(rule) = self.rules.get(shaped.number as usize) else { continue };
            self.map.set(shaped.number, Wire(shaped.shape.rule_at(*rule, elapsed)), 0)?;
            let next = shaped.shape.next_change(elapsed);
            shaped.due = next.map(|next| next.max(elapsed + SHORTEST_STEP));
        }
        Ok(())
    }
}
