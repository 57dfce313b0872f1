//! Which occurrences a fault hits: of all that its filter lets through, in their order.

use std::{fmt, time::Duration};

use chaos_common::{Chance, Pattern as KernelPattern};

use super::{
    catalogue::{Parameter, fields, value},
    text::{FieldError, Given, understood},
};
use crate::units::{BadValue, Percent, parse_count, parse_duration, show_duration};

/// Its parameters, for the catalogue.
pub const PARAMETERS: &[Parameter] = &[
    value("percent", "PERCENT", "-", "share of occurrences hit in the long run; a pattern"),
    value(
        "correlation",
        "PERCENT",
        "0%",
        "with percent or ramp: how much a hit makes the next one likelier (bursts)",
    ),
    fields(
        "ramp",
        &RAMP,
        "FROM,TO,OVER",
        "-",
        "a percentage that moves from one to another over a time, and stays there; a pattern",
    ),
    fields("gemodel", &GEMODEL, "P[,R[,1-H[,1-K]]]", "-", "Gilbert–Elliott, as in tc-netem(8); a pattern"),
    fields(
        "state",
        &STATE,
        "P13[,P31[,P32[,P23[,P14]]]]",
        "-",
        "four-state chain, as in tc-netem(8); a pattern",
    ),
    value("every", "N", "-", "each N-th occurrence, the N-th first; a pattern"),
];

/// Which occurrences of a sequence are hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// Each with this chance; with a correlation, in bursts.
    Random {
        /// Share lost in the long run.
        chance: Chance,
        /// Autocorrelation from one packet to the next, 0 for independent losses.
        correlation: Chance,
    },
    /// The same with a chance that moves, in a straight line.
    Ramp {
        /// At first.
        from: Chance,
        /// In the end.
        to: Chance,
        /// How long it takes.
        over: Duration,
        /// As above.
        correlation: Chance,
    },
    /// Gilbert–Elliott, parameters as in `tc-netem(8)`.
    GilbertElliott {
        /// good → bad.
        p: Chance,
        /// bad → good.
        r: Chance,
        /// Lost while bad (1-h).
        lost_in_bad: Chance,
        /// Lost while good (1-k).
        lost_in_good: Chance,
    },
    /// The four-state model of `tc-netem(8)`.
    FourState {
        /// received in gap → lost in burst.
        p13: Chance,
        /// lost in burst → received in gap.
        p31: Chance,
        /// lost in burst → received in burst.
        p32: Chance,
        /// received in burst → lost in burst.
        p23: Chance,
        /// received in gap → isolated loss.
        p14: Chance,
    },
    /// Every n-th packet, the n-th first.
    Every(u64),
}

impl Pattern {
    /// What it is at a time since it began; only a ramp changes.
    pub fn at(self, elapsed: Duration) -> Self {
        let Self::Ramp { from, to, over, correlation } = self else { return self };
        let way = if over.is_zero() { 1.0 } else { elapsed.div_duration_f64(over).min(1.0) };
        let bits = from.bits() as f64 + (to.bits() as f64 - from.bits() as f64) * way;
        Self::Random { chance: Chance::from_bits(bits.round() as u64), correlation }
    }

    /// As the kernel half takes it, at first.
    pub fn to_kernel(self) -> KernelPattern {
        match self {
            Self::Ramp { .. } => self.at(Duration::ZERO).to_kernel(),
            Self::Random { chance, correlation } if correlation == Chance::NEVER => {
                KernelPattern::random(chance)
            }
            Self::Random { chance, correlation } => KernelPattern::correlated(chance, correlation),
            Self::GilbertElliott { p, r, lost_in_bad, lost_in_good } => {
                KernelPattern::gilbert_elliott(p, r, lost_in_bad, lost_in_good)
            }
            Self::FourState { p13, p31, p32, p23, p14 } => KernelPattern::four_state(p13, p31, p32, p23, p14),
            Self::Every(_) => KernelPattern::random(Chance::ALWAYS),
        }
    }

    /// Share of the packets asked about that are lost in the long run: of a ramp, once it has arrived.
    pub fn long_run_fraction(self) -> f64 {
        match self {
            Self::Ramp { to, .. } => to.fraction(),
            Self::Every(n) => 1.0 / n as f64,
            other => other.to_kernel().long_run_fraction(),
        }
    }
}

impl Pattern {
    /// Everything.
    pub const ALL: Self = Self::Random { chance: Chance::ALWAYS, correlation: Chance::NEVER };

    /// As given. Without any, `default`; where there is none, one must be given.
    pub fn build(given: &Given, default: Option<Self>) -> Result<Self, FieldError> {
        const ONE: &str = "give exactly one of `percent`, `ramp`, `gemodel`, `state`, `every`";
        let names = ["percent", "ramp", "gemodel", "state", "every"];
        let mut found = names.iter().filter_map(|name| given.text(name).map(|text| (*name, text)));
        let Some((name, text)) = found.next() else {
            return match default {
                Some(_) if given.has("correlation") => Err(no_correlation("all")),
                Some(default) => Ok(default),
                None => Err(FieldError::new("percent", BadValue::new("no pattern is given", ONE))),
            };
        };
        if let Some((other, _)) = found.next() {
            return Err(FieldError::new(other, BadValue::new(format!("`{name}` is given already"), ONE)));
        }
        if !matches!(name, "percent" | "ramp") && given.has("correlation") {
            return Err(no_correlation(name));
        }
        match name {
            "percent" => random(given, text),
            "ramp" => ramp(given, text),
            "gemodel" => gilbert_elliott(text),
            "state" => four_state(text),
            _ => every(given, text),
        }
    }
}

fn no_correlation(name: &str) -> FieldError {
    let why = BadValue::new(format!("`{name}` has no correlation"), "leave it out, or use `percent`");
    FieldError::new("correlation", why)
}

fn random(given: &Given, percent: &str) -> Result<Pattern, FieldError> {
    let chance = understood("percent", percent, percent_of)?;
    Ok(Pattern::Random { chance, correlation: correlation(given, chance)? })
}

/// Names of the parameters of `ramp`, in order.
pub const RAMP: [&str; 3] = ["from", "to", "over"];

fn ramp(given: &Given, text: &str) -> Result<Pattern, FieldError> {
    let texts: Vec<&str> = text.split(',').map(str::trim).collect();
    let [from, to, over] = texts[..] else {
        let count = format!("there are {} values", texts.len());
        return Err(FieldError::new(
            "ramp",
            BadValue::new(count, "write from,to,over, such as `0%,20%,30s`"),
        ));
    };
    for (name, text) in RAMP.into_iter().zip(&texts) {
        if text.is_empty() {
            return Err(missing("ramp", name, if name == "over" { "30s" } else { "20%" }));
        }
    }
    let from = understood("ramp.from", from, percent_of)?;
    let to = understood("ramp.to", to, percent_of)?;
    let over = understood("ramp.over", over, parse_duration)?;
    if from == to || over.is_zero() {
        let what = format!("from {} to {} over {}", Percent(from), Percent(to), show_duration(over));
        let why = BadValue::new(format!("{what} is no ramp"), "write `percent` instead");
        return Err(FieldError::new("ramp", why));
    }
    // Whatever it passes through lies between its ends.
    correlation(given, from)?;
    Ok(Pattern::Ramp { from, to, over, correlation: correlation(given, to)? })
}

fn correlation(given: &Given, chance: Chance) -> Result<Chance, FieldError> {
    let correlation = given.optional("correlation", percent_of)?.unwrap_or(Chance::NEVER);
    // Rounded to never, the chance after a packet that passed would leave the chain where it starts.
    let stuck = chance.and(correlation.complement()) == Chance::NEVER;
    if correlation == Chance::ALWAYS || (stuck && chance != Chance::NEVER) {
        let why = BadValue::new(
            "with so much correlation nothing would ever be hit: each shares the fate of the one before",
            "write less, such as `50%`",
        );
        return Err(FieldError::new("correlation", why));
    }
    Ok(correlation)
}

fn every(given: &Given, text: &str) -> Result<Pattern, FieldError> {
    if given.has("when") {
        let why =
            BadValue::new("`every: N` is itself short for `when: N+N`", "give only one of `every`, `when`");
        return Err(FieldError::new("when", why));
    }
    let n = understood("every", text, |text| parse_count(text, "write 1 for each of them"))?;
    Ok(Pattern::Every(n))
}

/// Names of the parameters of `gemodel`, in order.
pub const GEMODEL: [&str; 4] = ["p", "r", "1-h", "1-k"];
/// Names of the parameters of `state`, in order.
pub const STATE: [&str; 5] = ["p13", "p31", "p32", "p23", "p14"];

/// Gilbert–Elliott with the defaults of `tc-netem(8)`: with `p` alone, independent losses.
fn gilbert_elliott(text: &str) -> Result<Pattern, FieldError> {
    let [p, r, lost_in_bad, lost_in_good] = chances("gemodel", GEMODEL, text)?;
    let p = p.ok_or_else(|| missing("gemodel", "p", "1%"))?;
    Ok(Pattern::GilbertElliott {
        p,
        r: r.unwrap_or(p.complement()),
        lost_in_bad: lost_in_bad.unwrap_or(Chance::ALWAYS),
        lost_in_good: lost_in_good.unwrap_or(Chance::NEVER),
    })
}

/// The four-state chain with the defaults of `tc-netem(8)`: with `p13` alone, independent losses.
fn four_state(text: &str) -> Result<Pattern, FieldError> {
    let [p13, p31, p32, p23, p14] = chances("state", STATE, text)?;
    let p13 = p13.ok_or_else(|| missing("state", "p13", "1%"))?;
    let p31 = p31.unwrap_or(p13.complement());
    let p32 = p32.unwrap_or(Chance::NEVER);
    let p23 = p23.unwrap_or(Chance::ALWAYS);
    let p14 = p14.unwrap_or(Chance::NEVER);
    exits("p14", [("p13", p13), ("p14", p14)])?;
    exits("p32", [("p31", p31), ("p32", p32)])?;
    trap("p31", p31, "p13", p13, "the chain would never come back from its first burst")?;
    trap("p23", p23, "p32", p32, "the chain would never leave the state it enters with p32")?;
    Ok(Pattern::FourState { p13, p31, p32, p23, p14 })
}

/// The chances by which one state is left cannot exceed certainty.
fn exits(field: &str, [one, other]: [(&str, Chance); 2]) -> Result<(), FieldError> {
    if one.1.bits() + other.1.bits() <= Chance::ALWAYS.bits() {
        return Ok(());
    }
    let sum =
        format!("{} {} and {} {} leave the same state", one.0, Percent(one.1), other.0, Percent(other.1));
    let why =
        BadValue::new(format!("{sum}, with more than 100 % together"), "make them at most 100 % together");
    Err(FieldError::new(format!("state.{field}"), why))
}

/// A state that is entered must be left, or there is no loss rate to speak of.
fn trap(out: &str, leave: Chance, into: &str, enter: Chance, what: &str) -> Result<(), FieldError> {
    if enter == Chance::NEVER || leave != Chance::NEVER {
        return Ok(());
    }
    let right = format!("make {out} more than 0, or {into} 0; to lose everything, use `percent: 100`");
    Err(FieldError::new(format!("state.{out}"), BadValue::new(format!("{out} is 0: {what}"), right)))
}

/// The parameters of a model, separated by commas; those left out or empty are `None`.
fn chances<const N: usize>(
    field: &str,
    names: [&str; N],
    text: &str,
) -> Result<[Option<Chance>; N], FieldError> {
    let mut chances = [None; N];
    for (i, item) in text.split(',').enumerate() {
        let Some(name) = names.get(i) else {
            let most = BadValue::new(
                format!("there are more than {N} values"),
                format!("write {}", names.join(",")),
            );
            return Err(FieldError::new(field, most));
        };
        if !item.trim().is_empty() {
            chances[i] = Some(understood(&format!("{field}.{name}"), item, percent_of)?);
        }
    }
    Ok(chances)
}

fn missing(field: &str, name: &str, example: &str) -> FieldError {
    let right = format!("write it, such as `{name}` of {example}");
    FieldError::new(field, BadValue::new(format!("`{name}` is missing"), right))
}

fn percent_of(text: &str) -> Result<Chance, BadValue> {
    text.parse::<Percent>().map(|percent| percent.0)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Random { chance, correlation: Chance::NEVER } => Percent(chance).fmt(f),
            Self::Random { chance, correlation } => {
                write!(f, "{} (correlation {})", Percent(chance), Percent(correlation))
            }
            Self::Ramp { from, to, over, correlation } => {
                write!(f, "{} to {} over {}", Percent(from), Percent(to), show_duration(over))?;
                match correlation {
                    Chance::NEVER => Ok(()),
                    correlation => write!(f, " (correlation {})", Percent(correlation)),
                }
            }
            Self::GilbertElliott { .. } => write!(f, "{} (Gilbert–Elliott)", self.in_the_long_run()),
            Self::FourState { .. } => write!(f, "{} (four-state)", self.in_the_long_run()),
            Self::Every(n) => write!(f, "1 in {n}"),
        }
    }
}

impl Pattern {
    fn in_the_long_run(self) -> String {
        format!("{:.3}%", self.long_run_fraction() * 100.0)
    }
}
