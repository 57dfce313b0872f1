//! One kernel's run: boots it, has it diagnosed and tested, and says what came of it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    console::{self, Said},
    doctor::Diagnosis,
    fetch::Bootable,
    initramfs::{self, Guest, quoted},
    kernels::LabKernel,
    logs::Logs,
    programs::{KCHAOS_VARIABLE, Programs},
    qemu::{Accel, End, Machine},
    results::Results,
};
use crate::{
    run::{root, target_dir},
    support, verified,
};

/// Tells the tests which kernel of the lab they are on.
const KERNEL_VARIABLE: &str = "KCHAOS_LAB_KERNEL";
/// Tells them of all kernels, where those that one kernel is enough for are dealt out.
const KERNELS_VARIABLE: &str = "KCHAOS_LAB_KERNELS";

/// Names a file with the tests that passed on the machine's own kernel.
const PASSED_VARIABLE: &str = "KCHAOS_LAB_PASSED";

/// Has a test that fails run once more; the results tell which passed then.
pub(crate) const AGAIN_VARIABLE: &str = "KCHAOS_TEST_AGAIN";

/// How much of a console is shown when something went wrong.
const EXCERPT_LINES: usize = 16;

const DOCTOR: &str = "doctor";
const TESTS: &str = "tests";
const INSTEAD: &str = "run";

/// What every kernel shall run.
#[derive(Debug)]
pub(super) struct Plan {
    /// kchaos and its tests.
    pub(super) programs: Programs,
    /// How the guests' processors are made.
    pub(super) accel: Accel,
    /// How long each may take.
    pub(super) limit: Duration,
    /// For the test program.
    pub(super) filter: Vec<OsString>,
    /// A command to run instead of the tests.
    pub(super) instead: Option<String>,
    /// Whether tests that one kernel is enough for are run on one.
    pub(super) in_turn: bool,
    /// Where it stands which of those have passed on the machine's own kernel.
    pub(super) passed: Option<PathBuf>,
}

/// What came of one kernel.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Which.
    pub(super) kernel: LabKernel,
    /// As the kernel calls itself, once it has started.
    pub(super) release: Option<String>,
    /// Until the guest was ready.
    pub(super) boot: Option<Duration>,
    /// Until it was off.
    pub(super) took: Duration,
    /// What `kchaos doctor` did not find.
    pub(super) missing: Vec<String>,
    /// What came of the tests.
    pub(super) results: Results,
    /// Failures that are no test's.
    pub(super) problems: Vec<String>,
    /// The kernel's console and the tests' output.
    pub(super) logs: [PathBuf; 2],
}

impl Plan {
    /// Boots a kernel and runs it to its end.
    pub(super) fn run(&self, kernel: LabKernel, bootable: &Bootable) -> Result<Report> {
        let logs = Logs::of(kernel)?;
        fs::write(&logs.initramfs, initramfs::write(&self.guest(kernel, bootable))?)?;
        println!("\n{}: booting {}", kernel.name(), bootable.image.display());
        let machine = Machine {
            image: &bootable.image,
            initramfs: &logs.initramfs,
            console: &logs.console,
            accel: self.accel,
            limit: self.limit,
        };
        let mut heard = Heard::new(kernel, &logs)?;
        let end = machine.run(|line| heard.line(line))?;
        fs::remove_file(&logs.initramfs)?;
        heard.report(self, &logs, &end)
    }

    fn guest<'a>(&self, kernel: LabKernel, bootable: &'a Bootable) -> Guest<'a> {
        let kchaos = self.programs.kchaos.display().to_string();
        let mut steps = vec![(DOCTOR, format!("{} doctor --json", quoted(&kchaos)))];
        if let Some(command) = &self.instead {
            steps.push((INSTEAD, command.clone()));
        } else if let Some(tests) = &self.programs.tests {
            let filter = self.filter.iter().map(|argument| argument.to_string_lossy());
            let words = std::iter::once(tests.display().to_string())
                .chain(["--color=never".to_owned()])
                .chain(filter.map(|argument| argument.into_owned()));
            let words: Vec<_> = words.map(|word| quoted(&word)).collect();
            let folder = quoted(&root().join("tests").display().to_string());
            steps.push((TESTS, format!("cd {folder} && exec {}", words.join(" "))));
        }
        let modules = bootable.modules.as_deref();
        let folders = [root(), target_dir()].into_iter().chain(self.programs.folders());
        let all = self.in_turn.then(|| (KERNELS_VARIABLE, LabKernel::all()));
        let passed = self.passed.as_ref().map(|path| (PASSED_VARIABLE, path.display().to_string()));
        let variables = [
            (KCHAOS_VARIABLE, kchaos),
            (KERNEL_VARIABLE, kernel.name().to_owned()),
            (AGAIN_VARIABLE, "1".to_owned()),
        ];
        Guest {
            modules,
            folders: folders.chain(modules.map(PathBuf::from)).collect(),
            variables: variables.into_iter().chain(all).chain(passed).collect(),
            steps,
        }
    }
}

/// Failures of the guest as a whole.
fn ended_badly(end: &End, logs: &Logs) -> Option<String> {
    let what = match end {
        End::Off => return None,
        End::Trouble(what) => format!("the kernel is in trouble: {what}"),
        End::TimedOut(limit) => format!("it took longer than {} minutes", limit.as_secs() / 60),
        End::Failed(status) => format!("QEMU failed: {status}"),
    };
    let console = console::excerpt(&console::read(&logs.console), EXCERPT_LINES);
    Some(format!("{what}\n{console}").trim_end().to_owned())
}

/// What was heard from a guest so far.
struct Heard {
    kernel: LabKernel,
    started: Instant,
    file: File,
    step: String,
    ended: Vec<(String, i32)>,
    release: Option<String>,
    boot: Option<Duration>,
    failed: Option<String>,
    doctor: String,
    tests: String,
}

impl Heard {
    fn new(kernel: LabKernel, logs: &Logs) -> Result<Self> {
        Ok(Self {
            kernel,
            started: Instant::now(),
            file: File::create(&logs.output)?,
            step: String::new(),
            ended: Vec::new(),
            release: None,
            boot: None,
            failed: None,
            doctor: String::new(),
            tests: String::new(),
        })
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}")?;
        match Said::read(line) {
            Said::Ready(release) => {
                let boot = self.started.elapsed();
                println!("{}: Linux {release} is up after {:.1} s", self.kernel.name(), boot.as_secs_f64());
                (self.release, self.boot) = (Some(release.to_owned()), Some(boot));
            }
            Said::Begin(step) => step.clone_into(&mut self.step),
            Said::End(step, code) => {
                self.ended.push((step.to_owned(), code));
                self.step.clear();
            }
            Said::Failed(why) => self.failed = Some(why.to_owned()),
            Said::Off => {}
            Said::Output(line) if self.step == DOCTOR => {
                self.doctor.push_str(line);
                self.doctor.push('\n');
            }
            Said::Output(line) => {
                println!("{}: {line}", self.kernel.name());
                self.tests.push_str(line);
                self.tests.push('\n');
            }
        }
        Ok(())
    }

    fn code(&self, step: &str) -> Option<i32> {
        self.ended.iter().find(|(ended, _)| ended == step).map(|(_, code)| *code)
    }

    fn report(self, plan: &Plan, logs: &Logs, end: &End) -> Result<Report> {
        let took = self.started.elapsed();
        let results = match plan.instead {
            Some(_) => Results::default(),
            None => Results::of(&self.tests),
        };
        let mut problems = match (&self.failed, &self.release, ended_badly(end, logs)) {
            (Some(why), _, _) => vec![format!("the guest could not start: {why}")],
            (None, _, Some(problem)) => vec![problem],
            (None, None, None) => vec!["the guest said nothing".to_owned()],
            (None, Some(_), None) => self.step_problems(plan, &results),
        };
        let mut missing = Vec::new();
        if self.code(DOCTOR).is_some() {
            match Diagnosis::read(&self.doctor) {
                Ok(diagnosis) => {
                    fs::write(&logs.doctor, diagnosis.json()).context("keeping the diagnosis")?;
                    let lacking = diagnosis.lacking(&self.kernel.must_have());
                    problems.extend(lacking.iter().map(|what| format!("this kernel must have {what}")));
                    problems.extend(diagnosis.contradicted(&results));
                    problems.extend(support::problem(self.kernel.name(), diagnosis.report()));
                    missing = diagnosis.missing().into_iter().map(str::to_owned).collect();
                }
                Err(error) => problems.push(format!("{error:#}\n{}", self.doctor.trim_end())),
            }
        }
        problems.extend(results.too_many_again());
        problems.extend(verified::problem(self.kernel.name(), &self.tests));
        Ok(Report {
            kernel: self.kernel,
            release: self.release,
            boot: self.boot,
            took,
            missing,
            results,
            problems,
            logs: [logs.console.clone(), logs.output.clone()],
        })
    }

    /// What is wrong with how the tests, or the command instead of them, ended.
    fn step_problems(&self, plan: &Plan, results: &Results) -> Vec<String> {
        if plan.instead.is_some() {
            return match self.code(INSTEAD) {
                Some(0) => Vec::new(),
                Some(code) => vec![format!("the command ended with {code}")],
                None => vec!["the guest ended before the command did".to_owned()],
            };
        }
        let (_, failed, _) = results.counts();
        let mut problems = Vec::new();
        match self.code(TESTS) {
            None => problems.push("the guest ended before the tests did".to_owned()),
            Some(code) if code != 0 && failed == 0 => {
                problems.push(format!("the test program ended with {code}"));
            }
            Some(_) if !results.complete() => problems.push("the test program gave no result".to_owned()),
            Some(_) if results.len() == 0 && plan.filter.is_empty() => {
                problems.push("there were no tests".to_owned());
            }
            Some(_) => {}
        }
        if results.unread() > 0 {
            problems.push(format!("the outcome of {} tests could not be read", results.unread()));
        }
        problems
    }
}
