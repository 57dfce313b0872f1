//! Experiments of other tools, as far as they can be said in ours. Pure.

pub mod chaos_toolkit;

/// What became of an experiment of another tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// A spec, to be completed by hand where its comments say so.
    pub spec: String,
    /// What is not in it, and why.
    pub left_out: Vec<String>,
    /// How many probes are in it.
    pub probes: usize,
}

/// Why there is nothing to import.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Neither JSON nor YAML.
    #[error("this is neither JSON nor YAML: {0}")]
    Unreadable(String),
    /// Larger than any experiment.
    #[error("{0} bytes are more than an experiment has; the limit is {max}", max = chaos_toolkit::MAX_BYTES)]
    TooLarge(usize),
    /// Something else than an experiment.
    #[error("this is no experiment of Chaos Toolkit: it has no `{0}`")]
    NoExperiment(&'static str),
}
