//! Rules that change while they are in force: written when they change, by the thread that renews the lease. A controller
//! that is gone writes nothing any more, and whatever was written last ends with the lease.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
};
use chaos_common::Rule;

use super::{KernelError, object, wire::Wire};
use crate::fault::{
    course::{Course, SHORTEST_STEP},
    plan::Plan,
};

/// The rules of one injection that change.
pub struct Shaper {
    rules: Array<MapData, Wire<Rule>>,
    shaped: Vec<Shaped>,
}

struct Shaped {
    number: u32,
    rule: Rule,
    shape: Course,
    /// When it changes next, counted from when it was armed.
    due: Option<Duration>,
}

impl Shaper {
    /// Of a plan's rules that change; `None` if there are none.
    pub fn take(ebpf: &mut Ebpf, plan: &Plan) -> Result<Option<Self>, KernelError> {
        let shaped: Vec<Shaped> = (0..)
            .zip(&plan.rules)
            .filter_map(|(number, planned)| {
                let shape = Course::of(&planned.fault)?;
                Some(Shaped { number, rule: planned.rule, shape, due: Some(Duration::ZERO) })
            })
            .collect();
        if shaped.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { rules: object::take_rules(ebpf)?, shaped }))
    }

    /// Makes the rules what they are when armed.
    pub fn start(&mut self) -> Result<(), MapError> {
        self.shaped.iter_mut().for_each(|shaped| shaped.due = Some(Duration::ZERO));
        self.write(Duration::ZERO)
    }

    /// When the next rule changes, counted from when they were armed; `None` if none does.
    pub fn due(&self) -> Option<Duration> {
        self.shaped.iter().filter_map(|shaped| shaped.due).min()
    }

    /// Writes the rules that have changed by now.
    pub fn write(&mut self, elapsed: Duration) -> Result<(), MapError> {
        for shaped in self.shaped.iter_mut().filter(|shaped| shaped.due.is_some_and(|due| due <= elapsed)) {
            let rule = shaped.shape.rule_at(shaped.rule, elapsed);
            self.rules.set(shaped.number, Wire(rule), 0)?;
            let next = shaped.shape.next_change(elapsed);
            shaped.due = next.map(|next| next.max(elapsed + SHORTEST_STEP));
        }
        Ok(())
    }
}
