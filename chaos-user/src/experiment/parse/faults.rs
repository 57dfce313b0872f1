//! The `faults` of a spec: into the texts that the command line gives too, and through the same builder.

use serde_saphyr::{Location, Spanned};

use super::{
    error::{Place, SpecError},
    raw::{Many, RawFault, RawGemodel, RawLoss, RawState, Text},
    scalars,
};
use crate::{
    fault::{
        Fault,
        flags::{FieldError, GEMODEL, LossText, STATE},
    },
    units::{BadValue, Percent},
};

/// Most faults of one experiment.
const MAX_FAULTS: usize = 8;

/// Everything that goes wrong.
pub(super) fn faults(raw: &Spanned<Vec<Spanned<RawFault>>>) -> Result<Vec<Fault>, SpecError> {
    let count = raw.value.len();
    if !(1..=MAX_FAULTS).contains(&count) {
        let why = BadValue::new(format!("there are {count} faults"), format!("write 1 to {MAX_FAULTS}"));
        return Place::new("faults", raw.referenced).refuse(why);
    }
    raw.value.iter().enumerate().map(|(i, fault)| one(i, fault)).collect()
}

fn one(i: usize, raw: &Spanned<RawFault>) -> Result<Fault, SpecError> {
    match &raw.value {
        RawFault::Loss(loss) => {
            let mut reader = Reader::new(format!("faults[{i}].loss"), raw.referenced);
            let text = reader.loss(loss)?;
            text.build().map(Fault::Loss).map_err(|error| reader.locate(error))
        }
    }
}

/// Takes the texts of one fault, and remembers where each stood, for the errors of the builder.
struct Reader {
    path: String,
    at: Location,
    places: Vec<(String, Location)>,
}

impl Reader {
    fn new(path: String, at: Location) -> Self {
        Self { path, at, places: Vec::new() }
    }

    fn loss(&mut self, raw: &RawLoss) -> Result<LossText, SpecError> {
        Ok(LossText {
            percent: self.scalar("percent", &raw.percent),
            correlation: self.scalar("correlation", &raw.correlation),
            gemodel: raw.gemodel.as_ref().map(|gemodel| self.gemodel(gemodel)).transpose()?,
            state: raw.state.as_ref().map(|state| self.state(state)).transpose()?,
            every: self.scalar("every", &raw.every),
            direction: self.scalar("direction", &raw.direction),
            protocol: self.scalar("protocol", &raw.protocol),
            peers: self.list("peers", &raw.peers)?,
            ports: self.list("ports", &raw.ports)?,
            local_ports: self.list("local_ports", &raw.local_ports)?,
            allow: self.list("allow", &raw.allow)?,
            when: self.scalar("when", &raw.when),
            max: self.scalar("max", &raw.max),
            rate: self.scalar("rate", &raw.rate),
            seed: self.scalar("seed", &raw.seed),
        })
    }

    fn gemodel(&mut self, raw: &Spanned<RawGemodel>) -> Result<String, SpecError> {
        let RawGemodel { p, r, lost_in_bad, lost_in_good } = &raw.value;
        self.model("gemodel", raw.referenced, GEMODEL, [p, r, lost_in_bad, lost_in_good])
    }

    fn state(&mut self, raw: &Spanned<RawState>) -> Result<String, SpecError> {
        let RawState { p13, p31, p32, p23, p14 } = &raw.value;
        self.model("state", raw.referenced, STATE, [p13, p31, p32, p23, p14])
    }

    fn scalar(&mut self, name: &str, raw: &Option<Text>) -> Option<String> {
        let raw = raw.as_ref()?;
        self.places.push((name.to_owned(), raw.referenced));
        Some(raw.value.clone())
    }

    fn list(&mut self, name: &str, raw: &Option<Many>) -> Result<Vec<String>, SpecError> {
        let Some(raw) = raw else { return Ok(Vec::new()) };
        self.places.push((name.to_owned(), raw.referenced));
        let scalars = scalars(&format!("{}.{name}", self.path), raw)?;
        for (i, (_, at, _)) in scalars.iter().enumerate() {
            self.places.push((format!("{name}[{i}]"), *at));
        }
        Ok(scalars.into_iter().map(|(_, _, text)| text).collect())
    }

    /// The values of a model, separated by commas. Each is looked at here already, because one that is
    /// empty or holds a comma of its own would be taken for none or for two.
    fn model<const N: usize>(
        &mut self,
        model: &str,
        at: Location,
        names: [&str; N],
        values: [&Option<Text>; N],
    ) -> Result<String, SpecError> {
        self.places.push((model.to_owned(), at));
        let mut texts = Vec::with_capacity(N);
        for (name, value) in names.into_iter().zip(values) {
            let field = format!("{model}.{name}");
            let text = self.scalar(&field, value);
            if let Some(Err(problem)) = text.as_deref().map(str::parse::<Percent>) {
                return Err(self.locate(FieldError { field, problem }));
            }
            texts.push(text.unwrap_or_default());
        }
        Ok(texts.join(","))
    }

    /// Where the parameter stands that the builder refused; where the fault does, if it was not given.
    fn locate(&self, error: FieldError) -> SpecError {
        let find = |name: &str| self.places.iter().find(|(place, _)| place == name).map(|(_, at)| *at);
        let at = find(&error.field).or_else(|| find(error.parameter())).unwrap_or(self.at);
        SpecError { place: Place::new(format!("{}.{}", self.path, error.field), at), problem: error.problem }
    }
}
