//! The fault of `kchaos inject`: a subcommand for each of the catalogue, an option for each of its parameters. What
//! they mean is decided where specs are parsed.

use anyhow::anyhow;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches, Subcommand, error::ErrorKind};

use super::inject::CommonArgs;
use crate::fault::{
    Fault,
    catalogue::{self, CATALOGUE, FaultEntry, Parameter, Shape},
    text::Given,
};

/// A fault, as text, and what every injection has.
#[derive(Debug)]
pub struct FaultArgs {
    given: Given,
    /// What every injection has.
    pub common: CommonArgs,
}

impl FaultArgs {
    /// The fault, checked.
    pub fn fault(&self) -> anyhow::Result<Fault> {
        let built = (self.given.entry.build)(&self.given);
        built.map_err(|error| anyhow!("{}: {}", error.option(), error.problem))
    }
}

impl Subcommand for FaultArgs {
    fn augment_subcommands(command: Command) -> Command {
        CATALOGUE.iter().fold(command, |command, entry| command.subcommand(subcommand(entry)))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        catalogue::find(name).is_some()
    }
}

impl FromArgMatches for FaultArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let chosen = matches.subcommand().and_then(|(name, matches)| Some((catalogue::find(name)?, matches)));
        let (entry, matches) = chosen.ok_or_else(|| clap::Error::new(ErrorKind::MissingSubcommand))?;
        let mut given = Given::new(entry);
        for parameter in entry.parameters() {
            if let Some(values) = matches.get_many::<String>(parameter.name) {
                given.give(parameter.name, values.cloned().collect());
            }
        }
        Ok(Self { given, common: CommonArgs::from_arg_matches(matches)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn subcommand(entry: &FaultEntry) -> Command {
    let command = Command::new(entry.name);
    let command = entry.parameters().fold(command, |command, parameter| command.arg(option(parameter)));
    CommonArgs::augment_args(command).about(entry.summary)
}

fn option(parameter: &Parameter) -> Arg {
    let help = match parameter.default {
        "-" => parameter.meaning.to_owned(),
        default => format!("{} [default: {default}]", parameter.meaning),
    };
    let syntax = parameter.syntax.trim_end_matches(", …");
    let arg = Arg::new(parameter.name).long(parameter.name.replace('_', "-")).value_name(syntax).help(help);
    match parameter.shape {
        Shape::Value | Shape::Fields(_) => arg.action(ArgAction::Set),
        Shape::List => arg.action(ArgAction::Append).value_delimiter(','),
    }
}
