//! Faults as text, from a spec or from the command line: both go through the builder here.

use std::str::FromStr;

use chaos_common::{Chance, When};

use super::{
    Limits,
    net::{Allow, DirectionSpec, LossFault, LossModel, NetFilter, PortRange, Protocol},
};
use crate::units::{
    BadValue, CountRate, Occurrences, Percent, Ports, parse_count, parse_network, parse_seed,
};

/// Most entries of a list.
pub const MAX_LIST: usize = 64;

/// A parameter that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Which one, as specs have it: `percent`, `gemodel.r`, `peers[1]`.
    pub field: String,
    /// What is wrong with it.
    pub problem: BadValue,
}

impl FieldError {
    fn new(field: impl Into<String>, problem: BadValue) -> Self {
        Self { field: field.into(), problem }
    }

    /// The parameter alone, as the catalogue has it: `gemodel` for `gemodel.r`, `peers` for `peers[1]`.
    pub fn parameter(&self) -> &str {
        self.field.split(['.', '[']).next().unwrap_or(&self.field)
    }

    /// The option of the command line: `--local-ports` for `local_ports[1]`.
    pub fn option(&self) -> String {
        format!("--{}", self.parameter().replace('_', "-"))
    }
}

/// The `loss` fault as text: what is `None` or empty was not given. A model's parameters are separated by
/// commas; one left empty has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LossText {
    /// `5%`
    pub percent: Option<String>,
    /// `25%`
    pub correlation: Option<String>,
    /// `P[,R[,1-H[,1-K]]]`
    pub gemodel: Option<String>,
    /// `P13[,P31[,P32[,P23[,P14]]]]`
    pub state: Option<String>,
    /// `10`
    pub every: Option<String>,
    /// `egress`, `ingress` or `both`
    pub direction: Option<String>,
    /// `tcp`, `udp` or `icmp`
    pub protocol: Option<String>,
    /// `10.0.0.0/8`
    pub peers: Vec<String>,
    /// `8000-8100`
    pub ports: Vec<String>,
    /// `8000-8100`
    pub local_ports: Vec<String>,
    /// `10.0.0.1`, `:22`
    pub allow: Vec<String>,
    /// `first[..last][+step]`
    pub when: Option<String>,
    /// `500`
    pub max: Option<String>,
    /// `100/s`
    pub rate: Option<String>,
    /// `42`
    pub seed: Option<String>,
}

impl LossText {
    /// The fault, checked.
    pub fn build(&self) -> Result<LossFault, FieldError> {
        Ok(LossFault {
            model: self.model()?,
            direction: optional("direction", &self.direction, str::parse::<DirectionSpec>)?
                .unwrap_or_default(),
            filter: self.filter()?,
            limits: self.limits()?,
        })
    }

    /// Exactly one of the models.
    fn model(&self) -> Result<LossModel, FieldError> {
        const ONE: &str = "give exactly one of `percent`, `gemodel`, `state`, `every`";
        let models = [
            ("percent", &self.percent),
            ("gemodel", &self.gemodel),
            ("state", &self.state),
            ("every", &self.every),
        ];
        let mut given = models.iter().filter_map(|(name, text)| text.as_deref().map(|text| (*name, text)));
        let Some((name, text)) = given.next() else {
            return Err(FieldError::new("percent", BadValue::new("no model of loss is given", ONE)));
        };
        if let Some((other, _)) = given.next() {
            return Err(FieldError::new(other, BadValue::new(format!("`{name}` is given already"), ONE)));
        }
        if name != "percent" && self.correlation.is_some() {
            let why = BadValue::new(format!("`{name}` has no correlation"), "leave it out, or use `percent`");
            return Err(FieldError::new("correlation", why));
        }
        match name {
            "percent" => self.random(text),
            "gemodel" => gilbert_elliott(text),
            "state" => four_state(text),
            _ => self.every(text),
        }
    }

    fn random(&self, percent: &str) -> Result<LossModel, FieldError> {
        let chance = required("percent", percent, percent_of)?;
        let correlation = optional("correlation", &self.correlation, percent_of)?.unwrap_or(Chance::NEVER);
        // Rounded to never, the chance after a packet that passed would leave the chain where it starts.
        let stuck = chance.and(correlation.complement()) == Chance::NEVER;
        if correlation == Chance::ALWAYS || (stuck && chance != Chance::NEVER) {
            let why = BadValue::new(
                "with so much correlation no packet would ever be lost: each shares the fate of the one before",
                "write less, such as `50%`",
            );
            return Err(FieldError::new("correlation", why));
        }
        Ok(LossModel::Random { chance, correlation })
    }

    fn every(&self, text: &str) -> Result<LossModel, FieldError> {
        if self.when.is_some() {
            let why = BadValue::new(
                "`every: N` is itself short for `when: N+N`",
                "give only one of `every`, `when`",
            );
            return Err(FieldError::new("when", why));
        }
        let n = required("every", text, |text| parse_count(text, "write 1 to lose every packet"))?;
        Ok(LossModel::Every(n))
    }

    fn filter(&self) -> Result<NetFilter, FieldError> {
        let filter = NetFilter {
            protocol: optional("protocol", &self.protocol, str::parse)?,
            peers: each("peers", &self.peers, parse_network)?,
            ports: each("ports", &self.ports, ports)?,
            local_ports: each("local_ports", &self.local_ports, ports)?,
            allow: each("allow", &self.allow, str::parse::<Allow>)?,
        };
        ports_exist(&filter).map(|()| filter)
    }

    fn limits(&self) -> Result<Limits, FieldError> {
        Ok(Limits {
            when: optional("when", &self.when, Occurrences::from_str)?.map_or(When::ALWAYS, |when| when.0),
            max: optional("max", &self.max, |text| parse_count(text, "leave it out for no limit"))?,
            rate_per_s: optional("rate", &self.rate, CountRate::from_str)?.map(|rate| rate.0),
            seed: optional("seed", &self.seed, parse_seed)?,
        })
    }
}

/// Ports are asked only of protocols that have some.
fn ports_exist(filter: &NetFilter) -> Result<(), FieldError> {
    let field = match (filter.ports.is_empty(), filter.local_ports.is_empty()) {
        (false, _) => "ports",
        (true, false) => "local_ports",
        (true, true) => return Ok(()),
    };
    if filter.protocol != Some(Protocol::Icmp) {
        return Ok(());
    }
    let why = BadValue::new("ICMP has no ports, so nothing would match", "leave them out, or use tcp or udp");
    Err(FieldError::new(field, why))
}

/// Names of the parameters of `gemodel`, in order.
pub const GEMODEL: [&str; 4] = ["p", "r", "1-h", "1-k"];
/// Names of the parameters of `state`, in order.
pub const STATE: [&str; 5] = ["p13", "p31", "p32", "p23", "p14"];

/// Gilbert–Elliott with the defaults of `tc-netem(8)`: with `p` alone, independent losses.
fn gilbert_elliott(text: &str) -> Result<LossModel, FieldError> {
    let [p, r, lost_in_bad, lost_in_good] = chances("gemodel", GEMODEL, text)?;
    let p = p.ok_or_else(|| missing("gemodel", "p"))?;
    Ok(LossModel::GilbertElliott {
        p,
        r: r.unwrap_or(p.complement()),
        lost_in_bad: lost_in_bad.unwrap_or(Chance::ALWAYS),
        lost_in_good: lost_in_good.unwrap_or(Chance::NEVER),
    })
}

/// The four-state chain with the defaults of `tc-netem(8)`: with `p13` alone, independent losses.
fn four_state(text: &str) -> Result<LossModel, FieldError> {
    let [p13, p31, p32, p23, p14] = chances("state", STATE, text)?;
    let p13 = p13.ok_or_else(|| missing("state", "p13"))?;
    let p31 = p31.unwrap_or(p13.complement());
    let p32 = p32.unwrap_or(Chance::NEVER);
    let p23 = p23.unwrap_or(Chance::ALWAYS);
    let p14 = p14.unwrap_or(Chance::NEVER);
    exits("p14", [("p13", p13), ("p14", p14)])?;
    exits("p32", [("p31", p31), ("p32", p32)])?;
    trap("p31", p31, "p13", p13, "the chain would never come back from its first burst")?;
    trap("p23", p23, "p32", p32, "the chain would never leave the state it enters with p32")?;
    Ok(LossModel::FourState { p13, p31, p32, p23, p14 })
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
            chances[i] = Some(required(&format!("{field}.{name}"), item, percent_of)?);
        }
    }
    Ok(chances)
}

fn missing(field: &str, name: &str) -> FieldError {
    FieldError::new(
        field,
        BadValue::new(format!("`{name}` is missing"), format!("write it, such as `{name}` of 1%")),
    )
}

fn percent_of(text: &str) -> Result<Chance, BadValue> {
    text.parse::<Percent>().map(|percent| percent.0)
}

fn ports(text: &str) -> Result<PortRange, BadValue> {
    text.parse::<Ports>().map(|ports| ports.0)
}

/// A value that is there.
fn required<T>(
    field: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, BadValue>,
) -> Result<T, FieldError> {
    parse(text).map_err(|problem| FieldError::new(field, problem))
}

/// A value that may be there.
fn optional<T>(
    field: &str,
    text: &Option<String>,
    parse: impl Fn(&str) -> Result<T, BadValue>,
) -> Result<Option<T>, FieldError> {
    text.as_deref().map(|text| required(field, text, parse)).transpose()
}

/// Every value of a list.
fn each<T>(
    field: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, BadValue>,
) -> Result<Vec<T>, FieldError> {
    if texts.len() > MAX_LIST {
        let why = BadValue::new(
            format!("{} entries are too many", texts.len()),
            format!("write at most {MAX_LIST}"),
        );
        return Err(FieldError::new(field, why));
    }
    let named = |i: usize| if texts.len() == 1 { field.to_owned() } else { format!("{field}[{i}]") };
    texts.iter().enumerate().map(|(i, text)| required(&named(i), text, &parse)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance(fraction: f64) -> Chance {
        Chance::from_fraction(fraction).unwrap()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn five_percent() -> LossText {
        LossText { percent: some("5"), ..LossText::default() }
    }

    fn model(text: LossText) -> LossModel {
        text.build().unwrap().model
    }

    fn refusal(text: LossText) -> String {
        text.build().unwrap_err().to_string()
    }

    #[test]
    fn percent_alone_has_the_defaults() {
        let fault = five_percent().build().unwrap();
        assert_eq!(fault.model, LossModel::Random { chance: chance(0.05), correlation: Chance::NEVER });
        assert_eq!(fault.direction, DirectionSpec::Egress);
        assert_eq!(fault.filter, NetFilter::default());
        assert_eq!(fault.limits, Limits::default());
    }

    #[test]
    fn zero_percent_is_allowed_and_never_fires() {
        let none = LossText { percent: some("0"), ..LossText::default() };
        assert_eq!(model(none).long_run_fraction(), 0.0);
    }

    #[test]
    fn everything_at_once() {
        let fault = LossText {
            correlation: some("25%"),
            direction: some("both"),
            protocol: some("tcp"),
            peers: strings(&["10.0.0.0/8", "fd00::/8"]),
            ports: strings(&["80", "8000-8100"]),
            local_ports: strings(&["1024-65535"]),
            allow: strings(&["10.0.0.1", ":22"]),
            when: some("1..1000+2"),
            max: some("500"),
            rate: some("100/s"),
            seed: some("42"),
            ..five_percent()
        }
        .build()
        .unwrap();
        assert_eq!(fault.model, LossModel::Random { chance: chance(0.05), correlation: chance(0.25) });
        assert_eq!(fault.direction, DirectionSpec::Both);
        assert_eq!(fault.filter.ports, [80..=80, 8000..=8100]);
        assert_eq!((fault.filter.peers.len(), fault.filter.allow.len()), (2, 2));
        let when = When { first: 1, last: 1000, step: 2 };
        assert_eq!(fault.limits, Limits { when, max: Some(500), rate_per_s: Some(100), seed: Some(42) });
    }

    #[test]
    fn gemodel_has_the_defaults_of_netem() {
        let with = |text| model(LossText { gemodel: some(text), ..LossText::default() });
        let simple = |p, r| LossModel::GilbertElliott {
            p: chance(p),
            r,
            lost_in_bad: Chance::ALWAYS,
            lost_in_good: Chance::NEVER,
        };
        assert_eq!(with("1%"), simple(0.01, chance(0.01).complement()));
        assert_eq!(with("1%,10%"), simple(0.01, chance(0.1)));
        assert_eq!(with("1%, 10%, 100%, 0%"), simple(0.01, chance(0.1)));
        assert!((with("1%").long_run_fraction() - 0.01).abs() < 1e-9, "with p alone, losses are independent");
        let gap = with("1%,,50%");
        assert!(matches!(gap, LossModel::GilbertElliott { lost_in_bad, .. } if lost_in_bad == chance(0.5)));
    }

    #[test]
    fn state_has_the_defaults_of_netem() {
        let with = |text| model(LossText { state: some(text), ..LossText::default() });
        assert!(
            (with("2%").long_run_fraction() - 0.02).abs() < 1e-9,
            "with p13 alone, losses are independent"
        );
        let (p13, p31, p32, p23, p14) =
            (chance(0.01), chance(0.3), Chance::NEVER, Chance::ALWAYS, chance(0.1));
        assert_eq!(with("1,30,,,10"), LossModel::FourState { p13, p31, p32, p23, p14 });
    }

    #[test]
    fn every_model_that_is_accepted_has_a_loss_rate() {
        for state in ["0", "1", "0,0,0,0,50", "1,1,1,1,1", "50,50,50,100,50", "1e-7,1e-7,0,0,0"] {
            let fraction = model(LossText { state: some(state), ..LossText::default() }).long_run_fraction();
            assert!((0.0..=1.0).contains(&fraction), "{state}: {fraction}");
        }
    }

    #[test]
    fn exactly_one_model() {
        assert!(refusal(LossText::default()).contains("no model"));
        let two = refusal(LossText { every: some("3"), ..five_percent() });
        assert!(two.starts_with("every: `percent` is given already"), "{two}");
    }

    #[test]
    fn refusals_name_the_field() {
        let bare = LossText::default;
        for (text, part) in [
            (LossText { percent: some("150"), ..bare() }, "percent: `150` is not between"),
            (LossText { every: some("0"), ..bare() }, "every: 0 would never"),
            (LossText { every: some("5"), when: some("1+"), ..bare() }, "when: `every: N` is itself"),
            (LossText { every: some("5"), correlation: some("1"), ..bare() }, "correlation: `every` has no"),
            (LossText { correlation: some("100"), ..five_percent() }, "correlation: with so much"),
            (LossText { gemodel: some("1,2,3,4,5"), ..bare() }, "gemodel: there are more than 4"),
            (LossText { gemodel: some("1,x"), ..bare() }, "gemodel.r: `x` is not a percentage"),
            (LossText { gemodel: some(",5"), ..bare() }, "gemodel: `p` is missing"),
            (LossText { state: some("60,10,0,0,50"), ..bare() }, "state.p14: p13 60% and p14 50%"),
            (LossText { state: some("1,60,50"), ..bare() }, "state.p32: p31 60% and p32 50%"),
            (LossText { state: some("1,0"), ..bare() }, "state.p31: p31 is 0"),
            (LossText { state: some("1,50,50,0"), ..bare() }, "state.p23: p23 is 0"),
            (LossText { max: some("0"), ..five_percent() }, "max: 0 would never"),
            (LossText { rate: some("0/s"), ..five_percent() }, "rate: 0/s would never"),
            (LossText { seed: some("0"), ..five_percent() }, "seed: 0 is not a seed"),
            (LossText { peers: strings(&["::1", "10.0.0.1/8"]), ..five_percent() }, "peers[1]: `10.0.0.1/8`"),
            (LossText { peers: strings(&["10.0.0.1/8"]), ..five_percent() }, "peers: `10.0.0.1/8`"),
            (LossText { ports: vec!["80".into(); 65], ..five_percent() }, "ports: 65 entries"),
        ] {
            let message = refusal(text);
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn icmp_has_no_ports() {
        let icmp = LossText { protocol: some("icmp"), local_ports: strings(&["80"]), ..five_percent() };
        assert!(refusal(icmp.clone()).starts_with("local_ports: ICMP has no ports"));
        let allowed = LossText { local_ports: vec![], allow: strings(&[":22"]), ..icmp };
        assert!(allowed.build().is_ok());
    }

    #[test]
    fn errors_name_the_option_of_the_command_line() {
        let error = LossText { local_ports: strings(&["1", "x"]), ..five_percent() }.build().unwrap_err();
        assert_eq!((error.field.as_str(), error.parameter()), ("local_ports[1]", "local_ports"));
        assert_eq!(error.option(), "--local-ports");
    }
}
