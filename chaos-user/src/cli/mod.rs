//! The command line: one file per verb.

mod calibrate;
mod demo;
mod doctor;
mod fault;
mod faults;
mod import;
mod inject;
mod judge;
mod observe;
mod plan;
mod reports;
mod run;
mod schema;
mod status;
mod stop;
mod sweep;
mod terminal;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::{
    demo::{CLIENT_VERB, SERVICE_VERB, service},
    experiment::Insist,
    fault::mechanism::Mechanism,
    kernel::{
        WATCHDOG_VERB,
        sleep::{SLEEP_VERB, keep},
        watch,
    },
    target::refuse::Protected,
    units,
};

/// What the process exits with when there is no verdict; the others are the verdicts'
/// ([`crate::judge::Verdict::exit_code`]).
mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Bad usage, a bad spec, or it could not be run.
    pub const COULD_NOT_RUN: u8 = 2;
    /// The fault never fired.
    pub const NEVER_FIRED: u8 = 4;
    /// It ended early.
    pub const ABORTED: u8 = 5;
    /// Something was left behind.
    pub const ROLLBACK_INCOMPLETE: u8 = 6;
}

const EXIT_CODES: &str = "\
Exit codes:
  0  pass, or done        3  inconclusive                  5  aborted
  1  fail                 4  invalid: the fault never      6  rollback incomplete:
  2  could not run           fired, no traffic, …             run `kchaos sweep`";

/// Kernel-level fault injection for cgroups, with a verdict.
#[derive(Debug, Parser)]
#[command(name = "kchaos", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Pass on what the kernel programs log about each decision (slow; to understand, not to measure)
    #[arg(long, global = true)]
    kernel_log: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run an experiment: control against experiment, and a verdict
    Run(run::RunArgs),
    /// Show what a spec would attach, where and how; change nothing
    Plan(plan::PlanArgs),
    /// Measure what the targets of a spec do by themselves; do nothing to them
    Calibrate(calibrate::CalibrateArgs),
    /// Judge a recorded run again
    Judge(judge::JudgeArgs),
    /// Inject one fault now, with live counters
    Inject(inject::InjectArgs),
    /// Show what targets do, side by side; do nothing to them
    Observe(observe::ObserveArgs),
    /// Show what this kernel can do
    Doctor(doctor::DoctorArgs),
    /// Show every fault and its parameters
    Faults(faults::FaultsArgs),
    /// Print the JSON Schema of the report
    Schema,
    /// Turn another tool's experiment into a spec, as far as that goes
    Import(import::ImportArgs),
    /// Show what is being injected on this host
    Status(status::StatusArgs),
    /// End injections, and wait until they are rolled back
    Stop(stop::StopArgs),
    /// Remove what killed controllers left behind
    Sweep(sweep::SweepArgs),
    /// Run a real experiment on two services made for it, in under a minute
    Demo(demo::DemoArgs),
    #[command(name = SERVICE_VERB, hide = true)]
    DemoService {
        /// Where to listen.
        address: SocketAddr,
    },
    #[command(name = CLIENT_VERB, hide = true)]
    DemoClient {
        /// Whom to ask.
        address: SocketAddr,
    },
    #[command(name = SLEEP_VERB, hide = true)]
    SleepKeeper {
        /// Id of the map of what sleepers ask for.
        slots: u32,
    },
    #[command(name = WATCHDOG_VERB, hide = true)]
    Watchdog {
        /// The journal to look after.
        journal: PathBuf,
    },
}

impl Verb {
    fn touches_the_kernel(&self) -> bool {
        !matches!(self, Self::Faults(_) | Self::Import(_) | Self::Judge(_) | Self::Schema | Self::Status(_))
    }
}

/// What a user may insist on, wherever something is injected.
#[derive(Debug, Args)]
struct InsistArgs {
    /// Decide and count everything, inject nothing: the blast radius, measured
    #[arg(long)]
    dry_run: bool,
    /// Take a target although it holds this: root, own, init, sshd, kubelet, runtime
    #[arg(long, value_name = "KIND", value_parser = protected)]
    allow_target: Vec<Protected>,
    /// Use this mechanism instead of the best one: tcx-egress, clsact-egress, tcx-ingress, clsact-ingress, netem
    #[arg(long, value_name = "NAME", value_parser = mechanism)]
    mechanism: Option<Mechanism>,
    /// Of an experiment, go on although its baseline says that groups are uneven or that little can be learned
    #[arg(long)]
    force: bool,
}

impl InsistArgs {
    fn to_insist(&self) -> Insist {
        Insist {
            allowed: self.allow_target.clone(),
            mechanism: self.mechanism,
            dry_run: self.dry_run,
            force: self.force,
            known: Vec::new(),
        }
    }
}

fn protected(text: &str) -> Result<Protected, String> {
    let words = || Protected::ALL.iter().map(|kind| kind.word());
    let found = Protected::ALL.into_iter().find(|kind| kind.word() == text);
    found.ok_or_else(|| units::did_you_mean(text, words()))
}

fn mechanism(text: &str) -> Result<Mechanism, String> {
    let names = || Mechanism::ALL.iter().map(|mechanism| mechanism.name());
    let found = Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == text);
    found.ok_or_else(|| units::did_you_mean(text, names()))
}

/// Whether a command line would be understood, without the program's name; the error says why not. It does nothing.
pub fn check(arguments: &[String]) -> anyhow::Result<()> {
    let words = std::iter::once("kchaos").chain(arguments.iter().map(String::as_str));
    match Cli::try_parse_from(words) {
        Ok(Cli { verb: Verb::Inject(inject), .. }) => inject.check(),
        Ok(_) => Ok(()),
        // These are answers, not errors.
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Parses, dispatches, prints one error, sets the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let default_level = if cli.kernel_log { "warn,chaos_ebpf=debug" } else { "warn" };
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("KCHAOS_LOG", default_level)).init();
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{}: {error:#}", terminal::error_label());
            ExitCode::from(exit::COULD_NOT_RUN)
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    match &cli.verb {
        Verb::Watchdog { journal } => return watch(journal).map(|()| exit::OK).map_err(Into::into),
        Verb::SleepKeeper { slots } => return keep(*slots).map(|()| exit::OK).map_err(Into::into),
        Verb::DemoService { address } => return service::serve(*address).map(|()| exit::OK),
        Verb::DemoClient { address } => return service::ask(*address).map(|()| exit::OK),
        _ => {}
    }
    anyhow::ensure!(
        !cli.verb.touches_the_kernel() || nix::unistd::geteuid().is_root(),
        "this needs root: it loads kernel programs (try sudo)"
    );
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match cli.verb {
            Verb::Run(args) => run::run(&args, cli.kernel_log).await,
            Verb::Plan(args) => plan::run(&args).await,
            Verb::Calibrate(args) => calibrate::run(&args, cli.kernel_log).await,
            Verb::Judge(args) => judge::run(&args),
            Verb::Inject(args) => inject::run(&args, cli.kernel_log).await,
            Verb::Observe(args) => observe::run(&args).await,
            Verb::Doctor(args) => doctor::run(&args),
            Verb::Faults(args) => faults::run(&args),
            Verb::Schema => schema::run(),
            Verb::Import(args) => import::run(&args),
            Verb::Status(args) => status::run(&args),
            Verb::Stop(args) => stop::run(&args).await,
            Verb::Sweep(args) => sweep::run(&args),
            Verb::Demo(args) => demo::run(&args, cli.kernel_log).await,
            Verb::Watchdog { .. }
            | Verb::SleepKeeper { .. }
            | Verb::DemoService { .. }
            | Verb::DemoClient { .. } => {
                unreachable!("these have no use for this runtime")
            }
        }
    })
}
