//! What a human should know of a plan before saying yes.

use super::{
    capability::Capability,
    plan::{Attachment, PlannedRule, Via},
    spared::Spared,
    syscall::{Syscall, ladder::Rung, slow::How},
};
use crate::{steady::family::Family, target::root_qdisc::Fq};

/// What a human should know before saying yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Costs others something.
    SyscallTracepoint,
    /// Survives a SIGKILL.
    ClsactResidue,
    /// Survives a SIGKILL too.
    FqResidue,
    /// Survives a SIGKILL just so.
    IfbResidue,
    /// What others do not see.
    IfbPassesBy,
    /// The same where there is no fq.
    NetemResidue,
    /// Somebody's own, which is not changed.
    FqAsItIs {
        /// Whose.
        device: String,
        /// What it holds.
        fq: Fq,
    },
    /// Will not be hit, though a filter asks for it.
    SparedThoughNamed {
        /// The fault.
        fault: &'static str,
        /// What.
        entries: Vec<Spared>,
    },
    /// Some calls of a class are not met here.
    NotMet {
        /// The fault.
        fault: &'static str,
        /// Which.
        calls: Vec<Syscall>,
    },
    /// A part of a call's occurrences is not met.
    Misses {
        /// The call.
        call: Syscall,
        /// Which part.
        misses: &'static str,
    },
    /// A call is met when it has done something already.
    CallsFirst {
        /// The call.
        call: Syscall,
        /// What.
        after: &'static str,
    },
    /// Programs at the host's system calls.
    CallPrograms,
    /// What others may take away.
    Override,
    /// What waits for those who sleep.
    Sleepers,
    /// What delays otherwise cost.
    KeptBusy,
    /// Cannot be counted here.
    NotMeasured {
        /// What.
        family: Family,
        /// Because the kernel lacks this.
        lacks: Capability,
    },
}

/// What is worth knowing about how calls are met.
pub fn of_calls(rules: &[PlannedRule]) -> Vec<Note> {
    let mut notes = Vec::new();
    for planned in rules.iter().filter(|planned| !planned.unmet.is_empty()) {
        notes.push(Note::NotMet { fault: planned.fault.name(), calls: planned.unmet.clone() });
    }
    for planned in rules.iter().flat_map(|planned| &planned.calls) {
        let after = planned.way.after().map(|after| Note::CallsFirst { call: planned.call, after });
        let misses = planned.way.misses.map(|misses| Note::Misses { call: planned.call, misses });
        for note in after.into_iter().chain(misses) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    if rules.iter().any(|planned| !planned.calls.is_empty()) {
        notes.push(Note::CallPrograms);
    }
    let mut ways = rules.iter().flat_map(|planned| &planned.calls).map(|call| &call.way);
    notes.extend(ways.any(|way| way.rung == Rung::Kprobe).then_some(Note::Override));
    let delays = |how| rules.iter().flat_map(|planned| &planned.calls).any(|call| call.how == Some(how));
    notes.extend(delays(How::Sleep).then_some(Note::Sleepers));
    notes.extend(delays(How::Spin).then_some(Note::KeptBusy));
    notes
}

/// A clsact filter survives a SIGKILL.
pub fn of_residue(attachments: &[Attachment]) -> Option<Note> {
    let clsact =
        attachments.iter().any(|attachment| matches!(attachment, Attachment::Tc { via: Via::Clsact, .. }));
    clsact.then_some(Note::ClsactResidue)
}
