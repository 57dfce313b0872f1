//! System calls that take longer.

use std::{fmt, time::Duration};

use chaos_common::sleep::{AT_ONCE, HARD_CAP_NS, LONGEST_NS, LONGEST_SPIN_NS, SLOTS, SPIN_BELOW_NS};

use super::{
    CallFault, Effect, Syscall, Way,
    call::{FILTER, SYSCALLS, syscalls},
    ladder::Rung,
};
use crate::{
    fault::{
        Fault,
        capability::Capability,
        catalogue::{FaultEntry, Parameter, value},
        course,
        delay::{DISTRIBUTION, Delay, JITTER, jitter},
        limits, pattern,
        text::{FieldError, Given},
    },
    units::{BadValue, one_of, parse_duration, show_duration},
};

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "slow",
    summary: "system calls take longer; who makes them sleeps",
    parameters: &[
        &[
            SYSCALLS,
            value("at", "enter|exit", "enter", "before the call does anything, or when it has done it"),
            value("by", "DURATION", "-", "how much longer"),
        ],
        SPREAD,
        FILTER,
        pattern::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build,
    command: "kchaos inject slow --syscalls openat --by 20ms --on docker:db --for 30s",
    yaml: "- slow:\n    syscalls: openat,unlink\n    by: 20ms\n    jitter: 5ms\n    percent: 10%\n",
};

/// How much a delay may differ, and what bounds it.
pub const SPREAD: &[Parameter] = &[
    JITTER,
    DISTRIBUTION,
    value("longest", "DURATION", "500ms", "no delay may be longer; at most 2s"),
    value("sleepers", "N", "128", "so many sleep at once at most; others are not delayed"),
];

/// How much longer calls take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// How much.
    pub delay: Delay,
    /// When.
    pub at: At,
    /// No delay is longer.
    pub longest: Duration,
    /// So many sleep at once.
    pub sleepers: u64,
}

/// When a call is delayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// Before it does anything.
    #[default]
    Enter,
    /// When it has done it, before it returns.
    Exit,
}

/// How a delay is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// The caller sleeps.
    Sleep,
    /// The caller is kept busy.
    Spin,
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let slow = Slow { at: given.optional("at", at)?.unwrap_or_default(), ..Slow::read(given)? };
    let fault = CallFault::build(given, syscalls(given)?, Effect::Delay, None)?;
    Ok(CallFault { slow: Some(slow), ..fault }.into())
}

impl Slow {
    /// From `by` and [`SPREAD`].
    pub fn read(given: &Given) -> Result<Self, FieldError> {
        let slow = Self {
            delay: Delay { by: given.required("by", "20ms", by)?, jitter: jitter(given)? },
            at: At::default(),
            longest: given.optional("longest", longest)?.unwrap_or(Duration::from_nanos(LONGEST_NS)),
            sleepers: given.optional("sleepers", sleepers)?.unwrap_or(AT_ONCE),
        };
        if slow.delay.most() > slow.longest {
            let why = BadValue::new(
                format!("a call could be delayed by {}", show_duration(slow.delay.most())),
                format!("make it {} at most, or `longest` more", show_duration(slow.longest)),
            );
            return Err(FieldError::new(if slow.delay.jitter.is_some() { "jitter" } else { "by" }, why));
        }
        Ok(slow)
    }
}

fn by(text: &str) -> Result<Duration, BadValue> {
    match parse_duration(text)? {
        Duration::ZERO => {
            Err(BadValue::new("0 would never delay anything", "write more than 0, such as `20ms`"))
        }
        by => Ok(by),
    }
}

fn longest(text: &str) -> Result<Duration, BadValue> {
    const MOST: Duration = Duration::from_nanos(HARD_CAP_NS);
    match parse_duration(text)? {
        longest if longest > MOST => {
            let right = format!("write at most `{}`", show_duration(MOST));
            Err(BadValue::new("nobody may sleep for so long: others of the host wait meanwhile", right))
        }
        longest => Ok(longest),
    }
}

fn sleepers(text: &str) -> Result<u64, BadValue> {
    match text.trim().parse() {
        Ok(count) if (1..=u64::from(SLOTS)).contains(&count) => Ok(count),
        _ => Err(BadValue::new("this is no such number", format!("write a whole number from 1 to {SLOTS}"))),
    }
}

fn at(text: &str) -> Result<At, BadValue> {
    let name = |at: At| match at {
        At::Enter => "enter",
        At::Exit => "exit",
    };
    one_of(text, "when a call can be delayed", &[At::Enter, At::Exit], name)
}

/// Calls that never come back.
const NEVER_RETURN: [&str; 3] = ["exit", "exit_group", "rt_sigreturn"];

impl Slow {
    /// How the call can be delayed, that way, best first; nothing if it cannot.
    pub fn hows(&self, call: Syscall, way: &Way) -> Vec<How> {
        let most_ns = self.delay.most().as_nanos();
        let at_function = way.rung == Rung::FmodRetSyscall;
        let is_there = match self.at {
            At::Enter => [Rung::Lsm, Rung::FmodRetSecurity, Rung::FmodRetSyscall].contains(&way.rung),
            At::Exit => at_function && !NEVER_RETURN.contains(&call.name()),
        };
        let sleep = (way.sleeps() && most_ns >= u128::from(SPIN_BELOW_NS)).then_some(How::Sleep);
        let spin = (most_ns <= u128::from(LONGEST_SPIN_NS)).then_some(How::Spin);
        sleep.into_iter().chain(spin).filter(|_| is_there).collect()
    }
}

impl How {
    /// All of them, best first.
    pub const ALL: [Self; 2] = [Self::Sleep, Self::Spin];

    /// What the kernel must be able to do, besides what the place takes.
    pub const fn needs(self) -> Option<Capability> {
        match self {
            Self::Sleep => Some(Capability::FuseSleep),
            Self::Spin => None,
        }
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self.at {
            At::Enter => "",
            At::Exit => " at exit",
        };
        write!(f, "by {}{at}", self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{capability::Capabilities, mechanism::Mechanism, plan::Options};

    fn built(values: &[(&'static str, &str)]) -> Result<CallFault, String> {
        let given = values.iter().fold(Given::new(&ENTRY), |given, (name, value)| given.with(name, value));
        match build(&given) {
            Ok(Fault::Call(fault)) => Ok(fault),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn how(values: &[(&'static str, &str)], lacking: &[Capability]) -> Result<(Rung, How), String> {
        let planned = built(values)?.plan(&Capabilities::all_but(lacking), &Options::default());
        let planned = planned.map_err(|error| error.to_string())?;
        Ok((planned.calls[0].way.rung, planned.calls[0].how.unwrap()))
    }

    #[test]
    fn who_can_sleep_does_and_who_cannot_is_kept_busy_for_a_short_time() {
        let open = |by: &'static str| [("syscalls", "openat"), ("by", by)];
        assert_eq!(how(&open("20ms"), &[]), Ok((Rung::Lsm, How::Sleep)));
        assert_eq!(how(&open("50us"), &[]), Ok((Rung::Lsm, How::Spin)));
        assert_eq!(how(&open("1ms"), &[Capability::FuseSleep]), Ok((Rung::Lsm, How::Spin)));
        let refused = how(&open("2ms"), &[Capability::FuseSleep]).unwrap_err();
        assert!(refused.contains("lsm needs fuse sleep"), "{refused}");
        let read = |by: &'static str| [("syscalls", "read"), ("by", by)];
        assert_eq!(how(&read("20ms"), &[]), Ok((Rung::FmodRetSyscall, How::Sleep)));
        assert_eq!(how(&read("1ms"), &[Capability::FmodRetSyscall]), Ok((Rung::Lsm, How::Spin)));
        let refused = how(&read("20ms"), &[Capability::FmodRetSyscall]).unwrap_err();
        assert!(refused.contains("fmod-ret-syscall needs"), "{refused}");
    }

    #[test]
    fn at_exit_a_call_is_delayed_at_its_function_alone() {
        let exit = [("syscalls", "openat"), ("by", "20ms"), ("at", "exit")];
        assert_eq!(how(&exit, &[]), Ok((Rung::FmodRetSyscall, How::Sleep)));
        let refused = how(&exit, &[Capability::FmodRetSyscall]).unwrap_err();
        assert!(refused.contains(Mechanism::FmodRetSyscall.name()), "{refused}");
        assert!(how(&[("syscalls", "exit"), ("by", "20ms"), ("at", "exit")], &[]).is_err());
    }

    #[test]
    fn refusals_name_the_field() {
        let calls = ("syscalls", "openat");
        for (values, part) in [
            (&[calls][..], "by: this is missing"),
            (&[calls, ("by", "0s")], "by: 0 would never"),
            (&[calls, ("by", "1s")], "by: a call could be delayed by 1s"),
            (&[calls, ("by", "1s"), ("longest", "3s")], "longest: nobody may sleep"),
            (&[calls, ("by", "400ms"), ("jitter", "200ms")], "jitter: a call could be delayed by 600ms"),
            (&[calls, ("by", "1ms"), ("distribution", "normal")], "distribution: there is no jitter"),
            (&[calls, ("by", "1ms"), ("sleepers", "0")], "sleepers: this is no such number"),
            (&[calls, ("by", "1ms"), ("at", "end")], "at: `end` is not"),
        ] {
            let message = built(values).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
