//! A fault ends: with its lease, when its controller dies, when it is told to, in time; and nothing is left.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use kchaos::kernel::Injection as _;
use nix::sys::signal::Signal;

use crate::{
    Test,
    controller::{self, Ended, Running, exit},
    flow::{Flow, Inflow},
    lab::{Cgroup, Lab},
    snapshot::{Snapshot, left_by},
    tests,
    victim::Victim,
};

/// A lease lasts 3 s (`chaos_common::lease::LEASE_NS`); a busy machine may look a moment late.
pub const LEASE: Duration = Duration::from_millis(3_500);

pub fn tests() -> Vec<Test> {
    tests![
        TCX: sigkill_ends_loss_within_the_lease;
        EGRESS on one kernel: rollback_is_done_before_exit_on_sigterm, rollback_is_done_before_exit_on_stop,
            rollback_is_done_before_exit_on_the_deadline, stop_ends_a_controller_that_does_not_answer,
            loss_that_never_fires_is_invalid, sigstop_ends_loss_within_the_lease,
            a_hung_run_loop_ends_loss_within_two_leases, rollback_is_done_before_exit_on_sigint,
            ctrl_c_while_programs_are_loaded_is_no_error;
        CLSACT: sigkill_of_a_clsact_injection_is_cleaned_up_by_the_watchdog;
        CLSACT on one kernel: sweep_and_the_watchdog_do_not_get_into_each_others_way,
            a_clsact_injection_leaves_the_device_as_it_was;
        INGRESS on one kernel: sigkill_ends_loss_on_ingress
    ]
}

fn sigkill_ends_loss_within_the_lease() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 --on {}", cgroup.target()))?;
    flow.is_shut("during")?;
    let pid = kchaos.pid();
    let killed = Instant::now();
    kchaos.kill()?;
    flow.opens_within(LEASE, killed)?;
    flow.is_open("after")?;
    swept(pid)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

/// A stopped controller renews nothing. Awake again, it goes on: its fault is its own to end.
fn sigstop_ends_loss_within_the_lease() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 --on {}", cgroup.target()))?;
    flow.is_shut("during")?;
    let pid = kchaos.pid();
    let stopped = Instant::now();
    kchaos.signal(Signal::SIGSTOP)?;
    flow.opens_within(LEASE, stopped)?;
    flow.is_open("while the controller is stopped")?;
    kchaos.signal(Signal::SIGCONT)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    flow.is_open("after")?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

/// A run loop that hangs reads no counters any more. Here, nobody ever does after arming.
fn a_hung_run_loop_ends_loss_within_two_leases() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let mut injection = hung::inject(&cgroup, "loss", &[("percent", "100%")])?;
    let armed = Instant::now();
    injection.arm(Duration::from_secs(60))?;
    flow.is_shut("during")?;
    flow.opens_within(LEASE * 2, armed)?;
    flow.is_open("after")?;
    let rollback = injection.rollback();
    ensure!(rollback.is_complete(), "{rollback:?}");
    Ok(())
}

/// Injecting without the program, and so without its run loop.
pub mod hung {
    use anyhow::Context;
    use kchaos::{
        fault::{
            catalogue::find,
            plan::{Options, plan},
            text::Given,
            wanted::wanted,
        },
        kernel::{Kernel, LiveInjection, LiveKernel},
        target,
    };

    use crate::lab::Cgroup;

    /// Attached, not armed.
    pub fn inject(
        cgroup: &Cgroup,
        fault: &str,
        values: &[(&'static str, &str)],
    ) -> anyhow::Result<LiveInjection> {
        let entry = find(fault).context("the catalogue has it")?;
        let given = values.iter().fold(Given::new(entry), |given, (name, value)| given.with(name, value));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let scope = runtime.block_on(target::resolve(&[], &[cgroup.target().parse()?], &[]))?;
        let mut kernel = LiveKernel::default();
        let (faults, options) = ([(entry.build)(&given)?], Options::default());
        let capabilities = kernel.capabilities(&wanted(&faults, &options))?;
        Ok(kernel.inject("hung", &plan(&faults, &scope, &capabilities, &options)?)?)
    }
}

/// `kchaos sweep` forgets a dead controller.
fn swept(controller: i32) -> anyhow::Result<()> {
    let left = left_by(controller)?;
    ensure!(!left.is_empty(), "a SIGKILL leaves a journal, but there is none");
    controller::run("sweep")?.ensure_code(exit::OK)
}

fn sigkill_ends_loss_on_ingress() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Inflow::new(&lab, &victim, 7001)?;
    flow.is_open("before")?;
    let arguments = format!("loss --percent 100 --direction ingress --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    ensure!(flow.lost(100)? == 100, "not everything is lost");
    let pid = kchaos.pid();
    kchaos.kill()?;
    thread::sleep(LEASE);
    flow.is_open("after")?;
    swept(pid)?;
    before.ensure_restored(&lab, &[&cgroup], pid)
}

/// Loses everything, ends it somehow, and finds the way open at the very moment when kchaos has ended.
fn rolls_back(arguments: &str, end: impl FnOnce(Running) -> anyhow::Result<Ended>) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Flow::new(&lab, &victim)?;
    flow.is_open("before")?;
    let kchaos = controller::inject(&format!("loss --percent 100 {arguments} --on {}", cgroup.target()))?;
    ensure!(before != Snapshot::take(&lab, &[&cgroup])?, "a snapshot does not show what is attached");
    flow.is_shut("during")?;
    let pid = kchaos.pid();
    let ended = end(kchaos)?;
    flow.is_open("right after the exit")?;
    ended.ensure_code(exit::OK)?;
    let report = ended.json()?;
    ensure!(report["fired"] == true && report["schema"] == "kchaos-inject/1", "{report}");
    let steps = report["rollback"]["steps"].as_array().context("no rollback in the report")?;
    ensure!(steps.len() >= 2 && steps.iter().all(|step| step["error"].is_null()), "{report}");
    before.ensure_restored(&lab, &[&cgroup], pid)
}

fn rollback_is_done_before_exit_on_sigint() -> anyhow::Result<()> {
    rolls_back("", Running::interrupt)
}

/// A verifier gives up where a signal comes, with an error that means nothing but that.
fn ctrl_c_while_programs_are_loaded_is_no_error() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let _victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    for _ in 0..3 {
        let arguments = format!("inject loss --percent 100 --json --for 30s --on {}", cgroup.target());
        let kchaos = Running::start(controller::command(&arguments))?;
        let pid = kchaos.pid();
        kchaos.wait_until_it_catches(Signal::SIGINT)?;
        let ended = kchaos.ended_by_many(Signal::SIGINT)?;
        ensure!(matches!(ended.code, Some(exit::OK | exit::INVALID)), "{ended:?}");
        before.ensure_restored(&lab, &[&cgroup], pid)?;
    }
    Ok(())
}

fn rollback_is_done_before_exit_on_sigterm() -> anyhow::Result<()> {
    rolls_back("", |kchaos| {
        kchaos.signal(Signal::SIGTERM)?;
        kchaos.ended()
    })
}

fn rollback_is_done_before_exit_on_the_deadline() -> anyhow::Result<()> {
    rolls_back("--for 2s", Running::ended)
}

fn rollback_is_done_before_exit_on_stop() -> anyhow::Result<()> {
    rolls_back("", |kchaos| {
        let id = id_of(kchaos.pid())?;
        controller::run("stop nonesuch")?.ensure_refused(&["there is no injection `nonesuch`"])?;
        let stopped = controller::run(&format!("stop {id}"))?;
        stopped.ensure_code(exit::OK)?;
        ensure!(stopped.output.contains("stopped"), "{}", stopped.output);
        kchaos.ended()
    })
}

/// The id that `kchaos status` shows.
fn id_of(controller: i32) -> anyhow::Result<String> {
    let entries = controller::run("status --json")?.json()?;
    let entries = entries.as_array().context("status is no list")?;
    let own = entries.iter().find(|entry| entry["pid"] == controller).context("status does not list it")?;
    Ok(own["id"].as_str().context("it has no id")?.to_owned())
}

/// A stopped controller hears SIGTERM once it is continued, which `stop` does.
fn stop_ends_a_controller_that_does_not_answer() -> anyhow::Result<()> {
    rolls_back("", |kchaos| {
        let id = id_of(kchaos.pid())?;
        kchaos.signal(Signal::SIGSTOP)?;
        controller::run(&format!("stop {id}"))?.ensure_code(exit::OK)?;
        kchaos.ended()
    })
}

fn loss_that_never_fires_is_invalid() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    let kchaos = controller::inject(&format!("loss --percent 100 --ports 9 --on {}", cgroup.target()))?;
    flow.is_open("during")?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::INVALID)?;
    ensure!(ended.json()?["fired"] == false, "{}", ended.output);
    flow.is_open("after")
}

/// A tc filter survives its controller. The lease ends what it does; then it goes, with the qdisc that was
/// made for it.
fn sigkill_of_a_clsact_injection_is_cleaned_up_by_the_watchdog() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let mut flow = Flow::new(&lab, &victim)?;
    let arguments = format!("loss --percent 100 --mechanism clsact-egress --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    flow.is_shut("during")?;
    let pid = kchaos.pid();
    let killed = Instant::now();
    kchaos.kill()?;
    flow.opens_within(LEASE, killed)?;
    while before.ensure_restored(&lab, &[&cgroup], pid).is_err() && killed.elapsed() < LEASE {
        thread::sleep(Duration::from_millis(50));
    }
    before.ensure_restored(&lab, &[&cgroup], pid)?;
    controller::run("sweep")?.ensure_code(exit::OK)?;
    flow.is_open("after")
}

/// Both undo the same things at the same time.
fn sweep_and_the_watchdog_do_not_get_into_each_others_way() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let _victim = Victim::start(&lab, &cgroup)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let arguments = format!("loss --percent 100 --mechanism clsact-egress --on {}", cgroup.target());
    for _ in 0..3 {
        let kchaos = controller::inject(&arguments)?;
        let pid = kchaos.pid();
        kchaos.kill()?;
        controller::run("sweep")?.ensure_code(exit::OK)?;
        before.ensure_restored(&lab, &[&cgroup], pid)?;
    }
    Ok(())
}

fn a_clsact_injection_leaves_the_device_as_it_was() -> anyhow::Result<()> {
    rolls_back("--mechanism clsact-egress", Running::interrupt)
}
